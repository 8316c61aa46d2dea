//! Whether a database is whole, found out beside a maestro that may be using it, and without changing anything.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use super::schema::VERSION;

/// What reading a database whole came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Integrity {
    /// Nothing is wrong with it.
    Whole {
        /// How many peers it knows.
        peers: u64,
    },
    /// Something is.
    Damaged {
        /// The first thing, in SQLite's words.
        what: String,
    },
}

/// Whether somebody uses the database, or did and was cut off: then a log is beside it.
pub(super) fn has_user(path: &Path) -> bool {
    path.with_extension("sqlite-wal").exists()
}

/// How to open a database that somebody else may be using, to read it and leave nothing beside it.
pub(super) fn beside_its_user(path: &Path, is_idle: bool) -> (PathBuf, OpenFlags) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if !is_idle || has_user(path) {
        return (path.to_owned(), flags);
    }
    // Where nobody uses it and no log is left, not even files beside it need to be made.
    let path = path.to_string_lossy();
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    (format!("file:{escaped}?immutable=1").into(), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// Reads the database at `path` whole. `is_idle`: nobody uses it. Blocking.
pub(crate) fn check_integrity(path: &Path, is_idle: bool) -> Result<Integrity, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let (target, flags) = beside_its_user(path, is_idle);
    match read(&target, flags) {
        Ok((found, _)) if found > VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        Ok((_, integrity)) => Ok(integrity),
        Err(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Ok(Integrity::Damaged { what: error.to_string() })
            }
            _ => Err(failed(error)),
        },
    }
}

fn read(target: &Path, flags: OpenFlags) -> rusqlite::Result<(u32, Integrity)> {
    let connection = Connection::open_with_flags(target, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let what: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if what != "ok" {
        return Ok((version, Integrity::Damaged { what }));
    }
    let peers = connection.query_row("SELECT count(*) FROM peers", [], |row| row.get(0))?;
    Ok((version, Integrity::Whole { peers }))
}

#[cfg(test)]
mod tests {
    use super::super::SqliteDirectory;
    use super::*;

    #[test]
    fn a_whole_database_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a #1?.sqlite");
        let open = SqliteDirectory::open(&path).unwrap();
        assert_eq!(check_integrity(&path, false).unwrap(), Integrity::Whole { peers: 0 });
        drop(open);
        let before = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(check_integrity(&path, true).unwrap(), Integrity::Whole { peers: 0 });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before, "nothing is made");

        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        bytes[4096..len].fill(0x5a);
        std::fs::write(&path, &bytes).unwrap();
        let damaged = check_integrity(&path, true);
        assert!(matches!(damaged, Ok(Integrity::Damaged { .. })), "{damaged:?}");
        std::fs::write(&path, "this is no database, and long enough to be seen as something else").unwrap();
        let damaged = check_integrity(&path, true);
        assert!(matches!(damaged, Ok(Integrity::Damaged { .. })), "{damaged:?}");
    }

    #[test]
    fn a_database_of_a_newer_release_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory.sqlite");
        drop(SqliteDirectory::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(check_integrity(&path, true), Err(OpenError::Newer { .. })));
    }
}
