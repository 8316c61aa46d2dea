//! Which scans of a share are wanted, and which one runs: pure.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};

use p2p_content::FileName;

use super::look;

/// How many directories may be wanted by themselves; where it is more, the whole share is.
const DIRECTORIES: usize = 8192;

/// Which scans are wanted, and which one runs.
#[derive(Debug, Default)]
pub(super) struct Scans {
    whole: bool,
    /// None of them is below another: the scan of that one sees what is below it.
    directories: BTreeSet<String>,
    pub(super) running: Option<RunningScan>,
}

/// The scan that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunningScan {
    pub(super) is_whole: bool,
    /// Whether a refresh waits for it.
    pub(super) is_awaited: bool,
}

impl Scans {
    /// One of the whole share is wanted, and nothing else.
    pub(super) fn whole() -> Scans {
        Scans { whole: true, ..Scans::default() }
    }

    pub(super) fn want_whole(&mut self) {
        self.whole = true;
        self.directories.clear();
    }

    pub(super) fn want(&mut self, directory: &str) {
        if self.whole || self.is_covered(directory) {
            return;
        }
        let Ok(name) = FileName::parse(directory) else { return };
        let (below, past) = (look::below(&name), look::past(&name));
        let below = (Included(below.as_str()), Excluded(past.as_str()));
        while let Some(other) = self.directories.range::<str, _>(below).next().cloned() {
            self.directories.remove(&other);
        }
        self.directories.insert(name.into());
        if self.directories.len() > DIRECTORIES {
            self.want_whole();
        }
    }

    /// A scan is wanted of the directory that this name is in.
    pub(super) fn want_around(&mut self, name: &str) {
        match name.rsplit_once('/') {
            Some((directory, _)) => self.want(directory),
            None => self.want_whole(),
        }
    }

    /// Whether a scan is wanted of the directory, or of one that it is below.
    fn is_covered(&self, directory: &str) -> bool {
        let above = directory.match_indices('/').map(|(end, _)| &directory[..end]);
        !self.directories.is_empty()
            && above.chain([directory]).any(|directory| self.directories.contains(directory))
    }

    /// Whether one is to begin that has not.
    pub(super) fn are_wanted(&self) -> bool {
        self.running.is_none() && (self.whole || !self.directories.is_empty())
    }

    /// Whether the next one is of the whole share.
    pub(super) fn is_whole_next(&self) -> bool {
        self.whole
    }

    /// The next scan, if none runs; the inner `None` is the whole share.
    pub(super) fn take(&mut self) -> Option<Option<FileName>> {
        if self.running.is_some() {
            return None;
        }
        if std::mem::take(&mut self.whole) {
            return Some(None);
        }
        FileName::parse(&self.directories.pop_first()?).ok().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(scans: &mut Scans) -> Vec<String> {
        let next = || scans.take().map(|scan| scan.map_or_else(|| "/".to_owned(), String::from));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_scan_answers_all_that_was_wanted_below_it() {
        let mut scans = Scans::default();
        for name in ["a/b", "a-b", "a", "a/b/c", "a0", "b/c", "b/c/d"] {
            scans.want(name);
        }
        assert_eq!(taken(&mut scans), ["a", "a-b", "a0", "b/c"]);
        scans.want("a");
        scans.want_whole();
        scans.want("b");
        assert_eq!(taken(&mut scans), ["/"]);
        // What is wanted after one was taken is later than what that sees.
        for name in ["a", "a/b"] {
            scans.want(name);
            assert_eq!(taken(&mut scans), [name]);
        }
        scans.want_around("a/b/c.txt");
        scans.want_around("d/e.txt");
        assert_eq!(taken(&mut scans), ["a/b", "d"]);
        scans.want_around("c.txt");
        assert_eq!(taken(&mut scans), ["/"]);
    }

    #[test]
    fn where_too_many_directories_are_wanted_the_whole_share_is() {
        let mut scans = Scans::default();
        (0..DIRECTORIES).for_each(|number| scans.want(&format!("d/{number}")));
        assert_eq!((scans.directories.len(), scans.is_whole_next()), (DIRECTORIES, false));
        // Those below another are none by themselves.
        (0..DIRECTORIES).for_each(|number| scans.want(&format!("d/{number}/e")));
        assert!(!scans.is_whole_next());
        scans.want("e");
        assert_eq!(scans.directories.len(), 0);
        assert_eq!(taken(&mut scans), ["/"]);
    }
}
