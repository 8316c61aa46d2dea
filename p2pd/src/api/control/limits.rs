//! How fast file data goes out and comes in, at the most.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use p2p_proto::control::{LimitsAnswer, SetLimits};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, Problem};

use crate::api::{Api, problems};

/// The limits in force.
#[utoipa::path(get, path = "/v1/limits", operation_id = "show_limits", responses((status = 200, body = LimitsAnswer)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<LimitsAnswer> {
    Json(api.limits.answer())
}

/// Sets limits, at once and over restarts.
///
/// They go before the configured ones. What peers fetch from each other in pieces counts; REST and the whole files of the
/// first system do not.
#[utoipa::path(
    post,
    path = "/v1/limits",
    operation_id = "set_limits",
    request_body = SetLimits,
    responses((status = 200, body = LimitsAnswer))
)]
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiJson(request): ApiJson<SetLimits>,
) -> Result<Json<LimitsAnswer>, Problem> {
    let limits = api.limits.clone();
    let set = tokio::task::spawn_blocking(move || limits.set(&request)).await.map_err(problems::internal)?;
    set.map_err(|error| problems::of_io(&error))?;
    let answer = api.limits.answer();
    tracing::info!(
        caller_uid = caller.uid,
        caller_pid = caller.pid,
        "the limits are now {} bytes/s up and {} bytes/s down (0 is none), says user {}",
        answer.up.bytes_per_sec,
        answer.down.bytes_per_sec,
        caller.uid
    );
    Ok(Json(answer))
}
