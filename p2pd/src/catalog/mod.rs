//! The facts: which files this peer has, under which names, with which contents.
//!
//! **Owns** the database `catalog.sqlite` in the state directory: the facts, the sequence number of every change, the
//! manifests, and who may see what. Nobody else opens it.
//!
//! **Written by** the room `shares`, which finds the facts out. **Read by** whoever answers a question: `discovery`
//! sends its changes to the maestro, `serve` and `api` look names and contents up, `transfer` looks for what is here
//! already.
//!
//! The rules that hold always: changes get ascending sequence numbers, one each, in the order in which they are
//! committed; a watcher that sees a number sees the change; a file of a share that is not available is shown to nobody
//! and forgotten by nobody; the network is never told the name of a file that is not for it.

mod buckets;
mod digest;
mod fact;
mod pool;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p_content::{ContentHash, Manifest};
use p2p_service::tasks::Tasks;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use fact::{
    Applied, BucketQuery, Buckets, Change, Changed, Changes, Fact, FactChange, ListQuery, ShareRecord, Stamp,
    Totals, Viewer,
};
pub(crate) use pool::Reader;

use pool::Pool;
use write::Written;

/// Once nothing has changed for so long, the memory that changes take is given back.
const REST: Duration = Duration::from_secs(10);

/// How many removals are remembered, at the least, for a maestro that was away.
const TOMBSTONES_KEPT: u64 = 50_000;

/// A handle to the catalog. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    epoch: u64,
    tombstones_kept: u64,
    pool: Arc<Pool>,
    /// Locked on blocking threads only, by whoever holds the one permit of `turn`.
    writer: Mutex<Connection>,
    /// Gives writers their turn in the order in which they came.
    turn: Arc<Semaphore>,
    last: watch::Sender<u64>,
    pruned: watch::Sender<u64>,
}

impl Catalog {
    /// Opens the catalog at `path`, and makes it where there is none; its directory must be there. Blocking: it's for
    /// the start of the daemon.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Newer`] for the catalog of a newer program, [`CatalogError::Open`] if it can't be opened or made.
    pub fn open(path: &Path) -> Result<Catalog, CatalogError> {
        Catalog::open_keeping(path, TOMBSTONES_KEPT)
    }

    /// [`open`](Catalog::open) that remembers this many removals, at the least, for a maestro that was away.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn open_keeping(path: &Path, tombstones_kept: u64) -> Result<Catalog, CatalogError> {
        let writer = schema::open_writer(path)?;
        let ledger = schema::Ledger::load(&writer)?;
        let inner = Inner {
            epoch: ledger.epoch,
            tombstones_kept,
            pool: Pool::new(path.to_owned()),
            writer: Mutex::new(writer),
            turn: Arc::new(Semaphore::new(1)),
            last: watch::Sender::new(ledger.sequence),
            pruned: watch::Sender::new(ledger.pruned),
        };
        Ok(Catalog { inner: Arc::new(inner) })
    }

    /// Names the life of this database: random, never 0, new when the database is.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// The sequence number of the last change; 0 before the first. It changes after the commit.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.last.subscribe()
    }

    /// How many changes there are after this sequence number: fewer than numbers, of which each boot passes over many.
    pub fn count_after(&self, sequence: u64) -> u64 {
        self.inner.last.borrow().saturating_sub(sequence) % schema::MORE_THAN_CAN_BE_LOST
    }

    /// A maestro that holds the changes up to a sequence number below this one must be sent the whole catalog: some
    /// removals after it are forgotten.
    ///
    /// That holds also in the midst of sending: where this rises above what was sent so far, the sending begins again
    /// from 0. (That it was above already when a whole catalog began to be sent does no harm.)
    pub fn oldest_resumable(&self) -> u64 {
        *self.inner.pruned.borrow()
    }

    /// Makes the changes, in their order, in one transaction, and gives back the last sequence number.
    ///
    /// Each change that the network would see as one gets the next sequence number. A fact that only differs in what
    /// tells a file without reading it (inode, ctime) is stored without one.
    ///
    /// # Errors
    ///
    /// [`CatalogError::UnknownShare`] before [`set_share`](Catalog::set_share); nothing is changed then.
    pub async fn apply(&self, changes: Vec<FactChange>) -> Result<u64, CatalogError> {
        Ok(self.apply_counted(Arc::new(changes)).await?.sequence)
    }

    /// [`apply`](Catalog::apply) that says what it came to, of changes that the caller may have to try again.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn apply_counted(&self, changes: Arc<Vec<FactChange>>) -> Result<Applied, CatalogError> {
        let kept = self.inner.tombstones_kept;
        self.write(move |connection| write::apply(connection, &changes, kept)).await
    }

    /// Says who may see a share and whether it is available; makes the share known.
    ///
    /// Where that makes its files visible to the network, or hides them from it, each gets a new sequence number and
    /// becomes an upsert or a removal for the maestro. The facts stay.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn set_share(&self, share: ShareRecord) -> Result<u64, CatalogError> {
        Ok(self.write(move |connection| write::set_share(connection, &share)).await?.sequence)
    }

    /// Hides the shares that aren't in `names`: they are no longer configured. Their facts stay, so that nothing is
    /// hashed again when they come back.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn hide_shares_except(&self, names: Vec<String>) -> Result<u64, CatalogError> {
        Ok(self.write(move |connection| write::hide_except(connection, &names)).await?.sequence)
    }

    /// What is remembered of a share; `None` if it was never known.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn share(&self, name: &str) -> Result<Option<ShareRecord>, CatalogError> {
        let name = name.to_owned();
        self.inner.pool.ask(move |reader| reader.share(&name)).await
    }

    /// The files that have this content; of more than 64, any 64. Ordered by name and share.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn find_content(
        &self,
        content: ContentHash,
        viewer: Viewer,
    ) -> Result<Vec<Fact>, CatalogError> {
        self.inner.pool.ask(move |reader| reader.find_content(&content, viewer)).await
    }

    /// The files of this exact name, one per share that has it, ordered by share.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn find_name(&self, name: &str, viewer: Viewer) -> Result<Vec<Fact>, CatalogError> {
        let name = name.to_owned();
        self.inner.pool.ask(move |reader| reader.find_name(&name, viewer)).await
    }

    /// How to prove each piece of a content; `None` if no file has it. It says nothing of who may see the content: ask
    /// [`find_content`](Catalog::find_content) first.
    ///
    /// # Errors
    ///
    /// Those of the database; [`CatalogError::Damaged`] if what is stored doesn't prove the content.
    pub async fn manifest(&self, content: ContentHash) -> Result<Option<Manifest>, CatalogError> {
        self.inner.pool.ask(move |reader| reader.manifest(&content)).await
    }

    /// The files that the query asks for, ordered by name, then share, both by their bytes.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn list(&self, query: ListQuery) -> Result<Vec<Fact>, CatalogError> {
        self.inner.pool.ask(move |reader| reader.list(&query)).await
    }

    /// What a maestro that holds everything up to `sequence` has to be told, at most `limit` changes (at least 1).
    ///
    /// A whole catalog is told the same way from 0 on. Not for a `sequence` below
    /// [`oldest_resumable`](Catalog::oldest_resumable) other than 0, nor for one past the last.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn changes_after(&self, sequence: u64, limit: u32) -> Result<Changes, CatalogError> {
        Ok(self.changes_and_buckets(sequence, limit, None).await?.0)
    }

    /// [`changes_after`](Catalog::changes_after), and, where they reach the end of the catalog, the answer to a question
    /// about it as it is then. Where that shows that the catalog's own tally is wrong, all is counted anew first, so that
    /// what is told of the whole is what the parts come to.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn changes_and_buckets(
        &self,
        sequence: u64,
        limit: u32,
        query: Option<BucketQuery>,
    ) -> Result<(Changes, Option<Buckets>), CatalogError> {
        let ask = |query: Option<BucketQuery>| {
            self.inner.pool.ask(move |reader| reader.changes_after(sequence, limit, query.as_ref()))
        };
        let (changes, buckets) = ask(query.clone()).await?;
        let tally = buckets.as_ref().and_then(Buckets::tally);
        if tally.is_none_or(|tally| tally == (changes.digest, changes.files)) {
            return Ok((changes, buckets));
        }
        tracing::warn!("what the catalog remembers of all its files together is wrong; counting them anew");
        self.recount().await?;
        ask(query).await
    }

    /// Counts anew what the catalog remembers of its files beside them (the digest, how many there are, their bytes): that is
    /// kept change by change, so that a mistake in it would stay. It takes a look at all files, and holds up changes
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn recount(&self) -> Result<(), CatalogError> {
        self.write(write::recount).await?;
        Ok(())
    }

    /// How much is shared now: the files of the shares that are available.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn totals(&self) -> Result<Totals, CatalogError> {
        self.inner.pool.ask(|reader| reader.totals()).await
    }

    /// How much there is in each share, by name, hidden or not.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn share_totals(&self) -> Result<Vec<(String, Totals)>, CatalogError> {
        self.inner.pool.ask(|reader| reader.share_totals()).await
    }

    /// For questions from a blocking thread. Never call it on an async one.
    pub(crate) fn reader(&self) -> Result<Reader, CatalogError> {
        self.inner.pool.reader()
    }

    /// Has the memory given back that many changes take (of 10,000 new files, a tenth of what the daemon holds), whenever
    /// they are over.
    pub fn rest_between_changes(&self, tasks: &Tasks) {
        let (catalog, token) = (self.clone(), tasks.token());
        tasks.spawn_detached("catalog-rest", async move {
            if let Some(Err(error)) = token.run_until_cancelled(catalog.rest_between()).await {
                tracing::warn!("the catalog's memory is not given back any more: {error}");
            }
        });
    }

    async fn rest_between(&self) -> Result<(), CatalogError> {
        let mut changes = self.watch();
        loop {
            while tokio::time::timeout(REST, changes.changed()).await.is_ok_and(|changed| changed.is_ok()) {}
            self.give_memory_back().await?;
            changes.changed().await.map_err(|_| CatalogError::Closed)?;
        }
    }

    async fn give_memory_back(&self) -> Result<(), CatalogError> {
        let (inner, turn) = (Arc::clone(&self.inner), self.turn().await?);
        blocking(move || {
            let _turn = turn;
            inner.pool.close_idle();
            let connection = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(connection.execute_batch("PRAGMA shrink_memory")?)
        })
        .await
    }

    /// The turn of whoever writes next.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, CatalogError> {
        Arc::clone(&self.inner.turn).acquire_owned().await.map_err(|_| CatalogError::Closed)
    }

    /// Runs `work` in its turn on a blocking thread. It goes on to its end even if the caller stops waiting.
    async fn write(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<Written, CatalogError> + Send + 'static,
    ) -> Result<Applied, CatalogError> {
        let (inner, turn) = (Arc::clone(&self.inner), self.turn().await?);
        blocking(move || {
            let _turn = turn;
            let written = {
                let mut connection = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut connection)?
            };
            inner.pruned.send_replace(written.pruned);
            inner.last.send_if_modified(|last| {
                std::mem::replace(last, written.applied.sequence) != written.applied.sequence
            });
            Ok(written.applied)
        })
        .await
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CatalogError::Closed)?
}

/// Why the catalog can't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database can't be opened or made.
    #[error("cannot open the catalog {}: {source}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A newer program has made the database.
    #[error(
        "the catalog {} was made by a newer version of this program (its shape is {found}, and this program knows {known}): start the newer version, or move the file away to have every shared file hashed again",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version of its shape.
        found: i64,
        /// The version that this program knows.
        known: i64,
    },
    /// The system gives no random number for the epoch.
    #[error("cannot make a new catalog: the system gives no random numbers: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },
    /// A statement failed.
    #[error("the catalog's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// What is stored isn't what was written.
    #[error("the catalog's database is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// A fact is of a share that was never made known.
    #[error("the catalog knows no share {name:?}")]
    UnknownShare {
        /// The share.
        name: String,
    },
    /// The program is ending.
    #[error("the catalog is closed: the program is ending")]
    Closed,
}
