//! Extractors that refuse what they cannot read with a problem document instead of axum's plain text.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Problem;

/// A request's JSON body. Refuses with 400 (not JSON), 413, 415 or 422 (JSON, but not a `T`).
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

/// A request's query. Refuses with 400.
#[derive(Debug, Clone, Copy)]
pub struct ApiQuery<T>(pub T);

/// The variable parts of a request's path. Refuses with 400.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(ApiJson(value)),
            Err(rejection) => Err(json_problem(&rejection)),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(ApiQuery(value)),
            Err(rejection) => Err(Problem::bad_request("invalid-query", rejection.body_text())),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(ApiPath(value)),
            Err(rejection) if rejection.status().is_server_error() => {
                Err(Problem::internal("internal", rejection.body_text()))
            }
            Err(rejection) => Err(Problem::bad_request("invalid-path", rejection.body_text())),
        }
    }
}

fn json_problem(rejection: &JsonRejection) -> Problem {
    let detail = rejection.body_text();
    match rejection.status() {
        status @ StatusCode::UNPROCESSABLE_ENTITY => {
            Problem::new(status, "invalid-body", "The body is not what is expected here").detail(detail)
        }
        status @ StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(status, "unsupported-media-type", "The body is not declared as JSON")
                .detail(detail)
                .hint("send the header 'Content-Type: application/json'")
        }
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "body-too-large", "The body is too large").detail(detail)
        }
        _ => Problem::bad_request("invalid-json", detail),
    }
}
