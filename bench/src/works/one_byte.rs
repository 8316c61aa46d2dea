//! A file of one byte: what a fetch costs before the first byte and after the last.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use p2p_content::ContentHash;
use p2p_tests::Network;

use crate::contest::compete;
use crate::ours::{Fetch, close, receiver};
use crate::product::Product;
use crate::rivals::{Rival, Site};
use crate::rows::Row;
use crate::table::{Measured, Outcome, median_at_most};
use crate::transfer::{Bench, Report};

const FILE: &str = "uno.bin";
/// The median may be so long, whatever the rival's.
const MEDIAN: Duration = Duration::from_millis(60);
/// Runs for each that was asked for: they are short, and so is what disturbs them.
const MORE_RUNS: usize = 4;

/// The row.
pub(super) async fn run(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    if let Some(missing) = bench.tools.missing(Rival::Curl.tools()) {
        report.add(row, Outcome::Missing(missing));
        return Ok(());
    }
    let network = Network::builder().peers(2).within(&bench.memory).start().await?;
    let hash: ContentHash = network.peer(1)?.write(FILE, [7])?;
    network.peer(1)?.ctl(["refresh"]).await?.ok()?;
    network.settled().await?;
    let source = network.peer(1)?.shared(FILE);
    let product = Product::File { path: receiver(&network)?.shared(FILE), hash, len: 1 };
    let mut ours = Fetch::new("p2pctl fetch", &network, &["fetch", FILE], product);
    let dir = network.dir().join("rival");
    fs::create_dir(&dir)?;
    let site = Site { tools: &bench.tools, dir: &dir, source: &source, name: FILE, hash, len: 1 };
    let mut rival = Rival::Curl.start(site).await?;
    let both = compete(&mut ours, rival.as_mut(), MORE_RUNS * bench.runs, 0).await?;
    drop(rival);
    let mut measured = Measured::of_contest(row.target.measure, 1, both);
    measured.also.extend(measured.ours.as_ref().map(|ours| median_at_most(ours, MEDIAN)));
    report.add(row, Outcome::Measured(measured));
    close(network).await
}
