//! What this peer has, in the words of the two interfaces.

use std::collections::{BTreeMap, HashSet};

use p2p_content::ContentHash;
use p2p_proto::control::{FileList, FileRow, ShareRow, Visibility};
use p2p_service::problem::Problem;

use super::Api;
use super::cursor::Listing;
use crate::catalog::{Catalog, CatalogError, Fact, ListQuery, Totals, Viewer};
use crate::shares::ShareState;

/// Of the files of a share that are not shared, how many are told.
const SKIPPED_SHOWN: usize = 20;

/// Which of this peer's own files to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnQuery<'a> {
    pub(super) prefix: &'a str,
    pub(super) text: &'a str,
    pub(super) viewer: Viewer,
    pub(super) limit: u32,
    pub(super) cursor: Option<&'a str>,
}

/// A page of this peer's own files.
pub(super) async fn list(catalog: &Catalog, query: OwnQuery<'_>) -> Result<FileList, Problem> {
    let viewer = match query.viewer {
        Viewer::Own => "own",
        Viewer::Friend => "friend",
        Viewer::Network => "network",
    };
    let listing = Listing::of(&["here", viewer, query.prefix, query.text]);
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let asked = ListQuery {
        prefix: given(query.prefix),
        text: given(query.text),
        share: None,
        viewer: query.viewer,
        after: query.cursor.map(|cursor| listing.name_and_share(cursor)).transpose()?,
        // One more tells whether there is another page.
        limit: query.limit + 1,
    };
    Ok(page(catalog.list(asked).await?, query.limit, &listing))
}

/// How the shares stand, with what is in each.
pub(super) async fn shares(api: &Api) -> Result<Vec<ShareRow>, Problem> {
    let totals = api.catalog.share_totals().await?.into_iter().collect();
    Ok(share_rows(api.shares.rows(), &totals))
}

/// How many files the network may see.
pub(super) async fn announced_files(api: &Api) -> Result<u64, Problem> {
    let rows = shares(api).await?;
    let shown = rows.iter().filter(|row| row.visible == Visibility::Network && row.unavailable.is_none());
    Ok(shown.map(|row| row.files).sum())
}

/// Those of these contents that this peer has.
pub(super) async fn held(
    catalog: &Catalog,
    contents: impl IntoIterator<Item = ContentHash>,
) -> Result<HashSet<ContentHash>, CatalogError> {
    let mut held = HashSet::new();
    for content in contents.into_iter().collect::<HashSet<_>>() {
        if !catalog.find_content(content, Viewer::Own).await?.is_empty() {
            held.insert(content);
        }
    }
    Ok(held)
}

fn share_rows(states: Vec<ShareState>, totals: &BTreeMap<String, Totals>) -> Vec<ShareRow> {
    let row = |mut state: ShareState| {
        // None of a share that was never scanned.
        let totals = totals.get(&state.name).copied().unwrap_or_default();
        state.skipped.truncate(SKIPPED_SHOWN);
        ShareRow {
            name: state.name,
            path: state.path.display().to_string(),
            visible: state.visible,
            downloads: state.downloads,
            files: totals.files,
            bytes: totals.bytes,
            unavailable: state.unavailable,
            skipped: state.skipped,
            added: state.added,
        }
    };
    states.into_iter().map(row).collect()
}

fn page(mut facts: Vec<Fact>, limit: u32, listing: &Listing) -> FileList {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = facts.len() > limit;
    facts.truncate(limit);
    let last = facts.last().filter(|_| more);
    let next = last.map(|fact| listing.after(fact.name.as_str(), &fact.share));
    FileList { files: facts.into_iter().map(row).collect(), next, incomplete: None }
}

fn row(fact: Fact) -> FileRow {
    FileRow {
        modified_ms: Some(fact.modified_ms()),
        name: fact.name.into(),
        size: Some(fact.size),
        content: Some(fact.content.to_string()),
        share: Some(fact.share),
        sources: 1,
        here: true,
    }
}

#[cfg(test)]
mod tests {
    use p2p_content::FileName;

    use super::*;
    use crate::catalog::{FactChange, ShareRecord};

    fn fact(name: &str, share: &str) -> Fact {
        Fact {
            share: share.to_owned(),
            name: FileName::parse(name).unwrap(),
            content: ContentHash::of(name.as_bytes()),
            size: 3,
            modified_ns: 1_999_999,
            changed_ns: 0,
            inode: 1,
        }
    }

    async fn catalog(dir: &std::path::Path) -> Catalog {
        let catalog = Catalog::open(&dir.join("catalog.sqlite")).unwrap();
        for (name, visible) in [("all", Visibility::Network), ("few", Visibility::Friends)] {
            let share = ShareRecord { name: name.to_owned(), visible, available: true, root: None };
            catalog.set_share(share).await.unwrap();
        }
        let facts = [fact("a", "all"), fact("a", "few"), fact("docs/B.txt", "all"), fact("docs/c", "few")];
        let changes = facts.map(|fact| FactChange::Upsert { fact, manifest: None });
        catalog.apply(changes.into()).await.unwrap();
        catalog
    }

    /// All pages of a listing, one file each, as `name@share`.
    async fn walk(catalog: &Catalog, query: OwnQuery<'_>) -> Vec<String> {
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let query = OwnQuery { limit: 1, cursor: cursor.as_deref(), ..query };
            let page = list(catalog, query).await.unwrap();
            assert!(page.files.len() <= 1);
            found.extend(page.files.into_iter().map(|file| format!("{}@{}", file.name, file.share.unwrap())));
            cursor = page.next;
            if cursor.is_none() {
                return found;
            }
        }
    }

    const ALL: OwnQuery<'_> =
        OwnQuery { prefix: "", text: "", viewer: Viewer::Own, limit: 100, cursor: None };

    #[tokio::test]
    async fn pages_together_are_the_whole_listing() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog(dir.path()).await;
        assert_eq!(walk(&catalog, ALL).await, ["a@all", "a@few", "docs/B.txt@all", "docs/c@few"]);
        let docs = OwnQuery { prefix: "docs/", ..ALL };
        assert_eq!(walk(&catalog, docs).await, ["docs/B.txt@all", "docs/c@few"]);
        assert_eq!(walk(&catalog, OwnQuery { text: "b.T", ..ALL }).await, ["docs/B.txt@all"]);
        let network = OwnQuery { viewer: Viewer::Network, ..ALL };
        assert_eq!(walk(&catalog, network).await, ["a@all", "docs/B.txt@all"]);
    }

    #[tokio::test]
    async fn a_cursor_for_who_sees_more_does_not_serve_who_sees_less() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog(dir.path()).await;
        let next = list(&catalog, OwnQuery { limit: 1, ..ALL }).await.unwrap().next;
        let other = OwnQuery { viewer: Viewer::Network, cursor: next.as_deref(), ..ALL };
        assert_eq!(list(&catalog, other).await.unwrap_err().body().code, "invalid-cursor");
    }

    #[tokio::test]
    async fn what_is_here_is_told_from_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog(dir.path()).await;
        let [here, elsewhere] = [ContentHash::of(b"docs/c"), ContentHash::of(b"elsewhere")];
        let held = held(&catalog, [here, elsewhere, here]).await.unwrap();
        assert_eq!(held, HashSet::from([here]));
    }

    #[test]
    fn a_share_is_told_with_what_is_in_it() {
        let state = |name: &str| ShareState {
            name: name.to_owned(),
            path: format!("/srv/{name}").into(),
            visible: Visibility::Friends,
            downloads: false,
            unavailable: None,
            skipped: (0..30).map(|at| format!("{at}: a symbolic link")).collect(),
            pending: 0,
            added: false,
        };
        let totals = BTreeMap::from([("two".to_owned(), Totals { files: 2, bytes: 9 })]);
        let rows = share_rows(vec![state("one"), state("two")], &totals);
        assert_eq!(rows.iter().map(|row| (row.files, row.bytes)).collect::<Vec<_>>(), [(0, 0), (2, 9)]);
        assert_eq!((rows[1].path.as_str(), rows[1].visible), ("/srv/two", Visibility::Friends));
        assert_eq!((rows[0].skipped.len(), rows[0].skipped[19].as_str()), (20, "19: a symbolic link"));
    }

    #[test]
    fn only_a_page_that_is_not_the_last_says_where_it_ended() {
        let listing = Listing::of(&["here"]);
        let facts = vec![fact("a", "one"), fact("a", "two"), fact("b", "one")];
        let last = page(facts.clone(), 3, &listing);
        assert_eq!((last.files.len(), last.next), (3, None));
        let first = page(facts, 2, &listing);
        assert_eq!(first.files.len(), 2);
        let next = listing.name_and_share(&first.next.unwrap()).unwrap();
        assert_eq!(next, ("a".to_owned(), "two".to_owned()), "a name that two shares have is not skipped");
        assert_eq!(first.files[0].modified_ms, Some(1));
    }
}
