//! The measured comparisons: this system beside what people use today, in one run, on one machine.
//!
//! Run by `cargo xtask bench`. Absolute times drift between runs and machines; the ratios within a run are what counts, so
//! the rivals take turns. `docs/benchmarks.md` says what is measured and how to read it.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod child;
mod contest;
mod delay;
mod directory;
mod gauge;
mod iperf3;
mod memory;
mod ours;
mod processes;
mod product;
mod report;
mod rivals;
mod rows;
mod statistics;
mod swarm;
mod table;
mod tools;
mod transfer;
mod works;

/// The measured comparisons.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// All that this system is compared in, beside its rivals, as one table
    Transfer(transfer::Options),
    /// What a maestro's directory does, at the size of a university and beyond, as one table
    Directory(directory::Options),
    /// One source and many that fetch at once, each on a link of its own (needs root)
    Swarm(swarm::Options),
    /// Delay and lose the packets of a netfilter queue, until killed: links of the comparisons are made so
    #[command(hide = true)]
    Delay(delay::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Transfer(options) => transfer::run(&options).await,
        Bench::Directory(options) => directory::run(&options).await,
        // What is dropped ends what it has started.
        Bench::Swarm(options) => tokio::select! {
            done = swarm::run(&options) => done,
            signal = interrupted() => bail!("interrupted by {}", signal?),
        },
        Bench::Delay(options) => delay::run(options),
    }
}

/// Waits for a signal that asks this program to end.
async fn interrupted() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let wrong = Cli::try_parse_from(["bench", "transfer", "--runs", "0"]);
        assert!(wrong.is_err(), "no run measures nothing");
        let wrong = Cli::try_parse_from(["bench", "directory", "--peers", "0"]);
        assert!(wrong.is_err(), "nobody has nothing");
    }
}
