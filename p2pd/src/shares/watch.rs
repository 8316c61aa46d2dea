//! Being told by the kernel of what happens in a share's directories.
//!
//! Each directory is watched by itself, by whoever scans it and before it reads it: so nothing falls between the watch
//! and the scan. What is told is only ever a hint at where to look.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, EventKindMask, INotifyWatcher, RecursiveMode, Watcher};
use p2p_content::{FileName, NameError};
use tokio::sync::mpsc;

/// What the kernel is asked to tell. Not what is opened: whoever reads does that, the program itself before all others, and
/// each time would wake a thread and take a place in the kernel's queue.
const TOLD: EventKindMask = EventKindMask::CORE.union(EventKindMask::ACCESS_CLOSE);

/// What happened, and where. Names are relative to the share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// A file, a link or the like appeared.
    Created(String),
    /// A directory appeared.
    NewDirectory(String),
    /// A file was written to.
    Written(String),
    /// A file that was open for writing was closed.
    Closed(String),
    /// Times, mode or the like of something changed.
    Touched(String),
    /// A name is gone.
    Left(String),
    /// A name appeared by a rename.
    Arrived(String),
    /// A name became another one.
    Renamed { from: String, to: String },
    /// Something happened to the share's own directory.
    Root,
    /// Something has a name that no file in the network can have.
    Unnameable { shown: String, reason: String },
}

impl Hint {
    /// The name that it has looked at.
    pub(super) fn to_look_at(&self) -> Option<&str> {
        match self {
            Hint::Created(name)
            | Hint::Written(name)
            | Hint::Closed(name)
            | Hint::Touched(name)
            | Hint::Left(name)
            | Hint::Arrived(name)
            | Hint::Renamed { to: name, .. } => Some(name),
            Hint::NewDirectory(_) | Hint::Root | Hint::Unnameable { .. } => None,
        }
    }
}

/// A hint, and which life of which share it is about.
pub(super) type Hinted = (u64, Hint);

/// The watches on one share's directories. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    watcher: Mutex<Option<INotifyWatcher>>,
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

impl Watch {
    /// Watches nothing yet. Hints about the share's life `id` go to `hints`; those that find it full are lost.
    pub(super) fn new(root: &Path, id: u64, hints: mpsc::Sender<Hinted>) -> Watch {
        let state = Arc::new(State::default());
        let (told, base) = (Arc::clone(&state), root.to_owned());
        // It must never wait: who sets a watch waits for the thread that this runs on.
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) => {
                let is_lost = event.need_rescan()
                    || hints_of(&base, event).into_iter().any(|hint| hints.try_send((id, hint)).is_err());
                if is_lost {
                    told.lost_hints.store(true, Ordering::Relaxed);
                    // Only to wake the receiver; it's awake anyway if there is no room.
                    let _ = hints.try_send((id, Hint::Root));
                }
            }
            Err(error) => {
                let path = base.display();
                tracing::warn!(%path, %error, "watching {path} for changes failed, scanning instead: {error}");
                told.lost_hints.store(true, Ordering::Relaxed);
            }
        };
        let config = notify::Config::default().with_event_kinds(TOLD);
        let watcher = match INotifyWatcher::new(handler, config) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                say_short(root, &error);
                state.is_short.store(true, Ordering::Relaxed);
                None
            }
        };
        Watch { root: root.to_owned(), watcher: Mutex::new(watcher), state }
    }

    /// Watches the directory `name` (empty: the share's own). Blocking, shortly. Where it can't be watched for want of
    /// watches, [`is_short`](Watch::is_short) says so from then on.
    pub(super) fn add(&self, name: &str) {
        if self.is_short() {
            return;
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watcher) = watcher.as_mut() else { return };
        let path = if name.is_empty() { self.root.clone() } else { self.root.join(name) };
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                self.state.is_short.store(true, Ordering::Relaxed);
                if !self.state.is_said.swap(true, Ordering::Relaxed) {
                    say_short(&self.root, &error);
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
        let has_watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_watcher {
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

fn say_short(root: &Path, error: &notify::Error) {
    let path = root.display();
    tracing::error!(
        %path,
        %error,
        "the system's limit of watches is reached at {path}: changes are found by scanning, which is slower; raise it with \
         `sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024` (lasting: a file in /etc/sysctl.d)"
    );
}

fn hints_of(root: &Path, event: Event) -> Vec<Hint> {
    let mut names = event.paths.iter().map(|path| name_in(root, path));
    let Some(first) = names.next() else { return Vec::new() };
    let name = match first {
        Place::Named(name) => name,
        Place::Root => return vec![Hint::Root],
        Place::Ignored => return Vec::new(),
        Place::Unnameable { shown, reason } => return vec![Hint::Unnameable { shown, reason }],
    };
    let hint = match event.kind {
        EventKind::Create(CreateKind::Folder) => Hint::NewDirectory(name),
        EventKind::Create(_) => Hint::Created(name),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Hint::Closed(name),
        EventKind::Modify(ModifyKind::Data(_)) => Hint::Written(name),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Hint::Left(name),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Hint::Arrived(name),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => match names.next() {
            Some(Place::Named(to)) => Hint::Renamed { from: name, to },
            _ => Hint::Left(name),
        },
        EventKind::Access(_) => return Vec::new(),
        _ => Hint::Touched(name),
    };
    vec![hint]
}

enum Place {
    Root,
    Named(String),
    /// The directory that the program keeps for itself.
    Ignored,
    Unnameable {
        shown: String,
        reason: String,
    },
}

fn name_in(root: &Path, path: &Path) -> Place {
    let Ok(relative) = path.strip_prefix(root) else { return Place::Ignored };
    if relative.as_os_str().is_empty() {
        return Place::Root;
    }
    let Some(name) = relative.to_str() else {
        return Place::Unnameable {
            shown: relative.to_string_lossy().into_owned(),
            reason: super::NOT_UTF8.to_owned(),
        };
    };
    match FileName::parse(name) {
        Ok(_) => Place::Named(name.to_owned()),
        Err(NameError::Reserved { .. }) => Place::Ignored,
        Err(error) => Place::Unnameable { shown: name.to_owned(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::inotify::WatchFlags;

    use super::*;

    /// What the kernel tells of this directory: the mask of its watch (man 5 proc, `fdinfo`).
    fn told_of(dir: &Path) -> u32 {
        let of_dir = format!("ino:{:x} ", dir.metadata().unwrap().ino());
        let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(Result::ok);
        let infos = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok());
        let watches = infos.flat_map(|info| info.lines().map(str::to_owned).collect::<Vec<_>>());
        let watch = watches.filter(|line| line.starts_with("inotify ")).find(|line| line.contains(&of_dir));
        let mask = watch.unwrap().split_once("mask:").unwrap().1.split(' ').next().unwrap().to_owned();
        u32::from_str_radix(&mask, 16).unwrap()
    }

    #[test]
    fn what_is_only_read_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path(), 1, mpsc::channel(1).0);
        watch.add("");
        let told = WatchFlags::from_bits_retain(told_of(dir.path()));
        let reading = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let files = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        assert!(told.contains(names | files | own) && !told.intersects(reading), "{told:?}");
    }

    #[test]
    fn events_become_hints() {
        let root = Path::new("/srv/s");
        let hint = |kind, paths: &[&str]| {
            hints_of(root, paths.iter().fold(Event::new(kind), |e, p| e.add_path(PathBuf::from(p)))).pop()
        };
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let a = || "a".to_owned();
        assert_eq!(hint(EventKind::Create(CreateKind::File), &["/srv/s/a"]), Some(Hint::Created(a())));
        assert_eq!(hint(EventKind::Create(CreateKind::Folder), &["/srv/s/a"]), Some(Hint::NewDirectory(a())));
        assert_eq!(hint(name(RenameMode::From), &["/srv/s/a"]), Some(Hint::Left(a())));
        let both = Hint::Renamed { from: a(), to: "d/b".to_owned() };
        assert_eq!(hint(name(RenameMode::Both), &["/srv/s/a", "/srv/s/d/b"]), Some(both));
        assert_eq!(hint(EventKind::Access(AccessKind::Open(AccessMode::Any)), &["/srv/s/a"]), None);
        assert_eq!(hint(EventKind::Create(CreateKind::Folder), &["/srv/s/.p2p-partial"]), None);
        assert_eq!(hint(name(RenameMode::From), &["/srv/s"]), Some(Hint::Root));
        let unnameable = hint(EventKind::Create(CreateKind::File), &["/srv/s/a\nb"]);
        assert!(matches!(unnameable, Some(Hint::Unnameable { .. })), "{unnameable:?}");
    }
}
