//! `completions` and `version`: what needs no daemon.

use std::time::Duration;

use clap::CommandFactory as _;
use p2p_proto::control::Status;

use crate::cli::Cli;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// How long `version` waits for a daemon that may not even run.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `completions`.
pub(super) fn completions(out: &Output, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "p2pctl", &mut script);
    out.fragment(&String::from_utf8_lossy(&script))
}

/// Runs `version`.
pub(super) async fn version(client: &Client, out: &Output) -> Result<(), Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let status = tokio::time::timeout(PATIENCE, client.get::<Status>("/v1/status")).await;
    let theirs = status.ok().and_then(Result::ok).map(|answer| answer.value.version);
    if out.json() {
        return out.document(&serde_json::json!({ "p2pctl": ours, "p2pd": theirs }));
    }
    out.line(&format!("p2pctl {ours}"))?;
    match theirs {
        Some(theirs) => out.line(&format!("p2pd   {theirs}"))?,
        None => out.note("p2pd does not answer, so its version is not known"),
    }
    Ok(())
}
