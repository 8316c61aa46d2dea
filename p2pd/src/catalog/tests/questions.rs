//! Who sees what, and lists.

use super::*;

async fn names(store: &Store, viewer: Viewer) -> Vec<String> {
    let facts = store.catalog.list(query(viewer)).await.unwrap();
    facts.into_iter().map(|fact| format!("{}/{}", fact.share, fact.name)).collect()
}

fn query(viewer: Viewer) -> ListQuery {
    ListQuery { prefix: None, text: None, share: None, viewer, after: None, limit: 100 }
}

#[tokio::test]
async fn each_viewer_sees_what_is_for_them_by_every_question() {
    let store = Store::new().await;
    store.put("net", "a", "same").await;
    store.put("pals", "a", "same").await;
    let content = ContentHash::of(b"same");
    for (viewer, seen) in [(Viewer::Own, 2), (Viewer::Friend, 2), (Viewer::Network, 1)] {
        assert_eq!(store.catalog.find_name("a", viewer).await.unwrap().len(), seen, "{viewer:?}");
        assert_eq!(store.catalog.find_content(content, viewer).await.unwrap().len(), seen, "{viewer:?}");
        assert_eq!(names(&store, viewer).await.len(), seen, "{viewer:?}");
    }
    // What is not available is seen by nobody, and counted where it is asked for by share.
    store.set("net", Visibility::Network, false).await;
    for (viewer, seen) in [(Viewer::Own, 1), (Viewer::Friend, 1), (Viewer::Network, 0)] {
        assert_eq!(store.catalog.find_content(content, viewer).await.unwrap().len(), seen, "{viewer:?}");
        assert_eq!(names(&store, viewer).await.len(), seen, "{viewer:?}");
    }
    assert_eq!(store.catalog.totals().await.unwrap(), Totals { files: 1, bytes: 4 });
    let one = Totals { files: 1, bytes: 4 };
    let by_share = [("net".to_owned(), one), ("pals".to_owned(), one)];
    assert_eq!(store.catalog.share_totals().await.unwrap(), by_share);
}

#[tokio::test]
async fn the_network_hears_of_hiding_and_showing_and_never_of_what_is_for_friends() {
    let store = Store::new().await;
    store.put("net", "a", "1").await;
    store.put("net", "b", "22").await;
    store.put("pals", "secret", "333").await;
    store.put("pals", "gone", "333").await;
    store.remove("pals", "gone").await;
    let at_first = store.told(0, 10).await.1;
    assert_eq!(store.told(0, 1).await.0, [(1, "+net/a=1".to_owned()), (2, "+net/b=2".to_owned())]);
    assert_eq!((at_first.through, at_first.files), (5, 2));
    // The disk goes.
    assert_eq!(store.set("net", Visibility::Network, false).await, 7);
    assert_eq!(store.told(5, 1).await.0, [(6, "-net/a".to_owned()), (7, "-net/b".to_owned())]);
    let hidden = store.told(5, 10).await.1;
    assert_eq!((hidden.digest, hidden.files), ([0; 16], 0));
    // One file is found gone when the disk comes back.
    store.remove("net", "a").await;
    store.set("net", Visibility::Network, true).await;
    assert_eq!(store.told(5, 10).await.0, [(8, "-net/a".to_owned()), (9, "+net/b=2".to_owned())]);
    // It becomes for friends only, and then for all again.
    store.set("net", Visibility::Friends, true).await;
    assert_eq!(store.told(9, 10).await.0, [(10, "-net/b".to_owned())]);
    assert_eq!(store.catalog.find_name("b", Viewer::Network).await.unwrap(), []);
    store.put("net", "later", "1").await;
    assert_eq!(store.told(10, 10).await.0, []);
    store.set("net", Visibility::Network, true).await;
    assert_eq!(store.told(11, 1).await.0, [(12, "+net/b=2".to_owned()), (13, "+net/later=1".to_owned())]);
    // Saying the same again is no news.
    assert_eq!(store.set("net", Visibility::Network, true).await, 13);
    let (told, _) = store.told(0, 10).await;
    assert!(told.iter().all(|(_, shown)| !shown.contains("pals")), "{told:?}");
}

#[tokio::test]
async fn shares_that_are_no_longer_configured_are_hidden_and_kept() {
    let store = Store::new().await;
    store.put("net", "a", "1").await;
    store.put("pals", "b", "1").await;
    assert_eq!(store.catalog.hide_shares_except(vec!["pals".to_owned()]).await.unwrap(), 3);
    assert_eq!(names(&store, Viewer::Own).await, ["pals/b"]);
    assert_eq!(store.told(2, 10).await.0, [(3, "-net/a".to_owned())]);
    store.set("net", Visibility::Network, true).await;
    assert_eq!(names(&store, Viewer::Own).await, ["net/a", "pals/b"]);
}

#[tokio::test]
async fn lists_are_in_order_of_bytes_and_paged_without_loss() {
    let store = Store::new().await;
    let all = ["A", "a", "a-b", "a.b", "a/b", "a/c/d", "ab", "b", "Ñu", "ñandú", "日本"];
    for name in all.iter().rev() {
        store.put("net", name, "1").await;
    }
    store.put("pals", "a/b", "1").await;
    let whole = names(&store, Viewer::Own).await;
    let mut expected: Vec<_> = all.iter().map(|name| format!("net/{name}")).collect();
    expected.insert(5, "pals/a/b".to_owned());
    assert_eq!(whole, expected);
    for limit in 1..4 {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.catalog.list(ListQuery { after, limit, ..query(Viewer::Own) }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.name.to_string(), last.share.clone()));
            paged.extend(page.into_iter().map(|fact| format!("{}/{}", fact.share, fact.name)));
        }
        assert_eq!(paged, whole);
    }
    let list = async |query| {
        let facts = store.catalog.list(query).await.unwrap();
        facts.into_iter().map(|fact| fact.name.to_string()).collect::<Vec<_>>()
    };
    let base = || query(Viewer::Network);
    assert_eq!(list(ListQuery { prefix: Some("a/".into()), ..base() }).await, ["a/b", "a/c/d"]);
    let after = Some(("a/b".to_owned(), "net".to_owned()));
    assert_eq!(list(ListQuery { prefix: Some("a/".into()), after, ..base() }).await, ["a/c/d"]);
    let before = Some(("A".to_owned(), "net".to_owned()));
    assert_eq!(list(ListQuery { prefix: Some("b".into()), after: before, ..base() }).await, ["b"]);
    assert_eq!(list(ListQuery { text: Some("ÑA".into()), ..base() }).await, ["ñandú"]);
    assert_eq!(list(ListQuery { text: Some("A".into()), limit: 2, ..base() }).await, ["A", "a"]);
    assert_eq!(list(ListQuery { share: Some("pals".into()), ..query(Viewer::Own) }).await, ["a/b"]);
    assert_eq!(list(ListQuery { share: Some("pals".into()), ..base() }).await, [""; 0]);
}

#[tokio::test]
async fn a_manifest_lives_as_long_as_a_file_may_need_it() {
    let store = Store::new().await;
    let content_of = |byte| {
        let mut hasher = ContentHasher::new();
        hasher.update(&vec![byte; 2 << 20]);
        hasher.finish()
    };
    let long = |name: &str, content| Fact { content, size: 2 << 20, ..fact("net", name, "") };
    let ((one, one_manifest), (two, two_manifest)) = (content_of(1), content_of(2));
    let upsert = |name, content, manifest: Option<&Manifest>| FactChange::Upsert {
        fact: long(name, content),
        manifest: manifest.cloned(),
    };
    store.catalog.apply(vec![upsert("a", one, Some(&one_manifest))]).await.unwrap();
    // Renamed: the fact comes without a manifest.
    store.catalog.apply(vec![remove("net", "a"), upsert("b", one, None)]).await.unwrap();
    assert_eq!(store.catalog.manifest(one).await.unwrap(), Some(one_manifest));
    store.catalog.apply(vec![upsert("b", two, Some(&two_manifest))]).await.unwrap();
    // The removed file "a" may still come back with it; when that is forgotten, so is the manifest.
    assert!(store.catalog.manifest(one).await.unwrap().is_some());
    let many =
        (0..7).flat_map(|n| [super::upsert("net", &format!("f{n}"), "1"), remove("net", &format!("f{n}"))]);
    store.catalog.apply(many.collect()).await.unwrap();
    assert_eq!(store.catalog.manifest(one).await.unwrap(), None);
    assert_eq!(store.catalog.manifest(two).await.unwrap(), Some(two_manifest));
    // A content of one piece needs no stored manifest.
    store.put("net", "short", "x").await;
    let short = ContentHash::of(b"x");
    assert_eq!(store.catalog.manifest(short).await.unwrap(), Manifest::single(short, 1));
    assert_eq!(store.catalog.manifest(ContentHash::of(b"nobody has it")).await.unwrap(), None);
}
