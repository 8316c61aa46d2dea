//! Transfers, and files on their way to others.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::PeerName;

/// Body of `POST /v1/transfers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// A name, or a content in hex.
    pub what: String,
    /// Only from this peer (name, peer ID or its beginning, or URL of a plain peer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The name that it shall have here. Default: the one it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_as: Option<String>,
    /// Its priority. Default: normal, or the one that it has where it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// Query of `GET /v1/fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FetchQuery {
    /// A name, or a content in hex.
    pub what: String,
    /// Only from this peer (name, peer ID or its beginning, or URL of a plain peer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The name that it would have here. Default: the one it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_as: Option<String>,
}

/// What fetching a file comes to, before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FetchAnswer {
    /// What was asked for.
    pub what: String,
    /// The name that it would have here, or has.
    pub name: String,
    /// Its content; absent where only plain peers have it, and nobody vouches for the bytes.
    pub content: Option<String>,
    /// Bytes; absent where nobody knows.
    pub size: Option<u64>,
    /// Whether it is here already: then nothing is fetched.
    pub here: bool,
    /// Absolute path of the file that is here, or that it would have.
    pub path: String,
    /// The transfer of it that is under way, which fetching it again would join.
    pub transfer: Option<u64>,
    /// Who would be asked for it.
    pub sources: Vec<PeerName>,
    /// Bytes that can still be written where it would land; absent where that share is away.
    pub free_bytes: Option<u64>,
    /// Who could not be asked, and why.
    pub incomplete: Option<String>,
}

/// Body of `POST /v1/transfers/{id}/priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// Its priority from now on.
    pub priority: Priority,
}

/// Which transfers go first, where more want to run than may at once.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// After all others.
    Low,
    /// Where nobody says anything else.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// A transfer: a persistent job that turns a content into a file, or a directory of the network into files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// Its number on this peer.
    pub id: u64,
    /// The name of the file that it makes; of a whole directory its name with `/` at the end, or the pattern.
    pub name: String,
    /// Its content; absent for an unproven file until it has arrived, and for a directory.
    pub content: Option<String>,
    /// Bytes; absent where nobody knows yet.
    pub size: Option<u64>,
    /// Bytes that are here and proven.
    pub done_bytes: u64,
    /// Bytes that were asked for again: refused as false, or lost with a source or in a crash.
    pub wasted_bytes: u64,
    /// Where it stands.
    pub state: TransferState,
    /// Why, where it waits or failed; with what to do.
    pub reason: Option<String>,
    /// Where more want to run than may at once, those of higher priority go first, and then the older ones. One that
    /// waits makes one of lower priority that runs yield its turn.
    #[serde(default)]
    pub priority: Priority,
    /// Its place among those that wait for their turn, 1 for the next one; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_place: Option<u64>,
    /// Whether its user has paused it: then it goes on when its user resumes it, and not before.
    #[serde(default)]
    pub held: bool,
    /// Whether each piece is proven against the content; false for a plain peer's file.
    pub proven: bool,
    /// Who gave what.
    pub sources: Vec<TransferSource>,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Seconds to go at that rate.
    pub eta_secs: Option<u64>,
    /// When it was asked for.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Absolute path of the file, once it is whole; of a directory, once all its files are.
    pub path: Option<String>,
    /// Of a directory: how many files it has, those included that were here before. Absent for one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Of a directory: how many of its files are here under their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<u64>,
    /// Of a directory: why these files may not be all of it: who could not be asked for its list, and what was left out.
    /// Absent where they are, and for one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// Where a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransferState {
    /// Waits for its turn.
    Queued,
    /// Bytes arrive, or are about to.
    Running,
    /// Has no source now; goes on by itself when one appears.
    Waiting,
    /// The disk is too full, and it goes on by itself when there is room; or its user paused it.
    Paused,
    /// The file is whole and in its share.
    Done,
    /// It cannot be done.
    Failed,
    /// Its user ended it.
    Cancelled,
}

impl TransferState {
    /// Whether the transfer has ended, one way or another.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What one source gave to a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferSource {
    /// Who.
    #[serde(flatten)]
    pub peer: PeerName,
    /// Bytes that came from it and were proven.
    pub bytes: u64,
    /// Where it stands.
    pub state: SourceState,
    /// Why it was dropped.
    pub reason: Option<String>,
}

/// Where a source of a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceState {
    /// It is being asked.
    Active,
    /// It could not be reached, or broke off; it is tried again.
    Lost,
    /// It sent false bytes, or breaks the protocol; not asked again in this transfer.
    Dropped,
}

/// `GET /v1/transfers`, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransferList {
    /// The transfers.
    pub transfers: Vec<Transfer>,
}

/// Query of `POST /v1/sends`, whose body is the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SendQuery {
    /// To whom (name, peer ID or its beginning, or URL of a plain peer).
    pub peer: String,
    /// The name that it shall have there.
    pub name: String,
}

/// A file on its way to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sending {
    /// Its number on this peer, until the daemon restarts.
    pub id: u64,
    /// The name that it has there.
    pub name: String,
    /// To whom.
    pub peer: PeerName,
    /// Its content.
    pub content: String,
    /// Bytes.
    pub size: u64,
    /// Bytes that the receiver has.
    pub done_bytes: u64,
    /// Where it stands.
    pub state: SendState,
    /// What the receiver said.
    pub message: Option<String>,
}

/// Where a sent file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SendState {
    /// The receiver was asked.
    Offered,
    /// The receiver fetches it.
    Accepted,
    /// The receiver has it.
    Delivered,
    /// The receiver does not want it or could not get it.
    Refused,
}
