//! When a store turns to its text index, which follows the names (0016). Pure: the time is an argument.

use std::time::{Duration, Instant};

/// No change for so long is a quiet moment: between two batches of one stream there is less, on a busy machine too.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// How long names wait for a quiet moment before they are taken in between changes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of the time in which changes leave no quiet moment, the index first gets one part in this many.
const FIRST_SHARE: u32 = 10;
/// How long that goes on: a million files are announced in that time.
const FIRST: Duration = Duration::from_secs(30);
/// Then it gets one part in this many. A name costs the index less than its announcement did, so it catches up.
const SHARE: u32 = 2;

/// When the index has its turn.
#[derive(Debug)]
pub(super) struct Turns {
    /// Names may be waiting since then.
    waiting: Option<Instant>,
    /// What the index has had since.
    index: Duration,
}

impl Turns {
    /// At the start names may be waiting.
    pub(super) fn new(now: Instant) -> Turns {
        Turns { waiting: Some(now), index: Duration::ZERO }
    }

    /// Whether anything may be left to do.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// A change was made. Returns whether the index has its turn although others may queue.
    pub(super) fn changed(&mut self, now: Instant) -> bool {
        let waited = now.duration_since(*self.waiting.get_or_insert(now));
        let due = waited.min(FIRST) / FIRST_SHARE + waited.saturating_sub(FIRST) / SHARE;
        waited >= PATIENCE && self.index < due
    }

    /// The index had a turn; `more`: and is not through.
    pub(super) fn indexed(&mut self, took: Duration, more: bool, now: Instant) {
        self.index += took;
        if !more {
            *self = Turns { waiting: None, ..Turns::new(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that one turn takes.
    const STEP: u64 = 5000;

    /// Changes that follow each other for so long, each of which brings so many names, and steps of the index in between,
    /// at the pace of either. How long names waited at the most, and the part of the first half minute that the index had.
    fn under_load(lasting: Duration, change: Duration, names: u64) -> (Duration, f64) {
        const A_NAME: Duration = Duration::from_micros(9);
        let start = Instant::now();
        let mut turns = Turns::new(start);
        turns.indexed(Duration::ZERO, false, start);
        assert!(!turns.is_waiting());
        let (mut now, mut longest, mut early) = (start, Duration::ZERO, Duration::ZERO);
        let mut waiting: std::collections::VecDeque<(Instant, u64)> = std::collections::VecDeque::new();
        while now - start < lasting {
            now += change;
            waiting.push_back((now, names));
            if !turns.changed(now) {
                continue;
            }
            assert!(now - start >= PATIENCE, "at once");
            let (mut taken, began) = (0, now);
            while let Some((since, names)) = waiting.pop_front() {
                let some = names.min(STEP - taken);
                taken += some;
                now += A_NAME * u32::try_from(some).unwrap();
                longest = longest.max(now - since);
                if some < names {
                    waiting.push_front((since, names - some));
                    break;
                }
            }
            if now - start < FIRST {
                early += now - began;
            }
            turns.indexed(now - began, !waiting.is_empty(), now);
        }
        longest = waiting.front().map_or(longest, |(since, _)| longest.max(now - *since));
        (longest, early.as_secs_f64() / FIRST.as_secs_f64())
    }

    #[test]
    fn a_first_announcement_is_not_held_up() {
        let million = Duration::from_secs(25);
        let (_, part) = under_load(million, Duration::from_millis(18), 1000);
        assert!((0.03..0.11).contains(&part), "{part}");
    }

    /// However long changes follow each other without a pause.
    #[test]
    fn under_endless_load_names_are_found_within_a_minute() {
        let long = Duration::from_secs(600);
        // Batches, and single changes that follow each other as fast.
        for (change, names) in [(Duration::from_millis(18), 1000), (Duration::from_micros(60), 1)] {
            let (longest, _) = under_load(long, change, names);
            assert!(longest < Duration::from_secs(60), "{longest:?}");
        }
        // Few names wait hardly longer than patience does.
        let (longest, _) = under_load(long, Duration::from_millis(20), 1);
        assert!(longest < PATIENCE + Duration::from_millis(100), "{longest:?}");
    }
}
