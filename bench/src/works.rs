//! The works that are measured: each makes what it needs, lets the contestants take turns, and takes all away again.
//!
//! Called by [`transfer`](crate::transfer). Each file is one work, which serves one or several rows.

use std::path::Path;

use anyhow::Result;
use p2p_tests::{Network, random_file};

use crate::rows::Row;
use crate::table::Outcome;
use crate::tools::{self, Tool};
use crate::transfer::{Bench, Report};

mod crowd;
mod delay;
mod hash_tree;
mod one_byte;
mod one_file;
mod rescan;
mod resume;
mod small_files;

/// The file that is fetched.
const FILE: &str = "grande.bin";

/// A work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    OneFileToMemory,
    FourSources,
    OneFileToDisk,
    SmallFiles,
    OneByte,
    HashTree,
    Rescan,
    Resume,
    Crowd,
    Delay,
}

fn work_of(row: &Row) -> Work {
    match row.name {
        "four-sources" => Work::FourSources,
        "curl-disk" => Work::OneFileToDisk,
        "small-files" => Work::SmallFiles,
        "one-byte" => Work::OneByte,
        "hash-tree" => Work::HashTree,
        "rescan" => Work::Rescan,
        "resume" => Work::Resume,
        "swarm" | "swarm-mixed" | "swarm-cut" => Work::Crowd,
        "delay" | "delay-one" => Work::Delay,
        _ => Work::OneFileToMemory,
    }
}

/// Measures the rows in order. A row that fails does not keep the others from being measured.
///
/// # Errors
/// None of the rows': those are in the report.
pub(crate) async fn measure(bench: &Bench, rows: &[Row], report: &mut Report) -> Result<()> {
    for rows in rows.chunk_by(|one, next| work_of(one) == work_of(next)) {
        let Some(first) = rows.first() else { continue };
        let done = match work_of(first) {
            Work::OneFileToMemory => Box::pin(one_file::run(bench, &bench.memory, rows, report)).await,
            Work::OneFileToDisk => Box::pin(one_file::run(bench, &bench.disk, rows, report)).await,
            Work::FourSources => Box::pin(one_file::run_four_sources(bench, *first, report)).await,
            Work::SmallFiles => Box::pin(small_files::run(bench, *first, report)).await,
            Work::OneByte => Box::pin(one_byte::run(bench, *first, report)).await,
            Work::HashTree => Box::pin(hash_tree::run(bench, *first, report)).await,
            Work::Rescan => Box::pin(rescan::run(bench, *first, report)).await,
            Work::Resume => Box::pin(resume::run(bench, *first, report)).await,
            Work::Crowd => Box::pin(crowd::run(bench, rows, report)).await,
            Work::Delay => Box::pin(delay::run(bench, rows, report)).await,
        };
        if let Err(error) = done {
            let why = format!("{error:#}");
            for row in rows {
                if report.lacks(*row) {
                    report.add(*row, Outcome::Failed(why.clone()));
                }
            }
        }
    }
    Ok(())
}

/// A maestro and so many peers within `place`; the first has the file, and the others but the last have links to it.
async fn network_with_file(place: &Path, peers: usize, len: u64) -> Result<Network> {
    let fill = move |number: usize, shared: &Path| {
        let first = shared.join("../../P1/shared").join(FILE);
        match number {
            1 => random_file(&shared.join(FILE), len, 1).map(drop),
            last if last == peers => Ok(()),
            _ => Ok(std::fs::hard_link(first, shared.join(FILE))?),
        }
    };
    Network::builder().peers(peers).within(place).files(fill).start().await
}

/// What is missing for hosts with links of their own, in words for the table.
fn missing_for_hosts(bench: &Bench, more: &[Tool]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("hosts with links of their own need root".to_owned());
    }
    bench.tools.missing(&[&[tools::IP, tools::TC, tools::IPERF3], more].concat())
}
