//! Long and lossy links: a fetch from some sources beside one TCP flow from each of them, measured with iperf3.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use p2p_tests::{Lab, Network, Peer};
use tokio::process::Command;

use super::{FILE, missing_for_hosts};
use crate::child::{self, Daemon};
use crate::iperf3::{Amount, bits_per_second};
use crate::ours::{RUN, close, receiver};
use crate::product::Product;
use crate::rows::Row;
use crate::statistics::ratios;
use crate::table::{Measured, Outcome};
use crate::tools;
use crate::transfer::{Bench, Report};

const MIB: u64 = 1 << 20;
/// Each packet is held so long when it passes the switch, so an answer takes twice that, in ms.
const DELAY_MS: &str = "40";
/// How many of a thousand packets the switch loses.
const LOSE_PERMILLE: &str = "10";
/// The number of the queue, in a namespace of its own.
const QUEUE: &str = "1";
/// Speed of each source's link, in Mbit/s. The receiver's has none but the machine's.
const SOURCE_MBIT: u32 = 100;
/// The first source's host; the maestro's is the first.
const FIRST_SOURCE: u8 = 2;
/// How long small things may take.
const SOON: Duration = Duration::from_secs(30);

/// The rows.
pub(super) async fn run(bench: &Bench, rows: &[Row], report: &mut Report) -> Result<()> {
    for row in rows {
        if let Some(missing) = missing_for_hosts(bench, &[tools::IPTABLES, tools::PING]) {
            report.add(*row, Outcome::Missing(missing));
            continue;
        }
        let sources = if row.name == "delay-one" { 1 } else { 4 };
        let outcome = match measure(bench, sources).await {
            Ok(measured) => Outcome::Measured(measured),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        report.add(*row, outcome);
    }
    Ok(())
}

async fn measure(bench: &Bench, sources: u8) -> Result<Measured> {
    let len = bench.swarm_mib * MIB;
    bench.has_room(&bench.memory, 3 * len)?;
    let receiving = FIRST_SOURCE + sources;
    let lab = Lab::build(receiving)?;
    for source in FIRST_SOURCE..receiving {
        lab.limit(source, SOURCE_MBIT)?;
    }
    let dir = tempfile::tempdir()?;
    let _delay = delay(&lab, dir.path()).await?;
    let peers = usize::from(sources) + 1;
    let fill = move |number: usize, shared: &Path| match number {
        last if last == peers => Ok(()),
        _ => p2p_tests::random_file(&shared.join(FILE), len, 1).map(drop),
    };
    let network =
        Network::builder().peers(peers).within(&bench.memory).on_hosts_of(&lab).files(fill).start().await?;
    let hash = network.peer(1)?.hash_of(FILE)?;
    let product = Product::File { path: receiver(&network)?.shared(FILE), hash, len };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first time does not count, as everywhere.
    for round in 0..=bench.runs {
        let rate = fetch(receiver(&network)?, len).await?;
        product.check(round == 0)?;
        product.remove()?;
        receiver(&network)?.ctl(["refresh"]).await?.ok()?;
        let each = Amount::Bytes(len / u64::from(sources));
        let flows = (FIRST_SOURCE..receiving).map(|source| bits_per_second(&lab, source, receiving, each));
        let flows: f64 = try_join_all(flows).await?.iter().sum();
        if round > 0 {
            ours.push(rate);
            theirs.push(flows);
        }
    }
    let mut measured = Measured::of_values(ratios(&ours, &theirs));
    let shown =
        |rates: &[f64]| rates.iter().map(|rate| format!("{:.0}", rate / 1e6)).collect::<Vec<_>>().join(" ");
    measured.notes.push(format!("Mbit/s of each run: ours {}, iperf3 {}", shown(&ours), shown(&theirs)));
    measured.notes.push(format!("{} MiB from {sources}, links of {SOURCE_MBIT} Mbit/s", bench.swarm_mib));
    close(network).await?;
    Ok(measured)
}

/// The payload of a fetch, in bits per second.
async fn fetch(peer: &Peer, len: u64) -> Result<f64> {
    let began = Instant::now();
    peer.p2pctl().run_within(RUN, ["fetch", FILE]).await?.ok()?;
    Ok(len as f64 * 8.0 / began.elapsed().as_secs_f64())
}

/// Makes the switch slow and lossy, for as long as what is given back lives.
async fn delay(lab: &Lab, dir: &Path) -> Result<Daemon> {
    let me = std::env::current_exe().context("cannot tell where this program is")?;
    let mut delay = Command::from(lab.command_in_switch(&me.to_string_lossy()));
    delay.args(["delay", "--queue", QUEUE, "--ms", DELAY_MS, "--lose-permille", LOSE_PERMILLE]);
    let mut delay = Daemon::start("delay", &mut delay, dir)?;
    // What passes a bridge is shown to iptables only where that is asked for.
    let mut shown = Command::from(lab.command_in_switch("sh"));
    shown.args(["-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"]);
    child::run(&mut shown, SOON).await.context("this kernel shows iptables nothing of bridges")?;
    let mut rule = Command::from(lab.command_in_switch("iptables"));
    rule.args("-A FORWARD -m physdev --physdev-is-bridged -j NFQUEUE --queue-num".split(' ')).arg(QUEUE);
    child::run(&mut rule, SOON).await.context("this kernel has no netfilter queues")?;
    // Nothing passes a queue that nobody reads: when an echo comes back, and late, all of it works.
    delay
        .until("packets pass the switch, late", async |_| {
            let mut ping = Command::from(lab.command(1, "ping"));
            ping.args(["-c", "1", "-W", "1", &Lab::address(FIRST_SOURCE).to_string()]);
            let began = Instant::now();
            let status =
                ping.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await?;
            ensure!(status.success(), "no echo");
            ensure!(began.elapsed() >= Duration::from_millis(80), "the echo is not late");
            Ok(())
        })
        .await?;
    Ok(delay)
}
