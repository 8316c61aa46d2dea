//! The OpenAPI document of the REST interface.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{changes, reads};
use crate::api::openapi::WithProblems;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "REST interface of p2pd",
        description = "The interface of the first system. Reading is open; what changes something needs the token in \
            the daemon's state directory, unless its configuration says otherwise."
    ),
    paths(
        reads::root,
        reads::files,
        reads::info,
        reads::search,
        reads::locate,
        reads::healthz,
        show,
        changes::refresh,
        changes::upload,
    ),
    modifiers(&WithProblems, &WithToken)
)]
struct Document;

struct WithToken;

impl Modify for WithToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", token);
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    responses((status = 200, description = "An OpenAPI document.", body = serde_json::Value))
)]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openapi::checks;

    #[test]
    fn the_document_tells_what_the_router_serves() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        checks::same_routes(&document, &super::super::routes());
        checks::references_resolve(&document);
        checks::operations_are_whole(&document);
    }

    #[test]
    fn the_document_tells_which_calls_need_the_token() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        for route in super::super::routes() {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert_eq!(operation["security"].is_array(), !route.reads(), "{}", route.path);
        }
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    }
}
