//! What the OpenAPI documents of both interfaces have in common.

use p2p_proto::problem::{MEDIA_TYPE, Problem};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, PartialSchema, ToSchema};

/// Every operation may answer with a problem document.
pub(super) struct WithProblems;

impl Modify for WithProblems {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        components.schemas.insert(Problem::name().into_owned(), Problem::schema());
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        let problem = ResponseBuilder::new().description("A problem document.").content(MEDIA_TYPE, content);
        let problem = RefOr::T(problem.build());
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            operation.responses.responses.insert("default".to_owned(), problem.clone());
        }
    }
}

/// The bytes of a file, whatever they are, as the body of a request or an answer.
pub(super) enum FileBytes {}

impl PartialSchema for FileBytes {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).into()
    }
}

impl ToSchema for FileBytes {}

/// The operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// What every document must keep to, for the tests of each.
#[cfg(test)]
pub(super) mod checks {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::routes::Route;

    /// The document has exactly these routes.
    pub(in crate::api) fn same_routes(document: &Value, routes: &[Route]) {
        let served = routes.iter().map(|route| (route.method.to_string(), route.path.to_owned()));
        let served: BTreeSet<_> = served.collect();
        assert_eq!(served.len(), routes.len(), "a route is there twice");
        let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone()))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), served);
    }

    /// Every reference leads to something.
    pub(in crate::api) fn references_resolve(document: &Value) {
        let mut found = 0;
        walk(document, &mut |value| {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                found += 1;
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "nothing at {reference}");
            }
        });
        assert!(found > 0, "a document without references has no bodies");
    }

    /// Every operation says what it is, where its parameters are, and what it answers in which form.
    pub(in crate::api) fn operations_are_whole(document: &Value) {
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
                let template = path.matches('{').count();
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                assert_eq!(parameters.filter(|given| given["in"] == "path").count(), template, "{of}");
                let answers = operation["responses"].as_object().unwrap();
                let problem = &answers["default"]["content"]["application/problem+json"];
                assert!(problem["schema"].is_object(), "{of} does not tell of problems");
                let success =
                    answers.iter().filter(|(status, _)| status.starts_with('2')).collect::<Vec<_>>();
                assert_eq!(success.len(), 1, "{of}");
                let has_body = success[0].1["content"].is_object();
                assert_eq!(has_body, success[0].0 != "204", "{of}");
            }
        }
    }

    fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
        visit(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
            Value::Object(entries) => entries.values().for_each(|item| walk(item, visit)),
            _ => {}
        }
    }
}
