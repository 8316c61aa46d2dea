//! Lengths that are told falsely: the right one is learnt from who proves it, and no honest source is blamed.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use p2p_content::ContentHash;
use p2p_proto::control::{SourceState, Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, random_bytes};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(60);

/// Lengths that files have, and lengths that are told of them: of one piece and of several, with as many pieces and with
/// others, too short and too long for any disk.
const LENGTHS: [(u64, u64); 12] = [
    (300_000, 299_999),
    (300_000, 300_001),
    (300_000, 0),
    (300_000, 3 * MIB),
    (300_000, 1 << 50),
    (0, 1),
    (5 * MIB + 7, 5 * MIB + 6),
    (5 * MIB + 7, 5 * MIB + 8),
    (5 * MIB + 7, 4 * MIB),
    (5 * MIB + 7, 100),
    (5 * MIB + 7, 1 << 40),
    (2 * MIB, MIB),
];

fn bytes(number: usize) -> Vec<u8> {
    random_bytes(usize::try_from(LENGTHS[number].0).unwrap(), number as u64)
}

fn name(number: usize) -> String {
    format!("set/{number:02}.bin")
}

async fn telling_falsely(who: &str, conduct: Conduct, network: &Network) -> LyingPeer {
    let files = (0..LENGTHS.len()).map(|number| (name(number), bytes(number), LENGTHS[number].1));
    let peer = LyingPeer::start_telling(who, conduct, files).await.unwrap();
    peer.join(&network.maestro().unwrap().address()).await.unwrap();
    peer
}

async fn honest(network: &Network) -> LyingPeer {
    let files = (0..LENGTHS.len()).map(|number| (name(number), bytes(number)));
    let peer = LyingPeer::start("honrada", Conduct::Honest, files).await.unwrap();
    peer.join(&network.maestro().unwrap().address()).await.unwrap();
    peer
}

fn state_of(transfer: &Transfer, who: &str) -> Option<SourceState> {
    transfer.sources.iter().find(|source| source.peer.name == who).map(|source| source.state)
}

fn are_right(peer: &Peer) {
    for number in 0..LENGTHS.len() {
        assert_eq!(peer.hash_of(&name(number)).unwrap(), ContentHash::of(&bytes(number)), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_length_is_not_held_against_who_has_the_file() {
    let network = Network::builder().peers(1).start().await.unwrap();
    // The first that the maestro hears of a content is what it tells of it.
    let _liar = telling_falsely("falsa", Conduct::FalseLength, &network).await;
    let _honest = honest(&network).await;
    let peer = network.peer(1).unwrap();
    for (number, (len, told)) in LENGTHS.into_iter().enumerate() {
        let begun: Transfer = peer.ctl_json(&["fetch", &name(number), "--detach"]).await.unwrap();
        assert_eq!(begun.size, Some(told), "the false length is what is told: {begun:?}");
        let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
        assert_eq!((done.size, done.done_bytes), (Some(len), len), "{done:?}");
        assert_ne!(state_of(&done, "honrada"), Some(SourceState::Dropped), "{done:?}");
        let log = peer.daemon().log();
        let said = format!("was told a false length of {}, {told} bytes: it has {len}", name(number));
        assert!(log.contains(&said) && log.contains("it is the maestro"), "no {said:?} in {log}");
    }
    are_right(peer);
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_by_a_false_length_is_dropped_and_the_file_comes_from_another() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let _liar = telling_falsely("falsa", Conduct::FalseLength, &network).await;
    let peer = network.peer(1).unwrap();
    let mut begun = Vec::new();
    for number in [0, 1, 4, 7, 8] {
        let transfer: Transfer = peer.ctl_json(&["fetch", &name(number), "--detach"]).await.unwrap();
        let waits = |transfer: &Transfer| {
            transfer.state == TransferState::Waiting
                && state_of(transfer, "falsa") == Some(SourceState::Dropped)
        };
        let waiting = peer.transfer_until(transfer.id, SOON, "the liar is dropped", waits).await.unwrap();
        begun.push((number, waiting.id));
    }
    let _honest = honest(&network).await;
    for (number, id) in begun {
        let done = peer.transfer_done(id, TRANSFERRED).await.unwrap();
        assert_eq!(peer.hash_of(&name(number)).unwrap(), ContentHash::of(&bytes(number)));
        assert_ne!(state_of(&done, "honrada"), Some(SourceState::Dropped), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_listed_with_false_lengths_comes_as_it_is() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let _told = telling_falsely("confusa", Conduct::Honest, &network).await;
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    are_right(peer);
    let size = LENGTHS.iter().map(|(len, _)| len).sum();
    assert_eq!((done.size, done.done_bytes), (Some(size), size), "{done:?}");
    assert_eq!(done.files_done, Some(LENGTHS.len() as u64));
    assert_eq!(state_of(&done, "confusa"), Some(SourceState::Active), "it gave what it has: {done:?}");
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_from_an_honest_source_past_a_liar_over_a_kill() {
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let _liar = telling_falsely("falsa", Conduct::FalseLength, &network).await;
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting;
    let waiting = peer.transfer_until(begun.id, SOON, "nobody proves anything", waits).await.unwrap();
    assert_eq!(state_of(&waiting, "falsa"), Some(SourceState::Dropped), "{waiting:?}");
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    let _honest = honest(&network).await;
    let peer = network.peer(1).unwrap();
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    are_right(peer);
    assert_ne!(state_of(&done, "honrada"), Some(SourceState::Dropped), "{done:?}");
    assert_eq!(peer.partial_files(), 0);
}
