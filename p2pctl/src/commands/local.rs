//! `completions`, `manual` and `version`: what needs no daemon.

use std::path::Path;
use std::time::Duration;

use clap::CommandFactory as _;
use p2p_manual::Pages;
use p2p_proto::control::Status;

use crate::cli::Cli;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// How long `version` waits for a daemon that may not even run.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `completions`.
pub(super) fn completions(out: &Output, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(Cli::command()), "p2pctl", &mut script);
    out.fragment(&script)
}

/// The command without its hidden verbs: scripts would offer them.
fn visible(command: clap::Command) -> clap::Command {
    let shown = clap::Command::new("p2pctl").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    shown.args(command.get_arguments().cloned()).subcommands(verbs)
}

/// Runs `manual`.
pub(super) fn manual(directory: &Path) -> Result<(), Failure> {
    let pages = Pages {
        section: "1",
        files: &[
            ("/run/p2pd/control.sock", "The control socket of the system's p2pd."),
            ("$XDG_RUNTIME_DIR/p2pd/control.sock", "The control socket of the user's own p2pd."),
        ],
        see_also: &["p2pctl(1)", "p2pd(8)", "p2pd.toml(5)"],
    };
    pages
        .write(Cli::command(), directory)
        .map_err(|error| Failure::new(Exit::Failed, "manual-not-written", format!("No manual: {error}")))
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

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn completions_offer_what_help_shows_and_nothing_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut visible(Cli::command()), "p2pctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            for part in ["fetch", "cancel", "socket"] {
                assert!(script.contains(part), "{shell} does not offer {part}");
            }
            assert!(!script.contains("manual"), "{shell} offers what help hides");
        }
    }
}
