//! What every request goes through: who called, for what, and what came of it are logged; a query that is no text is
//! refused.

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use p2p_service::http::UnixCaller;
use p2p_service::problem::Problem;
use percent_encoding::percent_decode_str;

/// Middleware that logs each request once it is answered: at `info` where it may change something, else at `debug`.
pub(super) async fn log(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let caller = caller(&request);
    let started = Instant::now();
    let response = next.run(request).await;
    let (status, took_ms) = (response.status().as_u16(), started.elapsed().as_millis());
    if method.is_safe() {
        tracing::debug!(%method, path, caller, status, took_ms, "answered");
    } else {
        tracing::info!(%method, path, caller, status, took_ms, "answered");
    }
    response
}

/// Middleware that refuses a query whose bytes are not UTF-8: taken for text they would name another file than the caller
/// means.
pub(super) async fn text_only(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    match percent_decode_str(query).decode_utf8() {
        Ok(_) => next.run(request).await,
        Err(_) => Problem::bad_request("invalid-query", "the query is not UTF-8 text")
            .hint("names of files are UTF-8; rename the file, or send it under another name")
            .into_response(),
    }
}

fn caller(request: &Request) -> String {
    let extensions = request.extensions();
    if let Some(ConnectInfo(UnixCaller { uid, pid, .. })) = extensions.get::<ConnectInfo<UnixCaller>>() {
        return match pid {
            Some(pid) => format!("uid {uid} (pid {pid})"),
            None => format!("uid {uid}"),
        };
    }
    match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => address.to_string(),
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_caller_is_the_one_whom_the_connection_knows() {
        let mut request = Request::new(Body::empty());
        assert_eq!(caller(&request), "unknown");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(caller(&request), "127.0.0.1:9");
        request.extensions_mut().insert(ConnectInfo(UnixCaller { uid: 1000, gid: 100, pid: Some(7) }));
        assert_eq!(caller(&request), "uid 1000 (pid 7)");
    }
}
