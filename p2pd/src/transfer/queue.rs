//! Whose turn it is: transfers stand in a [`Line`], and each is told when its place in it changes.
//!
//! Owned by the transfers; a job takes a [`Spot`] before each of its runs and keeps it until the run is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p_proto::control::Priority;
use tokio::sync::watch;

mod line;

use line::Line;
pub(super) use line::{Place, Standing};

/// The line of all transfers that run or want to. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Queue(Arc<Mutex<Told>>);

struct Told {
    line: Line,
    standings: BTreeMap<u64, watch::Sender<Standing>>,
}

impl Queue {
    /// One in which so many run at once, at least one.
    pub(super) fn of(running: usize) -> Self {
        let line = Line::of(running);
        Self(Arc::new(Mutex::new(Told { line, standings: BTreeMap::new() })))
    }

    /// Takes a spot for this transfer. `displaces`: whether one of lower priority that runs is asked to yield for it.
    pub(super) fn enter(&self, id: u64, priority: Priority, displaces: bool) -> Spot {
        let mut told = self.lock();
        told.line.enter(id, priority, displaces);
        let sender = watch::Sender::new(told.line.standing(id));
        let standing = sender.subscribe();
        told.standings.insert(id, sender);
        told.tell();
        Spot { queue: self.clone(), id, standing }
    }

    /// Whoever stands in line under this number has another priority now.
    pub(super) fn prioritize(&self, id: u64, priority: Priority) {
        self.change(|line| line.prioritize(id, priority));
    }

    /// So many run at once now, at least one.
    pub(super) fn set_running(&self, running: usize) {
        self.change(|line| line.set_running(running));
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        let mut told = self.lock();
        change(&mut told.line);
        told.tell();
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn tell(&self) {
        for (id, standing) in self.line.standings() {
            if let Some(sender) = self.standings.get(&id) {
                sender.send_if_modified(|last| std::mem::replace(last, standing) != standing);
            }
        }
    }
}

/// A transfer's place in the line, or its turn; given back when it is dropped.
pub(super) struct Spot {
    queue: Queue,
    id: u64,
    standing: watch::Receiver<Standing>,
}

impl Spot {
    /// Where it stands now.
    pub(super) fn standing(&mut self) -> Standing {
        *self.standing.borrow_and_update()
    }

    /// Returns once it stands elsewhere than it was last told.
    pub(super) async fn changed(&mut self) {
        // The line tells until this is dropped.
        let _ = self.standing.changed().await;
    }

    /// From now on one of lower priority is asked to yield for it.
    pub(super) fn displace(&self) {
        self.queue.change(|line| line.displace(self.id));
    }

    /// Returns once it is to give its turn back; for whom, where it is for somebody.
    pub(super) async fn asked_back(&self) -> Option<u64> {
        let mut standing = self.standing.clone();
        loop {
            if let Standing::Yielding { to } = *standing.borrow_and_update() {
                return to;
            }
            // The line tells until this is dropped.
            let _ = standing.changed().await;
        }
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        let mut told = self.queue.lock();
        told.standings.remove(&self.id);
        told.line.leave(self.id);
        told.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_goes_to_who_is_first_in_line() {
        let queue = Queue::of(1);
        let mut first = queue.enter(1, Priority::Normal, true);
        let mut second = queue.enter(2, Priority::Normal, true);
        let mut third = queue.enter(3, Priority::High, true);
        assert_eq!(first.asked_back().await, Some(3));
        assert_eq!(first.standing(), Standing::Yielding { to: Some(3) });
        assert!(matches!(second.standing(), Standing::Waiting(Place { place: 2, .. })));
        drop(first);
        third.changed().await;
        assert_eq!(third.standing(), Standing::Running);
        drop(third);
        second.changed().await;
        assert_eq!(second.standing(), Standing::Running);
    }
}
