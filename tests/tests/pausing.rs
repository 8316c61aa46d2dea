//! A user pauses a transfer, and lets it go on.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use p2p_content::ContentHash;
use p2p_proto::control::{Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, random_bytes};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_transfer_waits_for_its_user_and_loses_nothing() {
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let bytes = random_bytes(24 << 20, 6);
    let hash = ContentHash::of(&bytes);
    let source = LyingPeer::start("lenta", Conduct::slow(8 << 20), [("grande.bin", bytes)]).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let id = begun.id.to_string();
    let some = |transfer: &Transfer| transfer.done_bytes >= 4 * MIB;
    peer.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();

    let said = peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap().text();
    assert_eq!(said.trim(), format!("Transfer {id} (grande.bin) is paused."));
    let paused = peer.transfer(begun.id).await.unwrap();
    assert_eq!((paused.state, paused.held), (TransferState::Paused, true), "{paused:?}");
    assert!(paused.reason.as_ref().unwrap().contains(&format!("p2pctl transfers resume {id}")), "{paused:?}");

    // A restart is no resume.
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.terminate(Duration::from_secs(5)).await.unwrap();
    let given = source.given_bytes();
    daemon.restart().await.unwrap();
    let peer = network.peer(1).unwrap();
    let is_paused = |transfer: &Transfer| transfer.state == TransferState::Paused;
    let still = peer.transfer_until(begun.id, SOON, "it is still paused", is_paused).await.unwrap();
    assert!(still.held && still.done_bytes >= paused.done_bytes, "{still:?}");
    peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap();

    peer.ctl(["transfers", "resume", &id]).await.unwrap().ok().unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
    let again = source.given_bytes() - given;
    assert!(again <= SIZE - paused.done_bytes + MIB, "{again} bytes for {}", SIZE - paused.done_bytes);
    for verb in ["pause", "resume"] {
        assert!(peer.ctl(["transfers", verb, &id]).await.unwrap().ok().is_err(), "it has ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_transfer_can_be_cancelled() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let source =
        LyingPeer::start("muda", Conduct::Silent, [("x.bin", random_bytes(3 << 20, 6))]).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "x.bin", "--detach"]).await.unwrap();
    let id = begun.id.to_string();
    peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap();
    peer.ctl(["transfers", "cancel", &id]).await.unwrap().ok().unwrap();
    assert_eq!(peer.transfer(begun.id).await.unwrap().state, TransferState::Cancelled);
    assert_eq!(peer.partial_files(), 0);
}
