//! The pieces of work that the loop starts, and how they come back to it.

use std::collections::HashMap;
use std::sync::Arc;

use p2p_content::{ContentHash, FileName, Manifest};
use rustix::fs::{FileType, Stat};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::look::{Finding, LookError};
use super::presence::Probed;
use super::root::{self, Place};
use super::settle::Due;
use super::{PublishError, ShareError};
use crate::catalog::{Applied, CatalogError, Fact, FactChange};

/// What came of a piece of work. `share` is the life of the share that it was for.
#[derive(Debug)]
pub(super) enum Done {
    Probed {
        share: u64,
        result: Result<Probed, CatalogError>,
    },
    /// All that a scan has to say, it has told on its way.
    Scanned,
    Looked {
        share: u64,
        names: Vec<Due>,
        result: Result<Vec<(Due, Finding)>, LookError>,
    },
    Hashed {
        share: u64,
        due: Due,
        is_long: bool,
        result: Result<Finding, LookError>,
    },
    Stated {
        share: u64,
        due: Due,
        reply: Adopted,
        result: Result<(Fact, Manifest), ShareError>,
    },
    /// Names were given, or not: of files that have theirs, what they are now.
    Published {
        share: u64,
        files: Vec<(Due, Option<Stated>)>,
        reply: Adopted,
    },
    Applied {
        batch: Batch,
        result: Result<Applied, CatalogError>,
    },
}

/// What was found of a file that somebody else has put there.
pub(super) type Stated = Result<(Fact, Manifest), ShareError>;

/// Where it goes which names were given.
pub(super) type Named = oneshot::Sender<Result<Vec<Result<(), PublishError>>, PublishError>>;

/// Where the result of an adoption goes.
pub(super) type Adopted = oneshot::Sender<Result<u64, ShareError>>;

/// Changes on their way to the catalog, each with what it is about.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Arc<Vec<FactChange>>,
    pub(super) abouts: Vec<About>,
}

/// What a change is about, and who waits for it.
#[derive(Debug)]
pub(super) struct About {
    pub(super) share: u64,
    pub(super) due: Due,
    pub(super) reply: Option<Adopted>,
}

/// The file that somebody else has put there, as it is now.
pub(super) fn state(
    place: &Place,
    share: &str,
    name: FileName,
    content: ContentHash,
    manifest: Manifest,
) -> Stated {
    let lost =
        |lost: root::Lost| ShareError::Unavailable { share: share.to_owned(), reason: lost.to_string() };
    let stat = place.open().map_err(lost)?.stat(&name);
    let path = || place.path.join(name.as_str());
    let stat = stat.map_err(|error| ShareError::NotThere { path: path(), reason: error.to_string() })?;
    state_of(&stat, place, share, name, content, manifest)
}

/// The file of this name that was found to be so.
pub(super) fn state_of(
    stat: &Stat,
    place: &Place,
    share: &str,
    name: FileName,
    content: ContentHash,
    manifest: Manifest,
) -> Stated {
    let not_there = |reason: String| ShareError::NotThere { path: place.path.join(name.as_str()), reason };
    if root::file_type(stat) != FileType::RegularFile {
        return Err(not_there("it is no regular file".to_owned()));
    }
    let stamp = root::stamp_of(stat);
    if manifest.content() != content || manifest.pieces().len() != stamp.size {
        let expected = manifest.pieces().len();
        return Err(not_there(format!("it has {} bytes and should have {expected}", stamp.size)));
    }
    let fact = Fact {
        share: share.to_owned(),
        name,
        content,
        size: stamp.size,
        modified_ns: stamp.modified_ns,
        changed_ns: stamp.changed_ns,
        inode: stamp.inode,
    };
    Ok((fact, manifest))
}

/// How many workers there are, what they do, and how to stop the one that hashes a file.
#[derive(Debug)]
pub(super) struct Workers {
    limit: usize,
    busy: usize,
    hashing_long: usize,
    hashing: HashMap<(u64, Arc<str>), CancellationToken>,
}

impl Workers {
    pub(super) fn new(limit: usize) -> Workers {
        Workers { limit, busy: 0, hashing_long: 0, hashing: HashMap::new() }
    }

    pub(super) fn has_idle(&self) -> bool {
        self.busy < self.limit
    }

    pub(super) fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// Whether one may begin on a very long file: one worker is kept for the others.
    pub(super) fn may_hash_long(&self) -> bool {
        self.hashing_long + 1 < self.limit.max(2)
    }

    pub(super) fn begin_look(&mut self) {
        self.busy += 1;
    }

    pub(super) fn begin_hash(&mut self, share: u64, due: &Due, is_long: bool, cancel: CancellationToken) {
        self.busy += 1;
        self.hashing_long += usize::from(is_long);
        self.hashing.insert((share, Arc::clone(&due.name)), cancel);
    }

    pub(super) fn end_look(&mut self) {
        self.busy -= 1;
    }

    pub(super) fn end_hash(&mut self, share: u64, due: &Due, is_long: bool) {
        self.busy -= 1;
        self.hashing_long -= usize::from(is_long);
        self.hashing.remove(&(share, Arc::clone(&due.name)));
    }

    /// Nobody wants the hash of this file any more.
    pub(super) fn cancel(&self, share: u64, name: &Arc<str>) {
        if let Some(cancel) = self.hashing.get(&(share, Arc::clone(name))) {
            cancel.cancel();
        }
    }

    /// Nobody wants any hash of the share any more.
    pub(super) fn cancel_share(&self, share: u64) {
        for (_, cancel) in self.hashing.iter().filter(|((of, _), _)| *of == share) {
            cancel.cancel();
        }
    }
}
