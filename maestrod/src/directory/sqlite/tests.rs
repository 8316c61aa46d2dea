//! The conformance suite on this store, and what is this store's alone: its file, its limits, its orphans.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::directory::conformance::{
    complete, conformance, draws_from_all_of_very_many, file, peer, profile, settle, upserts, whole,
};
use crate::directory::{Change, Complete, Digest};

pub(super) fn open(dir: &TempDir) -> SqliteDirectory {
    SqliteDirectory::open(&dir.path().join("directory.sqlite")).unwrap()
}

pub(super) fn look(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join("directory.sqlite")).unwrap()
}

#[tokio::test]
async fn conforms() {
    let dirs = Mutex::new(Vec::new());
    conformance(|| {
        let dir = TempDir::new().unwrap();
        let directory = open(&dir);
        dirs.lock().unwrap().push(dir);
        Arc::new(directory)
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    settle(&directory, 1, &[file("a", "1"), file("b", "2")]).await;
    directory.admit(peer(1), 1).await.unwrap();
    drop(directory);
    let directory = open(&dir);
    assert!(directory.is_admitted(peer(1)).await.unwrap());
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(1)]);
    let held = directory.begin(peer(1), profile("p1"), 9).await.unwrap();
    assert_eq!((held.epoch, held.applied), (1, 2));
    let same = Batch { reset: false, changes: Vec::new(), ..whole(&[file("a", "1"), file("b", "2")]) };
    assert!(directory.apply(peer(1), held.session, same, 9).await.unwrap().agrees);
}

/// Whoever opens the database has the lock of who writes for a moment.
#[tokio::test]
async fn a_change_waits_for_who_has_the_lock() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let session = settle(&directory, 1, &[file("a", "1")]).await;
    let other = look(&dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let let_go = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.execute_batch("COMMIT").unwrap();
    };
    // It looks first whether the peer has begun a newer stream.
    let change = directory.apply(peer(1), session, whole(&[file("b", "2")]), 9);
    let (applied, ()) = tokio::join!(change, let_go);
    assert!(applied.unwrap().agrees);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    look(&dir).pragma_update(None, "user_version", 99).unwrap();
    let path = dir.path().join("directory.sqlite");
    let error = SqliteDirectory::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, known: schema::VERSION, .. }));
    let message = error.to_string();
    assert!(message.contains("newer maestrod") && message.contains("--state-dir"), "{message}");
    let version: u32 = look(&dir).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

/// As version 2 kept them.
#[tokio::test]
async fn files_in_the_order_of_peers_are_brought_over() {
    let (now, before) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let directory = open(&now);
    let elsewhere = FileRecord { share: "t".to_owned(), ..file("ours", "2") };
    let first = [file("ours", "1"), elsewhere, FileRecord { content: None, ..file("unproven", "") }];
    settle(&directory, 1, &first).await;
    settle(&directory, 2, &[file("mine", "2"), file("ours", "2")]).await;
    drop(directory);
    let old = look(&before);
    schema::MIGRATIONS[..2].iter().for_each(|migration| old.execute_batch(migration).unwrap());
    old.pragma_update(None, "user_version", 2).unwrap();
    old.execute("ATTACH ?1 AS now", [now.path().join("directory.sqlite").to_str()]).unwrap();
    for table in ["peers", "names", "files"] {
        old.execute(&format!("INSERT INTO main.{table} SELECT * FROM now.{table}"), []).unwrap();
    }
    drop(old);

    let directory = open(&before);
    let located = directory.locate(Wanted::Name("ours".to_owned()), 10).await.unwrap();
    assert_eq!(located.iter().map(|located| located.sources.len()).collect::<Vec<_>>(), [2, 1]);
    let located = directory.locate(Wanted::Content(ContentHash::of(b"2")), 10).await.unwrap();
    assert_eq!(located[0].sources.len(), 2);
    let theirs = directory.files_of(peer(1), None, 10).await.unwrap();
    assert_eq!(theirs.items.len(), first.len());
    let held = directory.begin(peer(1), profile("p1"), 9).await.unwrap();
    let same = Batch { reset: false, changes: Vec::new(), ..whole(&first) };
    assert!(directory.apply(peer(1), held.session, same, 9).await.unwrap().agrees);
    assert_sound(&before).await;
    let told = look(&before).query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(told.unwrap(), "ok");
}

/// What is asked most is answered from one place in the files.
#[tokio::test]
async fn who_has_a_name_is_found_in_the_files_themselves() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    let connection = look(&dir);
    let plan = |sql: &str| {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let peer = "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)";
    assert_eq!(
        plan(&holders::FEW_OF_NAME),
        [
            "SEARCH n USING COVERING INDEX sqlite_autoindex_names_1 (name=?)",
            "SEARCH f USING PRIMARY KEY (name_id=?)",
            peer
        ]
    );
    let files = "SEARCH f USING PRIMARY KEY (name_id=? AND peer>? AND peer<?)";
    assert_eq!(plan(holders::OF_NAME), [files, peer]);
}

#[tokio::test]
async fn what_is_no_database_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("directory.sqlite");
    std::fs::write(&path, "this is a text, and quite long enough to be seen as no database".repeat(100))
        .unwrap();
    let message = SqliteDirectory::open(&path).unwrap_err().to_string();
    assert!(message.contains("directory.sqlite") && message.contains("not a database"), "{message}");
}

/// Of a name that very many have a part is looked at, another one each time that somebody is to be sent to them.
#[tokio::test]
async fn holders_of_a_very_common_name_are_drawn() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let connection = look(&dir);
    connection.execute_batch("INSERT INTO names VALUES (1, 'common')").unwrap();
    connection
        .execute(
            "WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 30000)
             INSERT INTO peers (kind, key, name, addresses, rest_url, grpc_port, version, visible, last_seen_ms, files)
             SELECT 0, unhex(format('%064x', i)), 'p' || i, '[]', '', 1, '', i % 10 <> 0, 1, 1 FROM i",
            [],
        )
        .unwrap();
    connection
        .execute(
            "INSERT INTO files (peer, share, name_id, content, size, modified_ms, generation)
             SELECT id, 's', 1, ?1, 1, 1, 0 FROM peers",
            [ContentHash::of(b"x").as_bytes()],
        )
        .unwrap();
    draws_from_all_of_very_many(&directory).await;
}

/// Waits until every name can be found by its parts.
pub(super) async fn indexed(dir: &TempDir) {
    for _ in 0..500 {
        if text::behind(&look(dir)).unwrap() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the text index is still behind");
}

#[tokio::test]
async fn names_that_nobody_has_are_forgotten() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    settle(&directory, 1, &[file("only-mine", "1"), file("ours", "2"), file("replaced", "3")]).await;
    let other = settle(&directory, 2, &[file("ours", "2")]).await;
    indexed(&dir).await;
    let session = settle(&directory, 1, &[file("ours", "2")]).await;
    let count = |sql: &str| look(&dir).query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM names"), 1);
    assert_eq!(count("SELECT count(*) FROM names_text WHERE names_text MATCH '\"nly\"'"), 0);
    for (number, session) in [(1, session), (2, other)] {
        let gone = Change::Removed { share: "s".to_owned(), name: "ours".to_owned() };
        let batch = Batch { reset: false, changes: vec![gone], through_sequence: 9, ..whole(&[]) };
        assert!(directory.apply(peer(number), session, batch, 9).await.unwrap().agrees);
    }
    assert_eq!(count("SELECT count(*) FROM names"), 0);
    assert_sound(&dir).await;
}

/// The text index agrees with the table that it is of.
pub(super) async fn assert_sound(dir: &TempDir) {
    indexed(dir).await;
    let sql = "INSERT INTO names_text (names_text, rank) VALUES ('integrity-check', 1)";
    look(dir).execute(sql, []).unwrap();
}

#[tokio::test]
async fn much_is_forgotten_in_steps_that_may_be_cut_off() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let many: Vec<_> = (0..12_000).map(|number| file(&format!("file-{number:05}"), "x")).collect();
    settle(&directory, 1, &many).await;
    let session = settle(&directory, 1, &many[..10]).await;
    assert_eq!(directory.totals().await.unwrap().files, 10);

    directory.apply(peer(1), session, whole(&many), 8).await.unwrap();
    // One step, as if the maestro were killed after it.
    let first_step = whole(&many[..10]);
    let cut = directory
        .write(move |connection| catalog::apply(connection, peer(1), session, &first_step, 9))
        .await
        .unwrap();
    assert!(matches!(cut, Progress::Concluding(_)));
    let left = directory.totals().await.unwrap().files;
    assert!((5000..=7000).contains(&left), "{left}");
    let held = directory.begin(peer(1), profile("p1"), 10).await.unwrap();
    assert_eq!((held.epoch, held.applied), (1, 10));
    let end = Batch { reset: false, changes: Vec::new(), ..whole(&many[..10]) };
    assert!(directory.apply(peer(1), held.session, end, 11).await.unwrap().agrees);
    assert_eq!(directory.totals().await.unwrap().files, 10);
}

#[tokio::test]
async fn much_that_is_known_already_is_looked_at_in_steps() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let many: Vec<_> = (0..45_000).map(|number| file(&format!("file-{number:05}"), "x")).collect();
    let session = settle(&directory, 1, &many).await;
    let again = whole(&many);
    let step =
        directory.write(move |connection| catalog::apply(connection, peer(1), session, &again, 8)).await;
    assert!(matches!(step.unwrap(), Progress::Concluding(_)));
    let session = settle(&directory, 1, &many[..44_999]).await;
    assert_eq!(directory.totals().await.unwrap().files, 44_999);
    let end = Batch { reset: false, changes: Vec::new(), ..whole(&many[..44_999]) };
    assert!(directory.apply(peer(1), session, end, 9).await.unwrap().agrees);
}

/// Whatever went wrong with the tally that is kept in steps: it is counted anew where it should be, in steps too.
#[tokio::test]
async fn a_false_tally_is_counted_anew() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let many: Vec<_> = (0..45_000).map(|number| file(&format!("file-{number:05}"), "x")).collect();
    let session = settle(&directory, 1, &many).await;
    let end = |recount| {
        let complete = complete(&many).map(|complete| Complete { recount, ..complete });
        Batch { reset: false, changes: Vec::new(), complete, ..whole(&many) }
    };
    let spoil = "UPDATE peers SET files = 3, bytes = 1, digest = randomblob(16)";
    look(&dir).execute(spoil, []).unwrap();
    assert!(!directory.apply(peer(1), session, end(false), 8).await.unwrap().agrees);
    assert!(directory.apply(peer(1), session, end(true), 8).await.unwrap().agrees);
    let (record, _) = directory.names_of(PeerKey::Synced(peer(1)), None, 1).await.unwrap().unwrap();
    assert_eq!((record.files, record.bytes), (45_000, 45_000));
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_ends() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let session = settle(&directory, 1, &[file("a", "1")]).await;
    let limit = |pages: i64| {
        directory.write(move |connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok(())
        })
    };
    limit(1).await.unwrap();
    let many: Vec<_> = (0..5000).map(|number| file(&format!("file-{number}"), "x")).collect();
    let batch = || Batch { reset: false, through_sequence: 9, complete: None, ..whole(&many) };
    let error = directory.apply(peer(1), session, batch(), 9).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Full(_)), "{error}");
    // All or nothing, and the rest still answers.
    assert_eq!(directory.list(None, 10).await.unwrap().items.len(), 1);
    limit(1_000_000).await.unwrap();
    assert_eq!(directory.apply(peer(1), session, batch(), 9).await.unwrap().sequence, 9);
}

/// Pages that the budget ends, not the limit, lead on to everything.
#[tokio::test]
async fn a_spent_budget_ends_a_page_and_not_the_list() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    // One visible name after more hidden ones than one call looks at.
    let hidden: Vec<_> = (0..1000).map(|number| file(&format!("h{number:04}"), "x")).collect();
    settle(&directory, 1, &hidden).await;
    directory.set_visible(peer(1), false, None).await.unwrap();
    settle(&directory, 2, &[file("z", "y")]).await;
    let page = directory.list(None, 10).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
    let connection = look(&dir);
    let mut after = None;
    let mut seen = Vec::new();
    let mut calls = 0;
    loop {
        calls += 1;
        let mut budget = Budget::new(100);
        after = names::walk(
            &connection,
            &crate::directory::walking::Filter::all(None),
            after.as_ref(),
            &mut budget,
            |name, _, _| {
                seen.push(name.to_owned());
                Ok(names::Step::Next)
            },
        )
        .unwrap();
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), calls), (1001, 11));
    assert!(seen.is_sorted());
}

/// Many matches are walked and few are sorted; both ways must answer the same.
#[tokio::test]
async fn a_common_text_and_a_large_peer_are_walked_in_order() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir);
    let many: Vec<_> = (0..10_500).map(|number| file(&format!("photo-{number:05}.jpg"), "x")).collect();
    settle(&directory, 1, &many).await;
    settle(&directory, 2, &[file("a", "1"), file("photo-00000a.jpg", "x")]).await;
    let names = |page: Page<Found, NamePosition>| {
        page.items.into_iter().map(|found| found.file.name).collect::<Vec<_>>()
    };
    let common = Search { text: "PHOTO".to_owned(), ..Search::default() };
    let page = directory.search(common.clone(), None, 3).await.unwrap();
    let next = page.next.clone();
    assert_eq!(names(page), ["photo-00000.jpg", "photo-00000a.jpg", "photo-00001.jpg"]);
    assert_eq!(names(directory.search(common, next, 1).await.unwrap()), ["photo-00002.jpg"]);
    let of_first = Search { peer: Some(PeerKey::Synced(peer(1))), ..Search::default() };
    let page = directory.search(of_first, None, 2).await.unwrap();
    assert_eq!(names(page), ["photo-00000.jpg", "photo-00001.jpg"]);
    let (_, page) = directory.names_of(PeerKey::Synced(peer(1)), None, 2).await.unwrap().unwrap();
    assert_eq!(page.items, ["photo-00000.jpg", "photo-00001.jpg"]);
}

#[derive(Debug, Clone)]
enum Action {
    Upsert(u8, u8),
    Remove(u8),
    Resend,
}

fn actions() -> impl Strategy<Value = Vec<Vec<Action>>> {
    let action = prop_oneof![
        6 => (0..8u8, 0..4u8).prop_map(|(name, content)| Action::Upsert(name, content)),
        3 => (0..8u8).prop_map(Action::Remove),
        1 => Just(Action::Resend),
    ];
    prop::collection::vec(prop::collection::vec(action, 0..6), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After any sequence of batches the digest that is kept in steps is that of the catalog, computed anew.
    #[test]
    fn the_kept_digest_is_the_catalogs(batches in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let directory = open(&dir);
            let held = directory.begin(peer(1), profile("p1"), 1).await.unwrap();
            let mut model = std::collections::BTreeMap::new();
            let mut sequence = 0;
            for (index, actions) in batches.into_iter().enumerate() {
                let mut changes = Vec::new();
                let mut reset = index == 0;
                for action in actions {
                    match action {
                        Action::Upsert(name, content) => {
                            let file = file(&name.to_string(), &content.to_string());
                            model.insert(name, file.clone());
                            changes.push(Change::Upsert(file));
                        }
                        Action::Remove(name) => {
                            model.remove(&name);
                            changes.push(Change::Removed { share: "s".to_owned(), name: name.to_string() });
                        }
                        Action::Resend => {
                            reset = true;
                            changes = upserts(&model.values().cloned().collect::<Vec<_>>());
                        }
                    }
                }
                sequence += 1;
                let files: Vec<_> = model.values().cloned().collect();
                // A first batch that is a reset holds all there is; a later one only if it was sent again.
                let batch = Batch { epoch: 1, reset, changes, through_sequence: sequence, complete: complete(&files) };
                let applied = directory.apply(peer(1), held.session, batch, 1).await.unwrap();
                prop_assert!(applied.agrees, "after batch {index}");
            }
            let wrong = Some(Complete { digest: Digest([1; 16]), files: model.len() as u64, recount: true });
            let last = Batch { epoch: 1, reset: false, changes: Vec::new(), through_sequence: sequence, complete: wrong };
            prop_assert!(!directory.apply(peer(1), held.session, last, 1).await.unwrap().agrees);
            Ok(())
        })?;
    }
}
