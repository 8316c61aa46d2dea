//! The REST interface before the database was reached: the metrics say so, and every other call is told so.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Router, middleware};
use p2p_service::http::{self, LocalOnly, local_only_guard};
use p2p_service::problem::Problem;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::edge::with_retry_after;
use super::standing;
use crate::metrics::Metrics;

/// How long answers that are under way may take when it ends.
const GRACE: Duration = Duration::from_secs(1);

/// Answers while the maestro waits; ends when it is dropped.
pub(crate) struct Waiting {
    token: CancellationToken,
    task: JoinHandle<()>,
}

/// Answers every call on this listener with 503, and why; but for the metrics. The listener stays with its owner.
///
/// # Errors
///
/// What the system says where it gives no second handle.
pub(crate) fn say_unavailable(
    listener: &TcpListener,
    local: LocalOnly,
    metrics: Arc<Metrics>,
    why: &str,
) -> io::Result<Waiting> {
    let handle = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    let listener = TcpListener::from_std(handle)?;
    let problem = move |why: &str| {
        Problem::unavailable(
            "directory-unavailable",
            format!("the maestro's database cannot be reached: {why}"),
        )
        .hint("maestrod waits for it; try again after the time in Retry-After")
    };
    let why = why.to_owned();
    let router = Router::new()
        .route("/metrics", get(async move || standing::metrics_of(&metrics, None)))
        .fallback(async move || with_retry_after(problem(&why).into_response()))
        .layer(middleware::from_fn_with_state(local, local_only_guard));
    let token = CancellationToken::new();
    let task = tokio::spawn(http::serve(listener, router, token.clone()));
    Ok(Waiting { token, task })
}

impl Waiting {
    /// Ends it; what comes from now on waits for the interface itself.
    pub(crate) async fn end(mut self) {
        self.token.cancel();
        // Whoever keeps a connection open without asking is cut off.
        let _ = tokio::time::timeout(GRACE, &mut self.task).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.task.abort();
    }
}
