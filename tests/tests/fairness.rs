//! Who asks a peer for much leaves the others their share.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_proto::v1::PullRequest;
use p2p_tests::{LyingPeer, Network, random_file};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const MIB: u64 = 1 << 20;
/// Of the file that is fetched modestly, and of the one of which the greedy one wants more and more.
const MODEST: u64 = 16 * MIB;
const GREEDY: u64 = 16 * MIB;
/// Streams of the greedy one: as many as one peer may have.
const STREAMS: u64 = 8;
/// Requests that each of them has open.
const AHEAD: usize = 16;

/// `slots` are those of the source, `rate` is what it sends at the most.
async fn network(slots: i64, rate: &str) -> (Network, ContentHash) {
    let network = Network::builder()
        .peers(2)
        .peers_with(move |_, settings| {
            settings.set("limits.upload_slots", slots);
        })
        .files(|number, shared| {
            if number == 1 {
                random_file(&shared.join("grande.bin"), GREEDY, 1)?;
                random_file(&shared.join("modesto.bin"), MODEST, 2)?;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let source = network.peer(1).unwrap();
    source.ctl(["limit", "--up", rate]).await.unwrap().ok().unwrap();
    let hash = source.hash_of("grande.bin").unwrap();
    (network, hash)
}

/// Somebody who asks for one file again and again, on many streams; and how much came.
async fn greedy(network: &Network, content: ContentHash) -> (LyingPeer, JoinSet<()>, Arc<AtomicU64>) {
    let none: [(&str, Bytes); 0] = [];
    let greedy = LyingPeer::start("voraz", p2p_tests::Conduct::Honest, none).await.unwrap();
    greedy.join(&network.maestro().unwrap().address()).await.unwrap();
    let source = network.peer(1).unwrap();
    let (mut streams, came) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    let mut client = greedy.call(&source.address(), Some(source.id().parse().unwrap())).await.unwrap();
    for stream in 0..STREAMS {
        let (requests, outgoing) = mpsc::channel(AHEAD);
        let mut answers = client.pull(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let came = Arc::clone(&came);
        streams.spawn(async move {
            let request = |id: u64| PullRequest {
                id,
                content: Bytes::copy_from_slice(content.as_bytes()),
                offset: (id + stream) % GREEDY.div_euclid(MIB) * MIB,
                length: MIB,
                withdraw: false,
            };
            let mut next = 0;
            loop {
                tokio::select! {
                    Ok(permit) = requests.reserve() => {
                        permit.send(request(next));
                        next += 1;
                    }
                    Ok(Some(answer)) = answers.message() => {
                        came.fetch_add(answer.data.len() as u64, Ordering::Relaxed);
                    }
                    else => return,
                }
            }
        });
    }
    // It is in full swing before anybody else comes.
    p2p_tests::eventually(Duration::from_secs(20), "the greedy one is served", async || {
        anyhow::ensure!(came.load(Ordering::Relaxed) >= 2 * MIB);
        Ok(())
    })
    .await
    .unwrap();
    (greedy, streams, came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modest_client_gets_its_half_beside_one_with_many_streams() {
    for slots in [32, 1] {
        let (network, content) = network(slots, "4MiB").await;
        let (_greedy, _streams, came) = greedy(&network, content).await;
        let (before, began) = (came.load(Ordering::Relaxed), Instant::now());
        network.peer(2).unwrap().ctl(["fetch", "modesto.bin"]).await.unwrap().ok().unwrap();
        let (took, beside) = (began.elapsed(), came.load(Ordering::Relaxed) - before);
        println!("{slots} slots: {MODEST} bytes in {took:?}, and {beside} beside them");
        // 8 s at half of the rate; by streams, it would be a ninth of it, and 36 s.
        assert!(took <= Duration::from_secs(16), "{slots} slots: {took:?}, and {beside} bytes beside them");
        assert!(beside >= MODEST / 3, "{slots} slots: the greedy one gets its share too, {beside}");
    }
}

/// What it asked for waits on its way to it, and nobody waits with it.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_holds_up_nobody_where_there_is_a_rate() {
    const REQUESTS: u64 = 64;
    let (network, content) = network(32, "3MiB").await;
    let none: [(&str, Bytes); 0] = [];
    let deaf = LyingPeer::start("sorda", p2p_tests::Conduct::Honest, none).await.unwrap();
    deaf.join(&network.maestro().unwrap().address()).await.unwrap();
    let source = network.peer(1).unwrap();
    let mut client = deaf.call(&source.address(), Some(source.id().parse().unwrap())).await.unwrap();
    let (requests, outgoing) = mpsc::channel(usize::try_from(REQUESTS).unwrap());
    for id in 0..REQUESTS {
        let content = Bytes::copy_from_slice(content.as_bytes());
        let offset = id % GREEDY.div_euclid(MIB) * MIB;
        requests.send(PullRequest { id, content, offset, length: MIB, withdraw: false }).await.unwrap();
    }
    let _unread = client.pull(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let began = Instant::now();
    network.peer(2).unwrap().ctl(["fetch", "modesto.bin"]).await.unwrap().ok().unwrap();
    // 5 s at the whole rate, 11 s at half of it.
    assert!(began.elapsed() <= Duration::from_secs(16), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rate_the_only_slot_goes_round() {
    let (network, content) = network(1, "off").await;
    let (_greedy, _streams, came) = greedy(&network, content).await;
    let before = came.load(Ordering::Relaxed);
    let began = Instant::now();
    network.peer(2).unwrap().ctl(["fetch", "modesto.bin"]).await.unwrap().ok().unwrap();
    let took = began.elapsed();
    println!("{took:?}, and {} beside", came.load(Ordering::Relaxed) - before);
    assert!(took <= Duration::from_secs(15), "{took:?}");
    p2p_tests::eventually(Duration::from_secs(15), "the greedy one goes on", async || {
        anyhow::ensure!(came.load(Ordering::Relaxed) > before + MIB);
        Ok(())
    })
    .await
    .unwrap();
}
