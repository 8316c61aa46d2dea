//! The acceptance runs that take long: `cargo xtask test-large`. Each prints its figures.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use p2p_content::{ContentHash, Pieces};
use p2p_identity::PeerId;
use p2p_proto::control::{Status, Transfer};
use p2p_proto::v1::PullRequest;
use p2p_tests::{
    Conduct, Daemon, LyingPeer, Network, Peer, eventually, hash_of_file, random_bytes, random_file,
    write_file,
};
use serde_json::json;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(600);
const MEMORY_LIMIT: u64 = 200 * MIB;

/// Prints the peak memory of these daemons, and holds it against the limit.
fn memory(when: &str, daemons: &[&Daemon]) {
    for daemon in daemons {
        let peak = daemon.peak_memory().unwrap();
        println!("{when}: peak memory of {} is {} MiB", daemon.name(), peak / MIB);
        assert!(peak < MEMORY_LIMIT, "{} took {} MiB", daemon.name(), peak / MIB);
    }
}

fn print_rate(what: &str, bytes: u64, took: Duration) {
    let rate = bytes as f64 / MIB as f64 / took.as_secs_f64();
    println!("{what}: {:.2} s, {rate:.0} MiB/s", took.as_secs_f64());
}

async fn fetch_all(peer: &Peer, names: Vec<String>) -> Result<()> {
    let count = names.len();
    let detached = stream::iter(names)
        .map(|name| async move { peer.ctl(["fetch", &name, "--detach"]).await?.ok().map(drop) });
    detached.buffer_unordered(8).try_collect::<()>().await?;
    eventually(LONG, "all of them are here", async || {
        let status: Status = peer.ctl_json(&["status"]).await?;
        ensure!(status.transfers_open == 0, "{} of {count} are open", status.transfers_open);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn two_gib_and_two_thousand_files_in_little_memory() {
    const FILES: u64 = 2000;
    let network = Network::builder().peers(2).files(|number, shared| {
        if number == 1 {
            random_file(&shared.join("grande.bin"), 2 * GIB, 1)?;
            for file in 0..FILES {
                random_file(
                    &shared.join(format!("muchos/{}/{file}.bin", file / 100)),
                    1000 + 97 * file,
                    file,
                )?;
            }
        }
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let daemons = [one.daemon(), other.daemon(), network.maestro().unwrap().daemon()];
    memory("after hashing", &daemons);

    let said = other.p2pctl().run_within(LONG, ["fetch", "grande.bin"]).await.unwrap().ok().unwrap();
    print_rate("fetch of 2 GiB", 2 * GIB, said.took);
    assert_eq!(other.hash_of("grande.bin").unwrap(), one.hash_of("grande.bin").unwrap());
    memory("after 2 GiB", &daemons);

    let names: Vec<String> = (0..FILES).map(|file| format!("muchos/{}/{file}.bin", file / 100)).collect();
    let began = Instant::now();
    fetch_all(other, names.clone()).await.unwrap();
    println!("fetch of {FILES} files, one command each: {:.2} s", began.elapsed().as_secs_f64());
    for name in &names {
        assert_eq!(other.hash_of(name).unwrap(), one.hash_of(name).unwrap(), "{name}");
    }
    memory("after 2,000 files", &daemons);
    // As many as are remembered over a restart, and those that were open when the last one began.
    let remembered = other.transfers().await.unwrap().len();
    assert!((1000..1800).contains(&remembered), "{remembered} transfers are remembered");

    let began = Instant::now();
    let copy = other.dir().join("copy.bin");
    other
        .p2pctl()
        .run_within(LONG, ["fetch", "grande.bin", "-o", copy.to_str().unwrap()])
        .await
        .unwrap()
        .ok()
        .unwrap();
    print_rate("delivery of 2 GiB with -o", 2 * GIB, began.elapsed());
    assert_eq!(hash_of_file(&copy).unwrap(), one.hash_of("grande.bin").unwrap());
    memory("after -o", &daemons);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn two_gib_are_uploaded_and_sent_in_little_memory() {
    let network = Network::builder().peers(2).peers_with(|_, settings| {
        settings.set("transfers.accept_offers", "network");
    });
    let network = network.start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let file = one.dir().join("grande.bin");
    let hash = random_file(&file, 2 * GIB, 1).unwrap();
    let daemons = [one.daemon(), other.daemon(), network.maestro().unwrap().daemon()];

    let began = Instant::now();
    let rest = one.rest_with_token().unwrap();
    let answer = rest.post_file("/upload?filename=subido.bin", &file).await.unwrap().ok().unwrap();
    print_rate("REST /upload of 2 GiB", 2 * GIB, began.elapsed());
    assert_eq!(answer["content"], json!(hash.to_string()));
    assert_eq!(one.hash_of("subido.bin").unwrap(), hash);
    let maestro = network.maestro().unwrap().rest().unwrap();
    assert_eq!(maestro.locate("subido.bin").await.unwrap().len(), 1);
    memory("after /upload", &daemons);

    let said = one.p2pctl().run_within(LONG, ["send", file.to_str().unwrap(), "P2", "--as", "enviado.bin"]);
    let said = said.await.unwrap().ok().unwrap();
    print_rate("send of 2 GiB", 2 * GIB, said.took);
    assert_eq!(other.hash_of("enviado.bin").unwrap(), hash);
    memory("after send", &daemons);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn a_tree_of_ten_thousand_files_is_announced_in_time() {
    const FILES: u64 = 10_000;
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let began = Instant::now();
    for file in 0..FILES {
        write_file(&peer.shared(format!("árbol/{}/{file}.txt", file / 100)), format!("archivo {file}\n"))
            .unwrap();
    }
    println!("unpacked in {:.2} s", began.elapsed().as_secs_f64());
    let announced = eventually(Duration::from_secs(60), "all are in the directory", async || {
        let row = maestro.get("/peers").await?.ok()?["peers"][0].clone();
        ensure!(row["files_total"] == json!(FILES), "{}", row["files_total"]);
        Ok(())
    });
    announced.await.unwrap();
    let took = began.elapsed();
    println!("{FILES} files are in the directory {:.2} s after the unpacking began", took.as_secs_f64());
    assert!(took < Duration::from_secs(15), "it took {took:?}");
    let located = maestro.locate("árbol/99/9999.txt").await.unwrap();
    assert_eq!(located[0]["content"], json!(blake3::hash(b"archivo 9999\n").to_hex().to_string()));
    memory("after 10,000 files", &[peer.daemon(), network.maestro().unwrap().daemon()]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn a_fetcher_killed_half_way_through_two_gib_goes_on() {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), 2 * GIB, 1).map(drop),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let half = |transfer: &Transfer| transfer.done_bytes >= GIB;
    let before = peer.transfer_until(transfer.id, LONG, "half of it is there", half).await.unwrap();
    assert!(!before.state.is_ended(), "{before:?}");
    let daemon = network.peer_mut(2).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    let peer = network.peer(2).unwrap();
    let done = peer.transfer_done(transfer.id, LONG).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), network.peer(1).unwrap().hash_of("grande.bin").unwrap());
    let again = done.wasted_bytes as f64 / before.done_bytes as f64 * 100.0;
    println!("killed with {} MiB there; {again:.2} % of that was asked for again", before.done_bytes / MIB);
    assert!(again < 5.0);
}

/// What one of many pulls of a content: all of its pieces, in their order, asked for as fast as they are taken.
async fn pulled(client: &LyingPeer, from: &Peer, content: ContentHash, len: u64) -> u64 {
    let from_id: PeerId = from.id().parse().unwrap();
    let mut client = client.call(&from.address(), Some(from_id)).await.unwrap();
    let (pieces, bytes) = (Pieces::of(len), Bytes::copy_from_slice(content.as_bytes()));
    let requests = stream::iter((0..pieces.count()).map(move |piece| {
        let (id, content, range) = (u64::from(piece), bytes.clone(), pieces.range(piece));
        PullRequest { id, content, offset: range.start, length: range.end - range.start, withdraw: false }
    }));
    let answers = client.pull(requests).await.unwrap().into_inner();
    let lens = answers.map_ok(|answer| answer.data.len() as u64);
    lens.try_fold(0, async |sum, len| Ok(sum + len)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn serving_sixteen_and_fetching_from_sixteen_takes_little_memory() {
    const OTHERS: usize = 16;
    const LEN: u64 = 256 * MIB;
    let network = Network::builder().peers(1).files(|_, shared| {
        random_file(&shared.join("sale.bin"), LEN, 1)?;
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().address());
    let sale = peer.hash_of("sale.bin").unwrap();
    let entra = Bytes::from(random_bytes(usize::try_from(LEN).unwrap(), 2));
    let others = stream::iter(0..OTHERS).then(async |number| {
        let files = [("entra.bin", entra.clone())];
        let other = LyingPeer::start(&format!("F{number}"), Conduct::Honest, files).await.unwrap();
        other.join(&maestro).await.unwrap();
        other
    });
    let others: Vec<LyingPeer> = others.collect().await;
    let begun: Transfer = peer.ctl_json(&["fetch", "entra.bin", "--detach"]).await.unwrap();
    let pulled = join_all(others.iter().map(|other| pulled(other, peer, sale, LEN))).await;
    assert!(pulled.iter().all(|sum| *sum == LEN), "{pulled:?}");
    let done = peer.transfer_done(begun.id, LONG).await.unwrap();
    assert_eq!(peer.hash_of("entra.bin").unwrap(), ContentHash::of(&entra));
    let gave = done.sources.iter().filter(|source| source.bytes > 0).count();
    let peak = peer.daemon().peak_memory().unwrap();
    println!("serving {OTHERS}, and fetching from {gave}: peak memory is {} MiB", peak / MIB);
    assert_eq!(gave, OTHERS, "{:?}", done.sources);
    assert!(peak < 150 * MIB, "it took {} MiB", peak / MIB);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// A sparse file, and a directory of many small ones: `cargo xtask test-large --only large --gib 100 --files 1000000` has
/// them as large as anybody's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run with cargo xtask test-large"]
async fn an_enormous_file_and_very_many_files_take_no_more_memory() {
    let (len, files) = (number("P2P_GIB").unwrap_or(4) * GIB, number("P2P_FILES").unwrap_or(50_000));
    let path = |file: u64| format!("muchos/{}/{}/{file}.txt", file / 100_000, file / 100 % 1000);
    let text = |file: u64| format!("archivo {file}\n").repeat(usize::try_from(file % 40).unwrap() + 1);
    // Longer than anything takes that is not as large.
    let long = LONG * 6;
    let network = Network::builder().peers(2).start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    std::fs::File::create(one.shared("enorme.bin")).unwrap().set_len(len).unwrap();
    (0..files).try_for_each(|file| write_file(&one.shared(path(file)), text(file))).unwrap();
    one.p2pctl().run_within(long, ["refresh"]).await.unwrap().ok().unwrap();
    one.settled().await.unwrap();
    let daemons = [one.daemon(), other.daemon(), network.maestro().unwrap().daemon()];
    let said = other.p2pctl().run_within(long, ["fetch", "enorme.bin"]).await.unwrap().ok().unwrap();
    print_rate(&format!("fetch of {} GiB", len / GIB), len, said.took);
    assert_eq!(other.hash_of("enorme.bin").unwrap(), one.hash_of("enorme.bin").unwrap());
    memory("after the enormous file", &daemons);
    let said = other.p2pctl().run_within(long, ["fetch", "-r", "muchos"]).await.unwrap().ok().unwrap();
    println!("fetch of {files} files: {:.2} s", said.took.as_secs_f64());
    for file in 0..files {
        let came = std::fs::read_to_string(other.shared(path(file))).unwrap();
        assert!(came == text(file), "{} is another file", path(file));
    }
    memory("after many files", &daemons);
}
