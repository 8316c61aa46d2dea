//! The edges that people touch: the control API on a Unix socket, and the REST interface of the first system.
//!
//! **Owns** nothing: it reads what the other rooms hold, asks them to act, and says what came of it in the words of
//! `p2p-proto`. All of its refusals are problem documents, made in `problems`.
//!
//! **May be called by** the daemon's composition file alone, which makes an [`Api`] and serves the two routers.

mod access;
mod control;
mod cursor;
mod events;
mod file_body;
mod openapi;
mod own;
mod problems;
mod rest;
mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use p2p_identity::PeerId;
use p2p_proto::control::LoopStatus;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::config::InForce;
use crate::discovery::{Friends, Locator, Maestros};
use crate::doctor::Doctor;
use crate::limits::Limits;
use crate::shares::Shares;
use crate::transfer::{Intake, Sends, Transfers};

/// Gives the last result of each of the daemon's loops.
pub type Loops = Arc<dyn Fn() -> Vec<LoopStatus> + Send + Sync>;

/// What the two interfaces talk to.
pub struct Api {
    /// What this peer has.
    pub catalog: Catalog,
    /// The directories that it comes from.
    pub shares: Shares,
    /// Who has what.
    pub locator: Locator,
    /// The connection with the maestro.
    pub maestros: Maestros,
    /// Whom this peer's user trusts.
    pub friends: Friends,
    /// What is being fetched.
    pub transfers: Transfers,
    /// Where bytes that a user hands in become a file.
    pub intake: Intake,
    /// What is on its way to others.
    pub sends: Sends,
    /// How fast bytes come and go.
    pub limits: Limits,
    /// Who looks at all of it when something seems wrong.
    pub doctor: Doctor,
    /// This peer.
    pub identity: PeerId,
    /// What does not change while the daemon runs.
    pub facts: ApiFacts,
    /// The daemon's loops.
    pub loops: Loops,
    /// The configuration.
    pub in_force: InForce,
    /// Ends the answers that have no end of their own.
    pub shutdown: CancellationToken,
}

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct ApiFacts {
    /// What this peer calls itself.
    pub name: String,
    /// Base URL of its REST interface, as others are told.
    pub rest_url: String,
    /// Port of its gRPC interface, as others are told.
    pub grpc_port: u16,
    /// Where its REST interface listens.
    pub rest_addr: SocketAddr,
    /// Where its gRPC interface listens.
    pub grpc_addr: SocketAddr,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// When the daemon started, in milliseconds since 1970-01-01 UTC.
    pub started_ms: i64,
    /// Version of the daemon.
    pub version: String,
}

/// Who may do what over REST.
#[derive(Debug, Clone, Default)]
pub struct RestPolicy {
    /// What a call that changes something must carry; `None`: whoever reaches the interface may change things.
    pub token: Option<Arc<str>>,
    /// Hosts, without ports, by which the interface may be called beside the loopback's.
    pub allowed_hosts: Vec<String>,
}

/// The control API: `/v1/…` and its OpenAPI document. To be served on a Unix socket only; who may open the socket may
/// do everything.
pub fn control_router(api: Arc<Api>) -> Router {
    control::router(api)
}

/// The REST interface of the first system.
pub fn rest_router(api: Arc<Api>, policy: RestPolicy) -> Router {
    rest::router(api, policy)
}
