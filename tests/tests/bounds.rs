//! What the transfer of a directory holds at a time, in memory and on the disk, however many files there are.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::ensure;
use p2p_proto::control::{Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, eventually};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(90);

async fn begin(peer: &Peer) -> Transfer {
    peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap()
}

/// One of many files that are a few bytes long.
fn tiny(number: u64) -> (String, Vec<u8>) {
    (format!("set/{}/{number}.txt", number / 1000), format!("archivo {number}\n").into_bytes())
}

/// What a directory's transfer finds in its place when it goes on is proven without being held in memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_already_is_proven_in_little_memory() {
    const COUNT: u64 = 160;
    let zeros = bytes::Bytes::from(vec![0; 4 << 20]);
    let file = |number: u64| {
        let len = zeros.len() - usize::try_from(number).unwrap();
        (format!("set/{number}.bin"), zeros.slice(..len))
    };
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let source = LyingPeer::start("muda", Conduct::Silent, (0..COUNT).map(file)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let begun = begin(network.peer(1).unwrap()).await;
    let peer = network.peer_mut(1).unwrap();
    peer.daemon_mut().kill_9().await.unwrap();
    std::fs::create_dir_all(peer.shared("set")).unwrap();
    for (name, bytes) in (0..COUNT).map(file) {
        // Holes take no room on the disk.
        std::fs::File::create(peer.shared(&name)).unwrap().set_len(bytes.len() as u64).unwrap();
    }
    peer.daemon_mut().restart().await.unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    let peak = peer.daemon().peak_memory().unwrap();
    println!("it took {} MiB", peak / MIB);
    assert!(peak < 200 * MIB, "{} MiB for {} MiB of files", peak / MIB, COUNT * 4);
}

/// All is listed, and little of it asked for, where all that is asked for is refused.
#[tokio::test(flavor = "multi_thread")]
async fn little_is_asked_for_beyond_what_is_refused() {
    const COUNT: u64 = 40_000;
    const REFUSED: usize = 16 * 1024;
    let network = Network::builder().peers(1).start().await.unwrap();
    let source = LyingPeer::start("una", Conduct::Unreadable, (0..COUNT).map(tiny)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    begin(network.peer(1).unwrap()).await;
    let is_full = async || {
        ensure!(source.deeds().len() >= REFUSED, "only {} were refused", source.deeds().len());
        Ok(())
    };
    eventually(TRANSFERRED, "as many are refused as may be", is_full).await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Meanwhile some are given up, since nobody else has them.
        let refused = source.deeds().len();
        assert!(refused <= REFUSED + 4096, "{refused} files were asked for");
    }
}

/// What is written waits for its names on the disk and in memory: where these take long, so does the writing.
#[tokio::test(flavor = "multi_thread")]
async fn little_is_written_beyond_what_gets_its_names() {
    const COUNT: u64 = 30_000;
    const UNNAMED: usize = 4 * 2048;
    const BEING_WRITTEN: usize = 2 * 128;
    let network = Network::builder().peers(1).start().await.unwrap();
    let source = LyingPeer::start("una", Conduct::Honest, (0..COUNT).map(tiny)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    // No file gets further than its name while the catalog cannot be written.
    let mut catalog = rusqlite::Connection::open(peer.state("catalog.sqlite")).unwrap();
    let held = catalog.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let begun = begin(peer).await;
    let is_full = async || {
        ensure!(peer.partial_files() >= UNNAMED, "only {} are written", peer.partial_files());
        Ok(())
    };
    eventually(SOON, "as many are written as may be", is_full).await.unwrap();
    // Until nothing more was written for a second.
    let (mut written, mut unchanged) = (0, 0);
    while unchanged < 5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = peer.partial_files();
        unchanged = if now == written { unchanged + 1 } else { 0 };
        written = now;
        // As many again may just get theirs.
        assert!(written <= 2 * UNNAMED + BEING_WRITTEN, "{written} files wait for their names");
    }
    drop(held);
    let goes_on = |transfer: &Transfer| transfer.files_done > Some(UNNAMED as u64);
    peer.transfer_until(begun.id, TRANSFERRED, "it goes on", goes_on).await.unwrap();
}

/// Of a long file of which nothing has come nothing is remembered: each would take memory whenever the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn long_files_that_nobody_proves_are_not_remembered_one_by_one() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let long = |number: u8| (format!("set/{number}.bin"), vec![number; 5 << 20]);
    let source = LyingPeer::start("falsa", Conduct::FalseManifest, (0..8).map(long)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting;
    let waiting = peer.transfer_until(begun.id, TRANSFERRED, "it waits", waits).await.unwrap();
    assert!(waiting.reason.as_deref().is_some_and(|why| why.contains("8 files are missing")), "{waiting:?}");
    let database = rusqlite::Connection::open(peer.state("transfers.sqlite")).unwrap();
    let count = "SELECT count(*) FROM transfers WHERE part_of IS NOT NULL";
    assert_eq!(database.query_row(count, [], |row| row.get::<_, u64>(0)).unwrap(), 0);
    // They come all the same.
    let other = LyingPeer::start("otra", Conduct::Honest, (0..8).map(long)).await.unwrap();
    other.join(&network.maestro().unwrap().address()).await.unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
}
