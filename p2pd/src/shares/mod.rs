//! From disk to facts: watches the shared directories, scans them, hashes what is in them, and keeps the catalog true.
//!
//! **Owns** what is known of the directories' state between the disk and the catalog: which files are being written,
//! which have to be looked at, which shares are available. All of it belongs to one loop (`keeper`); events come in,
//! its state changes, and then it starts the work that follows. Watching, scanning and hashing happen on blocking
//! threads and only report.
//!
//! **Called by** `transfer` and `api`, which put files into a share, by `serve`, which opens them, and by the
//! composition. It calls `catalog`, and knows nothing of the network.
//!
//! The rules that hold always: every event is only a reason to look, and what counts is what is seen then; a hash
//! counts only if the file was the same before and after it was read; a file that is being written is not announced; a
//! name is only ever opened step by step from a handle of the share's directory, without following links; a directory
//! that is not the one that had the files says nothing about them.

mod availability;
mod board;
mod change;
mod dispatch;
mod downloads;
mod examine;
mod fitness;
mod hint;
mod keeper;
mod kept;
mod look;
mod looks;
mod opener;
mod presence;
mod refresh;
mod room;
mod root;
mod roster;
mod scan;
mod settle;
#[cfg(test)]
mod tests;
mod wanted;
mod watch;
mod work;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_proto::control::Visibility;
use p2p_service::tasks::Tasks;
use tokio::sync::watch::Receiver;
use tokio::sync::{mpsc, oneshot};

pub use change::{AddError, RemoveError};
pub use downloads::{DownloadDir, PublishError, Published, ReadyFile, Together, Under};
#[cfg(test)]
pub(crate) use downloads::{Flush, PlayedDisk};
pub use fitness::Unfit;
pub use opener::{OpenError, Opener};
pub use roster::SetAside;

use crate::catalog::{Catalog, CatalogError, Fact, Viewer};
use board::BoardReader;
use keeper::{Command, Keeper};
use looks::Looks;
use room::Room;
use root::Links;
use roster::Roster;

const SYMLINK: &str = "it is a symbolic link, and links are not followed";
const NOT_UTF8: &str = "its name is not valid UTF-8: rename it";

/// How many requests may wait for the loop.
const COMMANDS: usize = 64;

/// A directory to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareConfig {
    /// Its name, unique among the shares.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    /// Who may see it.
    pub visible: Visibility,
    /// Whether fetched files land in it. If several say so, the first does; if none, the first share.
    pub downloads: bool,
    /// Whether a user added it, who may own a directory on the way to it: no link is followed there then.
    pub added: bool,
}

impl ShareConfig {
    fn links(&self) -> Links {
        ShareConfig::links_of(self.added)
    }

    fn links_of(added: bool) -> Links {
        if added { Links::Refuse } else { Links::Follow }
    }
}

/// How long things wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After an event, for others of the same file. Default: 100 ms.
    pub debounce: Duration,
    /// How old a file must be where nobody saw it being closed. Default: 500 ms.
    pub settle: Duration,
    /// How long a file counts as being written after the last sign of it. Default: 10 s.
    pub open_grace: Duration,
    /// Between two looks at everything. Default: 10 min.
    pub rescan: Duration,
    /// The same where the kernel can't watch every directory. Default: 30 s.
    pub rescan_unwatched: Duration,
    /// Between two looks at whether a share's directory is there. Default: 2 s.
    pub probe: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            debounce: Duration::from_millis(100),
            settle: Duration::from_millis(500),
            open_grace: Duration::from_secs(10),
            rescan: Duration::from_secs(600),
            rescan_unwatched: Duration::from_secs(30),
            probe: Duration::from_secs(2),
        }
    }
}

/// How one share stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareState {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Who may see it.
    pub visible: Visibility,
    /// Whether fetched files land in it.
    pub downloads: bool,
    /// Why it is not available; its files are then hidden, not forgotten.
    pub unavailable: Option<String>,
    /// What in it is not shared, and why; at most 1,000. Safe to print.
    pub skipped: Vec<String>,
    /// Files that have to be looked at or hashed, those included that someone is writing.
    pub pending: u64,
    /// Whether a user added it.
    pub added: bool,
}

/// What a refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Files shared now.
    pub files: u64,
    /// Files that were added or changed while it ran.
    pub changed: u64,
    /// Files that were found gone while it ran.
    pub removed: u64,
    /// The catalog's last sequence number after it.
    pub last_sequence: u64,
}

/// A handle to the shares. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Shares {
    board: BoardReader,
    aside: Receiver<Arc<Vec<SetAside>>>,
    commands: mpsc::Sender<Command>,
    hashed_bytes: Arc<AtomicU64>,
    state_dir: Arc<Path>,
    looks: Looks,
}

impl Shares {
    /// Starts to keep the catalog true to the configured shares, and to those that were added before and are kept in
    /// `state_dir`. When it returns, each share is known to be available or not (a directory that
    /// does not answer within 5 s is not); the files are scanned after that.
    ///
    /// A share whose directory is missing or unreadable is unavailable until it isn't: no error.
    ///
    /// # Errors
    ///
    /// [`ShareError::NoShares`], [`ShareError::SameName`], [`ShareError::Kept`], and those of the catalog.
    pub async fn start(
        configs: Vec<ShareConfig>,
        state_dir: &Path,
        catalog: Catalog,
        tasks: &Tasks,
        timing: Timing,
    ) -> Result<Shares, ShareError> {
        Shares::start_with(configs, state_dir, catalog, tasks, timing, Room::default()).await
    }

    async fn start_with(
        configs: Vec<ShareConfig>,
        state_dir: &Path,
        catalog: Catalog,
        tasks: &Tasks,
        timing: Timing,
        room: Room,
    ) -> Result<Shares, ShareError> {
        check(&configs)?;
        let (commands, received) = mpsc::channel(COMMANDS);
        let hashed_bytes = Arc::new(AtomicU64::new(0));
        let roster = Roster::open(configs, state_dir).map_err(ShareError::Kept)?;
        let mut keeper =
            Keeper::new(catalog, timing, room, tasks, received, Arc::clone(&hashed_bytes), roster);
        keeper.take_roster().await?;
        let (board, aside, state_dir) = (keeper.board(), keeper.aside(), state_dir.into());
        let shares = Shares { board, aside, commands, hashed_bytes, state_dir, looks: Looks::default() };
        tasks.spawn("shares", async move { Ok(keeper.run().await?) });
        Ok(shares)
    }

    /// Opens the file of a fact for reading, if it's still the file that was hashed. Blocking.
    ///
    /// # Errors
    ///
    /// Those of [`Opener::open`].
    pub fn open(&self, fact: &Fact) -> Result<File, OpenError> {
        self.opener().open(fact)
    }

    /// For who opens one file after another.
    pub fn opener(&self) -> Opener {
        Opener::new(self.clone())
    }

    /// The directory that fetched files land in. It's always there; whether it can be used shows when it is.
    pub fn downloads(&self) -> DownloadDir {
        let board = self.board.borrow();
        let posted = board.iter().find(|posted| posted.downloads).or_else(|| board.first());
        // `check` has seen to it that there is a share.
        let (name, path) =
            posted.map(|posted| (posted.name.to_string(), posted.path.clone())).unwrap_or_default();
        DownloadDir::new(name, path, self.board.clone())
    }

    /// Whether the files of this share are for this viewer.
    pub fn shows(&self, share: &str, viewer: Viewer) -> bool {
        let board = self.board.borrow();
        let posted = board.iter().find(|posted| *posted.name == *share);
        posted.is_some_and(|posted| viewer != Viewer::Network || posted.visible == Visibility::Network)
    }

    /// Looks at everything now. When it returns, what was there when it was called is in the catalog, files excepted
    /// that someone is writing. That may take as long as hashing all that is new.
    ///
    /// # Errors
    ///
    /// [`ShareError::Closed`], and those of the catalog.
    pub async fn refresh(&self) -> Result<Refreshed, ShareError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Refresh { reply }).await.map_err(|_| ShareError::Closed)?;
        answer.await.map_err(|_| ShareError::Closed)?
    }

    /// Puts a file into the catalog that was just renamed into place, without hashing it: the caller has proven that it
    /// has this content, and that nobody else writes it. Gives back the sequence number by which it is there.
    ///
    /// # Errors
    ///
    /// [`ShareError::NotThere`] if there is no regular file of that name with the content's length,
    /// [`ShareError::NotShared`], [`ShareError::Unavailable`], [`ShareError::Closed`].
    pub async fn adopt(
        &self,
        share: &str,
        name: &FileName,
        content: ContentHash,
        manifest: Manifest,
    ) -> Result<u64, ShareError> {
        let (reply, answer) = oneshot::channel();
        let (share, name) = (share.to_owned(), name.clone());
        let adopt = Command::Adopt { share, name, content, manifest: Box::new(manifest), reply };
        self.commands.send(adopt).await.map_err(|_| ShareError::Closed)?;
        answer.await.map_err(|_| ShareError::Closed)?
    }

    /// Gives many parts their names at once, and puts them into the catalog in one change, without hashing them: the
    /// caller has proven what they hold, and made it durable. Nobody looks at a name from before it is given until it is
    /// in the catalog. The names are durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`Together::publish`], and [`PublishError::Unavailable`].
    pub async fn publish_all(
        &self,
        together: &Arc<Together>,
        files: Vec<ReadyFile>,
    ) -> Result<Published, PublishError> {
        let ((named, names), (reply, adopted)) = (oneshot::channel(), oneshot::channel());
        let closed = || PublishError::Unavailable {
            share: together.share().to_owned(),
            reason: ShareError::Closed.to_string(),
        };
        let publish = Command::PublishAll { together: Arc::clone(together), files, named, reply };
        self.commands.send(publish).await.map_err(|_| closed())?;
        let results = names.await.map_err(|_| closed())??;
        Ok(Published { results, adopted })
    }

    /// How each share stands, in the order of the configuration.
    pub fn rows(&self) -> Vec<ShareState> {
        let board = Arc::clone(&self.board.borrow());
        let row = |posted: &board::Posted| ShareState {
            name: posted.name.to_string(),
            path: posted.path.clone(),
            visible: posted.visible,
            downloads: posted.downloads,
            unavailable: posted.place.as_ref().err().map(ToString::to_string),
            skipped: posted.skipped.to_vec(),
            pending: posted.pending,
            added: posted.added,
        };
        board.iter().map(row).collect()
    }

    /// The added shares that are not in force, since the configuration has something else in their place.
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.aside.borrow().to_vec()
    }

    /// Takes another configuration; what users added stays, as far as it does not contradict it. When it returns, who may see what is as the new one says.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Shares::start); nothing is changed after [`ShareError::NoShares`] and
    /// [`ShareError::SameName`].
    pub async fn reload(&self, configs: Vec<ShareConfig>) -> Result<(), ShareError> {
        check(&configs)?;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reload { configs, reply }).await.map_err(|_| ShareError::Closed)?;
        answer.await.map_err(|_| ShareError::Closed)?
    }

    /// How many bytes were hashed since the start.
    pub fn hashed_bytes(&self) -> u64 {
        self.hashed_bytes.load(Ordering::Relaxed)
    }

    fn suspect(&self, fact: &Fact) {
        // If the loop has no time for it now, the next scan finds the same.
        let _ =
            self.commands.try_send(Command::Suspect { share: fact.share.clone(), name: fact.name.clone() });
    }
}

fn check(configs: &[ShareConfig]) -> Result<(), ShareError> {
    if configs.is_empty() {
        return Err(ShareError::NoShares);
    }
    for (at, config) in configs.iter().enumerate() {
        if configs[..at].iter().any(|other| other.name == config.name) {
            return Err(ShareError::SameName { name: config.name.clone() });
        }
    }
    Ok(())
}

/// Why the shares can't do what they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// No share is configured.
    #[error("no share is configured: give at least one directory to share")]
    NoShares,
    /// Two shares have one name.
    #[error("two shares are named {name:?}: give each a name of its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// There is no such share.
    #[error("there is no share {share:?}")]
    NotShared {
        /// Its name.
        share: String,
    },
    /// The share is not available now; it may be later.
    #[error("the share {share:?} is not available: {reason}")]
    Unavailable {
        /// The share.
        share: String,
        /// Why.
        reason: String,
    },
    /// The file to adopt is not there as it was said to be.
    #[error("{} is not the file that was put there: {reason}", path.display())]
    NotThere {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The list of those that were added cannot be read.
    #[error(
        "cannot read the list of added shares: {0}; restore it from a backup, or move it away and add them again"
    )]
    Kept(io::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A piece of work ended in a panic.
    #[error("a piece of work on the shares failed: {0}")]
    Work(#[from] tokio::task::JoinError),
    /// The program is ending.
    #[error("the shares are closed: the program is ending")]
    Closed,
}
