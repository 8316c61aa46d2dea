//! Looking at files: what is there, is it what the catalog says, and if not, what is its hash. Blocking.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2p_content::{ContentHash, ContentHasher, FileName, Manifest};
use rustix::fs::{Advice, FileType};
use tokio_util::sync::CancellationToken;

use super::root::{self, Place, Walk};
use super::settle::{Cause, Due};
use crate::catalog::{Catalog, CatalogError, Fact, Reader, Stamp};

/// Files up to this long, in bytes, are hashed by who looks at them; longer ones wait for their turn.
pub(super) const SMALL_BYTES: u64 = 1 << 20;

/// How much is read at once.
const READ_BYTES: usize = 1 << 20;

/// After so many reads, whether the file was changed meanwhile, and hashing on is a waste.
const READS_BETWEEN_CHECKS: u32 = 64;

/// What was found out about a name.
#[derive(Debug)]
pub(super) enum Finding {
    /// The catalog has it as it is.
    Unchanged,
    /// Nothing is there. `was_directory`: the catalog knows files below it.
    Gone { was_known: bool, was_directory: bool },
    /// It's a file, and this is true of it.
    File { fact: Fact, manifest: Option<Manifest> },
    /// It's a long file that was not hashed yet.
    Unhashed { size: u64 },
    /// It's not shared, for a reason that its owner should know.
    Skipped { was_known: bool, reason: String },
    /// It's not a file: a FIFO, a socket, a device.
    Ignored { was_known: bool },
    /// It's a directory.
    Directory { was_known: bool },
    /// Someone is writing it.
    StillOpen,
    /// It's too young to tell whether someone is writing it.
    Unsettled { wait: Duration },
    /// It was changed while it was read.
    Moving,
    /// The disk did not answer as it should: that says nothing of what is there.
    Failed { error: io::Error },
    /// Nobody wants to know any more.
    Cancelled,
}

/// What a look needs to know.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    pub(super) share: Arc<str>,
    pub(super) place: Place,
    pub(super) catalog: Catalog,
    /// How old a file must be before it's hashed where nobody said that it was closed.
    pub(super) settle: Duration,
    /// The same where someone said so: long enough for the clock of the file system to tick.
    pub(super) debounce: Duration,
    /// The same where someone may be writing it whose signs were passed over.
    pub(super) open_grace: Duration,
    /// Counts the bytes that were hashed.
    pub(super) hashed_bytes: Arc<AtomicU64>,
    pub(super) cancel: CancellationToken,
}

impl Looker {
    /// Looks at each name. Small files are hashed.
    pub(super) fn look(&self, names: &[Due]) -> Result<Vec<(Due, Finding)>, LookError> {
        let mut walk = self.walk()?;
        let reader = self.catalog.reader()?;
        let known = reader.known_of(&self.share, names.iter().map(|due| &*due.name))?;
        let mut look = |(due, known): (&Due, Option<Fact>)| {
            Ok((due.clone(), self.look_at(&mut walk, &reader, known, due, false)?))
        };
        names.iter().zip(known).map(&mut look).collect()
    }

    /// Looks at one name, and hashes it however long it is.
    pub(super) fn hash(&self, due: &Due) -> Result<Finding, LookError> {
        let mut walk = self.walk()?;
        let reader = self.catalog.reader()?;
        let known = reader.known(&self.share, &due.name)?;
        self.look_at(&mut walk, &reader, known, due, true)
    }

    fn walk(&self) -> Result<Walk, LookError> {
        Ok(self.place.open().map_err(|_| LookError::Lost)?.into())
    }

    fn look_at(
        &self,
        walk: &mut Walk,
        reader: &Reader,
        known: Option<Fact>,
        due: &Due,
        is_long: bool,
    ) -> Result<Finding, LookError> {
        if self.cancel.is_cancelled() {
            return Ok(Finding::Cancelled);
        }
        let Ok(name) = FileName::parse(&due.name) else {
            return Ok(Finding::Ignored { was_known: false });
        };
        let was_known = known.is_some();
        let skipped = |error: io::Error| Finding::Skipped { was_known, reason: reason_of(&error) };
        let stat = match walk.stat(&name) {
            Ok(stat) => stat,
            // No one can come to it through a directory that is closed to us, so it is as good as gone.
            Err(error) if root::is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
                let was_directory =
                    !reader.stamps_between(&self.share, &below(&name), &past(&name), 1)?.is_empty();
                return Ok(Finding::Gone { was_known, was_directory });
            }
            Err(error) => return Ok(Finding::Failed { error }),
        };
        match root::file_type(&stat) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Finding::Directory { was_known }),
            FileType::Symlink => {
                return Ok(Finding::Skipped { was_known, reason: super::SYMLINK.to_owned() });
            }
            _ => return Ok(Finding::Ignored { was_known }),
        }
        let stamp = root::stamp_of(&stat);
        if known.as_ref().is_some_and(|known| known.stamp() == stamp) {
            return Ok(Finding::Unchanged);
        }
        // A further link to a file is never closed by anybody; a new file will be.
        if due.cause == Cause::Created && stat.st_nlink == 1 {
            return Ok(Finding::StillOpen);
        }
        if let Some(wait) = self.wait_for(due, stamp) {
            return Ok(Finding::Unsettled { wait });
        }
        if let Some(content) = self.known_content(reader, &due.cause, &stamp)? {
            return Ok(Finding::File { fact: self.fact(name, content, stamp), manifest: None });
        }
        if stamp.size > SMALL_BYTES && !is_long {
            return Ok(Finding::Unhashed { size: stamp.size });
        }
        let (mut file, before) = match walk.open_file(&name) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Finding::Moving),
            Err(error) if root::is_gone(&error) => return Ok(Finding::Moving),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(skipped(error)),
            Err(error) => return Ok(Finding::Failed { error }),
        };
        let hashed = match self.hash_file(&mut file, before) {
            Ok(Some(hashed)) => hashed,
            Ok(None) if self.cancel.is_cancelled() => return Ok(Finding::Cancelled),
            Ok(None) => return Ok(Finding::Moving),
            Err(error) => return Ok(Finding::Failed { error }),
        };
        // The name must still be that of the file that was read, and the file unchanged since before it was.
        match walk.stat(&name) {
            Ok(now) if before == stamp && root::stamp_of(&now) == before => {}
            _ => return Ok(Finding::Moving),
        }
        let (content, manifest) = hashed;
        Ok(Finding::File { fact: self.fact(name, content, before), manifest: Some(manifest) })
    }

    fn fact(&self, name: FileName, content: ContentHash, stamp: Stamp) -> Fact {
        let Stamp { size, modified_ns, changed_ns, inode } = stamp;
        Fact { share: self.share.to_string(), name, content, size, modified_ns, changed_ns, inode }
    }

    /// How long to wait until the file is old enough to be believed. A time in the future says nothing of its age.
    fn wait_for(&self, due: &Due, stamp: Stamp) -> Option<Duration> {
        let needed = match due.cause {
            _ if due.is_unsure => self.open_grace,
            Cause::Closed | Cause::Renamed { .. } => self.debounce,
            Cause::Sighted | Cause::Created => self.settle,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let modified = Duration::from_nanos(u64::try_from(stamp.modified_ns).ok()?);
        let age = now.checked_sub(modified)?;
        needed.checked_sub(age).filter(|wait| !wait.is_zero())
    }

    /// The content of a file that was hashed under another name, and is the same one as far as can be told. Its ctime
    /// is that of then, or the rename that changed it was seen.
    fn known_content(
        &self,
        reader: &Reader,
        cause: &Cause,
        stamp: &Stamp,
    ) -> Result<Option<ContentHash>, CatalogError> {
        let from = match cause {
            Cause::Renamed { from } => from.as_deref(),
            _ => None,
        };
        let twins = reader.twins(&self.share, stamp)?;
        let same = twins.iter().find(|t| t.changed_ns == stamp.changed_ns || from == Some(t.name.as_str()));
        Ok(same.map(|twin| twin.content))
    }

    /// The hash of what is in the file, `None` if it changed meanwhile or nobody wants it any more.
    fn hash_file(&self, file: &mut File, before: Stamp) -> io::Result<Option<(ContentHash, Manifest)>> {
        // Advice only: a file system that takes none is read all the same.
        let _ = rustix::fs::fadvise(&*file, 0, None, Advice::Sequential);
        let mut hasher = ContentHasher::new();
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(before.size).unwrap_or(READ_BYTES) + 1)];
        for read in 1u32.. {
            let len = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..len]);
            self.hashed_bytes.fetch_add(len as u64, Ordering::Relaxed);
            let is_time_to_check = read.is_multiple_of(READS_BETWEEN_CHECKS);
            if self.cancel.is_cancelled() || is_time_to_check && root::stamp_of_open(file)? != before {
                return Ok(None);
            }
        }
        let is_whole = root::stamp_of_open(file)? == before && hasher.len() == before.size;
        Ok(is_whole.then(|| hasher.finish()))
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// The share's directory is not there any more.
    #[error("the share's directory is not there any more")]
    Lost,
    /// The catalog could not be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// The first name that sorts after a directory's own and before those of the files below it.
pub(super) fn below(directory: &FileName) -> String {
    format!("{directory}/")
}

/// The first name that sorts after those of all files below a directory: `0` is what follows `/`.
pub(super) fn past(directory: &FileName) -> String {
    format!("{directory}0")
}

fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "this program may not read it: permission denied".to_owned(),
        _ => error.to_string(),
    }
}
