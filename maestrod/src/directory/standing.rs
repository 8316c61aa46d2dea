//! How a peer's catalog stands: what a store keeps of it beside its files, and the tally that follows them. Pure.

use super::{Complete, Digest, FileRecord};

/// How a peer's catalog stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Its row.
    pub(super) id: i64,
    /// Its latest stream.
    pub(super) session: u64,
    /// Life of the catalog that is held; 0: nothing is.
    pub(super) epoch: u64,
    /// The last sequence number applied.
    pub(super) applied: u64,
    /// Files of another one are not of the full catalog that came last.
    pub(super) generation: i64,
    /// A full catalog has begun, and what it leaves out is not forgotten yet.
    pub(super) sweeping: bool,
    /// How many files it has.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// XOR over them.
    pub(super) digest: Digest,
}

/// What the files of a peer come to, counted one by one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    files: u64,
    bytes: u64,
    digest: Digest,
}

impl Tally {
    /// Counts a file.
    pub(super) fn add(&mut self, share: &str, name: &str, content: &[u8], size: u64) {
        self.files += 1;
        self.bytes = self.bytes.wrapping_add(size);
        self.digest ^= Digest::of_parts(share, name, content, size);
    }
}

impl Standing {
    /// Whether the tally is what the peer says of its whole catalog.
    pub(super) fn agrees(&self, complete: Complete) -> bool {
        (self.files, self.digest) == (complete.files, complete.digest)
    }

    /// Puts a tally in place of the one that was kept change by change.
    pub(super) fn correct(&mut self, Tally { files, bytes, digest }: Tally) {
        *self = Standing { files, bytes, digest, ..*self };
    }

    /// Counts a file that comes.
    pub(super) fn put_in(&mut self, file: &FileRecord) {
        self.files += 1;
        // What peers say of their sizes may add up to anything.
        self.bytes = self.bytes.wrapping_add(file.size);
        self.digest ^= Digest::of(file);
    }

    /// Counts out a file that goes.
    pub(super) fn take_out(&mut self, share: &str, name: &str, content: Option<&[u8; 32]>, size: u64) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.wrapping_sub(size);
        self.digest ^= Digest::of_parts(share, name, content.map_or(&[][..], |content| content), size);
    }
}
