//! Following what the daemon does in the background, over a restart of the daemon; and what is said of a transfer that is not
//! followed, or has ended.

use std::time::Duration;

use p2p_proto::control::{Transfer, TransferState};
use tokio::time::Instant;

use crate::client::{Answer, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;

/// How long a daemon may be away before following ends.
const AWAY: Duration = Duration::from_secs(10);

/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(300);

/// How far a fetch got, for what Ctrl-C says.
#[derive(Clone)]
pub(super) enum Phase {
    /// It is not known yet what there is.
    Asking,
    /// The daemon fetches it.
    Fetching { id: u64, name: String },
    /// It is here, and being copied.
    Delivering { path: String },
}

/// Follows a transfer to its end.
pub(super) async fn transfer(
    client: &Client,
    mut latest: Answer<Transfer>,
    progress: &mut Progress,
) -> Result<Transfer, Failure> {
    let path = format!("/v1/transfers/{}/events", latest.value.id);
    let mut away_since: Option<Instant> = None;
    progress.transfer(&latest)?;
    while !latest.value.state.is_ended() {
        let heard = match client.events::<Transfer>(&path).await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(answer)) => {
                        away_since = None;
                        progress.transfer(&answer)?;
                        latest = answer;
                        if latest.value.state.is_ended() {
                            return Ok(latest.value);
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(failure) => break Err(failure),
                }
            },
            Err(failure) => Err(failure),
        };
        match heard {
            Err(failure) if failure.exit() != Exit::Unreachable => return Err(failure),
            _ => {}
        }
        if away_since.get_or_insert_with(Instant::now).elapsed() > AWAY {
            return Err(gone(&latest.value));
        }
        progress.lost();
        tokio::time::sleep(PAUSE).await;
    }
    Ok(latest.value)
}

/// Fails where the transfer has not what was asked for.
pub(super) fn ended_well(transfer: &Transfer) -> Result<(), Failure> {
    let Transfer { id, name, state, reason, .. } = transfer;
    let why = reason.as_deref().unwrap_or("p2pd does not say why; its log does: `journalctl -u p2pd`");
    match state {
        TransferState::Cancelled => {
            let message = format!("Transfer {id} ({name}) was cancelled before it was done");
            Err(Failure::new(Exit::Failed, "transfer-cancelled", message))
        }
        TransferState::Failed => {
            Err(Failure::new(Exit::Failed, "transfer-failed", format!("Cannot fetch {name}: {why}")))
        }
        _ => Ok(()),
    }
}

/// Says what goes on without the command.
pub(super) fn detached(out: &Output, transfer: &Transfer) -> Result<(), Failure> {
    out.line(&transfer.id.to_string())?;
    if transfer.state == TransferState::Done {
        let what = if transfer.incomplete.is_some() { "What is known of " } else { "" };
        let path = transfer.path.as_deref().unwrap_or("?");
        out.note(&format!("{what}{} is here already: {path}", transfer.name));
    } else {
        out.note(&format!("p2pd fetches {} as transfer {}.", transfer.name, transfer.id));
        out.note("  p2pctl transfers --watch      shows how it goes on");
        out.note(&format!("  p2pctl transfers cancel {:<6}ends it", transfer.id));
    }
    Ok(())
}

fn gone(transfer: &Transfer) -> Failure {
    let message = format!(
        "p2pd stopped while it fetched {}, and did not come back within {} s",
        transfer.name,
        AWAY.as_secs()
    );
    Failure::new(Exit::Unreachable, "daemon-gone", message)
        .hint("nothing is lost: it goes on with the transfer when it runs again")
        .hint("start it with `systemctl start p2pd`, and see why it stopped with `journalctl -u p2pd`")
}
