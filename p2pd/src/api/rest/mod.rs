//! The REST interface of the first system: its paths, its parameters and its keys, as programs written against it
//! expect them.
//!
//! It tells of what the network may see, and of nothing else: whoever is on this machine may read here. What changes
//! something needs the daemon's token, unless the configuration says otherwise; and web pages may not call at all.

mod changes;
mod document;
mod reads;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use p2p_service::bearer;
use p2p_service::http::{LocalOnly, local_only_guard, with_fallbacks};

use super::routes::{self, Route};
use super::{Api, RestPolicy, access};

/// The router.
pub(super) fn router(api: Arc<Api>, policy: RestPolicy) -> Router {
    let (reads, changes): (Vec<Route>, Vec<Route>) = routes().into_iter().partition(Route::reads);
    guarded(routes::router(reads), routes::router(changes), policy).with_state(api)
}

fn routes() -> Vec<Route> {
    vec![
        Route::get("/", reads::root),
        Route::get("/files", reads::files),
        Route::get("/info", reads::info),
        Route::get("/search", reads::search),
        Route::get("/locate", reads::locate),
        Route::get("/healthz", reads::healthz),
        Route::get("/openapi.json", document::show),
        Route::post("/refresh", changes::refresh),
        Route::post("/upload", changes::upload),
    ]
}

/// Puts the token before `changes`, and the guard against web pages before everything.
fn guarded<S: Clone + Send + Sync + 'static>(
    reads: Router<S>,
    changes: Router<S>,
    policy: RestPolicy,
) -> Router<S> {
    let changes = match policy.token {
        Some(token) => changes.route_layer(from_fn_with_state(token, bearer::require)),
        None => changes,
    };
    with_fallbacks(reads.merge(changes))
        // A file is streamed to the disk, and may be of any size.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(access::text_only))
        .layer(from_fn_with_state(LocalOnly::new(&policy.allowed_hosts), local_only_guard))
        .layer(from_fn(access::log))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode, header};
    use axum::routing::{get, post};
    use tower::ServiceExt as _;

    use super::*;

    async fn call(policy: &RestPolicy, request: http::request::Builder) -> StatusCode {
        let reads = Router::new().route("/files", get(async || "files"));
        let changes = Router::new().route("/refresh", post(async || "refreshed"));
        let app: Router = guarded(reads, changes, policy.clone());
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }

    fn request(method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header(header::HOST, "localhost:9001")
    }

    #[tokio::test]
    async fn only_changes_need_the_token() {
        let policy = RestPolicy { token: Some("secret-secret".into()), allowed_hosts: Vec::new() };
        let token = |builder: http::request::Builder, token: &str| {
            builder.header(header::AUTHORIZATION, format!("Bearer {token}"))
        };
        let refresh = || request(Method::POST, "/refresh");
        assert_eq!(call(&policy, request(Method::GET, "/files")).await, StatusCode::OK);
        assert_eq!(call(&policy, refresh()).await, StatusCode::UNAUTHORIZED);
        assert_eq!(call(&policy, token(refresh(), "secret-secres")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(call(&policy, token(refresh(), "secret-secret")).await, StatusCode::OK);
        assert_eq!(call(&RestPolicy::default(), refresh()).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_to_everyone() {
        let policy = RestPolicy { token: Some("secret-secret".into()), allowed_hosts: Vec::new() };
        assert_eq!(call(&policy, request(Method::GET, "/nothing")).await, StatusCode::NOT_FOUND);
        assert_eq!(call(&policy, request(Method::DELETE, "/files")).await, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn web_pages_and_foreign_names_are_refused_everywhere() {
        let policy = RestPolicy { token: None, allowed_hosts: vec!["p1.lan".to_owned()] };
        for (method, path) in [(Method::GET, "/files"), (Method::POST, "/refresh"), (Method::GET, "/nothing")]
        {
            let page = request(method.clone(), path).header(header::ORIGIN, "https://evil.example");
            assert_eq!(call(&policy, page).await, StatusCode::FORBIDDEN, "{path}");
            let named = |host: &str| Request::builder().method(method.clone()).uri(path).header("host", host);
            assert_eq!(call(&policy, named("evil.example:9001")).await, StatusCode::FORBIDDEN, "{path}");
            assert_ne!(call(&policy, named("p1.lan:9001")).await, StatusCode::FORBIDDEN, "{path}");
        }
    }

    #[test]
    fn what_changes_something_is_told_from_what_reads() {
        let changes = routes().into_iter().filter(|route| !route.reads()).map(|route| route.path);
        assert_eq!(changes.collect::<Vec<_>>(), ["/refresh", "/upload"]);
    }
}
