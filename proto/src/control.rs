//! Bodies of the control API: what `p2pctl` and `p2pd` say over the Unix socket, `/v1/…`, in JSON.
//!
//! Sizes are bytes, times are milliseconds since 1970-01-01 UTC, contents are BLAKE3 hashes in lower-case hex (what
//! `b3sum` prints), peer IDs are in base32. Errors are [`crate::problem::Problem`] documents.

mod config;
mod doctor;
mod limits;
mod shares;
mod transfers;
mod trees;
mod why;

pub use config::{ConfigAnswer, ConfigEntry, ConfigNow, ConfigOrigin};
pub use doctor::{Doctor, UnfitShare, Watches};
pub use limits::{Limit, LimitsAnswer, PeerLimit, SetLimits};
pub use shares::{AddShare, ShareList, ShareRow, Visibility};
pub use transfers::{
    FetchAnswer, FetchQuery, FetchRequest, Priority, SendQuery, SendState, Sending, SetPriority, SourceState,
    Transfer, TransferList, TransferSource, TransferState,
};
pub use trees::{TreeAnswer, TreeConflict, TreeFileRow, TreeQuery, TreeRequest};
pub use why::{Bound, CpuWork, DiskWork, ResumedFile, TimeShares, WaitsFor, Why, WhySource};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This peer's ID.
    pub peer_id: String,
    /// This peer's name.
    pub name: String,
    /// Version of the daemon.
    pub version: String,
    /// Process ID of the daemon.
    pub pid: u32,
    /// When the daemon started.
    pub started_ms: i64,
    /// Its state directory.
    pub state_dir: String,
    /// Where its REST interface listens.
    pub rest: String,
    /// Where its gRPC interface listens.
    pub grpc: String,
    /// How it stands with its maestro, the one that stands best where there are several; absent where it has none.
    pub maestro: Option<MaestroStatus>,
    /// How it stands with each of its maestros, in the order in which they were given.
    #[serde(default)]
    pub maestros: Vec<MaestroStatus>,
    /// Files that it shares.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files found and not yet hashed.
    pub files_pending: u64,
    /// Friends.
    pub friends: u64,
    /// Transfers that are not ended.
    pub transfers_open: u64,
    /// Tasks of the daemon: its loops, connections, and whatever it is at. Absent in answers of older daemons.
    #[serde(default)]
    pub tasks: u64,
    /// The loops that keep things true, with their last result.
    pub loops: Vec<LoopStatus>,
}

/// How a peer stands with its maestro.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaestroStatus {
    /// `host:port` as configured or joined.
    pub address: String,
    /// Its identity, once it is pinned.
    pub maestro_id: Option<String>,
    /// What it calls itself.
    pub name: Option<String>,
    /// Where the connection stands.
    pub state: MaestroState,
    /// Since when it is in that state.
    pub since_ms: i64,
    /// Why, where it is not in sync; with what to do.
    pub detail: Option<String>,
    /// Catalog changes that it has not acknowledged.
    pub changes_pending: u64,
    /// Until when this peer's membership of the network is valid.
    pub membership_until_ms: Option<i64>,
}

/// Where the connection with the maestro stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MaestroState {
    /// Not connected yet, or trying again.
    Connecting,
    /// Connected; changes are on their way.
    Syncing,
    /// Connected; it holds the catalog as it is.
    InSync,
    /// Connected; another maestro of the same network is told, and this one takes its place at once.
    Reserve,
    /// It cannot be reached.
    Unreachable,
    /// It is not who was pinned, or it does not admit this peer.
    Refused,
}

/// The last result of a loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoopStatus {
    /// What it keeps true.
    pub name: String,
    /// When it last ran to its end.
    pub last_ms: Option<i64>,
    /// What came of it.
    pub result: String,
}

/// A peer, as others name and reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerName {
    /// Its peer ID; absent for a plain peer of the first system.
    pub peer_id: Option<String>,
    /// Its name, or the URL of a plain peer.
    pub name: String,
}

/// One file in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileRow {
    /// Its name in the network.
    pub name: String,
    /// Bytes; absent where nobody knows (a plain peer's file).
    pub size: Option<u64>,
    /// Its content; absent where nobody vouches for the bytes.
    pub content: Option<String>,
    /// When it was last modified.
    pub modified_ms: Option<i64>,
    /// The share it is in, where it is this peer's or one peer's.
    pub share: Option<String>,
    /// How many peers that are online have this content under this name.
    pub sources: u32,
    /// Whether this peer has it.
    pub here: bool,
}

/// A page of files, in order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// The files.
    pub files: Vec<FileRow>,
    /// Cursor of the next page; absent on the last one.
    pub next: Option<String>,
    /// What could not be asked, and why; what is listed may then not be all.
    pub incomplete: Option<String>,
}

/// Query of `GET /v1/files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FilesQuery {
    /// Only names that start with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only names that contain this, without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The files of this peer (name, peer ID or its beginning, or URL of a plain peer). Default: this peer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The files of the whole network.
    #[serde(default)]
    pub all: bool,
    /// At the most; default 500, limit 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the previous page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Query of `GET /v1/locate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LocateQuery {
    /// A name, or a content in hex.
    pub what: String,
}

/// `GET /v1/locate`: one name may stand for several contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocateAnswer {
    /// What was asked for.
    pub what: String,
    /// The contents that there are under that name, the one with most sources first.
    pub candidates: Vec<Candidate>,
    /// What could not be asked, and why.
    pub incomplete: Option<String>,
}

/// One content, with everyone who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Bytes; absent where nobody knows.
    pub size: Option<u64>,
    /// Its content; absent where nobody vouches for the bytes.
    pub content: Option<String>,
    /// Who has it.
    pub sources: Vec<SourceRow>,
}

/// Someone who has a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceRow {
    /// Who.
    #[serde(flatten)]
    pub peer: PeerName,
    /// Who said so.
    pub origin: Origin,
    /// The name of who said so: the maestro's, or the friend's; of what this peer remembers, that of the maestro who said it.
    /// Absent for this peer itself, and where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
    /// When that was said: now, or, of what this peer remembers, when the maestro said it. Absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_ms: Option<i64>,
    /// `host:port` of its gRPC interface, best first.
    pub addresses: Vec<String>,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// This peer's own catalog.
    Own,
    /// The maestro.
    Maestro,
    /// A friend, or a friend of a friend.
    Friend,
    /// What this peer remembers of a maestro that does not answer now.
    Cache,
}

/// One peer in `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerRow {
    /// Who.
    #[serde(flatten)]
    pub peer: PeerName,
    /// What it is to this peer.
    pub relation: Relation,
    /// Whether the maestro sees it now; absent for a friend outside the network.
    pub online: Option<bool>,
    /// `host:port` of its gRPC interface, best first.
    pub addresses: Vec<String>,
    /// Base URL of its REST interface.
    pub rest: Option<String>,
    /// Files that it announces.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Version of its program.
    pub version: Option<String>,
}

/// What a peer is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// This peer.
    Own,
    /// A member of the same network.
    Member,
    /// Trusted by this peer's user.
    Friend,
    /// A plain peer of the first system.
    Plain,
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// The peers.
    pub peers: Vec<PeerRow>,
    /// What could not be asked, and why.
    pub incomplete: Option<String>,
}

/// A friend: a peer that this peer's user trusts, with or without a maestro.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Friend {
    /// Its peer ID.
    pub peer_id: String,
    /// What this user calls it.
    pub name: String,
    /// `host:port` of its gRPC interface.
    pub addresses: Vec<String>,
    /// When it was added.
    pub added_ms: i64,
}

/// `GET /v1/friends`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FriendList {
    /// The friends.
    pub friends: Vec<Friend>,
}

/// Body of `POST /v1/friends`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddFriend {
    /// `host:port` (who answers there is pinned), or the name or ID of a peer that the maestro knows.
    pub peer: String,
    /// The peer ID that must answer there. Without it, the one that answers is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// What to call it. Default: what it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Answer to `POST /v1/refresh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefreshAnswer {
    /// Files shared now.
    pub files: u64,
    /// Files that were added or changed since the last look.
    pub changed: u64,
    /// Files that are gone since the last look.
    pub removed: u64,
    /// Whether the maestro holds the catalog as it is now; absent without a maestro.
    pub announced: Option<bool>,
    /// Why it does not.
    pub detail: Option<String>,
}

/// Body of `PUT /v1/network`: join a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// `host` or `host:port` of the maestro's gRPC interface (default port 9010).
    pub address: String,
    /// The identity that must answer there. Without it, the one that answers is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maestro_id: Option<String>,
    /// The network's join token, where its maestro asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Beside the maestros that were joined before, not in their place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add: bool,
}

/// Query of `DELETE /v1/network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveQuery {
    /// `host` or `host:port` of the maestro to leave. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Answer to `PUT /v1/network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinAnswer {
    /// Where the maestro is.
    pub address: String,
    /// The maestro's identity: its fingerprint, now pinned.
    pub maestro_id: String,
    /// What the maestro calls itself.
    pub name: String,
    /// Whether this identity was seen for the first time.
    pub first_contact: bool,
    /// Until when this peer's membership is valid.
    pub membership_until_ms: Option<i64>,
    /// Address of another maestro of this peer with the same identity: one directory, of which one maestro is in use and the
    /// others are in reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
}
