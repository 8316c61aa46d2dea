//! The OpenAPI document of the REST interface, and the page that shows it.

use axum::Json;
use p2p_proto::problem::{MEDIA_TYPE, Problem};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{listings, register, search, standing};

/// The ID of the call that answers with the document.
const OWN_ID: &str = "openapi";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "REST interface of maestrod",
        description = "The directory: who is here, and who has which content. The calls of the first system, and more. \
            There is no login: the interface is kept to the maestro's machine by where it listens."
    ),
    paths(
        super::root,
        listings::peers,
        listings::directory,
        listings::files,
        search::locate,
        search::search,
        search::contents,
        search::content,
        register::register,
        standing::status,
        standing::metrics,
        super::healthz,
        show
    ),
    modifiers(&WithProblems)
)]
struct Document;

/// What is no success is a problem document, in each call; and what any call may answer, which is not said with each.
///
/// No call answers what is not in the document: whoever holds the interface against it finds out.
struct WithProblems;

/// What any call may answer.
const OF_ANY: [(&str, &str); 3] = [
    ("403", "A web page asks, which may not use this interface."),
    ("429", "This client asks too often. Retry-After says when it may ask again."),
    ("503", "Something is missing for now, or there is too much to do. Retry-After says when to try again."),
];
/// What any call may answer for which the directory is asked.
const FAILED: (&str, &str) = ("500", "The directory failed.");

impl Modify for WithProblems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        components.schemas.insert(Problem::name().into_owned(), Problem::schema());
        let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let asks = operation.operation_id.as_deref() != Some(OWN_ID);
            let responses = &mut operation.responses.responses;
            for (status, what) in OF_ANY.into_iter().chain(asks.then_some(FAILED)) {
                let response = ResponseBuilder::new().description(what).build();
                responses.entry(status.to_owned()).or_insert(RefOr::T(response));
            }
            for (_, response) in responses.iter_mut().filter(|(status, _)| !status.starts_with('2')) {
                if let RefOr::T(response) = response {
                    response.content.insert(MEDIA_TYPE.to_owned(), RefOr::T(content()));
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().flatten()
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = OWN_ID,
    responses((status = 200, description = "An OpenAPI document.", body = serde_json::Value))
)]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// `/docs`: the document for people. All that it needs is in the program.
pub(super) fn page() -> SwaggerUi {
    // A document is checked by nobody else's server.
    SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_tells_what_the_router_serves() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let (_, settings) = tokio::sync::watch::channel(Default::default());
        let limits = super::super::Limits::new(settings, std::sync::Arc::new(crate::metrics::Metrics::new()));
        let routes = super::super::routes(&limits, 0).into_iter();
        let served = routes.map(|route| (route.method.to_string(), route.path.to_owned()));
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), served.collect());
    }

    #[test]
    fn operations_are_whole() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let of = format!("{method} {path}");
                assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{of} shares its ID");
                assert!(operation["summary"].is_string(), "{of} is not described");
                for parameter in operation["parameters"].as_array().unwrap_or(&Vec::new()) {
                    let name = parameter["name"].as_str().unwrap();
                    let place = if path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
                    assert_eq!(parameter["in"], place, "{name} of {of}");
                    assert!(parameter["description"].is_string(), "{name} of {of} is not described");
                }
                let answers = operation["responses"].as_object().unwrap();
                assert!(!answers.contains_key("default"), "{of} could answer anything");
                let problems: Vec<_> =
                    answers.iter().filter(|(status, _)| !status.starts_with('2')).collect();
                assert!(problems.len() >= 3, "{of} tells of no problems");
                for (status, answer) in problems {
                    let problem = &answer["content"]["application/problem+json"]["schema"];
                    assert!(problem.is_object() && answer["description"] != "", "{status} of {of}");
                }
                let success = answers.keys().filter(|status| status.starts_with('2')).collect::<Vec<_>>();
                assert_eq!(success, ["200"], "{of}");
                assert!(answers["200"]["content"].is_object(), "{of}");
            }
        }
    }

    #[test]
    fn every_reference_leads_to_something() {
        fn walk(document: &Value, value: &Value) -> usize {
            let of_children: usize = match value {
                Value::Array(items) => items.iter().map(|item| walk(document, item)).sum(),
                Value::Object(entries) => entries.values().map(|item| walk(document, item)).sum(),
                _ => 0,
            };
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return of_children };
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "nothing at {reference}");
            of_children + 1
        }
        let document = serde_json::to_value(Document::openapi()).unwrap();
        assert!(walk(&document, &document) > 20);
    }
}
