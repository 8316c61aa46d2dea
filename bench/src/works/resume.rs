//! A fetching daemon that is killed at 90 % of a big file: how soon it asks for the next byte after its start, and whether it
//! reads again what it has proven.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::Transfer;
use p2p_tests::{Network, Peer, as_soon_as};

use super::{FILE, network_with_file};
use crate::ours::{RUN, close};
use crate::processes::bytes_read;
use crate::product::Product;
use crate::rows::Row;
use crate::table::{Measured, Outcome};
use crate::transfer::{Bench, Report};

const MIB: u64 = 1 << 20;
/// The share of the file that is there when the daemon is killed.
const KILLED_AT: f64 = 0.9;
/// A fetch takes at least so long, so that a small file too is caught on its way.
const AT_LEAST_SECS: u64 = 5;
/// What the log says when a source is asked.
const ASKS: &str = "asks the source";

/// The row.
pub(super) async fn run(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    let len = bench.big_len;
    bench.has_room(&bench.disk, 3 * len)?;
    let mut network = network_with_file(&bench.disk, 2, len).await?;
    let hash = network.peer(1)?.hash_of(FILE)?;
    let (mut seconds, mut most_read) = (Vec::new(), 0);
    // The first time does not count, as everywhere.
    for round in 0..=bench.runs {
        let (took, read) = once(&mut network, len, hash, round == 0).await?;
        if round > 0 {
            seconds.push(took.as_secs_f64());
            most_read = most_read.max(read);
        }
    }
    let mut measured = Measured::of_values(seconds);
    let may_read = may_read(len);
    let read = format!("it reads {} MiB before it asks, at most {} MiB", most_read / MIB, may_read / MIB);
    measured.also.push((read, most_read <= may_read));
    measured.notes.push("from the start of p2pd, after kill -9".to_owned());
    report.add(row, Outcome::Measured(measured));
    close(network).await
}

async fn once(
    network: &mut Network,
    len: u64,
    hash: ContentHash,
    thoroughly: bool,
) -> Result<(Duration, u64)> {
    let peer = network.peer(2)?;
    limit(peer, &format!("{}B", len / AT_LEAST_SECS)).await?;
    let transfer: Transfer = peer.ctl_json(&["fetch", FILE, "--detach"]).await?;
    let id = transfer.id;
    let enough = (len as f64 * KILLED_AT) as u64;
    let killed =
        peer.transfer_until(id, RUN, "90 % are here", |transfer| transfer.done_bytes >= enough).await?;
    ensure!(!killed.state.is_ended(), "it was over before it could be killed: give it a bigger file");
    network.peer_mut(2)?.daemon_mut().kill_9().await?;
    let began = Instant::now();
    network.peer_mut(2)?.daemon_mut().restart().await?;
    let daemon = network.peer(2)?.daemon();
    as_soon_as(RUN, "the source is asked again", async || {
        let log = daemon.log_of_this_run();
        log.contains(ASKS).then_some(()).context("it is not asked yet")
    })
    .await?;
    let (took, read) = (began.elapsed(), bytes_read(daemon.pid()?)?);
    let peer = network.peer(2)?;
    limit(peer, "off").await?;
    peer.transfer_done(id, RUN).await?;
    let product = Product::File { path: peer.shared(FILE), hash, len };
    product.check(thoroughly)?;
    product.remove()?;
    peer.p2pctl().run_within(RUN, ["refresh"]).await?.ok()?;
    Ok((took, read))
}

async fn limit(peer: &Peer, rate: &str) -> Result<()> {
    peer.ctl(["limit", "--down", rate]).await?.ok()?;
    Ok(())
}

/// A daemon that starts reads its database, and what was written since the bitmap was last remembered: 64 MiB, or what comes
/// in a second and during a flush. To prove the file again it would read 90 % of it.
fn may_read(len: u64) -> u64 {
    (64 * MIB).max(len / 20)
}
