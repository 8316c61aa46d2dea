//! The database's connections: one that writes and a few that read, each on a thread of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_service::health::{Health, Heartbeat, PATIENCE};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{Semaphore, oneshot};

use super::OpenError;
use super::carrier::{self, Carrier, MARKS};
use super::text;
use crate::directory::DirectoryError;
use crate::directory::turns::{QUIET, Turns};

/// Changes that may wait for their thread, and questions for theirs; whoever has more waits before it is queued.
const QUEUE_LEN: usize = 64;
/// Who had nothing to do for so long gives back its page cache, or its connection: a maestro at rest holds no more than it needs.
const REST: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: usize = 4;
/// Page cache of the connection that writes, in KiB: what is inserted lies all over the names' indexes.
pub(super) const WRITER_CACHE_KIB: i64 = 48 * 1024;
/// Page cache of each connection that reads, in KiB.
const READER_CACHE_KIB: i64 = 8 * 1024;
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
    // The log is carried into the database by the `Carrier`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Gives back the memory that a connection can do without; what it reads next comes from the file again.
fn shrink(connection: &Connection) {
    if let Err(error) = connection.execute_batch("PRAGMA shrink_memory") {
        tracing::debug!(%error, "the memory of a database connection was not given back: {error}");
    }
}

/// When a change has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Before all that are in line: it is short, and a peer waits for it that is to be seen by the others.
    First,
    /// After those that came before it.
    InLine,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Jobs>,
    thread: Option<JoinHandle<()>>,
    heart: Arc<OnceLock<Heartbeat>>,
}

/// The two lines in which changes wait, and how many are in both.
#[derive(Debug)]
struct Jobs {
    first: Places,
    in_line: Places,
    come: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Places {
    jobs: mpsc::Sender<Job>,
    free: Arc<Semaphore>,
}

impl Places {
    fn new() -> (Places, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel();
        (Places { jobs, free: Arc::new(Semaphore::new(QUEUE_LEN)) }, queue)
    }
}

impl Writer {
    /// Starts the thread with this connection to the database at `path`.
    pub(super) fn start(mut connection: Connection, path: &Path) -> Result<Writer, OpenError> {
        let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
        carrier::limit(&connection, MARKS).map_err(failed)?;
        let mut carrier = Carrier::start(path, MARKS)?;
        let (come, queue) = mpsc::channel();
        let ((first, firsts), (in_line, others)) = (Places::new(), Places::new());
        let heart = Arc::new(OnceLock::<Heartbeat>::new());
        let beating = Arc::clone(&heart);
        let thread = std::thread::Builder::new().name("directory-writer".to_owned()).spawn(move || {
            let mut turns = Turns::new(Instant::now());
            let (mut is_quiet, mut is_shrunk) = (false, false);
            loop {
                let patience = if is_quiet { Duration::ZERO } else { QUIET };
                let job = match (turns.is_waiting(), is_shrunk) {
                    (true, _) => queue.recv_timeout(patience).map(Some),
                    (false, true) => queue.recv().map(Some).map_err(RecvTimeoutError::from),
                    (false, false) => match queue.recv_timeout(REST) {
                        Err(RecvTimeoutError::Timeout) => {
                            shrink(&connection);
                            is_shrunk = true;
                            continue;
                        }
                        job => job.map(Some),
                    },
                };
                is_shrunk = false;
                let job = match job {
                    Ok(Some(())) => firsts.try_recv().or_else(|_| others.try_recv()).ok(),
                    Ok(None) | Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                is_quiet = job.is_none();
                let heart = beating.get();
                heart.inspect(|heart| heart.beat());
                let index_has_its_turn = job.is_none_or(|job| {
                    // A panic rolls its transaction back, so the next change finds the database whole.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                        tracing::error!(
                            "a change of the directory panicked; this is a defect, please report it"
                        );
                    }
                    turns.changed(Instant::now())
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
                carrier.look(&connection);
                heart.inspect(|heart| heart.rest());
            }
        })?;
        Ok(Writer { jobs: Some(Jobs { first, in_line, come }), thread: Some(thread), heart })
    }

    /// Has the thread beat there, from now on; the first one counts.
    pub(super) fn report_to(&self, health: &Health) {
        let heart = health.heartbeat("directory-writer", PATIENCE);
        heart.rest();
        // A second one would be of the same thread.
        let _ = self.heart.set(heart);
    }

    /// Runs `change` when it has its turn.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        turn: Turn,
        change: impl FnOnce(&mut Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let ended = || DirectoryError::Failed("the database's thread did not answer".to_owned());
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        let places = match turn {
            Turn::First => &jobs.first,
            Turn::InLine => &jobs.in_line,
        };
        let place = Arc::clone(&places.free).acquire_owned().await.map_err(|_| ended())?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            drop(place);
            // Whoever asked may have left; the change holds all the same.
            let _ = reply.send(change(connection));
        });
        // It is in its line before it is told of, so that whoever hears of one finds one.
        places.jobs.send(job).map_err(|_| ended())?;
        jobs.come.send(()).map_err(|_| ended())?;
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

type Question = Box<dyn FnOnce(&mut Reader) + Send>;

/// The threads that read, each with a connection of its own.
///
/// Whoever is through with a question takes the next one at once: under load none of them goes to sleep between two, which
/// would cost more than most questions do.
#[derive(Debug)]
pub(super) struct Readers {
    line: Arc<Line>,
    places: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> std::io::Result<Readers> {
        let (line, places) = (Arc::new(Line::default()), Arc::new(Semaphore::new(QUEUE_LEN)));
        let mut readers = Readers { line, places, threads: Vec::with_capacity(READERS) };
        for _ in 0..READERS {
            let (line, mut reader) = (Arc::clone(&readers.line), Reader::new(path));
            let thread = std::thread::Builder::new().name("directory-reader".to_owned());
            readers.threads.push(thread.spawn(move || {
                loop {
                    match line.next(reader.connection.is_some().then_some(REST)) {
                        Next::Question(question) => reader.answer(question),
                        Next::Rest => reader.rest(),
                        Next::End => break,
                    }
                }
            })?);
        }
        Ok(readers)
    }

    /// Runs `question` on a thread that may block, within one snapshot of the database.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        let failed = |error: &dyn std::fmt::Display| DirectoryError::Failed(error.to_string());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|error| failed(&error))?;
        let (reply, answer) = oneshot::channel();
        self.line.join(Box::new(move |reader| {
            // Held here: a caller that leaves does not make room while its question is in the line.
            let _place = place;
            if !reply.is_closed() {
                // Whoever asked may leave at any time.
                let _ = reply.send(reader.ask(question));
            }
        }));
        answer.await.map_err(|_| failed(&"the database's thread did not answer"))?
    }
}

impl Drop for Readers {
    /// Waits for the questions that run, so that the next to open the database finds it closed.
    fn drop(&mut self) {
        self.line.close();
        for thread in self.threads.drain(..) {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

/// Questions that wait for a thread, the oldest first. There are never more than places.
#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    called: Condvar,
}

#[derive(Default)]
struct Waiting {
    questions: VecDeque<Question>,
    idle_threads: usize,
    is_closed: bool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, question: Question) {
        let mut waiting = self.waiting();
        waiting.questions.push_back(question);
        let somebody_sleeps = waiting.idle_threads > 0;
        drop(waiting);
        if somebody_sleeps {
            self.called.notify_one();
        }
    }

    /// The next question. Who has a connection rests once there was none for `rest_after`.
    fn next(&self, rest_after: Option<Duration>) -> Next {
        let since = Instant::now();
        let mut waiting = self.waiting();
        loop {
            if waiting.is_closed {
                return Next::End;
            }
            if let Some(question) = waiting.questions.pop_front() {
                return Next::Question(question);
            }
            let left = rest_after.map(|rest| rest.saturating_sub(since.elapsed()));
            if left == Some(Duration::ZERO) {
                return Next::Rest;
            }
            waiting.idle_threads += 1;
            waiting = match left {
                Some(left) => {
                    self.called.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.called.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
            waiting.idle_threads -= 1;
        }
    }

    fn close(&self) {
        self.waiting().is_closed = true;
        self.called.notify_all();
    }
}

/// What a thread that reads does next.
enum Next {
    Question(Question),
    /// Nobody has asked anything for a while.
    Rest,
    End,
}

/// A connection that reads, open while it is needed.
struct Reader {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Reader {
    fn new(path: &Path) -> Reader {
        Reader { path: path.to_owned(), connection: None }
    }

    fn answer(&mut self, question: Question) {
        if catch_unwind(AssertUnwindSafe(|| question(self))).is_err() {
            tracing::error!("a question to the directory panicked; this is a defect, please report it");
            // It may be in the middle of something.
            self.connection = None;
        }
    }

    fn rest(&mut self) {
        // Its statements and its knowledge of the schema are as much as its cache, and it is opened in a fraction of a
        // millisecond.
        self.connection = None;
    }

    fn ask<T>(
        &mut self,
        question: impl FnOnce(&Connection) -> Result<T, DirectoryError>,
    ) -> Result<T, DirectoryError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        // As prepared statements: to understand these two words anew takes as long as a part of most questions.
        connection.prepare_cached("BEGIN")?.execute([])?;
        let answer = question(&connection);
        // An error may have ended the snapshot already. A connection that cannot end its own is closed.
        if !connection.is_autocommit() {
            connection.prepare_cached("COMMIT")?.execute([])?;
        }
        self.connection = Some(connection);
        answer
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    tune(&connection, READER_CACHE_KIB)?;
    // Not opened read-only: a connection that is cannot share the write-ahead log after a crash.
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    /// Those of a database that is there, as the thread that writes leaves it.
    fn readers(dir: &tempfile::TempDir) -> Readers {
        let path = dir.path().join("d.sqlite");
        drop(open_reader(&path).unwrap());
        Readers::start(&path).unwrap()
    }

    fn one(connection: &Connection) -> Result<i64, DirectoryError> {
        Ok(connection.query_row("SELECT 1", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn however_many_ask_all_are_answered() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(&dir);
        let answers = join_all((0..20 * QUEUE_LEN).map(|_| readers.call(one))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 1));
    }

    #[tokio::test]
    async fn who_goes_first_passes_those_in_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sqlite");
        let writer = Writer::start(open_reader(&path).unwrap(), &path).unwrap();
        let (let_go, held) = mpsc::channel();
        let order = Arc::new(Mutex::new(Vec::new()));
        let does = async |turn, name| {
            let order = Arc::clone(&order);
            let change = move |_: &mut Connection| {
                order.lock().unwrap().push(name);
                Ok(())
            };
            writer.call(turn, change).await.unwrap();
        };
        let busy = writer.call(Turn::InLine, move |_| {
            held.recv().unwrap();
            Ok(())
        });
        let then = async { let_go.send(()).unwrap() };
        let (_, (), (), (), ()) = tokio::join!(
            async { busy.await.unwrap() },
            does(Turn::InLine, "in line"),
            does(Turn::InLine, "in line"),
            does(Turn::First, "first"),
            then
        );
        assert_eq!(*order.lock().unwrap(), ["first", "in line", "in line"]);
    }

    #[test]
    fn who_has_a_connection_rests_after_a_while() {
        let line = Line::default();
        line.join(Box::new(|_| ()));
        let rest = Some(Duration::from_millis(20));
        assert!(matches!(line.next(rest), Next::Question(_)));
        let since = Instant::now();
        assert!(matches!(line.next(rest), Next::Rest));
        assert!(since.elapsed() >= Duration::from_millis(20));
        line.close();
        assert!(matches!(line.next(None), Next::End));
    }

    #[tokio::test]
    async fn a_question_that_panics_costs_nobody_else_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(&dir);
        for _ in 0..2 * READERS {
            readers.call(|_| -> Result<(), _> { panic!("on purpose") }).await.unwrap_err();
        }
        assert_eq!(readers.call(one).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_leaves_keeps_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let readers = readers(&dir);
        for _ in 0..2 * QUEUE_LEN {
            let slow = readers.call(|_| {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            });
            let _ = tokio::time::timeout(Duration::ZERO, slow).await;
        }
        assert_eq!(readers.call(one).await.unwrap(), 1);
        let all = readers.places.acquire_many(QUEUE_LEN as u32);
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().map(drop).unwrap();
    }
}
