//! That the text index follows the names, through everything that may come in between, on this store. They need PostgreSQL's
//! programs: `cargo xtask test-large` runs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_service::health::PATIENCE;
use p2p_service::tasks::Tasks;
use p2p_tests::PostgresServer;

use super::tests::{on, open};
use super::*;
use crate::directory::conformance::{complete, file, names_with, peer, profile, settle, upserts, whole};
use crate::directory::{BatchPosition, BatchSeen, Change, Order, RankPosition, Through};

async fn take_all(directory: &PostgresDirectory) {
    while directory.take_noted().await.unwrap() {}
}

/// That the index has each name that somebody has, once, and no other, with nothing left to be done.
fn assert_sound(server: &PostgresServer, database: &str) {
    let differing = "SELECT count(*) FROM (SELECT DISTINCT name FROM files) AS f
                     FULL JOIN texts t ON t.name = f.name WHERE t.name IS NULL OR f.name IS NULL";
    assert_eq!(server.sql(database, differing).unwrap(), "0");
    assert_eq!(server.sql(database, "SELECT count(*) FROM noted_texts").unwrap(), "0");
}

/// What is announced is found at once where the index is hardly behind, and the index gets it in steps.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn names_are_found_before_the_index_has_them() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "behind").await;
    let many: Vec<_> = (0..25_000).map(|number| file(&format!("photo-{number:05}"), "x")).collect();
    settle(&directory, 1, &many).await;
    assert_eq!(names_with(&directory, "o-24999").await, (vec![], 25_000), "so many are not looked at");
    assert_eq!(directory.holdings().await.unwrap().names_unindexed, 25_000);
    for behind in [15_000, 5000, 0] {
        assert!(directory.take_noted().await.unwrap());
        for number in ["o-00000", "o-24999"] {
            let names = vec![format!("phot{number}")];
            assert_eq!(names_with(&directory, number).await, (names, behind));
        }
    }
    assert!(!directory.take_noted().await.unwrap());
    assert_sound(&server, "behind");
}

/// A name leaves the index when the last who had it has it no more.
#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_name_that_nobody_has_leaves_the_index() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "gone").await;
    let both = [file("archivo-1", "1"), file("archivo-2", "2")];
    settle(&directory, 1, &both).await;
    let session = settle(&directory, 2, &both).await;
    take_all(&directory).await;
    let gone = |name: &str| Change::Removed { share: "s".to_owned(), name: name.to_owned() };
    let batch = |changes, files: &[_]| Batch {
        epoch: 1,
        reset: false,
        changes,
        through_sequence: 9,
        complete: complete(files),
    };
    let left = batch(vec![gone("archivo-1")], &both[1..]);
    assert!(directory.apply(peer(2), session, left, 9).await.unwrap().agrees);
    take_all(&directory).await;
    assert_eq!(
        names_with(&directory, "chivo").await,
        (vec!["archivo-1".to_owned(), "archivo-2".to_owned()], 0)
    );
    // A full catalog without it, and a name that comes and goes before the index is told.
    settle(&directory, 1, &both[1..]).await;
    let brief = file("archivo-3", "3");
    let changes = vec![Change::Upsert(brief.clone())];
    let with = batch(changes, &[both[1].clone(), brief]);
    assert!(directory.apply(peer(2), session, with, 9).await.unwrap().agrees);
    let without = batch(vec![gone("archivo-3")], &both[1..]);
    assert!(directory.apply(peer(2), session, without, 9).await.unwrap().agrees);
    take_all(&directory).await;
    assert_eq!(names_with(&directory, "chivo").await, (vec!["archivo-2".to_owned()], 0));
    assert_sound(&server, "gone");
}

/// Maestros that change catalogs and take steps at the same time come to one index.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn maestros_take_steps_at_once() {
    let server = PostgresServer::start().unwrap();
    let first = open(&server, "steps").await;
    let address = server.address("steps");
    let maestros = [Arc::new(first), Arc::new(on(&address)), Arc::new(on(&address))];
    let work = maestros.iter().zip(1u8..).map(|(maestro, number)| {
        let maestro = Arc::clone(maestro);
        tokio::spawn(async move {
            let session = maestro.begin(peer(number), profile("p"), 5).await.unwrap().session;
            for round in 0..20usize {
                // The same names, at other times.
                let place = (round + usize::from(number) * 7) % 20;
                let files: Vec<_> =
                    (0..300).map(|name| file(&format!("f-{:04}", place * 100 + name), "x")).collect();
                let batch = Batch { through_sequence: 300, ..whole(&files) };
                assert!(maestro.apply(peer(number), session, batch, 7).await.unwrap().agrees);
                maestro.take_noted().await.unwrap();
            }
        })
    });
    for done in futures::future::join_all(work).await {
        done.unwrap();
    }
    take_all(&maestros[1]).await;
    assert_sound(&server, "steps");
}

/// The index is brought up to date by whoever runs, with what others have noted as well.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn the_index_comes_up_to_date_by_itself() {
    let server = PostgresServer::start().unwrap();
    let (directory, other) = (Arc::new(open(&server, "itself").await), on(&server.address("itself")));
    let tasks = Tasks::new();
    let (indexing, heart, token) =
        (Arc::clone(&directory), tasks.heartbeat("text-index", PATIENCE), tasks.token());
    tasks.spawn("text-index", async move { indexing.keep_text_index(heart, token).await });
    let mut slowest = Duration::ZERO;
    for (number, store) in (1..).zip([&*directory, &other]) {
        let files: Vec<_> = (0..200).map(|name| file(&format!("photo-{number}-{name:05}"), "x")).collect();
        settle(store, number, &files).await;
        let began = Instant::now();
        while server.sql("itself", "SELECT count(*) FROM noted_texts").unwrap() != "0" {
            assert!(began.elapsed() < Duration::from_secs(30));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    assert_sound(&server, "itself");
    tasks.shutdown(Duration::from_secs(5)).await;
}

/// Where too much is left to be done, who brings more does some of it.
#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn changes_wait_for_an_index_that_is_far_behind() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "far").await;
    let files = [file("photo-1", "1"), file("photo-2", "2")];
    let session = settle(&directory, 1, &files).await;
    assert_eq!(directory.holdings().await.unwrap().names_unindexed, 2);
    directory.notes.say_that_there_are_many();
    let batch = Batch { changes: upserts(&files[..1]), reset: false, ..whole(&files) };
    assert!(directory.apply(peer(1), session, batch, 9).await.unwrap().agrees);
    assert_sound(&server, "far");
    assert!(!directory.notes.are_many());
}

/// What the index does not have yet comes after what it has, whatever it takes in between two pages.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn names_behind_the_index_are_in_the_last_batches() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "batches").await;
    let many: Vec<_> = (0..27_000).map(|number| file(&format!("photo/{number:05}"), "x")).collect();
    settle(&directory, 1, &many).await;
    for _ in 0..2 {
        assert!(directory.take_noted().await.unwrap());
    }
    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = directory.find(Pattern::parse("photo").unwrap(), after, 1500).await.unwrap();
        assert_eq!(page.order, Order::Batches);
        names.extend(page.items.into_iter().map(|found| found.file.name));
        after = page.next;
        pages += 1;
        if after.is_none() {
            break;
        }
        // In the midst of the last batch.
        if pages == 16 {
            assert!(directory.take_noted().await.unwrap());
        }
    }
    let told = names.len();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), told), (27_000, 27_000));
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_forged_place_is_refused_or_leads_on() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "forged").await;
    settle(&directory, 1, &[file("photo-1", "1"), file("photo-2", "2")]).await;
    take_all(&directory).await;
    let last = |name: &str| RankPosition {
        rank: 2,
        at: NamePosition { name: name.to_owned(), through: Through::Name },
    };
    let find = async |after: &[u8], through: Option<&[u8]>| {
        let seen = through.map(|through| BatchSeen { through: through.to_vec(), last: last("photo-1") });
        let place = BatchPosition { opened: false, after: after.to_vec(), seen };
        let after = Some(FindPosition::Batches(place));
        let page = directory.find(Pattern::parse("photo").unwrap(), after, 10).await?;
        assert_eq!(page.next, None);
        Ok::<_, DirectoryError>(page.items.len())
    };
    let [low, high] = [i64::MIN, i64::MAX].map(i64::to_be_bytes);
    assert_eq!(find(&[], None).await.unwrap(), 2);
    assert_eq!(find(&low, None).await.unwrap(), 2);
    assert_eq!(find(&high, None).await.unwrap(), 0);
    assert_eq!(find(&low, Some(&high)).await.unwrap(), 1);
    // A batch that ends before it begins has nothing in it; what follows is told.
    assert_eq!(find(&high, Some(&low)).await.unwrap(), 0);
    // A place of the order that an earlier release had.
    let earlier = [&7i64.to_be_bytes()[..], &[1], b"s", b"photo-1"].concat();
    for (after, through) in [(&earlier[..], None), (&low, Some(&earlier[..]))] {
        let refused = find(after, through).await;
        assert!(matches!(refused, Err(DirectoryError::Position)), "{refused:?}");
    }
}
