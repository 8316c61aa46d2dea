//! What the kernel tells of a share's directories, as hints at where to look.

use p2p_content::{FileName, NameError};
use rustix::fs::inotify::ReadFlags;

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

/// What an event is about.
pub(super) enum Place {
    Root,
    Named(FileName),
    /// The directory that the program keeps for itself.
    Ignored,
    Unnameable {
        shown: String,
        reason: String,
    },
}

/// What is in this directory under the name `last`; without one, the directory itself.
pub(super) fn place_of(directory: &str, last: Option<&[u8]>) -> Place {
    let name = match (directory, last) {
        ("", None) => return Place::Root,
        (_, None) => directory.as_bytes().to_vec(),
        ("", Some(last)) => last.to_vec(),
        (_, Some(last)) => [directory.as_bytes(), b"/", last].concat(),
    };
    let Ok(name) = std::str::from_utf8(&name) else {
        let shown = String::from_utf8_lossy(&name).into_owned();
        return Place::Unnameable { shown, reason: super::NOT_UTF8.to_owned() };
    };
    match FileName::parse(name) {
        Ok(name) => Place::Named(name),
        Err(NameError::Reserved { .. }) => Place::Ignored,
        Err(error) => Place::Unnameable { shown: name.to_owned(), reason: error.to_string() },
    }
}

/// What the kernel's words about a place come to; nothing where it is nobody's business.
pub(super) fn hint_of(place: Place, what: ReadFlags) -> Option<Hint> {
    let is = |flags| what.intersects(flags);
    let name = match place {
        Place::Named(name) => name.to_string(),
        Place::Root => return Some(Hint::Root),
        Place::Ignored => return None,
        Place::Unnameable { shown, reason } => return Some(Hint::Unnameable { shown, reason }),
    };
    Some(match () {
        () if is(ReadFlags::CREATE) && is(ReadFlags::ISDIR) => Hint::NewDirectory(name),
        () if is(ReadFlags::CREATE) => Hint::Created(name),
        () if is(ReadFlags::CLOSE_WRITE) => Hint::Closed(name),
        () if is(ReadFlags::MODIFY) => Hint::Written(name),
        () if is(ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::UNMOUNT) => Hint::Left(name),
        () if is(ReadFlags::MOVED_TO) => Hint::Arrived(name),
        () => Hint::Touched(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_hints() {
        let hint =
            |what, directory, last: Option<&str>| hint_of(place_of(directory, last.map(str::as_bytes)), what);
        let a = || "a".to_owned();
        assert_eq!(hint(ReadFlags::CREATE, "", Some("a")), Some(Hint::Created(a())));
        let directory = ReadFlags::CREATE | ReadFlags::ISDIR;
        assert_eq!(hint(directory, "d", Some("a")), Some(Hint::NewDirectory("d/a".to_owned())));
        assert_eq!(hint(ReadFlags::MODIFY, "", Some("a")), Some(Hint::Written(a())));
        assert_eq!(hint(ReadFlags::CLOSE_WRITE, "", Some("a")), Some(Hint::Closed(a())));
        assert_eq!(hint(ReadFlags::MOVED_FROM, "", Some("a")), Some(Hint::Left(a())));
        assert_eq!(hint(ReadFlags::DELETE, "", Some("a")), Some(Hint::Left(a())));
        assert_eq!(hint(ReadFlags::MOVED_TO, "", Some("a")), Some(Hint::Arrived(a())));
        assert_eq!(hint(ReadFlags::ATTRIB, "", Some("a")), Some(Hint::Touched(a())));
        assert_eq!(hint(ReadFlags::UNMOUNT, "a", None), Some(Hint::Left(a())));
        assert_eq!(hint(directory, "", Some(".p2p-partial")), None);
        assert_eq!(hint(ReadFlags::MOVE_SELF, "", None), Some(Hint::Root));
        let unnameable = hint(ReadFlags::CREATE, "", Some("a\nb"));
        assert!(matches!(unnameable, Some(Hint::Unnameable { .. })), "{unnameable:?}");
        let no_utf8 = hint_of(place_of("d", Some(b"\xff")), ReadFlags::CREATE);
        assert!(matches!(no_utf8, Some(Hint::Unnameable { shown, .. }) if shown == "d/\u{fffd}"));
    }
}
