//! Carries what is in the write-ahead log into the database, which makes room in the log.
//!
//! A thread of its own does most of it, beside the one that writes, since it is the disk that takes the time. The log begins
//! anew only when all of it is carried and nobody adds to it. So the one that writes carries what it has added meanwhile.

use std::path::Path;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::OpenError;

/// When something is done, in pages of the log that are not in the database yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// The thread begins. Pages that change again and again are carried once.
    pub(super) begin: u64,
    /// The thread does not keep up: whoever writes waits for it, or the log would fill the disk.
    pub(super) wait: u64,
}

/// Bytes of a page in the log.
const PAGE: u64 = 4096 + 24;

/// 64 MiB and 256 MiB.
pub(super) const MARKS: Marks = Marks { begin: 16 * 1024, wait: 64 * 1024 };

/// Has the log cut to what writing waits for when it begins anew: it was longer where somebody read for long, or where the
/// database was brought to a new version. To be said of the connection that writes.
pub(super) fn limit(writer: &Connection, marks: Marks) -> rusqlite::Result<()> {
    writer.pragma_update(None, "journal_size_limit", (marks.wait * PAGE).cast_signed())
}

/// The thread that carries, in the hands of the one that writes.
#[derive(Debug)]
pub(super) struct Carrier {
    marks: Marks,
    orders: Option<mpsc::Sender<()>>,
    done: mpsc::Receiver<()>,
    is_carrying: bool,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Starts the thread, with a connection of its own to the database at `path`.
    pub(super) fn start(path: &Path, marks: Marks) -> Result<Carrier, OpenError> {
        let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        let (orders, ordered) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let thread = std::thread::Builder::new().name("directory-carrier".to_owned()).spawn(move || {
            while let Ok(()) = ordered.recv() {
                carry(&connection);
                // Whoever writes may have ended.
                let _ = tell.send(());
            }
        })?;
        Ok(Carrier { marks, orders: Some(orders), done, is_carrying: false, thread: Some(thread) })
    }

    /// To be called after each change, with the connection that made it.
    pub(super) fn look(&mut self, connection: &Connection) {
        let waiting = match waiting(connection) {
            Ok(waiting) => waiting,
            Err(error) => {
                return tracing::warn!(%error, "the log of the directory cannot be looked at: {error}");
            }
        };
        if !self.is_carrying {
            let ordered = waiting >= self.marks.begin
                && self.orders.as_ref().is_some_and(|orders| orders.send(()).is_ok());
            self.is_carrying = ordered;
            return;
        }
        match self.done.try_recv() {
            Err(TryRecvError::Empty) if waiting < self.marks.wait => return,
            // If the thread has ended, all is carried here.
            Err(TryRecvError::Empty) => _ = self.done.recv(),
            Ok(()) | Err(TryRecvError::Disconnected) => {}
        }
        self.is_carrying = false;
        carry(connection);
    }
}

impl Drop for Carrier {
    /// Waits for what is being carried, so that the next to open the database finds it closed.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing that panics.
            let _ = thread.join();
        }
    }
}

/// Pages of the log that are not in the database.
fn waiting(connection: &Connection) -> rusqlite::Result<u64> {
    let in_log = |row: &rusqlite::Row<'_>| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?);
    let waiting = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], in_log)?;
    Ok(waiting.max(0).cast_unsigned())
}

/// Carries as much as readers leave free, and waits for nobody.
fn carry(connection: &Connection) {
    let carried = connection
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|mut statement| statement.query_row([], |_| Ok(())));
    if let Err(error) = carried {
        // The log keeps what was not carried; the next change makes it due again.
        tracing::warn!(%error, "the log of the directory cannot be carried into the database: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::connections;
    use super::*;

    const FEW: Marks = Marks { begin: 100, wait: 400 };

    struct Store {
        dir: TempDir,
        writer: Connection,
    }

    impl Store {
        fn new() -> Store {
            let dir = TempDir::new().unwrap();
            let writer = Connection::open(dir.path().join("d.sqlite")).unwrap();
            connections::tune(&writer, 1024).unwrap();
            limit(&writer, FEW).unwrap();
            writer.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
            Store { dir, writer }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("d.sqlite")
        }

        /// A change of some twenty pages.
        fn change(&self) {
            self.writer.execute("INSERT INTO t (bytes) VALUES (randomblob(80000))", []).unwrap();
        }

        fn log_pages(&self) -> u64 {
            std::fs::metadata(self.dir.path().join("d.sqlite-wal")).unwrap().len() / PAGE
        }
    }

    #[test]
    fn the_log_begins_anew_while_changes_go_on() {
        let store = Store::new();
        let mut carrier = Carrier::start(&store.path(), FEW).unwrap();
        for _ in 0..1000 {
            store.change();
            carrier.look(&store.writer);
        }
        let pages = store.log_pages();
        assert!(pages < 2 * FEW.wait, "{pages} pages are in the log");
        drop((carrier, store.writer));
        let reader = Connection::open(store.dir.path().join("d.sqlite")).unwrap();
        let found: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(found, 1000);
    }

    /// The log must keep what somebody still reads; nobody waits for that, and it is cut afterwards.
    #[test]
    fn who_reads_for_long_holds_up_no_change_and_leaves_no_long_log() {
        let store = Store::new();
        store.change();
        let mut carrier = Carrier::start(&store.path(), FEW).unwrap();
        let mut reader = Connection::open(store.path()).unwrap();
        let snapshot = reader.transaction().unwrap();
        let count = |reader: &Connection| -> i64 {
            reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&snapshot), 1);
        for _ in 0..100 {
            store.change();
            carrier.look(&store.writer);
        }
        assert_eq!(count(&snapshot), 1);
        assert!(store.log_pages() > 2 * FEW.wait);
        snapshot.commit().unwrap();
        for _ in 0..100 {
            store.change();
            carrier.look(&store.writer);
        }
        assert_eq!(count(&reader), 201);
        let pages = store.log_pages();
        assert!(pages < 2 * FEW.wait, "{pages} pages are in the log");
    }
}
