//! `-o`: a fetched file, delivered as the calling user: their owner, their group, their umask.
//!
//! The copy is made beside where it shall be and moved there whole. Cheapest first: a reflink of the daemon's file, a
//! copy inside of the kernel, and where this user may not read the daemon's file, its bytes through the socket.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use p2p_proto::control::Transfer;
use rustix::fs::{Access, OFlags};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use crate::client::Client;
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
        let (directory, file) = match self {
            Target::Share | Target::Stdout => return Ok(()),
            Target::Directory { path, .. } => (path.as_path(), None),
            Target::File { path, force } => (parent(path), (!force).then_some(path)),
        };
        if !directory.is_dir() {
            let message = format!("There is no directory {}", directory.display());
            return Err(Failure::new(Exit::NotFound, "no-such-directory", message)
                .hint("make it, or name another one"));
        }
        if let Some(path) = file.filter(|path| path.symlink_metadata().is_ok()) {
            return Err(taken(path));
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
                copy(client, transfer, File::from(stdout), Goal::Stream, Failure::output).await?;
                Ok(None)
            }
            Target::File { path, force } => deliver_file(client, transfer, path, *force).await.map(Some),
        }
    }
}

async fn deliver_file(
    client: &Client,
    transfer: &Transfer,
    path: &Path,
    force: bool,
) -> Result<PathBuf, Failure> {
    let disk = |err: &io::Error| Failure::disk(&format!("Cannot write {}", path.display()), err);
    // What the user's umask leaves of it, as for any file that they make.
    let permissions = Permissions::from_mode(0o666);
    let part: NamedTempFile = tempfile::Builder::new()
        .prefix(".p2pctl-")
        .suffix(".part")
        .permissions(permissions)
        .tempfile_in(parent(path))
        .map_err(|err| disk(&err))?;
    let file = part.as_file().try_clone().map_err(|err| disk(&err))?;
    copy(client, transfer, file, Goal::NewFile, disk).await?;
    let moved = match force {
        true => part.persist(path),
        false => part.persist_noclobber(path),
    };
    moved.map_err(|err| match err.error.kind() {
        io::ErrorKind::AlreadyExists => taken(path),
        _ => disk(&err.error),
    })?;
    Ok(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// What a content is written to.
#[derive(Clone, Copy)]
enum Goal {
    /// An empty file of its own.
    NewFile,
    /// Whatever standard output is, at its present end.
    Stream,
}

/// Writes a whole content to a file or a pipe.
async fn copy(
    client: &Client,
    transfer: &Transfer,
    to: File,
    goal: Goal,
    disk: impl Fn(&io::Error) -> Failure,
) -> Result<(), Failure> {
    let copied = match transfer.path.as_deref().and_then(open_source) {
        Some(from) => {
            // A clone replaces all of its target: right for a new file, wrong for what standard output already holds.
            let clone = matches!(goal, Goal::NewFile);
            let copied = tokio::task::spawn_blocking(move || copy_within_the_kernel(from, to, clone)).await;
            copied.map_err(|err| disk(&io::Error::other(err)))?.map_err(|err| disk(&err))?
        }
        None => copy_through_the_socket(client, transfer, to, &disk).await?,
    };
    match transfer.size {
        Some(size) if size != copied => Err(Failure::new(
            Exit::Failed,
            "content-changed",
            format!(
                "{} has {copied} bytes here and should have {size}: it was changed after it was fetched",
                transfer.name
            ),
        )
        .hint("fetch it again")),
        _ => Ok(()),
    }
}

/// The daemon's file, where this user may read it.
fn open_source(path: &str) -> Option<File> {
    // Others may be able to put a symlink or a pipe there.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

fn copy_within_the_kernel(mut from: File, mut to: File, clone: bool) -> io::Result<u64> {
    if clone && rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(to.metadata()?.len());
    }
    // The standard library copies between files, and into pipes, by copy_file_range, sendfile and splice.
    io::copy(&mut from, &mut to)
}

async fn copy_through_the_socket(
    client: &Client,
    transfer: &Transfer,
    to: File,
    disk: &impl Fn(&io::Error) -> Failure,
) -> Result<u64, Failure> {
    let Some(content) = &transfer.content else {
        let message =
            format!("p2pd does not say which content {} has, so it cannot be read from it", transfer.name);
        return Err(Failure::new(Exit::Failed, "content-unknown", message));
    };
    let mut bytes = client.bytes(&format!("/v1/contents/{content}")).await?;
    let mut to = tokio::fs::File::from_std(to);
    let mut copied = 0;
    while let Some(piece) = bytes.next().await? {
        to.write_all(&piece).await.map_err(|err| disk(&err))?;
        copied += piece.len() as u64;
    }
    to.flush().await.map_err(|err| disk(&err))?;
    Ok(copied)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn taken(path: &Path) -> Failure {
    Failure::new(Exit::Choice, "file-exists", format!("{} is there already", path.display()))
        .hint("replace it with --force, or name another path")
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
}
