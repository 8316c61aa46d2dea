//! The other peers, and those among them that this peer's user trusts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use p2p_proto::control::{AddFriend, Friend, FriendList, PeerList};
use p2p_service::problem::{ApiJson, ApiPath, Problem};

use crate::api::{Api, problems};

/// This peer, the members of its network, its friends, and plain peers.
#[utoipa::path(get, path = "/v1/peers", responses((status = 200, body = PeerList)))]
pub(super) async fn peers(State(api): State<Arc<Api>>) -> Json<PeerList> {
    let (peers, incomplete) = api.locator.peers().await;
    Json(PeerList { peers, incomplete })
}

/// The friends.
#[utoipa::path(get, path = "/v1/friends", operation_id = "list_friends", responses((status = 200, body = FriendList)))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<FriendList> {
    Json(FriendList { friends: api.friends.list() })
}

/// Trusts a peer: who answers at an address, or one that the maestro knows.
#[utoipa::path(
    post,
    path = "/v1/friends",
    operation_id = "add_friend",
    request_body = AddFriend,
    responses((status = 201, description = "It is a friend.", body = Friend))
)]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    ApiJson(request): ApiJson<AddFriend>,
) -> Result<impl IntoResponse, Problem> {
    Ok((StatusCode::CREATED, Json(api.friends.add(request).await?)))
}

/// Trusts a friend no longer.
#[utoipa::path(
    delete,
    path = "/v1/friends/{who}",
    operation_id = "remove_friend",
    params(("who" = String, Path, description = "The friend's name, or its peer ID or the beginning of it.")),
    responses((status = 204, description = "It is no friend any more."))
)]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    ApiPath(who): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    let friends = api.friends.clone();
    // The list is written to the disk before the call returns.
    let removed = tokio::task::spawn_blocking(move || friends.remove(&who)).await;
    removed.map_err(problems::internal)??;
    Ok(StatusCode::NO_CONTENT)
}
