//! The loop that forgets peers that were not seen for long: their files, and what they said of themselves.
//!
//! It has no state of its own: what is to be forgotten follows from the directory, the configuration and the time. It
//! goes in small steps, and one that is cut off is gone on with the next time. An admission by the join token is kept:
//! whoever comes back shows no token again, and sends its catalog anew.

use std::sync::Arc;
use std::time::Duration;

use p2p_service::health::PATIENCE;
use p2p_service::tasks::{TaskResult, Tasks};
use tokio::sync::watch;

use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
use crate::metrics::Metrics;
use crate::presence::now_ms;

/// How often it looks, about.
const EVERY: Duration = Duration::from_secs(3600);
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What was last seen before this is forgotten; `None` where nothing is.
fn horizon(config: &Config, now_ms: i64) -> Option<i64> {
    let days = i64::from(config.directory.keep_unseen_days);
    (days > 0).then(|| now_ms.saturating_sub(days * DAY_MS))
}

/// Runs until the maestro ends: at the start, every hour or so, and when the configuration changes.
pub(crate) async fn keep_forgetting(
    directory: Arc<dyn Directory>,
    mut settings: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
) -> TaskResult {
    let (token, heart) = (tasks.token(), tasks.heartbeat("retention", PATIENCE));
    loop {
        let horizon = horizon(&settings.borrow_and_update(), now_ms());
        while let Some(horizon) = horizon {
            heart.beat();
            // What writes it has a heartbeat of its own, and others may be before this.
            match heart.while_waiting(directory.forget_unseen(horizon)).await {
                Ok(forgotten) => {
                    if let Some(peer) = forgotten.peer {
                        metrics.forgotten.inc();
                        let short = peer.short();
                        tracing::info!(peer_id = %peer, "peer {short} was not seen for long, and is forgotten");
                    }
                    if !forgotten.more || token.is_cancelled() {
                        break;
                    }
                }
                // Of a database that cannot be reached the store tells once.
                Err(DirectoryError::Unavailable(_)) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot forget peers that were not seen for long: {error}");
                    break;
                }
            }
        }
        // Not all maestros of a site at once.
        let pause = EVERY.mul_f64(rand::random_range(0.8..1.2));
        let until = tokio::time::Instant::now() + pause;
        loop {
            heart.beat();
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(until) => break,
                changed = settings.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                () = heart.due() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_where_nothing_is_to_be() {
        let mut config = Config::default();
        config.directory.keep_unseen_days = 3;
        assert_eq!(horizon(&config, 10 * DAY_MS), Some(7 * DAY_MS));
        config.directory.keep_unseen_days = 0;
        assert_eq!(horizon(&config, 10 * DAY_MS), None);
    }
}
