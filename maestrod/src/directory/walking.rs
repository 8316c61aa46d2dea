//! Which names a question is about, and how much it may look at. Pure; for the stores.

use super::{Pattern, Search};

/// Most names, or holders of names, in one page: tens of megabytes of JSON.
pub(super) const PAGE_ENTRIES: usize = 100_000;
/// At most so many names are collected to be sorted.
pub(super) const FEW: usize = 10_000;

/// How much one call may look at, in rows.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    /// Enough for every page of a directory of ordinary size; some tenths of a second.
    pub(super) const ROWS: usize = 200_000;

    /// So many rows.
    pub(super) fn new(rows: usize) -> Budget {
        Budget { left: rows }
    }

    /// So many were looked at.
    pub(super) fn spend(&mut self, rows: usize) {
        self.left = self.left.saturating_sub(rows);
    }

    /// No more may be.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// Which names are walked.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    /// They begin with this.
    pub(super) prefix: &'a str,
    text: &'a str,
    folded: String,
    pattern: Option<&'a Pattern>,
    /// Row of the peer that must have them, and how many files it has.
    pub(super) peer: Option<(i64, u64)>,
}

impl<'a> Filter<'a> {
    /// Those of a search, and a peer.
    pub(super) fn new(search: &'a Search, peer: Option<(i64, u64)>) -> Filter<'a> {
        let folded = search.text.to_lowercase();
        Filter { prefix: &search.prefix, text: &search.text, folded, pattern: None, peer }
    }

    /// All names of a pattern.
    pub(super) fn of(pattern: &'a Pattern) -> Filter<'a> {
        Filter { pattern: Some(pattern), ..Filter::all(None) }
    }

    /// All names, or all of one peer's.
    pub(super) fn all(peer: Option<(i64, u64)>) -> Filter<'static> {
        Filter { prefix: "", text: "", folded: String::new(), pattern: None, peer }
    }

    /// Whether a name is one of them, but for the peer.
    pub(super) fn matches(&self, name: &str) -> bool {
        name.starts_with(self.prefix)
            && (self.folded.is_empty() || name.to_lowercase().contains(&self.folded))
            && self.pattern.is_none_or(|pattern| pattern.matches(name))
    }

    /// Texts that all of them contain, without regard to case.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.pattern.into_iter().flat_map(Pattern::literals).chain([self.text])
    }
}
