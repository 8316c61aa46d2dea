//! RFC 9457 problem documents: the one shape of every HTTP answer that is not what the caller asked for.
//!
//! Used by the rooms at a daemon's HTTP edge, which map their errors to problems, and by clients that read them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

mod extract;

pub use extract::{ApiJson, ApiPath, ApiQuery};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for programs (`code`) and for people (the rest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error)]
#[error("{title}: {detail}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Problem {
    /// `urn:p2p:problem:` and the code.
    // Boxed so that a `Result` with a problem stays below the size at which clippy objects to every handler.
    pub r#type: Box<str>,
    /// What kind of problem this is; the same for all problems with this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    #[serde(default)]
    pub detail: String,
    /// A stable name in kebab-case, for programs to compare.
    pub code: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without particulars.
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>) -> Problem {
        Problem {
            r#type: format!("urn:p2p:problem:{code}").into(),
            title: title.into(),
            status: status.as_u16(),
            detail: String::new(),
            code: code.to_owned(),
            hint: None,
        }
    }

    /// The same, saying what happened this time.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Problem {
        Problem { detail: detail.into(), ..self }
    }

    /// The same, saying what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Problem {
        Problem { hint: Some(hint.into()), ..self }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, "The request is not valid").detail(detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, "Not found").detail(detail)
    }

    /// 409: the request contradicts the present state.
    pub fn conflict(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, "This is not possible now").detail(detail)
    }

    /// 500: the daemon failed; the particulars belong in its log too.
    pub fn internal(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, "The daemon failed").detail(detail)
    }

    /// 503: something that the daemon needs is missing for now; to try again may help.
    pub fn unavailable(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "Not available now").detail(detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        response
    }
}
