//! Whether this program can use a directory as a share: looked at by trying, from where the program stands. Modes, access
//! lists and a sandbox all count, and only the kernel knows them all.

use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::root::{Links, Root};

/// Why a directory cannot be a share, or not one for downloads.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// There is nothing of that name, as far as the program can see.
    #[error("there is no such directory, as far as p2pd can see")]
    NotThere,
    /// It is something else.
    #[error("it is not a directory")]
    NotADirectory,
    /// It, or a directory on the way to it, is closed to the program's user.
    #[error("p2pd may not read it: permission denied")]
    Unreadable,
    /// Nothing can be written there by anyone.
    #[error("it is mounted read-only where p2pd sees it")]
    ReadOnly,
    /// The program's user may not make files in it.
    #[error("p2pd may not write in it: permission denied")]
    NotWritable,
    /// The system says something else.
    #[error("it cannot be used: {0}")]
    Other(io::Error),
}

/// Opens the directory and begins to list it; where `writes`, makes a file in it that never has a name. Blocking.
pub(super) fn try_out(path: &Path, links: Links, writes: bool) -> Result<(), Unfit> {
    let root = Root::open(path, links).map_err(|error| reading(&error))?;
    root.is_empty().map_err(|error| reading(&error))?;
    if writes {
        write_in(&root).map_err(writing)?;
    }
    Ok(())
}

impl Unfit {
    /// The code by which other programs know it.
    pub fn code(&self) -> &'static str {
        match self {
            Unfit::NotThere => "share-not-there",
            Unfit::NotADirectory => "share-not-a-directory",
            Unfit::Unreadable => "share-unreadable",
            Unfit::ReadOnly => "share-read-only",
            Unfit::NotWritable => "share-not-writable",
            Unfit::Other(_) => "share-unusable",
        }
    }
}

/// How many inotify watches this process holds. The kernel lists them with each descriptor.
pub(super) fn watches_held() -> u64 {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let texts =
        descriptors.flatten().filter_map(|descriptor| std::fs::read_to_string(descriptor.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count() as u64).sum()
}

/// How many directories are in this one, itself included, as far as they can be counted until `deadline`. Blocking.
pub(super) fn directories_in(path: &Path, deadline: Instant) -> u64 {
    let mut count = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(directory) = waiting.pop() {
        count += 1;
        if Instant::now() > deadline {
            break;
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let inner = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(inner.map(|entry| entry.path()));
    }
    count + waiting.len() as u64
}

fn write_in(root: &Root) -> Result<(), Errno> {
    rustix::fs::accessat(root.handle(), ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(root.handle(), ".", flags, Mode::RUSR | Mode::WUSR) {
        // File systems without files that have no name: the answer above is all there is.
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn reading(error: &io::Error) -> Unfit {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => Unfit::NotThere,
        Some(Errno::NOTDIR | Errno::LOOP) => Unfit::NotADirectory,
        Some(Errno::ACCESS | Errno::PERM) => Unfit::Unreadable,
        _ => Unfit::Other(io::Error::new(error.kind(), error.to_string())),
    }
}

fn writing(error: Errno) -> Unfit {
    match error {
        Errno::ROFS => Unfit::ReadOnly,
        Errno::ACCESS | Errno::PERM => Unfit::NotWritable,
        other => Unfit::Other(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_usable_directory_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        try_out(dir.path(), Links::Follow, true).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let look = |path: &Path, writes| try_out(path, Links::Follow, writes).unwrap_err();
        assert!(matches!(look(&dir.path().join("x"), false), Unfit::NotThere));
        std::fs::write(dir.path().join("f"), "").unwrap();
        assert!(matches!(look(&dir.path().join("f"), false), Unfit::NotADirectory));
    }

    #[test]
    fn what_modes_forbid_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let with_mode = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (unwritable, unreadable) = (with_mode("unwritable", 0o555), with_mode("unreadable", 0o000));
        as_nobody(move || {
            let look = |path: &Path, writes| try_out(path, Links::Follow, writes);
            look(&unwritable, false).unwrap();
            assert!(matches!(look(&unwritable, true).unwrap_err(), Unfit::NotWritable));
            assert!(matches!(look(&unreadable, false).unwrap_err(), Unfit::Unreadable));
        });
    }

    /// Modes keep nobody out who is root: then a thread of its own steps down.
    fn as_nobody(check: impl FnOnce() + Send + 'static) {
        let nobody = rustix::process::Uid::from_raw(65_534);
        let thread = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_uid(nobody).unwrap();
            }
            check();
        });
        thread.join().unwrap();
    }

    #[test]
    fn directories_are_counted_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/f"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let soon = Instant::now() + std::time::Duration::from_secs(20);
        assert_eq!(directories_in(dir.path(), soon), 3);
    }

    #[test]
    fn each_errno_has_its_meaning() {
        let read = |errno: Errno| reading(&errno.into());
        assert!(matches!(read(Errno::ACCESS), Unfit::Unreadable));
        assert!(matches!(read(Errno::LOOP), Unfit::NotADirectory));
        assert!(matches!(read(Errno::IO), Unfit::Other(_)));
        assert!(matches!(writing(Errno::ROFS), Unfit::ReadOnly));
        assert!(matches!(writing(Errno::ACCESS), Unfit::NotWritable));
        assert!(matches!(writing(Errno::NOSPC), Unfit::Other(_)));
    }
}
