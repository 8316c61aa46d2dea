//! What must survive: killed fetchers, killed maestros, killed sources, and sources that lie.
//!
//! The same with a file of 2 GiB is in `large.rs`.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::ensure;
use p2p_content::ContentHash;
use p2p_proto::control::{SourceState, Transfer, TransferState};
use p2p_tests::{
    Conduct, LyingPeer, Network, Rest, SeedPeer, Untruth, eventually, hash_of_file, random_bytes,
    random_file, write_file,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const BIG: u64 = 256 * MIB;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(120);

/// A network whose last peer has nothing, and whose others have `grande.bin`. They give 64 MiB/s each: a transfer lasts for
/// seconds then, and can be caught on its way on a fast machine too.
async fn with_big_file(peers: usize) -> (Network, ContentHash) {
    let builder = Network::builder().peers(peers).peers_with(move |number, settings| {
        if number < peers {
            settings.set("limits.up_bytes_per_sec", 64 << 20);
        }
    });
    let network = builder.files(move |number, shared| {
        if number < peers { random_file(&shared.join("grande.bin"), BIG, 1).map(drop) } else { Ok(()) }
    });
    let network = network.start().await.unwrap();
    let hash = network.peer(1).unwrap().hash_of("grande.bin").unwrap();
    (network, hash)
}

/// Begins to fetch `grande.bin` to the last peer, and gives the transfer as it is when this share of it is there.
async fn fetched_to(network: &Network, percent: u64) -> Transfer {
    let peer = network.peers().last().unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let what = format!("{percent} % are there");
    let there = |transfer: &Transfer| transfer.done_bytes >= BIG / 100 * percent;
    let transfer = peer.transfer_until(transfer.id, TRANSFERRED, &what, there).await.unwrap();
    assert!(!transfer.state.is_ended(), "it was too fast to be caught on its way: {transfer:?}");
    transfer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetcher_goes_on_where_it_was() {
    let (mut network, hash) = with_big_file(2).await;
    let before = fetched_to(&network, 45).await;
    let daemon = network.peer_mut(2).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();

    let peer = network.peer(2).unwrap();
    let done = peer.transfer_done(before.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
    println!("killed at {} MiB, asked for {} KiB again", before.done_bytes / MIB, done.wasted_bytes / 1024);
    assert!(done.wasted_bytes < BIG / 20, "{} bytes were asked for again", done.wasted_bytes);
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetcher_asks_again_for_little_by_its_sources_account() {
    const SIZE: u64 = 96 * MIB;
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let bytes = random_bytes(96 << 20, 1);
    let hash = ContentHash::of(&bytes);
    let source = LyingPeer::start("honrado", Conduct::slow(48 << 20), [("grande.bin", bytes)]).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let half = |transfer: &Transfer| transfer.done_bytes >= SIZE / 2;
    let before = peer.transfer_until(transfer.id, TRANSFERRED, "half of it is there", half).await.unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    source.behave(Conduct::Silent);
    let given = source.given_bytes();
    daemon.restart().await.unwrap();

    // Nothing can come now, and what was there is there.
    let peer = network.peer(1).unwrap();
    let kept = |transfer: &Transfer| transfer.done_bytes >= before.done_bytes / 100 * 95;
    peer.transfer_until(transfer.id, SOON, "it remembers what it had", kept).await.unwrap();
    source.behave(Conduct::Honest);
    peer.transfer_done(transfer.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
    let (lacked, again) = (SIZE - before.done_bytes, source.given_bytes() - given);
    println!("it lacked {} MiB, and the source gave {} MiB", lacked / MIB, again / MIB);
    assert!(again <= lacked + before.done_bytes / 20, "{again} bytes were asked for to get {lacked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_fetcher_ends_in_time_and_goes_on() {
    let (mut network, hash) = with_big_file(2).await;
    let before = fetched_to(&network, 20).await;
    for number in [2, 1] {
        let ended =
            network.peer_mut(number).unwrap().daemon_mut().terminate(Duration::from_secs(5)).await.unwrap();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.log);
    }
    // The source comes back later than who waits for it.
    network.peer_mut(2).unwrap().daemon_mut().restart().await.unwrap();
    network.peer_mut(1).unwrap().daemon_mut().restart().await.unwrap();
    let peer = network.peer(2).unwrap();
    peer.transfer_done(before.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_survives_the_death_of_one_of_two_sources() {
    let (mut network, hash) = with_big_file(3).await;
    let before = fetched_to(&network, 20).await;
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(3).unwrap();
    let done = peer.transfer_done(before.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
    let source = |name: &str| done.sources.iter().find(|source| source.peer.name == name).unwrap();
    assert!(source("P1").bytes > 0 && source("P2").bytes > 0, "{:?}", done.sources);
    assert_eq!(source("P1").state, SourceState::Lost, "{:?}", done.sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_its_only_source() {
    let (mut network, hash) = with_big_file(2).await;
    let before = fetched_to(&network, 20).await;
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(2).unwrap();
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting && transfer.reason.is_some();
    peer.transfer_until(before.id, SOON, "it waits", waits).await.unwrap();
    network.peer_mut(1).unwrap().daemon_mut().restart().await.unwrap();
    let peer = network.peer(2).unwrap();
    peer.transfer_done(before.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
}

/// What the directory says, as names and the addresses of those who have them.
async fn directory(maestro: &Rest) -> BTreeSet<(String, String)> {
    let said = maestro.get("/directory").await.unwrap().ok().unwrap();
    let names = said["directory"].as_object().unwrap().iter();
    let rows =
        names.flat_map(|(name, holders)| holders.as_array().unwrap().iter().map(move |row| (name, row)));
    rows.map(|(name, row): (&String, &Value)| (name.clone(), row["rest"].to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_maestro_loses_nothing_and_friends_answer_meanwhile() {
    let network = Network::builder().peers(3);
    let network = network.files(|number, shared| {
        (0..50).try_for_each(|file| {
            write_file(&shared.join(format!("{number}/{file}.txt")), format!("{number} {file}"))
        })
    });
    let mut network = network.start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    let plain = SeedPeer::start([("plano.txt", "plano")]).await.unwrap();
    plain.register(&maestro).await.unwrap();
    for (here, there) in [(1, 2), (2, 1)] {
        let there = network.peer(there).unwrap().address();
        network.peer(here).unwrap().ctl(["friends", "add", &there]).await.unwrap().ok().unwrap();
    }
    let before = directory(&maestro).await;
    assert_eq!(before.len(), 151);

    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(2).unwrap();
    peer.ctl(["fetch", "1/7.txt"]).await.unwrap().ok().unwrap();
    assert_eq!(fs::read_to_string(peer.shared("1/7.txt")).unwrap(), "1 7");
    let meanwhile = peer.write("mientras.txt", "mientras tanto").unwrap();
    fs::remove_file(peer.shared("2/0.txt")).unwrap();

    network.maestro_mut().unwrap().daemon_mut().restart().await.unwrap();
    let after = directory(&maestro).await;
    let lost: Vec<_> = before.difference(&after).filter(|(name, _)| name != "2/0.txt").collect();
    assert_eq!(lost, Vec::<&(String, String)>::new());
    network.settled().await.unwrap();
    eventually(SOON, "what changed meanwhile is in the directory", async || {
        let located = maestro.locate("mientras.txt").await?;
        ensure!(located.len() == 1 && located[0]["content"] == meanwhile.to_string(), "{located:?}");
        ensure!(maestro.locate("2/0.txt").await?.is_empty(), "a removed file is still there");
        ensure!(maestro.locate("1/7.txt").await?.len() == 2, "the fetched file is not there");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_a_new_catalog_replaces_its_old_one() {
    let network = Network::builder().peers(1);
    let network = network.files(|_, shared| {
        write_file(&shared.join("a.txt"), "a")?;
        write_file(&shared.join("b.txt"), "b")
    });
    let mut network = network.start().await.unwrap();
    let peer = network.peer_mut(1).unwrap();
    peer.daemon_mut().terminate(Duration::from_secs(5)).await.unwrap();
    for entry in fs::read_dir(peer.state("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !fs::read(&path).unwrap().starts_with(b"-----BEGIN PRIVATE KEY-----") {
            fs::remove_file(&path).unwrap();
        }
    }
    fs::remove_file(peer.shared("a.txt")).unwrap();
    peer.write("c.txt", "c").unwrap();
    peer.daemon_mut().restart().await.unwrap();
    network.settled().await.unwrap();
    let names: Vec<String> =
        directory(&network.maestro().unwrap().rest().unwrap()).await.into_iter().map(|row| row.0).collect();
    assert_eq!(names, ["b.txt", "c.txt"]);
}

/// P2 fetches `mentira.bin`, of 24 pieces, from the honest P1, which sends at this rate at the most (0: any), and from a
/// peer of this conduct.
async fn fetched_beside(conduct: Conduct, honest_rate: u64) -> (Network, LyingPeer, Transfer) {
    let builder = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 1 {
            settings.set("limits.up_bytes_per_sec", i64::try_from(honest_rate).unwrap());
        }
    });
    let network = builder.files(|number, shared| match number {
        1 => random_file(&shared.join("mentira.bin"), 24 * MIB, 9).map(drop),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let bytes = random_bytes(24 << 20, 9);
    let liar = LyingPeer::start("mentiroso", conduct, [("mentira.bin", bytes)]).await.unwrap();
    liar.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "mentira.bin", "--detach"]).await.unwrap();
    let done = peer.transfer_done(transfer.id, TRANSFERRED).await.unwrap();
    assert_eq!(
        peer.hash_of("mentira.bin").unwrap(),
        network.peer(1).unwrap().hash_of("mentira.bin").unwrap()
    );
    (network, liar, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_is_dropped_and_named() {
    for every in [1, 5] {
        // Of the 24 pieces, 5 are false at the least. An honest source that is slow gives fewer than those 5 before the
        // liar has given the others: so it is asked for one of them, whatever the order.
        let (network, liar, done) = fetched_beside(Conduct::false_pieces(every), 8 * MIB).await;
        assert!(liar.given_bytes() > 0, "it was asked");
        let source = done.sources.iter().find(|source| source.peer.name == "mentiroso").unwrap();
        assert_eq!(source.state, SourceState::Dropped, "{source:?}");
        assert!(source.reason.is_some() && done.wasted_bytes > 0, "{done:?}");
        let shown = network.peer(2).unwrap().ctl(["transfers"]).await.unwrap().ok().unwrap().text();
        assert!(shown.contains("mentiroso"), "the user is told: {shown}");
        let log = network.peer(2).unwrap().daemon().log();
        let id = liar.id().short();
        let named = |line: &str| line.contains("WARN") && (line.contains("mentiroso") || line.contains(&id));
        assert!(log.lines().any(named), "the log names it: {log}");
        // Dropped for this content: not asked again while the transfer went on.
        assert!(liar.given_bytes() < 24 * MIB, "it gave {} bytes", liar.given_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_and_goes_at_once_is_dropped_and_named() {
    let (_network, liar, done) = fetched_beside(Conduct::FalseAndGone, 8 * MIB).await;
    let source = done.sources.iter().find(|source| source.peer.name == "mentiroso").unwrap();
    assert_eq!(source.state, SourceState::Dropped, "{source:?}");
    assert!(source.reason.as_ref().unwrap().contains("false bytes"), "{source:?}");
    assert_eq!(liar.streams(), 1, "it was asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_manifest_a_silent_and_a_slow_source_hold_nothing_up() {
    for conduct in [Conduct::FalseManifest, Conduct::Silent, Conduct::slow(64 * 1024)] {
        let began = std::time::Instant::now();
        let (_network, _liar, done) = fetched_beside(conduct, 0).await;
        println!("beside {conduct:?}: {} ms", began.elapsed().as_millis());
        let honest = done.sources.iter().find(|source| source.peer.name == "P1").unwrap();
        // Who lies about the manifest gives true bytes, perhaps all of them: it is not known as a liar before it is asked for
        // the manifest, and another may have been.
        assert!(
            conduct == Conduct::FalseManifest || honest.bytes > 12 * MIB,
            "{conduct:?}: {:?}",
            done.sources
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_alone_delivers_nothing_and_an_honest_source_ends_it_well() {
    let untruths = [Untruth::Bitmap, Untruth::Gained, Untruth::Beyond].map(Conduct::Tells);
    let others = [Conduct::false_pieces(2), Conduct::FalseManifest, Conduct::Empty];
    for conduct in others.into_iter().chain(untruths) {
        let network = Network::builder().peers(2).start().await.unwrap();
        let bytes = random_bytes(6 << 20, 3);
        let liar = LyingPeer::start("mentiroso", conduct, [("mentira.bin", bytes.clone())]).await.unwrap();
        liar.join(&network.maestro().unwrap().address()).await.unwrap();
        let peer = network.peer(2).unwrap();
        let transfer: Transfer = peer.ctl_json(&["fetch", "mentira.bin", "--detach"]).await.unwrap();
        let waits = |transfer: &Transfer| {
            transfer.state == TransferState::Waiting
                && transfer.sources.iter().any(|source| source.state == SourceState::Dropped)
        };
        let waiting = peer.transfer_until(transfer.id, SOON, "the liar is dropped", waits).await.unwrap();
        if conduct == Conduct::FalseManifest {
            let liar = &waiting.sources[0];
            assert!(liar.bytes == 0 && liar.reason.as_ref().unwrap().contains("manifest"), "{liar:?}");
        }
        assert!(!peer.shared("mentira.bin").exists());
        network.peer(1).unwrap().write("mentira.bin", &bytes).unwrap();
        peer.transfer_done(transfer.id, Duration::from_secs(60)).await.unwrap();
        assert_eq!(hash_of_file(&peer.shared("mentira.bin")).unwrap(), ContentHash::of(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_served_is_not_served_torn() {
    let (network, _) = with_big_file(2).await;
    let before = fetched_to(&network, 20).await;
    let path = network.peer(1).unwrap().shared("grande.bin");
    // The same length, other bytes: only the proof of each piece can tell.
    random_file(&path, BIG, 2).unwrap();
    let peer = network.peer(2).unwrap();
    let ends = |transfer: &Transfer| matches!(transfer.state, TransferState::Waiting | TransferState::Done);
    let after = peer.transfer_until(before.id, TRANSFERRED, "it ends or waits", ends).await.unwrap();
    // What was asked for is delivered, or nothing: the old bytes may have been out before the change.
    let right = after.content.unwrap();
    match after.state {
        TransferState::Done => assert_eq!(peer.hash_of("grande.bin").unwrap().to_string(), right),
        _ => assert!(!peer.shared("grande.bin").exists()),
    }
}

/// What a peer keeps of its catalog as a whole went wrong on its disk: the maestro's question shows it, and it is counted anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_remembers_its_catalog_wrongly_counts_it_anew() {
    let network = Network::builder().peers(2).files(|number, shared| {
        (0..20).try_for_each(|file| write_file(&shared.join(format!("{number}-{file}")), "x"))
    });
    let mut network = network.start().await.unwrap();
    let database = network.peer(1).unwrap().state("catalog.sqlite");
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.terminate(SOON).await.unwrap();
    let spoil = "UPDATE catalog SET digest = x'0102030405060708090a0b0c0d0e0f10', announced = 7";
    assert_eq!(rusqlite::Connection::open(database).unwrap().execute(spoil, []).unwrap(), 1);
    daemon.restart().await.unwrap();
    let peer = network.peer(1).unwrap();
    peer.settled().await.unwrap();
    assert!(peer.daemon().log_of_this_run().contains("counting them anew"), "{}", peer.daemon().log());
    // Once, and not with a whole catalog; what comes after agrees by itself.
    peer.write("nuevo", "y").unwrap();
    peer.ctl(["refresh"]).await.unwrap().ok().unwrap();
    peer.settled().await.unwrap();
    let rest = network.maestro().unwrap().rest().unwrap();
    assert_eq!(rest.locate("nuevo").await.unwrap().len(), 1);
    let metrics = rest.get("/metrics").await.unwrap().text;
    for line in ["maestrod_sync_resyncs_total 0", "maestrod_sync_files_repaired_total 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}
