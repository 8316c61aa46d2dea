//! That the text index follows the names, through everything that may come in between.

use rusqlite::Connection;
use tempfile::TempDir;

use super::tests::{assert_sound, indexed, look, open};
use super::*;
use crate::directory::conformance::{file, names_with, peer, settle, whole};
use crate::directory::{BatchPosition, BatchSeen, Change, Order, RankPosition, Search, Through};

/// A database as the first release left it.
fn of_the_first_release(dir: &TempDir) -> Connection {
    let connection = look(dir);
    connection.execute_batch(schema::MIGRATIONS[0]).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_over() {
    let dir = TempDir::new().unwrap();
    let old = of_the_first_release(&dir);
    old.execute_batch(
        "INSERT INTO peers (id, kind, key, name, addresses, rest_url, grpc_port, version, visible, last_seen_ms, files)
         VALUES (1, 1, CAST('http://x:1' AS BLOB), '', '[]', 'http://x:1', 2, '', 1, 5, 1);
         INSERT INTO names VALUES (1, 'archivo1.txt');
         INSERT INTO names_text (rowid, name) VALUES (1, 'archivo1.txt');
         INSERT INTO files VALUES (1, '', 1, NULL, 0, 0, 0);",
    )
    .unwrap();
    drop(old);
    let directory = open(&dir);
    assert_eq!(names_with(&directory, "chivo").await.0, ["archivo1.txt"]);
    assert_sound(&dir).await;
    assert_eq!(names_with(&directory, "chivo").await, (vec!["archivo1.txt".to_owned()], 0));
}

/// What is announced is found at once, whether the index has it or not, and the index gets it in steps.
#[tokio::test]
async fn names_are_found_before_the_index_has_them() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    // Without the thread that writes, nobody takes the steps.
    let mut connection = look(&dir);
    let held = catalog::begin(&mut connection, peer(1), &Profile::default(), 1).unwrap();
    peers::set_visible(&connection, peer(1), true, None).unwrap();
    let many: Vec<_> = (0..7000).map(|number| file(&format!("photo-{number:04}"), "x")).collect();
    catalog::apply(&mut connection, peer(1), held.session, &whole(&many), 1).unwrap();
    assert_eq!(text::behind(&connection).unwrap(), 7000);
    let find = |connection: &Connection| {
        let pattern = Pattern::parse("o-6999").unwrap();
        let page = matches::find(connection, &pattern, None, 10).unwrap();
        (page.items.len(), page.order == Order::Rank, page.unindexed)
    };
    assert_eq!(find(&connection), (1, true, 7000));
    assert!(text::step(&mut connection).unwrap());
    assert_eq!(find(&connection), (1, true, 2000));
    assert!(text::step(&mut connection).unwrap());
    assert_eq!(find(&connection), (1, true, 0));
    assert!(!text::step(&mut connection).unwrap());
    assert_sound(&dir).await;
}

/// SQLite gives the row of the last name again when that name is gone.
#[tokio::test]
async fn a_row_that_is_given_again_is_indexed_under_its_new_name() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let session = settle(&directory, 1, &[file("first", "1")]).await;
    indexed(&dir).await;
    let changes = vec![
        Change::Removed { share: "s".to_owned(), name: "first".to_owned() },
        Change::Upsert(file("second", "2")),
    ];
    let batch = Batch { reset: false, changes, through_sequence: 9, ..whole(&[file("second", "2")]) };
    assert!(directory.apply(peer(1), session, batch, 9).await.unwrap().agrees);
    assert_sound(&dir).await;
    assert_eq!(names_with(&directory, "econ").await.0, ["second"]);
    assert_eq!(names_with(&directory, "irst").await.0, [""; 0]);
}

/// More names than are ranked come in batches; a list that began by rank goes on by rank.
#[tokio::test]
async fn what_many_names_match_comes_in_batches() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let few: Vec<_> = (0..9000).map(|number| file(&format!("old/photo-{number:05}"), "x")).collect();
    settle(&directory, 1, &few).await;
    indexed(&dir).await;
    let find = async |after| {
        let page = directory.find(Pattern::parse("photo").unwrap(), after, 1).await.unwrap();
        (page.items[0].file.name.clone(), page.next, page.order)
    };
    let (first, next, order) = find(None).await;
    assert_eq!((first.as_str(), order), ("old/photo-00000", Order::Rank));
    let more: Vec<_> = (0..2000).map(|number| file(&format!("photo-{number:05}"), "x")).collect();
    settle(&directory, 2, &more).await;
    indexed(&dir).await;
    let (second, _, order) = find(next).await;
    assert_eq!((second.as_str(), order), ("old/photo-00001", Order::Rank));
    // Too many begin with the text to be sought by name, so the index's own order decides.
    let (first, next, order) = find(None).await;
    assert_eq!((first.as_str(), order), ("old/photo-00000", Order::Batches));
    let (second, _, order) = find(next).await;
    assert_eq!((second.as_str(), order), ("old/photo-00001", Order::Batches));
    let by_name = Search { text: "PHOTO-01999".to_owned(), ..Search::default() };
    assert_eq!(directory.search(by_name, None, 10).await.unwrap().items.len(), 2);
}

/// What the index does not have yet comes after what it has, whatever it takes in between two pages.
#[tokio::test]
async fn names_behind_the_index_are_in_the_last_batches() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    let mut connection = look(&dir);
    let held = catalog::begin(&mut connection, peer(1), &Profile::default(), 1).unwrap();
    peers::set_visible(&connection, peer(1), true, None).unwrap();
    let many: Vec<_> = (0..17_000).map(|number| file(&format!("photo/{number:05}"), "x")).collect();
    catalog::apply(&mut connection, peer(1), held.session, &whole(&many), 1).unwrap();
    for _ in 0..3 {
        assert!(text::step(&mut connection).unwrap());
    }
    assert_eq!(text::behind(&connection).unwrap(), 2000);
    let pattern = Pattern::parse("photo").unwrap();
    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = matches::find(&connection, &pattern, after, 1500).unwrap();
        assert_eq!(page.order, Order::Batches);
        names.extend(page.items.into_iter().map(|found| found.file.name));
        after = page.next;
        pages += 1;
        if after.is_none() {
            break;
        }
        if pages == 11 {
            assert!(text::step(&mut connection).unwrap());
        }
    }
    assert_eq!(names.len(), 17_000);
    assert!(names.is_sorted(), "each batch is in order, and so are the batches here");
    names.dedup();
    assert_eq!((names.len(), pages), (17_000, 12));
}

#[tokio::test]
async fn a_forged_place_is_refused_or_leads_on() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    settle(&directory, 1, &[file("photo-1", "1"), file("photo-2", "2")]).await;
    let last = |name: &str| RankPosition {
        rank: 2,
        at: NamePosition { name: name.to_owned(), through: Through::Name },
    };
    let find = async |text: &str, after: &[u8], through: Option<&[u8]>| {
        let seen = through.map(|through| BatchSeen { through: through.to_vec(), last: last("photo-1") });
        let place = BatchPosition { opened: false, after: after.to_vec(), seen };
        let after = Some(FindPosition::Batches(place));
        let page = directory.find(Pattern::parse(text).unwrap(), after, 10).await?;
        assert_eq!(page.next, None);
        Ok::<_, DirectoryError>(page.items.len())
    };
    let [low, high] = [i64::MIN, i64::MAX].map(i64::to_be_bytes);
    assert_eq!(find("photo", &[], None).await.unwrap(), 2);
    assert_eq!(find("photo", &low, None).await.unwrap(), 2);
    assert_eq!(find("photo", &high, None).await.unwrap(), 0);
    assert_eq!(find("photo", &low, Some(&high)).await.unwrap(), 1);
    // A batch that ends before it begins has nothing in it; what follows is told.
    assert_eq!(find("photo", &high, Some(&low)).await.unwrap(), 0);
    for (text, after, through) in [
        ("photo", &b"another"[..], None),
        ("photo", &low, Some(&b"another"[..])),
        // Without three letters there are no batches.
        ("ph", &low, None),
    ] {
        let refused = find(text, after, through).await;
        assert!(matches!(refused, Err(DirectoryError::Position)), "{refused:?}");
    }
}
