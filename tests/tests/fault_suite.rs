//! Many sources, of which half go wrong in one way or another while a file is fetched from all of them.
//!
//! Each run follows from its seed, which a failure names: `P2P_SEED=N` runs that one, `P2P_RUNS=N` so many. What a fault did
//! is known from the sources themselves: each run says how many of them took effect, and holds what the fetching peer says of
//! its sources against it.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use p2p_proto::control::{SourceState, Status, Transfer};
use p2p_tests::{
    Asked, Conduct, Deed, HeldFile, LyingPeer, Network, Peer, Untruth, eventually, random_bytes,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SOURCES: usize = 32;
const MIB: usize = 1 << 20;
/// As many pieces as all sources are asked for at once, and once again.
const SIZES: std::ops::Range<usize> = 2 * SOURCES * MIB..3 * SOURCES * MIB;
/// Bytes per second of each source: so slow that something can go wrong before all is there.
const SPEEDS: std::ops::Range<u32> = 2 << 20..5 << 20;
const TRANSFERRED: Duration = Duration::from_secs(60);
/// Runs that are made with every test run; `cargo xtask test-large` makes 200.
const RUNS: u64 = 9;
const MANY_RUNS: u64 = 200;
/// Peers that fetch at once, each for runs of its own.
const LANES: u64 = 3;
/// After so many runs every kind of fault has been seen at work.
const ENOUGH_RUNS: u64 = 100;
/// What a source has sent is at the fetching peer after so long. Within it nobody else gives a piece to its end.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
/// Open files beside those of transfers that a daemon may come to have: connections to its databases.
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
    fn at_random(random: &mut StdRng, len: usize) -> Fault {
        let len = len as u64;
        Fault::Conduct(match random.random_range(0..14) {
            0 => Conduct::Silent,
            1 => Conduct::slow(1024),
            2 => Conduct::false_pieces(random.random_range(1..4)),
            3 => Conduct::TooMuch,
            4 => Conduct::Empty,
            5 => Conduct::Breaks(random.random_range(0..1 << 20)),
            6 => Conduct::FalseManifest,
            7 => Conduct::FalseAndGone,
            8 => Conduct::Tells(Untruth::Bitmap),
            9 => Conduct::Tells(Untruth::Gained),
            10 => Conduct::Tells(Untruth::Beyond),
            11 => Conduct::Tells(Untruth::Promises),
            12 => {
                return Fault::Length(match random.random_range(0..4) {
                    0 => len + 1,
                    1 => random.random_range(0..len),
                    2 => 1 << 50,
                    _ => random.random_range(0..16 << 20),
                });
            }
            _ => return Fault::Vanish,
        })
    }

    /// What it does then; `None`: it is no more.
    fn conduct(self) -> Option<Conduct> {
        match self {
            Fault::Conduct(conduct) => Some(conduct),
            Fault::Length(_) => Some(Conduct::FalseLength),
            Fault::Vanish => None,
        }
    }

    fn kind(self) -> String {
        let said = format!("{self:?}");
        let of_conduct = said.strip_prefix("Conduct(").unwrap_or(&said);
        match self {
            Fault::Conduct(Conduct::Tells(untruth)) => format!("{untruth:?}"),
            _ => of_conduct.split(['(', ')']).next().unwrap_or_default().to_owned(),
        }
    }
}

/// What goes wrong with each faulty source, and after so many milliseconds.
fn faults(random: &mut StdRng, len: usize) -> Vec<(Fault, u64)> {
    // Now and then they all do the same: for the manifest hardly more than one source is asked.
    let common = random.random_bool(0.2).then(|| match random.random_bool(0.3) {
        true => Fault::Conduct(Conduct::FalseManifest),
        false => Fault::at_random(random, len),
    });
    let faults = (0..SOURCES / 2).map(|_| {
        let fault = common.unwrap_or_else(|| Fault::at_random(random, len));
        let at = match fault {
            Fault::Conduct(Conduct::FalseManifest) => 0,
            Fault::Vanish => random.random_range(1..600),
            // Half of them from the start: what is told once is told by then.
            _ if random.random_bool(0.5) => 0,
            _ => random.random_range(1..600),
        };
        (fault, at)
    });
    faults.collect()
}

/// Whether it is proven who does this: to be dropped, and named.
fn is_proven(conduct: Conduct) -> bool {
    matches!(
        conduct,
        Conduct::FalsePieces(_)
            | Conduct::TooMuch
            | Conduct::FalseManifest
            | Conduct::FalseAndGone
            | Conduct::FalseLength
            | Conduct::Tells(Untruth::Beyond)
    )
}

/// A source, and what is wrong with it.
struct Source {
    number: usize,
    fault: Option<Fault>,
    /// `None` once it has vanished.
    peer: Option<LyingPeer>,
    /// What it was asked for until then.
    deeds: Vec<Deed>,
}

impl Source {
    fn deeds(&self) -> Vec<Deed> {
        self.peer.as_ref().map_or_else(|| self.deeds.clone(), LyingPeer::deeds)
    }

    fn goes_wrong(&mut self, conduct: Option<Conduct>) {
        match (conduct, &self.peer) {
            (Some(conduct), Some(peer)) => peer.behave(conduct),
            (None, _) => {
                self.deeds = self.deeds();
                self.peer = None;
            }
            _ => {}
        }
    }

    /// Whether its fault was to be felt.
    fn has_acted(&self) -> bool {
        let felt = |deed: &Deed| match self.fault.map(Fault::conduct) {
            Some(Some(conduct)) => deed.conduct == conduct,
            Some(None) => matches!(deed.asked, Asked::Bytes(_)) && deed.ended.is_none(),
            None => false,
        };
        self.deeds().iter().any(felt)
    }
}

/// When which piece was given to its end, by whom.
type Given = Vec<(u64, usize, Instant)>;

fn given(sources: &[Source]) -> Given {
    let of = |source: &Source| {
        let number = source.number;
        let gave = move |deed: Deed| match deed.asked {
            Asked::Bytes(offset) => deed.ended.map(|at| (offset, number, at)),
            _ => None,
        };
        source.deeds().into_iter().filter_map(gave).collect::<Given>()
    };
    sources.iter().flat_map(of).collect()
}

/// Whether the fetching peer must have taken notice of what this source did there: of a second copy of a piece, or what
/// comes after the last one, it need not.
fn was_seen(deed: &Deed, source: usize, given: &Given, done: Instant) -> bool {
    let Some(ended) = deed.ended else { return false };
    match deed.asked {
        Asked::Manifest => true,
        Asked::Availability => ended + ON_ITS_WAY < done,
        Asked::Bytes(offset) => !given.iter().any(|(other_offset, other, at)| {
            (*other_offset, *other != source) == (offset, true) && *at < ended + ON_ITS_WAY
        }),
    }
}

/// What a daemon had before anything was fetched.
struct Before {
    files: usize,
    tasks: u64,
}

impl Before {
    async fn of(peer: &Peer) -> Result<Before> {
        let status: Status = peer.ctl_json(&["status"]).await?;
        Ok(Before { files: peer.daemon().open_files()?, tasks: status.tasks })
    }
}

/// How many faults of each kind there were, and how many of them were felt.
type Felt = BTreeMap<String, (usize, usize)>;

async fn start(maestro: &str, random: &mut StdRng, file: &HeldFile, faults: &[(Fault, u64)]) -> Vec<Source> {
    let speed = Conduct::slow(random.random_range(SPEEDS));
    let starting = (0..SOURCES).map(async |number| {
        // Every second one.
        let fault = (number % 2 == 0).then(|| faults[number / 2].0);
        let file = match fault {
            Some(Fault::Length(told)) => file.clone().told_as(told),
            _ => file.clone(),
        };
        let peer = LyingPeer::start_holding(&format!("F{number}"), speed, [file]).await.unwrap();
        peer.join(maestro).await.unwrap();
        Source { number, fault, peer: Some(peer), deeds: Vec::new() }
    });
    join_all(starting).await
}

async fn run(maestro: &str, peer: &Peer, before: &Before, seed: u64) -> Result<Felt> {
    let mut random = StdRng::seed_from_u64(seed);
    let (len, name) = (random.random_range(SIZES), format!("{seed}.bin"));
    let file = HeldFile::new(name.as_str(), random_bytes(len, seed));
    let faults = faults(&mut random, len);
    let mut sources = start(maestro, &mut random, &file, &faults).await;
    let mut order: Vec<usize> = (0..faults.len()).collect();
    order.sort_by_key(|which| faults[*which].1);
    let (at_once, later) = order.split_at(order.partition_point(|which| faults[*which].1 == 0));
    for which in at_once {
        sources[which * 2].goes_wrong(faults[*which].0.conduct());
    }
    let begun: Transfer = peer.ctl_json(&["fetch", &name, "--detach"]).await?;
    let mut now = 0;
    for which in later {
        let (fault, at) = faults[*which];
        tokio::time::sleep(Duration::from_millis(at - now)).await;
        now = at;
        sources[which * 2].goes_wrong(fault.conduct());
    }
    let done = peer.transfer_done(begun.id, TRANSFERRED).await?;
    ensure!(peer.hash_of(&name)? == file.content(), "the file is another one");
    ensure!(done.size == Some(len as u64), "{:?} is not its size", done.size);
    let felt = check_named(&sources, &done, seed)?;
    drop(sources);
    fs::remove_file(peer.shared(&name))?;
    ensure!(peer.partial_files() == 0, "{} parts are left", peer.partial_files());
    let nothing = "nothing of it is left open or at work";
    eventually(TRANSFERRED, nothing, async || {
        let now = Before::of(peer).await?;
        ensure!(
            now.files <= before.files + SPARE_FILES,
            "{} files are open, and {} were",
            now.files,
            before.files
        );
        ensure!(now.tasks <= before.tasks, "{} tasks are at work, and {} were", now.tasks, before.tasks);
        Ok(())
    })
    .await?;
    Ok(felt)
}

/// Holds what is said of the sources against what they did.
fn check_named(sources: &[Source], done: &Transfer, seed: u64) -> Result<Felt> {
    let ago = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64
        - done.ended_ms.context("it has not ended")?;
    let ended = Instant::now() - Duration::from_millis(u64::try_from(ago).unwrap_or_default());
    let (given, mut felt) = (given(sources), Felt::new());
    let (mut acted, mut named) = (0, 0);
    for source in sources {
        let (number, deeds) = (source.number, source.deeds());
        let said = done.sources.iter().find(|said| said.peer.name == format!("F{number}"));
        let state = said.map(|said| said.state);
        let conduct = source.fault.and_then(Fault::conduct);
        // Whoever is said to be bad is bad.
        let lies = conduct.is_some_and(is_proven);
        ensure!(state != Some(SourceState::Dropped) || lies, "{said:?} did {:?}", source.fault);
        let Some(fault) = source.fault else { continue };
        let count = felt.entry(fault.kind()).or_insert((0, 0));
        count.0 += 1;
        if source.has_acted() {
            (count.1, acted) = (count.1 + 1, acted + 1);
        }
        let seen = |deed: &&Deed| Some(deed.conduct) == conduct && was_seen(deed, number, &given, ended);
        let seen: Vec<&Deed> = deeds.iter().filter(seen).collect();
        let reason = said.and_then(|said| said.reason.as_ref());
        // Whoever is bad is said to be.
        if lies && !seen.is_empty() {
            ensure!(
                state == Some(SourceState::Dropped) && reason.is_some(),
                "{said:?} did {fault:?}: {deeds:?}"
            );
            named += 1;
        }
        let has_none =
            matches!(conduct, Some(Conduct::Empty | Conduct::Tells(Untruth::Bitmap | Untruth::Gained)));
        if has_none && seen.iter().any(|deed| matches!(deed.asked, Asked::Bytes(_))) {
            let is_asked_again = source.peer.as_ref().is_some_and(|peer| peer.streams() > 1);
            let is_lost = state == Some(SourceState::Lost)
                && reason.is_some_and(|reason| reason.contains("does not have the piece that it told of"));
            ensure!(is_lost || is_asked_again, "{said:?} did {fault:?}: {deeds:?}");
        }
    }
    let is_asked = |source: &&Source| source.deeds().iter().any(|deed| matches!(deed.asked, Asked::Bytes(_)));
    let asked = sources.iter().filter(is_asked).count();
    println!(
        "P2P_SEED={seed}: {} MiB, {asked} of {SOURCES} sources were asked for bytes, {acted} of {} faults took effect, \
         {named} sources were proven false and named",
        done.size.unwrap_or_default() as usize / MIB,
        SOURCES / 2
    );
    // Whoever is asked for bytes is asked by then; for the manifest it is hardly more than one, and who vanishes may owe nothing.
    let of_bytes =
        felt.iter().filter(|(kind, _)| !["FalseManifest", "Length", "Vanish"].contains(&kind.as_str()));
    let (there, acted) = of_bytes.fold((0, 0), |sum, (_, count)| (sum.0 + count.0, sum.1 + count.1));
    ensure!(acted * 4 >= there, "of {there} faults only {acted} took effect: {felt:?}");
    Ok(felt)
}

async fn runs(usual: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, runs) = match number("P2P_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("P2P_RUNS").unwrap_or(usual)),
    };
    let lanes = LANES.min(runs);
    let network = Network::builder().peers(usize::try_from(lanes).unwrap()).start().await.unwrap();
    let maestro = network.maestro().unwrap().address();
    let lane = async |(lane, peer): (u64, &Peer)| {
        let before = Before::of(peer).await.unwrap();
        let mut felt = Vec::new();
        for seed in (first..first + runs)
            .skip(usize::try_from(lane).unwrap())
            .step_by(usize::try_from(lanes).unwrap())
        {
            let done = run(&maestro, peer, &before, seed).await;
            felt.push(done.with_context(|| format!("P2P_SEED={seed}")).unwrap());
        }
        felt
    };
    let felt = join_all((0..).zip(network.peers()).map(lane)).await;
    let mut all = Felt::new();
    for (kind, (there, acted)) in felt.into_iter().flatten().flatten() {
        let sum = all.entry(kind).or_insert((0, 0));
        *sum = (sum.0 + there, sum.1 + acted);
    }
    for (kind, (there, acted)) in &all {
        println!("{kind}: {acted} of {there} took effect");
    }
    if runs >= ENOUGH_RUNS {
        assert!(all.values().all(|(_, acted)| *acted > 0), "{all:?}");
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
