//! RFC 9457 problem documents: the one shape of every HTTP answer that is not what the caller asked for.
//!
//! Used by the rooms at a daemon's HTTP edge, which map their errors to problems; the body itself is `p2p-proto`'s, which clients read.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use p2p_proto::problem::{MEDIA_TYPE, Problem as Body};

mod extract;

pub use extract::{ApiJson, ApiPath, ApiQuery};

/// An error answer: a problem document that axum can send.
// Boxed so that a `Result` with a problem stays below the size at which clippy objects to every handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Body>);

impl Problem {
    /// A problem without particulars.
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>) -> Problem {
        Problem(Box::new(Body {
            r#type: format!("urn:p2p:problem:{code}"),
            title: title.into(),
            status: status.as_u16(),
            detail: String::new(),
            code: code.to_owned(),
            hint: None,
        }))
    }

    /// What is sent.
    pub fn body(&self) -> &Body {
        &self.0
    }

    /// The same, saying what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Problem {
        self.0.detail = detail.into();
        self
    }

    /// The same, saying what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.0.hint = Some(hint.into());
        self
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
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(*self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}
