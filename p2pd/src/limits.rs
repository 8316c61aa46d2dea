//! How fast file data goes out and comes in, at the most: what the configuration says, unless a user has said otherwise.
//!
//! **Owns** `limits.json`. Whoever sends or asks for bytes takes them from a [`Lane`] first; a lane keeps to its rate over
//! all who use it, and whoever waits looks again every now and then, so that a new rate holds at once.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p2p_proto::control::{Limit, LimitsAnswer, SetLimits};
use serde::{Deserialize, Serialize};

use crate::kept::Kept;

/// Time that may pass unused and is made up for afterwards.
const BURST: Duration = Duration::from_millis(100);
/// Turns that fit into a second, and what is taken in one at the least.
const TURNS: u64 = 32;
const LEAST_PORTION: usize = 8 << 10;
/// How long nobody waits without looking whether the rate is another by now.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes per second; 0 for as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of what is sent.
    pub up: u64,
    /// Of what is fetched.
    pub down: u64,
}

/// What a user said while the daemon ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    #[serde(default)]
    up: Option<u64>,
    #[serde(default)]
    down: Option<u64>,
}

/// The limits in force. Clones are handles to the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    /// Held while it is written: what two users say at once both counts.
    kept: Mutex<Kept>,
    state: Mutex<State>,
    up: Lane,
    down: Lane,
}

#[derive(Clone, Copy)]
struct State {
    configured: Rates,
    said: Said,
}

impl Limits {
    /// The configured ones, and those that a user set before, which are kept in this file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else.
    pub fn open(path: PathBuf, configured: Rates) -> io::Result<Self> {
        let kept = Kept::at(path);
        let said = kept.read()?;
        let state = Mutex::new(State { configured, said });
        let limits = Self(Arc::new(Inner {
            kept: Mutex::new(kept),
            state,
            up: Lane::default(),
            down: Lane::default(),
        }));
        limits.enforce();
        Ok(limits)
    }

    /// The configuration is another now.
    pub fn configure(&self, configured: Rates) {
        self.lock().configured = configured;
        self.enforce();
    }

    /// Takes what a user says; it outlives the daemon. Waits for the disk.
    ///
    /// # Errors
    /// Where it cannot be kept; nothing has changed then.
    pub fn set(&self, request: &SetLimits) -> io::Result<()> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = if request.as_configured { Said::default() } else { self.lock().said };
        said.up = request.up.or(said.up);
        said.down = request.down.or(said.down);
        kept.write(&said)?;
        self.lock().said = said;
        self.enforce();
        Ok(())
    }

    /// What is in force, and who said so.
    pub fn answer(&self) -> LimitsAnswer {
        let State { configured, said } = *self.lock();
        let limit = |said: Option<u64>, configured| Limit {
            bytes_per_sec: said.unwrap_or(configured),
            configured_bytes_per_sec: configured,
            is_set: said.is_some(),
        };
        LimitsAnswer { up: limit(said.up, configured.up), down: limit(said.down, configured.down) }
    }

    /// What goes out.
    pub fn up(&self) -> &Lane {
        &self.0.up
    }

    /// What comes in.
    pub fn down(&self) -> &Lane {
        &self.0.down
    }

    fn enforce(&self) {
        let State { configured, said } = *self.lock();
        self.0.up.keep_to(said.up.unwrap_or(configured.up));
        self.0.down.keep_to(said.down.unwrap_or(configured.down));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One direction. Any number of bytes can be taken at once: who comes next waits for them.
#[derive(Debug, Default)]
pub struct Lane(Mutex<Pace>);

#[derive(Debug, Default)]
struct Pace {
    /// Bytes per second; 0 for as fast as it goes.
    rate: u64,
    /// When what was taken has gone.
    free_at: Option<Instant>,
}

impl Lane {
    /// Takes these bytes, or says how long to wait before it is asked again.
    ///
    /// # Errors
    /// The time, which is not longer than [`LOOK_AGAIN`].
    pub fn take(&self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.rate == 0 {
            return Ok(());
        }
        let free_at = pace.free_at.unwrap_or(now);
        if free_at > now {
            return Err((free_at - now).min(LOOK_AGAIN));
        }
        let from = free_at.max(now.checked_sub(BURST).unwrap_or(now));
        pace.free_at = Some(from + Duration::from_secs_f64(bytes as f64 / pace.rate as f64));
        Ok(())
    }

    /// The same where a thread can wait; `false` where nobody wants the bytes any more.
    pub fn take_blocking(&self, bytes: u64, is_wanted: impl Fn() -> bool) -> bool {
        while let Err(wait) = self.take(bytes, Instant::now()) {
            if !is_wanted() {
                return false;
            }
            std::thread::sleep(wait);
        }
        true
    }

    /// How much to take at once: as little as lets many take turns within seconds, at a low rate too.
    pub fn portion(&self, most: usize) -> usize {
        let rate = self.0.lock().unwrap_or_else(PoisonError::into_inner).rate;
        match rate {
            0 => most,
            _ => usize::try_from(rate / TURNS).unwrap_or(most).clamp(LEAST_PORTION.min(most), most),
        }
    }

    fn keep_to(&self, rate: u64) {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.rate != rate {
            // What was taken at the old rate is forgiven: at a very low one it would last for hours.
            *pace = Pace { rate, free_at: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn a_lane_keeps_to_its_rate_over_all_who_use_it() {
        let (lane, start) = (Lane::default(), Instant::now());
        assert_eq!(lane.take(u64::MAX, start), Ok(()), "without a rate nobody waits");
        lane.keep_to(1000);
        let (mut now, mut taken) = (start, 0);
        while now < start + secs(10.0) {
            match lane.take(100, now) {
                Ok(()) => taken += 100,
                Err(wait) => now += wait,
            }
        }
        assert!((9_900..=10_200).contains(&taken), "{taken}");
    }

    #[test]
    fn more_than_a_second_allows_is_waited_for_by_the_next() {
        let (lane, start) = (Lane::default(), Instant::now());
        lane.keep_to(1000);
        assert_eq!(lane.take(5000, start), Ok(()));
        assert_eq!(lane.take(1, start + secs(4.9)), Err(LOOK_AGAIN));
        assert_eq!(lane.take(1, start + secs(5.0)), Ok(()));
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (lane, start) = (Lane::default(), Instant::now());
        lane.keep_to(1000);
        lane.take(1, start).unwrap();
        let later = start + secs(3600.0);
        let at_once = (0..100).take_while(|_| lane.take(100, later).is_ok()).count();
        assert_eq!(at_once, 2, "a tenth of a second's, and the one that is waited for");
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let (lane, start) = (Lane::default(), Instant::now());
        lane.keep_to(1);
        lane.take(1 << 20, start).unwrap();
        assert!(lane.take(1, start).is_err());
        lane.keep_to(0);
        assert_eq!(lane.take(1 << 20, start), Ok(()));
        lane.keep_to(1);
        lane.take(1 << 20, start).unwrap();
        assert!(!lane.take_blocking(1, || false));
    }

    #[test]
    fn at_a_low_rate_the_turns_are_short() {
        let lane = Lane::default();
        assert_eq!(lane.portion(256 << 10), 256 << 10);
        for (rate, portion) in [(1, 8 << 10), (1 << 20, 32 << 10), (1 << 30, 256 << 10)] {
            lane.keep_to(rate);
            assert_eq!(lane.portion(256 << 10), portion, "at {rate}");
        }
        assert_eq!(lane.portion(5), 5, "there is no more");
    }

    #[test]
    fn a_user_goes_before_the_configuration_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let open = |up| Limits::open(dir.path().join("limits.json"), Rates { up, down: 0 }).unwrap();
        let limits = open(7);
        limits.set(&SetLimits { up: None, down: Some(9), as_configured: false }).unwrap();
        let of = |limits: &Limits| {
            let LimitsAnswer { up, down } = limits.answer();
            (up.bytes_per_sec, up.is_set, down.bytes_per_sec, down.is_set)
        };
        assert_eq!(of(&limits), (7, false, 9, true));
        limits.configure(Rates { up: 8, down: 1 });
        assert_eq!(of(&limits), (8, false, 9, true));
        let again = open(6);
        assert_eq!(of(&again), (6, false, 9, true));
        again.set(&SetLimits { up: Some(0), down: None, as_configured: true }).unwrap();
        assert_eq!(of(&again), (0, true, 0, false));
    }
}
