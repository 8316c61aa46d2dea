//! How this peer is, and the wish that it look again.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use p2p_proto::control::{RefreshAnswer, Status};
use p2p_service::problem::Problem;

use crate::api::Api;

/// How long a refresh waits for the maestro.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(5);

/// How this peer is.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, Problem> {
    let totals = api.catalog.totals().await?;
    let open = api.transfers.list().iter().filter(|transfer| !transfer.state.is_ended()).count();
    Ok(Json(Status {
        peer_id: api.identity.to_string(),
        name: api.facts.name.clone(),
        version: api.facts.version.clone(),
        pid: std::process::id(),
        started_ms: api.facts.started_ms,
        state_dir: api.facts.state_dir.display().to_string(),
        rest: api.facts.rest_addr.to_string(),
        grpc: api.facts.grpc_addr.to_string(),
        maestro: api.maestros.best(),
        maestros: api.maestros.status(),
        files: totals.files,
        bytes: totals.bytes,
        files_pending: api.shares.rows().iter().map(|share| share.pending).sum(),
        friends: api.friends.list().len() as u64,
        transfers_open: open as u64,
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
        loops: (api.loops)(),
    }))
}

/// Looks at the shared directories now, and waits up to 5 s until the maestro has what was found.
#[utoipa::path(post, path = "/v1/refresh", responses((status = 200, body = RefreshAnswer)))]
pub(super) async fn refresh(State(api): State<Arc<Api>>) -> Result<Json<RefreshAnswer>, Problem> {
    let found = api.shares.refresh().await?;
    let (announced, detail) = match api.maestros.is_any() {
        false => (None, None),
        true => match api.maestros.announced(found.last_sequence, ANNOUNCE_WAIT).await {
            Ok(()) => (Some(true), None),
            Err(why) => (Some(false), Some(why)),
        },
    };
    Ok(Json(RefreshAnswer {
        files: found.files,
        changed: found.changed,
        removed: found.removed,
        announced,
        detail,
    }))
}
