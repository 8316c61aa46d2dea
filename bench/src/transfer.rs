//! `bench transfer`: all rows, or those that were asked for, as one table.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::processes::{file_system, free_bytes};
use crate::report;
use crate::rows::{ROWS, Row};
use crate::table::{Measured, table};
use crate::tools::Tools;
use crate::works;

const MIB: u64 = 1 << 20;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this row; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print the rows, and measure nothing
    #[arg(long)]
    list: bool,
    /// Runs of each program that count; they take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: u64,
    /// Size of the one file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    mib: u64,
    /// Where the rows to memory have their files
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// Where the rows to disk have theirs [default: where temporary files go]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Where rivals are looked for first, in it and in its `bin`; then in PATH
    #[arg(long, value_name = "DIR")]
    rivals: Option<PathBuf>,
    /// Size of the tree that is hashed, and of the file that is resumed, in MiB [default: ten times --mib]
    #[arg(long, value_name = "MIB")]
    big_mib: Option<u64>,
    /// Size of the file that a swarm fetches, in MiB [default: a quarter of --mib]
    #[arg(long, value_name = "MIB")]
    swarm_mib: Option<u64>,
    /// How many small files are fetched
    #[arg(long, default_value_t = 10_000)]
    small_files: u64,
    /// How many files are looked at again
    #[arg(long, default_value_t = 1_000_000)]
    rescan_files: u64,
}

/// What the works need to know.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Where the rivals are.
    pub(crate) tools: Tools,
    /// Runs that count.
    pub(crate) runs: usize,
    /// Bytes of the one file.
    pub(crate) len: u64,
    /// Bytes of the tree that is hashed, and of the file that is resumed.
    pub(crate) big_len: u64,
    /// MiB that a swarm fetches.
    pub(crate) swarm_mib: u64,
    /// How many small files are fetched.
    pub(crate) small_files: u64,
    /// How many files are looked at again.
    pub(crate) rescan_files: u64,
    /// A memory-backed directory.
    pub(crate) memory: PathBuf,
    /// A directory on a disk.
    pub(crate) disk: PathBuf,
}

impl Bench {
    fn new(options: &Options) -> Bench {
        Bench {
            tools: Tools::new(options.rivals.as_deref()),
            runs: usize::try_from(options.runs).unwrap_or(usize::MAX),
            len: options.mib * MIB,
            big_len: options.big_mib.unwrap_or(10 * options.mib) * MIB,
            swarm_mib: options.swarm_mib.unwrap_or(options.mib / 4).max(1),
            small_files: options.small_files.max(1),
            rescan_files: options.rescan_files.max(1),
            memory: options.dir.clone(),
            disk: options.disk.clone().unwrap_or_else(std::env::temp_dir),
        }
    }

    /// Fails where a directory has no room for so many bytes.
    pub(crate) fn has_room(&self, dir: &Path, bytes: u64) -> Result<()> {
        let free = free_bytes(dir)?;
        ensure!(
            free > bytes,
            "{} has {} MiB free, and this needs {}: name another directory, or make it less with --mib",
            dir.display(),
            free / MIB,
            bytes / MIB
        );
        Ok(())
    }
}

/// What is known by now.
pub(crate) type Report = crate::report::Report<Measured>;

/// Measures, and prints the table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let rows = report::asked_for("transfer", &ROWS, &options.only)?;
    if options.list {
        return report::list(&rows);
    }
    let bench = Bench::new(options);
    let measure = async |rows: &[Row], report: &mut Report| works::measure(&bench, rows, report).await;
    report::tell(&rows, &title(&bench)?, table, measure).await
}

fn title(bench: &Bench) -> Result<String> {
    Ok(format!(
        "One file: {} MiB. Big: {} MiB. Swarm: {} MiB. Runs: {}. Memory: {} ({}). Disk: {} ({}). Times: median (least-most).",
        bench.len / MIB,
        bench.big_len / MIB,
        bench.swarm_mib,
        bench.runs,
        bench.memory.display(),
        file_system(&bench.memory)?,
        bench.disk.display(),
        file_system(&bench.disk)?,
    ))
}
