//! When a maestro is asked for some of the members that are here. Pure but for chance.
//!
//! Often while few are known, rarely later: many thousands of peers ask the same maestro, and each of them all its life.

use std::time::Duration;

/// Members that are asked for at once, some 5 kB of them.
pub(super) const DRAWN: usize = 32;
/// How long the second question of a peer that knows few comes after the first, about; each next one after twice as long…
const SOON: Duration = Duration::from_secs(30);
/// … up to this.
const RARELY: Duration = Duration::from_secs(600);
/// Within this time the first question of a peer that knows few.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The questions of one session.
#[derive(Debug)]
pub(super) struct Draws {
    after: Duration,
}

impl Draws {
    /// Of a peer that remembers so many members; and when the first question is due.
    pub(super) fn begin(remembered: usize) -> (Draws, Duration) {
        let (after, within) = match remembered < DRAWN {
            true => (SOON, AT_ONCE),
            // After a restart of the maestro all come back at once, and are not to ask at once.
            false => (RARELY, RARELY),
        };
        (Draws { after }, within.mul_f64(rand::random_range(0.0..1.0)))
    }

    /// How long the next question comes after this one.
    pub(super) fn next(&mut self) -> Duration {
        let about = self.after;
        self.after = (2 * about).min(RARELY);
        about.mul_f64(rand::random_range(0.75..1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_few_asks_at_once_and_everybody_rarely_in_the_end() {
        for remembered in [0, DRAWN - 1] {
            let (mut draws, first) = Draws::begin(remembered);
            assert!(first <= AT_ONCE);
            let mut before = Duration::ZERO;
            for about in [30, 60, 120, 240, 480, 600, 600].map(Duration::from_secs) {
                let next = draws.next();
                assert!(
                    next >= about.mul_f64(0.75) && next <= about.mul_f64(1.25),
                    "{next:?}, not {about:?}"
                );
                assert_ne!(next, before, "not in step with anybody");
                before = next;
            }
        }
        let firsts: Vec<_> = (0..1000).map(|_| Draws::begin(DRAWN).1).collect();
        let early = firsts.iter().filter(|first| **first < RARELY / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
        assert!(Draws::begin(DRAWN).0.next() >= RARELY.mul_f64(0.75));
    }
}
