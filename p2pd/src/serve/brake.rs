//! What holds back the bytes that go to each peer, so that it can be told: a peer that knows that it waits for a limit
//! does not look for the fault in the network.
//!
//! Whoever sends takes hold of its peer's [`Brake`] while it waits, and lets go; where nothing waits, nothing is done. The
//! peer's Availability streams look at the brake from the moment when it is first held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use p2p_identity::PeerId;
use p2p_proto::v1::availability_update::HeldBack;
use tokio::sync::watch;

/// How often a brake is looked at that is or was held.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A peer is held back whose bytes were held for so much of the time since the last look; and no longer is one that was
/// held for less than this.
const HELD: f64 = 0.5;
const FREE: f64 = 0.2;

/// The brakes of all peers that something is sent to. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Brakes(Arc<Mutex<HashMap<PeerId, Weak<Brake>>>>);

/// What holds back the bytes of one peer. Gone when nobody holds it.
#[derive(Debug)]
pub(super) struct Brake {
    id: PeerId,
    all: Brakes,
    state: Mutex<State>,
    /// Rings when it is held and was not.
    pulled: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Streams that wait now.
    waiting: usize,
    since: Option<Instant>,
    /// How long something waited until now.
    held: Duration,
    why: HeldBack,
}

impl Brakes {
    /// The brake of this peer, new where there is none.
    pub(super) fn of(&self, id: PeerId) -> Arc<Brake> {
        let mut all = self.lock();
        if let Some(brake) = all.get(&id).and_then(Weak::upgrade) {
            return brake;
        }
        let (state, pulled) = (Mutex::default(), watch::Sender::new(()));
        let brake = Arc::new(Brake { id, all: self.clone(), state, pulled });
        all.insert(id, Arc::downgrade(&brake));
        brake
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Weak<Brake>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Brake {
    /// Bytes wait for this until what it gives is dropped.
    pub(super) fn hold(self: &Arc<Self>, why: HeldBack, now: Instant) -> Hold {
        let mut state = self.lock();
        state.waiting += 1;
        state.why = why;
        if state.since.is_none() {
            state.since = Some(now);
            drop(state);
            self.pulled.send_replace(());
        }
        Hold(Arc::clone(self))
    }

    fn release(&self, now: Instant) {
        let mut state = self.lock();
        state.waiting -= 1;
        if state.waiting == 0
            && let Some(since) = state.since.take()
        {
            state.held += now.saturating_duration_since(since);
        }
    }

    /// How long bytes were held until now, and why the last ones.
    fn read(&self, now: Instant) -> (Duration, HeldBack) {
        let state = self.lock();
        let going_on = state.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (state.held + going_on, state.why)
    }

    /// What its peer is to be told from now on.
    pub(super) fn watch(self: Arc<Self>) -> Watcher {
        // One that is held already is looked at too.
        let mut pulled = self.pulled.subscribe();
        pulled.mark_changed();
        Watcher { brake: self, pulled, told: HeldBack::Nothing, last: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // By now there may be another one in its place.
        if all.get(&self.id).is_some_and(|brake| brake.strong_count() == 0) {
            all.remove(&self.id);
        }
    }
}

/// Bytes that wait.
#[derive(Debug)]
pub(super) struct Hold(Arc<Brake>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.release(Instant::now());
    }
}

/// Tells a peer what holds it back.
#[derive(Debug)]
pub(super) struct Watcher {
    brake: Arc<Brake>,
    pulled: watch::Receiver<()>,
    told: HeldBack,
    /// When it was last looked, and how long bytes had been held by then; `None` while nothing is to be looked at.
    last: Option<(Instant, Duration)>,
}

impl Watcher {
    /// What is to be told, as soon as it is another than before. May be dropped and called again.
    pub(super) async fn next(&mut self) -> HeldBack {
        loop {
            if let Some((at, _)) = self.last {
                tokio::time::sleep_until((at + LOOK_EVERY).into()).await;
                if let Some(news) = self.look(Instant::now()) {
                    return news;
                }
            } else if self.pulled.changed().await.is_ok() {
                let now = Instant::now();
                self.last = Some((now, self.brake.read(now).0));
            } else {
                // The brake is held here: it cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }

    fn look(&mut self, now: Instant) -> Option<HeldBack> {
        let ((held, why), (at, before)) = (self.brake.read(now), self.last?);
        // Who lets go may have looked at the clock before this thread did.
        let share = held.saturating_sub(before).as_secs_f64()
            / now.saturating_duration_since(at).as_secs_f64().max(1e-3);
        let is_held = if self.told == HeldBack::Nothing { share >= HELD } else { share > FREE };
        let news = if is_held { why } else { HeldBack::Nothing };
        // Who is free is not looked at again until something is held.
        self.last = (is_held || share > 0.0).then_some((now, held));
        let is_new = std::mem::replace(&mut self.told, news) != news;
        is_new.then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake() -> Arc<Brake> {
        Brakes::default().of(p2p_identity::Identity::generate().unwrap().id())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_waits_most_of_the_time_is_held_back_and_told_once() {
        let (brake, start) = (brake(), Instant::now());
        let mut watcher = Arc::clone(&brake).watch();
        watcher.last = Some((start, Duration::ZERO));
        let hold = brake.hold(HeldBack::RateLimit, start + ms(100));
        assert_eq!(watcher.look(start + ms(500)), Some(HeldBack::RateLimit));
        assert_eq!(watcher.look(start + ms(1000)), None, "it knows");
        std::mem::forget(hold);
        brake.release(start + ms(1150));
        assert_eq!(watcher.look(start + ms(1500)), None, "a third of the time is not free");
        assert_eq!(watcher.look(start + ms(2000)), Some(HeldBack::Nothing));
        assert!(watcher.last.is_none(), "nothing is looked at until something is held again");
    }

    #[test]
    fn a_short_wait_is_not_worth_a_word() {
        let (brake, start) = (brake(), Instant::now());
        let mut watcher = Arc::clone(&brake).watch();
        watcher.last = Some((start, Duration::ZERO));
        std::mem::forget(brake.hold(HeldBack::RateLimit, start));
        brake.release(start + ms(200));
        assert_eq!(watcher.look(start + ms(500)), None);
    }

    #[test]
    fn of_two_streams_that_wait_the_time_counts_once() {
        let (brake, start) = (brake(), Instant::now());
        std::mem::forget((brake.hold(HeldBack::RateLimit, start), brake.hold(HeldBack::NoSlot, start)));
        brake.release(start + ms(100));
        assert_eq!(brake.read(start + ms(300)), (ms(300), HeldBack::NoSlot));
        brake.release(start + ms(400));
        assert_eq!(brake.read(start + ms(900)).0, ms(400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_sleeps_until_something_is_held() {
        let brakes = Brakes::default();
        let id = p2p_identity::Identity::generate().unwrap().id();
        let mut watcher = brakes.of(id).watch();
        // It looks once at what may have been before it.
        let quiet = tokio::time::timeout(Duration::from_secs(60), watcher.next()).await;
        assert!(quiet.is_err() && watcher.last.is_none());
        let hold = brakes.of(id).hold(HeldBack::RateLimit, Instant::now());
        let wakes = tokio::time::timeout(Duration::from_secs(60), watcher.pulled.changed()).await;
        assert!(wakes.is_ok(), "it is the same brake");
        drop((hold, watcher));
        assert!(brakes.lock().is_empty(), "nobody holds it any more");
    }
}
