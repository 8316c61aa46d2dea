//! One source, and many that fetch the same file from it at the same moment, each on a host with a link of its own.
//!
//! What counts is the last receiver's time, as a multiple of what its link alone would need, and how many copies the source
//! had to send. The link's payload rate is measured with iperf3 in the same run.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::TransferList;
use p2p_tests::{Lab, Network, Peer, random_file};
use tokio::time::timeout;

use crate::iperf3::{Amount, bits_per_second};

const MIB: u64 = 1 << 20;
/// The source's host; the maestro's is the first.
const SEED_HOST: u8 = 2;
/// How long one speed of a link is measured, in seconds.
const MEASURED_SECS: u32 = 4;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What happens in each run.
    #[command(flatten)]
    plan: Plan,
    /// Runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// What happens in a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Plan {
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 256)]
    pub(crate) mib: u64,
    /// How many fetch at once
    #[arg(long, default_value_t = 8)]
    pub(crate) receivers: u8,
    /// Speed of each link, both ways, in Mbit/s; several, separated by commas, are given to the receivers in turn
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    pub(crate) mbit: Vec<u32>,
    /// Speed of the source's link, in Mbit/s
    #[arg(long, default_value_t = 100)]
    pub(crate) seed_mbit: u32,
    /// Pull the source's cable once it has sent so many copies
    #[arg(long)]
    pub(crate) cut_after: Option<f64>,
    /// Who has not finished after so many seconds never does
    #[arg(long, default_value_t = 900)]
    pub(crate) give_up_secs: u64,
}

/// What was seen in a run.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How long each receiver took, and as a multiple of what its link needs; nothing where it did not finish.
    pub(crate) receivers: Vec<Option<(Duration, f64)>>,
    /// How many times the size of the file the source sent.
    pub(crate) copies: f64,
    /// What came for nothing at each receiver that finished, as a share of the file's size: asked of two, and of one in
    /// vain.
    pub(crate) wasted: Vec<f64>,
}

impl Seen {
    /// The worst receiver's multiple of its own limit: without bound where one did not finish.
    pub(crate) fn worst(&self) -> f64 {
        let ratios = self.receivers.iter().map(|seen| seen.map_or(f64::INFINITY, |(_, ratio)| ratio));
        ratios.fold(0.0, f64::max)
    }

    /// How many of the receivers have the file, as a share of 1.
    pub(crate) fn finished(&self) -> f64 {
        self.receivers.iter().flatten().count() as f64 / self.receivers.len().max(1) as f64
    }
}

/// Measures, and prints the table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (mut out, plan) = (std::io::stdout(), &options.plan);
    let mbit = &plan.mbit;
    writeln!(
        out,
        "\n{} MiB from one source ({} Mbit/s) to {} receivers ({mbit:?} Mbit/s) at once\n\n\
         | run | last receiver, s | worst time over its own limit | copies the source sent | each receiver's time over its limit | most that came to one for nothing |\n\
         |---|---|---|---|---|---|",
        plan.mib, plan.seed_mbit, plan.receivers
    )?;
    for run in 1..=options.runs {
        let seen = once(plan).await?;
        let shown = |seen: &Option<(Duration, f64)>| {
            seen.map_or("–".to_owned(), |(_, ratio)| format!("{ratio:.2}"))
        };
        let each: Vec<String> = seen.receivers.iter().map(shown).collect();
        let last = seen.receivers.iter().flatten().map(|(took, _)| *took).max().unwrap_or_default();
        let (last, worst, copies) = (last.as_secs_f64(), seen.worst(), seen.copies);
        let (each, wasted) = (each.join(" "), 100.0 * seen.wasted.iter().copied().fold(0.0, f64::max));
        writeln!(
            out,
            "| {run} | {last:.1} | **{worst:.2}** | **{copies:.2}** | {each} | {wasted:.0} % of the file |"
        )?;
    }
    Ok(())
}

/// One run, in a laboratory of its own.
pub(crate) async fn once(plan: &Plan) -> Result<Seen> {
    ensure!(!plan.mbit.is_empty(), "no speed of the receivers' links is given");
    let len = plan.mib * MIB;
    let lab = Lab::build(plan.receivers + SEED_HOST)?;
    lab.limit(SEED_HOST, plan.seed_mbit)?;
    for receiver in 0..plan.receivers {
        lab.limit(host_of(receiver), speed(plan, receiver))?;
    }
    let mut limits = Vec::new();
    for receiver in 0..plan.receivers {
        limits.push(seconds_of(len, &lab, receiver, &limits, plan).await?);
    }
    let builder = Network::builder().peers(usize::from(plan.receivers) + 1).on_hosts_of(&lab);
    let network = builder
        .files(move |number, shared| match number {
            1 => random_file(&shared.join("grande.bin"), len, 1).map(drop),
            _ => Ok(()),
        })
        .start()
        .await?;
    let hash = network.peer(1)?.hash_of("grande.bin")?;
    let before = lab.sent_bytes(SEED_HOST)?;
    let (began, give_up) = (Instant::now(), Duration::from_secs(plan.give_up_secs));
    let fetching = network.peers().iter().skip(1).map(|peer| fetch(peer, hash, began, give_up));
    let fetched = tokio::select! {
        fetched = futures::future::try_join_all(fetching) => fetched?,
        cut = cut(plan, &lab, before) => return Err(cut.err().unwrap_or_else(|| anyhow!("the cut has ended"))),
    };
    let sent = lab.sent_bytes(SEED_HOST)? - before;
    let mut wasted = Vec::new();
    for (peer, _) in network.peers().iter().skip(1).zip(&fetched).filter(|(_, took)| took.is_some()) {
        let known: TransferList = peer.ctl_json(&["transfers", "--all"]).await?;
        let bytes = known.transfers.iter().map(|transfer| transfer.wasted_bytes).sum::<u64>();
        wasted.push(bytes as f64 / len as f64);
    }
    let receivers = fetched.into_iter().zip(limits);
    let receivers = receivers.map(|(took, limit)| took.map(|took| (took, took.as_secs_f64() / limit)));
    Ok(Seen { receivers: receivers.collect(), copies: sent as f64 / len as f64, wasted })
}

fn host_of(receiver: u8) -> u8 {
    SEED_HOST + 1 + receiver
}

fn speed(plan: &Plan, receiver: u8) -> u32 {
    plan.mbit[usize::from(receiver) % plan.mbit.len()]
}

async fn fetch(
    peer: &Peer,
    hash: ContentHash,
    began: Instant,
    give_up: Duration,
) -> Result<Option<Duration>> {
    // The deadline of the command itself is an error, and this one is an answer.
    let command = peer.p2pctl().run_within(give_up * 2, ["fetch", "grande.bin"]);
    let Ok(said) = timeout(give_up, command).await else { return Ok(None) };
    said?.ok()?;
    let took = began.elapsed();
    ensure!(peer.hash_of("grande.bin")? == hash, "what was fetched is not what was shared");
    Ok(Some(took))
}

/// Pulls the source's cable where that is asked for. Ends only with an error.
async fn cut(plan: &Plan, lab: &Lab, before: u64) -> Result<()> {
    let Some(copies) = plan.cut_after else { return std::future::pending().await };
    let enough = (plan.mib * MIB) as f64 * copies;
    while ((lab.sent_bytes(SEED_HOST)? - before) as f64) < enough {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.cut(SEED_HOST)?;
    std::future::pending().await
}

/// What the link of a receiver needs for so many bytes: measured once for each speed.
async fn seconds_of(len: u64, lab: &Lab, receiver: u8, known: &[f64], plan: &Plan) -> Result<f64> {
    // The source cannot be faster than its own link either.
    let slowest = |receiver| speed(plan, receiver).min(plan.seed_mbit);
    if let Some(same) = (0..receiver).find(|other| slowest(*other) == slowest(receiver)) {
        return Ok(known[usize::from(same)]);
    }
    let rate = bits_per_second(lab, SEED_HOST, host_of(receiver), Amount::Seconds(MEASURED_SECS)).await?;
    Ok(len as f64 * 8.0 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_finish_has_no_limit() {
        let seen = |ratios: &[Option<f64>]| Seen {
            receivers: ratios
                .iter()
                .map(|ratio| ratio.map(|ratio| (Duration::from_secs(1), ratio)))
                .collect(),
            copies: 1.0,
            wasted: Vec::new(),
        };
        let all = seen(&[Some(1.1), Some(1.3)]);
        assert_eq!((all.worst(), all.finished()), (1.3, 1.0));
        let some = seen(&[Some(1.1), None]);
        assert_eq!((some.worst(), some.finished()), (f64::INFINITY, 0.5));
    }
}
