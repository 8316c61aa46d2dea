//! What every store must do, as one suite: a store's own tests call [`conformance`] with a way to make an empty one.

use std::sync::Arc;

use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;

use super::*;

mod queries;

/// Runs the whole suite, each part on a store of its own.
pub(crate) async fn conformance(make: impl Fn() -> Arc<dyn Directory>) {
    admits_and_remembers(&*make()).await;
    applies_changes_and_counts_them(&*make()).await;
    a_full_catalog_replaces_when_complete(&*make()).await;
    a_full_catalog_survives_a_break(&*make()).await;
    the_digest_tells_a_difference(&*make()).await;
    an_older_session_is_refused(&*make()).await;
    only_the_visible_are_found(&*make()).await;
    a_peer_cannot_touch_anothers_files(&*make()).await;
    locates_by_name_and_content(&*make()).await;
    draws_sources_where_there_are_many(&*make()).await;
    searches_by_prefix_text_and_peer(&*make()).await;
    queries::finds_by_pattern_in_order_of_rank(&*make()).await;
    queries::finds_in_batches_what_many_names_match(&*make()).await;
    queries::counts_copies(&*make()).await;
    queries::tells_what_it_holds(&*make()).await;
    queries::forgets_whom_nobody_has_seen(&*make()).await;
    pages_are_whole_and_without_repetition(&*make()).await;
    queries::tells_all_files_of_one_peer(&*make()).await;
    plain_peers_stand_beside_the_others(&*make()).await;
    lists_peers(&*make()).await;
}

pub(crate) fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        addresses: vec![format!("{name}.lab:9002"), "10.0.0.1:9002".to_owned()],
        rest_url: format!("http://{name}.lab:9001"),
        grpc_port: 9002,
        version: "0.1.0".to_owned(),
    }
}

/// A file of the share `s` whose content is `bytes`.
pub(crate) fn file(name: &str, bytes: &str) -> FileRecord {
    FileRecord {
        share: "s".to_owned(),
        name: name.to_owned(),
        content: Some(ContentHash::of(bytes.as_bytes())),
        size: bytes.len() as u64,
        modified_ms: 1000,
    }
}

pub(crate) fn upserts(files: &[FileRecord]) -> Vec<Change> {
    files.iter().cloned().map(Change::Upsert).collect()
}

pub(crate) fn complete(files: &[FileRecord]) -> Option<Complete> {
    let mut digest = Digest::default();
    files.iter().for_each(|file| digest ^= Digest::of(file));
    Some(Complete { digest, files: files.len() as u64, recount: false })
}

/// The whole catalog in one batch of epoch 1.
pub(crate) fn whole(files: &[FileRecord]) -> Batch {
    let through_sequence = files.len() as u64;
    Batch { epoch: 1, reset: true, changes: upserts(files), through_sequence, complete: complete(files) }
}

/// A visible peer with these files.
pub(crate) async fn settle(directory: &dyn Directory, number: u8, files: &[FileRecord]) -> Session {
    let held = directory.begin(peer(number), profile(&format!("p{number}")), 5).await.unwrap();
    directory.set_visible(peer(number), true, Some(6)).await.unwrap();
    let applied = directory.apply(peer(number), held.session, whole(files), 7).await.unwrap();
    assert!(applied.agrees);
    held.session
}

async fn all_names(directory: &dyn Directory) -> Vec<String> {
    let page = directory.list(None, 1000).await.unwrap();
    assert_eq!(page.next, None);
    page.items.into_iter().map(|listed| listed.name).collect()
}

/// Names that a text finds, all on one page, and how many the text index does not have.
pub(crate) async fn names_with(directory: &dyn Directory, text: &str) -> (Vec<String>, u64) {
    let page = directory.find(Pattern::parse(text).unwrap(), None, 100).await.unwrap();
    assert_eq!(page.next, None);
    (page.items.into_iter().map(|found| found.file.name).collect(), page.unindexed)
}

async fn found(directory: &dyn Directory, search: Search) -> Vec<(String, u32)> {
    let page = directory.search(search, None, 1000).await.unwrap();
    assert_eq!(page.next, None);
    page.items.into_iter().map(|found| (found.file.name, found.sources)).collect()
}

fn text(text: &str) -> Search {
    Search { text: text.to_owned(), ..Search::default() }
}

async fn admits_and_remembers(directory: &dyn Directory) {
    assert!(!directory.is_admitted(peer(1)).await.unwrap());
    directory.admit(peer(1), 1).await.unwrap();
    directory.admit(peer(1), 2).await.unwrap();
    assert!(directory.is_admitted(peer(1)).await.unwrap());
    assert!(!directory.is_admitted(peer(2)).await.unwrap());
}

async fn applies_changes_and_counts_them(directory: &dyn Directory) {
    let session = settle(directory, 1, &[file("a", "1"), file("b", "22")]).await;
    // `a` changes, `b` goes, `c` comes, what never was is removed.
    let mut in_other_share = file("a", "1");
    in_other_share.share = "t".to_owned();
    let now = [file("a", "4444"), file("c", "333"), in_other_share];
    let mut changes = upserts(&now);
    for name in ["b", "never"] {
        changes.push(Change::Removed { share: "s".to_owned(), name: name.to_owned() });
    }
    // Under this share there is no `c`.
    changes.push(Change::Removed { share: "t".to_owned(), name: "c".to_owned() });
    let batch = Batch { epoch: 1, reset: false, changes, through_sequence: 9, complete: complete(&now) };
    let applied = directory.apply(peer(1), session, batch, 8).await.unwrap();
    assert_eq!(applied, Applied { sequence: 9, agrees: true });
    assert_eq!(all_names(directory).await, ["a", "c"]);
    let page = directory.peers(Which::Visible, 10, None, 10).await.unwrap();
    let listed = &page.items[0];
    assert_eq!((listed.peer.files, listed.peer.bytes, listed.peer.last_seen_ms), (3, 8, 8));
    assert_eq!(listed.names, ["a", "c"]);
    assert_eq!(directory.totals().await.unwrap(), Totals { peers: 1, files: 3 });
    let held = directory.begin(peer(1), profile("p1"), 9).await.unwrap();
    assert_eq!((held.epoch, held.applied), (1, 9));
}

async fn a_full_catalog_replaces_when_complete(directory: &dyn Directory) {
    let session = settle(directory, 1, &[file("a", "1"), file("b", "2")]).await;
    let first = Batch { epoch: 2, complete: None, ..whole(&[file("c", "3")]) };
    directory.apply(peer(1), session, first, 8).await.unwrap();
    // Nothing vanishes meanwhile.
    assert_eq!(all_names(directory).await, ["a", "b", "c"]);
    let now = [file("c", "3"), file("a", "changed")];
    let second = Batch {
        epoch: 2,
        reset: false,
        changes: upserts(&now[1..]),
        through_sequence: 2,
        complete: complete(&now),
    };
    let applied = directory.apply(peer(1), session, second, 9).await.unwrap();
    assert!(applied.agrees);
    assert_eq!(all_names(directory).await, ["a", "c"]);
}

async fn a_full_catalog_survives_a_break(directory: &dyn Directory) {
    let session = settle(directory, 1, &[file("a", "1"), file("b", "2")]).await;
    let first = Batch { epoch: 2, complete: None, ..whole(&[file("c", "3")]) };
    directory.apply(peer(1), session, first, 8).await.unwrap();
    let held = directory.begin(peer(1), profile("p1"), 9).await.unwrap();
    assert_eq!((held.epoch, held.applied), (2, 1));
    let now = [file("c", "3"), file("d", "4")];
    let rest = Batch {
        epoch: 2,
        reset: false,
        changes: upserts(&now[1..]),
        through_sequence: 2,
        complete: complete(&now),
    };
    assert!(directory.apply(peer(1), held.session, rest, 10).await.unwrap().agrees);
    assert_eq!(all_names(directory).await, ["c", "d"]);
}

async fn the_digest_tells_a_difference(directory: &dyn Directory) {
    let session = settle(directory, 1, &[file("a", "1")]).await;
    let mut wrong = file("a", "1");
    wrong.size += 1;
    let end = |complete| Batch { epoch: 1, reset: false, changes: Vec::new(), through_sequence: 1, complete };
    let applied = directory.apply(peer(1), session, end(complete(&[wrong])), 8).await.unwrap();
    assert_eq!(applied, Applied { sequence: 1, agrees: false });
    let too_many = complete(&[file("a", "1")]).map(|complete| Complete { files: 2, ..complete });
    assert!(!directory.apply(peer(1), session, end(too_many), 8).await.unwrap().agrees);
    assert!(directory.apply(peer(1), session, end(complete(&[file("a", "1")])), 8).await.unwrap().agrees);
    // Counting anew what is held makes no difference vanish, and none appear.
    let recounted =
        |files: &[FileRecord]| complete(files).map(|complete| Complete { recount: true, ..complete });
    for (files, agrees) in [(&[file("b", "1")][..], false), (&[file("a", "1")], true)] {
        let applied = directory.apply(peer(1), session, end(recounted(files)), 8).await.unwrap();
        assert_eq!(applied.agrees, agrees);
    }
    assert_eq!(directory.totals().await.unwrap().files, 1);
}

async fn an_older_session_is_refused(directory: &dyn Directory) {
    let old = settle(directory, 1, &[file("a", "1")]).await;
    directory.begin(peer(1), profile("p1"), 8).await.unwrap();
    let refused = directory.apply(peer(1), old, whole(&[]), 9).await;
    assert!(matches!(refused, Err(DirectoryError::Superseded)));
    let unknown = directory.apply(peer(9), old, whole(&[]), 9).await;
    assert!(matches!(unknown, Err(DirectoryError::Superseded)));
    assert_eq!(all_names(directory).await, ["a"]);
}

async fn only_the_visible_are_found(directory: &dyn Directory) {
    settle(directory, 1, &[file("shared", "x"), file("mine", "1")]).await;
    settle(directory, 2, &[file("shared", "x"), file("yours", "2")]).await;
    directory.set_visible(peer(1), false, None).await.unwrap();
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(2)]);
    assert_eq!(all_names(directory).await, ["shared", "yours"]);
    assert_eq!(found(directory, text("mine")).await, []);
    assert_eq!(found(directory, text("shared")).await, [("shared".to_owned(), 1)]);
    let of_hidden = Search { peer: Some(PeerKey::Synced(peer(1))), ..Search::default() };
    assert_eq!(found(directory, of_hidden).await, []);
    assert_eq!(directory.names_of(PeerKey::Synced(peer(1)), None, 10).await.unwrap(), None);
    let located = directory.locate(Wanted::Name("shared".to_owned()), 10).await.unwrap();
    assert_eq!(located[0].sources.len(), 1);
    let located = directory.locate(Wanted::Content(ContentHash::of(b"1")), 10).await.unwrap();
    assert_eq!(located, []);
    assert_eq!(directory.totals().await.unwrap(), Totals { peers: 1, files: 2 });
    // Hidden, not forgotten.
    directory.set_visible(peer(1), true, None).await.unwrap();
    assert_eq!(all_names(directory).await, ["mine", "shared", "yours"]);
}

async fn a_peer_cannot_touch_anothers_files(directory: &dyn Directory) {
    settle(directory, 1, &[file("a", "1")]).await;
    let other = settle(directory, 2, &[file("b", "2")]).await;
    let removal = Change::Removed { share: "s".to_owned(), name: "a".to_owned() };
    let batch = Batch { changes: vec![removal, Change::Upsert(file("a", "forged"))], ..whole(&[]) };
    directory.apply(peer(2), other, batch, 9).await.unwrap();
    let located = directory.locate(Wanted::Name("a".to_owned()), 10).await.unwrap();
    let of_first = |candidate: &Candidate| candidate.sources[0].key == PeerKey::Synced(peer(1));
    let first = located.iter().find(|candidate| of_first(candidate)).unwrap();
    assert_eq!(first.file, file("a", "1"));
    assert_eq!(located.len(), 2);
}

async fn locates_by_name_and_content(directory: &dyn Directory) {
    let mut twice = file("a", "common");
    twice.share = "t".to_owned();
    settle(directory, 1, &[file("a", "common"), twice]).await;
    settle(directory, 2, &[file("a", "common")]).await;
    settle(directory, 3, &[file("a", "rare"), file("copy", "common")]).await;
    let located = directory.locate(Wanted::Name("a".to_owned()), 10).await.unwrap();
    let keys =
        |candidate: &Candidate| candidate.sources.iter().map(|source| source.key.clone()).collect::<Vec<_>>();
    assert_eq!(located.len(), 2);
    assert_eq!(located[0].file.content, Some(ContentHash::of(b"common")));
    assert_eq!(keys(&located[0]), [PeerKey::Synced(peer(1)), PeerKey::Synced(peer(2))]);
    assert_eq!(located[0].sources[1].profile, profile("p2"));
    assert_eq!(keys(&located[1]), [PeerKey::Synced(peer(3))]);
    let located = directory.locate(Wanted::Content(ContentHash::of(b"common")), 10).await.unwrap();
    assert_eq!(located.len(), 1);
    assert_eq!(keys(&located[0]).len(), 3);
    for nothing in ["A", "a ", "", "../a", "a\0"] {
        assert_eq!(directory.locate(Wanted::Name(nothing.to_owned()), 10).await.unwrap(), [], "{nothing:?}");
    }
}

async fn draws_sources_where_there_are_many(directory: &dyn Directory) {
    for number in 1..=120 {
        let files = [file("everybody's", "x"), file("some have it", "y")];
        settle(directory, number, if number <= 20 { &files } else { &files[..1] }).await;
    }
    // 50 draws of 5 from 20, or from 120: that so few are drawn at all has a chance of less than one in a million.
    for (name, at_least) in [("some have it", 15), ("everybody's", 80)] {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let located = directory.locate(Wanted::Name(name.to_owned()), 5).await.unwrap();
            assert_eq!((located.len(), located[0].sources.len()), (1, 5));
            seen.extend(located[0].sources.iter().map(|source| source.key.clone()));
        }
        assert!(seen.len() >= at_least, "{name}: {}", seen.len());
    }
}

/// For a store in which the peers that have a file `common` with the content `x` are those with the numbers from 1 to 30,000
/// as their keys, every tenth of whom is hidden.
pub(crate) async fn draws_from_all_of_very_many(directory: &dyn Directory) {
    let number = |source: &PeerRecord| match source.key {
        PeerKey::Synced(id) => {
            let bytes = id.as_bytes();
            (usize::from(bytes[30]) << 8) | usize::from(bytes[31])
        }
        PeerKey::Plain(_) => panic!("nobody is a plain peer"),
    };
    for wanted in [Wanted::Name("common".to_owned()), Wanted::Content(ContentHash::of(b"x"))] {
        let mut parts = [0; 6];
        for _ in 0..60 {
            let located = directory.locate(wanted.clone(), 50).await.unwrap();
            assert_eq!((located.len(), located[0].sources.len()), (1, 50));
            for number in located[0].sources.iter().map(number) {
                assert_ne!(number % 10, 0, "it is hidden");
                parts[(number - 1) / 5000] += 1;
            }
        }
        // 500 of 3,000 draws on average, a third of the peers at a time.
        assert!(parts.iter().all(|drawn| (150..1000).contains(drawn)), "{wanted:?}: {parts:?}");
    }
    let mut last = [0; 32];
    last[30..].copy_from_slice(&29_999u16.to_be_bytes());
    let last = PeerKey::Synced(PeerId::from_bytes(last));
    for peer in [None, Some(last)] {
        let page = directory.search(Search { peer, ..Search::default() }, None, 10).await.unwrap();
        let found: Vec<_> = page.items.iter().map(|found| (&*found.file.name, found.sources)).collect();
        assert_eq!(found, [("common", MAX_COPIES)]);
    }
    let mut listed = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let page = directory.list(None, 10).await.unwrap();
        assert_eq!(page.items[0].holders.len(), MAX_HOLDERS);
        listed.extend(page.items[0].holders.iter().map(|holder| number(&holder.peer) / 5000));
    }
    assert_eq!(listed.len(), 6);
}

async fn searches_by_prefix_text_and_peer(directory: &dyn Directory) {
    settle(directory, 1, &[file("docs/Año.TXT", "1"), file("docs/b.txt", "2"), file("z%_\"*", "3")]).await;
    settle(directory, 2, &[file("docs/b.txt", "2"), file("docs/c", "4"), file("dodo", "5")]).await;
    let names = |found: Vec<(String, u32)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let by_prefix = |prefix: &str| Search { prefix: prefix.to_owned(), ..Search::default() };
    assert_eq!(names(found(directory, by_prefix("docs/")).await), ["docs/Año.TXT", "docs/b.txt", "docs/c"]);
    assert_eq!(names(found(directory, by_prefix("docs/b.txt")).await), ["docs/b.txt"]);
    assert_eq!(names(found(directory, by_prefix("DOCS")).await), Vec::<String>::new());
    for (part, expected) in [
        (".TXT", &["docs/Año.TXT", "docs/b.txt"][..]),
        ("AÑO", &["docs/Año.TXT"]),
        ("ño", &["docs/Año.TXT"]),
        ("D", &["docs/Año.TXT", "docs/b.txt", "docs/c", "dodo"]),
        ("z%_\"*", &["z%_\"*"]),
        ("\"", &["z%_\"*"]),
        ("txt OR dodo", &[]),
        ("nothing", &[]),
        ("txt\0", &[]),
    ] {
        assert_eq!(names(found(directory, text(part)).await), expected, "{part:?}");
    }
    assert_eq!(found(directory, text("b.t")).await, [("docs/b.txt".to_owned(), 2)]);
    let of = |number| Some(PeerKey::Synced(peer(number)));
    let all = Search { text: "do".to_owned(), prefix: "do".to_owned(), peer: of(2) };
    let expected = [("docs/b.txt".to_owned(), 2), ("docs/c".to_owned(), 1), ("dodo".to_owned(), 1)];
    assert_eq!(found(directory, all).await, expected);
    let with_text = Search { text: "DOCS".to_owned(), peer: of(2), ..Search::default() };
    assert_eq!(names(found(directory, with_text).await), ["docs/b.txt", "docs/c"]);
    assert_eq!(found(directory, Search { peer: of(9), ..Search::default() }).await, []);
}

async fn pages_are_whole_and_without_repetition(directory: &dyn Directory) {
    // Names with several contents, so that pages end within a name too.
    for number in 1..=5 {
        let files: Vec<_> =
            (0..20).map(|name| file(&format!("f{name:02}"), &format!("{}", name * number % 7))).collect();
        settle(directory, number, &files).await;
    }
    let everything = directory.search(Search::default(), None, 1000).await.unwrap().items;
    let in_order = everything
        .windows(2)
        .all(|pair| (&pair[0].file.name, pair[0].file.content) < (&pair[1].file.name, pair[1].file.content));
    assert!(in_order && everything.len() > 20);
    for limit in [1, 2, 3, 7] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = directory.search(Search::default(), after, limit).await.unwrap();
            assert!(page.items.len() <= limit);
            paged.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, everything, "limit {limit}");
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = directory.list(after, limit).await.unwrap();
            names.extend(page.items.into_iter().map(|listed| (listed.name, listed.holders.len())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (0..20).map(|name| (format!("f{name:02}"), 5)).collect();
        assert_eq!(names, expected, "limit {limit}");
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = directory.names_of(PeerKey::Synced(peer(3)), after, limit).await.unwrap().unwrap().1;
            names.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names, expected.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
    // A position that no page gave out: between names, past the end.
    let at = |name: &str| Some(NamePosition { name: name.to_owned(), through: Through::Name });
    assert_eq!(directory.list(at("f185"), 9).await.unwrap().items[0].name, "f19");
    assert_eq!(directory.list(at("zzz"), 9).await.unwrap().items, []);
}

async fn plain_peers_stand_beside_the_others(directory: &dyn Directory) {
    settle(directory, 1, &[file("a", "1")]).await;
    let plain = |port| PlainPeer {
        url: "http://localhost:9001".to_owned(),
        address: format!("localhost:{port}"),
        grpc_port: port,
    };
    let names = |names: &[&str]| names.iter().map(|name| FileName::parse(name).unwrap()).collect::<Vec<_>>();
    directory.register(plain(9002), names(&["a", "b", "b"]), 8).await.unwrap();
    assert_eq!(directory.totals().await.unwrap(), Totals { peers: 2, files: 3 });
    let located = directory.locate(Wanted::Name("a".to_owned()), 10).await.unwrap();
    assert_eq!(located.len(), 2);
    // Without a hash, so last.
    assert_eq!(located[1].file.content, None);
    let source = &located[1].sources[0];
    assert_eq!(source.key, PeerKey::Plain("http://localhost:9001".to_owned()));
    assert_eq!(source.profile.addresses, ["localhost:9002"]);
    directory.register(plain(9004), names(&["c"]), 9).await.unwrap();
    assert_eq!(all_names(directory).await, ["a", "c"]);
    let key = PeerKey::Plain("http://localhost:9001".to_owned());
    let (record, page) = directory.names_of(key.clone(), None, 10).await.unwrap().unwrap();
    assert_eq!((record.profile.grpc_port, record.files, page.items), (9004, 1, vec!["c".to_owned()]));
    assert_eq!(found(directory, Search { peer: Some(key), ..text("c") }).await, [("c".to_owned(), 1)]);
    // It is no peer that a stream could belong to.
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(1)]);
}

async fn lists_peers(directory: &dyn Directory) {
    for number in 1..=5 {
        settle(directory, number, &[file("a", "1"), file("b", "2"), file("c", "3")]).await;
    }
    directory.set_visible(peer(2), false, None).await.unwrap();
    let plain = PlainPeer { url: "http://x:1".to_owned(), address: "x:2".to_owned(), grpc_port: 2 };
    directory.register(plain, Vec::new(), 9).await.unwrap();
    for (which, expected) in [(Which::All, 6), (Which::Visible, 5)] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = directory.peers(which, 2, after, 2).await.unwrap();
            assert!(page.items.len() <= 2);
            listed.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed.len(), expected);
        assert!(listed.windows(2).all(|pair| pair[0].peer.key < pair[1].peer.key));
        assert_eq!(listed[0].names, ["a", "b"]);
        assert_eq!(listed[0].peer.files, 3);
        assert_eq!(listed.last().unwrap().peer.key, PeerKey::Plain("http://x:1".to_owned()));
    }
    let without = directory.peers(Which::All, 0, None, 10).await.unwrap();
    assert!(without.items.iter().all(|listed| listed.names.is_empty()));
    assert!(!without.items[1].peer.visible);
}
