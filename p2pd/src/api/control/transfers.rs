//! What is being fetched.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use p2p_content::FileName;
use p2p_proto::control::{FetchAnswer, FetchQuery, FetchRequest, SetPriority, Transfer, TransferList, Why};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, ApiPath, ApiQuery, Problem};

use crate::api::{Api, events, problems};
use crate::discovery::Query;
use crate::transfer::{AskedBy, FetchOrder, FileFound};

/// The transfers, the newest first.
#[utoipa::path(get, path = "/v1/transfers", operation_id = "list_transfers", responses((status = 200, body = TransferList)))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<TransferList> {
    Json(TransferList { transfers: api.transfers.list() })
}

/// What fetching a file comes to: its size, who has it, where it would land. Nothing is fetched.
///
/// What would be refused is refused here.
#[utoipa::path(get, path = "/v1/fetch", operation_id = "look_at_file", responses((status = 200, body = FetchAnswer)))]
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiQuery(FetchQuery { what, from, save_as }): ApiQuery<FetchQuery>,
) -> Result<Json<FetchAnswer>, Problem> {
    let order = order_of(&api, caller, FetchRequest { what, from, save_as, priority: None }).await?;
    let found = api.transfers.look_at_file(&order).await?;
    Ok(Json(answer_of(&order.what, found)))
}

/// Fetches a file. The answer does not wait for it: see the transfer's events.
#[utoipa::path(
    post,
    path = "/v1/transfers",
    request_body = FetchRequest,
    responses((status = 201, description = "The transfer is kept, and goes on by itself.", body = Transfer))
)]
pub(super) async fn fetch(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiJson(request): ApiJson<FetchRequest>,
) -> Result<impl IntoResponse, Problem> {
    let order = order_of(&api, caller, request).await?;
    let transfer = api.transfers.fetch(order).await?;
    let location = format!("/v1/transfers/{}", transfer.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(transfer)))
}

async fn order_of(api: &Api, caller: UnixCaller, request: FetchRequest) -> Result<FetchOrder, Problem> {
    let what = Query::parse(&request.what).map_err(|error| problems::invalid_name(&error))?;
    let save_as = request.save_as.as_deref().map(FileName::parse).transpose();
    let save_as = save_as.map_err(|error| problems::invalid_name(&error))?;
    let from = match &request.from {
        Some(peer) => Some(api.locator.find_peer(peer).await?),
        None => None,
    };
    Ok(FetchOrder { what, from, save_as, priority: request.priority, by: asked_by(caller) })
}

fn answer_of(what: &Query, found: FileFound) -> FetchAnswer {
    FetchAnswer {
        what: what.to_string(),
        name: found.name.into(),
        content: found.content.map(|content| content.to_string()),
        size: found.size,
        here: found.is_here,
        path: found.path,
        transfer: found.under_way,
        sources: found.sources.iter().map(Into::into).collect(),
        free_bytes: found.free_bytes,
        incomplete: found.incomplete,
    }
}

/// One transfer.
#[utoipa::path(
    get,
    path = "/v1/transfers/{id}",
    operation_id = "show_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((status = 200, body = Transfer))
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    ApiPath(id): ApiPath<u64>,
) -> Result<Json<Transfer>, Problem> {
    api.transfers.get(id).map(Json).ok_or_else(|| problems::transfer_unknown(id))
}

/// What bounds a transfer now, with what was measured.
///
/// Of one that has ended, what bounded it, as far as that is still known.
#[utoipa::path(
    get,
    path = "/v1/transfers/{id}/why",
    operation_id = "why_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((status = 200, body = Why))
)]
pub(super) async fn why(
    State(api): State<Arc<Api>>,
    ApiPath(id): ApiPath<u64>,
) -> Result<Json<Why>, Problem> {
    api.transfers.why(id).map(Json).ok_or_else(|| problems::transfer_unknown(id))
}

/// Ends a transfer, and forgets what it has so far.
///
/// One that has ended already is refused with 409.
#[utoipa::path(
    delete,
    path = "/v1/transfers/{id}",
    operation_id = "cancel_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((status = 200, body = Transfer))
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiPath(id): ApiPath<u64>,
) -> Result<Json<Transfer>, Problem> {
    Ok(Json(api.transfers.cancel(id, &asked_by(caller)).await?))
}

/// Pauses a transfer until it is resumed, over restarts too. What it has stays.
///
/// One that has ended is refused with 409.
#[utoipa::path(
    post,
    path = "/v1/transfers/{id}/pause",
    operation_id = "pause_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((status = 200, body = Transfer))
)]
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiPath(id): ApiPath<u64>,
) -> Result<Json<Transfer>, Problem> {
    Ok(Json(api.transfers.hold(id, true, &asked_by(caller)).await?))
}

/// Lets a transfer that was paused go on.
///
/// One that was not is left as it is; one that has ended is refused with 409.
#[utoipa::path(
    post,
    path = "/v1/transfers/{id}/resume",
    operation_id = "resume_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((status = 200, body = Transfer))
)]
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiPath(id): ApiPath<u64>,
) -> Result<Json<Transfer>, Problem> {
    Ok(Json(api.transfers.hold(id, false, &asked_by(caller)).await?))
}

/// Gives a transfer another priority, at once and over restarts.
///
/// Of those that want to run, the ones of higher priority go first, and then the older ones. One that waits makes one of
/// lower priority that runs yield its turn. One that has ended is refused with 409.
#[utoipa::path(
    post,
    path = "/v1/transfers/{id}/priority",
    operation_id = "prioritize_transfer",
    params(("id" = u64, Path, description = "The transfer's number.")),
    request_body = SetPriority,
    responses((status = 200, body = Transfer))
)]
pub(super) async fn prioritize(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiPath(id): ApiPath<u64>,
    ApiJson(request): ApiJson<SetPriority>,
) -> Result<Json<Transfer>, Problem> {
    Ok(Json(api.transfers.prioritize(id, request.priority, &asked_by(caller)).await?))
}

pub(super) fn asked_by(caller: UnixCaller) -> AskedBy {
    AskedBy::User { uid: caller.uid, pid: caller.pid }
}

/// How a transfer goes on: its state now, then each that it has come to, and the last one.
#[utoipa::path(
    get,
    path = "/v1/transfers/{id}/events",
    operation_id = "transfer_events",
    params(("id" = u64, Path, description = "The transfer's number.")),
    responses((
        status = 200,
        description = "Server-sent events; the data of each is a transfer.",
        body = Transfer,
        content_type = "text/event-stream"
    ))
)]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    ApiPath(id): ApiPath<u64>,
) -> Result<impl IntoResponse, Problem> {
    let states = api.transfers.watch(id).ok_or_else(|| problems::transfer_unknown(id))?;
    Ok(events::answer(states, |transfer| transfer.state.is_ended(), api.shutdown.clone()))
}
