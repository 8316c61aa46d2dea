//! The configuration in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_proto::control::{ConfigAnswer, ConfigNow, Limit};

use crate::api::Api;

/// The configuration in force, and where each value comes from. Nothing in it is secret.
///
/// What users set by command, shares and limits, is no part of it; but of a limit, what holds now is told beside it.
#[utoipa::path(get, path = "/v1/config", operation_id = "show_config", responses((status = 200, body = ConfigAnswer)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<ConfigAnswer> {
    let mut answer = api.in_force.answer();
    let limits = api.limits.answer();
    for (key, limit) in [("limits.up_bytes_per_sec", limits.up), ("limits.down_bytes_per_sec", limits.down)] {
        if let Some(entry) = answer.entries.iter_mut().find(|entry| entry.key == key) {
            entry.now = now(limit);
        }
    }
    Json(answer)
}

fn now(limit: Limit) -> Option<ConfigNow> {
    let why = match limit.scheduled {
        _ if limit.is_set => "p2pctl limit".to_owned(),
        Some(period) => format!("the schedule, {period}"),
        None => return None,
    };
    Some(ConfigNow { value: limit.bytes_per_sec.into(), why })
}
