//! A copy of a database that a maestro may be using, as it is at one moment, in one file.
//!
//! It is read as a question reads it, from one snapshot: nobody waits for it. Called by `maestrod backup`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::integrity::{beside_its_user, has_user};
use super::schema::VERSION;

/// Pages that are copied at once: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("there is no database {}: {source}; name the state directory with --state-dir", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The copy is to be where the database is.
    #[error("{} is the database itself; name another file", .0.display())]
    Itself(PathBuf),
    /// The database cannot be read.
    #[error("cannot read the database {}: {source}; run this as the maestro's user, or with sudo", path.display())]
    Read {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The copy cannot be written.
    #[error("cannot write the copy {}: {source}; correct that, or name a file elsewhere", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was copied is not whole.
    #[error("the copy is damaged, so the database may be: {0}; `maestrod doctor` examines it")]
    Damaged(String),
}

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// Peers in it.
    pub peers: u64,
}

/// Copies the database at `from` to the file `to`, which it replaces in one step when the copy is whole and on the disk.
/// Blocking.
///
/// # Errors
///
/// [`BackupError`]; a file that was at `to` is still there.
pub fn backup(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let real =
        from.canonicalize().map_err(|source| BackupError::Missing { path: from.to_owned(), source })?;
    if to.canonicalize().is_ok_and(|to| to == real) {
        return Err(BackupError::Itself(to.to_owned()));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = to.with_file_name(name);
    // A log is beside the database, and not beside a link to it.
    let from = real.as_path();
    let changed = || fs::metadata(from).and_then(|metadata| metadata.modified()).ok();
    let copied = loop {
        let (is_idle, before) = (!has_user(from), changed());
        let copied = copy(from, &partial, to, is_idle);
        // Else a maestro has started meanwhile: what was read as of an idle database may be half of a change.
        if !is_idle || !has_user(from) && changed() == before {
            break copied;
        }
    };
    let result = copied.and_then(|copied| put(&partial, to).map(|()| copied));
    if result.is_err() {
        // Whether it is there or not, it is no use.
        let _ = fs::remove_file(&partial);
    }
    result
}

/// Copies it to `partial`, which is on the disk then. `is_idle`: nobody uses it, and nobody begins to before the end.
fn copy(from: &Path, partial: &Path, to: &Path, is_idle: bool) -> Result<Copied, BackupError> {
    let unread = |source| BackupError::Read { path: from.to_owned(), source };
    let unwritten =
        |source: Box<dyn std::error::Error + Send + Sync>| BackupError::Write { path: to.to_owned(), source };
    let unwritten_sql = |error: rusqlite::Error| unwritten(error.into());
    let unwritten_io = |error: io::Error| unwritten(error.into());
    // Made anew and for its owner alone: names of files are for the network, and nobody else.
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritten_io(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial).map_err(unwritten_io)?;
    let (target, flags) = beside_its_user(from, is_idle);
    let source = Connection::open_with_flags(target, flags).map_err(unread)?;
    source.busy_timeout(std::time::Duration::from_secs(5)).map_err(unread)?;
    // The snapshot that all steps read.
    let snapshot = source.unchecked_transaction().map_err(unread)?;
    let version: u32 = snapshot.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unread)?;
    let mut copy = Connection::open_with_flags(
        partial,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(unwritten_sql)?;
    {
        let backup = Backup::new(&snapshot, &mut copy).map_err(unwritten_sql)?;
        while backup.step(STEP_PAGES).map_err(unwritten_sql)? != StepResult::Done {}
    }
    drop(snapshot);
    // One file, without a log beside it.
    let mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    copy.query_row("PRAGMA journal_mode = DELETE", [], mode).map_err(unwritten_sql)?;
    let found: String =
        copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(unwritten_sql)?;
    if found != "ok" {
        return Err(BackupError::Damaged(found));
    }
    if version == 0 || version > VERSION {
        return Err(BackupError::Damaged(format!("it has version {version}, and {VERSION} is known")));
    }
    let sql = "SELECT count(*) FROM peers";
    let peers = copy.query_row(sql, [], |row| row.get(0)).map_err(unwritten_sql)?;
    copy.close().map_err(|(_, error)| unwritten_sql(error))?;
    let file = File::open(partial).map_err(unwritten_io)?;
    file.sync_all().map_err(unwritten_io)?;
    let bytes = file.metadata().map_err(unwritten_io)?.len();
    Ok(Copied { bytes, peers })
}

/// Gives the copy its name, in place of what may have it.
fn put(partial: &Path, to: &Path) -> Result<(), BackupError> {
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let put = fs::rename(partial, to)
        .and_then(|()| File::open(directory))
        .and_then(|directory| directory.sync_all());
    put.map_err(|error| BackupError::Write { path: to.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::SqliteDirectory;
    use super::*;
    use crate::directory::conformance::{file, settle};
    use crate::directory::{Directory as _, Holdings};

    #[tokio::test]
    async fn a_copy_is_what_the_directory_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("directory.sqlite"), dir.path().join("copy"));
        let directory = SqliteDirectory::open(&from).unwrap();
        settle(&directory, 1, &[file("a", "1"), file("b", "2")]).await;
        let Copied { bytes, peers } = backup(&from, &to).unwrap();
        assert_eq!((peers, bytes), (1, fs::metadata(&to).unwrap().len()));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        settle(&directory, 2, &[file("c", "3")]).await;
        let copy = SqliteDirectory::open(&to).unwrap();
        let Holdings { peers_known, files, .. } = copy.holdings().await.unwrap();
        assert_eq!((peers_known, files), (1, 2));
        drop(copy);
        // In place of the one before, and of a database that nobody has open.
        drop(directory);
        assert_eq!(backup(&from, &to).unwrap().peers, 2);
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["copy", "directory.sqlite"]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("directory.sqlite"), dir.path().join("copy"));
        assert!(matches!(backup(&from, &to), Err(BackupError::Missing { .. })));
        drop(SqliteDirectory::open(&from).unwrap());
        assert!(matches!(backup(&from, &from), Err(BackupError::Itself(_))));
        assert!(matches!(backup(&from, &dir.path().join("no/where")), Err(BackupError::Write { .. })));
        fs::write(&to, "what was there").unwrap();
        fs::write(&from, "no database, and long enough to be seen as something else".repeat(99)).unwrap();
        assert!(matches!(backup(&from, &to), Err(BackupError::Read { .. })));
        assert_eq!(fs::read_to_string(&to).unwrap(), "what was there");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
