//! The directories that this peer offers, added and removed by its users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use p2p_proto::control::{AddShare, ShareList, ShareRow};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, ApiPath, Problem};

use crate::api::{Api, own, problems};

/// The directories that this peer offers.
#[utoipa::path(get, path = "/v1/shares", operation_id = "list_shares", responses((status = 200, body = ShareList)))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<ShareList>, Problem> {
    Ok(Json(ShareList { shares: own::shares(&api).await? }))
}

/// Shares another directory, at once and after every restart.
///
/// Root, and the user that the daemon runs as, may share any directory; another caller one that it owns, and not for
/// downloads. What is not the caller's to share is refused with 403, `share-not-yours`.
#[utoipa::path(
    post,
    path = "/v1/shares",
    operation_id = "add_share",
    request_body = AddShare,
    responses((status = 201, description = "It is shared.", body = ShareRow))
)]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiJson(request): ApiJson<AddShare>,
) -> Result<impl IntoResponse, Problem> {
    let added = api.shares.add(request, caller.uid).await?;
    let row = own::shares(&api).await?.into_iter().find(|row| row.name == added.name);
    let gone = || problems::internal("the share was removed while it was added");
    Ok((StatusCode::CREATED, Json(row.ok_or_else(gone)?)))
}

/// Shares a directory no more that was added before, by whomever. Its files stay.
#[utoipa::path(
    delete,
    path = "/v1/shares/{name}",
    operation_id = "remove_share",
    params(("name" = String, Path, description = "The share's name.")),
    responses((status = 204, description = "It is not shared any more."))
)]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    ApiPath(name): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    api.shares.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
