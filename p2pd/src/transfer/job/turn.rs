//! A transfer waits for its turn, shows where it stands meanwhile, and has the priority that its user gave it.

use std::time::Duration;

use p2p_proto::control::{Priority, TransferState};
use tokio::time::{Instant, sleep_until};

use super::Job;
use crate::transfer::jobs::Shared;
use crate::transfer::queue::{Place, Spot, Standing};
use crate::transfer::story;

/// How long one whose last run brought nothing waits before it makes others yield again.
pub(super) const DISPLACES_AGAIN: Duration = Duration::from_secs(60);

impl Job {
    /// Waits for its turn. From that time on one of lower priority is asked to yield for it.
    pub(super) async fn turn(&self, shared: &Shared, displaces_at: Instant) -> Spot {
        let mut displaces = displaces_at <= Instant::now();
        let mut spot = shared.queue.enter(self.id, self.snapshot().priority, displaces);
        while let Standing::Waiting(place) = spot.standing() {
            self.show_place(shared, place).await;
            tokio::select! {
                () = spot.changed() => {}
                () = sleep_until(displaces_at), if !displaces => {
                    displaces = true;
                    spot.displace();
                }
            }
        }
        spot
    }

    /// Returns once it is to give its turn back, and says so.
    pub(super) async fn asked_back(&self, spot: &Spot) {
        let to = spot.asked_back().await;
        story::yields(&self.snapshot(), to);
    }

    async fn show_place(&self, shared: &Shared, place: Place) {
        let why = behind(shared, place);
        if self.known.borrow().state != TransferState::Queued {
            self.set_state(shared, TransferState::Queued, Some(why.clone())).await;
        }
        self.change(|transfer| {
            (transfer.queue_place, transfer.reason) = (Some(place.place), Some(why));
        });
    }

    /// The priority that it has once all is written down that was said.
    pub(in crate::transfer) fn priority_to_be(&self) -> Priority {
        self.ahead().priority
    }

    /// Gives it another priority. It is written down before it takes effect.
    pub(in crate::transfer) async fn prioritize(&self, shared: &Shared, priority: Priority) {
        self.ahead().priority = priority;
        self.store(shared).await;
        // Somebody else may have said otherwise meanwhile.
        let priority = self.ahead().priority;
        self.change(|transfer| transfer.priority = priority);
        shared.queue.prioritize(self.id, priority);
    }
}

fn behind(shared: &Shared, Place { place, behind, by_priority, running }: Place) -> String {
    let name = shared.job(behind).map(|job| format!(" ({})", job.snapshot().name)).unwrap_or_default();
    let why = match (by_priority, place) {
        (true, _) => "which has a higher priority".to_owned(),
        (false, 1) if running == 1 => "which runs; one may at once".to_owned(),
        (false, 1) => format!("which runs; {running} may at once"),
        (false, _) => "which waits too".to_owned(),
    };
    format!("queued behind transfer {behind}{name}, {why}")
}
