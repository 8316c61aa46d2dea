//! How fast file data goes out and comes in, at the most.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use p2p_proto::control::{LimitsAnswer, Transfer};
use p2p_tests::{Network, random_file};

const MIB: u64 = 1 << 20;
const TRANSFERRED: Duration = Duration::from_secs(60);

async fn with_file(mib: u64) -> Network {
    let network = Network::builder().peers(2).files(move |number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), mib * MIB, 1).map(drop),
        _ => Ok(()),
    });
    network.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_keeps_to_its_limit() {
    for (limited, option) in [(1, "--up"), (2, "--down")] {
        let network = with_file(12).await;
        let said: LimitsAnswer =
            network.peer(limited).unwrap().ctl_json(&["limit", option, "4MiB"]).await.unwrap();
        let limit = if option == "--up" { said.up } else { said.down };
        assert_eq!((limit.bytes_per_sec, limit.is_set), (4 * MIB, true));
        let began = Instant::now();
        network.peer(2).unwrap().ctl(["fetch", "grande.bin"]).await.unwrap().ok().unwrap();
        let took = began.elapsed();
        // 12 MiB at 4 MiB/s, of which the last piece is not waited for, and a tenth of a second may have been saved up.
        assert!(took >= Duration::from_millis(2500), "{option}: {took:?}");
        assert!(took <= Duration::from_secs(15), "{option}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_changed_while_bytes_flow_and_outlives_the_daemon() {
    let mut network = with_file(64).await;
    network.peer(1).unwrap().ctl(["limit", "--up", "1MiB"]).await.unwrap().ok().unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.terminate(Duration::from_secs(5)).await.unwrap();
    daemon.restart().await.unwrap();
    network.settled().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let kept: LimitsAnswer = source.ctl_json(&["limit"]).await.unwrap();
    assert_eq!((kept.up.bytes_per_sec, kept.up.configured_bytes_per_sec), (MIB, 0));
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes >= MIB;
    peer.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();
    let shown = source.ctl(["limit", "--as-configured"]).await.unwrap().ok().unwrap().text();
    assert!(shown.contains("none"), "{shown}");
    let freed = Instant::now();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert!(freed.elapsed() < Duration::from_secs(20), "a minute at the old limit: {:?}", freed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rate_is_refused_with_an_example() {
    let network = with_file(1).await;
    for rate in ["fast", "-1MiB", "0", ""] {
        let said = network.peer(1).unwrap().ctl(["limit", "--up", rate]).await.unwrap();
        assert!(said.stderr.contains("20MiB"), "{rate}: {said:?}");
    }
}
