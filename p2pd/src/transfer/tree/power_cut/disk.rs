//! A disk that is played. The real directory is what the kernel shows; beside it stands what is safe: the bytes of files that
//! were flushed, and the names in directories that were. A cut leaves that, and of what was done since what luck chose.
//!
//! As on the file systems that Linux has, a rename is one step, which the flush of the new directory makes safe, and a new
//! file that is flushed has its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::shares::{Flush, PlayedDisk};
use crate::transfer::sink::power_cut::{left_of, put, tear_log};

/// What is below a directory; what names lead to is known by its inode.
#[derive(Clone, Default)]
struct Tree {
    names: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    bytes: HashMap<u64, Vec<u8>>,
}

impl Tree {
    fn of(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.add(root, Path::new(""));
        tree
    }

    fn add(&mut self, root: &Path, below: &Path) {
        for entry in fs::read_dir(root.join(below)).unwrap().map(Result::unwrap) {
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.add(root, &path);
                self.directories.insert(path);
            } else {
                self.bytes.insert(entry.ino(), fs::read(entry.path()).unwrap());
                self.names.insert(path, entry.ino());
            }
        }
    }

    /// Whether all directories are there that this path leads through.
    fn leads_to(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|above| above == Path::new("") || self.directories.contains(above))
    }

    /// The file has this name, and no other.
    fn rename(&mut self, inode: u64, path: &Path) {
        self.names.retain(|_, other| *other != inode);
        self.names.insert(path.to_owned(), inode);
    }
}

fn is_in(path: &Path, directory: &Path) -> bool {
    path.parent() == Some(directory)
}

/// All that there is at some moment.
pub(super) struct Moment {
    safe: Tree,
    seen: Tree,
    databases: TempDir,
}

/// The disk.
pub(super) struct Played {
    root: PathBuf,
    /// Kept beside it, on real files with logs.
    databases: Vec<PathBuf>,
    state: Mutex<State>,
}

struct State {
    safe: Tree,
    /// Flushes until the power is cut in the middle of one; `None`: it is cut between two steps.
    flushes_left: Option<u32>,
    /// What there was when it was cut in the middle of one.
    caught: Option<Moment>,
}

impl Played {
    /// What is there is safe.
    pub(super) fn new(root: &Path, databases: &[PathBuf], flushes_left: Option<u32>) -> Arc<Played> {
        let state = State { safe: Tree::of(root), flushes_left, caught: None };
        Arc::new(Played { root: root.to_owned(), databases: databases.to_vec(), state: Mutex::new(state) })
    }

    pub(super) fn disk(self: &Arc<Self>) -> PlayedDisk {
        let played = Arc::clone(self);
        PlayedDisk::played(move |what, handle| {
            played.flush(what, handle);
            Ok(())
        })
    }

    /// The flush of an open file.
    pub(super) fn flush_file(&self, file: &File) {
        self.flush(Flush::One, file.as_fd());
    }

    /// While it lasts, nothing more than before is safe.
    fn flush(&self, what: Flush, handle: BorrowedFd<'_>) {
        let at = fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).unwrap();
        let path = at.strip_prefix(&self.root).unwrap();
        let seen = Tree::of(&self.root);
        let state = &mut *self.lock();
        match &mut state.flushes_left {
            Some(0) if state.caught.is_none() => {
                let (safe, seen) = (state.safe.clone(), seen.clone());
                state.caught = Some(Moment { safe, seen, databases: self.copied() });
            }
            Some(left) => *left = left.saturating_sub(1),
            None => {}
        }
        let safe = &mut state.safe;
        match what {
            Flush::All => *safe = seen,
            Flush::One if at.is_dir() => {
                safe.names.retain(|name, inode| !is_in(name, path) || seen.names.get(name) == Some(inode));
                for (name, inode) in seen.names.iter().filter(|(name, _)| is_in(name, path)) {
                    safe.rename(*inode, name);
                    // Its length is with its name.
                    safe.bytes.entry(*inode).or_insert_with(|| vec![0; seen.bytes[inode].len()]);
                }
                safe.directories.extend(seen.directories.iter().filter(|below| is_in(below, path)).cloned());
            }
            Flush::One => {
                let inode = seen.names[path];
                safe.bytes.insert(inode, seen.bytes[&inode].clone());
                if !safe.names.values().any(|known| *known == inode) {
                    safe.rename(inode, path);
                    let above = path.ancestors().skip(1).filter(|above| *above != Path::new(""));
                    safe.directories.extend(above.map(Path::to_owned));
                }
            }
        }
    }

    /// Whether the power was cut already.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().caught.is_some()
    }

    /// What there was when it was, or is now.
    pub(super) fn cut(&self) -> Moment {
        let mut state = self.lock();
        let safe = state.safe.clone();
        let now = || Moment { safe, seen: Tree::of(&self.root), databases: self.copied() };
        state.caught.take().unwrap_or_else(now)
    }

    /// Puts in its place what luck leaves of a moment.
    pub(super) fn leave(&self, moment: Moment, random: &mut StdRng) {
        for entry in fs::read_dir(&self.root).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => fs::remove_dir_all(entry.path()).unwrap(),
                false => fs::remove_file(entry.path()).unwrap(),
            }
        }
        let Moment { safe, seen, databases } = moment;
        let left = left_names(&safe, &seen, random);
        for directory in &left.directories {
            fs::create_dir_all(self.root.join(directory)).unwrap();
        }
        for (path, inode) in &left.names {
            let before = safe.bytes.get(inode).cloned().unwrap_or_default();
            let after = seen.bytes.get(inode).unwrap_or(&before);
            put(&self.root.join(path), &left_bytes(&before, after, random));
        }
        for database in &self.databases {
            for path in with_log(database) {
                let _ = fs::remove_file(&path);
                let _ = fs::copy(databases.path().join(path.file_name().unwrap()), path);
            }
            let _ = fs::remove_file(beside(database, "-shm"));
            tear_log(&beside(database, "-wal"), random);
        }
    }

    fn copied(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for path in self.databases.iter().flat_map(|database| with_log(database)).filter(|path| path.exists())
        {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        copy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn with_log(database: &Path) -> [PathBuf; 2] {
    [database.to_owned(), beside(database, "-wal")]
}

/// The names that a cut leaves.
fn left_names(safe: &Tree, seen: &Tree, random: &mut StdRng) -> Tree {
    let luck = [0.0, 0.5, 0.9, 1.0][random.random_range(0..4_usize)];
    let mut left = Tree { names: safe.names.clone(), directories: BTreeSet::new(), bytes: HashMap::new() };
    // Those above come first.
    for directory in safe.directories.union(&seen.directories) {
        let is_left = safe.directories.contains(directory) || random.random_bool(luck);
        if is_left && left.leads_to(directory) {
            left.directories.insert(directory.clone());
        }
    }
    for (path, inode) in &seen.names {
        let is_new = safe.names.get(path) != Some(inode);
        if is_new && left.leads_to(path) && random.random_bool(luck) {
            left.rename(*inode, path);
        }
    }
    let removed = safe.names.iter().filter(|(_, inode)| !seen.names.values().any(|there| there == *inode));
    for (path, _) in removed {
        if random.random_bool(luck) {
            left.names.remove(path);
        }
    }
    // With a directory that is lost goes what was in it.
    let there = left.clone();
    left.names.retain(|path, _| there.leads_to(path));
    left
}

/// The bytes that a cut leaves of a file.
fn left_bytes(before: &[u8], after: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut padded = before.to_vec();
    padded.resize(after.len(), 0);
    let mut left = left_of(&padded, after, random);
    if before.len() < after.len() && random.random_bool(0.5) {
        left.truncate(random.random_range(before.len()..=after.len()));
    }
    left
}
