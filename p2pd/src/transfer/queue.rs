//! Whose turn it is: transfers stand in a [`Line`], and each is told at once when its turn begins or is asked back.
//! Where those that wait stand changes for all of them with each that comes and goes: that is told now and then.
//!
//! Owned by the transfers; a job takes a [`Spot`] before each of its runs and keeps it until the run is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p_proto::control::Priority;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

mod line;

use line::Line;
pub(super) use line::{Place, Standing};

/// How often those that wait are told their places at the most. Each is a task that wakes up.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// The line of all transfers that run or want to. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Queue {
    told: Arc<Mutex<Told>>,
    /// Rings when places may have changed.
    moved: Arc<Notify>,
}

struct Told {
    line: Line,
    standings: BTreeMap<u64, watch::Sender<Standing>>,
}

impl Queue {
    /// One in which so many run at once, at least one.
    pub(super) fn of(running: usize) -> Self {
        let told = Told { line: Line::of(running), standings: BTreeMap::new() };
        Self { told: Arc::new(Mutex::new(told)), moved: Arc::default() }
    }

    /// Tells those that wait where they stand, until this is dropped.
    pub(super) async fn tell_places(&self) {
        loop {
            self.moved.notified().await;
            self.lock().tell_all();
            sleep(TOLD_EVERY).await;
        }
    }

    /// Takes a spot for this transfer. `displaces`: whether one of lower priority that runs is asked to yield for it.
    pub(super) fn enter(&self, id: u64, priority: Priority, displaces: bool) -> Spot {
        self.change(|line| line.enter(id, priority, displaces));
        let mut told = self.lock();
        let sender = watch::Sender::new(told.line.standing(id));
        let standing = sender.subscribe();
        told.standings.insert(id, sender);
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

    fn change(&self, change: impl FnOnce(&mut Line) -> Vec<u64>) {
        let mut told = self.lock();
        let turns = change(&mut told.line);
        turns.into_iter().for_each(|id| told.tell(id, told.line.standing(id)));
        self.moved.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn tell_all(&self) {
        self.line.standings().for_each(|(id, standing)| self.tell(id, standing));
    }

    fn tell(&self, id: u64, standing: Standing) {
        if let Some(sender) = self.standings.get(&id) {
            sender.send_if_modified(|last| std::mem::replace(last, standing) != standing);
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
    /// Where it stands, as it was told last.
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
        self.queue.lock().standings.remove(&self.id);
        self.queue.change(|line| line.leave(self.id));
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
        queue.lock().tell_all();
        assert!(matches!(second.standing(), Standing::Waiting(Place { place: 2, .. })));
        drop(first);
        third.changed().await;
        assert_eq!(third.standing(), Standing::Running);
        drop(third);
        second.changed().await;
        assert_eq!(second.standing(), Standing::Running);
    }

    /// Each of a thousand that go would make all others one step nearer, and each of these a task that wakes up.
    #[tokio::test(start_paused = true)]
    async fn places_are_told_now_and_then_and_turns_at_once() {
        let queue = Queue::of(1);
        let telling = queue.clone();
        tokio::spawn(async move { telling.tell_places().await });
        let mut line: Vec<_> = (1..=1000).map(|id| queue.enter(id, Priority::Normal, true)).collect();
        let mut last = line.pop().unwrap();
        assert!(matches!(last.standing(), Standing::Waiting(Place { place: 999, behind: 999, .. })));
        let told = tokio::spawn(async move {
            let mut times = 0;
            while last.standing() != Standing::Running {
                last.changed().await;
                times += 1;
            }
            times
        });
        for first in line {
            drop(first);
            // Whoever was told something is let run.
            sleep(Duration::from_millis(1)).await;
        }
        let times = told.await.unwrap();
        assert!(times <= 4, "it was told {times} times in a second");
    }
}
