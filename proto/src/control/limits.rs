//! How fast file data goes out and comes in, at the most.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsAnswer {
    /// Of what this peer sends.
    pub up: Limit,
    /// Of what it fetches.
    pub down: Limit,
}

/// The limit of one direction, in bytes per second; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// The one in force.
    pub bytes_per_sec: u64,
    /// What the configuration says.
    pub configured_bytes_per_sec: u64,
    /// Whether a user has set it, whatever the configuration says.
    pub is_set: bool,
}

/// Body of `POST /v1/limits`. What is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// Bytes per second that this peer sends at the most; 0 for as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Bytes per second that it fetches at the most; 0 for as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// First forget what users have set: the configuration counts again.
    #[serde(default)]
    pub as_configured: bool,
}
