//! Priorities, and the line in which transfers wait for their turn.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use p2p_content::ContentHash;
use p2p_proto::control::{Priority, Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, Settings, random_bytes};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(60);

fn run(settings: &mut Settings, at_once: i64) {
    settings.set("transfers.running", at_once);
}

fn reload(network: &mut Network, at_once: i64) {
    let peer = network.peer_mut(1).unwrap();
    peer.edit(|settings| run(settings, at_once)).unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
}

async fn begin(peer: &Peer, what: &str, priority: Option<&str>) -> u64 {
    let mut words = vec!["fetch", what, "--detach"];
    words.extend(priority.into_iter().flat_map(|priority| ["--priority", priority]));
    let begun: Transfer = peer.ctl_json(&words).await.unwrap();
    begun.id
}

fn is(state: TransferState) -> impl Fn(&Transfer) -> bool {
    move |transfer| transfer.state == state
}

#[tokio::test(flavor = "multi_thread")]
async fn higher_priority_goes_first_and_who_yields_loses_nothing() {
    let mut network =
        Network::builder().peers(1).peers_with(|_, settings| run(settings, 1)).start().await.unwrap();
    let files = [("a.bin", 24, 1), ("b.bin", 8, 2), ("c.bin", 8, 3)];
    let bytes = files.map(|(name, mib, seed)| (name, random_bytes(mib << 20, seed)));
    let hash = ContentHash::of(&bytes[0].1);
    let source = LyingPeer::start("lenta", Conduct::slow(4 << 20), bytes).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();

    let peer = network.peer(1).unwrap();
    let first = begin(peer, "a.bin", None).await;
    let some = |transfer: &Transfer| transfer.done_bytes >= 4 * MIB;
    peer.transfer_until(first, TRANSFERRED, "some of it is there", some).await.unwrap();
    let low = begin(peer, "b.bin", Some("low")).await;
    let queued = peer
        .transfer_until(low, SOON, "it is queued", |transfer| transfer.queue_place == Some(1))
        .await
        .unwrap();
    let why = queued.reason.unwrap();
    assert!(why.starts_with(&format!("queued behind transfer {first} (a.bin)")), "{why}");

    // Its user hurries it: what runs yields, whole pieces and all. What goes first then shall not be done before it was
    // looked at, however long that takes.
    source.behave(Conduct::slow(64 << 10));
    let id = low.to_string();
    let said = peer.ctl(["transfers", "priority", &id, "high"]).await.unwrap().ok().unwrap().text();
    assert_eq!(said.trim(), format!("Transfer {id} (b.bin) has high priority."));
    peer.transfer_until(low, SOON, "it runs", is(TransferState::Running)).await.unwrap();
    let yielded = peer.transfer(first).await.unwrap();
    assert_eq!((yielded.state, yielded.queue_place), (TransferState::Queued, Some(1)), "{yielded:?}");
    assert!(yielded.reason.unwrap().contains("has a higher priority"));
    let table = peer.ctl(["transfers"]).await.unwrap().ok().unwrap().text();
    assert!(table.contains("queued 1") && table.contains("high priority"), "{table}");
    let third = begin(peer, "c.bin", Some("high")).await;

    // The line is the same after a restart.
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    let peer = network.peer(1).unwrap();
    let last = peer
        .transfer_until(first, SOON, "it waits for both", |transfer| transfer.queue_place == Some(2))
        .await
        .unwrap();
    assert!(last.done_bytes >= 4 * MIB, "{last:?}");
    let next = peer.transfer(third).await.unwrap();
    assert_eq!((next.priority, next.queue_place), (Priority::High, Some(1)), "{next:?}");

    source.behave(Conduct::Honest);
    peer.transfer_done(third, TRANSFERRED).await.unwrap();
    assert!(is(TransferState::Done)(&peer.transfer(low).await.unwrap()), "it is older");
    let done = peer.transfer_done(first, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("a.bin").unwrap(), hash);
    assert!(done.wasted_bytes <= 8 * MIB, "{done:?}");
    assert!(peer.ctl(["transfers", "priority", &id, "low"]).await.unwrap().ok().is_err(), "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_the_priority_that_it_is_fetched_with() {
    let mut network =
        Network::builder().peers(1).peers_with(|_, settings| run(settings, 1)).start().await.unwrap();
    let files = [("a.bin", 1), ("set/1.bin", 2), ("set/2.bin", 3)];
    let files = files.map(|(name, seed)| (name, random_bytes(1 << 20, seed)));
    let source = LyingPeer::start("muda", Conduct::Silent, files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let file = begin(peer, "a.bin", None).await;
    peer.transfer_until(file, SOON, "it runs", is(TransferState::Running)).await.unwrap();
    let begun: Transfer =
        peer.ctl_json(&["fetch", "-r", "set", "--detach", "--priority", "high"]).await.unwrap();
    peer.transfer_until(begun.id, SOON, "it runs", is(TransferState::Running)).await.unwrap();
    peer.transfer_until(file, SOON, "it yields", is(TransferState::Queued)).await.unwrap();

    // Asked for again, it gets another one, which it keeps over a restart.
    let again: Transfer = peer.ctl_json(&["fetch", "set/**", "--detach", "--priority", "low"]).await.unwrap();
    let joined: Transfer =
        peer.ctl_json(&["fetch", "-r", "set/", "--detach", "--priority", "low"]).await.unwrap();
    assert_eq!((joined.id, joined.priority), (begun.id, Priority::Low));
    assert!(again.id != begun.id && again.priority == Priority::Low, "a pattern is another: {again:?}");
    peer.transfer_until(file, SOON, "it runs again", is(TransferState::Running)).await.unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    let peer = network.peer(1).unwrap();
    peer.transfer_until(file, SOON, "it runs", is(TransferState::Running)).await.unwrap();
    let queued = peer.transfer_until(begun.id, SOON, "it waits", is(TransferState::Queued)).await.unwrap();
    assert_eq!(queued.priority, Priority::Low);
    // Without a word of it, it keeps what it has.
    let joined: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    assert_eq!((joined.id, joined.priority), (begun.id, Priority::Low));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_run_at_once_is_changed_by_a_reload() {
    let mut network =
        Network::builder().peers(1).peers_with(|_, settings| run(settings, 1)).start().await.unwrap();
    let bytes = [("a.bin", 1), ("b.bin", 2)].map(|(name, seed)| (name, random_bytes(4 << 20, seed)));
    let source = LyingPeer::start("muda", Conduct::Silent, bytes).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let first = begin(peer, "a.bin", None).await;
    let second = begin(peer, "b.bin", None).await;
    peer.transfer_until(second, SOON, "it is queued", |transfer| transfer.queue_place == Some(1))
        .await
        .unwrap();
    reload(&mut network, 2);
    let peer = network.peer(1).unwrap();
    peer.transfer_until(second, SOON, "it runs", is(TransferState::Running)).await.unwrap();
    reload(&mut network, 1);
    let peer = network.peer(1).unwrap();
    let back = peer.transfer_until(second, SOON, "it is queued", is(TransferState::Queued)).await.unwrap();
    assert!(back.reason.unwrap().contains(&format!("behind transfer {first} ")));
}
