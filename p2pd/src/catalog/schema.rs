//! The database's shape, and opening it.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::CatalogError;

/// Version of the shape below, kept in the database's `user_version`.
pub(super) const VERSION: i64 = 1;

/// How long a statement waits for another connection's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// More sequence numbers than the commits have that are not safe on the disk yet.
pub(super) const MORE_THAN_CAN_BE_LOST: u64 = 1 << 32;

/// Page cache of a connection that only reads: the system caches the file anyway, and there are several of them. SQLite
/// takes negative numbers for KiB.
const READER_CACHE_KIB: i64 = -256;

/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 32;

/// `files` also keeps what is gone (`live` = 0): as a tombstone to tell of, and because a file that comes back under
/// another name needs no second hashing. `told`: the network may have heard of it, so it must hear of its removal.
/// A file that it never heard of is never named to it, not even as removed.
const SHAPE: &str = "
CREATE TABLE catalog (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    boot TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    announced INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    pruned INTEGER NOT NULL
) STRICT;
CREATE TABLE shares (
    name TEXT PRIMARY KEY,
    friends_only INTEGER NOT NULL,
    available INTEGER NOT NULL,
    root_device INTEGER,
    root_inode INTEGER,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    share TEXT NOT NULL REFERENCES shares (name),
    name TEXT NOT NULL,
    content BLOB NOT NULL,
    size INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    live INTEGER NOT NULL,
    told INTEGER NOT NULL,
    UNIQUE (share, name)
) STRICT;
CREATE INDEX files_by_name ON files (name, share) WHERE live;
CREATE INDEX files_by_content ON files (content);
CREATE INDEX files_by_inode ON files (inode);
CREATE INDEX files_told ON files (sequence) WHERE told;
CREATE INDEX files_dead ON files (sequence) WHERE NOT live;
CREATE TABLE manifests (
    content BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    pieces BLOB NOT NULL
) STRICT;
";

/// Opens the database for its one writer, and makes it where it isn't there.
pub(super) fn open_writer(path: &Path) -> Result<Connection, CatalogError> {
    let in_path = |source| CatalogError::Open { path: path.to_owned(), source };
    let mut connection = connect(path).map_err(in_path)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(in_path)?;
    // Not "full": waiting for the disk at each commit would slow down whoever fills a share on the same disk. A power
    // cut can then lose the last commits (a crash can't), and `begin_boot` sees to it that this does no harm.
    connection.pragma_update(None, "synchronous", "normal").map_err(in_path)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(in_path)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(in_path)?;
    let boot = boot_id();
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(in_path)?;
    match found {
        0 => {
            transaction.execute_batch(SHAPE).map_err(in_path)?;
            transaction
                .execute(
                    "INSERT INTO catalog VALUES (1, ?1, ?2, 0, zeroblob(16), 0, 0, 0)",
                    (new_epoch()?, boot),
                )
                .map_err(in_path)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(in_path)?;
        }
        VERSION => begin_boot(&transaction, &boot).map_err(in_path)?,
        found => return Err(CatalogError::Newer { path: path.to_owned(), found, known: VERSION }),
    }
    transaction.commit().map_err(in_path)?;
    Ok(connection)
}

/// The first time after a boot of the machine, goes on with sequence numbers that were never given out: the last ones
/// that were may have been lost with the power, and a maestro may have seen them. The changes themselves are found
/// again by scanning, and get new numbers.
fn begin_boot(connection: &Connection, boot: &str) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE catalog SET boot = ?1, sequence = sequence + ?2 WHERE boot != ?1 OR ?1 = ''",
        (boot, MORE_THAN_CAN_BE_LOST.cast_signed()),
    )?;
    Ok(())
}

/// Differs from boot to boot; empty if the system doesn't say.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Opens the database, which [`open_writer`] has made, for questions only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, CatalogError> {
    let in_path = |source| CatalogError::Open { path: path.to_owned(), source };
    let connection = connect(path).map_err(in_path)?;
    connection.pragma_update(None, "query_only", true).map_err(in_path)?;
    connection.pragma_update(None, "cache_size", READER_CACHE_KIB).map_err(in_path)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Otherwise a statement whose plan a value could change (that of a partial index, say) is planned anew for each value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn new_epoch() -> Result<i64, CatalogError> {
    let epoch = getrandom::u64().map_err(|error| CatalogError::Random { reason: error.to_string() })?;
    Ok(epoch.max(1).cast_signed())
}

/// The one row about the catalog as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) digest: super::digest::Digest,
    /// Files that the network is told of.
    pub(super) announced: u64,
    /// Rows kept of files that are gone.
    pub(super) dead: u64,
    /// Tombstones up to this sequence number are forgotten.
    pub(super) pruned: u64,
}

impl Ledger {
    pub(super) fn load(connection: &Connection) -> Result<Ledger, CatalogError> {
        let row = connection
            .prepare_cached("SELECT epoch, sequence, digest, announced, dead, pruned FROM catalog")?
            .query_row([], |row| {
                Ok(Ledger {
                    epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                    sequence: row.get::<_, i64>(1)?.cast_unsigned(),
                    digest: super::digest::Digest(row.get(2)?),
                    announced: row.get::<_, i64>(3)?.cast_unsigned(),
                    dead: row.get::<_, i64>(4)?.cast_unsigned(),
                    pruned: row.get::<_, i64>(5)?.cast_unsigned(),
                })
            })
            .optional()?;
        row.ok_or_else(|| CatalogError::Damaged {
            what: "the row of the catalog itself is missing".to_owned(),
        })
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<(), CatalogError> {
        connection
            .prepare_cached(
                "UPDATE catalog SET sequence = ?1, digest = ?2, announced = ?3, dead = ?4, pruned = ?5",
            )?
            .execute((
                self.sequence.cast_signed(),
                self.digest.0,
                self.announced.cast_signed(),
                self.dead.cast_signed(),
                self.pruned.cast_signed(),
            ))?;
        Ok(())
    }
}
