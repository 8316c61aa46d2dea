//! Scanning: walks a share's directories and compares what is there with what the catalog says. Blocking.
//!
//! It walks in the order in which the catalog keeps names, so both are compared side by side, a page of facts and one
//! directory per level in memory, however many files there are. It only says where to look; it decides nothing.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use p2p_content::{FileName, NameError};
use rustix::fs::{Dir, FileType};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::look::{below, past};
use super::root::{self, Place, Root};
use super::watch::Watch;
use crate::catalog::{Catalog, CatalogError, Reader, Stamp};

/// How many names are handed over at once.
const BATCH: usize = 256;

/// How many facts are read at once.
const PAGE: u32 = 1000;

/// What a scan tells of the share's life `share`.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) share: u64,
    pub(super) what: What,
}

/// What a scan tells.
#[derive(Debug)]
pub(super) enum What {
    /// Files that aren't what the catalog says, or that it does not have, or that it has and that aren't there.
    Look(Vec<Arc<str>>),
    /// Something that can't be shared, and why.
    Skipped { shown: String, reason: String },
    /// The last thing that a scan tells.
    End(Result<(), ScanError>),
}

/// Why a scan did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// The share's directory is not there, or not the one that it was.
    #[error(transparent)]
    Lost(#[from] root::Lost),
    /// The catalog could not be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nobody wants to know any more.
    #[error("the scan was ended")]
    Cancelled,
}

/// One scan of a share's directory, or of one below it.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) id: u64,
    pub(super) share: Arc<str>,
    pub(super) place: Place,
    /// `None`: the whole share.
    pub(super) directory: Option<FileName>,
    pub(super) catalog: Catalog,
    pub(super) watch: Arc<Watch>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) cancel: CancellationToken,
}

enum Entry {
    File(String, Stamp),
    Directory(String),
}

impl Entry {
    /// Where it sorts: a directory where the names of the files below it do.
    fn compare(&self, other: &Entry) -> Ordering {
        fn key(entry: &Entry) -> impl Iterator<Item = u8> {
            let (name, end) = match entry {
                Entry::File(name, _) => (name, None),
                Entry::Directory(name) => (name, Some(b'/')),
            };
            name.bytes().chain(end)
        }
        key(self).cmp(key(other))
    }
}

impl Scan {
    /// Runs to the end, and says so.
    pub(super) fn run(self) {
        let end = self.walk();
        // Who does not listen any more does not need to know.
        let _ = self.told.blocking_send(Told { share: self.id, what: What::End(end) });
    }

    fn walk(&self) -> Result<(), ScanError> {
        let root = self.place.open()?;
        let reader = self.catalog.reader()?;
        let mut found = Found { scan: self, facts: Facts::of(self, &reader), names: Vec::new() };
        let start = self.directory.as_ref().map_or("", FileName::as_str);
        let mut levels = vec![self.entries_of(&root, start, &mut found)?];
        while let Some(level) = levels.last_mut() {
            match level.pop_front() {
                None => drop(levels.pop()),
                Some(Entry::File(name, stamp)) => found.file(name, stamp)?,
                Some(Entry::Directory(name)) => {
                    let entries = self.entries_of(&root, &name, &mut found)?;
                    levels.push(entries);
                }
            }
        }
        found.finish()
    }

    /// What is in a directory, in order. A directory that is gone or closed has nothing in it; of one that its disk
    /// fails to give, nothing is said.
    fn entries_of(
        &self,
        root: &Root,
        directory: &str,
        found: &mut Found<'_>,
    ) -> Result<VecDeque<Entry>, ScanError> {
        if self.cancel.is_cancelled() {
            return Err(ScanError::Cancelled);
        }
        self.watch.add(directory);
        let mut entries = Vec::new();
        match self.read(root, directory, &mut entries) {
            Ok(()) => {}
            Err(error) if root::is_gone(&error) => {}
            Err(error) => {
                self.skip(directory.to_owned(), format!("this directory cannot be read: {error}"))?;
                if error.kind() != io::ErrorKind::PermissionDenied {
                    entries.clear();
                    found.pass_over(directory)?;
                }
            }
        }
        entries.sort_unstable_by(Entry::compare);
        Ok(entries.into())
    }

    fn read(&self, root: &Root, directory: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
        let handle = root.directory(directory)?;
        for entry in Dir::read_from(&handle)? {
            let entry = entry?;
            let own = entry.file_name().to_bytes();
            if matches!(own, b"." | b"..") {
                continue;
            }
            let Some(name) = self.name_of(directory, own).map_err(io::Error::other)? else { continue };
            let own = entry.file_name();
            let stat = match rustix::fs::statat(&handle, own, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(error) if root::is_gone(&error.into()) => continue,
                Err(error) => return Err(error.into()),
            };
            match root::file_type(&stat) {
                FileType::RegularFile => entries.push(Entry::File(name, root::stamp_of(&stat))),
                FileType::Directory => entries.push(Entry::Directory(name)),
                FileType::Symlink => {
                    self.skip(name, super::SYMLINK.to_owned()).map_err(io::Error::other)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn name_of(&self, directory: &str, own: &[u8]) -> Result<Option<String>, ScanError> {
        let path = |own: &str| {
            if directory.is_empty() { own.to_owned() } else { format!("{directory}/{own}") }
        };
        let Ok(text) = std::str::from_utf8(own) else {
            self.skip(path(&String::from_utf8_lossy(own)), super::NOT_UTF8.to_owned())?;
            return Ok(None);
        };
        match FileName::parse(&path(text)) {
            Ok(name) => Ok(Some(name.into())),
            Err(NameError::Reserved { .. }) => Ok(None),
            Err(error) => {
                self.skip(path(text), error.to_string())?;
                Ok(None)
            }
        }
    }

    fn skip(&self, shown: String, reason: String) -> Result<(), ScanError> {
        self.tell(What::Skipped { shown, reason })
    }

    fn tell(&self, what: What) -> Result<(), ScanError> {
        let told = Told { share: self.id, what };
        self.told.blocking_send(told).map_err(|_| ScanError::Cancelled)
    }
}

/// What was found beside what is known, both in order.
struct Found<'a> {
    scan: &'a Scan,
    facts: Facts<'a>,
    names: Vec<Arc<str>>,
}

impl Found<'_> {
    fn file(&mut self, name: String, stamp: Stamp) -> Result<(), ScanError> {
        while let Some((known, known_stamp)) = self.facts.peek()? {
            match known.as_str().cmp(name.as_str()) {
                Ordering::Less => {
                    let gone = known.as_str().into();
                    self.facts.pass();
                    self.look(gone)?;
                }
                Ordering::Equal => {
                    let is_same = *known_stamp == stamp;
                    self.facts.pass();
                    return if is_same { Ok(()) } else { self.look(name.into()) };
                }
                Ordering::Greater => break,
            }
        }
        self.look(name.into())
    }

    /// Says nothing of the files that are known below a directory.
    fn pass_over(&mut self, directory: &str) -> Result<(), ScanError> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        while let Some((known, _)) = self.facts.peek()? {
            if known.starts_with(&prefix) {
                self.facts.pass();
            } else if *known < prefix {
                let gone = known.as_str().into();
                self.facts.pass();
                self.look(gone)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), ScanError> {
        while let Some((known, _)) = self.facts.peek()? {
            let gone = known.as_str().into();
            self.facts.pass();
            self.look(gone)?;
        }
        self.hand_over()
    }

    fn look(&mut self, name: Arc<str>) -> Result<(), ScanError> {
        self.names.push(name);
        if self.names.len() < BATCH { Ok(()) } else { self.hand_over() }
    }

    fn hand_over(&mut self) -> Result<(), ScanError> {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() { Ok(()) } else { self.scan.tell(What::Look(names)) }
    }
}

/// The facts of a share, or of a directory in it, in order, read page by page.
struct Facts<'a> {
    reader: &'a Reader,
    share: &'a str,
    page: VecDeque<(String, Stamp)>,
    after: String,
    before: String,
    is_at_end: bool,
}

impl<'a> Facts<'a> {
    fn of(scan: &'a Scan, reader: &'a Reader) -> Facts<'a> {
        let (after, before) =
            scan.directory.as_ref().map_or_else(Default::default, |name| (below(name), past(name)));
        Facts { reader, share: &scan.share, page: VecDeque::new(), after, before, is_at_end: false }
    }

    fn peek(&mut self) -> Result<Option<&(String, Stamp)>, ScanError> {
        if self.page.is_empty() && !self.is_at_end {
            self.page = self.reader.stamps_between(self.share, &self.after, &self.before, PAGE)?.into();
            match self.page.back() {
                Some((last, _)) => self.after.clone_from(last),
                None => self.is_at_end = true,
            }
        }
        Ok(self.page.front())
    }

    fn pass(&mut self) {
        self.page.pop_front();
    }
}
