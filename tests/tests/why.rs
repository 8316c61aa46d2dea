//! What bounds a transfer, as its user is told while it is so.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::ensure;
use p2p_proto::control::{Bound, Transfer, TransferState, WaitsFor, Why};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, eventually, random_bytes, random_file};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
const TRANSFERRED: Duration = Duration::from_secs(90);

async fn why(peer: &Peer, id: u64) -> anyhow::Result<Why> {
    peer.ctl_json(&["why", &id.to_string()]).await
}

/// Waits until it is bound by this, and as `is` wants it.
async fn bound(peer: &Peer, id: u64, bound: Bound, is: impl Fn(&Why) -> bool) -> Why {
    eventually(SOON, &format!("it is bound by {bound:?}"), async || {
        let why = why(peer, id).await?;
        ensure!(why.bound_by == bound && is(&why), "{why:#?}");
        Ok(why)
    })
    .await
    .unwrap()
}

async fn with_file(mib: u64) -> Network {
    let network = Network::builder().peers(2).files(move |number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), mib * MIB, 1).map(drop),
        _ => Ok(()),
    });
    network.start().await.unwrap()
}

/// A network of so many peers that have nothing, and a slow source of `grande.bin`.
async fn with_slow_source(peers: usize, mib: usize, bytes_per_second: u32) -> (Network, LyingPeer) {
    let network = Network::builder().peers(peers).start().await.unwrap();
    let files = [("grande.bin", random_bytes(mib << 20, 4))];
    let source = LyingPeer::start("lenta", Conduct::slow(bytes_per_second), files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    (network, source)
}

async fn begin(peer: &Peer) -> Transfer {
    peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap()
}

async fn limit(peer: &Peer, option: &str, rate: &str) {
    peer.ctl(["limit", option, rate]).await.unwrap().ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_limit_bounds_a_transfer_and_is_remembered_at_its_end() {
    let network = with_file(32).await;
    let peer = network.peer(2).unwrap();
    limit(peer, "--down", "2MiB").await;
    let id = begin(peer).await.id;
    let most = |why: &Why| {
        // Long enough that what comes after it is let go cannot weigh more.
        let is_measured = why.measured_ms >= 6000 && why.bytes_per_sec > MIB && why.bytes_per_sec < 4 * MIB;
        is_measured && why.shares.our_limit > 0.5
    };
    let why = bound(peer, id, Bound::OurLimit, most).await;
    assert_eq!((why.limit_bytes_per_sec, why.state), (2 * MIB, TransferState::Running));
    assert!(why.says.contains("own limit of 2.0 MiB/s for all that it fetches"), "{}", why.says);
    let [source] = why.sources.as_slice() else { panic!("{why:#?}") };
    assert!(source.peer.peer_id.is_some() && source.shares.our_limit > 0.5, "{source:#?}");
    assert!(why.disk.written_bytes > 0 && why.cpu.proved_bytes > 0 && why.cpu.cores > 0, "{why:#?}");
    limit(peer, "--down", "off").await;
    peer.transfer_done(id, TRANSFERRED).await.unwrap();
    let why = bound(peer, id, Bound::Ended, |_| true).await;
    assert_eq!(why.was_bound_by, Some(Bound::OurLimit), "{why:#?}");
    let text = peer.ctl(["why", &id.to_string()]).await.unwrap().ok().unwrap().text();
    assert!(text.contains("is done; it was bound by this peer's own limit"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_one_source_is_named_with_its_own_figure() {
    let network = with_file(64).await;
    let peer = network.peer(2).unwrap();
    limit(peer, "--down", "200MiB").await;
    peer.ctl(["limit", "--peer", "P1", "--down", "1MiB"]).await.unwrap().ok().unwrap();
    let id = begin(peer).await.id;
    let held = |why: &Why| why.sources.iter().all(|one| one.waits_for == WaitsFor::OurLimitForIt);
    let why = bound(peer, id, Bound::OurLimit, held).await;
    assert!(why.says.contains("own limit of 1.0 MiB/s for what comes from P1"), "{}", why.says);
    assert!(why.says.contains("`p2pctl limit --peer P1 --down RATE`"), "{}", why.says);
    assert_eq!((why.limit_bytes_per_sec, why.sources[0].limit_bytes_per_sec), (200 * MIB, MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_a_directory_says_that_its_limit_holds_it_back() {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => (0..400).try_for_each(|file| {
            random_file(&shared.join(format!("set/{file}.bin")), 40_000, file).map(drop)
        }),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    limit(source, "--up", "256KiB").await;
    let begun: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let told = |why: &Why| why.sources.iter().all(|one| one.waits_for == WaitsFor::TheirLimit);
    let why = bound(peer, begun.id, Bound::TheirLimit, told).await;
    assert!(why.says.contains("it says that a limit of its own holds its bytes back"), "{}", why.says);
    limit(source, "--up", "off").await;
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_says_that_its_limit_holds_it_back_and_that_it_no_longer_does() {
    let network = with_file(64).await;
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    limit(source, "--up", "1MiB").await;
    let id = begin(peer).await.id;
    // What was measured begins with what came before the limit was noticed.
    let is_told = |why: &Why| {
        why.shares.their_limit > 0.5
            && why.sources.iter().all(|source| source.waits_for == WaitsFor::TheirLimit)
    };
    let why = bound(peer, id, Bound::TheirLimit, is_told).await;
    assert!(why.bytes_per_sec < 3 * MIB, "{why:#?}");
    let text = peer.ctl(["why", &id.to_string()]).await.unwrap().ok().unwrap().text();
    for word in ["is bound by the limits of its sources", "held back by their limit", "its own limit"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    // Another limit takes its place.
    limit(peer, "--down", "512KiB").await;
    limit(source, "--up", "off").await;
    bound(peer, id, Bound::OurLimit, |why| why.sources.iter().all(|one| one.shares.their_limit < 0.5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_is_the_network_until_it_is_gone_and_paused_until_it_goes_on() {
    let (network, source) = with_slow_source(1, 64, 1 << 20).await;
    let peer = network.peer(1).unwrap();
    let id = begin(peer).await.id;
    // In its first moments it has asked for nothing yet, or something is on its way already.
    let slow = |why: &Why| {
        let is_slow = why.bytes_per_sec > MIB / 2 && why.bytes_per_sec < 2 * MIB;
        is_slow && why.missing_pieces > 0 && why.sources.iter().any(|source| source.open_requests > 0)
    };
    let why = bound(peer, id, Bound::Network, slow).await;
    assert!(why.shares.bytes > 0.5 && why.sources[0].open_requests > 0, "{why:#?}");
    assert_eq!((why.sources[0].peer.name.as_str(), why.sources[0].waits_for), ("lenta", WaitsFor::Bytes));
    assert!(why.says.contains("lenta has") && why.says.contains("open and gives"), "{}", why.says);

    let number = id.to_string();
    peer.ctl(["transfers", "pause", &number]).await.unwrap().ok().unwrap();
    let paused = bound(peer, id, Bound::Paused, |_| true).await;
    assert!(paused.says.contains(&format!("p2pctl transfers resume {id}")), "{}", paused.says);
    peer.ctl(["transfers", "resume", &number]).await.unwrap().ok().unwrap();
    bound(peer, id, Bound::Network, |_| true).await;

    drop(source);
    let alone = bound(peer, id, Bound::NoSources, |why| why.tries >= 2).await;
    assert!(alone.waits_since_ms.is_some() && alone.says.contains("tries"), "{alone:#?}");
    assert!(alone.sources.is_empty() && alone.rare_pieces == 0, "{alone:#?}");
}

/// Two that fetch, and the source that they had goes: each has what the other has, or nothing that it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_nobody_has_are_counted() {
    let (network, source) = with_slow_source(2, 48, 2 << 20).await;
    let mut ids = Vec::new();
    for peer in network.peers() {
        ids.push(begin(peer).await.id);
    }
    for (peer, id) in network.peers().iter().zip(&ids) {
        let both = |transfer: &Transfer| transfer.done_bytes > 0 && transfer.sources.len() == 2;
        peer.transfer_until(*id, TRANSFERRED, "it asks the source and the other", both).await.unwrap();
    }
    drop(source);
    for (peer, id) in network.peers().iter().zip(ids) {
        let why = bound(peer, id, Bound::RarePieces, |why| why.rare_pieces > 0).await;
        assert!(why.rare_pieces <= why.missing_pieces && why.missing_pieces < 48, "{why:#?}");
        assert!(why.says.contains(&format!("of {} that are missing", why.missing_pieces)), "{}", why.says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_remembered_is_hashed_again() {
    let (mut network, _source) = with_slow_source(1, 24, 8 << 20).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let id = begun.id.to_string();
    let some = |transfer: &Transfer| transfer.done_bytes >= 4 * MIB;
    peer.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();
    peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap();
    let remembered = u32::try_from(peer.transfer(begun.id).await.unwrap().done_bytes / MIB).unwrap();
    assert_eq!(why(peer, begun.id).await.unwrap().resumed, None, "it has only begun");
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    let peer = network.peer(1).unwrap();
    peer.ctl(["transfers", "resume", &id]).await.unwrap().ok().unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    let resumed = why(peer, begun.id).await.unwrap().resumed.unwrap();
    assert_eq!((resumed.hashed_pieces, resumed.hashed_bytes), (0, 0), "{resumed:?}");
    assert!(resumed.remembered_pieces >= remembered, "{resumed:?}, and {remembered} were there");
    let log = peer.daemon().log_of_this_run();
    let said = format!("{} were remembered and not read again, 0 were hashed", resumed.remembered_pieces);
    assert!(log.contains(&said), "no {said:?} in {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_there_is_not_is_not_found() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let said = network.peer(1).unwrap().ctl(["why", "7"]).await.unwrap();
    assert!(said.code == 3 && said.stderr.contains("there is no transfer 7"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_its_turn_says_behind_whom_and_how_it_would_go_first() {
    let network = Network::builder().peers(1).peers_with(|_, settings| {
        settings.set("transfers.running", 1);
    });
    let network = network.start().await.unwrap();
    let files = [("a.bin", random_bytes(8 << 20, 1)), ("b.bin", random_bytes(1 << 20, 2))];
    let source = LyingPeer::start("muda", Conduct::Silent, files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let first: Transfer = peer.ctl_json(&["fetch", "a.bin", "--detach"]).await.unwrap();
    let second: Transfer = peer.ctl_json(&["fetch", "b.bin", "--detach"]).await.unwrap();
    let why = bound(peer, second.id, Bound::Queued, |why| why.says.contains("as number")).await;
    let said = format!(
        "transfer {} (b.bin) waits for its turn, as number 1 of those that wait: queued behind transfer {} (a.bin), which \
         runs; one may at once",
        second.id, first.id
    );
    assert!(why.says.starts_with(&said), "{}", why.says);
    assert!(why.says.contains(&format!("`p2pctl transfers priority {} high`", second.id)), "{}", why.says);
    peer.ctl(["transfers", "priority", &second.id.to_string(), "high"]).await.unwrap().ok().unwrap();
    let why = bound(peer, first.id, Bound::Queued, |why| why.says.contains("as number")).await;
    assert!(why.says.contains("(b.bin), which has a higher priority"), "{}", why.says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_measured_as_a_file_is() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let small = (0..400).map(|number| (format!("set/{number}.bin"), random_bytes(40_000, number)));
    let long = (0..2).map(|number| (format!("set/z{number}.bin"), random_bytes(48 << 20, 1000 + number)));
    let source = LyingPeer::start("lenta", Conduct::slow(1 << 20), small.chain(long)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let slow = |why: &Why| {
        why.bytes_per_sec > MIB / 4
            && why.bytes_per_sec < 4 * MIB
            && why.shares.bytes > 0.5
            && why.sources.iter().any(|source| source.open_requests > 0)
    };
    let why = bound(peer, begun.id, Bound::Network, slow).await;
    assert_eq!((why.sources[0].peer.name.as_str(), why.sources[0].waits_for), ("lenta", WaitsFor::Bytes));
    assert!(why.says.contains("lenta has") && why.says.contains("of its 402 files are here"), "{}", why.says);
    limit(peer, "--down", "256KiB").await;
    bound(peer, begun.id, Bound::OurLimit, |why| why.shares.our_limit > 0.5).await;
    limit(peer, "--down", "off").await;
    // Its long files come by runs of their own, and take longer.
    source.behave(Conduct::slow(8 << 20));
    let few = |transfer: &Transfer| transfer.files_done == Some(400);
    peer.transfer_until(begun.id, TRANSFERRED, "the short files are here", few).await.unwrap();
    source.behave(Conduct::slow(256 << 10));
    let why = bound(peer, begun.id, Bound::Network, |why| why.missing_pieces > 0).await;
    assert!(!why.sources.is_empty() && why.says.contains("400 of its 402 files are here"), "{why:#?}");
    drop(source);
    let why = bound(peer, begun.id, Bound::NoSources, |why| why.tries >= 1).await;
    assert!(why.says.contains("2 files are missing (set/z0.bin, set/z1.bin)"), "{}", why.says);
}
