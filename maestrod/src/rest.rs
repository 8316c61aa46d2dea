//! The REST edge: the first system's interface to the directory, and what was added to it.
//!
//! Every answer that is not the one asked for is a problem document. The interface has no login; it is kept to this
//! machine by where it listens, and from web pages by the guard.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use p2p_identity::PeerId;
use p2p_proto::problem::Problem as ProblemBody;
use p2p_proto::rest::{
    DirectoryListing, Located, MaestroRoot, PeerFileNames, PeerFiles, PeerRef, Peers, Register, Registered,
};
use p2p_service::http::{LocalOnly, local_only_guard, with_fallbacks};
use p2p_service::problem::Problem;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::{OpenApi, ToSchema};

use crate::config::Config;
use crate::directory::{Directory, DirectoryError};

mod listings;
mod register;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct RestState {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) settings: watch::Receiver<Arc<Config>>,
    pub(crate) maestro_id: PeerId,
}

/// The whole interface, for callers by `local`'s names.
pub(crate) fn router(state: RestState, local: LocalOnly) -> Router {
    let router = Router::new()
        .route("/", get(root))
        .route("/peers", get(listings::peers))
        .route("/directory", get(listings::directory))
        .route("/files", get(listings::files))
        .route("/locate", get(listings::locate))
        .route("/search", get(listings::search))
        .route("/register", post(register::register).layer(register::body_limit()))
        .route("/healthz", get(healthz))
        .route("/openapi.json", get(openapi));
    with_fallbacks(router)
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(local, local_only_guard))
        .with_state(state)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "maestrod", description = "The directory: who is here, and who has which content."),
    paths(
        root,
        listings::peers,
        listings::directory,
        listings::files,
        listings::locate,
        listings::search,
        register::register,
        healthz
    ),
    components(schemas(
        MaestroRoot,
        Peers,
        PeerFiles,
        DirectoryListing,
        PeerRef,
        PeerFileNames,
        Located,
        listings::SearchAnswer,
        listings::FoundName,
        Register,
        Registered,
        Health,
        ProblemBody
    ))
)]
struct Document;

/// `GET /healthz`.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: String,
}

/// What this is, and how many peers are here.
#[utoipa::path(get, path = "/", responses((status = 200, body = MaestroRoot)))]
async fn root(State(state): State<RestState>) -> Result<Json<MaestroRoot>, Problem> {
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
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, body = Health), (status = 503, body = ProblemBody))
)]
async fn healthz(State(state): State<RestState>) -> Result<Json<Health>, Problem> {
    match state.directory.totals().await {
        Ok(_) => Ok(Json(Health { status: "ok".to_owned() })),
        Err(error) => Err(Problem::unavailable("directory-failed", error.to_string())),
    }
}

async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("busy", "the answer took too long and was given up")
            .hint("ask for less, or try again later")
            .into_response(),
    }
}

fn problem_of(error: DirectoryError) -> Problem {
    tracing::error!(%error, "the directory failed: {error}; look at the disk of the state directory");
    match error {
        DirectoryError::Full(_) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "There is no space left")
                .detail(error.to_string())
                .hint("free some space on the disk of the maestro's state directory")
        }
        DirectoryError::Failed(_) | DirectoryError::Superseded => {
            Problem::internal("directory-failed", error.to_string())
        }
    }
}
