//! One file, on the loopback: from one source beside each of the rivals, and from four beside one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use p2p_content::ContentHash;
use p2p_tests::Network;

use super::{FILE, network_with_file};
use crate::contest::{Runs, compete};
use crate::ours::{Fetch, close, receiver};
use crate::product::Product;
use crate::rivals::{Rival, Site};
use crate::rows::{Measure, Row};
use crate::table::{Measured, Outcome};
use crate::transfer::{Bench, Report};

/// Sources of the row with several.
const SOURCES: usize = 4;
/// How often a transfer fills memory with the file: the result, and what is on its way.
const FILLED: u64 = 2;

/// The rows with one source.
pub(super) async fn run(bench: &Bench, place: &Path, rows: &[Row], report: &mut Report) -> Result<()> {
    // The source, what both leave behind, and what a rival keeps of it.
    bench.has_room(place, 4 * bench.len)?;
    let network = network_with_file(place, 2, bench.len).await?;
    let hash = network.peer(1)?.hash_of(FILE)?;
    let mut with_curl = None;
    for row in rows {
        let rival = rival_of(row);
        if let Some(missing) = bench.tools.missing(rival.tools()) {
            report.add(*row, Outcome::Missing(missing));
            continue;
        }
        // What the row about processor time looks at is what ran beside curl.
        let both = match (&with_curl, row.target.measure) {
            (Some(both), Measure::CpuPerGib) => Ok(Clone::clone(both)),
            _ => contest(bench, &network, rival, hash).await,
        };
        let both: (Runs, Runs) = match both {
            Ok(both) => both,
            Err(error) => {
                report.add(*row, Outcome::Failed(format!("{error:#}")));
                continue;
            }
        };
        if rival == Rival::Curl {
            with_curl = Some(both.clone());
        }
        let mut measured = Measured::of_contest(row.target.measure, bench.len, both);
        if rival == Rival::Syncthing {
            measured.notes.push(
                "its time has the hashing of the file in it; ours was hashed when it was shared".to_owned(),
            );
        }
        report.add(*row, Outcome::Measured(measured));
    }
    close(network).await
}

fn rival_of(row: &Row) -> Rival {
    match row.name {
        "rsync" => Rival::Rsync,
        "cp" => Rival::Cp,
        "rqbit" => Rival::Rqbit,
        "sendme" => Rival::Sendme,
        "syncthing" => Rival::Syncthing,
        "aria2" => Rival::Aria2,
        "grpcio" => Rival::Grpcio,
        _ => Rival::Curl,
    }
}

async fn contest(bench: &Bench, network: &Network, rival: Rival, hash: ContentHash) -> Result<(Runs, Runs)> {
    let dir = network.dir().join(format!("rival-{rival:?}"));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let source = network.peer(1)?.shared(FILE);
    let site = Site { tools: &bench.tools, dir: &dir, source: &source, name: FILE, hash, len: bench.len };
    let mut ours = Fetch::new("p2pctl fetch", network, &["fetch", FILE], fetched(network, hash, bench.len)?);
    let done = async {
        let mut rival = rival.start(site).await?;
        compete(&mut ours, rival.as_mut(), bench.runs, FILLED * bench.len).await
    };
    let done = done.await?;
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    Ok(done)
}

fn fetched(network: &Network, hash: ContentHash, len: u64) -> Result<Product> {
    Ok(Product::File { path: receiver(network)?.shared(FILE), hash, len })
}

/// The row with four sources, beside one of them alone.
pub(super) async fn run_four_sources(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    bench.has_room(&bench.memory, 3 * bench.len)?;
    let network = network_with_file(&bench.memory, SOURCES + 1, bench.len).await?;
    let hash = network.peer(1)?.hash_of(FILE)?;
    let product = fetched(&network, hash, bench.len)?;
    let mut four = Fetch::new("from four sources", &network, &["fetch", FILE], product.clone());
    let mut one = Fetch::new("from one source", &network, &["fetch", FILE, "--from", "P1"], product);
    let both = compete(&mut four, &mut one, bench.runs, FILLED * bench.len).await?;
    let mut measured = Measured::of_contest(row.target.measure, bench.len, both);
    measured.notes.push("memory while sending is of all four sources together, on both sides".to_owned());
    report.add(row, Outcome::Measured(measured));
    close(network).await
}
