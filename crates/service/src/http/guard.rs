//! Keeps web pages away from a REST interface that listens on the loopback.
//!
//! The browser of somebody at this machine can reach the loopback on behalf of any page: by a request from the page's
//! own origin, and by a name of the page's that resolves to 127.0.0.1. Both show in the headers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The hosts by which a local interface may be called: `localhost`, `127.0.0.1`, `[::1]`, and some more.
#[derive(Debug, Clone)]
pub struct LocalOnly {
    hosts: Arc<[String]>,
}

impl LocalOnly {
    /// The loopback's names and those in `allowed`, given without ports.
    pub fn new<H: AsRef<str>>(allowed: impl IntoIterator<Item = H>) -> LocalOnly {
        let loopback = LOOPBACK_HOSTS.iter().map(|host| (*host).to_owned());
        let allowed = allowed.into_iter().map(|host| host.as_ref().to_ascii_lowercase());
        LocalOnly { hosts: loopback.chain(allowed).collect() }
    }

    /// Whether a request with these headers may be answered.
    ///
    /// # Errors
    /// Where it may not: a problem that says why, with status 403.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut named =
            uri.authority().map(|authority| self.allows(authority)).into_iter().collect::<Vec<_>>();
        named.extend(headers.get_all(header::HOST).iter().map(|host| self.allows_text(host)));
        // A request that says nothing of its host can come from anywhere.
        if named.is_empty() || named.contains(&false) {
            let problem = forbidden("foreign-host", "this request does not call the daemon by a local name");
            return Err(
                problem.hint("call it as localhost or 127.0.0.1, or allow the host in the configuration")
            );
        }
        if headers.get_all(header::ORIGIN).iter().any(|origin| !self.allows_origin(origin)) {
            let problem = forbidden("foreign-origin", "this request comes from a web page of another site");
            return Err(problem.hint("only pages of this machine may use this interface from a browser"));
        }
        Ok(())
    }

    fn allows_text(&self, host: &HeaderValue) -> bool {
        host.to_str().ok().and_then(|host| host.parse().ok()).is_some_and(|host| self.allows(&host))
    }

    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        // Sandboxed pages and files say "null".
        let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://"))
        else {
            return false;
        };
        matches!(scheme, "http" | "https") && authority.parse().is_ok_and(|host| self.allows(&host))
    }

    fn allows(&self, authority: &Authority) -> bool {
        let host = authority.host();
        !authority.as_str().contains('@')
            && self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// Middleware that answers with a 403 problem whatever [`LocalOnly`] does not allow.
///
/// For `axum::middleware::from_fn_with_state(LocalOnly::new(..), local_only_guard)`.
pub async fn local_only_guard(State(local): State<LocalOnly>, request: Request, next: Next) -> Response {
    match local.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn forbidden(code: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, "Web pages may not use this interface").detail(detail)
}
