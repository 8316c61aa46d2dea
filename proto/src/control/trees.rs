//! Whole directories of the network, fetched by one transfer.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{PeerName, Priority};

/// Query of `GET /v1/trees`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    /// A directory of the network, or a pattern, as in `POST /v1/trees`.
    pub what: String,
    /// Only from this peer (name, peer ID or its beginning).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How many files are listed one by one, at the most. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<u32>,
}

/// Body of `POST /v1/trees`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeRequest {
    /// A directory of the network, or a pattern: `*` and `?` stand for what has no `/`, `**` for any directories, `[ab]`
    /// for one of these characters.
    pub what: String,
    /// Only from this peer (name, peer ID or its beginning).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its priority. Default: normal, or the one that it has where it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// What fetching a directory comes to, before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeAnswer {
    /// What was asked for.
    pub what: String,
    /// Files that are to be fetched.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of it that are here already with the same content: they are not fetched.
    pub here_files: u64,
    /// Their bytes.
    pub here_bytes: u64,
    /// Files that only plain peers have: nobody vouches for their bytes, and they are left out.
    pub unproven_files: u64,
    /// Names that need a choice; with one of them, nothing is fetched.
    pub conflicts: u64,
    /// The first of them.
    pub first_conflicts: Vec<TreeConflict>,
    /// Peers that have at least one of the files that were looked up: at most 16, evenly spread.
    pub sources: Vec<PeerName>,
    /// Bytes that can still be written where they would land; absent where that share is away.
    pub free_bytes: Option<u64>,
    /// What could not be asked, and why; there may then be more files.
    pub incomplete: Option<String>,
    /// The files that are to be fetched, and those whose names need a choice, in order of their names; as many as were
    /// asked for. It comes last, however many they are.
    #[serde(default)]
    pub list: Vec<TreeFileRow>,
}

/// A file of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeFileRow {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Bytes.
    pub size: u64,
    /// How many peers have it now, as far as those who listed it know.
    pub sources: u32,
}

/// A name that needs a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeConflict {
    /// The name.
    pub name: String,
    /// Whether another file is here under it.
    pub here: bool,
    /// The different contents that others have under it.
    pub contents: Vec<String>,
}
