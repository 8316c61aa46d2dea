//! The tables, and how a database of an older release comes to have them. The version is SQLite's `user_version`.

use std::path::Path;

use rusqlite::Connection;

use super::OpenError;

/// Each entry brings a database from the version that is its index to the next. Entries are only ever added.
pub(super) const MIGRATIONS: [&str; 3] = ["
    CREATE TABLE peers (
        id INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,          -- 0: with an identity; 1: plain
        key BLOB NOT NULL,              -- the peer ID, or the URL
        name TEXT NOT NULL,
        addresses TEXT NOT NULL,        -- a JSON array
        rest_url TEXT NOT NULL,
        grpc_port INTEGER NOT NULL,
        version TEXT NOT NULL,
        visible INTEGER NOT NULL,
        last_seen_ms INTEGER NOT NULL,
        session INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,       -- epochs and sequences are unsigned, kept bit for bit
        applied INTEGER NOT NULL DEFAULT 0,
        generation INTEGER NOT NULL DEFAULT 0,
        sweeping INTEGER NOT NULL DEFAULT 0,    -- a full catalog has begun and is not complete
        files INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        digest BLOB NOT NULL DEFAULT x'00000000000000000000000000000000',
        UNIQUE (kind, key)
    ) STRICT;

    CREATE TABLE admitted (
        peer BLOB PRIMARY KEY,
        since_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Each name once, however many peers have it: the trigram index is what costs, and it is of this table.
    CREATE TABLE names (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE VIRTUAL TABLE names_text USING fts5 (
        name, content = 'names', content_rowid = 'id', tokenize = 'trigram', columnsize = 0
    );

    CREATE TABLE files (
        peer INTEGER NOT NULL,
        share TEXT NOT NULL,
        name_id INTEGER NOT NULL,
        content BLOB,                   -- NULL: nobody vouches for the bytes
        size INTEGER NOT NULL,
        modified_ms INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        PRIMARY KEY (peer, share, name_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_by_name ON files (name_id, peer);
    CREATE INDEX files_by_content ON files (content, peer) WHERE content IS NOT NULL;
", "
    -- The text index follows the names instead of holding up whoever announces them. It has every name up to `through`;
    -- that of the version before is made anew, without the places of letters, which made it twice as large.
    DROP TABLE names_text;
    CREATE VIRTUAL TABLE names_text USING fts5 (
        name, content = 'names', content_rowid = 'id', tokenize = 'trigram', columnsize = 0, detail = 'none'
    );
    INSERT INTO names_text (names_text, rank) VALUES ('hashsize', 16777216);
    CREATE TABLE text_index (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        through INTEGER NOT NULL
    ) STRICT;
    INSERT INTO text_index VALUES (1, 0);
", "
    -- By name first: what everybody has under a name lies in one place, so the question that is asked most often finds it
    -- with the first look. What one peer has, an index tells, in the order in which most of it was announced.
    CREATE TABLE files_anew (
        peer INTEGER NOT NULL,
        share TEXT NOT NULL,
        name_id INTEGER NOT NULL,
        content BLOB,                   -- NULL: nobody vouches for the bytes
        size INTEGER NOT NULL,
        modified_ms INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        PRIMARY KEY (name_id, peer, share)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO files_anew (peer, share, name_id, content, size, modified_ms, generation)
        SELECT peer, share, name_id, content, size, modified_ms, generation
        FROM files INDEXED BY files_by_name ORDER BY name_id, peer, share;
    DROP TABLE files;
    ALTER TABLE files_anew RENAME TO files;
    CREATE INDEX files_by_peer ON files (peer, share, name_id);
    CREATE INDEX files_by_content ON files (content, peer) WHERE content IS NOT NULL;
"];

/// The version that this release reads and writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Brings the database to [`VERSION`], one transaction per step.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    if found == VERSION {
        return Ok(());
    }
    // In files: a large directory that is put in another order would not fit into memory.
    connection.pragma_update(None, "temp_store", "FILE").map_err(failed)?;
    for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        if found > 0 {
            let path = path.display();
            tracing::info!(
                version,
                %path,
                "brings the database {path} to version {version}; with millions of files that takes minutes"
            );
        }
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        transaction.pragma_update(None, "user_version", version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let path = path.display();
        tracing::info!(version, %path, "brought the database {path} to version {version}");
    }
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed)?;
    if found > 0 {
        // Its log is as long as all that was put in another order. Where somebody reads, a change cuts it later.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    }
    Ok(())
}
