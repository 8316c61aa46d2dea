//! A share's directory, and everything that is opened in it: step by step from a handle of that directory, so that no
//! name and no symbolic link leads out.
//!
//! The handle is opened for each piece of work and not kept, so that the disk of a share can be unmounted while the
//! daemon runs. Each opening checks that it is still the directory that it was: what is mounted over it, or what shows
//! when its disk is gone, is another one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use p2p_content::FileName;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use crate::catalog::Stamp;

/// Device and inode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// Whether symbolic links on the way to a share's directory are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// The administrator wrote the path, and made the links.
    Follow,
    /// A user gave the path, and may own a directory on the way: a link put there later would have the daemon share what
    /// only it can read.
    Refuse,
}

/// Where a share's directory is, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) links: Links,
    pub(super) identity: Identity,
}

impl Place {
    /// Opens the directory, if it's still the same one.
    pub(super) fn open(&self) -> Result<Root, Lost> {
        let root =
            Root::open(&self.path, self.links).map_err(|source| Lost { path: self.path.clone(), source })?;
        if root.identity != self.identity {
            let source = io::Error::other("another directory is in its place now");
            return Err(Lost { path: self.path.clone(), source });
        }
        Ok(root)
    }
}

/// A share's directory is not there, or not the one that it was.
#[derive(Debug, thiserror::Error)]
#[error("the share's directory {} cannot be used: {source}", path.display())]
pub(super) struct Lost {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// An open handle of a share's directory.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    pub(super) identity: Identity,
}

impl Root {
    /// Opens the directory that is there now.
    pub(super) fn open(path: &Path, links: Links) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match links {
            Links::Follow => rustix::fs::openat(CWD, path, flags, Mode::empty())?,
            Links::Refuse => open_unlinked(path)?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Root { fd, identity: Identity { device: stat.st_dev, inode: stat.st_ino } })
    }

    pub(super) fn handle(&self) -> &OwnedFd {
        &self.fd
    }

    /// Whether nothing at all is in it.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        for entry in Dir::read_from(&self.fd)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The directory that holds `name`, and `name`'s last component.
    pub(super) fn parent_of<'n>(&self, name: &'n FileName) -> io::Result<(OwnedFd, &'n str)> {
        let (directories, last) = split(name);
        Ok((self.descend(directories, OFlags::PATH)?, last))
    }

    /// The directory `name` (empty: this one), open for reading its entries.
    pub(super) fn directory(&self, name: &str) -> io::Result<OwnedFd> {
        self.descend(name, OFlags::RDONLY)
    }

    /// What is at `name`, symbolic links as themselves.
    pub(super) fn stat(&self, name: &FileName) -> io::Result<Stat> {
        let (parent, last) = self.parent_of(name)?;
        stat_in(&parent, last)
    }

    /// Opens the regular file `name` for reading. `None` if something else is there. Never waits for the other end of
    /// a FIFO, and opens no device.
    pub(super) fn open_file(&self, name: &FileName) -> io::Result<Option<(File, Stamp)>> {
        let (parent, last) = self.parent_of(name)?;
        open_file_in(&parent, last)
    }

    fn descend(&self, directories: &str, last_flags: OFlags) -> io::Result<OwnedFd> {
        // One component at a time, without following links: this holds on every kernel, also where openat2 is too new
        // or forbidden. A component is never "..", because names are checked on entry.
        let mut steps = directories.split('/').filter(|step| !step.is_empty()).peekable();
        let through = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = |is_last| through | if is_last { last_flags } else { OFlags::PATH };
        let Some(first) = steps.next() else {
            return Ok(rustix::fs::openat(&self.fd, ".", flags(true), Mode::empty())?);
        };
        let mut at = rustix::fs::openat(&self.fd, first, flags(steps.peek().is_none()), Mode::empty())?;
        while let Some(step) = steps.next() {
            at = rustix::fs::openat(&at, step, flags(steps.peek().is_none()), Mode::empty())?;
        }
        Ok(at)
    }
}

/// Goes through names, of which many are in one directory: the last directory stays open for the next name.
#[derive(Debug)]
pub(super) struct Walk {
    root: Root,
    parent: Option<(String, OwnedFd)>,
}

impl From<Root> for Walk {
    fn from(root: Root) -> Self {
        Self { root, parent: None }
    }
}

impl Walk {
    /// What is at `name`, symbolic links as themselves.
    pub(super) fn stat(&mut self, name: &FileName) -> io::Result<Stat> {
        let (parent, last) = self.parent_of(name)?;
        stat_in(parent, last)
    }

    /// As [`Root::open_file`].
    pub(super) fn open_file(&mut self, name: &FileName) -> io::Result<Option<(File, Stamp)>> {
        let (parent, last) = self.parent_of(name)?;
        open_file_in(parent, last)
    }

    fn parent_of<'n>(&mut self, name: &'n FileName) -> io::Result<(&OwnedFd, &'n str)> {
        let (directories, last) = split(name);
        if self.parent.as_ref().is_none_or(|(open, _)| open != directories) {
            self.parent = Some((directories.to_owned(), self.root.parent_of(name)?.0));
        }
        let (_, parent) = self.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((parent, last))
    }
}

/// The directories in which a file is, and its own name.
pub(super) fn split(name: &FileName) -> (&str, &str) {
    name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()))
}

/// Opens the directory at this absolute path, one component at a time, so that no link is followed.
fn open_unlinked(path: &Path) -> io::Result<OwnedFd> {
    let steps = path.strip_prefix("/").map_err(|_| io::Error::other("the path is not absolute"))?;
    let through = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, "/", through | OFlags::PATH, Mode::empty())?;
    for step in steps.components() {
        let Component::Normal(step) = step else {
            return Err(io::Error::other("the path has a part that is no name"));
        };
        at = rustix::fs::openat(&at, step, through | OFlags::PATH, Mode::empty())?;
    }
    Ok(rustix::fs::openat(&at, ".", through | OFlags::RDONLY, Mode::empty())?)
}

fn open_file_in(parent: &OwnedFd, last: &str) -> io::Result<Option<(File, Stamp)>> {
    if file_type(&stat_in(parent, last)?) != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(parent, last, flags, Mode::empty())?);
    // Asked of what was opened: the name may have been given to something else since.
    let stat = rustix::fs::fstat(&file)?;
    Ok((file_type(&stat) == FileType::RegularFile).then(|| (file, stamp_of(&stat))))
}

/// What is at one component of an open directory, symbolic links as themselves.
pub(super) fn stat_in(parent: &OwnedFd, last: &str) -> io::Result<Stat> {
    Ok(rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(super) fn stamp_of(stat: &Stat) -> Stamp {
    Stamp {
        size: stat.st_size.cast_unsigned(),
        modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
        changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        inode: stat.st_ino,
    }
}

/// What is true of an open file now.
pub(super) fn stamp_of_open(file: &File) -> io::Result<Stamp> {
    let now = file.metadata()?;
    Ok(Stamp {
        size: now.size(),
        modified_ns: nanoseconds(now.mtime(), now.mtime_nsec()),
        changed_ns: nanoseconds(now.ctime(), now.ctime_nsec()),
        inode: now.ino(),
    })
}

/// Whether the error says that nothing of that name can be there: it is gone, or a directory on the way to it is gone,
/// or was replaced by something else.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG))
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_directory_in_its_place_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("share");
        std::fs::create_dir(&path).unwrap();
        let identity = Root::open(&path, Links::Follow).unwrap().identity;
        let place = Place { path: path.clone(), links: Links::Follow, identity };
        assert!(place.open().unwrap().is_empty().unwrap());
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        assert!(place.open().unwrap_err().to_string().contains("share"));
        std::fs::create_dir(&path).unwrap();
        let lost = place.open().unwrap_err();
        assert!(lost.to_string().contains("another directory"), "{lost}");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(dir.path().join("aside"), &path).unwrap();
        place.open().unwrap();
    }
    #[test]
    fn links_on_the_way_are_followed_only_where_the_administrator_made_them() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", real.join("way")).unwrap();
        std::os::unix::fs::symlink("b", real.join("a/last")).unwrap();
        for through in ["way/b", "a/last"] {
            assert!(Root::open(&real.join(through), Links::Follow).is_ok(), "{through}");
            let error = Root::open(&real.join(through), Links::Refuse).unwrap_err();
            assert!(is_gone(&error), "{through}: {error}");
        }
        let direct = Root::open(&real.join("a/b"), Links::Refuse).unwrap();
        assert_eq!(direct.identity, Root::open(&real.join("way/b"), Links::Follow).unwrap().identity);
        assert!(direct.is_empty().unwrap());
    }
}
