//! The directory where a daemon keeps what must survive it, and the lock that makes it the only one there.
//!
//! Opened by a daemon's composition file, which keeps the [`StateDir`] until the end. [`write_private`] is for
//! whoever keeps a small secret in it; [`Room`] for whoever examines it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use p2p_proto::diagnosis::Check;
use rustix::fs::{Access, AtFlags, CWD, FlockOperation, StatVfsMountFlags, accessat, flock};
use rustix::process::geteuid;

/// Below this, in bytes, databases may soon not be written any more.
const LOW: u64 = 64 << 20;

/// What can still be written on the disk of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this program's user can still write.
    pub free: u64,
    /// Files that can still be made; `None` where the file system does not count them.
    pub free_files: Option<u64>,
    /// Whether nothing can be written at all.
    pub is_read_only: bool,
}

impl Room {
    /// On the disk of this directory. Blocking.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn of(dir: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Room {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            free_files: (stat.f_files > 0).then_some(stat.f_favail),
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    /// What is wrong with it for the state directory `dir`, if anything, as the check `state` of `doctor`. `why` says what
    /// the room there is for.
    pub fn problem(&self, dir: &Path, why: &str) -> Option<Check> {
        const NAME: &str = "state";
        let shown = dir.display();
        if self.is_read_only {
            let found = format!("the disk of the state directory {shown} is mounted read-only");
            return Some(Check::problem(NAME, found).advise(
                "the kernel's log may say why: `journalctl -k`; nothing can be kept until it is writable again",
            ));
        }
        if self.free_files == Some(0) {
            let found = format!("no more files can be made on the disk of the state directory {shown}");
            return Some(
                Check::problem(NAME, found)
                    .advise("its inodes are used up: remove files there (`df -i` shows them)"),
            );
        }
        (self.free < LOW).then(|| {
            let found = format!("{} MiB free for the state directory {shown}", self.free >> 20);
            Check::problem(NAME, found).advise(format!("make room there: {why}"))
        })
    }
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another daemon holds the lock.
    #[error(
        "state directory {} is in use by another daemon ({}); \
         stop it or choose another with --state-dir",
        path.display(),
        pid.as_ref().map_or("pid unknown".to_owned(), |pid| format!("pid {pid}"))
    )]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// The other daemon's process, if it has written it already.
        pid: Option<u32>,
    },
    /// There is something else by that name.
    #[error("{} is not a directory; move it away or choose another state directory with --state-dir", path.display())]
    NotADirectory {
        /// What was to be the state directory.
        path: PathBuf,
    },
    /// The directory is another user's.
    #[error(
        "state directory {} belongs to user {owner}, and this daemon runs as user {user}; \
         run it as that user or choose another with --state-dir",
        path.display()
    )]
    Foreign {
        /// The state directory.
        path: PathBuf,
        /// Its owner's user ID.
        owner: u32,
        /// This process's user ID.
        user: u32,
    },
    /// Nothing can be written there.
    #[error(
        "cannot write in state directory {}: {source}; \
         correct its permissions (chmod u+rwx) or choose another with --state-dir",
        path.display()
    )]
    NotWritable {
        /// The state directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else that the system refuses.
    #[error("cannot {action} {}: {source}; correct that or choose another state directory with --state-dir", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A state directory that is this process's alone for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    // The lock belongs to the open file, and ends with it even if the process is killed.
    _lock: File,
}

impl StateDir {
    /// Makes the directory if it is missing (0700, and its parents), checks that it can be used, and locks it. The mode of
    /// one that is there is its administrator's to choose: the packages let a group enter p2pd's.
    pub fn open(path: impl AsRef<Path>) -> Result<StateDir, StateDirError> {
        let path = path.as_ref();
        let io_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { action, path, source }
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(io_error("create state directory", path))?;
            }
            // A file in place of a parent.
            Err(source) => return Err(io_error("look at state directory", path)(source)),
            Ok(_) => {}
        }
        let metadata = fs::metadata(path).map_err(io_error("look at state directory", path))?;
        if !metadata.is_dir() {
            return Err(StateDirError::NotADirectory { path: path.to_owned() });
        }
        let user = geteuid().as_raw();
        if metadata.uid() != user {
            return Err(StateDirError::Foreign { path: path.to_owned(), owner: metadata.uid(), user });
        }
        accessat(CWD, path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| StateDirError::NotWritable { path: path.to_owned(), source: error.into() })?;
        let lock = lock(path)?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the file `name`, which is its owner's alone: made empty where it is missing, closed to others where it
    /// is open to them. The directory may let a group in; what is kept for the daemon must not come with that.
    ///
    /// # Errors
    /// [`StateDirError::Io`], where it can neither be made nor closed.
    pub fn private(&self, name: impl AsRef<Path>) -> Result<PathBuf, StateDirError> {
        let path = self.join(name);
        let io_error = |action| {
            let path = path.clone();
            move |source| StateDirError::Io { action, path, source }
        };
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let file = opened.map_err(io_error("open"))?;
        let mode = file.metadata().map_err(io_error("look at"))?.mode();
        if mode & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o700))
                .map_err(io_error("close to others"))?;
        }
        Ok(path)
    }
}

/// Only the directory itself is private: its missing parents are made like any other directories.
fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}

fn lock(dir: &Path) -> Result<File, StateDirError> {
    let path = dir.join("lock");
    let io_error = |action| {
        let path = path.clone();
        move |source| StateDirError::Io { action, path, source }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open the lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The number is a courtesy: without it the refusal still stands.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StateDirError::InUse { path: dir.to_owned(), pid });
        }
        Err(error) => return Err(io_error("take the lock")(error.into())),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(io_error("write the lock"))?;
    Ok(file)
}

/// Puts `bytes` in the file at `path`, readable by its owner alone: whole or, after a crash, not at all.
pub fn write_private(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = path.as_ref();
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    let Some(name) = path.file_name() else {
        return Err(explain(io::ErrorKind::InvalidInput.into()));
    };
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary = dir.join(temporary);
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| File::open(dir)?.sync_all()).map_err(explain)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What lies there is left from a process that died with our number; to truncate it would keep its mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
