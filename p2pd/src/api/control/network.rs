//! Joining the network of a maestro, and leaving it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use p2p_proto::control::{JoinAnswer, JoinRequest, LeaveQuery};
use p2p_service::problem::{ApiJson, ApiQuery, Problem};

use crate::api::{Api, problems};

/// Joins the network of a maestro, and pins its identity.
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
    Ok(Json(api.maestros.join(request).await?))
}

/// Leaves one maestro, or all of them. Files and friends stay.
#[utoipa::path(
    delete,
    path = "/v1/network",
    params(("address" = Option<String>, Query, description = "Only this maestro, as it was joined.")),
    responses((status = 204, description = "This peer has no such maestro any more."))
)]
pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<LeaveQuery>,
) -> Result<StatusCode, Problem> {
    if !api.maestros.is_any() {
        return Err(problems::no_maestro());
    }
    api.maestros.leave(query.address.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
