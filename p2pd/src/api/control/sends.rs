//! Files on their way to others.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use p2p_content::FileName;
use p2p_proto::control::{SendQuery, SendState, Sending};
use p2p_service::problem::{ApiPath, ApiQuery, Problem};

use crate::api::openapi::FileBytes;
use crate::api::{Api, events, problems};

/// Sends a file, which is the body, to a peer.
#[utoipa::path(
    post,
    path = "/v1/sends",
    request_body(content = FileBytes, content_type = "application/octet-stream"),
    responses((status = 201, description = "The peer was asked.", body = Sending))
)]
pub(super) async fn send(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<SendQuery>,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let name = FileName::parse(&query.name).map_err(|error| problems::invalid_name(&error))?;
    let peer = api.locator.find_peer(&query.peer).await?;
    let sending = api.sends.send(peer, name, body.into_data_stream()).await?;
    Ok((StatusCode::CREATED, Json(sending)))
}

/// How a file gets on with its receiver: its state now, then each that it has come to, and the last one.
#[utoipa::path(
    get,
    path = "/v1/sends/{id}/events",
    operation_id = "send_events",
    params(("id" = u64, Path, description = "The sending's number.")),
    responses((
        status = 200,
        description = "Server-sent events; the data of each is a sending.",
        body = Sending,
        content_type = "text/event-stream"
    ))
)]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    ApiPath(id): ApiPath<u64>,
) -> Result<impl IntoResponse, Problem> {
    let states = api.sends.watch(id).ok_or_else(|| problems::send_unknown(id))?;
    let ended = |sending: &Sending| matches!(sending.state, SendState::Delivered | SendState::Refused);
    Ok(events::answer(states, ended, api.shutdown.clone()))
}
