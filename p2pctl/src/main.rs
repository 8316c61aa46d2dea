//! `p2pctl`: the command that speaks with `p2pd` over its Unix socket.
//!
//! A verb is a file in `commands`; what it says goes through `output`, what it asks goes through `client`, and how it
//! ends is an [`exit::Exit`]. Nothing here touches the network: the daemon does.

mod cli;
mod client;
mod commands;
mod copy;
mod deliver;
mod exit;
mod failure;
mod output;
mod progress;
mod remedy;
mod socket;
mod sse;
mod upload;

use std::process::ExitCode;

use clap::Parser as _;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let out = Output::new(cli.global.json, cli.global.color);
    let exit = match run(cli, &out) {
        Ok(()) => Exit::Done,
        Err(failure) => out.failure(&failure),
    };
    ExitCode::from(exit.code())
}

fn run(cli: cli::Cli, out: &Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::new(Exit::Failed, "no-runtime", format!("Cannot start: {err}")))?;
    let result = runtime.block_on(commands::run(cli, out));
    // A read of standard input or a write to a full pipe may still block a thread: the end must not wait for it.
    runtime.shutdown_background();
    result
}
