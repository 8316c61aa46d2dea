//! Serving HTTP on a listener until the daemon ends, and who is calling.
//!
//! Owns the accept loop of each HTTP listener, the guard of the local ones, and the answers for what no route knows.
//! Called by a daemon's composition file; its handlers use [`UnixCaller`].

use std::fmt::Debug;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::http::{Method, StatusCode, Uri};
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

mod guard;

pub use guard::{LocalOnly, local_only_guard};

/// A listener that can say who calls; handlers get it as `ConnectInfo<Self::Caller>`.
pub trait CallerListener: Listener<Addr: Debug> {
    /// Who calls: a [`SocketAddr`] over TCP, a [`UnixCaller`] over a Unix socket.
    type Caller: for<'a> Connected<IncomingStream<'a, Self>>;
}

impl CallerListener for TcpListener {
    type Caller = SocketAddr;
}

impl CallerListener for UnixListener {
    type Caller = UnixCaller;
}

/// The process at the other end of a Unix socket, as the kernel vouches for it at the moment of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixCaller {
    /// Its effective user ID; `u32::MAX`, which is nobody's, if the kernel does not tell.
    pub uid: u32,
    /// Its effective group ID; `u32::MAX` if the kernel does not tell.
    pub gid: u32,
    /// Its process ID, in case it can be seen from here.
    pub pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for UnixCaller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> UnixCaller {
        match stream.io().peer_cred() {
            Ok(peer) => UnixCaller { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() },
            Err(error) => {
                tracing::warn!(%error, "cannot find out who calls on the control socket: {error}");
                UnixCaller { uid: u32::MAX, gid: u32::MAX, pid: None }
            }
        }
    }
}

/// Serves `app` until `shutdown` is cancelled, and then until the requests under way are answered.
///
/// Handlers that answer without end must watch the same token.
pub async fn serve<L: CallerListener>(listener: L, app: Router, shutdown: CancellationToken) {
    let make_service = app.into_make_service_with_connect_info::<L::Caller>();
    let served = axum::serve(listener, make_service)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "an HTTP listener ended badly: {error}");
    }
}

/// Adds the problem documents for unknown paths (404) and for methods that a path does not have (405).
///
/// To be called when all routes are in: a path that is added later answers with axum's own 405.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

/// The fallback handler for unknown paths.
pub async fn not_found(uri: Uri) -> Problem {
    Problem::not_found("unknown-path", format!("there is nothing at {}", uri.path()))
}

/// The fallback handler for methods that a known path does not have.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not for this path")
        .detail(format!("{} does not take {method}", uri.path()))
        .hint("the answer's Allow header has the methods that it takes")
}
