//! `bench directory`: what a maestro's directory does at the size of a university and beyond, as one table.
//!
//! The maestrod is the real one, its peers speak real Sync streams with keys of their own. Each file of this room is one thing
//! that is needed for that; `works` are what is measured.

use std::path::PathBuf;

use anyhow::Result;

use crate::processes::file_system;
use crate::report;
use crate::rows::Row;
use crate::tools::Tools;
use filled::thousands;
use rows::ROWS;
use table::{Figures, table};

mod catalogs;
mod filled;
mod load;
mod maestro;
mod peers;
mod postgres;
mod rows;
mod table;
mod web;
mod works;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this row; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print the rows, and measure nothing
    #[arg(long)]
    list: bool,
    /// Runs of each row; rows that take long have fewer, as the table says
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: u64,
    /// How long each run of a row with requests lasts, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    secs: u64,
    /// What names, contents and questions are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Files of the small directory, and of the one peer that announces alone
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    files: u64,
    /// Files of the big directory
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    big_files: u64,
    /// Peers that have them
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=15_000))]
    peers: u64,
    /// Peers of the row `crowd`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    crowd: u64,
    /// Where filled directories are kept between runs: one that is there is not filled again [default: not kept]
    #[arg(long, value_name = "DIR")]
    filled: Option<PathBuf>,
    /// Where all others have theirs [default: where temporary files go]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Where other programs are looked for first, in it and in its `bin`; then in PATH
    #[arg(long, value_name = "DIR")]
    rivals: Option<PathBuf>,
}

/// What the works need to know.
#[derive(Debug)]
pub(crate) struct Bench {
    tools: Tools,
    runs: usize,
    secs: u64,
    seed: u64,
    files: u64,
    big_files: u64,
    peers: u64,
    crowd: u64,
    filled: Option<PathBuf>,
    disk: Option<PathBuf>,
}

impl Bench {
    fn new(options: &Options) -> Bench {
        Bench {
            tools: Tools::new(options.rivals.as_deref()),
            runs: usize::try_from(options.runs).unwrap_or(usize::MAX),
            secs: options.secs,
            seed: options.seed,
            files: options.files,
            big_files: options.big_files,
            peers: options.peers,
            crowd: options.crowd,
            filled: options.filled.clone(),
            disk: options.disk.clone(),
        }
    }
}

/// What is known by now.
type Report = crate::report::Report<Figures>;

/// Measures, and prints the table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let rows = report::asked_for("directory", &ROWS, &options.only)?;
    if options.list {
        return report::list(&rows);
    }
    let bench = Bench::new(options);
    maestro::room_for_peers(bench.peers.max(bench.crowd))?;
    let measure = async |rows: &[Row], report: &mut Report| works::measure(&bench, rows, report).await;
    report::tell(&rows, &title(&bench)?, table, measure).await
}

fn title(bench: &Bench) -> Result<String> {
    let disk = bench.filled.clone().or_else(|| bench.disk.clone()).unwrap_or_else(std::env::temp_dir);
    Ok(format!(
        "Small directory: {} files. Big: {} files. Peers: {}. Crowd: {}. Seed: {}. Disk: {} ({}).",
        thousands(bench.files),
        thousands(bench.big_files),
        thousands(bench.peers),
        thousands(bench.crowd),
        bench.seed,
        disk.display(),
        file_system(&disk)?,
    ))
}
