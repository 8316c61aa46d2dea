//! What bounds a transfer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PeerName, TransferState};

/// `GET /v1/transfers/{id}/why`: what bounds a transfer now, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// Its number on this peer.
    pub id: u64,
    /// The name of the file that it makes.
    pub name: String,
    /// Where it stands.
    pub state: TransferState,
    /// What bounds it now.
    pub bound_by: Bound,
    /// What bounded one that has ended, for most of the time; absent where that is not known any more, and where it has not
    /// ended.
    pub was_bound_by: Option<Bound>,
    /// The same in a sentence, with the figures.
    pub says: String,
    /// Since when it waits for a source, or for room on the disk.
    pub waits_since_ms: Option<i64>,
    /// How often it looked for one meanwhile.
    pub tries: u32,
    /// When it looks again.
    pub next_try_ms: Option<i64>,
    /// How long was measured, in milliseconds: the last seconds; of an ended transfer, all that it ran since the daemon's
    /// start.
    pub measured_ms: u64,
    /// Bytes that came per second meanwhile, proven or not.
    pub bytes_per_sec: u64,
    /// What the sources waited for meanwhile.
    pub shares: TimeShares,
    /// The sources that are asked now, the fastest first.
    pub sources: Vec<WhySource>,
    /// What the disk had to do meanwhile.
    pub disk: DiskWork,
    /// What the processors had to do meanwhile.
    pub cpu: CpuWork,
    /// This peer's own limit of what comes in, of all peers together, in bytes per second; 0 is none.
    pub limit_bytes_per_sec: u64,
    /// Pieces that are not here, as far as it runs.
    pub missing_pieces: u32,
    /// Of them, those that no source has that is connected.
    pub rare_pieces: u32,
    /// What was in the part file when the transfer went on with it, since the daemon's start; absent where it had none.
    pub resumed: Option<ResumedFile>,
}

/// What bounds a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The network, or how fast the sources manage to give.
    Network,
    /// Rate limits that its sources keep to.
    TheirLimit,
    /// This peer's own limit of what comes in, of all peers together or of single ones.
    OurLimit,
    /// The disk here.
    Disk,
    /// The processors here.
    Cpu,
    /// There is no source now.
    NoSources,
    /// Pieces are missing that nobody has who can be reached.
    RarePieces,
    /// Its user has paused it.
    Paused,
    /// Others have their turn.
    Queued,
    /// The disk here is full, or would be.
    DiskFull,
    /// The disk or the database here failed; the sentence says how.
    Failure,
    /// It has just begun: sources are looked for.
    Starting,
    /// Nothing: it has ended.
    Ended,
}

/// Time of all sources together, as parts of 1, by what they waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimeShares {
    /// For bytes that they were asked for.
    pub bytes: f64,
    /// The same, while they said that a limit of their own held them back.
    pub their_limit: f64,
    /// For this peer's limits, of all peers together and of the source alone, to let more be asked for.
    pub our_limit: f64,
    /// For the disk here to take what they gave.
    pub disk: f64,
    /// For what they gave to be proven.
    pub proofs: f64,
    /// For a connection with them.
    pub connecting: f64,
    /// For nothing: they had nothing that was missing and not asked of another.
    pub idle: f64,
}

/// A source that is asked now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhySource {
    /// Who.
    #[serde(flatten)]
    pub peer: PeerName,
    /// Bytes that came from it per second, proven or not.
    pub bytes_per_sec: u64,
    /// Pieces that it was asked for and has not given.
    pub open_requests: u64,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// For how long already, in milliseconds.
    pub waits_ms: u64,
    /// What it waited for in the time that was measured.
    pub shares: TimeShares,
    /// This peer's limit of what comes in from this source alone, in bytes per second; 0 is none.
    #[serde(default)]
    pub limit_bytes_per_sec: u64,
}

/// What a source of a transfer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// A connection with it.
    Connection,
    /// Bytes that it was asked for.
    Bytes,
    /// The same, and it says that a limit of its own holds them back.
    TheirLimit,
    /// This peer's limit, of all peers together.
    OurLimit,
    /// This peer's limit for this source alone.
    OurLimitForIt,
    /// What it gave is to be proven and written.
    Sink,
    /// It has nothing that is missing and not asked of another.
    Nothing,
}

/// What the disk had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskWork {
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Time of the threads that wrote them, in milliseconds.
    pub writing_ms: u64,
    /// How many bytes each of these threads wrote in a second; absent where nothing was written.
    pub bytes_per_sec: Option<u64>,
    /// Time in which what was written was made durable, in milliseconds.
    pub flushing_ms: u64,
}

/// What the processors had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CpuWork {
    /// Bytes that were hashed to prove pieces.
    pub proved_bytes: u64,
    /// Time of the threads that hashed them, in milliseconds.
    pub proving_ms: u64,
    /// How many bytes each of these threads hashed in a second; absent where nothing was hashed.
    pub bytes_per_sec: Option<u64>,
    /// How much of the time the thread was busy that does all of the network, as a part of 1.
    pub network_thread: f64,
    /// How many processors the daemon kept busy.
    pub busy_cores: f64,
    /// How many there are for it.
    pub cores: u64,
}

/// What was in the part file when a transfer went on with it: what was remembered the first time since the daemon's start,
/// and what was hashed since then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResumedFile {
    /// Pieces that were remembered as proven, and were not read again.
    pub remembered_pieces: u32,
    /// Pieces that were not remembered, and were read and hashed.
    pub hashed_pieces: u32,
    /// Their bytes.
    pub hashed_bytes: u64,
    /// Of these pieces, those that proved themselves and need not be fetched.
    pub proven_pieces: u32,
}
