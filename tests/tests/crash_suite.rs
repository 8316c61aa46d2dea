//! A fetching peer that is killed (SIGKILL) again and again on its way: it goes on by itself, asks again for little, and
//! loses nothing that was on its disk. And what of its work is on the disk at any time.
//!
//! Each run follows from its seed, which a failure names: `P2P_SEED=N` runs that one, `P2P_RUNS=N` so many.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use p2p_content::{Bitmap, ContentHash, PARTIAL_DIR, Pieces};
use p2p_proto::control::{Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, as_soon_as, eventually, random_bytes};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, OpenFlags};

const MIB: u64 = 1 << 20;
const TRANSFERRED: Duration = Duration::from_secs(120);
const RUNS: u64 = 1;
/// Kills in a run; the greater numbers are those of `cargo xtask test-large`.
const KILLS: u64 = 8;
const MANY_KILLS: u64 = 100;
const MANY_ENDS: u64 = 32;
/// Bytes per second that the source gives.
const RATE: u32 = 8 << 20;
/// Bytes from one kill to the next, on average.
const STEP: u64 = 5 * MIB;
/// What a kill costs at the very most, as everything has its bound that is in memory: 4 pieces that are being written, 4
/// that wait for that, one that was read and one of which a part has come, and what is on its way in the window of the
/// stream. It is much less than what comes in 5 s.
const LOST_AT_ONCE: u64 = 14 * MIB;
/// What a kill costs on average: at this rate nothing waits, and there is a part of one piece, and what the sockets hold.
/// Whoever trusted only what was remembered within the last second would lose all of most steps.
const LOST_ON_AVERAGE: u64 = 2 * MIB;

/// When the fetching peer is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after it was ready: it may not have found its source again.
    Ready(Duration),
    /// So many bytes later, by its source's account, and a moment.
    Given(u64, Duration),
    /// So long after the last byte that it lacked was given: that is proven, written, and the file gets its name.
    Last(Duration),
}

fn up_to(random: &mut StdRng, millis: u64) -> Duration {
    Duration::from_micros(random.random_range(0..millis * 1000))
}

fn moments(random: &mut StdRng, kills: u64) -> Vec<Moment> {
    let at_the_end = kills.div_ceil(8);
    let mut moments = Vec::new();
    for kill in 0..kills {
        moments.push(match random.random_range(0..8) {
            _ if kill + at_the_end >= kills => Moment::Last(up_to(random, 200)),
            0 => Moment::Ready(up_to(random, 500)),
            _ => Moment::Given(random.random_range(0..2 * STEP), up_to(random, 20)),
        });
    }
    moments
}

async fn wait_for(moment: Moment, source: &LyingPeer, given_before: u64, lacking: u64) {
    let (bytes, then) = match moment {
        Moment::Ready(then) => (0, then),
        // Never so many that it could be done before.
        Moment::Given(bytes, then) => (bytes.min(lacking / 2), then),
        Moment::Last(then) => (lacking, then),
    };
    eventually(TRANSFERRED, "the transfer goes on by itself", async || {
        let given = source.given_bytes() - given_before;
        ensure!(given >= bytes, "{given} of {bytes} bytes were given");
        Ok(())
    })
    .await
    .unwrap();
    // Nothing is waited for: the moment itself is the fault.
    tokio::time::sleep(then).await;
}

/// The pieces that the peer has on its disk, whatever it knows of them.
fn on_disk(peer: &Peer, name: &str, bytes: &[u8]) -> Bitmap {
    let pieces = Pieces::of(bytes.len() as u64);
    let mut there = Bitmap::new(pieces.count());
    let parts = fs::read_dir(peer.shared(PARTIAL_DIR)).into_iter().flatten();
    let parts = parts.map(|entry| entry.unwrap().path());
    let mut held = vec![0; usize::try_from(pieces.piece_len()).unwrap()];
    for file in parts.chain([peer.shared(name)]).filter_map(|path| File::open(path).ok()) {
        for piece in 0..pieces.count() {
            let range = pieces.range(piece);
            let wanted = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            let held = &mut held[..wanted.len()];
            if file.read_exact_at(held, range.start).is_ok() && held == wanted {
                there.set(piece);
            }
        }
    }
    there
}

fn len_of(pieces: &Bitmap, len: u64) -> u64 {
    let ranges = pieces.iter_ones().map(|piece| Pieces::of(len).range(piece));
    ranges.map(|range| range.end - range.start).sum()
}

/// Kills it, and gives what is on its disk then.
async fn kill(network: &mut Network, name: &str, bytes: &[u8]) -> Bitmap {
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    on_disk(network.peer(1).unwrap(), name, bytes)
}

async fn restart(network: &mut Network) {
    network.peer_mut(1).unwrap().daemon_mut().restart().await.unwrap();
}

/// Waits for the end of the transfer, and holds it against what was to come of it.
async fn check_end(network: &Network, id: u64, name: &str, content: ContentHash) {
    let peer = network.peer(1).unwrap();
    let done = peer.transfer_done(id, TRANSFERRED).await.unwrap();
    assert_eq!((done.state, peer.hash_of(name).unwrap()), (TransferState::Done, content));
    assert_eq!(peer.partial_files(), 0);
    let all = peer.transfers().await.unwrap();
    assert_eq!(all.iter().filter(|transfer| transfer.name == name).count(), 1, "{all:?}");
}

async fn fetch(network: &Network, name: &str) -> u64 {
    let begun: Transfer = network.peer(1).unwrap().ctl_json(&["fetch", name, "--detach"]).await.unwrap();
    begun.id
}

async fn run(network: &mut Network, seed: u64, kills: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    // The last piece is shorter than the others.
    let len = (kills + 1) * STEP + 12_345;
    let (name, bytes) =
        (format!("{seed}.bin"), Bytes::from(random_bytes(usize::try_from(len).unwrap(), seed)));
    let content = ContentHash::of(&bytes);
    let files = [(name.as_str(), bytes.clone())];
    let source = LyingPeer::start("fuente", Conduct::slow(RATE), files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let id = fetch(network, &name).await;
    let (mut there, mut given, mut lost_in_all) = (Bitmap::new(Pieces::of(len).count()), 0, 0);
    for (number, moment) in (1..).zip(moments(&mut random, kills)) {
        let had = len_of(&there, len);
        wait_for(moment, &source, given, len - had).await;
        let now = kill(network, &name, &bytes).await;
        assert!(
            there.iter_ones().all(|piece| now.get(piece)),
            "pieces that were there are gone: kill {number}"
        );
        let came = source.given_bytes() - given;
        let lost = came.saturating_sub(len_of(&now, len) - had);
        println!("kill {number}, {moment:?}: {} KiB had come, {} KiB are lost", came / 1024, lost / 1024);
        assert!(lost <= LOST_AT_ONCE, "{lost} of {came} bytes are lost by kill {number}");
        (there, given, lost_in_all) = (now, given + came, lost_in_all + lost);
        restart(network).await;
    }
    check_end(network, id, &name, content).await;
    let lacked = len - len_of(&there, len);
    lost_in_all += (source.given_bytes() - given).saturating_sub(lacked);
    println!("{kills} kills cost {} KiB each", lost_in_all / kills / 1024);
    assert!(lost_in_all <= kills * LOST_ON_AVERAGE, "{lost_in_all} bytes were asked for again");
}

/// The end of a transfer is short: so many small files are fetched, and the peer is killed about when each gets its name.
async fn run_to_the_end(network: &mut Network, seed: u64, kills: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let files: Vec<(String, Bytes)> = (0..kills)
        .map(|file| {
            let len = random.random_range(1..3 << 20);
            (format!("{seed}/{file}.bin"), random_bytes(len, seed << 32 | file).into())
        })
        .collect();
    let source = LyingPeer::start("fuente", Conduct::Honest, files.clone()).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    for (name, bytes) in &files {
        let given = source.given_bytes();
        let id = fetch(network, name).await;
        let then = if random.random_bool(0.5) {
            let path = network.peer(1).unwrap().shared(name);
            let named = as_soon_as(TRANSFERRED, "it has its name", async || {
                ensure!(path.exists(), "{} is not there", path.display());
                Ok(())
            });
            named.await.unwrap();
            up_to(&mut random, 10)
        } else {
            up_to(&mut random, 200)
        };
        tokio::time::sleep(then).await;
        let there = kill(network, name, bytes).await;
        restart(network).await;
        check_end(network, id, name, ContentHash::of(bytes)).await;
        // Once whole, until it was killed, and then what was not on the disk.
        let (len, came) = (bytes.len() as u64, source.given_bytes() - given);
        let had = len_of(&there, len);
        println!("{name}: killed with {had} of {len} bytes there, {came} bytes came");
        assert!(came <= len + (len - had), "{came} bytes came, of {len} of which {had} were there");
    }
}

async fn runs(kills: u64, run: impl AsyncFn(&mut Network, u64, u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, runs) = match number("P2P_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("P2P_RUNS").unwrap_or(RUNS)),
    };
    let mut network = Network::builder().peers(1).start().await.unwrap();
    for seed in first..first + runs {
        println!("P2P_SEED={seed}");
        run(&mut network, seed, kills).await;
    }
}

/// Bytes of a transfer that its peer's database has on the disk, as having come: what they are made of went there before.
fn remembered(peer: &Peer, id: u64, len: u64) -> Option<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(peer.state("transfers.sqlite"), flags).unwrap();
    let is_listed = "SELECT json_extract(body, '$.files') IS NOT NULL FROM transfers WHERE id = ?1";
    if database.query_row(is_listed, [id], |row| row.get(0)).unwrap() {
        let lacking = "SELECT CAST(total(size) AS INTEGER) FROM tree_files WHERE transfer = ?1";
        return Some(len - database.query_row(lacking, [id], |row| row.get::<_, u64>(0)).unwrap());
    }
    let proven = "SELECT proven FROM transfers WHERE id = ?1";
    let proven: Option<Vec<u8>> = database.query_row(proven, [id], |row| row.get(0)).unwrap();
    Some(len_of(&Bitmap::from_bytes(Pieces::of(len).count(), &proven?).unwrap(), len))
}

/// A power cut takes what is not on the disk, whenever it comes.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_came_more_than_five_seconds_ago_is_on_the_disk() {
    const LEN: u64 = 64 * MIB;
    const FILES: u64 = 1024;
    const MOST: Duration = Duration::from_secs(5);
    let network = Network::builder().peers(1).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let bytes = |len: u64, seed| Bytes::from(random_bytes(usize::try_from(len).unwrap(), seed));
    let small =
        (0..FILES).map(|file| (format!("muchos/{}/{file}.bin", file / 100), bytes(LEN / FILES, file)));
    let files = small.chain([("uno.bin".to_owned(), bytes(LEN, FILES))]);
    let source = LyingPeer::start("fuente", Conduct::slow(RATE), files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    for words in [&["fetch", "uno.bin", "--detach"][..], &["fetch", "-r", "muchos", "--detach"]] {
        let begun: Transfer = peer.ctl_json(words).await.unwrap();
        let (mut shown, mut least_kept, mut compared) = (Vec::new(), u64::MAX, 0);
        let done = eventually(TRANSFERRED, "it is done", async || {
            let (now, kept) = (Instant::now(), remembered(peer, begun.id, LEN));
            let transfer = peer.transfer(begun.id).await?;
            if transfer.state.is_ended() {
                // What is remembered of it is forgotten.
                return Ok(transfer);
            }
            let kept = kept.unwrap_or_default();
            let then = shown.iter().rfind(|(at, _): &&(Instant, u64)| now - *at >= MOST);
            if let Some((_, then)) = then {
                assert!(
                    kept >= *then,
                    "{words:?}: {then} bytes had come by then, and {kept} are on the disk"
                );
                (least_kept, compared) = (least_kept.min(kept - then), compared + 1);
            }
            shown.push((Instant::now(), transfer.done_bytes));
            anyhow::bail!("{} of {LEN} bytes are there, {kept} on the disk", transfer.done_bytes)
        });
        let done = done.await.unwrap();
        assert_eq!(done.state, TransferState::Done);
        println!("{words:?}: compared {compared} times, at least {} KiB more", least_kept / 1024);
        assert!(compared > 10, "it lasted too short: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_survives_eight_kills() {
    runs(KILLS, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_transfers_survive_a_kill_at_their_end() {
    runs(KILLS, run_to_the_end).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo xtask test-large"]
async fn a_transfer_survives_a_hundred_kills() {
    runs(MANY_KILLS, run).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo xtask test-large"]
async fn thirty_two_transfers_survive_a_kill_at_their_end() {
    runs(MANY_ENDS, run_to_the_end).await;
}
