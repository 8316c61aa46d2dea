//! What is remembered of transfers, and of files on their way to others: one SQLite database.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_content::{Bitmap, ContentHash, Manifest};
use p2p_identity::PeerId;
use p2p_proto::control::{Transfer, TransferState};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::discovery::PeerRef;

/// The shape of the database, by version.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE transfers (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        ended       INTEGER NOT NULL,
        body        TEXT NOT NULL,
        terms       TEXT NOT NULL,
        manifest    BLOB,
        proven      BLOB
    ) STRICT;
    CREATE INDEX transfers_open ON transfers (id) WHERE ended = 0;
    CREATE TABLE outbox (
        content     BLOB NOT NULL,
        peer        BLOB NOT NULL,
        size        INTEGER NOT NULL,
        manifest    BLOB NOT NULL,
        created_ms  INTEGER NOT NULL,
        PRIMARY KEY (content, peer)
    ) STRICT, WITHOUT ROWID;
",
    trees::MIGRATION,
    "ALTER TABLE transfers ADD COLUMN proven_len INTEGER",
    trees::MIGRATION_OF_SOURCES,
];

mod leftovers;
/// The files of directories that are fetched.
mod trees;

pub(super) use leftovers::Left;
pub(super) use trees::{Told, TreeFile, TreeLeft};

/// Ended transfers that are remembered.
pub(super) const ENDED_KEPT: u32 = 1000;

/// The database. Clones are handles to the same.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    /// The versions of open transfers that were written last.
    versions: Arc<Mutex<HashMap<u64, u64>>>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing more is done: the daemon ends.
    #[error("the daemon is ending")]
    Ending,
    /// It cannot be opened or made.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A newer program made it.
    #[error(
        "{} was made by a newer version of this program (shape {found}, this program knows {known}): start the newer \
         version, or move the file away and lose the list of transfers",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its shape.
        found: usize,
        /// The shape that this program knows.
        known: usize,
    },
    /// A statement failed.
    #[error("the list of transfers failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// What is stored is not what was written.
    #[error("the list of transfers is damaged: {0}")]
    Damaged(String),
}

/// A transfer, as it was left.
pub(super) struct Kept {
    pub(super) transfer: Transfer,
    pub(super) terms: Terms,
}

/// What the one who asked for a transfer wants of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Only from this peer.
    pub(super) only_from: Option<PeerRef>,
    /// The name that the file has at a plain peer, which knows it by nothing else.
    pub(super) name_there: Option<String>,
}

/// What is proven of a transfer's content.
pub(super) struct Proven {
    pub(super) manifest: Manifest,
    pub(super) pieces: Bitmap,
    /// Whether the length that the manifest is for was proven, and not only told.
    pub(super) is_len_proven: bool,
}

impl Store {
    /// Opens the database, or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        // FULL: what a user was told is remembered survives a power cut, and so does which pieces need no second look.
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let found: usize =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > MIGRATIONS.len() {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: MIGRATIONS.len() });
        }
        for (version, migration) in MIGRATIONS.iter().enumerate().skip(found) {
            let version = version + 1;
            let migrate = format!("BEGIN; {migration}; PRAGMA user_version = {version}; COMMIT;");
            connection.execute_batch(&migrate).map_err(failed)?;
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), versions: Arc::default() })
    }

    /// Remembers a new transfer, and gives it its number.
    pub(super) async fn add(&self, transfer: Transfer, terms: Terms) -> Result<Transfer, StoreError> {
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO transfers (ended, body, terms) VALUES (?1, ?2, ?3)",
                params![transfer.state.is_ended(), to_json(&transfer)?, to_json(&terms)?],
            )?;
            let id = u64::try_from(connection.last_insert_rowid()).unwrap_or_default();
            Ok(Transfer { id, ..transfer })
        })
        .await
    }

    /// Remembers where a transfer stands, unless a later version is remembered: those that are written at the same time come
    /// here in any order. What was proven of an ended one is forgotten, but for one that failed; and it stays ended.
    pub(super) async fn update(&self, version: u64, transfer: Transfer) -> Result<(), StoreError> {
        let versions = Arc::clone(&self.versions);
        self.run(move |connection| {
            let mut versions = versions.lock().unwrap_or_else(PoisonError::into_inner);
            if versions.get(&transfer.id).is_some_and(|written| *written >= version) {
                return Ok(());
            }
            let (ended, body) = (transfer.state.is_ended(), to_json(&transfer)?);
            let forgets = ended && transfer.state != TransferState::Failed;
            connection.execute(
                "UPDATE transfers SET ended = ?2, body = ?3, manifest = iif(?4, NULL, manifest),
                 proven = iif(?4, NULL, proven) WHERE id = ?1 AND (ended = 0 OR ?2)",
                params![transfer.id, ended, body, forgets],
            )?;
            match ended {
                // Nothing older opens it again.
                true => versions.remove(&transfer.id),
                false => versions.insert(transfer.id, version),
            };
            if ended {
                trees::forget(connection, transfer.id)?;
                connection.execute(
                    "DELETE FROM transfers WHERE ended AND manifest IS NULL AND id <=
                     (SELECT id FROM transfers WHERE ended ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                    [ENDED_KEPT],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// All that is remembered, the oldest first.
    pub(super) async fn all(&self) -> Result<Vec<Kept>, StoreError> {
        self.run(|connection| {
            trees::forget_unbegun(connection)?;
            kept(connection, "part_of IS NULL", &[])
        })
        .await
    }

    /// Remembers what a transfer proves its pieces with, and which are proven. The bytes of these are durable by now: the
    /// caller's duty.
    pub(super) async fn set_manifest(
        &self,
        id: u64,
        manifest: &Manifest,
        is_len_proven: bool,
        pieces: &Bitmap,
    ) -> Result<(), StoreError> {
        let (values, pieces) = (manifest.to_bytes(), pieces.to_bytes());
        let proven_len = is_len_proven.then(|| manifest.pieces().len());
        self.run(move |connection| {
            connection.execute(
                "UPDATE transfers SET manifest = ?2, proven_len = ?3, proven = ?4 WHERE id = ?1",
                params![id, values, proven_len, pieces],
            )?;
            Ok(())
        })
        .await
    }

    /// Remembers what is proven of a transfer. The bytes of these pieces are durable by now: the caller's duty.
    pub(super) async fn set_proven(
        &self,
        id: u64,
        manifest: Option<Vec<u8>>,
        pieces: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            connection.execute(
                "UPDATE transfers SET manifest = coalesce(?2, manifest), proven = ?3 WHERE id = ?1",
                params![id, manifest, pieces],
            )?;
            Ok(())
        })
        .await
    }

    /// Remembers that nothing is proven of a transfer any more; durable when this returns.
    pub(super) async fn forget_proven(&self, id: u64, nothing: Vec<u8>) -> Result<(), StoreError> {
        self.set_proven(id, None, nothing).await?;
        self.run(|connection| {
            // `pragma_query` takes the name of a pragma and nothing beside it. Of a log that is not emptied, a disk that
            // does not flush what it is told to could leave the part before this change, which would count for more than
            // the database itself; and here a bitmap that is believed would be a false file.
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        })
        .await
    }

    /// What is proven of a transfer, of whose content somebody told that it has so many bytes; `None` where its manifest is
    /// not known yet.
    pub(super) async fn proven(
        &self,
        id: u64,
        content: ContentHash,
        told: u64,
    ) -> Result<Option<Proven>, StoreError> {
        self.run(move |connection| {
            let row = connection
                .query_row("SELECT manifest, proven, proven_len FROM transfers WHERE id = ?1", [id], |row| {
                    Ok((
                        row.get::<_, Option<Vec<u8>>>(0)?,
                        row.get::<_, Option<Vec<u8>>>(1)?,
                        row.get::<_, Option<u64>>(2)?,
                    ))
                })
                .optional()?;
            let Some((Some(manifest), Some(pieces), proven_len)) = row else { return Ok(None) };
            let (size, is_len_proven) = (proven_len.unwrap_or(told), proven_len.is_some());
            let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(error.to_string());
            let manifest = match Manifest::from_bytes(content, size, &manifest) {
                Ok(manifest) => manifest,
                // It was for another length, which was told then.
                Err(_) if !is_len_proven => return Ok(None),
                Err(error) => return Err(damaged(&error)),
            };
            let pieces =
                Bitmap::from_bytes(manifest.pieces().count(), &pieces).map_err(|error| damaged(&error))?;
            Ok(Some(Proven { manifest, pieces, is_len_proven }))
        })
        .await
    }

    /// Allows a peer to fetch a content that is not shared with it.
    pub(super) async fn grant(
        &self,
        peer: PeerId,
        manifest: &Manifest,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (content, size, values) = (manifest.content(), manifest.pieces().len(), manifest.to_bytes());
        self.run(move |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO outbox (content, peer, size, manifest, created_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![content.as_bytes(), peer.as_bytes(), size, values, now_ms],
            )?;
            Ok(())
        })
        .await
    }

    /// The manifest of a content that this peer was allowed to fetch since then.
    pub(super) async fn granted(
        &self,
        peer: PeerId,
        content: ContentHash,
        since_ms: i64,
    ) -> Result<Option<Manifest>, StoreError> {
        self.run(move |connection| {
            let row = connection
                .query_row(
                    "SELECT size, manifest FROM outbox WHERE content = ?1 AND peer = ?2 AND created_ms >= ?3",
                    params![content.as_bytes(), peer.as_bytes(), since_ms],
                    |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?)),
                )
                .optional()?;
            let Some((size, values)) = row else { return Ok(None) };
            let manifest = Manifest::from_bytes(content, size, &values);
            manifest.map(Some).map_err(|error| StoreError::Damaged(error.to_string()))
        })
        .await
    }

    /// Takes the permission back. Whether nobody else has one for this content.
    pub(super) async fn revoke(&self, peer: PeerId, content: ContentHash) -> Result<bool, StoreError> {
        self.run(move |connection| {
            connection.execute(
                "DELETE FROM outbox WHERE content = ?1 AND peer = ?2",
                params![content.as_bytes(), peer.as_bytes()],
            )?;
            let left: u64 = connection.query_row(
                "SELECT count(*) FROM outbox WHERE content = ?1",
                params![content.as_bytes()],
                |row| row.get(0),
            )?;
            Ok(left == 0)
        })
        .await
    }

    /// Takes back all permissions given before this time; answers the contents that somebody still may fetch.
    pub(super) async fn expire(&self, before_ms: i64) -> Result<Vec<ContentHash>, StoreError> {
        self.run(move |connection| {
            connection.execute("DELETE FROM outbox WHERE created_ms < ?1", [before_ms])?;
            let mut statement = connection.prepare("SELECT DISTINCT content FROM outbox")?;
            let rows = statement.query_map([], |row| row.get::<_, [u8; 32]>(0))?;
            rows.map(|row| Ok(ContentHash::from_bytes(row?))).collect()
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let work = move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Ending),
        }
    }
}

/// The transfers of which this is true.
fn kept(
    connection: &Connection,
    which: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Kept>, StoreError> {
    let sql = format!("SELECT id, body, terms FROM transfers WHERE {which} ORDER BY id");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(values, |row| {
        Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut all = Vec::new();
    for row in rows {
        let (id, body, terms) = row?;
        let transfer: Transfer = from_json(&body)?;
        all.push(Kept { transfer: Transfer { id, ..transfer }, terms: from_json(&terms)? });
    }
    Ok(all)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use p2p_content::{ContentHasher, FileName};

    use super::super::fetch::fresh;
    use super::*;

    #[tokio::test]
    async fn a_change_is_on_the_disk_when_it_returns() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let wanted =
            store.run(|connection| Ok(connection.pragma_query_value(None, "synchronous", |row| row.get(0))?));
        let full: i64 = wanted.await.unwrap();
        // Of a log that is not flushed with each change, a power cut takes back an unbounded part.
        assert_eq!(full, 2);
    }

    #[tokio::test]
    async fn the_newest_is_kept_in_whatever_order_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let transfer = fresh(FileName::parse("a.bin").unwrap(), None, None);
        let transfer = store.add(transfer, Terms::default()).await.unwrap();
        let of = |priority, state| Transfer { priority, state, ..transfer.clone() };
        let kept = async || {
            let kept = store.all().await.unwrap().remove(0).transfer;
            (kept.priority, kept.state)
        };
        use p2p_proto::control::Priority::{High, Low, Normal};
        use p2p_proto::control::TransferState::{Done, Running};
        store.update(2, of(High, Running)).await.unwrap();
        store.update(1, of(Low, Running)).await.unwrap();
        assert_eq!(kept().await, (High, Running));
        store.update(4, of(High, Done)).await.unwrap();
        store.update(3, of(Normal, Running)).await.unwrap();
        assert_eq!(kept().await, (High, Done), "what has ended is not open again");
    }

    #[tokio::test]
    async fn what_is_proven_goes_by_the_proven_length_whatever_was_told() {
        let mut hasher = ContentHasher::new();
        hasher.update(&vec![7; (2 << 20) + 5]);
        let (content, manifest) = hasher.finish();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let transfer = fresh(FileName::parse("a.bin").unwrap(), Some(content), Some(9));
        let id = store.add(transfer, Terms::default()).await.unwrap().id;
        let told = Manifest::single(content, 9).unwrap();
        store.set_manifest(id, &told, false, &Bitmap::new(1)).await.unwrap();
        assert!(!store.proven(id, content, 9).await.unwrap().unwrap().is_len_proven);
        let (len, pieces) = (manifest.pieces().len(), Bitmap::full(manifest.pieces().count()));
        assert!(store.proven(id, content, len).await.unwrap().is_none(), "it was for another length");
        store.set_manifest(id, &manifest, true, &pieces).await.unwrap();
        let proven = store.proven(id, content, 9).await.unwrap().unwrap();
        assert_eq!((proven.manifest, proven.pieces, proven.is_len_proven), (manifest, pieces, true));
    }

    #[tokio::test]
    async fn what_is_forgotten_is_forgotten_on_the_disk() {
        let mut hasher = ContentHasher::new();
        hasher.update(&vec![7; (2 << 20) + 5]);
        let (content, manifest) = hasher.finish();
        let (size, count) = (manifest.pieces().len(), manifest.pieces().count());
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("transfers.sqlite"), dir.path().join("copy.sqlite"));
        let store = Store::open(&path).unwrap();
        let transfer = fresh(FileName::parse("a.bin").unwrap(), Some(content), Some(size));
        let id = store.add(transfer, Terms::default()).await.unwrap().id;
        store.set_proven(id, Some(manifest.to_bytes()), Bitmap::full(count).to_bytes()).await.unwrap();
        store.forget_proven(id, Bitmap::new(count).to_bytes()).await.unwrap();
        // Without its log: as if nothing of that had come to the disk.
        std::fs::copy(&path, &copy).unwrap();
        let proven = Store::open(&copy).unwrap().proven(id, content, size).await.unwrap();
        assert_eq!(proven.unwrap().pieces, Bitmap::new(count));
    }
}
