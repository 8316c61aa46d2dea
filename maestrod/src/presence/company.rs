//! What this maestro owes the others of its directory. It goes on beside the presence loop and behind nothing of it: however
//! much there is to tell the directory, the others see that this one is alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_service::health::{Heartbeat, PATIENCE};
use p2p_service::tasks::{TaskResult, Tasks};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::directory::sharing::BEAT;
use crate::directory::{Directory, DirectoryError};

/// How often the peers that this maestro holds are compared with those that it knows.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// Starts the loops, where there are others. `mistaken` is told when they took this maestro for gone.
pub(super) async fn start(
    directory: &Arc<dyn Directory>,
    mistaken: &Arc<Notify>,
    events: &mpsc::Sender<Event>,
    tasks: &Tasks,
) {
    let Some(sharing) = directory.sharing() else { return };
    // Before the first stream: the others take over the peers of one that they do not know.
    if let Err(error) = sharing.beat().await {
        tracing::debug!(%error, "the first beat did not come through: {error}");
    }
    let heart = tasks.heartbeat("beat", PATIENCE);
    tasks.spawn("beat", keep_beating(Arc::clone(directory), Arc::clone(mistaken), heart, tasks.token()));
    let heart = tasks.heartbeat("heirs", PATIENCE);
    tasks.spawn("heirs", keep_inheriting(Arc::clone(directory), events.clone(), heart, tasks.token()));
}

fn every_beat() -> Interval {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn keep_beating(
    directory: Arc<dyn Directory>,
    mistaken: Arc<Notify>,
    heart: Heartbeat,
    token: CancellationToken,
) -> TaskResult {
    let Some(sharing) = directory.sharing() else { return Ok(()) };
    let mut beats = every_beat();
    let mut is_silent = false;
    loop {
        heart.beat();
        tokio::select! {
            () = token.cancelled() => break,
            _ = beats.tick() => {}
        }
        match heart.while_waiting(sharing.beat()).await {
            Ok(was_known) => {
                is_silent = false;
                if !was_known {
                    tracing::warn!("other maestros took this one for gone; its peers are shown again");
                    mistaken.notify_one();
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_silent, true) {
                    tracing::warn!(%error, "cannot show other maestros that this one is alive, trying again: {error}");
                }
            }
        }
    }
    if let Err(error) = sharing.resign().await {
        tracing::debug!(%error, "the other maestros learn by silence that this one has ended: {error}");
    }
    Ok(())
}

/// Takes over the peers of those that are gone, and finds those that this maestro holds and does not know, or has and does
/// not hold.
async fn keep_inheriting(
    directory: Arc<dyn Directory>,
    events: mpsc::Sender<Event>,
    heart: Heartbeat,
    token: CancellationToken,
) -> TaskResult {
    let Some(sharing) = directory.sharing() else { return Ok(()) };
    let mut beats = every_beat();
    let mut compared = Instant::now();
    loop {
        heart.beat();
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = beats.tick() => {}
        }
        let found = async {
            let taken = sharing.take_over().await;
            if let Ok(peers) = &taken
                && !peers.is_empty()
            {
                let _ = events.send(Event::TakenOver { peers: peers.clone() }).await;
            }
            // Where that fails, it may have taken over some all the same, of whom this tells.
            if compared.elapsed() >= COMPARE_EVERY {
                let held = sharing.held().await?;
                compared = Instant::now();
                // Only a loop that has ended does not listen.
                let _ = events.send(Event::Held { peers: held }).await;
            }
            taken.map(drop)
        };
        match heart.while_waiting(found).await {
            // Of a database that cannot be reached the store tells once.
            Ok(()) | Err(DirectoryError::Unavailable(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take over the peers of maestros that are gone: {error}");
            }
        }
    }
}
