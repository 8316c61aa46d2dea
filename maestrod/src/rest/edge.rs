//! What each request passes on its way in, and each answer on its way out.
//!
//! All of it is one layer of the router. axum copies the layers, and what each of them knows, for each request and again in each
//! of them, and the counters of what is shared go from core to core meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use p2p_service::http::LocalOnly;
use p2p_service::passage::{AnswerRoom, Outgoing};
use p2p_service::problem::Problem;
use p2p_service::tasks::Tasks;

use super::limits::{self, Limits};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of long answers that are held at once.
const ANSWERS: usize = 48 << 20;
/// When somebody may try again who was told that something is missing, and not when.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What stands there.
pub(super) struct Edge {
    local: LocalOnly,
    limits: Limits,
    room: AnswerRoom,
    tasks: Tasks,
}

impl Edge {
    pub(super) fn new(local: LocalOnly, limits: Limits, tasks: Tasks) -> Edge {
        Edge { local, limits, room: AnswerRoom::new(ANSWERS), tasks }
    }

    /// Hands a long answer over piece by piece, where there is room for it.
    fn hand_over(&self, response: Response) -> Response {
        let bytes =
            response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        match self.room.place(None, bytes) {
            Ok(None) => response,
            Ok(Some(place)) => response.map(|body| Body::new(Outgoing::new(body, place, &self.tasks))),
            Err(error) => limits::retry_after(
                Problem::unavailable("busy", error.to_string())
                    .hint("ask for less, or try again after the time in Retry-After"),
                RETRY_AFTER,
            ),
        }
    }
}

/// Middleware: callers of this machine's names, as often as they may, are answered in time and no faster than they read.
pub(super) async fn pass(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    if let Err(problem) = edge.local.check(request.uri(), request.headers()) {
        return problem.into_response();
    }
    let (asked, refusal) = edge.limits.ask(&request);
    let response = match refusal {
        Some(refusal) => refusal,
        None => edge.hand_over(in_time(next.run(request)).await),
    };
    edge.limits.answered(asked, response.status());
    response
}

async fn in_time(answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => with_retry_after(response),
        Ok(response) => response,
        Err(_) => limits::retry_after(
            Problem::unavailable("busy", "the answer took too long and was given up")
                .hint("ask for less, or try again later"),
            RETRY_AFTER,
        ),
    }
}

/// What is missing for now may be back soon.
pub(super) fn with_retry_after(mut response: Response) -> Response {
    let wait = HeaderValue::from(RETRY_AFTER.as_secs());
    response.headers_mut().entry(header::RETRY_AFTER).or_insert(wait);
    response
}
