//! `-o`: a fetched file, delivered as the calling user: their owner, their group, their umask.
//!
//! The copy is made beside where it shall be, proven, and moved there whole. Cheapest first: a reflink of the daemon's
//! file, a copy of it, and where this user may not read that file, or it is another one by now, the daemon's bytes
//! through the socket. Standard output, devices and pipes get only those: nothing can be taken back from them.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use p2p_proto::control::Transfer;
use rustix::fs::{Access, OFlags};
use tempfile::NamedTempFile;

use crate::client::Client;
use crate::copy::{self, Copied};
use crate::exit::Exit;
use crate::failure::Failure;

/// Where a fetched file shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// It stays where the daemon puts it.
    Share,
    /// Standard output.
    Stdout,
    /// A file of the user.
    File {
        /// Where.
        path: PathBuf,
        /// Whether what is there is replaced.
        force: bool,
    },
    /// A directory of the user; the file in it has the last part of the fetched file's name.
    Directory {
        /// Where.
        path: PathBuf,
        /// Whether what is there is replaced.
        force: bool,
    },
}

impl Target {
    /// Reads `-o PATH`.
    pub(crate) fn new(output: Option<PathBuf>, force: bool) -> Target {
        match output {
            None => Target::Share,
            Some(path) if path == Path::new("-") => Target::Stdout,
            Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
                Target::Directory { path, force }
            }
            Some(path) => Target::File { path, force },
        }
    }

    /// The target once the file's name is known.
    pub(crate) fn named(self, name: &str) -> Target {
        match self {
            Target::Directory { path, force } => {
                let last = Path::new(name).file_name().unwrap_or(OsStr::new(name));
                Target::File { path: path.join(last), force }
            }
            target => target,
        }
    }

    /// Refuses, before anything is fetched, what could not be delivered.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let directory = match self {
            Target::Share | Target::Stdout => return Ok(()),
            Target::Directory { path, .. } => path.as_path(),
            Target::File { path, force } => match (Place::at(path), force) {
                (Place::Free, _) | (Place::File, true) => parent(path),
                (Place::Stream, true) => {
                    return rustix::fs::access(path.as_path(), Access::WRITE_OK)
                        .map_err(|err| cannot_write(path, &err.into()));
                }
                (place, _) => return Err(taken(path, place)),
            },
        };
        if !directory.is_dir() {
            let message = format!("There is no directory {}", directory.display());
            return Err(Failure::new(Exit::NotFound, "no-such-directory", message)
                .hint("make it, or name another one"));
        }
        rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|err| Failure::disk(&format!("Cannot write into {}", directory.display()), &err.into()))
    }

    /// Delivers a transfer that is done. Gives the path of the user's file, where there is one.
    pub(crate) async fn deliver(
        &self,
        client: &Client,
        transfer: &Transfer,
    ) -> Result<Option<PathBuf>, Failure> {
        match self {
            Target::Share | Target::Directory { .. } => Ok(None),
            Target::Stdout => {
                let stdout =
                    io::stdout().as_fd().try_clone_to_owned().map_err(|err| Failure::output(&err))?;
                stream(client, transfer, File::from(stdout), &Failure::output).await?;
                Ok(None)
            }
            Target::File { path, force } => {
                match (Place::at(path), force) {
                    (Place::Stream, true) => write_into(client, transfer, path).await?,
                    _ => put(client, transfer, path, *force).await?,
                }
                Ok(Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())))
            }
        }
    }
}

/// What is where a file shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing.
    Free,
    /// A file: another one can take its place.
    File,
    /// A device or a pipe, or a link to one: it is written into, as the shell's `>` does.
    Stream,
    /// Something that no file can take the place of: a directory, a socket, a link.
    Other,
}

impl Place {
    fn at(path: &Path) -> Place {
        match path.symlink_metadata() {
            Err(_) => Place::Free,
            Ok(found) if found.is_file() => Place::File,
            // Links are followed here: `/dev/stdout` is one.
            Ok(_) if path.metadata().is_ok_and(|found| is_stream(&found)) => Place::Stream,
            Ok(_) => Place::Other,
        }
    }
}

fn is_stream(found: &Metadata) -> bool {
    let kind = found.file_type();
    kind.is_char_device() || kind.is_block_device() || kind.is_fifo()
}

/// Makes a file of the user's own.
async fn put(client: &Client, transfer: &Transfer, path: &Path, force: bool) -> Result<(), Failure> {
    let disk = |err: &io::Error| cannot_write(path, err);
    let new = || part_beside(path).map_err(|err| disk(&err));
    let handle = |part: &NamedTempFile| part.as_file().try_clone().map_err(|err| disk(&err));
    let mut part = new()?;
    let copied = copy::from_disk(transfer, handle(&part)?, &disk).await?;
    if copied == Copied::Other {
        part = new()?;
    }
    if copied != Copied::Whole {
        let whole = copy::through_the_socket(client, transfer, handle(&part)?, &disk);
        Box::pin(whole).await.map_err(|failure| {
            // The daemon has it no more either: that is not what the user needs to hear first.
            let is_lost = failure.exit() == Exit::NotFound || transfer.content.is_none();
            if copied == Copied::Other && is_lost { copy::changed(transfer) } else { failure }
        })?;
    }
    let moved = match (force, Place::at(path)) {
        (false, _) => part.persist_noclobber(path),
        (true, Place::Free | Place::File) => part.persist(path),
        // It came while the file was fetched.
        (true, place) => return Err(taken(path, place)),
    };
    moved.map(drop).map_err(|err| match err.error.kind() {
        io::ErrorKind::AlreadyExists => taken(path, Place::at(path)),
        _ => disk(&err.error),
    })
}

/// A file that is gone with its value, on the disk where the user's shall be.
fn part_beside(path: &Path) -> io::Result<NamedTempFile> {
    // What the user's umask leaves of it, as for any file that they make.
    let permissions = Permissions::from_mode(0o666);
    tempfile::Builder::new()
        .prefix(".p2pctl-")
        .suffix(".part")
        .permissions(permissions)
        .tempfile_in(parent(path))
}

/// Writes into the device or the pipe that is there.
async fn write_into(client: &Client, transfer: &Transfer, path: &Path) -> Result<(), Failure> {
    let disk = |err: &io::Error| cannot_write(path, err);
    let there = path.to_owned();
    // A pipe opens only once somebody reads from it.
    let opened = tokio::task::spawn_blocking(move || open_stream(&there)).await;
    let to = opened.map_err(|err| disk(&io::Error::other(err)))?.map_err(|err| disk(&err))?;
    stream(client, transfer, to, &disk).await
}

fn open_stream(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOCTTY.bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    // Asked of what was opened: a file is never written into.
    match is_stream(&file.metadata()?) {
        true => Ok(file),
        false => Err(io::Error::other("it is no device and no pipe any more")),
    }
}

async fn stream(
    client: &Client,
    transfer: &Transfer,
    to: File,
    disk: &impl Fn(&io::Error) -> Failure,
) -> Result<(), Failure> {
    let written = Box::pin(copy::through_the_socket(client, transfer, to, disk)).await;
    written.map_err(|failure| match failure.code() {
        copy::CHANGED => failure.hint("what was written is not what you asked for: do not use it"),
        _ => failure,
    })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn cannot_write(path: &Path, err: &io::Error) -> Failure {
    Failure::disk(&format!("Cannot write {}", path.display()), err)
}

fn taken(path: &Path, place: Place) -> Failure {
    let hint = match place {
        Place::Free | Place::File => "replace it with --force, or name another path",
        Place::Stream => "write into it with --force, or name another path",
        Place::Other => "it is no file that could be replaced; name another path, or where the link leads",
    };
    let message = format!("{} is there already", path.display());
    Failure::new(Exit::Choice, "file-exists", message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gets_the_last_part_of_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::new(Some(dir.path().to_owned()), false).named("docs/a.txt");
        assert_eq!(target, Target::File { path: dir.path().join("a.txt"), force: false });
        assert_eq!(Target::new(Some("-".into()), false).named("docs/a.txt"), Target::Stdout);
    }

    #[test]
    fn what_cannot_be_delivered_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, "mine").unwrap();
        let check = |path: PathBuf, force| Target::new(Some(path), force).check().map_err(|err| err.exit());
        assert_eq!(check(there.clone(), false), Err(Exit::Choice));
        assert_eq!(check(there, true), Ok(()));
        assert_eq!(check(dir.path().join("no/file"), false), Err(Exit::NotFound));
        assert_eq!(check(PathBuf::from("/no/such/dir/"), false), Err(Exit::NotFound));
    }

    #[test]
    fn only_a_file_is_replaced_and_only_a_stream_is_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Place::at(&dir.path().join(name));
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        for (link, leads_to) in [("null", "/dev/null"), ("to-file", "file"), ("dangling", "no")] {
            std::os::unix::fs::symlink(leads_to, dir.path().join(link)).unwrap();
        }
        assert_eq!((place("no"), place("file")), (Place::Free, Place::File));
        assert_eq!((place("null"), Place::at(Path::new("/dev/null"))), (Place::Stream, Place::Stream));
        for other in ["directory", "socket", "to-file", "dangling"] {
            assert_eq!(place(other), Place::Other, "{other}");
            let target = Target::File { path: dir.path().join(other), force: true };
            assert_eq!(target.check().map_err(|err| err.exit()), Err(Exit::Choice), "{other}");
        }
        // Its directory need not be writable.
        let null = |force| Target::File { path: "/dev/null".into(), force }.check().map_err(|err| err.exit());
        assert_eq!((null(true), null(false)), (Ok(()), Err(Exit::Choice)));
        assert!(open_stream(&dir.path().join("null")).is_ok());
        assert!(open_stream(&dir.path().join("file")).is_err());
    }
}
