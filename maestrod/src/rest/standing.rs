//! How the maestro stands: `GET /status` for people and scripts, `GET /metrics` for Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use p2p_service::problem::Problem;

use super::{RestState, problem_of};
use crate::census::Standing;
use crate::directory::DirectoryError;
use crate::metrics::{MEDIA_TYPE, Metrics};
use crate::status::{PeerCounts, Status};

/// What the directory holds, in numbers.
#[utoipa::path(
    get,
    path = "/status",
    responses((status = 200, description = "The numbers.", body = Status))
)]
pub(super) async fn status(State(state): State<Arc<RestState>>) -> Result<Json<Status>, Problem> {
    let standing = state.census.standing().await.map_err(problem_of)?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        maestro_id: state.maestro_id.to_string(),
        uptime_secs: state.started.elapsed().as_secs(),
        peers: PeerCounts {
            connected: standing.connected,
            here: standing.held.peers_here,
            known: standing.held.peers_known,
        },
        files: standing.held.files,
        bytes: standing.held.bytes,
        contents: standing.contents,
        database_bytes: standing.held.database_bytes,
        names_unindexed: standing.held.names_unindexed,
    }))
}

/// The same and what was counted, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((
        status = 200,
        description = "Metrics in the OpenMetrics text format.",
        content_type = "application/openmetrics-text",
        body = String
    ))
)]
pub(super) async fn metrics(State(state): State<Arc<RestState>>) -> Result<Response, Problem> {
    let standing = match state.census.standing().await {
        Ok(standing) => Some(standing),
        // That it cannot be reached is what the metrics have to say then.
        Err(DirectoryError::Unavailable(_)) => None,
        Err(error) => return Err(problem_of(error)),
    };
    Ok(metrics_of(&state.metrics, standing.as_ref()))
}

/// What was counted; `None` for the rest where the database cannot be reached.
pub(super) fn metrics_of(metrics: &Metrics, standing: Option<&Standing>) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], metrics.text(standing)).into_response()
}
