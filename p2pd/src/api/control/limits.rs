//! How fast file data goes out and comes in, at the most.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use p2p_identity::PeerId;
use p2p_proto::control::{LimitsAnswer, PeerName, SetLimits};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, Problem};

use crate::api::{Api, problems};
use crate::discovery::FindPeerError;

/// The limits in force.
#[utoipa::path(get, path = "/v1/limits", operation_id = "show_limits", responses((status = 200, body = LimitsAnswer)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<LimitsAnswer> {
    Json(api.limits.answer())
}

/// Sets limits, at once and over restarts.
///
/// They go before the configured ones. Those of one peer hold beside those of all together. What peers fetch from each other in pieces counts; REST and the whole files of the
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
    let peer = match &request.peer {
        Some(text) => Some(find_peer(&api, text).await?),
        None => None,
    };
    let (limits, of_peer) = (api.limits.clone(), peer.clone());
    let set = move || match of_peer {
        Some(peer) => limits.set_peer(&peer, &request),
        None => limits.set(&request),
    };
    tokio::task::spawn_blocking(set).await.map_err(problems::internal)??;
    let answer = api.limits.answer();
    if let Some(PeerName { peer_id, name }) = peer {
        let now = answer.peers.iter().find(|limit| limit.peer.peer_id == peer_id);
        let (up, down) = now.map_or((0, 0), |limit| (limit.up_bytes_per_sec, limit.down_bytes_per_sec));
        tracing::info!(
            caller_uid = caller.uid,
            caller_pid = caller.pid,
            peer_id,
            peer = name,
            "the limits of the peer {name} are now {up} bytes/s up and {down} bytes/s down (0 is none), says user {}",
            caller.uid
        );
        return Ok(Json(answer));
    }
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

/// Whom a limit is for. One that is set already is found by the name that the peer had then, and whoever is not known
/// can be named by the whole ID.
async fn find_peer(api: &Api, text: &str) -> Result<PeerName, Problem> {
    let unknown = match api.locator.find_peer(text).await {
        Ok(peer) => {
            let peer_id = peer.id().map(|id| id.to_string()).ok_or_else(|| problems::no_identity(text))?;
            return Ok(PeerName { peer_id: Some(peer_id), name: peer.name().to_owned() });
        }
        Err(error @ FindPeerError::Ambiguous { .. }) => return Err(error.into()),
        Err(error) => error,
    };
    if let Some(known) = api.limits.find_peer(text) {
        return Ok(known);
    }
    let id: PeerId = text.parse().map_err(|_| Problem::from(unknown))?;
    Ok(PeerName { peer_id: Some(id.to_string()), name: id.short() })
}
