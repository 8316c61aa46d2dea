//! Being told by the kernel of what happens in a share's directories.
//!
//! Each directory is watched by itself, by whoever scans it and before it reads it: so nothing falls between the watch
//! and the scan. What is told is only ever a hint at where to look. How inotify tells it is in man 7 inotify.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::io::{PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use p2p_content::FileName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::hint::{Hint, Hinted, Place, hint_of, place_of};
use super::look::{below, past};

/// What the kernel is asked to tell. Not what is opened: whoever reads does that, the program itself before all others, and
/// each time would wake the program and take a place in the kernel's queue.
const TOLD: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);
/// The same of the share's own directory: of the others their parents tell that they go.
const TOLD_OF_ROOT: WatchFlags = TOLD.union(WatchFlags::DELETE_SELF).union(WatchFlags::MOVE_SELF);
/// Bytes of events that are read at once, some hundreds of them.
const READ_LEN: usize = 16 << 10;

/// The watches on one share's directories. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    /// What is watched, and what ends the listening when it is closed.
    watched: Option<(Arc<Watched>, PipeWriter)>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Hints were lost: only a full scan tells what happened.
    lost_hints: AtomicBool,
    /// Not every directory is watched.
    is_short: AtomicBool,
    /// That was said.
    is_said: AtomicBool,
}

/// The kernel's side of it.
#[derive(Debug)]
struct Watched {
    fd: OwnedFd,
    directories: Mutex<Directories>,
}

/// The directories that are watched, by the number that the kernel has for each and by their names; one that was renamed
/// has the name under which it was last watched.
#[derive(Debug, Default)]
struct Directories {
    names: HashMap<i32, String>,
    numbers: BTreeMap<String, i32>,
}

impl Directories {
    fn insert(&mut self, number: i32, name: &str) {
        if let Some(before) = self.names.insert(number, name.to_owned()) {
            self.forget_name(&before, number);
        }
        self.numbers.insert(name.to_owned(), number);
    }

    /// The kernel no longer watches it.
    fn remove(&mut self, number: i32) {
        if let Some(name) = self.names.remove(&number) {
            self.forget_name(&name, number);
        }
    }

    /// Forgets the directory and all below it. Their numbers.
    fn remove_tree(&mut self, name: &FileName) -> Vec<i32> {
        let under = self.numbers.range(below(name)..past(name)).map(|(_, number)| *number);
        let numbers: Vec<_> = self.numbers.get(name.as_str()).copied().into_iter().chain(under).collect();
        numbers.iter().for_each(|number| self.remove(*number));
        numbers
    }

    /// Another directory may have the name by now.
    fn forget_name(&mut self, name: &str, number: i32) {
        if self.numbers.get(name) == Some(&number) {
            self.numbers.remove(name);
        }
    }
}

impl Watched {
    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &Path, name: &str) -> Result<(), Errno> {
        let told = if name.is_empty() { TOLD_OF_ROOT } else { TOLD };
        // Held meanwhile: what the kernel tells of it at once is to find its name.
        let mut directories = self.directories();
        let number = inotify::add_watch(&self.fd, path, told)?;
        directories.insert(number, name);
        Ok(())
    }

    /// A directory has left its name: it may be anywhere, and is watched again by who finds it in the share.
    fn forget_tree(&self, name: &FileName) {
        // Held meanwhile: who finds it under its new name is to get a new watch, not the one that is about to go.
        let mut directories = self.directories();
        for number in directories.remove_tree(name) {
            // The kernel may have done so by itself.
            let _ = inotify::remove_watch(&self.fd, number);
        }
    }
}

impl Watch {
    /// Watches nothing yet. Hints about the share's life `id` go to `hints`; those that find it full are lost.
    pub(super) fn new(root: &Path, id: u64, hints: mpsc::Sender<Hinted>) -> Watch {
        let state = Arc::new(State::default());
        let watched = listen(root, id, hints, &state).inspect_err(|error| say_short(root, error)).ok();
        state.is_short.store(watched.is_none(), Ordering::Relaxed);
        Watch { root: root.to_owned(), watched, state }
    }

    /// Watches the directory `name` (empty: the share's own). Where it can't be watched for want of watches,
    /// [`is_short`](Watch::is_short) says so from then on.
    pub(super) fn add(&self, name: &str) {
        if self.is_short() {
            return;
        }
        let Some((watched, _)) = &self.watched else { return };
        let path = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        match watched.add(&path, name) {
            Ok(()) => {}
            Err(error @ Errno::NOSPC) => {
                self.state.is_short.store(true, Ordering::Relaxed);
                if !self.state.is_said.swap(true, Ordering::Relaxed) {
                    say_short(&self.root, &error.into());
                }
            }
            // It's gone, or closed to us: the scan is about to find that out.
            Err(error) => {
                let path = path.display();
                tracing::debug!(%path, %error, "the directory {path} cannot be watched: {error}");
            }
        }
    }

    /// Lets [`add`](Watch::add) try again where there were no more watches to be had: a scan of everything begins.
    pub(super) fn try_again(&self) {
        if self.watched.is_some() {
            self.state.is_short.store(false, Ordering::Relaxed);
        }
    }

    /// Whether not every directory is watched.
    pub(super) fn is_short(&self) -> bool {
        self.state.is_short.load(Ordering::Relaxed)
    }

    /// Whether hints were lost since this was last asked.
    pub(super) fn take_lost_hints(&self) -> bool {
        self.state.lost_hints.swap(false, Ordering::Relaxed)
    }
}

/// Starts a thread that listens.
fn listen(
    root: &Path,
    id: u64,
    hints: mpsc::Sender<Hinted>,
    state: &Arc<State>,
) -> std::io::Result<(Arc<Watched>, PipeWriter)> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let watched = Arc::new(Watched { fd, directories: Mutex::default() });
    let (stop, stopper) = std::io::pipe()?;
    let (root, state, at) = (root.to_owned(), Arc::clone(state), Arc::clone(&watched));
    let listener = Listener { root, id, hints, state, watched: at, left: None };
    thread::Builder::new().name("share-watch".to_owned()).spawn(move || listener.listen(&stop))?;
    Ok((watched, stopper))
}

fn say_short(root: &Path, error: &std::io::Error) {
    let path = root.display();
    tracing::error!(
        %path,
        %error,
        "the system's limit of watches is reached at {path}: changes are found by scanning, which is slower; raise it with \
         `sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024` (lasting: a file in /etc/sysctl.d)"
    );
}

/// Hears what the kernel tells, and makes hints of it.
struct Listener {
    root: PathBuf,
    id: u64,
    hints: mpsc::Sender<Hinted>,
    state: Arc<State>,
    watched: Arc<Watched>,
    /// What left its name last; where it arrives at another one, it is told under the same number.
    left: Option<(u32, String)>,
}

impl Listener {
    /// Until the other end of `stop` is closed.
    fn listen(mut self, stop: &PipeReader) {
        if let Err(error) = self.hear_until(stop) {
            let path = self.root.display();
            tracing::warn!(%path, %error, "watching {path} for changes failed, scanning instead: {error}");
            self.lose();
        }
    }

    fn hear_until(&mut self, stop: &PipeReader) -> Result<(), Errno> {
        let watched = Arc::clone(&self.watched);
        let mut buffer = [MaybeUninit::uninit(); READ_LEN];
        let mut events = Reader::new(&watched.fd, &mut buffer);
        loop {
            let mut ready = [PollFd::new(&watched.fd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) if !ready[1].revents().is_empty() => return Ok(()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            loop {
                match events.next() {
                    Ok(event) => self.hear(event.wd(), event.events(), event.cookie(), event.file_name()),
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    Err(error) => return Err(error),
                }
                if events.is_buffer_empty() {
                    break;
                }
            }
        }
    }

    fn hear(&mut self, number: i32, what: ReadFlags, cookie: u32, last: Option<&CStr>) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.lose();
        }
        if what.contains(ReadFlags::IGNORED) {
            return self.watched.directories().remove(number);
        }
        // One that is forgotten: this was told before.
        let Some(directory) = self.watched.directories().names.get(&number).cloned() else { return };
        let place = place_of(&directory, last.map(CStr::to_bytes));
        let mut renamed = None;
        if let Place::Named(name) = &place {
            if what.contains(ReadFlags::MOVED_FROM | ReadFlags::ISDIR) {
                self.watched.forget_tree(name);
            }
            if what.contains(ReadFlags::MOVED_FROM) {
                self.left = Some((cookie, name.to_string()));
            } else if what.contains(ReadFlags::MOVED_TO) {
                let left = self.left.take_if(|(number, _)| *number == cookie);
                renamed = left.map(|(_, from)| Hint::Renamed { from, to: name.to_string() });
            }
        }
        hint_of(place, what).into_iter().chain(renamed).for_each(|hint| self.tell(hint));
    }

    fn tell(&self, hint: Hint) {
        if self.hints.try_send((self.id, hint)).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.state.lost_hints.store(true, Ordering::Relaxed);
        // Only to wake the receiver; it's awake anyway if there is no room.
        let _ = self.hints.try_send((self.id, Hint::Root));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// What the kernel tells of this directory: the mask of its watch (man 5 proc, `fdinfo`).
    fn told_of(dir: &Path) -> WatchFlags {
        let of_dir = format!("ino:{:x} ", dir.metadata().unwrap().ino());
        let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(Result::ok);
        let infos = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok());
        let watches = infos.flat_map(|info| info.lines().map(str::to_owned).collect::<Vec<_>>());
        let watch = watches.filter(|line| line.starts_with("inotify ")).find(|line| line.contains(&of_dir));
        let mask = watch.unwrap().split_once("mask:").unwrap().1.split(' ').next().unwrap().to_owned();
        WatchFlags::from_bits_retain(u32::from_str_radix(&mask, 16).unwrap())
    }

    /// A directory with these in it, all watched, and what is told of them.
    fn watched(directories: &[&str]) -> (tempfile::TempDir, Watch, mpsc::Receiver<Hinted>) {
        let dir = tempfile::tempdir().unwrap();
        let (sender, hints) = mpsc::channel(64);
        let watch = Watch::new(dir.path(), 1, sender);
        watch.add("");
        for name in directories {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            watch.add(name);
        }
        (dir, watch, hints)
    }

    async fn wait_for(hints: &mut mpsc::Receiver<Hinted>, awaited: Hint) {
        let coming = async { while hints.recv().await.unwrap().1 != awaited {} };
        timeout(Duration::from_secs(20), coming).await.unwrap_or_else(|_| panic!("{awaited:?} was not told"));
    }

    fn names(watch: &Watch) -> Vec<String> {
        let directories = watch.watched.as_ref().unwrap().0.directories();
        assert_eq!(directories.names.len(), directories.numbers.len());
        directories.numbers.keys().cloned().collect()
    }

    #[tokio::test]
    async fn what_is_only_read_is_not_told() {
        let (dir, _watch, _hints) = watched(&["a"]);
        let reading = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let files = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let (root, below) = (told_of(dir.path()), told_of(&dir.path().join("a")));
        assert!(root.contains(names | files | own) && !root.intersects(reading), "{root:?}");
        assert!(below.contains(names | files) && !below.intersects(reading | own), "{below:?}");
    }

    #[tokio::test]
    async fn a_directory_that_is_renamed_is_watched_under_its_new_name() {
        let (dir, watch, mut hints) = watched(&["a", "a/b", "ab"]);
        std::fs::rename(dir.path().join("a"), dir.path().join("z")).unwrap();
        let renamed = Hint::Renamed { from: "a".to_owned(), to: "z".to_owned() };
        wait_for(&mut hints, renamed).await;
        assert_eq!(names(&watch), ["", "ab"]);
        // As the scan does that follows.
        watch.add("z");
        watch.add("z/b");
        std::fs::write(dir.path().join("z/b/f"), "f").unwrap();
        wait_for(&mut hints, Hint::Closed("z/b/f".to_owned())).await;
        assert_eq!(names(&watch), ["", "ab", "z", "z/b"]);
    }

    #[tokio::test]
    async fn one_that_is_found_under_its_new_name_stays_watched() {
        let (dir, watch, mut hints) = watched(&["a"]);
        std::fs::rename(dir.path().join("a"), dir.path().join("z")).unwrap();
        // Before or after it is told that the old one is gone.
        watch.add("z");
        std::fs::write(dir.path().join("z/f"), "f").unwrap();
        wait_for(&mut hints, Hint::Closed("z/f".to_owned())).await;
        assert_eq!(names(&watch), ["", "z"]);
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten_and_its_name_can_be_anothers() {
        let (dir, watch, mut hints) = watched(&["a", "a/b"]);
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        watch.add("a");
        std::fs::write(dir.path().join("a/f"), "f").unwrap();
        wait_for(&mut hints, Hint::Closed("a/f".to_owned())).await;
        assert_eq!(names(&watch), ["", "a"]);
        std::fs::remove_dir_all(dir.path()).unwrap();
        wait_for(&mut hints, Hint::Root).await;
    }

    #[test]
    fn a_tree_is_the_directory_and_what_is_below_it() {
        let mut directories = Directories::default();
        for (number, name) in ["", "a", "a-b", "a/b", "a/b/c", "ab"].into_iter().enumerate() {
            directories.insert(i32::try_from(number).unwrap(), name);
        }
        assert_eq!(directories.remove_tree(&FileName::parse("a").unwrap()), [1, 3, 4]);
        assert_eq!(directories.numbers.keys().collect::<Vec<_>>(), ["", "a-b", "ab"]);
        assert!(directories.remove_tree(&FileName::parse("a").unwrap()).is_empty());
    }
}
