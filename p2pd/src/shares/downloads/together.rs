//! Many small files into the downloads at once: written as parts, made durable together, and then given their names.
//!
//! What makes thousands of files slow is waiting for the disk once per file. Here it is waited for once per batch: the
//! whole file system is flushed, then all parts are renamed, then their directories are flushed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use p2p_content::{ContentHash, ContentHasher, FileName, Manifest, PARTIAL_DIR};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::Gid;
use tokio::sync::oneshot;

use super::{
    Disk, DownloadDir, PublishError, check_key, io_error, open_directory, open_parts, rename_to_free,
};
use crate::shares::ShareError;
use crate::shares::root::{Place, Root, is_gone, split};

/// Directories that are flushed one by one; where there are more, the whole file system is.
const FLUSHED_SINGLY: usize = 4;
/// Bytes that are read at once.
const READ_LEN: usize = 128 << 10;

/// The directory of the parts, held open from the first part of a batch until all have their names: an error of the disk
/// in between is then told to who flushes it. All its calls block.
#[derive(Debug)]
pub struct Together {
    share: String,
    root: Root,
    place: Place,
    parts: OwnedFd,
    disk: Disk,
}

/// What is under a name already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Under {
    /// Nothing.
    Nothing,
    /// A file with this content.
    File(Manifest),
    /// Something else: a longer file, a directory, a link, or a file that is being written.
    Other,
}

impl DownloadDir {
    /// Opens the directory of the parts for a batch.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`], [`PublishError::Io`].
    pub fn together(&self) -> Result<Together, PublishError> {
        let (root, place) = self.root()?;
        let parts = open_parts(&root, true).map_err(|error| io_error(place.path.join(PARTIAL_DIR), error))?;
        Ok(Together { share: self.share.clone(), root, place, parts, disk: self.disk.clone() })
    }
}

/// A part that holds a whole file, proven.
#[derive(Debug)]
pub struct ReadyFile {
    /// The part.
    pub key: String,
    /// The name that it is to have.
    pub name: FileName,
    /// What it holds.
    pub content: ContentHash,
    /// The proof of its pieces.
    pub manifest: Manifest,
}

/// What came of parts that were to get their names.
#[derive(Debug)]
pub struct Published {
    /// For each in its order: whether it has its name. [`PublishError::Exists`] where that was taken.
    pub results: Vec<Result<(), PublishError>>,
    /// Resolves when those that have their names are in the catalog, or to why they are not there yet: the next look at
    /// the share finds them then.
    pub adopted: oneshot::Receiver<Result<u64, ShareError>>,
}

impl Together {
    /// The name of the share.
    pub(in crate::shares) fn share(&self) -> &str {
        &self.share
    }

    /// Writes the part `key` anew, with the mode that any new file of the program has: nobody else can enter the
    /// directory that it lies in.
    ///
    /// # Errors
    /// [`PublishError::BadKey`], [`PublishError::Io`].
    pub fn write(&self, key: &str, chunks: &[Bytes]) -> Result<(), PublishError> {
        check_key(key)?;
        let at = |source| PublishError::Io { path: self.place.path.join(PARTIAL_DIR).join(key), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let file = rustix::fs::openat(&self.parts, key, flags, mode);
        let mut file = File::from(file.map_err(|error| at(error.into()))?);
        chunks.iter().try_for_each(|chunk| file.write_all(chunk)).map_err(at)
    }

    /// What the part `key` holds; `None` where there is none, or it is longer than `longest`.
    ///
    /// # Errors
    /// [`PublishError::Io`].
    pub fn read(&self, key: &str, longest: u64) -> Result<Option<Manifest>, PublishError> {
        check_key(key)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.parts, key, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(io::Error::from),
        };
        let held = file.and_then(|file| hashed(File::from(file), longest));
        held.map_err(|source| PublishError::Io { path: self.place.path.join(PARTIAL_DIR).join(key), source })
    }

    /// What is under these names, in their order. Of a file that is no longer than `longest` it is what it holds: that is
    /// hashed as it is read, so that many files take no memory.
    ///
    /// # Errors
    /// [`PublishError::Io`].
    pub fn under<'n>(
        &self,
        names: impl Iterator<Item = &'n FileName>,
        longest: u64,
    ) -> Result<Vec<Under>, PublishError> {
        let mut parents: HashMap<&str, Option<OwnedFd>> = HashMap::new();
        let mut all = Vec::new();
        for name in names {
            let (directories, last) = split(name);
            if !parents.contains_key(directories) {
                let opened = match self.root.directory(directories) {
                    Ok(opened) => Some(opened),
                    Err(error) if is_gone(&error) => None,
                    Err(source) => {
                        return Err(PublishError::Io { path: self.place.path.join(directories), source });
                    }
                };
                // Names come in their order: what was before is not asked for again.
                parents.clear();
                parents.insert(directories, opened);
            }
            let parent = parents.get(directories).and_then(Option::as_ref);
            let is_there = parent.is_some_and(|parent| {
                !matches!(rustix::fs::statat(parent, last, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
            });
            all.push(if is_there { self.look(name, longest) } else { Under::Nothing });
        }
        Ok(all)
    }

    fn look(&self, name: &FileName, longest: u64) -> Under {
        let Ok(Some((file, before))) = self.root.open_file(name) else { return Under::Other };
        match hashed(file, longest) {
            // It counts only if it was the same file before and after.
            Ok(Some(manifest)) => match self.root.open_file(name) {
                Ok(Some((_, after))) if after.same_bytes(&before) => Under::File(manifest),
                _ => Under::Other,
            },
            _ => Under::Other,
        }
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// [`PublishError::Io`]: what was written may be lost, and is to be written anew.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.disk.flush_all(&self.parts).map_err(|error| io_error(self.place.path.join(PARTIAL_DIR), error))
    }

    /// Gives the parts their names, with the directories that these call for; the parts are durable by then: the caller's
    /// duty. When it returns, so are the names that were given. What came of each is in their order: the file as it is
    /// now, or [`PublishError::Exists`] where the name is taken.
    ///
    /// # Errors
    /// [`PublishError::Io`] where the names that were given may not be durable.
    pub(in crate::shares) fn publish(
        &self,
        files: &[ReadyFile],
    ) -> Result<Vec<Result<Stat, PublishError>>, PublishError> {
        // Directory by directory, so that one of them is open at a time, however many there are.
        let directories_of = |at: &usize| files.get(*at).map(|file| split(&file.name).0).unwrap_or_default();
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(directories_of);
        let mut touched = Touched::default();
        let mut results: Vec<_> = files.iter().map(|_| None).collect();
        for near in order.chunk_by(|one, other| directories_of(one) == directories_of(other)) {
            let directories = near.first().map(directories_of).unwrap_or_default();
            let parent = Parent::open(&self.root, directories, &self.parts, &mut touched);
            for at in near {
                let (Some(ReadyFile { key, name, .. }), Some(result)) =
                    (files.get(*at), results.get_mut(*at))
                else {
                    continue;
                };
                let renamed = match &parent {
                    Ok(parent) => parent.take(&self.parts, key, split(name).1),
                    Err(error) => Err(*error),
                };
                *result = Some(renamed.map_err(|source| match source {
                    Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR => {
                        PublishError::Exists { name: name.clone() }
                    }
                    Errno::NOENT => PublishError::NoPart { key: key.clone() },
                    source => io_error(self.place.path.join(name.as_str()), source),
                }));
            }
            if let Ok(parent) = parent {
                touched.add(parent.handle, directories);
            }
        }
        if touched.count > FLUSHED_SINGLY {
            self.flush()?;
        } else {
            for (handle, directories) in &touched.some {
                let at = |source| io_error(self.place.path.join(directories), source);
                self.disk.flush(handle).map_err(at)?;
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

/// The directories in which there are new names, also where what was to be made below them could not be.
#[derive(Default)]
struct Touched {
    count: usize,
    /// As many of them as are flushed one by one.
    some: Vec<(OwnedFd, String)>,
}

impl Touched {
    fn add(&mut self, handle: OwnedFd, directories: &str) {
        self.count += 1;
        if self.some.len() < FLUSHED_SINGLY {
            self.some.push((handle, directories.to_owned()));
        }
    }
}

/// A directory that files get their names in.
struct Parent {
    handle: OwnedFd,
    /// The group that its files have to be given.
    group: Option<Gid>,
}

impl Parent {
    /// Opens it, and makes it where it is not there. Adds those in which a directory was made: they have to be flushed.
    fn open(root: &Root, directories: &str, parts: &OwnedFd, touched: &mut Touched) -> Result<Parent, Errno> {
        let mut handle = open_directory(root.handle(), ".")?;
        for step in directories.split('/').filter(|step| !step.is_empty()) {
            let made = rustix::fs::mkdirat(&handle, step, Mode::RWXU | Mode::RWXG | Mode::RWXO);
            let next = match made {
                Ok(()) | Err(Errno::EXIST) => open_directory(&handle, step),
                Err(error) => Err(error),
            };
            if made.is_ok() {
                touched.add(handle.try_clone().map_err(|_| Errno::MFILE)?, directories);
            }
            handle = next?;
        }
        let (own, there) = (rustix::fs::fstat(parts)?, rustix::fs::fstat(&handle)?);
        let is_setgid = |stat: &rustix::fs::Stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        // A part has the group of its directory where that is setgid, and the program's otherwise.
        let group = is_setgid(&there) && !(is_setgid(&own) && own.st_gid == there.st_gid);
        let group = group.then(|| Gid::from_raw(there.st_gid));
        Ok(Parent { handle, group })
    }

    /// Takes a part in under this name. What it is now.
    fn take(&self, parts: &OwnedFd, key: &str, last: &str) -> Result<Stat, Errno> {
        if self.group.is_some() {
            match rustix::fs::chownat(parts, key, None, self.group, AtFlags::SYMLINK_NOFOLLOW) {
                // A group that this program's user is not in.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        rename_to_free(parts, key, &self.handle, last)?;
        rustix::fs::statat(&self.handle, last, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// What a file holds; `None` where it is none, or longer.
fn hashed(mut file: File, longest: u64) -> io::Result<Option<Manifest>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > longest {
        return Ok(None);
    }
    let (mut hasher, mut buffer) = (ContentHasher::new(), vec![0; READ_LEN]);
    // It may grow meanwhile.
    while hasher.len() <= longest {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish().1)),
            Ok(len) => hasher.update(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
