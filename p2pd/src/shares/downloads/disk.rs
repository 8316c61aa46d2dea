//! The calls that make durable what was done in the downloads. They are a value, so that a test can be the disk.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

/// What is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// A file's bytes, or the names in a directory.
    One,
    /// Everything that is in its file system.
    All,
}

type Call = dyn Fn(Flush, BorrowedFd<'_>) -> Result<(), Errno> + Send + Sync;

/// A disk. Clones are the same.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Call>);

impl Disk {
    /// One that is told so of what is to be durable.
    #[cfg(test)]
    pub(crate) fn played(
        call: impl Fn(Flush, BorrowedFd<'_>) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Disk {
        Disk(Arc::new(call))
    }

    /// Makes a file's bytes durable, or the names in a directory.
    pub(super) fn flush(&self, what: impl AsFd) -> Result<(), Errno> {
        (self.0)(Flush::One, what.as_fd())
    }

    /// Makes all durable that is in the same file system.
    pub(super) fn flush_all(&self, beside: impl AsFd) -> Result<(), Errno> {
        (self.0)(Flush::All, beside.as_fd())
    }
}

impl Default for Disk {
    fn default() -> Disk {
        Disk(Arc::new(|what, handle| match what {
            Flush::One => rustix::fs::fsync(handle),
            Flush::All => rustix::fs::syncfs(handle),
        }))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}
