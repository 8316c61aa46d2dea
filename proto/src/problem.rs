//! The body of every error answer over HTTP: an RFC 9457 problem document.

use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for a program (`code`) and for a person (`detail`, `hint`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:p2p:problem:` and the code.
    pub r#type: String,
    /// The kind of problem in a few words; the same for every problem of this code.
    pub title: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// What happened this time, and why.
    pub detail: String,
    /// Stable, in kebab-case: what a program may compare with.
    pub code: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
