//! Several that fetch the same at the same time: they give each other what they have by then.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_proto::control::{Transfer, TransferState};
use p2p_proto::v1::{AvailabilityRequest, ManifestRequest};
use p2p_tests::{Conduct, LyingPeer, Network, eventually, hash_of_file, random_bytes, random_file};

const MIB: u64 = 1 << 20;
const TRANSFERRED: Duration = Duration::from_secs(120);

/// A maestro, peers that have nothing, and a slow source that has `grande.bin`, of so many MiB.
async fn fetchers_of(peers: usize, mib: usize, bytes_per_second: u32) -> (Network, LyingPeer, ContentHash) {
    let network = Network::builder().peers(peers).start().await.unwrap();
    let bytes = random_bytes(mib << 20, 4);
    let hash = ContentHash::of(&bytes);
    let seed =
        LyingPeer::start("semilla", Conduct::slow(bytes_per_second), [("grande.bin", bytes)]).await.unwrap();
    seed.join(&network.maestro().unwrap().address()).await.unwrap();
    (network, seed, hash)
}

async fn begin(network: &Network) -> Vec<Transfer> {
    let mut begun = Vec::new();
    for peer in network.peers() {
        begun.push(peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap());
    }
    begun
}

#[tokio::test(flavor = "multi_thread")]
async fn fetchers_give_each_other_what_they_have() {
    const SIZE: u64 = 48 * MIB;
    let (network, seed, hash) = fetchers_of(3, 48, 8 << 20).await;
    let begun = begin(&network).await;
    let mut among_themselves = 0;
    for (peer, transfer) in network.peers().iter().zip(begun) {
        let done = peer.transfer_done(transfer.id, TRANSFERRED).await.unwrap();
        assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
        let others = done.sources.iter().filter(|source| source.peer.name != "semilla");
        among_themselves += others.map(|source| source.bytes).sum::<u64>();
    }
    println!("the seed gave {} MiB, and the others {} MiB", seed.given_bytes() / MIB, among_themselves / MIB);
    // Each piece three times in all; two of them at the most need not come from the seed.
    assert!(among_themselves >= SIZE, "{among_themselves} bytes came from other fetchers");
    assert!(seed.given_bytes() <= 2 * SIZE, "the seed gave {} bytes", seed.given_bytes());
}

/// What is not whole anywhere any more can still be put together.
#[tokio::test(flavor = "multi_thread")]
async fn they_finish_without_the_source_when_they_have_all_between_them() {
    const PIECES: usize = 32;
    let (network, seed, hash) = fetchers_of(2, PIECES, 4 << 20).await;
    let begun = begin(&network).await;
    eventually(TRANSFERRED, "the source gave each piece once", async || {
        let given = seed.given_pieces();
        ensure!(given == PIECES, "it gave {given}");
        Ok(())
    })
    .await
    .unwrap();
    // What it gave arrives, and nothing else.
    seed.behave(Conduct::Silent);
    for (peer, transfer) in network.peers().iter().zip(begun) {
        peer.transfer_done(transfer.id, TRANSFERRED).await.unwrap();
        assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);
    }
}

/// A file in a share that only friends may see is no less hidden while it is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_friends_may_see_goes_to_no_other_fetcher() {
    let network = Network::builder().peers(2).peers_with(|_, settings| {
        let path = settings.text("state_dir").unwrap().replace("/state", "/shared");
        let share = [("name", "shared"), ("path", &path), ("visible", "friends")];
        let share = share.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
        settings.clear_shares().add_share(share.collect());
    });
    let network = network.start().await.unwrap();
    let bytes = random_bytes(8 << 20, 4);
    let content = ContentHash::of(&bytes);
    let seed = LyingPeer::start("semilla", Conduct::slow(2 << 20), [("grande.bin", bytes)]).await.unwrap();
    seed.join(&network.maestro().unwrap().address()).await.unwrap();
    let begun = begin(&network).await;
    // A member that knows of the fetchers by other means gets nothing from them either.
    let member = LyingPeer::start("curiosa", Conduct::Honest, [("x", "x")]).await.unwrap();
    member.join(&network.maestro().unwrap().address()).await.unwrap();
    let hidden = network.peer(1).unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes > 0;
    hidden.transfer_until(begun[0].id, TRANSFERRED, "some of it is there", some).await.unwrap();
    let mut client = member.call(&hidden.address(), None).await.unwrap();
    let wanted = content.as_bytes().to_vec();
    let request = ManifestRequest { content: wanted.clone().into() };
    assert_eq!(client.get_manifest(request).await.unwrap_err().code(), tonic::Code::NotFound);
    let request = AvailabilityRequest { content: wanted.into(), fetcher: None };
    assert_eq!(client.availability(request).await.unwrap_err().code(), tonic::Code::NotFound);
    for (peer, transfer) in network.peers().iter().zip(begun) {
        let done = peer.transfer_done(transfer.id, TRANSFERRED).await.unwrap();
        assert_eq!(done.state, TransferState::Done);
        assert!(done.sources.iter().all(|source| source.peer.name == "semilla"), "{done:?}");
    }
}

/// Who comes to have the whole content while somebody fetches it takes its part, and nothing has to stop for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_during_a_transfer_joins_it() {
    const SIZE: u64 = 64 * MIB;
    let network = Network::builder()
        .peers(3)
        .peers_with(|number, settings| {
            if number == 1 {
                settings.set("limits.up_bytes_per_sec", 2 << 20);
            }
        })
        .files(|number, shared| match number {
            1 => random_file(&shared.join("grande.bin"), SIZE, 1).map(drop),
            _ => Ok(()),
        });
    let network = network.start().await.unwrap();
    let (late, peer) = (network.peer(2).unwrap(), network.peer(3).unwrap());
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes > 0;
    peer.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();
    random_file(&late.shared("otra/copia.bin"), SIZE, 1).unwrap();
    late.settled().await.unwrap();
    let before = peer.transfer(begun.id).await.unwrap();
    assert_eq!(before.state, TransferState::Running);
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), network.peer(1).unwrap().hash_of("grande.bin").unwrap());
    let gave = |name: &str| {
        let source = done.sources.iter().find(|source| source.peer.name == name);
        source.map_or(0, |source| source.bytes)
    };
    println!("{} MiB from the first, {} MiB from the one that came", gave("P1") / MIB, gave("P2") / MIB);
    assert!(gave("P2") >= SIZE / 4, "{:?}", done.sources);
    // 32 s without it, of which it is looked for each 10 s.
    assert!(gave("P1") > 0 && gave("P1") + gave("P2") == SIZE, "{:?}", done.sources);
    let log = peer.daemon().log_of_this_run();
    let waited = format!("transfer {} (grande.bin) waits", begun.id);
    assert!(!log.contains(&waited), "it ran all the time: {log}");
}

/// Many whole sources, and one fetcher: all give, and nothing comes twice but what was stolen at the end.
#[tokio::test(flavor = "multi_thread")]
async fn all_whole_sources_give_their_part() {
    let network = Network::builder()
        .peers(4)
        .peers_with(|number, settings| {
            // Without a limit all is over in a tenth of a second, in which a busy machine may not let one of them run.
            if number < 4 {
                settings.set("limits.up_bytes_per_sec", 32 << 20);
            }
        })
        .files(|number, shared| match number {
            1..=3 => random_file(&shared.join("grande.bin"), 96 * MIB, 1).map(drop),
            _ => Ok(()),
        });
    let network = network.start().await.unwrap();
    let peer = network.peer(4).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!(
        hash_of_file(&peer.shared("grande.bin")).unwrap(),
        network.peer(1).unwrap().hash_of("grande.bin").unwrap()
    );
    let gave: Vec<u64> = done.sources.iter().map(|source| source.bytes / MIB).collect();
    assert!(gave.len() == 3 && gave.iter().all(|mib| *mib > 0), "{gave:?} MiB");
    assert!(done.wasted_bytes <= 6 * MIB, "{} bytes came twice", done.wasted_bytes);
}

/// As many slow sources as are asked at once keep out no fast one that comes later.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_source_gets_the_place_of_a_slow_one() {
    const SLOW: usize = 32;
    let network = Network::builder().peers(1).start().await.unwrap();
    let maestro = network.maestro().unwrap().address();
    let bytes = Bytes::from(random_bytes(48 << 20, 1));
    let source = async |name: String, conduct: Conduct| {
        let files = [("grande.bin", bytes.clone())];
        let source = LyingPeer::start(&name, conduct, files).await.unwrap();
        source.join(&maestro).await.unwrap();
        source
    };
    let mut slow = Vec::new();
    for number in 0..SLOW {
        slow.push(source(format!("lenta{number}"), Conduct::slow(1024)).await);
    }
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let all_asked = |transfer: &Transfer| transfer.sources.len() == SLOW;
    peer.transfer_until(begun.id, TRANSFERRED, "all places are taken", all_asked).await.unwrap();
    let fast = source("rapida".to_owned(), Conduct::Honest).await;
    peer.transfer_done(begun.id, Duration::from_secs(60)).await.unwrap();
    assert!(fast.given_bytes() >= 40 * MIB, "it gave {} bytes", fast.given_bytes());
}
