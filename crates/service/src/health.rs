//! Whether the daemon makes progress: each long-lived loop has a heartbeat, and systemd's watchdog is fed only while all
//! of them beat.
//!
//! Owns the list of heartbeats, and the thread that looks at them: a thread of its own, so that it sees, and says, when
//! the runtime itself stands still. Loops get a [`Heartbeat`] from [`Tasks`](crate::tasks::Tasks); a daemon's `main`
//! starts the [`Watchdog`]. Time is the system's monotonic clock, which stands still while the machine is suspended.
//!
//! A beat is made at the top of a loop, and a loop that waits for events wakes now and then to make it. So what is found
//! is a loop that does not come back to its top. Work on other threads (hashing, reading, proving) is not a loop's
//! silence, however long it takes.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::notify;

/// How long a loop may be silent, where there is no reason for another time: longer than a busy disk needs for a
/// database's change, or a reload for shares that do not answer.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often the heartbeats are looked at where systemd asks for nothing: a loop that is stuck is logged all the same.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Beats that a loop makes, at the least, within the time that it may be silent.
const BEATS: u32 = 4;

/// The heartbeats of one daemon. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Health {
    hearts: Arc<Mutex<Hearts>>,
}

#[derive(Debug, Default)]
struct Hearts {
    next_id: u64,
    known: BTreeMap<u64, Heart>,
}

#[derive(Debug)]
struct Heart {
    name: String,
    patience: Duration,
    /// Its last beat; `None` while it rests.
    beat_at: Option<Instant>,
    /// That it is stuck was said.
    is_reported: bool,
}

/// A loop that has been silent for longer than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The loop.
    pub name: String,
    /// How long it has been silent.
    pub silent: Duration,
    /// Whether this was not so when the heartbeats were last looked at.
    pub is_news: bool,
}

impl Health {
    /// A heartbeat for a loop that is to be back at its top within `patience`. It beats now, and is forgotten when it is
    /// dropped.
    pub fn heartbeat(&self, name: impl Into<String>, patience: Duration) -> Heartbeat {
        let mut hearts = self.lock();
        let id = hearts.next_id;
        hearts.next_id += 1;
        let heart = Heart { name: name.into(), patience, beat_at: Some(Instant::now()), is_reported: false };
        hearts.known.insert(id, heart);
        Heartbeat { health: self.clone(), id, pause: patience / BEATS }
    }

    /// The loops that are silent for too long at this moment.
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let mut stuck = Vec::new();
        for heart in self.lock().known.values_mut() {
            let silent = heart.beat_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            // What was found stuck stays so until it beats: no late look excuses it.
            if silent > heart.patience || heart.is_reported {
                let is_news = !std::mem::replace(&mut heart.is_reported, true);
                stuck.push(Stuck { name: heart.name.clone(), silent, is_news });
            }
        }
        stuck
    }

    /// Leaves this time out of all silence: nobody could beat in it.
    fn forgive(&self, lost: Duration) {
        for heart in self.lock().known.values_mut() {
            heart.beat_at = heart.beat_at.map(|at| at + lost);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hearts> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sign of life of one loop, which owns it.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    id: u64,
    pause: Duration,
}

impl Heartbeat {
    /// The loop is at its top.
    pub fn beat(&self) {
        self.set(Some(Instant::now()));
    }

    /// The loop waits for work, for as long as it takes: for a thread that cannot wake by itself. The next
    /// [`beat`](Heartbeat::beat) ends that.
    pub fn rest(&self) {
        self.set(None);
    }

    /// Ends when the next beat is due: a branch of the loop's own `select!`. Cancel safe.
    pub async fn due(&self) {
        tokio::time::sleep(self.pause).await;
    }

    /// Waits for somebody else, another machine or a user, and beats meanwhile: that they are slow is no defect of this
    /// loop. Not for work of this daemon, whose end is what the heartbeat is to prove.
    pub async fn while_waiting<F: Future>(&self, other: F) -> F::Output {
        let mut other = std::pin::pin!(other);
        loop {
            self.beat();
            tokio::select! {
                output = &mut other => return output,
                () = self.due() => {}
            }
        }
    }

    fn set(&self, beat_at: Option<Instant>) {
        let mut hearts = self.health.lock();
        let Some(heart) = hearts.known.get_mut(&self.id) else { return };
        let silent = heart.beat_at.map(|at| at.elapsed());
        heart.beat_at = beat_at;
        if std::mem::take(&mut heart.is_reported) {
            let (name, silent_secs) = (heart.name.clone(), silent.unwrap_or_default().as_secs());
            drop(hearts);
            tracing::warn!(
                task = name,
                silent_secs,
                "the loop '{name}' goes on, after it stood still for {silent_secs} s"
            );
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.lock().known.remove(&self.id);
    }
}

/// The thread that looks at the heartbeats and feeds systemd's watchdog, until this is dropped. Its end is not waited for:
/// it may be about to log, and where nobody takes the log that can take for ever.
#[derive(Debug)]
pub struct Watchdog {
    _stop: SyncSender<()>,
}

impl Watchdog {
    /// Starts to look. Where systemd has set no watchdog, stuck loops are only logged.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(health: Health) -> std::io::Result<Watchdog> {
        let fed_every = notify::watchdog_interval();
        let every = fed_every.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let (stop, stopped) = sync_channel(1);
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut looked_at = Instant::now();
            loop {
                let now = Instant::now();
                // Who is late itself, as after a SIGSTOP, cannot blame the others: they had no time either.
                let took = now.duration_since(looked_at);
                if took > every * 2 {
                    health.forgive(took);
                }
                looked_at = now;
                let stuck = health.stuck(now);
                if stuck.is_empty() && fed_every.is_some() {
                    notify::watchdog();
                }
                report(&stuck, fed_every.is_some());
                match stopped.recv_timeout(every) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
            }
        })?;
        Ok(Watchdog { _stop: stop })
    }
}

fn report(stuck: &[Stuck], is_fed: bool) {
    for Stuck { name, silent, .. } in stuck.iter().filter(|stuck| stuck.is_news) {
        let silent_secs = silent.as_secs();
        let what_follows = match is_fed {
            true => "systemd's watchdog is fed no more, and systemd will restart the daemon",
            false => "nobody watches this daemon: restart it",
        };
        tracing::error!(
            task = name,
            silent_secs,
            "the loop '{name}' has stood still for {silent_secs} s; {what_follows}; if it happens again, please report \
             this line with those before it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stuck: &[Stuck]) -> Vec<(&str, bool)> {
        stuck.iter().map(|stuck| (stuck.name.as_str(), stuck.is_news)).collect()
    }

    #[test]
    fn only_who_is_silent_for_too_long_is_stuck() {
        let health = Health::default();
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(100));
        let (a, b) = (health.heartbeat("a", short), health.heartbeat("b", long));
        let resting = health.heartbeat("resting", short);
        resting.rest();
        let gone = health.heartbeat("gone", short);
        drop(gone);
        let now = Instant::now();
        assert_eq!(health.stuck(now), []);
        assert_eq!(names(&health.stuck(now + 2 * short)), [("a", true)]);
        assert_eq!(names(&health.stuck(now + 3 * short)), [("a", false)], "said once");
        assert_eq!(names(&health.stuck(now + 2 * long)), [("a", false), ("b", true)]);
        health.forgive(2 * long);
        assert_eq!(
            names(&health.stuck(now + 2 * long)),
            [("a", false), ("b", false)],
            "who is stuck stays so"
        );
        a.beat();
        b.beat();
        resting.beat();
        assert_eq!(names(&health.stuck(now + 2 * short)), [("a", true), ("resting", true)]);
    }

    #[test]
    fn time_that_nobody_had_is_nobodys_silence() {
        let health = Health::default();
        let patience = Duration::from_secs(10);
        let _heart = health.heartbeat("a", patience);
        let now = Instant::now();
        health.forgive(Duration::from_secs(3600));
        assert_eq!(health.stuck(now + Duration::from_secs(3600)), []);
        assert_eq!(names(&health.stuck(now + Duration::from_secs(3600) + 2 * patience)), [("a", true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_others_is_no_silence() {
        let health = Health::default();
        let heart = health.heartbeat("a", PATIENCE);
        let forget = || health.lock().known.values_mut().for_each(|heart| heart.beat_at = None);
        let other = async {
            tokio::time::sleep(PATIENCE).await;
            forget();
            tokio::time::sleep(PATIENCE).await;
        };
        heart.while_waiting(other).await;
        assert!(health.lock().known.values().all(|heart| heart.beat_at.is_some()), "it beats all the while");
    }
}
