//! The REST edge: the first system's interface to the directory, and what was added to it.
//!
//! Every answer that is not the one asked for is a problem document. The interface has no login; it is kept to this
//! machine by where it listens, and from web pages by the guard.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use p2p_identity::PeerId;
use p2p_proto::rest::MaestroRoot;
use p2p_service::http::{LocalOnly, with_fallbacks};
use p2p_service::problem::Problem;
use p2p_service::tasks::Tasks;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use utoipa::ToSchema;

use crate::census::Census;
use crate::config::Config;
use crate::directory::cursor::InvalidCursor;
use crate::directory::{Directory, DirectoryError};
use crate::metrics::Metrics;
use crate::presence::Presence;

mod document;
mod edge;
mod limits;
mod listings;
mod register;
mod search;
mod standing;
mod waiting;

use edge::Edge;
use limits::Limits;
pub(crate) use waiting::say_unavailable;

/// Lists that are made at once. What the database's threads read faster than it can be written down would lie in memory.
const LISTS_AT_ONCE: usize = 2;

/// What the handlers need. All of them share it, since each request has a handle to it.
pub(crate) struct RestState {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) presence: Presence,
    pub(crate) settings: watch::Receiver<Arc<Config>>,
    pub(crate) maestro_id: PeerId,
    pub(crate) census: Census,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
}

/// A path, its method, and who answers it: kept as data so that the OpenAPI document can be compared with it.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the router has it in the handler"))]
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<RestState>>,
}

impl Route {
    fn get<H: Handler<T, Arc<RestState>>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route { method: Method::GET, path, handler: get(handler) }
    }

    /// One whose answers may be long: so many of them are made at once as have a turn.
    fn list<H: Handler<T, Arc<RestState>>, T: 'static>(
        path: &'static str,
        handler: H,
        turns: &Arc<Semaphore>,
    ) -> Route {
        let handler = get(handler).layer(middleware::from_fn_with_state(Arc::clone(turns), in_turn));
        Route { method: Method::GET, path, handler }
    }
}

fn routes(limits: &Limits, max_body_bytes: usize) -> Vec<Route> {
    let register = post(register::register)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(middleware::from_fn_with_state(limits.clone(), limits::limit_registrations));
    let turns = Arc::new(Semaphore::new(LISTS_AT_ONCE));
    vec![
        Route::get("/", root),
        Route::list("/peers", listings::peers, &turns),
        Route::list("/directory", listings::directory, &turns),
        Route::list("/files", listings::files, &turns),
        Route::get("/locate", search::locate),
        Route::list("/search", search::search, &turns),
        Route::list("/contents", search::contents, &turns),
        Route::get("/contents/{content}", search::content),
        Route { method: Method::POST, path: "/register", handler: register },
        Route::get("/status", standing::status),
        Route::get("/metrics", standing::metrics),
        Route::get("/healthz", healthz),
        Route::get("/openapi.json", document::show),
    ]
}

/// The whole interface, for callers by `local`'s names.
pub(crate) fn router(state: RestState, local: LocalOnly, tasks: &Tasks) -> Router {
    let limits = Limits::new(state.settings.clone(), Arc::clone(&state.metrics));
    let max_body_bytes = state.settings.borrow().rest.max_body_bytes as usize;
    let routes = routes(&limits, max_body_bytes).into_iter();
    let router =
        routes.fold(Router::from(document::page()), |router, route| router.route(route.path, route.handler));
    let edge = Arc::new(Edge::new(local, limits, tasks.clone()));
    with_fallbacks(router).layer(middleware::from_fn_with_state(edge, edge::pass)).with_state(Arc::new(state))
}

/// `GET /healthz`.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: String,
}

/// What this is, and how many peers are here.
#[utoipa::path(get, path = "/", responses((status = 200, description = "Who answers.", body = MaestroRoot)))]
async fn root(State(state): State<Arc<RestState>>) -> Result<Json<MaestroRoot>, Problem> {
    let totals = state.directory.totals().await.map_err(problem_of)?;
    Ok(Json(MaestroRoot {
        message: "Servidor Maestro P2P".to_owned(),
        status: "activo".to_owned(),
        peers_registrados: totals.peers,
        maestro_id: state.maestro_id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// Whether the directory answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.", body = Health)))]
async fn healthz(State(state): State<Arc<RestState>>) -> Result<Json<Health>, Problem> {
    match state.directory.totals().await {
        Ok(_) => Ok(Json(Health { status: "ok".to_owned() })),
        Err(error @ (DirectoryError::Unavailable(_) | DirectoryError::Busy(_))) => Err(problem_of(error)),
        Err(error) => Err(Problem::unavailable("directory-failed", error.to_string())),
    }
}

/// Makes a list when it has its turn.
async fn in_turn(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    // It is never closed; if it were, nobody would have to wait.
    let _turn = turns.acquire().await;
    next.run(request).await
}

fn problem_of(error: DirectoryError) -> Problem {
    // Of a database that cannot be reached the store tells once.
    if matches!(error, DirectoryError::Full(_) | DirectoryError::Failed(_) | DirectoryError::Superseded) {
        tracing::error!(%error, "the directory failed: {error}; look at the disk of the state directory");
    }
    match error {
        DirectoryError::Full(_) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "There is no space left")
                .detail(error.to_string())
                .hint("free some space on the disk of the maestro's state directory")
        }
        DirectoryError::Unavailable(_) => Problem::unavailable("directory-unavailable", error.to_string())
            .hint("it is tried again with every request; try again after the time in Retry-After"),
        DirectoryError::Busy(_) => Problem::unavailable("busy", error.to_string())
            .hint("ask for less, or try again after the time in Retry-After"),
        DirectoryError::Position => Problem::bad_request("invalid-cursor", InvalidCursor.to_string()),
        DirectoryError::Failed(_) | DirectoryError::Superseded => {
            Problem::internal("directory-failed", error.to_string())
        }
    }
}
