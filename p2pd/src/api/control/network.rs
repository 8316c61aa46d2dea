//! Joining the network of a maestro, and leaving it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use p2p_proto::control::{JoinAnswer, JoinRequest};
use p2p_service::problem::{ApiJson, Problem};

use crate::api::{Api, problems};

/// Joins a network, and pins its maestro's identity.
#[utoipa::path(
    put,
    path = "/v1/network",
    request_body = JoinRequest,
    responses((status = 200, body = JoinAnswer))
)]
pub(super) async fn join(
    State(api): State<Arc<Api>>,
    ApiJson(request): ApiJson<JoinRequest>,
) -> Result<Json<JoinAnswer>, Problem> {
    Ok(Json(api.maestro.join(request).await?))
}

/// Leaves the network. Files and friends stay.
#[utoipa::path(
    delete,
    path = "/v1/network",
    responses((status = 204, description = "This peer has no maestro any more."))
)]
pub(super) async fn leave(State(api): State<Arc<Api>>) -> Result<StatusCode, Problem> {
    if api.maestro.status().is_none() {
        return Err(problems::no_maestro());
    }
    api.maestro.leave().await?;
    Ok(StatusCode::NO_CONTENT)
}
