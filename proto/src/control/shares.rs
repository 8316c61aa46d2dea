//! The shares: what this peer offers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One share in `GET /v1/shares`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareRow {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// Who may see it.
    pub visible: Visibility,
    /// Whether fetched files land in it.
    pub downloads: bool,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why it is not available (its disk is not mounted, it cannot be read); its files are then hidden, not forgotten.
    pub unavailable: Option<String>,
    /// Files in it that are not shared, and why; the first 20.
    pub skipped: Vec<String>,
    /// Whether it was added by `POST /v1/shares`; otherwise it is of the configuration file.
    #[serde(default)]
    pub added: bool,
}

/// Who may see a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// Members of the network, and friends.
    #[default]
    Network,
    /// Friends only; not announced to the maestro.
    Friends,
}

/// `GET /v1/shares`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareList {
    /// The shares.
    pub shares: Vec<ShareRow>,
}

/// Body of `POST /v1/shares`: share another directory, now and after every restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddShare {
    /// The directory, as an absolute path.
    pub path: String,
    /// What to call the share. Default: the last part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who may see it.
    #[serde(default)]
    pub visible: Visibility,
    /// Whether fetched files land in it, and no more where they landed before.
    #[serde(default)]
    pub downloads: bool,
}
