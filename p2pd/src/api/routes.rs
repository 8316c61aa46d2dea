//! The list of what an interface answers to, kept as data so that its OpenAPI document can be compared with it.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::Api;

/// A method of a path, and who answers it.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    handler: MethodRouter<Arc<Api>>,
}

impl Route {
    /// Reads.
    pub(super) fn get<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route { method: Method::GET, path, handler: on(MethodFilter::GET, handler) }
    }

    /// Starts something.
    pub(super) fn post<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route { method: Method::POST, path, handler: on(MethodFilter::POST, handler) }
    }

    /// Makes something so.
    pub(super) fn put<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route { method: Method::PUT, path, handler: on(MethodFilter::PUT, handler) }
    }

    /// Ends something.
    pub(super) fn delete<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route { method: Method::DELETE, path, handler: on(MethodFilter::DELETE, handler) }
    }

    /// Whether a call changes nothing.
    pub(super) fn reads(&self) -> bool {
        self.method.is_safe()
    }
}

/// A router of these routes.
pub(super) fn router(routes: impl IntoIterator<Item = Route>) -> Router<Arc<Api>> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler))
}
