//! Following what the daemon does in the background, over a restart of the daemon.

use std::time::Duration;

use p2p_proto::control::Transfer;
use tokio::time::Instant;

use crate::client::{Answer, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;

/// How long a daemon may be away before following ends.
const AWAY: Duration = Duration::from_secs(10);

/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(300);

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
