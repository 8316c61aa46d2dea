//! What is to be done about a name of a directory, by what others have under it and what is here. Called by the list.

use std::collections::VecDeque;

use p2p_content::FileName;

use super::list::PAGE;
use crate::catalog::{Catalog, CatalogError, Fact, ListQuery, Viewer};
use crate::transfer::store::TreeFile;

/// This peer's own files, read in the order of their names.
pub(super) struct OwnFacts {
    catalog: Catalog,
    read: VecDeque<Fact>,
    is_all: bool,
}

impl OwnFacts {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, read: VecDeque::new(), is_all: false }
    }

    /// Those of this name; names are asked for in their order.
    pub(super) async fn of(&mut self, name: &FileName) -> Result<Vec<Fact>, CatalogError> {
        let mut facts = Vec::new();
        loop {
            match self.read.front() {
                Some(fact) if fact.name < *name => drop(self.read.pop_front()),
                Some(fact) if fact.name == *name => facts.extend(self.read.pop_front()),
                Some(_) => return Ok(facts),
                None if self.is_all => return Ok(facts),
                None => {
                    let after = match facts.last() {
                        Some(Fact { name, share, .. }) => (name.to_string(), share.clone()),
                        // No share has an empty name.
                        None => (name.to_string(), String::new()),
                    };
                    let query = ListQuery {
                        prefix: None,
                        text: None,
                        share: None,
                        viewer: Viewer::Own,
                        after: Some(after),
                        limit: PAGE,
                    };
                    self.read = self.catalog.list(query).await?.into();
                    self.is_all = self.read.is_empty();
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is here.
    Here,
    Fetch,
    /// It needs a choice.
    Conflict {
        /// Since another file is here.
        here: bool,
    },
}

/// What is to be done about a name that stands for these files elsewhere, and for these here.
pub(super) fn verdict(there: &[TreeFile], here: &[Fact], downloads: &str) -> Verdict {
    let is_same = |fact: &Fact| there.iter().all(|file| file.content == fact.content);
    if here.iter().any(is_same) {
        return Verdict::Here;
    }
    match here.iter().any(|fact| fact.share == downloads) {
        true => Verdict::Conflict { here: true },
        false if there.iter().any(|file| file.content != there[0].content) => {
            Verdict::Conflict { here: false }
        }
        // Claims of another size for one content: one of them is false.
        false if there.len() > 1 => Verdict::Conflict { here: false },
        false => Verdict::Fetch,
    }
}

#[cfg(test)]
mod tests {
    use p2p_content::ContentHash;

    use super::*;

    fn there(contents: &[&str]) -> Vec<TreeFile> {
        let file = |text: &&str| TreeFile {
            name: FileName::parse("a").unwrap(),
            content: ContentHash::of(text.as_bytes()),
            size: 1,
        };
        contents.iter().map(file).collect()
    }

    fn here(share: &str, content: &str) -> Fact {
        Fact {
            share: share.to_owned(),
            name: FileName::parse("a").unwrap(),
            content: ContentHash::of(content.as_bytes()),
            size: 1,
            modified_ns: 0,
            changed_ns: 0,
            inode: 0,
        }
    }

    #[test]
    fn a_name_needs_a_choice_where_contents_differ() {
        let verdict = |contents: &[&str], facts: &[Fact]| verdict(&there(contents), facts, "downloads");
        assert_eq!(verdict(&["x"], &[]), Verdict::Fetch);
        assert_eq!(verdict(&["x"], &[here("downloads", "x")]), Verdict::Here);
        assert_eq!(verdict(&["x"], &[here("photos", "x")]), Verdict::Here);
        assert_eq!(verdict(&["x"], &[here("photos", "y")]), Verdict::Fetch, "it lands beside it");
        assert_eq!(verdict(&["x"], &[here("downloads", "y")]), Verdict::Conflict { here: true });
        assert_eq!(verdict(&["x", "y"], &[]), Verdict::Conflict { here: false });
        assert_eq!(verdict(&["x", "y"], &[here("downloads", "x")]), Verdict::Conflict { here: true });
    }
}
