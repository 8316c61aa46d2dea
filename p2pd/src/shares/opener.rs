//! Opening the files of facts, one after another: what leads to the last one stays open for the next.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Shares;
use super::board::{self, NoPlace};
use super::root::{self, Place, Walk};
use crate::catalog::Fact;

/// How long a directory stays open for the next file: no longer than its disk may be kept from being unmounted.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Opens files of the shares.
#[derive(Debug)]
pub struct Opener {
    shares: Shares,
    door: Option<Door>,
}

/// The share of the last file.
#[derive(Debug)]
struct Door {
    place: Place,
    since: Instant,
    walk: Walk,
}

impl Opener {
    pub(super) fn new(shares: Shares) -> Opener {
        Opener { shares, door: None }
    }

    /// Closes what is open still, so that nobody's disk is kept busy.
    pub fn rest(&mut self) {
        self.door = None;
    }

    /// Opens the file of a fact for reading, if it's still the file that was hashed. Blocking.
    ///
    /// It is opened step by step from the share's directory: nothing leads out of it, no link is followed, and only a
    /// regular file is opened. The file may still be changed while it is read; the reader's proof finds that.
    ///
    /// # Errors
    ///
    /// An [`OpenError`]. After [`Changed`](OpenError::Changed) and [`Gone`](OpenError::Gone), the file is looked at
    /// again at once, and the catalog put right.
    pub fn open(&mut self, fact: &Fact) -> Result<File, OpenError> {
        let unavailable = |reason| OpenError::Unavailable { share: fact.share.clone(), reason };
        let place = board::place_of(&self.shares.board, &fact.share).map_err(|error| match error {
            NoPlace::NotShared => OpenError::NotShared { share: fact.share.clone() },
            NoPlace::Unavailable { reason } => unavailable(reason),
        })?;
        let fits = |door: &Door| door.place == place && door.since.elapsed() < KEPT_FOR;
        let mut door = match self.door.take().filter(fits) {
            Some(door) => door,
            None => {
                let walk = Walk::from(place.open().map_err(|lost| unavailable(lost.to_string()))?);
                Door { place, since: Instant::now(), walk }
            }
        };
        let opened = door.walk.open_file(&fact.name);
        let path = || door.place.path.join(fact.name.as_str());
        let opened = match opened {
            Ok(Some((file, stamp))) if stamp.same_bytes(&fact.stamp()) => Ok(file),
            Ok(_) => {
                self.shares.suspect(fact);
                Err(OpenError::Changed { path: path() })
            }
            Err(error) if root::is_gone(&error) => {
                self.shares.suspect(fact);
                Err(OpenError::Gone { path: path() })
            }
            Err(source) => Err(OpenError::Io { path: path(), source }),
        };
        self.door = Some(door);
        opened
    }
}

/// Why a file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its share is not configured any more.
    #[error("the share {share:?} is not shared any more")]
    NotShared {
        /// The share.
        share: String,
    },
    /// Its share is not available now; it may be later.
    #[error("the share {share:?} is not available: {reason}")]
    Unavailable {
        /// The share.
        share: String,
        /// Why.
        reason: String,
    },
    /// It's not the file that was hashed, or no regular file any more.
    #[error("{} was changed since it was hashed", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It's not there any more.
    #[error("{} is not there any more", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
