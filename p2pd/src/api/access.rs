//! What every request goes through: who called, for what, and what came of it are logged; a query that is no text is
//! refused.

use std::fmt;
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
    let asked = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let caller = Caller::of(&request);
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    macro_rules! answered {
        ($level:ident) => {
            tracing::$level!(
                caller_uid = caller.uid,
                caller_pid = caller.pid,
                caller_address = caller.address,
                %method,
                request = asked,
                http_status = status,
                duration_ms,
                "{caller}: {method} {asked} → {status} in {duration_ms} ms"
            )
        };
    }
    if method.is_safe() {
        answered!(debug);
    } else {
        answered!(info);
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

/// Who called, as far as the connection knows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Caller {
    uid: Option<u32>,
    pid: Option<i32>,
    address: Option<String>,
}

impl Caller {
    fn of(request: &Request) -> Caller {
        let extensions = request.extensions();
        if let Some(ConnectInfo(UnixCaller { uid, pid, .. })) = extensions.get::<ConnectInfo<UnixCaller>>() {
            return Caller { uid: Some(*uid), pid: *pid, address: None };
        }
        let address = extensions.get::<ConnectInfo<SocketAddr>>();
        Caller { address: address.map(|ConnectInfo(address)| address.to_string()), ..Caller::default() }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.pid, &self.address) {
            (Some(uid), Some(pid), _) => write!(f, "uid {uid} (pid {pid})"),
            (Some(uid), None, _) => write!(f, "uid {uid}"),
            (None, _, Some(address)) => f.write_str(address),
            (None, _, None) => f.write_str("somebody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_caller_is_the_one_whom_the_connection_knows() {
        let mut request = Request::new(Body::empty());
        let caller = |request: &Request| Caller::of(request).to_string();
        assert_eq!(caller(&request), "somebody");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(caller(&request), "127.0.0.1:9");
        request.extensions_mut().insert(ConnectInfo(UnixCaller { uid: 1000, gid: 100, pid: Some(7) }));
        assert_eq!(caller(&request), "uid 1000 (pid 7)");
    }
}
