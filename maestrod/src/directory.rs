//! The index: which peers there are, and who has which content. One trait, [`Directory`], and the words it uses.
//!
//! A store answers from what is visible: the files of peers that the presence loop has shown, and of plain peers.
//! Called by the edges (`grpc`, `rest`), by the Sync stream and by the presence loop. It knows nothing of any of them,
//! and reads no clock: times are arguments.

use async_trait::async_trait;
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;

pub mod cursor;
pub mod digest;
mod group;
pub mod pattern;
pub mod postgres;
mod questions;
mod ranking;
pub mod sharing;
pub mod sqlite;
mod standing;
mod turns;
mod walking;

#[cfg(test)]
mod conformance;

pub use digest::Digest;
pub use pattern::Pattern;
pub use questions::{
    BatchPosition, BatchSeen, Candidate, Copies, FilePosition, FindPosition, Forgotten, Found, FoundPage,
    Holder, Holdings, Listed, ListedPeer, NamePosition, Order, Page, RankPosition, Search, Through, Totals,
    Wanted, Which,
};
pub use sharing::Sharing;

/// Where an index is kept, and what can be asked of it.
///
/// Every list is paged and every call does a bounded amount of work, so a page may hold fewer than `limit` items and
/// yet have a `next`. A change is durable, or will be sent again by whoever sent it.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Remembers that `peer` showed the join token. Durable when it returns.
    async fn admit(&self, peer: PeerId, now_ms: i64) -> Result<(), DirectoryError>;

    /// Whether `peer` was admitted.
    async fn is_admitted(&self, peer: PeerId) -> Result<bool, DirectoryError>;

    /// A stream of `peer` begins: keeps what the peer says of itself, and says what is held of its catalog. Whatever
    /// is still to come from an earlier stream of this peer is refused from now on.
    async fn begin(&self, peer: PeerId, profile: Profile, now_ms: i64) -> Result<Held, DirectoryError>;

    /// Applies a batch of `peer`'s changes, all or nothing. What a full catalog left out is forgotten before this
    /// returns; should that be cut off, the next batch that is complete does it.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Superseded`] if `session` is not of the peer's latest [`begin`](Directory::begin).
    async fn apply(
        &self,
        peer: PeerId,
        session: Session,
        batch: Batch,
        now_ms: i64,
    ) -> Result<Applied, DirectoryError>;

    /// Shows or hides the files of `peer`, which are kept either way, and notes when it was last heard of, if given.
    async fn set_visible(
        &self,
        peer: PeerId,
        visible: bool,
        heard_ms: Option<i64>,
    ) -> Result<(), DirectoryError>;

    /// The peers with an identity that are visible: after a restart, those that were when it ended.
    async fn visible_peers(&self) -> Result<Vec<PeerId>, DirectoryError>;

    /// Puts a plain peer and its files in place of what was registered under the same URL. Durable when it returns.
    async fn register(
        &self,
        plain: PlainPeer,
        files: Vec<FileName>,
        now_ms: i64,
    ) -> Result<(), DirectoryError>;

    /// Who has this, visibly: at most [`MAX_CANDIDATES`] candidates with at most `sources` sources each, drawn at
    /// random where there are more. The candidate with the most sources is first; one without a hash is last.
    async fn locate(&self, wanted: Wanted, sources: usize) -> Result<Vec<Candidate>, DirectoryError>;

    /// The visible contents that match, by name, then content; after `after`, at most `limit`.
    async fn search(
        &self,
        search: Search,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Found, NamePosition>, DirectoryError>;

    /// The visible contents with a name of this pattern, after `after`, at most `limit`: where few enough names match, by
    /// the name's [rank](Pattern::rank), then by name. Where more do, in batches: first the names that it
    /// [opens](Pattern::opens), if a look at the order of names finds all of them, with the first names of the text index;
    /// then batch by batch what it has else, and in the end what it does not have yet. A pattern without three letters in a
    /// row is answered by name. A name that was just announced may be found some seconds later; one that comes or goes
    /// meanwhile may be in the list or not, or twice.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Position`] if no answer to this pattern gave out `after`.
    async fn find(
        &self,
        pattern: Pattern,
        after: Option<FindPosition>,
        limit: usize,
    ) -> Result<FoundPage, DirectoryError>;

    /// How many copies there are of the visible contents, in order of their hashes: of those with at most `most_copies`,
    /// if given; after `after`, at most `limit`.
    async fn contents(
        &self,
        most_copies: Option<u32>,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Page<Copies, ContentHash>, DirectoryError>;

    /// How many copies there are of this content. `None`: no visible peer has it.
    async fn copies(&self, content: ContentHash) -> Result<Option<Copies>, DirectoryError>;

    /// The visible names in order, each with at most [`MAX_HOLDERS`] of those who have it; after `after`, at most
    /// `limit`.
    async fn list(
        &self,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Listed, NamePosition>, DirectoryError>;

    /// The names of one peer's files in order, after `after`, at most `limit`. `None`: no such peer is visible.
    async fn names_of(
        &self,
        peer: PeerKey,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Option<(PeerRecord, Page<String, NamePosition>)>, DirectoryError>;

    /// All files of a peer with an identity, visible or not, by share and in the store's own order in it; after `after`, at
    /// most `limit`. Files that change meanwhile may be in it or not; those that do not are in it, once. Of a peer that is
    /// not known there are none.
    async fn files_of(
        &self,
        peer: PeerId,
        after: Option<FilePosition>,
        limit: usize,
    ) -> Result<Page<FileRecord, FilePosition>, DirectoryError>;

    /// The peers in order of their keys, each with at most `names_each` of the names it has; after `after`, at most
    /// `limit`.
    async fn peers(
        &self,
        which: Which,
        names_each: usize,
        after: Option<PeerKey>,
        limit: usize,
    ) -> Result<Page<ListedPeer, PeerKey>, DirectoryError>;

    /// How much is visible.
    async fn totals(&self) -> Result<Totals, DirectoryError>;

    /// How much there is in all.
    async fn holdings(&self) -> Result<Holdings, DirectoryError>;

    /// How many different contents there are after this one, of peers visible or not, up to where the next call goes on.
    async fn count_contents(
        &self,
        after: Option<ContentHash>,
    ) -> Result<(u64, Option<ContentHash>), DirectoryError>;

    /// Forgets something of a peer with an identity that is hidden and was last heard of before this time, in
    /// milliseconds since 1970-01-01 UTC: some of its files, and with the last of them the peer. Should it come back in
    /// between, nothing is held of its catalog. Its admission is kept.
    async fn forget_unseen(&self, before_ms: i64) -> Result<Forgotten, DirectoryError>;

    /// What this maestro and the others owe each other; `None` where the store is this maestro's alone.
    fn sharing(&self) -> Option<&dyn Sharing> {
        None
    }
}

/// Most candidates that [`Directory::locate`] answers with.
pub const MAX_CANDIDATES: usize = 100;
/// Most holders of one name that [`Directory::list`] answers with.
pub const MAX_HOLDERS: usize = 1000;
/// Most copies of one content that [`Directory::contents`] and [`Directory::copies`] count: more are as many.
pub const MAX_COPIES: u32 = 10_000;

/// Why the directory does not answer, or did not take a change.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The peer has begun a newer stream.
    #[error("a newer stream of this peer has taken this one's place")]
    Superseded,
    /// There is no room for the change; nothing of it was kept.
    #[error("the maestro has no space left for its directory: {0}")]
    Full(String),
    /// The database cannot be reached now; nothing of a change was kept, or all of it.
    #[error("the maestro's database cannot be reached: {0}")]
    Unavailable(String),
    /// More is asked of the database than it can answer now; nothing of a change was kept.
    #[error("the maestro's database has too much to do: {0}")]
    Busy(String),
    /// A list cannot go on from there.
    #[error("this is not a place in what is asked for; begin again")]
    Position,
    /// The store failed; nothing of a change was kept.
    #[error("the maestro's directory failed: {0}")]
    Failed(String),
}

/// What identifies a peer in the directory. Peers with an identity come first in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKey {
    /// A peer with an identity.
    Synced(PeerId),
    /// A peer of the first system: the URL it registered.
    Plain(String),
}

impl PeerKey {
    /// The identity, if it has one.
    pub fn id(&self) -> Option<PeerId> {
        match self {
            PeerKey::Synced(id) => Some(*id),
            PeerKey::Plain(_) => None,
        }
    }
}

/// What a peer says of itself, checked, and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// What its user calls it.
    pub name: String,
    /// `host:port` of its gRPC port, best first.
    pub addresses: Vec<String>,
    /// Base URL of its REST interface; may be empty.
    pub rest_url: String,
    /// Its gRPC port.
    pub grpc_port: u16,
    /// Version of its program.
    pub version: String,
}

/// A plain peer, as it registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainPeer {
    /// Base URL of its REST interface; its key.
    pub url: String,
    /// `host:port` of its gRPC port.
    pub address: String,
    /// Its gRPC port.
    pub grpc_port: u16,
}

/// A peer as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who it is.
    pub key: PeerKey,
    /// What it says of itself.
    pub profile: Profile,
    /// Whether its files are shown.
    pub visible: bool,
    /// How many files it announces.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was last heard of, in milliseconds since 1970-01-01 UTC.
    pub last_seen_ms: i64,
}

/// One file of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// The share it is in; empty for a plain peer.
    pub share: String,
    /// Its path in the share.
    pub name: String,
    /// Hash of its bytes. `None`: nobody vouches for them.
    pub content: Option<ContentHash>,
    /// Bytes. 0 where `content` is `None`.
    pub size: u64,
    /// When it was modified, in milliseconds since 1970-01-01 UTC.
    pub modified_ms: i64,
}

/// Names one stream of a peer, so that an older one can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session(pub u64);

/// What is held of a peer's catalog when its stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What [`Directory::apply`] is to be called with.
    pub session: Session,
    /// Life of the catalog that is held; 0: nothing is.
    pub epoch: u64,
    /// The last sequence number applied.
    pub applied: u64,
}

/// Changes of one peer's catalog, checked: names are names, sequence numbers were in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Life of the catalog.
    pub epoch: u64,
    /// A full catalog begins: what is not in it is forgotten when it is complete, and not before.
    pub reset: bool,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What counts as applied after this batch.
    pub through_sequence: u64,
    /// The end of the catalog is reached.
    pub complete: Option<Complete>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This file is there, in place of what was under its share and name.
    Upsert(FileRecord),
    /// This file is no longer there.
    Removed {
        /// Its share.
        share: String,
        /// Its path in the share.
        name: String,
    },
}

/// What the peer says of its whole catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// XOR over all its files.
    pub digest: Digest,
    /// How many there are.
    pub files: u64,
    /// Where that is not what is held, the files that are held are first counted anew: the tally that is kept change by
    /// change may itself be wrong. It takes a look at all of them.
    pub recount: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The last sequence number applied.
    pub sequence: u64,
    /// At the end of a catalog: whether both sides hold the same. `true` elsewhere.
    pub agrees: bool,
}
