//! What is wrong with this peer, if anything.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_proto::control::Doctor;

use crate::api::Api;

/// Examines this peer now: its key, disks and shares, its maestro, and whether others can connect. Takes up to 10 s.
#[utoipa::path(get, path = "/v1/doctor", operation_id = "doctor", responses((status = 200, body = Doctor)))]
pub(super) async fn examine(State(api): State<Arc<Api>>) -> Json<Doctor> {
    Json(api.doctor.examine().await)
}
