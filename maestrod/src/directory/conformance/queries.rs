//! The part of the suite on patterns, copies, numbers, and forgetting.

use super::*;

/// Everything that a pattern finds, page after page: names and how many have them. New names may take their time.
async fn found_by(directory: &dyn Directory, pattern: &str, expected: &[(&str, u32)]) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let (mut all, mut after) = (Vec::new(), None);
        let ranked = loop {
            let page = directory.find(Pattern::parse(pattern).unwrap(), after, 2).await.unwrap();
            assert!(page.items.len() <= 2);
            all.extend(page.items.into_iter().map(|found| (found.file.name, found.sources)));
            after = page.next;
            if after.is_none() {
                break page.order == Order::Rank;
            }
        };
        let expected: Vec<_> =
            expected.iter().map(|(name, sources)| ((*name).to_owned(), *sources)).collect();
        if all == expected {
            return ranked;
        }
        assert!(std::time::Instant::now() < deadline, "{pattern}: {all:?}, not {expected:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub(super) async fn finds_by_pattern_in_order_of_rank(directory: &dyn Directory) {
    let same = [file("photo.jpg", "1"), file("telephoto.jpg", "2")];
    settle(directory, 1, &same).await;
    let more = [&same[..], &[file("photo/a.jpg", "3"), file("docs/photo", "4"), file("ñandú", "5")]].concat();
    settle(directory, 2, &more).await;
    settle(directory, 3, &[file("photo.jpg", "another"), file("photo.jpg.hidden", "6")]).await;
    let ranked = [("docs/photo", 1), ("photo.jpg", 1), ("photo.jpg", 2)];
    let rest = [("telephoto.jpg", 2), ("photo/a.jpg", 1)];
    let hidden = [("photo.jpg.hidden", 1)];
    // The contents of a name come in order of their hashes.
    let order = |found: &[(&'static str, u32)]| {
        let mut found = found.to_vec();
        if ContentHash::of(b"another") > ContentHash::of(b"1") {
            found.swap(1, 2);
        }
        found
    };
    let all = order(&[&ranked[..], &hidden, &rest].concat());
    assert!(found_by(directory, "PHOTO", &all).await);
    directory.set_visible(peer(3), false, None).await.unwrap();
    let all = [("docs/photo", 1), ("photo.jpg", 2), ("telephoto.jpg", 2), ("photo/a.jpg", 1)];
    assert!(found_by(directory, "photo", &all).await);
    assert!(
        found_by(directory, "*.jpg", &[("photo.jpg", 2), ("photo/a.jpg", 1), ("telephoto.jpg", 2)]).await
    );
    assert!(found_by(directory, "docs/*o", &[("docs/photo", 1)]).await);
    for nothing in ["nothing", "photo\0", "pho\0*", "\0\0\0"] {
        assert!(found_by(directory, nothing, &[]).await, "{nothing:?}");
    }
    // Too short for an index, so in order of names.
    let all = [("docs/photo", 1), ("photo.jpg", 2), ("photo/a.jpg", 1), ("telephoto.jpg", 2)];
    assert!(!found_by(directory, "Ph", &all).await);
    assert!(!found_by(directory, "Ñ", &[("ñandú", 1)]).await);
    assert!(!found_by(directory, "?????", &[("docs/photo", 1), ("photo/a.jpg", 1), ("ñandú", 1)]).await);
}

/// Everything that a pattern finds in batches, page after page, each place as a cursor. New names may take their time.
async fn in_batches(directory: &dyn Directory, pattern: &str, limit: usize) -> Vec<(String, u32)> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = directory.find(Pattern::parse(pattern).unwrap(), after.take(), limit).await.unwrap();
        if page.order != Order::Batches {
            assert!(all.is_empty(), "a list keeps its order");
            assert!(std::time::Instant::now() < deadline, "{pattern} is not found in batches");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        }
        assert!(page.items.len() <= limit);
        all.extend(page.items.into_iter().map(|found| (found.file.name, found.sources)));
        let Some(next) = page.next else { return all };
        after = Some(cursor::decode_find(&cursor::encode_find(&next)).unwrap());
    }
}

pub(super) async fn finds_in_batches_what_many_names_match(directory: &dyn Directory) {
    let many: Vec<_> = (0..11_000).map(|number| file(&format!("dir/a-photo-{number:05}"), "x")).collect();
    settle(directory, 1, &many).await;
    let named = |names: &[&str]| names.iter().map(|name| file(name, "y")).collect::<Vec<_>>();
    let own = named(&["photo", "photo.raw", "photos/x", "Photo", "zz/photo", "none"]);
    settle(directory, 2, &[&many[5000..5300], &own].concat()).await;
    // Of what a hidden peer has, it has some alone and some with others, whoever of them is first.
    settle(directory, 3, &[&many[100..200], &named(&["photo-hidden", "photo"])].concat()).await;
    settle(directory, 4, &many[..50]).await;
    directory.set_visible(peer(3), false, None).await.unwrap();
    let sources = |number: usize| match number {
        0..50 | 5000..5300 => 2,
        _ => 1,
    };
    let mut expected: Vec<_> =
        many.iter().enumerate().map(|(number, file)| (file.name.clone(), sources(number))).collect();
    expected.extend(["photo", "photo.raw", "photos/x", "Photo", "zz/photo"].map(|name| (name.to_owned(), 1)));
    expected.sort();
    for limit in [700, 10_000] {
        let mut found = in_batches(directory, "photo", limit).await;
        // What begins with the text is among the first, although it came last.
        let first: Vec<_> = found[..2].iter().map(|(name, _)| &**name).collect();
        assert_eq!(first, ["photo", "photo.raw"], "limit {limit}");
        found.sort();
        assert_eq!(found, expected, "limit {limit}");
    }
    expected.retain(|(name, _)| name.starts_with("dir/"));
    let mut found = in_batches(directory, "dir/*photo*", 999).await;
    found.sort();
    assert_eq!(found, expected);
    // Whoever is first to have a name may go: the others have it.
    directory.set_visible(peer(1), false, None).await.unwrap();
    let found = in_batches(directory, "photo", 100).await;
    assert_eq!(found.len(), 355);
    assert!(found.iter().all(|(_, sources)| *sources == 1));
    // A position of one list is none in another.
    let rank = RankPosition { rank: 0, at: NamePosition { name: "a".to_owned(), through: Through::Name } };
    let batches = BatchPosition { opened: false, after: Vec::new(), seen: None };
    for position in [FindPosition::Rank(rank), FindPosition::Batches(batches)] {
        let refused = directory.find(Pattern::parse("ph").unwrap(), Some(position), 10).await;
        assert!(matches!(refused, Err(DirectoryError::Position)), "{refused:?}");
    }
    let garbled = BatchPosition { opened: true, after: vec![1, 2, 3], seen: None };
    let refused =
        directory.find(Pattern::parse("photo").unwrap(), Some(FindPosition::Batches(garbled)), 10).await;
    assert!(matches!(refused, Err(DirectoryError::Position)), "{refused:?}");
    // What an earlier release gave out goes on by name.
    let at = NamePosition { name: "photo".to_owned(), through: Through::Name };
    let page =
        directory.find(Pattern::parse("photo").unwrap(), Some(FindPosition::Name(at)), 10).await.unwrap();
    let names: Vec<_> = page.items.iter().map(|found| &*found.file.name).collect();
    assert_eq!((names, page.order), (vec!["photo.raw", "photos/x", "zz/photo"], Order::Name));
}

pub(super) async fn counts_copies(directory: &dyn Directory) {
    let (x, y) = (ContentHash::of(b"x"), ContentHash::of(b"y"));
    settle(directory, 1, &[file("a", "x"), file("b", "y")]).await;
    settle(directory, 2, &[file("a", "x"), file("again", "x")]).await;
    settle(directory, 3, &[file("b", "y"), file("away", "z")]).await;
    directory.set_visible(peer(3), false, None).await.unwrap();
    let plain = PlainPeer { url: "http://x:1".to_owned(), address: "x:2".to_owned(), grpc_port: 2 };
    directory.register(plain, vec![FileName::parse("a").unwrap()], 9).await.unwrap();
    let of_x = Copies { content: x, name: "a".to_owned(), size: 1, here: 2, away: 0 };
    let of_y = Copies { content: y, name: "b".to_owned(), size: 1, here: 1, away: 1 };
    assert_eq!(directory.copies(x).await.unwrap(), Some(of_x.clone()));
    assert_eq!(directory.copies(y).await.unwrap(), Some(of_y.clone()));
    for nobody in ["z", "never"] {
        assert_eq!(directory.copies(ContentHash::of(nobody.as_bytes())).await.unwrap(), None);
    }
    for (most, mut expected) in [(None, vec![of_x, of_y.clone()]), (Some(1), vec![of_y])] {
        expected.sort_by_key(|copies| copies.content);
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = directory.contents(most, after, 1).await.unwrap();
            assert!(page.items.len() <= 1);
            listed.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected);
    }
}

pub(super) async fn tells_what_it_holds(directory: &dyn Directory) {
    let before = directory.holdings().await.unwrap();
    assert_eq!((before.peers_known, before.files, before.bytes), (0, 0, 0));
    assert_eq!(directory.count_contents(None).await.unwrap(), (0, None));
    let mut huge = file("huge", "h");
    huge.size = u64::MAX;
    settle(directory, 1, &[file("a", "xx"), file("b", "xx"), file("c", "y")]).await;
    settle(directory, 2, &[file("a", "xx"), huge]).await;
    directory.set_visible(peer(2), false, None).await.unwrap();
    let holdings = directory.holdings().await.unwrap();
    assert_eq!((holdings.peers_here, holdings.peers_known), (1, 2));
    assert_eq!((holdings.files, holdings.bytes), (3, 5));
    assert!(holdings.database_bytes > 0 && holdings.changes != before.changes);
    let (mut count, mut after) = (0, None);
    loop {
        let (more, next) = directory.count_contents(after).await.unwrap();
        count += more;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(count, 3);
}

pub(super) async fn forgets_whom_nobody_has_seen(directory: &dyn Directory) {
    let many: Vec<_> = (0..12_000).map(|number| file(&format!("file-{number:05}"), "x")).collect();
    settle(directory, 1, &many).await;
    settle(directory, 2, &[file("a", "1")]).await;
    settle(directory, 3, &[file("a", "1")]).await;
    directory.admit(peer(1), 1).await.unwrap();
    let plain = PlainPeer { url: "http://x:1".to_owned(), address: "x:2".to_owned(), grpc_port: 2 };
    directory.register(plain, vec![FileName::parse("plain").unwrap()], 5).await.unwrap();
    // One is away for long, one since lately, one is here.
    directory.set_visible(peer(1), false, Some(100)).await.unwrap();
    directory.set_visible(peer(2), false, Some(200)).await.unwrap();
    directory.set_visible(peer(3), true, Some(100)).await.unwrap();
    let first = directory.forget_unseen(150).await.unwrap();
    assert_eq!(first, Forgotten { peer: None, more: true });
    // It came back before all was forgotten, and sends everything.
    let held = directory.begin(peer(1), profile("p1"), 300).await.unwrap();
    assert_eq!((held.epoch, held.applied), (0, 0));
    assert!(!directory.forget_unseen(150).await.unwrap().more);
    assert!(directory.apply(peer(1), held.session, whole(&many), 300).await.unwrap().agrees);
    let mut forgotten = Vec::new();
    loop {
        let step = directory.forget_unseen(400).await.unwrap();
        forgotten.extend(step.peer);
        if !step.more {
            break;
        }
    }
    assert_eq!(forgotten, [peer(1), peer(2)]);
    assert_eq!(all_names(directory).await, ["a", "plain"]);
    assert_eq!(directory.holdings().await.unwrap().peers_known, 2);
    assert!(directory.is_admitted(peer(1)).await.unwrap());
    assert_eq!(directory.copies(ContentHash::of(b"x")).await.unwrap(), None);
    // Whoever comes back is a peer like any other.
    settle(directory, 1, &[file("again", "x")]).await;
    assert_eq!(all_names(directory).await, ["a", "again", "plain"]);
}

pub(super) async fn tells_all_files_of_one_peer(directory: &dyn Directory) {
    let in_share = |share: &str, name: &str| FileRecord { share: share.to_owned(), ..file(name, name) };
    // The same names in other shares, before and after, and in no order.
    let mut files: Vec<_> = (0..20).map(|number| in_share("s", &format!("f{}", number * 7 % 20))).collect();
    files.extend([in_share("a", "f3"), in_share("z", "f3"), in_share("", "f4"), in_share("z", "own")]);
    settle(directory, 1, &files).await;
    settle(directory, 2, &[file("f3", "another"), file("theirs", "1")]).await;
    files.sort_by(|a, b| (&a.share, &a.name).cmp(&(&b.share, &b.name)));
    for visible in [true, false] {
        directory.set_visible(peer(1), visible, None).await.unwrap();
        for limit in [1, 5, 24, 1000] {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = directory.files_of(peer(1), after, limit).await.unwrap();
                assert!(page.items.len() <= limit);
                paged.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert!(paged.is_sorted_by(|a, b| a.share <= b.share));
            paged.sort_by(|a, b| (&a.share, &a.name).cmp(&(&b.share, &b.name)));
            assert_eq!(paged, files, "limit {limit}, visible {visible}");
        }
    }
    // What goes and comes between two pages takes nothing else with it.
    let session = directory.begin(peer(2), profile("p2"), 8).await.unwrap().session;
    let first = directory.files_of(peer(2), None, 1).await.unwrap();
    let (seen, place) = (first.items[0].clone(), first.next);
    assert!(place.is_some());
    let gone = Change::Removed { share: seen.share.clone(), name: seen.name.clone() };
    let batch = Batch { epoch: 1, reset: false, changes: vec![gone], through_sequence: 9, complete: None };
    directory.apply(peer(2), session, batch, 9).await.unwrap();
    let rest = directory.files_of(peer(2), place, 9).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert_ne!(rest.items[0].name, seen.name);
    let unknown = directory.files_of(peer(9), None, 9).await.unwrap();
    assert_eq!((unknown.items, unknown.next), (Vec::new(), None));
}
