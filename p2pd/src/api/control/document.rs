//! The OpenAPI document of the control API.

use axum::Json;
use p2p_proto::control::{FetchQuery, FilesQuery, LocateQuery, SendQuery, TreeQuery};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams, Modify, OpenApi};

use super::{
    config, contents, doctor, files, friends, limits, network, sends, shares, status, transfers, trees,
};
use crate::api::openapi::{WithProblems, operations};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Control API of p2pd",
        description = "What p2pctl says to p2pd over its Unix socket. Sizes are bytes, times are milliseconds since \
            1970-01-01 UTC, contents are BLAKE3 hashes in hex, peer IDs are in base32."
    ),
    paths(
        status::status,
        doctor::examine,
        shares::list,
        shares::add,
        shares::remove,
        status::refresh,
        config::show,
        files::list,
        files::locate,
        contents::read,
        limits::show,
        limits::set,
        transfers::list,
        transfers::look,
        transfers::fetch,
        transfers::show,
        transfers::cancel,
        transfers::pause,
        transfers::resume,
        transfers::prioritize,
        transfers::events,
        trees::look,
        trees::fetch,
        transfers::why,
        friends::peers,
        friends::list,
        friends::add,
        friends::remove,
        sends::send,
        sends::events,
        network::join,
        network::leave,
        show,
    ),
    modifiers(&WithQueries, &WithProblems)
)]
struct Document;

/// The queries of the paths that have one. Their crate knows no HTTP and does not say that they are queries, so that
/// it is said here.
struct WithQueries;

impl Modify for WithQueries {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let place = || Some(ParameterIn::Query);
        let queries = [
            ("/v1/files", FilesQuery::into_params(place)),
            ("/v1/fetch", FetchQuery::into_params(place)),
            ("/v1/locate", LocateQuery::into_params(place)),
            ("/v1/sends", SendQuery::into_params(place)),
            ("/v1/trees", TreeQuery::into_params(place)),
        ];
        for (path, query) in queries {
            let item = document.paths.paths.get_mut(path);
            for operation in item.into_iter().flat_map(operations) {
                let parameters = query.iter().cloned().map(RefOr::T);
                operation.parameters.get_or_insert_default().extend(parameters);
            }
        }
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
    fn parameters_that_may_be_left_out_are_not_required() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let parameters = document["paths"]["/v1/files"]["get"]["parameters"].as_array().unwrap();
        assert_eq!(parameters.len(), 6);
        assert!(parameters.iter().all(|parameter| parameter["required"] != true), "{parameters:#?}");
        let what = &document["paths"]["/v1/locate"]["get"]["parameters"][0];
        assert_eq!(what["required"], true);
    }
}
