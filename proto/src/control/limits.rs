//! How fast file data goes out and comes in, at the most.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PeerName;

/// `GET /v1/limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsAnswer {
    /// Of what this peer sends.
    pub up: Limit,
    /// Of what it fetches.
    pub down: Limit,
    /// Of single peers, beside those: what users have set.
    #[serde(default)]
    pub peers: Vec<PeerLimit>,
}

/// The limits of one peer of its own, in bytes per second; 0 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerLimit {
    /// Who, with the name that it had when the limit was set.
    #[serde(flatten)]
    pub peer: PeerName,
    /// Of what is sent to it.
    pub up_bytes_per_sec: u64,
    /// Of what is fetched from it.
    pub down_bytes_per_sec: u64,
}

/// The limit of one direction, in bytes per second; 0 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// The one in force.
    pub bytes_per_sec: u64,
    /// What the configuration says now.
    pub configured_bytes_per_sec: u64,
    /// Whether a user has set it, whatever the configuration says.
    pub is_set: bool,
    /// The period of the schedule by which the configuration says so, such as `mon,tue 08:00-18:00`; absent where none
    /// holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<String>,
}

/// Body of `POST /v1/limits`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Only of this peer (name, peer ID or its beginning), beside what holds for all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}
