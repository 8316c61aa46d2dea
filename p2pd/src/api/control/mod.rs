//! The control API: HTTP and JSON on a Unix socket, for `p2pctl`.
//!
//! Whoever may open the socket may do nearly everything, so little is checked here but the sense of a request: only what
//! a caller may share, which `shares` decides. Each request is logged with its caller.

mod config;
mod contents;
mod doctor;
mod document;
mod files;
mod friends;
mod limits;
mod network;
mod sends;
mod shares;
mod status;
mod transfers;
mod trees;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use p2p_service::http::with_fallbacks;

use super::routes::{self, Route};
use super::{Api, access};

/// No request of this API needs more JSON; the longest part of one is a join token. Files are streamed and have no limit.
const MAX_JSON_LEN: usize = 256 * 1024;

/// The router.
pub(super) fn router(api: Arc<Api>) -> Router {
    with_fallbacks(routes::router(routes()))
        .layer(DefaultBodyLimit::max(MAX_JSON_LEN))
        .layer(from_fn(access::text_only))
        .layer(from_fn(access::log))
        .with_state(api)
}

fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/status", status::status),
        Route::get("/v1/doctor", doctor::examine),
        Route::get("/v1/shares", shares::list),
        Route::post("/v1/shares", shares::add),
        Route::delete("/v1/shares/{name}", shares::remove),
        Route::get("/v1/config", config::show),
        Route::post("/v1/refresh", status::refresh),
        Route::get("/v1/files", files::list),
        Route::get("/v1/locate", files::locate),
        Route::get("/v1/contents/{hash}", contents::read),
        Route::get("/v1/fetch", transfers::look),
        Route::get("/v1/transfers", transfers::list),
        Route::post("/v1/transfers", transfers::fetch),
        Route::get("/v1/transfers/{id}", transfers::show),
        Route::delete("/v1/transfers/{id}", transfers::cancel),
        Route::post("/v1/transfers/{id}/pause", transfers::pause),
        Route::post("/v1/transfers/{id}/resume", transfers::resume),
        Route::post("/v1/transfers/{id}/priority", transfers::prioritize),
        Route::get("/v1/transfers/{id}/events", transfers::events),
        Route::get("/v1/trees", trees::look),
        Route::post("/v1/trees", trees::fetch),
        Route::get("/v1/transfers/{id}/why", transfers::why),
        Route::get("/v1/limits", limits::show),
        Route::post("/v1/limits", limits::set),
        Route::get("/v1/peers", friends::peers),
        Route::get("/v1/friends", friends::list),
        Route::post("/v1/friends", friends::add),
        Route::delete("/v1/friends/{who}", friends::remove),
        Route::post("/v1/sends", sends::send),
        Route::get("/v1/sends/{id}/events", sends::events),
        Route::put("/v1/network", network::join),
        Route::delete("/v1/network", network::leave),
        Route::get("/openapi.json", document::show),
    ]
}
