//! Whole directories of the network, fetched by one transfer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use p2p_proto::control::{PeerName, Transfer, TreeAnswer, TreeConflict, TreeQuery, TreeRequest};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, ApiQuery, Problem};

use super::transfers::asked_by;
use crate::api::Api;
use crate::discovery::PeerRef;
use crate::transfer::{Conflict, Pattern, TreeFound, TreeOrder};

/// What fetching a directory comes to: its files, their bytes, who has them. Nothing is fetched.
#[utoipa::path(get, path = "/v1/trees", operation_id = "look_at_tree", responses((status = 200, body = TreeAnswer)))]
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiQuery(TreeQuery { what, from }): ApiQuery<TreeQuery>,
) -> Result<Json<TreeAnswer>, Problem> {
    let order = order_of(&api, caller, TreeRequest { what, from, priority: None }).await?;
    let found = api.transfers.look_at_tree(&order).await?;
    Ok(Json(answer_of(order.what.text(), found)))
}

/// Fetches a directory. The answer comes once it is known which files that are, and does not wait for them.
///
/// Names that stand for several contents, or for another file here, are refused with 409 before anything is fetched.
#[utoipa::path(
    post,
    path = "/v1/trees",
    operation_id = "fetch_tree",
    request_body = TreeRequest,
    responses((status = 201, description = "The transfer is kept, and goes on by itself.", body = Transfer))
)]
pub(super) async fn fetch(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiJson(request): ApiJson<TreeRequest>,
) -> Result<impl IntoResponse, Problem> {
    let order = order_of(&api, caller, request).await?;
    let transfer = api.transfers.fetch_tree(order).await?;
    let location = format!("/v1/transfers/{}", transfer.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(transfer)))
}

async fn order_of(api: &Api, caller: UnixCaller, request: TreeRequest) -> Result<TreeOrder, Problem> {
    let what = Pattern::parse(&request.what)?;
    let from = match &request.from {
        Some(peer) => Some(api.locator.find_peer(peer).await?),
        None => None,
    };
    Ok(TreeOrder { what, from, priority: request.priority, by: asked_by(caller) })
}

fn answer_of(what: &str, found: TreeFound) -> TreeAnswer {
    let conflict = |conflict: Conflict| TreeConflict {
        name: conflict.name.into(),
        here: conflict.here,
        contents: conflict.contents.iter().map(ToString::to_string).collect(),
    };
    let peer = |peer: PeerRef| PeerName {
        peer_id: peer.id().map(|id| id.to_string()),
        name: peer.name().to_owned(),
    };
    TreeAnswer {
        what: what.to_owned(),
        files: found.files,
        bytes: found.bytes,
        here_files: found.here_files,
        here_bytes: found.here_bytes,
        unproven_files: found.unproven,
        conflicts: found.conflicts,
        first_conflicts: found.first_conflicts.into_iter().map(conflict).collect(),
        sources: found.sources.into_iter().map(peer).collect(),
        free_bytes: found.free_bytes,
        incomplete: found.incomplete,
    }
}
