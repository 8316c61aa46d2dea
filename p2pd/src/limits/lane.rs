//! One direction: how fast bytes may go, over all who use it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::LOOK_AGAIN;

/// Time that may pass unused and is made up for afterwards.
const BURST: Duration = Duration::from_millis(100);
/// Turns that fit into a second, and what is taken in one at the least: of less, those who receive it say that it is crumbs.
const TURNS: u64 = 32;
const LEAST_PORTION: usize = 4 << 10;

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

    /// How long to wait until bytes can be taken, as far as is known now.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = pace.free_at.map_or(Duration::ZERO, |free_at| free_at.saturating_duration_since(now));
        left.min(LOOK_AGAIN)
    }

    /// Takes these bytes where a thread can wait; `false` where nobody wants the bytes any more.
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

    /// Keeps to this rate from now on; 0 for as fast as it goes.
    pub(super) fn keep_to(&self, rate: u64) {
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
        for (rate, portion) in [(1, 4 << 10), (1 << 20, 32 << 10), (1 << 30, 256 << 10)] {
            lane.keep_to(rate);
            assert_eq!(lane.portion(256 << 10), portion, "at {rate}");
        }
        assert_eq!(lane.portion(5), 5, "there is no more");
    }
}
