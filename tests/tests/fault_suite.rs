//! Many sources, of which half go wrong in one way or another while a file is fetched from all of them.
//!
//! Each run follows from its seed, which a failure names: `P2P_SEED=N` runs that one, `P2P_RUNS=N` so many.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use p2p_content::ContentHash;
use p2p_proto::control::{SourceState, Transfer, TransferState};
use p2p_tests::{Conduct, LyingPeer, Network, eventually, random_bytes};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SOURCES: usize = 32;
const MIB: usize = 1 << 20;
const TRANSFERRED: Duration = Duration::from_secs(60);
/// Runs that are made with every test run; `cargo xtask test-large` makes 200.
const RUNS: u64 = 8;
const MANY_RUNS: u64 = 200;
/// Open files beside those of the transfer: databases, listeners, the maestro.
const SPARE_FILES: usize = 4;

/// What a source does from some moment on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Conduct(Conduct),
    /// From the start it announces that the file has so many bytes, and stands by it from the moment on.
    Length(u64),
    Vanish,
}

impl Fault {
    fn conduct(self) -> Option<Conduct> {
        match self {
            Fault::Conduct(conduct) => Some(conduct),
            Fault::Length(_) => Some(Conduct::FalseLength),
            Fault::Vanish => None,
        }
    }
}

fn fault(random: &mut StdRng, len: usize) -> Fault {
    match random.random_range(0..10) {
        0 => Fault::Conduct(Conduct::Silent),
        1 => Fault::Conduct(Conduct::slow(1024)),
        2 => Fault::Conduct(Conduct::false_pieces(random.random_range(1..4))),
        3 => Fault::Conduct(Conduct::TooMuch),
        4 => Fault::Conduct(Conduct::Empty),
        5 => Fault::Conduct(Conduct::Breaks(random.random_range(0..1 << 20))),
        6 => Fault::Conduct(Conduct::FalseManifest),
        7 => Fault::Conduct(Conduct::FalseAndGone),
        8 => Fault::Length(match random.random_range(0..4) {
            0 => len as u64 + 1,
            1 => random.random_range(0..len as u64),
            2 => 1 << 50,
            _ => random.random_range(0..16 << 20),
        }),
        _ => Fault::Vanish,
    }
}

async fn run(network: &Network, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let peer = network.peer(1).unwrap();
    let len = random.random_range(1..12 * MIB);
    let bytes = bytes::Bytes::from(random_bytes(len, seed));
    let (hash, name) = (ContentHash::of(&bytes), format!("{seed}.bin"));
    let files_before = peer.daemon().open_files().unwrap();
    // So slow that something can go wrong before all is there.
    let speed = Conduct::slow(random.random_range(1 << 20..4 << 20));
    let maestro = network.maestro().unwrap().address();
    let mut faults: Vec<(usize, Fault, u64)> = (0..SOURCES / 2)
        .map(|number| (number * 2, fault(&mut random, len), random.random_range(0..400)))
        .collect();
    faults.sort_by_key(|(_, _, at)| *at);
    let told = |number: usize| match faults.iter().find(|(faulty, ..)| *faulty == number) {
        Some((_, Fault::Length(told), _)) => *told,
        _ => len as u64,
    };
    let starting = (0..SOURCES).map(async |number| {
        let (who, files) = (format!("F{number}"), [(name.as_str(), bytes.clone(), told(number))]);
        let source = LyingPeer::start_telling(&who, speed, files).await.unwrap();
        source.join(&maestro).await.unwrap();
        source
    });
    let mut sources: Vec<Option<LyingPeer>> = join_all(starting).await.into_iter().map(Some).collect();
    let begun: Transfer = peer.ctl_json(&["fetch", &name, "--detach"]).await.unwrap();
    let mut now = 0;
    for (number, fault, at) in &faults {
        tokio::time::sleep(Duration::from_millis(at - now)).await;
        now = *at;
        match fault.conduct() {
            None => sources[*number] = None,
            Some(conduct) => sources[*number].as_ref().unwrap().behave(conduct),
        }
    }
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!((done.state, peer.hash_of(&name).unwrap()), (TransferState::Done, hash));
    assert_eq!(done.size, Some(len as u64));
    // Whoever is said to be bad is bad.
    for source in done.sources.iter().filter(|source| source.state == SourceState::Dropped) {
        let number: usize = source.peer.name[1..].parse().unwrap();
        let fault = faults.iter().find(|(faulty, ..)| *faulty == number).map(|(_, fault, _)| *fault);
        let lies = matches!(
            fault.and_then(Fault::conduct),
            Some(
                Conduct::FalsePieces(_)
                    | Conduct::TooMuch
                    | Conduct::FalseManifest
                    | Conduct::FalseAndGone
                    | Conduct::FalseLength
            )
        );
        assert!(lies, "{source:?} did {fault:?}");
    }
    drop(sources);
    assert_eq!(peer.partial_files(), 0);
    eventually(TRANSFERRED, "nothing of it is left open", async || {
        let files = peer.daemon().open_files()?;
        ensure!(files <= files_before + SPARE_FILES, "{files} files are open, and {files_before} were");
        Ok(())
    })
    .await
    .unwrap();
}

async fn runs(usual: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, runs) = match number("P2P_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("P2P_RUNS").unwrap_or(usual)),
    };
    let network = Network::builder().peers(1).start().await.unwrap();
    for seed in first..first + runs {
        println!("P2P_SEED={seed}");
        run(&network, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_arrives_whatever_half_of_its_sources_do() {
    runs(RUNS).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo xtask test-large"]
async fn two_hundred_files_arrive_whatever_half_of_their_sources_do() {
    runs(MANY_RUNS).await;
}
