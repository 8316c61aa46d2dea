//! The configuration in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_proto::control::ConfigAnswer;

use crate::api::Api;

/// The configuration in force, and where each value comes from. Nothing in it is secret.
///
/// What users set by command, shares and limits, is no part of it.
#[utoipa::path(get, path = "/v1/config", operation_id = "show_config", responses((status = 200, body = ConfigAnswer)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<ConfigAnswer> {
    Json(api.in_force.answer())
}
