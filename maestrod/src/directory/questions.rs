//! The words of questions to the directory, and of its answers.

use p2p_content::ContentHash;
use p2p_identity::PeerId;

#[cfg(doc)]
use super::Directory;
use super::{FileRecord, PeerKey, PeerRecord};

/// What [`Directory::locate`] looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Files of exactly this name. A text that no file can have for a name finds nothing.
    Name(String),
    /// Files with this content, whatever their names: one candidate at the most.
    Content(ContentHash),
}

/// One content under one name, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file, as one of the sources has it.
    pub file: FileRecord,
    /// Who has it, in order of keys.
    pub sources: Vec<PeerRecord>,
}

/// What [`Directory::search`] looks for: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// The name starts with this.
    pub prefix: String,
    /// The name contains this, without regard to case.
    pub text: String,
    /// This peer has it.
    pub peer: Option<PeerKey>,
}

/// One content under one name, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, as the searched-for peer has it, else as one of those who have it does.
    pub file: FileRecord,
    /// How many visible peers have it.
    pub sources: u32,
}

/// What [`Directory::find`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPage {
    /// The items; possibly none although there is a `next`.
    pub items: Vec<Found>,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<FindPosition>,
    /// The order in which they come.
    pub order: Order,
    /// About how many names the text index does not have yet: they may not be found, or come last.
    pub unindexed: u64,
}

/// The order in which [`Directory::find`] tells what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All of it by rank, then by name.
    Rank,
    /// A batch of names after the other, in the store's own order; by rank, then by name within each.
    Batches,
    /// All of it by name.
    Name,
}

/// A place in what [`Directory::find`] finds. It keeps to the order of the first page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindPosition {
    /// In [`Order::Rank`].
    Rank(RankPosition),
    /// In [`Order::Batches`].
    Batches(BatchPosition),
    /// In [`Order::Name`].
    Name(NamePosition),
}

/// A place among names in order of rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankPosition {
    /// Rank of the last name seen.
    pub rank: u8,
    /// The last name seen, and how much of it.
    pub at: NamePosition,
}

/// A place in batches of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPosition {
    /// The names that [begin with the text](super::Pattern::opens) are in the first batch, and in no other.
    pub opened: bool,
    /// The batch comes after this place, in the store's own words; empty: it is the first.
    pub after: Vec<u8>,
    /// What was seen of the batch; `None`: nothing.
    pub seen: Option<BatchSeen>,
}

/// How much of a batch was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSeen {
    /// The batch has all up to this place, in the store's own words.
    pub through: Vec<u8>,
    /// The last name seen.
    pub last: RankPosition,
}

/// A content, and how many have it: each peer once, under whatever names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The content.
    pub content: ContentHash,
    /// A name under which one of the visible peers has it.
    pub name: String,
    /// Its bytes, as that peer says.
    pub size: u64,
    /// How many visible peers have it: 1 is the only copy.
    pub here: u32,
    /// How many have it that are not visible now.
    pub away: u32,
}

/// One name, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Who has it, with what is under that name there.
    pub holders: Vec<Holder>,
}

/// A peer that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The peer.
    pub peer: std::sync::Arc<PeerRecord>,
    /// Hash of its bytes there.
    pub content: Option<ContentHash>,
    /// Its bytes there.
    pub size: u64,
}

/// Which peers [`Directory::peers`] lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those whose files are shown.
    Visible,
    /// All that were ever heard of.
    All,
}

/// A peer with the first of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPeer {
    /// The peer.
    pub peer: PeerRecord,
    /// Names of its files, in order.
    pub names: Vec<String>,
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, P> {
    /// The items; possibly none although there is a `next`.
    pub items: Vec<T>,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<P>,
}

/// A place among the files of one peer, in the store's own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePosition {
    /// The share of the last file seen.
    pub share: String,
    /// The place of that file in it, in the store's own words.
    pub within: Vec<u8>,
}

/// A place in a list that is ordered by name, then content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePosition {
    /// The last name seen.
    pub name: String,
    /// How much of it was seen.
    pub through: Through,
}

/// How much of a name was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// All of it.
    Name,
    /// Its contents up to this one; files without a hash are before all others.
    Content(Option<ContentHash>),
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Visible peers, the plain ones included.
    pub peers_here: u64,
    /// All peers.
    pub peers_known: u64,
    /// Files of the visible peers.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the database, with its log.
    pub database_bytes: u64,
    /// About how many names cannot be found by their parts yet.
    pub names_unindexed: u64,
    /// Another number when files may have changed.
    pub changes: u64,
}

/// What [`Directory::forget_unseen`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The peer of whom nothing is left.
    pub peer: Option<PeerId>,
    /// Whether there may be more to forget.
    pub more: bool,
}

/// How much is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Visible peers, the plain ones included.
    pub peers: u64,
    /// Their files.
    pub files: u64,
}
