//! Problem documents and the extractors that answer with them.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use p2p_proto::problem::Problem as Document;
use p2p_service::problem::{ApiJson, ApiPath, ApiQuery, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) async fn read(response: Response) -> (StatusCode, String, Value) {
    let (parts, body) = response.into_parts();
    let content_type =
        parts.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, content_type.unwrap_or_default(), serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_problem_has_the_documented_shape() {
    let problem =
        Problem::not_found("no-such-transfer", "there is no transfer 7").hint("see: p2pctl transfers");
    let (status, content_type, body) = read(problem.clone().into_response()).await;
    assert_eq!((status, content_type.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    assert_eq!(
        body,
        json!({
            "type": "urn:p2p:problem:no-such-transfer",
            "title": "Not found",
            "status": 404,
            "detail": "there is no transfer 7",
            "code": "no-such-transfer",
            "hint": "see: p2pctl transfers",
        })
    );
    assert_eq!(serde_json::from_value::<Document>(body).unwrap(), *problem.body());

    let (_, _, body) = read(Problem::conflict("paused", "it is paused").into_response()).await;
    assert!(body.get("hint").is_none());
    let statuses = [Problem::bad_request, Problem::conflict, Problem::internal, Problem::unavailable]
        .map(|make| make("code", "").body().status);
    assert_eq!(statuses, [400, 409, 500, 503]);
}

#[test]
fn the_schema_names_the_members_as_the_document_does() {
    let schema = serde_json::to_value(<Document as utoipa::PartialSchema>::schema()).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["code", "detail", "hint", "status", "title", "type"]);
    assert_eq!(properties["type"]["type"], "string");
}

#[derive(Deserialize)]
struct Page {
    limit: u8,
}

fn app() -> Router {
    Router::new()
        .route("/json", post(async |ApiJson(page): ApiJson<Page>| page.limit.to_string()))
        .route("/query", get(async |ApiQuery(page): ApiQuery<Page>| page.limit.to_string()))
        .route("/path/{limit}", get(async |ApiPath(limit): ApiPath<u8>| limit.to_string()))
        .layer(DefaultBodyLimit::max(64))
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_problem() {
    let long = format!("{{\"limit\": {}1}}", " ".repeat(100));
    let media = "application/json";
    let table = [
        ("POST", "/json", media, "{\"limit\": 7}", 200, ""),
        ("POST", "/json", media, "{\"limit\": ", 400, "invalid-json"),
        ("POST", "/json", media, "{\"limit\": 700}", 422, "invalid-body"),
        ("POST", "/json", "text/plain", "{\"limit\": 7}", 415, "unsupported-media-type"),
        ("POST", "/json", media, long.as_str(), 413, "body-too-large"),
        ("GET", "/query?limit=7", "", "", 200, ""),
        ("GET", "/query?limit=700", "", "", 400, "invalid-query"),
        ("GET", "/query", "", "", 400, "invalid-query"),
        ("GET", "/path/7", "", "", 200, ""),
        ("GET", "/path/seven", "", "", 400, "invalid-path"),
    ];
    for (method, uri, content_type, body, status, code) in table {
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, content_type);
        let response = app().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (got, content_type, document) = read(response).await;
        assert_eq!(got.as_u16(), status, "{method} {uri} {body}");
        if !code.is_empty() {
            assert_eq!(
                (content_type.as_str(), &document["code"]),
                ("application/problem+json", &json!(code))
            );
            assert_eq!(document["status"], json!(status));
            assert!(!document["detail"].as_str().unwrap().is_empty());
        }
    }
}
