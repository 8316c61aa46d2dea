//! The directory that fetched and uploaded files land in: parts first, then whole files under their names.
//!
//! Parts lie in `.p2p-partial` in the share itself, so that publishing one is a rename within a file system.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use p2p_content::{FileName, PARTIAL_DIR};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::Gid;

use super::board::{self, BoardReader, NoPlace};
use super::root::{Place, Root, split};

mod disk;
mod together;

use disk::Disk;
#[cfg(test)]
pub(crate) use disk::{Disk as PlayedDisk, Flush};
pub use together::{Published, ReadyFile, Together, Under};

/// The share that downloads land in. Cheap to clone; it follows the share when its disk comes and goes. All its calls
/// block.
#[derive(Debug, Clone)]
pub struct DownloadDir {
    share: String,
    path: PathBuf,
    board: BoardReader,
    disk: Disk,
}

impl DownloadDir {
    pub(super) fn new(share: String, path: PathBuf, board: BoardReader) -> DownloadDir {
        DownloadDir { share, path, board, disk: Disk::default() }
    }

    /// The same directory on a disk that is played.
    #[cfg(test)]
    pub(crate) fn on(self, disk: Disk) -> DownloadDir {
        DownloadDir { disk, ..self }
    }

    /// The name of the share.
    pub fn share(&self) -> &str {
        &self.share
    }

    /// The share's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, for a person to read: the program opens files from a handle of the directory.
    pub fn absolute(&self, name: &FileName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Opens the part `key` for reading and writing, and makes it, empty and for the program's user only, where there is
    /// none. `key` is one component of a name.
    ///
    /// # Errors
    ///
    /// [`PublishError::BadKey`], [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn part(&self, key: &str) -> Result<File, PublishError> {
        check_key(key)?;
        let (root, place) = self.root()?;
        let at = |source: Errno| io_error(place.path.join(PARTIAL_DIR).join(key), source);
        let parts = open_parts(&root, true).map_err(at)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parts, key, flags, Mode::RUSR | Mode::WUSR).map_err(at)?;
        Ok(File::from(file))
    }

    /// Removes the part `key`. It's no error if there is none.
    ///
    /// # Errors
    ///
    /// As [`part`](DownloadDir::part).
    pub fn remove_part(&self, key: &str) -> Result<(), PublishError> {
        check_key(key)?;
        let (root, place) = self.root()?;
        let removed =
            open_parts(&root, false).and_then(|parts| rustix::fs::unlinkat(&parts, key, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(io_error(place.path.join(PARTIAL_DIR).join(key), source)),
        }
    }

    /// Gives the part `key` another key; `false` where there is none. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// As [`part`](DownloadDir::part).
    pub fn rename_part(&self, key: &str, other: &str) -> Result<bool, PublishError> {
        check_key(key)?;
        check_key(other)?;
        let (root, place) = self.root()?;
        let renamed = open_parts(&root, false).and_then(|parts| {
            rustix::fs::renameat(&parts, key, &parts, other)?;
            rustix::fs::fsync(&parts)
        });
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(source) => Err(io_error(place.path.join(PARTIAL_DIR).join(key), source)),
        }
    }

    /// The keys of all parts, to find those that no transfer knows.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn parts(&self) -> Result<Vec<String>, PublishError> {
        let (root, place) = self.root()?;
        let at = |source: Errno| io_error(place.path.join(PARTIAL_DIR), source);
        let parts = match open_parts(&root, false) {
            Ok(parts) => parts,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(source) => return Err(at(source)),
        };
        let mut keys = Vec::new();
        for entry in Dir::read_from(&parts).map_err(at)? {
            let entry = entry.map_err(at)?;
            keys.extend(
                entry.file_name().to_str().ok().filter(|key| check_key(key).is_ok()).map(str::to_owned),
            );
        }
        Ok(keys)
    }

    /// How many bytes this program's user can still write there.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn free_bytes(&self) -> Result<u64, PublishError> {
        let (root, place) = self.root()?;
        let stat = rustix::fs::fstatvfs(root.handle()).map_err(|source| io_error(place.path, source))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// How many bytes parts will still take: of those that are made at their full length, what has no place on the disk yet.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn awaited_bytes(&self) -> Result<u64, PublishError> {
        let (root, place) = self.root()?;
        let mut awaited = 0u64;
        for key in self.parts()? {
            let stat = open_parts(&root, false)
                .and_then(|parts| rustix::fs::statat(&parts, &*key, AtFlags::SYMLINK_NOFOLLOW));
            match stat {
                Ok(stat) => {
                    let (len, blocks) = (stat.st_size.cast_unsigned(), stat.st_blocks.cast_unsigned());
                    awaited = awaited.saturating_add(len.saturating_sub(blocks.saturating_mul(512)));
                }
                // It was published, or removed, meanwhile.
                Err(Errno::NOENT) => {}
                Err(source) => return Err(io_error(place.path.join(PARTIAL_DIR).join(key), source)),
            }
        }
        Ok(awaited)
    }

    /// Whether something is under this name already.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn exists(&self, name: &FileName) -> Result<bool, PublishError> {
        let (root, place) = self.root()?;
        match root.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if super::root::is_gone(&error) => Ok(false),
            Err(source) => Err(PublishError::Io { path: place.path.join(name.as_str()), source }),
        }
    }

    /// Gives the part `key` its name, with the directories that the name calls for. The file is on the disk before it
    /// has the name, and the name is when this returns. It gets the mode that any new file of the program would, and the
    /// group, where its directory gives it (setgid). Gives back its path.
    ///
    /// # Errors
    ///
    /// [`PublishError::Exists`] if the name is taken and not to be replaced: nothing is changed then, and the part is
    /// still there. A directory is never replaced. [`PublishError::NoPart`], [`PublishError::BadKey`],
    /// [`PublishError::Unavailable`], [`PublishError::Unflushed`], [`PublishError::Io`].
    pub fn publish(&self, key: &str, name: &FileName, replace: bool) -> Result<PathBuf, PublishError> {
        self.publish_flushed(key, name, replace, |part| Ok(self.disk.flush(part)?))
    }

    /// As [`publish`](DownloadDir::publish), for who has the part open: the kernel tells a handle of the writes that were
    /// lost since it was opened, and a new one perhaps of none. `flush` is given a new one.
    ///
    /// # Errors
    ///
    /// As [`publish`](DownloadDir::publish).
    pub fn publish_flushed(
        &self,
        key: &str,
        name: &FileName,
        replace: bool,
        flush: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<PathBuf, PublishError> {
        check_key(key)?;
        let (root, place) = self.root()?;
        let path = place.path.join(name.as_str());
        let at = |source: Errno| io_error(path.clone(), source);
        let no_part = |source| match source {
            Errno::NOENT => PublishError::NoPart { key: key.to_owned() },
            source => io_error(place.path.join(PARTIAL_DIR).join(key), source),
        };
        let parts = open_parts(&root, false).map_err(no_part)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let part = rustix::fs::openat(&parts, key, flags, Mode::empty()).map_err(no_part)?;
        let (parent, last) = make_parent(&root, name, &self.disk).map_err(at)?;
        take_group(&part, &parent).map_err(at)?;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        rustix::fs::fchmod(&part, mode & !umask()).map_err(at)?;
        flush(&File::from(part)).map_err(|source| PublishError::Unflushed { path: path.clone(), source })?;
        let renamed = if replace {
            rustix::fs::renameat(&parts, key, &parent, last)
        } else {
            rename_to_free(&parts, key, &parent, last)
        };
        renamed.map_err(|source| match source {
            Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR => PublishError::Exists { name: name.clone() },
            source => at(source),
        })?;
        self.disk.flush(&parent).map_err(at)?;
        Ok(path)
    }

    fn root(&self) -> Result<(Root, Place), PublishError> {
        let unavailable = |reason| PublishError::Unavailable { share: self.share.clone(), reason };
        let place = board::place_of(&self.board, &self.share).map_err(|error| match error {
            NoPlace::NotShared => unavailable("it is no longer configured".to_owned()),
            NoPlace::Unavailable { reason } => unavailable(reason),
        })?;
        let root = place.open().map_err(|lost| unavailable(lost.to_string()))?;
        Ok((root, place))
    }
}

/// Opens the directory of the parts; makes it, for the program's user only, where `make` says so.
fn open_parts(root: &Root, make: bool) -> Result<OwnedFd, Errno> {
    if make {
        match rustix::fs::mkdirat(root.handle(), PARTIAL_DIR, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    open_directory(root.handle(), PARTIAL_DIR)
}

/// The directory that `name` is to be in, made where it isn't there, and the name's last component.
fn make_parent<'n>(root: &Root, name: &'n FileName, disk: &Disk) -> Result<(OwnedFd, &'n str), Errno> {
    let mut at = open_directory(root.handle(), ".")?;
    let (directories, last) = split(name);
    for step in directories.split('/').filter(|step| !step.is_empty()) {
        // The umask takes from it what the system's owner wants taken.
        match rustix::fs::mkdirat(&at, step, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) => disk.flush(&at)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        at = open_directory(&at, step)?;
    }
    Ok((at, last))
}

/// A file that is made in a setgid directory has that directory's group; one that is renamed into it has to be given it.
fn take_group(part: &OwnedFd, parent: &OwnedFd) -> Result<(), Errno> {
    let (directory, file) = (rustix::fs::fstat(parent)?, rustix::fs::fstat(part)?);
    if !Mode::from_raw_mode(directory.st_mode).contains(Mode::SGID) || directory.st_gid == file.st_gid {
        return Ok(());
    }
    match rustix::fs::fchown(part, None, Some(Gid::from_raw(directory.st_gid))) {
        // A group that this program's user is not in: making a file there is allowed, giving it one is not.
        Err(Errno::PERM) => Ok(()),
        done => done,
    }
}

fn open_directory(at: impl AsFd, step: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, step, flags, Mode::empty())
}

/// Renames unless the new name is taken, as one step.
fn rename_to_free(parts: &OwnedFd, key: &str, parent: &OwnedFd, last: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(parts, key, parent, last, RenameFlags::NOREPLACE) {
        // File systems that don't know how (NFS, older ones) still refuse to link over a name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(parts, key, parent, last, AtFlags::empty())?;
            rustix::fs::unlinkat(parts, key, AtFlags::empty())
        }
        done => done,
    }
}

/// The process's umask. Read from /proc, since asking the kernel for it means setting it, for all threads.
fn umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
    Mode::from_raw_mode(bits.unwrap_or(0o022))
}

fn check_key(key: &str) -> Result<(), PublishError> {
    match FileName::parse(key) {
        Ok(_) if !key.contains('/') => Ok(()),
        _ => Err(PublishError::BadKey { key: key.to_owned() }),
    }
}

fn io_error(path: PathBuf, source: Errno) -> PublishError {
    PublishError::Io { path, source: io::Error::from(source) }
}

/// Why a part or a download could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name is taken.
    #[error("there is already something named {name} in the share")]
    Exists {
        /// The name.
        name: FileName,
    },
    /// There is no such part.
    #[error("there is no unfinished file {key:?}")]
    NoPart {
        /// Its key.
        key: String,
    },
    /// The key is not one component of a name.
    #[error("{key:?} cannot name an unfinished file")]
    BadKey {
        /// The key.
        key: String,
    },
    /// The share is not available now; it may be later.
    #[error("the share {share:?} is not available: {reason}")]
    Unavailable {
        /// The share.
        share: String,
        /// Why.
        reason: String,
    },
    /// What was written may not all be on the disk.
    #[error("{}: the disk did not take all of it: {source}", path.display())]
    Unflushed {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was handled.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
