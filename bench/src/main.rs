//! The measured comparisons: this system beside what people use today, in one run, on one machine.
//!
//! Run by `cargo xtask bench`. Absolute times drift between runs and machines; the ratios within a run are what counts, so
//! the rivals take turns.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod fetch;
mod nginx;
mod swarm;
mod table;

/// The measured comparisons.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// One source on the loopback: `p2pctl fetch` beside curl from nginx over https
    Fetch(fetch::Options),
    /// One source and many that fetch at once, each on a link of its own (needs root)
    Swarm(swarm::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Fetch(options) => fetch::run(&options).await,
        Bench::Swarm(options) => swarm::run(&options).await,
    }
}
