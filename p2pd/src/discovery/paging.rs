//! Pages of several networks become pages of one list, in order of names, then contents. Pure.
//!
//! A network's cursor leads to where its own page ends, and of a page only what comes before the end of all of them can be
//! told. So the place in the list is each network's cursor, and the last file that was told: what a network tells again is
//! left out.

use std::collections::BTreeMap;

use p2p_content::{ContentHash, FileName};
use serde::{Deserialize, Serialize};

use super::FoundFile;

/// A place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Each network's cursor, by its number in the order of the networks; `None` where all of it was told, and no entry
    /// where nothing was.
    cursors: BTreeMap<usize, Option<String>>,
    /// The last file that was told: its name, and its content in hex.
    last: Option<(String, Option<String>)>,
}

/// What one network told.
pub(super) struct NetworkPage {
    pub(super) network: usize,
    pub(super) files: Vec<FoundFile>,
    pub(super) next: Option<String>,
}

type Key = (FileName, Option<ContentHash>);

fn key(file: &FoundFile) -> Key {
    (file.name.clone(), file.content)
}

impl Place {
    /// Reads what [`to_cursor`](Place::to_cursor) wrote; `None` for anything else.
    pub(super) fn of(cursor: &str) -> Option<Self> {
        match cursor {
            "" => Some(Self::default()),
            cursor => serde_json::from_str(cursor).ok(),
        }
    }

    pub(super) fn to_cursor(&self) -> String {
        // What is in it is texts and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Where this network is to be asked on; `None` where there is nothing left.
    pub(super) fn cursor(&self, network: usize) -> Option<String> {
        self.cursors.get(&network).cloned().unwrap_or(Some(String::new()))
    }

    fn last(&self) -> Option<Key> {
        let (name, content) = self.last.as_ref()?;
        let content = content.as_ref().map(|content| content.parse()).transpose().ok()?;
        Some((FileName::parse(name).ok()?, content))
    }

    /// At most `limit` files of these pages, each of which began here, and the place of the next ones.
    pub(super) fn advance(self, pages: Vec<NetworkPage>, limit: usize) -> (Vec<FoundFile>, Option<Self>) {
        let last = self.last();
        // Nothing after the end of a page that is not the last one can be told: there may be something before it.
        let ends = pages.iter().filter(|page| page.next.is_some());
        let end = ends.map(|page| page.files.last().map(key).max(last.clone())).min();
        let mut told: BTreeMap<Key, FoundFile> = BTreeMap::new();
        for file in pages.iter().flat_map(|page| &page.files) {
            let key = key(file);
            let is_new = last.as_ref().is_none_or(|last| key > *last);
            if is_new && end.as_ref().is_none_or(|end| Some(&key) <= end.as_ref()) {
                // Who tells several networks of a file is one source of it.
                told.entry(key)
                    .and_modify(|known| known.sources = known.sources.max(file.sources))
                    .or_insert_with(|| file.clone());
            }
        }
        let mut files: Vec<FoundFile> = told.into_values().collect();
        files.truncate(limit);
        let through = files.last().map(key).max(last);
        let (mut place, mut is_more) = (self, false);
        for page in pages {
            let is_told = page.files.last().is_none_or(|file| Some(key(file)) <= through);
            is_more |= !is_told || page.next.is_some();
            if is_told {
                place.cursors.insert(page.network, page.next);
            }
        }
        place.last = through.map(|(name, content)| (name.into(), content.map(|content| content.to_string())));
        (files, is_more.then_some(place))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> FoundFile {
        FoundFile {
            name: FileName::parse(name).unwrap(),
            share: String::new(),
            content: Some(ContentHash::of(name.as_bytes())),
            size: Some(1),
            modified_ms: None,
            sources: 1,
        }
    }

    /// What a maestro with these files answers: pages of at most `most`, some of them empty although more follows.
    fn ask(files: &[String], cursor: &str, most: usize) -> (Vec<FoundFile>, Option<String>) {
        let at: usize = cursor.trim_end_matches('e').parse().unwrap_or(0);
        if at % 3 == 2 && !cursor.ends_with('e') {
            return (Vec::new(), Some(format!("{at}e")));
        }
        let end = files.len().min(at + most);
        (files[at..end].iter().map(|name| file(name)).collect(), (end < files.len()).then(|| end.to_string()))
    }

    fn walk(networks: &[Vec<String>], limit: usize, most: usize) -> Vec<String> {
        let (mut cursor, mut told) = (String::new(), Vec::new());
        for _ in 0..1000 {
            let place = Place::of(&cursor).unwrap();
            let pages = networks.iter().enumerate().filter_map(|(network, files)| {
                let (files, next) = ask(files, &place.cursor(network)?, most.min(limit));
                Some(NetworkPage { network, files, next })
            });
            let pages = pages.collect();
            let (files, next) = place.advance(pages, limit);
            assert!(files.len() <= limit);
            told.extend(files.into_iter().map(|file| String::from(file.name)));
            match next {
                Some(next) => cursor = next.to_cursor(),
                None => return told,
            }
        }
        panic!("no end: {told:?}");
    }

    proptest! {
        /// Every file is told once and in order, however the pages of the networks end.
        #[test]
        fn every_file_is_told_once_and_in_order(
            networks in prop::collection::vec(prop::collection::btree_set("[a-d]{1,3}", 0..20), 1..4),
            limit in 1..8usize,
            most in 1..8usize,
        ) {
            let lists: Vec<Vec<String>> = networks.iter().map(|set| set.iter().cloned().collect()).collect();
            let mut all: Vec<String> = lists.concat();
            all.sort();
            all.dedup();
            prop_assert_eq!(walk(&lists, limit, most), all);
        }
    }

    #[test]
    fn another_cursor_is_no_place() {
        assert_eq!(Place::of("x"), None);
        assert_eq!(Place::of(""), Some(Place::default()));
    }
}
