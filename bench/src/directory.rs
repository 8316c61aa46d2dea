//! `bench directory`: what a maestro's directory does at the size of a university and beyond, as one table.
//!
//! The maestrod is the real one, its peers speak real Sync streams with keys of their own. Each file of this room is one thing
//! that is needed for that; `works` are what is measured.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::interrupted;
use crate::processes::file_system;
use crate::rows::{Row, chosen};
use crate::table::Outcome;
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
#[derive(Debug, Default)]
struct Report {
    outcomes: Vec<(Row, Outcome<Figures>)>,
}

impl Report {
    /// A row is done.
    fn add(&mut self, row: Row, outcome: Outcome<Figures>) {
        let came_of_it = match &outcome {
            Outcome::Measured(_) => "measured",
            Outcome::Missing(why) | Outcome::Failed(why) => why,
        };
        // Who watches sees how far it is; that nobody does is no error.
        let _ = writeln!(std::io::stderr(), "{}: {came_of_it}", row.name);
        self.outcomes.push((row, outcome));
    }
}

/// Measures, and prints the table: also of what was measured before it was interrupted.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let rows = match chosen(&ROWS, &options.only) {
        Ok(rows) => rows,
        Err(name) => bail!("there is no row {name}: `cargo xtask bench directory --list` shows them"),
    };
    let mut out = std::io::stdout();
    if options.list {
        for Row { name, work, target } in rows {
            writeln!(out, "{name:<18} {:<18} {work}", target.shown())?;
        }
        return Ok(());
    }
    let bench = Bench::new(options);
    maestro::room_for_peers(bench.peers.max(bench.crowd))?;
    let mut report = Report::default();
    let ended = tokio::select! {
        done = works::measure(&bench, &rows, &mut report) => done,
        // What is dropped here ends what it has started.
        signal = interrupted() => Err(anyhow::anyhow!("interrupted by {}", signal?)),
    };
    writeln!(out, "\n{}\n\n{}", title(&bench)?, table(&report.outcomes))?;
    ended?;
    let failed = report.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count();
    ensure!(failed == 0, "{failed} of {} rows failed", rows.len());
    Ok(())
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
