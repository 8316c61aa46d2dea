//! One source, and many that fetch the same file from it at the same moment, each on a host with a link of its own.
//!
//! What counts is the last receiver's time, as a multiple of what its link alone would need, and how many copies the source
//! had to send. The link's payload rate is measured with iperf3 in the same run.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use p2p_content::ContentHash;
use p2p_tests::{Lab, Network, Peer, random_file};

const MIB: u64 = 1 << 20;
/// A run that takes longer has failed.
const RUN: Duration = Duration::from_secs(900);
/// The source's host; the maestro's is the first.
const SEED_HOST: u8 = 2;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// How many fetch at once
    #[arg(long, default_value_t = 8)]
    receivers: u8,
    /// Speed of each link, both ways, in Mbit/s; several, separated by commas, are given to the receivers in turn
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    mbit: Vec<u32>,
    /// Speed of the source's link, in Mbit/s
    #[arg(long, default_value_t = 100)]
    seed_mbit: u32,
    /// Pull the source's cable once it has sent so many copies
    #[arg(long)]
    cut_after: Option<f64>,
    /// Runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Measures, and prints the table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (mut out, mbit) = (std::io::stdout().lock(), &options.mbit);
    writeln!(
        out,
        "\n{} MiB from one source ({} Mbit/s) to {} receivers ({mbit:?} Mbit/s) at once\n\n\
         | run | last receiver, s | worst time over its own limit | copies the source sent | each receiver's time over its limit |\n\
         |---|---|---|---|---|",
        options.mib, options.seed_mbit, options.receivers
    )?;
    for run in 1..=options.runs {
        let seen = once(options).await?;
        let each: Vec<String> = seen.receivers.iter().map(|(_, ratio)| format!("{ratio:.2}")).collect();
        let last = seen.receivers.iter().map(|(took, _)| *took).max().unwrap_or_default();
        let worst = seen.receivers.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
        let (last, copies) = (last.as_secs_f64(), seen.copies);
        writeln!(out, "| {run} | {last:.1} | **{worst:.2}** | **{copies:.2}** | {} |", each.join(" "))?;
    }
    Ok(())
}

struct Seen {
    /// How long each took, and as a multiple of what its link needs.
    receivers: Vec<(Duration, f64)>,
    copies: f64,
}

async fn once(options: &Options) -> Result<Seen> {
    let len = options.mib * MIB;
    let hosts = options.receivers + SEED_HOST;
    let lab = Lab::build(hosts)?;
    lab.limit(SEED_HOST, options.seed_mbit)?;
    let speed = |receiver: u8| options.mbit[usize::from(receiver) % options.mbit.len()];
    for receiver in 0..options.receivers {
        lab.limit(SEED_HOST + 1 + receiver, speed(receiver))?;
    }
    let mut limits = Vec::new();
    for receiver in 0..options.receivers {
        limits.push(seconds_of(len, &lab, SEED_HOST + 1 + receiver, &limits, options, speed)?);
    }
    let builder = Network::builder().peers(usize::from(options.receivers) + 1).on_hosts_of(&lab);
    let network = builder
        .files(move |number, shared| match number {
            1 => random_file(&shared.join("grande.bin"), len, 1).map(drop),
            _ => Ok(()),
        })
        .start()
        .await?;
    let hash = network.peer(1)?.hash_of("grande.bin")?;
    let before = lab.sent_bytes(SEED_HOST)?;
    let began = Instant::now();
    let fetching = network.peers().iter().skip(1).map(|peer| fetch(peer, hash, began));
    let fetched = tokio::select! {
        fetched = futures::future::try_join_all(fetching) => fetched?,
        cut = cut(options, &lab, before) => return Err(cut.err().unwrap_or_else(|| anyhow!("the cut has ended"))),
    };
    let sent = lab.sent_bytes(SEED_HOST)? - before;
    let receivers = fetched.into_iter().zip(limits).map(|(took, limit)| (took, took.as_secs_f64() / limit));
    Ok(Seen { receivers: receivers.collect(), copies: sent as f64 / len as f64 })
}

async fn fetch(peer: &Peer, hash: ContentHash, began: Instant) -> Result<Duration> {
    peer.p2pctl().run_within(RUN, ["fetch", "grande.bin"]).await?.ok()?;
    let took = began.elapsed();
    ensure!(peer.hash_of("grande.bin")? == hash, "what was fetched is not what was shared");
    Ok(took)
}

/// Pulls the source's cable where that is asked for. Ends only with an error.
async fn cut(options: &Options, lab: &Lab, before: u64) -> Result<()> {
    let Some(copies) = options.cut_after else { return std::future::pending().await };
    let enough = (options.mib * MIB) as f64 * copies;
    while ((lab.sent_bytes(SEED_HOST)? - before) as f64) < enough {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.cut(SEED_HOST)?;
    std::future::pending().await
}

/// What the link of a host needs for so many bytes: measured once for each speed.
fn seconds_of(
    len: u64,
    lab: &Lab,
    host: u8,
    known: &[f64],
    options: &Options,
    speed: impl Fn(u8) -> u32,
) -> Result<f64> {
    let receiver = host - SEED_HOST - 1;
    // The source cannot be faster than its own link either.
    let slowest = speed(receiver).min(options.seed_mbit);
    if let Some(same) = (0..receiver).find(|other| speed(*other).min(options.seed_mbit) == slowest) {
        return Ok(known[usize::from(same)]);
    }
    let mut server = lab
        .command(SEED_HOST, "iperf3")
        .args(["--server", "--one-off"])
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run iperf3; it is in the package of that name")?;
    let mut rate = None;
    for _ in 0..50 {
        let client = lab
            .command(host, "iperf3")
            .args(["--client", &Lab::address(SEED_HOST).to_string(), "--reverse", "--time", "4", "--json"])
            .output()?;
        let said: serde_json::Value = serde_json::from_slice(&client.stdout).unwrap_or_default();
        rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
        if rate.is_some() {
            break;
        }
        // It does not listen yet.
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = server.kill();
    server.wait()?;
    let rate = rate.context("iperf3 measured nothing")?;
    Ok(len as f64 * 8.0 / rate)
}
