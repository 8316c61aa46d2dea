//! One random file from one source over the loopback: `p2pctl fetch` beside `curl` from nginx over https (TLS 1.3).
//!
//! Both end with a file on the same file system, which is a memory-backed one where there is room: what is compared is the
//! programs and not the disk. Only `p2pctl fetch` proves what it got; curl believes its connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_tests::{Network, hash_of_file, random_file};
use tokio::process::Command;

use crate::nginx::{Nginx, missing};
use crate::table::{Row, print};

const MIB: u64 = 1 << 20;
/// A run that takes longer has failed.
const RUN: Duration = Duration::from_secs(600);

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Runs of each program; they take turns
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the files lie [default: /dev/shm where it has room, else the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Measures, and prints the table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let len = options.mib * MIB;
    let place = place(options, len);
    let builder = Network::builder().peers(2).within(&place).files(move |number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), len, 1).map(drop),
        _ => Ok(()),
    });
    let network = builder.start().await?;
    let source = network.peer(1)?.shared("grande.bin");
    let hash = hash_of_file(&source)?;
    let missing = missing().await;
    let nginx = match missing.is_empty() {
        true => Some(Nginx::start(network.dir(), &network.peer(1)?.shared("")).await?),
        false => None,
    };
    let (mut fetches, mut curls) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        fetches.push(fetch(&network, hash).await?);
        if let Some(nginx) = &nginx {
            curls.push(curl(nginx, &network.dir().join("curl.bin"), hash).await?);
        }
    }
    let title =
        format!("{} MiB, one source, loopback, to {}, {} runs", options.mib, place.display(), options.runs);
    let rows = [
        Row { name: "curl from nginx, https (TLS 1.3)", times: curls, note: missing },
        Row { name: "p2pctl fetch (TLS 1.3, proven)", times: fetches, note: String::new() },
    ];
    print(&title, len, &rows)
}

/// The memory-backed file system where it has room for source, copies and some more.
fn place(options: &Options, len: u64) -> PathBuf {
    if let Some(dir) = &options.dir {
        return dir.clone();
    }
    let shm = Path::new("/dev/shm");
    let free = free_bytes(shm).unwrap_or(0);
    if free > 4 * len { shm.to_owned() } else { std::env::temp_dir() }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let output = std::process::Command::new("df").args(["--output=avail", "-B1"]).arg(path).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}

async fn fetch(network: &Network, hash: ContentHash) -> Result<Duration> {
    let peer = network.peer(2)?;
    let began = Instant::now();
    peer.p2pctl().run_within(RUN, ["fetch", "grande.bin"]).await?.ok()?;
    let took = began.elapsed();
    ensure!(peer.hash_of("grande.bin")? == hash, "what was fetched is not what was shared");
    // What is here already would not be fetched again.
    fs::remove_file(peer.shared("grande.bin"))?;
    peer.ctl(["refresh"]).await?.ok()?;
    Ok(took)
}

async fn curl(nginx: &Nginx, to: &Path, hash: ContentHash) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--tlsv1.3", "--cacert"])
        .arg(nginx.certificate())
        .arg("--output")
        .arg(to)
        .arg(nginx.url("grande.bin"))
        .status()
        .await
        .context("cannot run curl")?;
    let took = began.elapsed();
    ensure!(status.success(), "curl failed ({status})");
    ensure!(hash_of_file(to)? == hash, "what curl got is not what was shared");
    fs::remove_file(to)?;
    Ok(took)
}
