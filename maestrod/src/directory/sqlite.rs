//! The embedded store: one SQLite database in the state directory.
//!
//! Owns the database file. One thread writes, so that there are never two transactions at once to wait for each
//! other; a few connections read beside it, each call from one snapshot (write-ahead log).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_service::health::Health;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::walking::Budget;
use super::{
    Applied, Batch, Candidate, Copies, Directory, DirectoryError, FilePosition, FileRecord, FindPosition,
    Forgotten, Found, FoundPage, Held, Holdings, Listed, ListedPeer, NamePosition, Page, Pattern, PeerKey,
    PeerRecord, PlainPeer, Profile, Search, Session, Totals, Wanted, Which,
};

mod backup;
mod carrier;
mod catalog;
mod connections;
mod copies;
mod find;
mod holders;
mod integrity;
mod matches;
mod names;
mod peers;
mod schema;
#[cfg(test)]
mod tests;
mod text;
#[cfg(test)]
mod text_tests;

pub use backup::{BackupError, Copied, backup};
use catalog::Progress;
use connections::{Readers, Turn, Writer};
pub(crate) use integrity::{Integrity, check_integrity};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later release made it.
    #[error(
        "the database {} has version {found}, and this maestrod knows versions up to {known}: \
         it was used by a newer maestrod; install that one again, or choose another state directory with --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// It is not a database, or the system refuses something.
    #[error(
        "cannot open the database {}: {source}; correct that, or move the file away: the peers \
         send their catalogs again, and those from other machines show the join token again",
        path.display()
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The system gives no thread for it.
    #[error("cannot start the database's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A directory in a SQLite database.
#[derive(Debug)]
pub struct SqliteDirectory {
    // Dropped before the one that writes: of several connections that are closed at once none is the last, which takes the log
    // away.
    readers: Readers,
    writer: Writer,
    changes: AtomicU64,
}

impl SqliteDirectory {
    /// Has the thread that writes show there that it makes progress.
    pub fn report_to(&self, health: &Health) {
        self.writer.report_to(health);
    }

    /// Opens the database at `path`, made if it is missing and brought to this release's schema if it is older.
    ///
    /// Blocks the thread for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a database of a newer release is left as it is.
    pub fn open(path: &Path) -> Result<SqliteDirectory, OpenError> {
        let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        connections::tune(&connection, connections::WRITER_CACHE_KIB).map_err(failed)?;
        // NORMAL: a power cut may take back the last changes, whole transactions of them, and the sequence number
        // applied goes back with them; so the peer sends them again. What nobody would send again is written with
        // `durably`.
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        // Somebody else has the lock of who writes for a moment: SQLite looks at the index of the log under it, in whoever opens
        // the database to read, a backup for example. A change that begins by reading is told then that the database is locked,
        // at once; one that begins with the lock waits for it.
        connection.set_transaction_behavior(TransactionBehavior::Immediate);
        schema::migrate(&mut connection, path)?;
        Ok(SqliteDirectory {
            writer: Writer::start(connection, path)?,
            readers: Readers::start(path)?,
            changes: AtomicU64::new(0),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.write_at(Turn::InLine, change).await
    }

    /// For what makes a peer known and seen: who comes back is not to wait for all that others announce.
    async fn write_first<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.write_at(Turn::First, change).await
    }

    async fn write_at<T: Send + 'static>(
        &self,
        turn: Turn,
        change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let result = self.writer.call(turn, change).await;
        self.changes.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.readers.call(question).await
    }
}

#[async_trait]
impl Directory for SqliteDirectory {
    async fn admit(&self, peer: PeerId, now_ms: i64) -> Result<(), DirectoryError> {
        self.write_first(move |connection| {
            durably(connection, |connection| {
                let sql = "INSERT INTO admitted (peer, since_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
                connection.execute(sql, params![peer.as_bytes(), now_ms])?;
                Ok(())
            })
        })
        .await
    }

    async fn is_admitted(&self, peer: PeerId) -> Result<bool, DirectoryError> {
        self.read(move |connection| {
            let sql = "SELECT 1 FROM admitted WHERE peer = ?1";
            let found =
                connection.prepare_cached(sql)?.query_row([peer.as_bytes()], |_| Ok(())).optional()?;
            Ok(found.is_some())
        })
        .await
    }

    async fn begin(&self, peer: PeerId, profile: Profile, now_ms: i64) -> Result<Held, DirectoryError> {
        self.write_first(move |connection| catalog::begin(connection, peer, &profile, now_ms)).await
    }

    async fn apply(
        &self,
        peer: PeerId,
        session: Session,
        batch: Batch,
        now_ms: i64,
    ) -> Result<Applied, DirectoryError> {
        let mut progress =
            self.write(move |connection| catalog::apply(connection, peer, session, &batch, now_ms)).await?;
        loop {
            match progress {
                Progress::Done(applied) => return Ok(applied),
                Progress::Concluding(rest) => {
                    progress = self
                        .write(move |connection| {
                            catalog::conclude_on(connection, peer, session, rest, now_ms)
                        })
                        .await?;
                }
            }
        }
    }

    async fn set_visible(
        &self,
        peer: PeerId,
        visible: bool,
        heard_ms: Option<i64>,
    ) -> Result<(), DirectoryError> {
        self.write_first(move |connection| Ok(peers::set_visible(connection, peer, visible, heard_ms)?)).await
    }

    async fn visible_peers(&self) -> Result<Vec<PeerId>, DirectoryError> {
        self.read(|connection| Ok(peers::visible_ids(connection)?)).await
    }

    async fn register(
        &self,
        plain: PlainPeer,
        files: Vec<FileName>,
        now_ms: i64,
    ) -> Result<(), DirectoryError> {
        self.write(move |connection| {
            durably(connection, |connection| catalog::register(connection, &plain, files, now_ms))
        })
        .await
    }

    async fn locate(&self, wanted: Wanted, sources: usize) -> Result<Vec<Candidate>, DirectoryError> {
        self.read(move |connection| Ok(find::locate(connection, &wanted, sources)?)).await
    }

    async fn search(
        &self,
        search: Search,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Found, NamePosition>, DirectoryError> {
        self.read(move |connection| Ok(find::search(connection, &search, after.as_ref(), limit)?)).await
    }

    async fn find(
        &self,
        pattern: Pattern,
        after: Option<FindPosition>,
        limit: usize,
    ) -> Result<FoundPage, DirectoryError> {
        self.read(move |connection| matches::find(connection, &pattern, after, limit)).await
    }

    async fn contents(
        &self,
        most_copies: Option<u32>,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Page<Copies, ContentHash>, DirectoryError> {
        self.read(move |connection| {
            let mut budget = Budget::new(Budget::ROWS);
            Ok(copies::contents(connection, most_copies, after, limit, &mut budget)?)
        })
        .await
    }

    async fn copies(&self, content: ContentHash) -> Result<Option<Copies>, DirectoryError> {
        self.read(move |connection| Ok(copies::of(connection, content)?)).await
    }

    async fn list(
        &self,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Listed, NamePosition>, DirectoryError> {
        self.read(move |connection| Ok(find::list(connection, after.as_ref(), limit)?)).await
    }

    async fn names_of(
        &self,
        peer: PeerKey,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Option<(PeerRecord, Page<String, NamePosition>)>, DirectoryError> {
        self.read(move |connection| Ok(find::names_of(connection, &peer, after.as_ref(), limit)?)).await
    }

    async fn files_of(
        &self,
        peer: PeerId,
        after: Option<FilePosition>,
        limit: usize,
    ) -> Result<Page<FileRecord, FilePosition>, DirectoryError> {
        self.read(move |connection| Ok(find::files_of(connection, peer, after, limit)?)).await
    }

    async fn peers(
        &self,
        which: Which,
        names_each: usize,
        after: Option<PeerKey>,
        limit: usize,
    ) -> Result<Page<ListedPeer, PeerKey>, DirectoryError> {
        self.read(move |connection| Ok(find::peers(connection, which, names_each, after.as_ref(), limit)?))
            .await
    }

    async fn totals(&self) -> Result<Totals, DirectoryError> {
        self.read(|connection| Ok(peers::totals(connection)?)).await
    }

    async fn holdings(&self) -> Result<Holdings, DirectoryError> {
        let changes = self.changes.load(Ordering::Relaxed);
        let holdings = self.read(|connection| Ok(peers::holdings(connection)?)).await?;
        Ok(Holdings { changes, ..holdings })
    }

    async fn count_contents(
        &self,
        after: Option<ContentHash>,
    ) -> Result<(u64, Option<ContentHash>), DirectoryError> {
        self.read(move |connection| Ok(copies::count(connection, after)?)).await
    }

    async fn forget_unseen(&self, before_ms: i64) -> Result<Forgotten, DirectoryError> {
        self.write(move |connection| Ok(catalog::forget_unseen(connection, before_ms)?)).await
    }
}

/// Runs a change that nobody would send again: it is on the disk when this returns.
fn durably<T>(
    connection: &mut Connection,
    change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError>,
) -> Result<T, DirectoryError> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let result = change(connection);
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    result
}

impl From<rusqlite::Error> for DirectoryError {
    fn from(error: rusqlite::Error) -> DirectoryError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => DirectoryError::Full(error.to_string()),
            _ => DirectoryError::Failed(error.to_string()),
        }
    }
}
