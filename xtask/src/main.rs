//! `cargo xtask`: what developers run beside `cargo build` and `cargo test`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cargo;
mod demo;
mod dist;
mod tidy;

/// What developers run beside `cargo build` and `cargo test`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a maestro and three peers, walk through what they do, and stay up to be tried
    Demo(demo::Options),
    /// Run the acceptance tests that take long: gigabytes, thousands of files, hundreds of faults and kills
    TestLarge(cargo::Large),
    /// Hold the REST interfaces against their OpenAPI documents, by Schemathesis; needs Python and PyPI
    TestRest,
    /// Measure against other programs, in release builds
    Bench {
        /// Arguments of the bench; none: which benches there are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install and use the packages in booted Debian systems; needs root
    SystemTest(p2p_system_test::Options),
    /// Make the Debian packages, and with --repo a signed apt repository of them, in target/debian
    Dist(dist::Options),
    /// Check what the compiler does not: file lengths, the map of the house, unfinished code
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::TestLarge(options) => cargo::test_large(&options),
        Command::TestRest => cargo::test_rest(),
        Command::Bench { arguments } => cargo::bench(&arguments),
        Command::SystemTest(options) => {
            cargo::target().and_then(|target| p2p_system_test::run(&options, &target))
        }
        Command::Dist(options) => dist::run(&options),
        Command::Tidy => tidy::run(),
    };
    finish(done)
}

fn finish(done: Result<()>) -> ExitCode {
    use std::io::Write;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done where not even this can be written.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
