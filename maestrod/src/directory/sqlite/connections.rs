//! The database's connections: one that writes, on a thread of its own, and a few that read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_service::health::{Health, Heartbeat, PATIENCE};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::text::{self, Turns};
use crate::directory::DirectoryError;

/// Changes that may wait for the thread; whoever has more waits before its change is queued.
const QUEUE_LEN: usize = 64;
/// Connections that read.
const READERS: usize = 4;
/// Page cache of the connection that writes, in KiB: what is inserted lies all over the names' indexes.
pub(super) const WRITER_CACHE_KIB: i64 = 48 * 1024;
/// Page cache of each connection that reads, in KiB.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// Pages in the write-ahead log that are carried into the database at once: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4096;
/// Statements that each connection keeps prepared.
const STATEMENTS: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// What holds for every connection.
pub(super) fn tune(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise a statement whose plan a value could change (that of a partial index, say) is planned anew for each value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    heart: Arc<OnceLock<Heartbeat>>,
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> std::io::Result<Writer> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_LEN);
        let heart = Arc::new(OnceLock::<Heartbeat>::new());
        let beating = Arc::clone(&heart);
        let thread = std::thread::Builder::new().name("directory-writer".to_owned()).spawn(move || {
            let mut turns = Turns::new(Instant::now());
            loop {
                let job = match queue.try_recv() {
                    Ok(job) => Some(job),
                    Err(TryRecvError::Disconnected) => break,
                    Err(TryRecvError::Empty) if turns.is_waiting() => None,
                    Err(TryRecvError::Empty) => match queue.blocking_recv() {
                        Some(job) => Some(job),
                        None => break,
                    },
                };
                let heart = beating.get();
                heart.inspect(|heart| heart.beat());
                let index_has_its_turn = job.is_none_or(|job| {
                    let began = Instant::now();
                    // A panic rolls its transaction back, so the next change finds the database whole.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                        tracing::error!(
                            "a change of the directory panicked; this is a defect, please report it"
                        );
                    }
                    turns.changed(began.elapsed(), Instant::now())
                });
                if index_has_its_turn {
                    let began = Instant::now();
                    let more = text::step(&mut connection).unwrap_or_else(|error| {
                        // The next change makes it due again.
                        tracing::warn!(%error, "the text index of the directory waits: {error}");
                        false
                    });
                    turns.indexed(began.elapsed(), more, Instant::now());
                }
                heart.inspect(|heart| heart.rest());
            }
        })?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), heart })
    }

    /// Has the thread beat there, from now on; the first one counts.
    pub(super) fn report_to(&self, health: &Health) {
        let heart = health.heartbeat("directory-writer", PATIENCE);
        heart.rest();
        // A second one would be of the same thread.
        let _ = self.heart.set(heart);
    }

    /// Runs `change` when those that were queued before it are done.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let ended = || DirectoryError::Failed("the database's thread did not answer".to_owned());
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have left; the change holds all the same.
            let _ = reply.send(change(connection));
        });
        self.jobs.as_ref().ok_or_else(ended)?.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Writer {
    /// Waits for the changes that are queued, so that the next to open the database finds it closed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Readers {
        Readers { path: path.to_owned(), idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs `question` on a thread that may block, within one snapshot of the database.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let failed = |error: &dyn std::fmt::Display| DirectoryError::Failed(error.to_string());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| failed(&error))?;
        let (idle, path) = (Arc::clone(&self.idle), self.path.clone());
        let answered = tokio::task::spawn_blocking(move || {
            // Held here: a caller that leaves does not make room while its question still runs.
            let _permit = permit;
            let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match free {
                Some(connection) => connection,
                None => open_reader(&path)?,
            };
            let snapshot = connection.unchecked_transaction()?;
            let answer = question(&snapshot);
            snapshot.finish()?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            answer
        });
        answered.await.map_err(|error| failed(&error))?
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    tune(&connection, READER_CACHE_KIB)?;
    // Not opened read-only: a connection that is cannot share the write-ahead log after a crash.
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
