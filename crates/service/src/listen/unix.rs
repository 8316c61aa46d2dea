//! Unix sockets with a name: taken over from a daemon that died, refused to a second one, removed at the end.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::UnixListener;

use super::ListenError;

/// What `sockaddr_un` holds, less the final zero.
const PATH_MAX_BYTES: usize = 107;

/// Listens on a Unix socket at `path` with permission `mode`; its directory is made (0755) if it is missing.
///
/// A socket on which nobody answers is left from a daemon that died, and is replaced; one on which somebody answers,
/// or anything that is not a socket, is left alone and the call fails. Two daemons that start at the same instant are
/// kept apart by the lock of their state directory, not by this.
pub fn unix(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let failed = |action| move |source| ListenError::Unix { path: path.to_owned(), action, source };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed("create its directory"))?;
    check_length(path, path)?;
    check_replaceable(path)?;

    // The socket is born in a directory that is closed to others: there is no instant in which they can connect
    // with the permissions of the umask instead of `mode`.
    let nursery = Nursery::new(parent).map_err(failed("create a directory beside it"))?;
    let newborn = nursery.path.join("s");
    check_length(&newborn, path)?;
    let listener = UnixListener::bind(&newborn).map_err(failed("bind the socket"))?;
    fs::set_permissions(&newborn, Permissions::from_mode(mode)).map_err(failed("set its mode"))?;
    fs::rename(&newborn, path).map_err(failed("give the socket its name"))?;
    Ok(listener)
}

fn check_length(bound: &Path, path: &Path) -> Result<(), ListenError> {
    match bound.as_os_str().as_bytes().len().checked_sub(PATH_MAX_BYTES) {
        None | Some(0) => Ok(()),
        Some(excess_bytes) => Err(ListenError::PathTooLong { path: path.to_owned(), excess_bytes }),
    }
}

fn check_replaceable(path: &Path) -> Result<(), ListenError> {
    let failed = |action| move |source| ListenError::Unix { path: path.to_owned(), action, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // Too busy to accept is also alive.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::UnixInUse { path: path.to_owned() }),
        Err(error) => {
            Err(failed("find out whether somebody answers on the socket that is there")(error.into()))
        }
    }
}

fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

/// A directory for the owner alone, gone when the socket has left it or could not be made.
struct Nursery {
    path: PathBuf,
}

impl Nursery {
    fn new(parent: &Path) -> io::Result<Nursery> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(OsString::from(format!(".{}.{number}", std::process::id())));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Nursery { path }),
                // Left from a process that died with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            let path = self.path.display();
            tracing::debug!(%path, %error, "cannot remove the temporary directory {path}: {error}");
        }
    }
}

/// Removes a socket's name when dropped, at a clean shutdown, unless another daemon has taken the name over.
///
/// Not for a socket that systemd passed: that one stays systemd's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Guards the socket that [`unix`] has just made at `path`.
    pub fn guard(path: &Path) -> io::Result<SocketFile> {
        let metadata = fs::symlink_metadata(path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot find {}: {error}", path.display()))
        })?;
        Ok(SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::debug!(%path, %error, "cannot remove the socket's name {path}: {error}");
        }
    }
}
