//! What is said of a file, and the questions and answers about it.

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_proto::control::Visibility;

/// One file of a share, as it was when it was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The share that it is in.
    pub share: String,
    /// Its path in the share, which is its name in the network.
    pub name: FileName,
    /// The BLAKE3 hash of its bytes.
    pub content: ContentHash,
    /// Its length, in bytes.
    pub size: u64,
    /// When it was last modified, in nanoseconds since 1970-01-01 UTC.
    pub modified_ns: i64,
    /// When its inode last changed (ctime), in nanoseconds since 1970-01-01 UTC. No program can set it back.
    pub changed_ns: i64,
    /// The number of its inode.
    pub inode: u64,
}

impl Fact {
    /// When it was last modified, in milliseconds since 1970-01-01 UTC: what the network is told.
    pub fn modified_ms(&self) -> i64 {
        self.modified_ns.div_euclid(1_000_000)
    }

    /// What tells, without reading it, whether the file is still the one that was hashed.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            size: self.size,
            modified_ns: self.modified_ns,
            changed_ns: self.changed_ns,
            inode: self.inode,
        }
    }
}

/// What a file system says of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Length, in bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970-01-01 UTC.
    pub modified_ns: i64,
    /// Last change of the inode (ctime), in nanoseconds since 1970-01-01 UTC.
    pub changed_ns: i64,
    /// Number of the inode.
    pub inode: u64,
}

impl Stamp {
    /// Whether the bytes are the same as far as anybody can tell without reading. The ctime is left out: it also moves
    /// when a file is renamed, linked or given another mode.
    pub fn same_bytes(&self, other: &Stamp) -> bool {
        self.size == other.size && self.modified_ns == other.modified_ns && self.inode == other.inode
    }
}

/// One thing to change in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactChange {
    /// The file is there, and this is what is true of it.
    Upsert {
        /// The file.
        fact: Fact,
        /// The content's manifest, where it was just made. Not needed for a content of one piece, nor for one whose
        /// manifest the catalog has.
        manifest: Option<Manifest>,
    },
    /// The file is gone. Nothing changes, and no sequence number is used, where the catalog does not have it.
    Remove {
        /// The share that it was in.
        share: String,
        /// Its name.
        name: FileName,
    },
}

/// Who asks; it decides what they may see. Nobody sees the files of a share that is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// The peer's own users: all shares.
    Own,
    /// A friend: the shares for the network and those for friends.
    Friend,
    /// A member of the network: the shares for the network.
    Network,
}

/// Which files to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only names that start with this.
    pub prefix: Option<String>,
    /// Only names that contain this, without regard to case (as Unicode has it, not only ASCII).
    pub text: Option<String>,
    /// Only this share's files.
    pub share: Option<String>,
    /// Who asks.
    pub viewer: Viewer,
    /// Only what comes after this (name, share) in the list's order.
    pub after: Option<(String, String)>,
    /// How many at the most.
    pub limit: u32,
}

/// What a maestro has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// In ascending order of sequence; only the latest change of each file.
    pub changes: Vec<Change>,
    /// Everything up to this sequence number is told with these changes.
    pub through: u64,
    /// Whether they reach the end of the catalog as it is.
    pub complete: bool,
    /// The digest of all announced files, as `directory.proto` defines it. It is that of the catalog's end: right at
    /// `through` only where `complete`.
    pub digest: [u8; 16],
    /// How many files are announced; like `digest`, right only where `complete`.
    pub files: u64,
}

/// What a maestro asks about the files that are announced, to find out where it holds others. Each is in one of `2^bits`
/// buckets ([`bucket_of`](p2p_content::bucket_of)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketQuery {
    /// What are the digests?
    Digests {
        /// How many bits number the buckets.
        bits: u32,
    },
    /// Which files are in these?
    Files {
        /// How many bits number the buckets.
        bits: u32,
        /// The buckets, in ascending order.
        buckets: Vec<u32>,
        /// More files than this are not told.
        limit: usize,
    },
}

/// The answer, true of the catalog at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buckets {
    /// Of each bucket, in their order: the digest of its files, and how many there are.
    Digests(Vec<([u8; 16], u32)>),
    /// The files, in no order; `None`: there are more than the limit.
    Files(Option<Vec<Fact>>),
}

impl Buckets {
    /// What all buckets come to, as [`Changes`] says it of the whole catalog; `None` where files are told.
    pub(super) fn tally(&self) -> Option<([u8; 16], u64)> {
        let Buckets::Digests(buckets) = self else { return None };
        let mut all = ([0; 16], 0);
        for (digest, files) in buckets {
            all.0.iter_mut().zip(digest).for_each(|(byte, other)| *byte ^= other);
            all.1 += u64::from(*files);
        }
        Some(all)
    }
}

/// The latest change of one file, as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its sequence number.
    pub sequence: u64,
    /// What became of the file.
    pub what: Changed,
}

/// What became of a file, as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is there.
    Upserted(Fact),
    /// It is gone, or no longer for the network, or its share is not available.
    Removed {
        /// The share that it was in.
        share: String,
        /// Its name.
        name: FileName,
    },
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What applying some changes came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The catalog's last sequence number after them.
    pub sequence: u64,
    /// Files that are new or changed, as the network would be told.
    pub changed: u64,
    /// Files that are gone.
    pub removed: u64,
}

/// What the catalog remembers of a share, beside its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRecord {
    /// Its name.
    pub name: String,
    /// Who may see it.
    pub visible: Visibility,
    /// Whether its files can be read now. While they can't, they are hidden, and not forgotten.
    pub available: bool,
    /// Device and inode of its directory when it was last available: they tell the disk from the empty directory that
    /// it is mounted on.
    pub root: Option<(u64, u64)>,
}
