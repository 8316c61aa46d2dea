//! The conformance suite on this store, and what is this store's alone: its versions, and others that use the same
//! database. They need PostgreSQL's programs: `cargo xtask test-large` runs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_service::health::PATIENCE;
use p2p_service::tasks::Tasks;
use p2p_tests::PostgresServer;

use super::*;
use crate::config::Config;
use crate::directory::conformance::{
    complete, conformance, draws_from_all_of_very_many, file, peer, profile, settle, upserts, whole,
};
use crate::directory::sharing::Shown;
use crate::directory::{Change, Complete, Order};
use crate::presence::Presence;

/// A maestro's store on this database.
pub(super) fn on(address: &str) -> PostgresDirectory {
    PostgresDirectory::new(&Settings::new(address, None, None).unwrap()).unwrap()
}

/// A store on a database of its own.
pub(super) async fn open(server: &PostgresServer, name: &str) -> PostgresDirectory {
    let directory = on(&server.create_database(name).unwrap());
    directory.prepare().await.unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn conforms() {
    let server = PostgresServer::start().unwrap();
    let (number, tasks) = (std::cell::Cell::new(0), Tasks::new());
    conformance(|| {
        number.set(number.get() + 1);
        let name = format!("store{}", number.get());
        let opened = open(&server, &name);
        let opened = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opened));
        let directory = Arc::new(opened);
        let (indexing, heart, token) =
            (Arc::clone(&directory), tasks.heartbeat(name, PATIENCE), tasks.token());
        tasks.spawn("text-index", async move { indexing.keep_text_index(heart, token).await });
        directory
    })
    .await;
    tasks.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_newer_schema_is_refused_and_left_alone() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "newer").await;
    assert_eq!(directory.look().await.unwrap(), Look::Known { peers: 0 });
    server.sql("newer", "UPDATE schema_version SET version = 99").unwrap();
    for refused in [directory.prepare().await, directory.look().await.map(|_| ())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, known: schema::VERSION }));
        assert!(error.to_string().contains("newer maestrod"), "{error}");
    }
    assert_eq!(server.sql("newer", "SELECT version FROM schema_version").unwrap(), "99");
}

/// A database as version 1 left it, with what peers had told: it opens, is brought to this release's version, and goes on.
#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_database_of_an_older_release_opens() {
    let server = PostgresServer::start().unwrap();
    let address = server.create_database("older").unwrap();
    let columns = "SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable), E'\\n'
                   ORDER BY table_name, column_name) FROM information_schema.columns WHERE table_schema = 'public'";
    server.create_database("version1").unwrap();
    server.sql("version1", schema::MIGRATIONS[0]).unwrap();
    let of_version_1 = server.sql("version1", columns).unwrap();
    {
        let directory = on(&address);
        directory.prepare().await.unwrap();
        settle(&directory, 1, &[file("a", "1"), file("archivo", "2")]).await;
    }
    let fresh = server.sql("older", columns).unwrap();
    server
        .sql(
            "older",
            "DROP TABLE maestros, network, texts, noted_texts, noted_turn;
             ALTER TABLE files ADD COLUMN trigrams INT4[] NOT NULL DEFAULT '{1}';
             ALTER TABLE files ALTER COLUMN trigrams DROP DEFAULT;
             CREATE INDEX files_by_text ON files USING gin (trigrams);
             ALTER TABLE peers DROP COLUMN holder, DROP COLUMN connected;
             UPDATE schema_version SET version = 1",
        )
        .unwrap();
    let made: Vec<_> = of_version_1.lines().map(str::to_owned).collect();
    let older = server.sql("older", columns).unwrap();
    let older: Vec<_> = older.lines().filter(|line| !line.starts_with("schema_version ")).collect();
    assert_eq!(older, made, "it is not as version 1 had it");

    let directory = on(&address);
    directory.prepare().await.unwrap();
    directory.claim(peer(9)).await.unwrap();
    assert_eq!(server.sql("older", "SELECT version FROM schema_version").unwrap(), "3");
    assert_eq!(server.sql("older", columns).unwrap(), fresh);
    let held = directory.begin(peer(1), profile("p1"), 9).await.unwrap();
    assert_eq!((held.epoch, held.applied), (1, 2), "nothing is to be told again");
    assert_eq!(directory.totals().await.unwrap().files, 2);
    settle(&directory, 2, &[file("a", "1")]).await;
    let found = directory.locate(crate::directory::Wanted::Name("a".to_owned()), 10).await.unwrap();
    assert_eq!(found[0].sources.len(), 2);
    // The text index is made anew.
    for unindexed in [3, 0] {
        let page = directory.find(Pattern::parse("chivo").unwrap(), None, 10).await.unwrap();
        assert_eq!((page.items.len(), page.unindexed), (1, unindexed));
        while directory.take_noted().await.unwrap() {}
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_database_is_of_one_network() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "claimed").await;
    for _ in 0..2 {
        directory.claim(peer(1)).await.unwrap();
    }
    let refused = directory.claim(peer(2)).await.unwrap_err().to_string();
    assert!(refused.contains(&peer(1).to_string()) && refused.contains("identity.key"), "{refused}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn maestros_that_begin_at_once_make_one_schema() {
    let server = PostgresServer::start().unwrap();
    let address = server.create_database("shared").unwrap();
    assert_eq!(on(&address).look().await.unwrap(), Look::Empty);
    let maestros: Vec<_> = (0..8).map(|_| on(&address)).collect();
    let prepared = futures::future::join_all(maestros.iter().map(PostgresDirectory::prepare)).await;
    prepared.into_iter().for_each(|prepared| prepared.unwrap());
    // What one writes another reads, and a stream on one ends that on another.
    let session = settle(&maestros[0], 1, &[file("a", "1")]).await;
    assert_eq!(maestros[1].totals().await.unwrap().files, 1);
    let held = maestros[1].begin(peer(1), profile("p1"), 9).await.unwrap();
    assert_eq!((held.epoch, held.applied), (1, 1));
    let refused = maestros[0].apply(peer(1), session, whole(&[]), 9).await;
    assert!(matches!(refused, Err(DirectoryError::Superseded)));
    assert_eq!(maestros[2].visible_peers().await.unwrap(), [peer(1)]);
}

/// Many write at once through several maestros, and each catalog is what its peer says.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn many_peers_change_their_catalogs_at_once() {
    let server = PostgresServer::start().unwrap();
    let address = server.create_database("many").unwrap();
    let maestros: Vec<_> = (0..3).map(|_| Arc::new(on(&address))).collect();
    maestros[0].prepare().await.unwrap();
    let changes = (1..=16).map(|number| {
        let maestro = Arc::clone(&maestros[usize::from(number) % maestros.len()]);
        tokio::spawn(async move {
            let mut files: Vec<_> = (0..200).map(|name| file(&format!("f{name:03}"), "x")).collect();
            let session = settle(&*maestro, number, &files).await;
            for round in 0..10u64 {
                let gone = files.remove(usize::try_from(round).unwrap_or(0) * 7);
                files[0].size += 1;
                let removed = Change::Removed { share: gone.share, name: gone.name };
                let changes = [vec![removed], upserts(&files[..1])].concat();
                let through_sequence = 300 + round;
                let complete = complete(&files);
                let batch = Batch { epoch: 1, reset: false, changes, through_sequence, complete };
                assert!(maestro.apply(peer(number), session, batch, 8).await.unwrap().agrees);
            }
        })
    });
    for changed in futures::future::join_all(changes).await {
        changed.unwrap();
    }
    assert_eq!(maestros[1].totals().await.unwrap().files, 16 * 190);
    let rows = server.sql("many", "SELECT count(*) FROM files").unwrap();
    assert_eq!(rows, (16 * 190).to_string());
}

/// The server goes away and comes back: the store says so, and needs nothing else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = PostgresServer::start().unwrap();
    let directory = open(&server, "back").await;
    let session = settle(&directory, 1, &[file("a", "1")]).await;
    server.stop().unwrap();
    let lost = directory.totals().await;
    assert!(matches!(lost, Err(DirectoryError::Unavailable(_))), "{lost:?}");
    let lost = directory.apply(peer(1), session, whole(&[]), 9).await;
    assert!(matches!(lost, Err(DirectoryError::Unavailable(_))), "{lost:?}");
    assert!(matches!(directory.prepare().await, Err(OpenError::Unreachable(_))));
    server.start_again().unwrap();
    assert_eq!(directory.totals().await.unwrap().files, 1);
    // The stream that was open goes on.
    assert!(directory.apply(peer(1), session, whole(&[file("b", "2")]), 9).await.unwrap().agrees);
    // Of connections that were cut a moment ago nobody hears.
    server.stop().unwrap();
    server.start_again().unwrap();
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(1)]);
}

/// More names than are ranked, more holders than are read at once, pages that end in between.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn pages_hold_together_where_there_is_much() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "much").await;
    let many: Vec<_> = (0..12_000)
        .map(|number| file(&format!("dir/photo-{number:05}"), &format!("{}", number % 900)))
        .collect();
    settle(&directory, 1, &many).await;
    for number in 2..=60 {
        settle(&directory, number, &many[..400]).await;
    }
    while directory.take_noted().await.unwrap() {}
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = directory.find(Pattern::parse("photo").unwrap(), after, 700).await.unwrap();
        assert_eq!(page.order, Order::Batches);
        names.extend(page.items.into_iter().map(|found| (found.file.name, found.sources)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 12_000);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 12_000);
    assert_eq!((names[0].1, names[399].1, names[400].1), (60, 60, 1));
    let ranked = directory.find(Pattern::parse("to-0039").unwrap(), None, 100).await.unwrap();
    assert!(ranked.order == Order::Rank && ranked.items.len() == 10 && ranked.items[0].sources == 60);
    let (mut contents, mut after) = (0, None);
    loop {
        let page = directory.contents(None, after, 50).await.unwrap();
        contents += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(contents, 900);
    let search =
        Search { text: "00011".to_owned(), peer: Some(PeerKey::Synced(peer(1))), ..Search::default() };
    let found = directory.search(search, None, 10).await.unwrap();
    assert_eq!(found.items.iter().map(|found| found.sources).collect::<Vec<_>>(), [60]);
    // A full catalog with hardly anything of the old one forgets the rest, in steps.
    settle(&directory, 1, &many[..3]).await;
    assert_eq!(directory.totals().await.unwrap().files, 59 * 400 + 3);
}

/// Of a name that very many have a part is looked at, another one each time that somebody is to be sent to them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn holders_of_a_very_common_name_are_drawn() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "common").await;
    let x = ContentHash::of(b"x").to_string();
    server
        .sql(
            "common",
            &format!(
                "INSERT INTO peers (kind, key, name, addresses, rest_url, grpc_port, version, visible, last_seen_ms, files)
                 SELECT 0, decode(lpad(to_hex(i), 64, '0'), 'hex'), 'p' || i, '[]', '', 1, '', i % 10 <> 0, 1, 1
                 FROM generate_series(1, 30000) AS i;
                 INSERT INTO files (peer, share, name, content, size, modified_ms, generation)
                 SELECT id, 's', 'common', decode('{x}', 'hex'), 1, 1, 0 FROM peers"
            ),
        )
        .unwrap();
    draws_from_all_of_very_many(&directory).await;
}

/// A tally that says nothing is held beside rows that are: the rows count.
#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_tally_of_nothing_beside_files_is_set_right() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "tally").await;
    let files = [file("a", "1"), file("b", "2")];
    let session = settle(&directory, 1, &files).await;
    let nothing = "UPDATE peers SET files = 0, bytes = 0, digest = decode(repeat('00', 16), 'hex')";
    server.sql("tally", nothing).unwrap();
    let recount = complete(&files).map(|complete| Complete { recount: true, ..complete });
    let batch = Batch { complete: recount, ..whole(&files) };
    assert!(directory.apply(peer(1), session, batch, 9).await.unwrap().agrees);
    assert_eq!(directory.totals().await.unwrap().files, 2);
}

/// Lets this maestro judge others, as if it had beaten for long enough.
fn has_beaten_for_long(maestro: &PostgresDirectory) {
    for secs in (0..=16).rev().step_by(4) {
        maestro.fellow.has_beaten(Instant::now() - Duration::from_secs(secs));
    }
}

/// A stream that begins and is never shown leaves its peer to whoever holds it.
#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_session_that_nobody_shows_keeps_nobody_visible() {
    let server = PostgresServer::start().unwrap();
    let (holder, other) = (open(&server, "unshown").await, on(&server.address("unshown")));
    let first = holder.begin(peer(1), profile("p1"), 5).await.unwrap().session;
    assert!(holder.show(peer(1), first, Shown::Connected, Some(6)).await.unwrap());
    let unshown = other.begin(peer(1), profile("p1"), 7).await.unwrap().session;
    assert!(!holder.show(peer(1), first, Shown::Connected, None).await.unwrap(), "there is a later stream");
    assert!(!other.show(peer(1), unshown, Shown::Hidden, None).await.unwrap(), "it is another's");
    assert!(holder.show(peer(1), first, Shown::Leased, None).await.unwrap());
    assert_eq!(other.visible_peers().await.unwrap(), [peer(1)]);
    assert!(holder.show(peer(1), first, Shown::Hidden, Some(8)).await.unwrap());
    assert_eq!(other.visible_peers().await.unwrap(), []);
    // Who moved is not the old one's to hide.
    assert!(other.show(peer(1), unshown, Shown::Connected, None).await.unwrap());
    assert!(!holder.show(peer(1), first, Shown::Hidden, None).await.unwrap());
    assert_eq!(holder.visible_peers().await.unwrap(), [peer(1)]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn only_of_those_that_are_gone_peers_are_taken_over() {
    let server = PostgresServer::start().unwrap();
    let (old, heir) = (open(&server, "heirs").await, on(&server.address("heirs")));
    has_beaten_for_long(&heir);
    assert!(old.beat().await.unwrap(), "nobody is taken for gone with the first beat");
    heir.beat().await.unwrap();
    let session = old.begin(peer(1), profile("p1"), 5).await.unwrap().session;
    assert!(old.show(peer(1), session, Shown::Connected, None).await.unwrap());
    assert_eq!(heir.take_over().await.unwrap(), []);
    // It was silent when it was looked at, and beats before its peers are taken.
    let mut client = heir.writers.one().await.unwrap();
    let taken = sharing::inherit(&mut client, heir.fellow.id, old.fellow.id).await.unwrap();
    assert_eq!(taken, []);
    assert_eq!(old.held().await.unwrap(), [(peer(1), session)]);
    server.sql("heirs", "UPDATE maestros SET beat_at = now() - INTERVAL '1 minute'").unwrap();
    assert_eq!(heir.take_over().await.unwrap(), [(peer(1), session)]);
    // Whoever did not hear that answer finds it here.
    assert_eq!(heir.take_over().await.unwrap(), []);
    assert_eq!(heir.held().await.unwrap(), [(peer(1), session)]);
    assert!(!old.beat().await.unwrap(), "it was taken for gone");
    assert!(old.show(peer(1), session, Shown::Connected, None).await.unwrap());
    assert!(!heir.show(peer(1), session, Shown::Hidden, None).await.unwrap());
}

/// A peer that cannot be shown now is in nobody's way, and the others see that this maestro is alive.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_peer_that_cannot_be_shown_is_in_nobodys_way() {
    let server = PostgresServer::start().unwrap();
    let directory = Arc::new(open(&server, "blocked").await);
    let tasks = Tasks::new();
    let (_settings, seen) = tokio::sync::watch::channel(Arc::new(Config::default()));
    let presence = Presence::start(Arc::clone(&directory) as Arc<dyn Directory>, seen, &tasks).await.unwrap();
    let mut sessions = Vec::new();
    for number in 1..=2 {
        sessions.push(directory.begin(peer(number), profile("p"), 5).await.unwrap().session);
    }
    let mut client = directory.writers.one().await.unwrap();
    let blocking = client.transaction().await.unwrap();
    let key = peer(1).as_bytes().to_vec();
    blocking.execute("SELECT 1 FROM peers WHERE key = $1 FOR UPDATE", &[&key]).await.unwrap();
    let (blocked, session) = (presence.clone(), sessions[0]);
    let blocked = tokio::spawn(async move { blocked.connect(peer(1), session).await });
    let soon = Duration::from_secs(5);
    let free = tokio::time::timeout(soon, presence.connect(peer(2), sessions[1])).await.unwrap().unwrap();
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(2)]);
    let beat_at = || server.sql("blocked", "SELECT beat_at FROM maestros").unwrap();
    let before = beat_at();
    let beats = async {
        while beat_at() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(soon, beats).await.unwrap();
    assert!(!blocked.is_finished());
    blocking.rollback().await.unwrap();
    let shown = tokio::time::timeout(soon, blocked).await.unwrap().unwrap().unwrap();
    assert_eq!(directory.visible_peers().await.unwrap(), [peer(1), peer(2)]);
    drop((free, shown));
    tasks.shutdown(soon).await;
}

/// What nobody waits for any more the server does not go on with.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn an_abandoned_question_is_cancelled() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "abandoned").await;
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(25)' AND state = 'active'";
    let run = directory.readers.run(async |client: lent::Client| {
        client.batch_execute("SELECT pg_sleep(25)").await?;
        Ok(())
    });
    let begun = async {
        while server.sql("abandoned", sleeping).unwrap() != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        done = run => panic!("{done:?}"),
        () = begun => {}
    }
    let ended = async {
        while server.sql("abandoned", sleeping).unwrap() != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    assert_eq!(directory.totals().await.unwrap().files, 0);
}

/// Connections that are all in use say nothing of the server.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn connections_that_are_in_use_are_no_lost_database() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "busy").await;
    let mut used = Vec::new();
    for _ in 0..8 {
        used.push(directory.readers.one().await.unwrap());
    }
    let refused = directory.totals().await;
    assert!(matches!(refused, Err(DirectoryError::Busy(_))), "{refused:?}");
    drop(used);
    assert_eq!(directory.totals().await.unwrap().files, 0);
}

/// A change that others are in the way of each time is one for later, and no broken database.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn what_others_are_in_the_way_of_to_the_end_is_for_later() {
    let server = PostgresServer::start().unwrap();
    let directory = open(&server, "conflicts").await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    let refused = directory.writers.run(async |client: lent::Client| {
        tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        client.batch_execute("DO $$ BEGIN RAISE 'in the way' USING ERRCODE = '40001'; END $$").await?;
        Ok(())
    });
    let refused: Result<(), _> = refused.await;
    assert!(matches!(refused, Err(DirectoryError::Busy(_))), "{refused:?}");
    assert_eq!(tries.into_inner(), 8);
    assert_eq!(directory.totals().await.unwrap().files, 0);
}
