//! The two databases, their copies, and what becomes of them on a disk.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use maestrod::directory::Digest;
use maestrod::directory::sqlite::SqliteDirectory;
use p2p_identity::PeerId;
use p2pd::catalog::Catalog;
use proptest::sample::Index;
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;

use super::TOMBSTONES;

/// New databases of the peer, each of another epoch, that are made once: making one takes longer than a case.
const NEW_CATALOGS: usize = 8;

/// The peer's database and the maestro's, in use.
pub(crate) struct Databases {
    dir: TempDir,
    catalog: Option<Catalog>,
    directory: Option<SqliteDirectory>,
    /// Opened where it is needed: beside the one that is in use.
    beside: OnceCell<Connection>,
    used: usize,
    peer_copies: usize,
    maestro_copies: usize,
    /// Each database that takes the place of another has a file of its own: the one before may still be closing.
    lives: (usize, usize),
}

/// The main file of a database and what it may have beside.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| PathBuf::from(format!("{}{end}", path.display())))
}

fn copy(from: &Path, to: &Path) {
    for (from, to) in files(from).iter().zip(files(to)) {
        // The database makes the last one anew.
        if from.exists() && !from.to_string_lossy().ends_with("-shm") {
            fs::copy(from, to).unwrap();
        } else if to.exists() {
            fs::remove_file(to).unwrap();
        }
    }
}

impl Databases {
    pub(crate) fn new() -> Databases {
        // In memory where the system has such a place: what becomes of files is the same, and there are many.
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let databases = Databases {
            dir,
            catalog: None,
            directory: None,
            beside: OnceCell::new(),
            used: 0,
            peer_copies: 0,
            maestro_copies: 0,
            lives: (0, 0),
        };
        for number in 0..NEW_CATALOGS {
            drop(Catalog::open(&databases.at(&format!("new-{number}"))).unwrap());
        }
        databases
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn begin_life(&mut self, of_peer: bool) {
        let name = if of_peer { "catalog" } else { "directory" };
        for file in files(&self.at_now(name)) {
            // The last of it goes with whoever still has it open.
            let _ = fs::remove_file(file);
        }
        let life = if of_peer { &mut self.lives.0 } else { &mut self.lives.1 };
        *life += 1;
    }

    /// Where a database is in this life of it.
    fn at_now(&self, name: &str) -> PathBuf {
        let life = if name == "catalog" { self.lives.0 } else { self.lives.1 };
        self.at(&format!("{name}-of-life-{life}"))
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        self.catalog.as_ref().unwrap()
    }

    pub(crate) fn directory(&self) -> &SqliteDirectory {
        self.directory.as_ref().unwrap()
    }

    /// For another case: a new catalog, no copies; the maestro's goes on.
    pub(crate) fn begin(&mut self) {
        (self.used, self.peer_copies, self.maestro_copies) = (0, 0, 0);
        self.lose_peer();
        if self.directory.is_none() {
            self.restart_maestro();
        }
    }

    pub(crate) fn lose_peer(&mut self) {
        self.catalog = None;
        let new = self.at(&format!("new-{}", self.used % NEW_CATALOGS));
        self.begin_life(true);
        copy(&new, &self.at_now("catalog"));
        self.used += 1;
        self.restart_peer();
    }

    pub(crate) fn restart_peer(&mut self) {
        self.catalog = None;
        self.catalog = Some(Catalog::open_keeping(&self.at_now("catalog"), TOMBSTONES).unwrap());
    }

    pub(crate) fn restart_maestro(&mut self) {
        (self.directory, self.beside) = (None, OnceCell::new());
        self.directory = Some(SqliteDirectory::open(&self.at_now("directory")).unwrap());
    }

    pub(crate) fn back_up_peer(&mut self) {
        // Nobody writes now, so the files are of one moment.
        copy(&self.at_now("catalog"), &self.at(&format!("catalog-{}", self.peer_copies)));
        self.peer_copies += 1;
    }

    pub(crate) fn has_peer_copies(&self) -> bool {
        self.peer_copies > 0
    }

    pub(crate) fn restore_peer(&mut self, index: &Index) {
        self.catalog = None;
        let copied = self.at(&format!("catalog-{}", index.index(self.peer_copies)));
        self.begin_life(true);
        copy(&copied, &self.at_now("catalog"));
        self.restart_peer();
    }

    pub(crate) fn back_up_maestro(&mut self) {
        let to = self.at(&format!("directory-{}", self.maestro_copies));
        if to.exists() {
            fs::remove_file(&to).unwrap();
        }
        self.beside().execute("VACUUM INTO ?1", [to.to_str()]).unwrap();
        self.maestro_copies += 1;
    }

    pub(crate) fn has_maestro_copies(&self) -> bool {
        self.maestro_copies > 0
    }

    pub(crate) fn restore_maestro(&mut self, index: &Index) {
        (self.directory, self.beside) = (None, OnceCell::new());
        let copied = self.at(&format!("directory-{}", index.index(self.maestro_copies)));
        self.begin_life(false);
        copy(&copied, &self.at_now("directory"));
        self.restart_maestro();
    }

    /// Runs a statement with the row of the peer, if it is known.
    pub(crate) fn spoil(&self, peer: PeerId, sql: &str) {
        let beside = self.beside();
        let id: Option<i64> = beside
            .query_row("SELECT id FROM peers WHERE key = ?1", [peer.as_bytes()], |row| row.get(0))
            .optional()
            .unwrap();
        if let Some(id) = id {
            beside.execute(sql, [id]).unwrap();
        }
    }

    /// Runs statements in the peer's database.
    pub(crate) fn spoil_ledger(&self, sql: &str) {
        Connection::open(self.at_now("catalog")).unwrap().execute_batch(sql).unwrap();
    }

    /// What the maestro keeps of the peer beside its files.
    pub(crate) fn standing(&self, peer: PeerId) -> Standing {
        let sql = "SELECT epoch, applied, digest, files FROM peers WHERE key = ?1";
        let mut statement = self.beside().prepare_cached(sql).unwrap();
        let row = statement.query_row([peer.as_bytes()], |row| {
            let (epoch, applied): (i64, i64) = (row.get(0)?, row.get(1)?);
            let at = (epoch.cast_unsigned(), applied.cast_unsigned());
            Ok(Standing { at, tally: (Digest(row.get(2)?), row.get(3)?) })
        });
        row.unwrap()
    }

    fn beside(&self) -> &Connection {
        self.beside.get_or_init(|| Connection::open(self.at_now("directory")).unwrap())
    }
}

/// How a peer's catalog stands at the maestro.
pub(crate) struct Standing {
    /// Its epoch, and the last change applied.
    pub(crate) at: (u64, u64),
    /// Its digest, and how many files it has.
    pub(crate) tally: (Digest, u64),
}
