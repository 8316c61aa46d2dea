//! How fast a source gives, as far as it has shown.

use std::time::{Duration, Instant};

use super::{HORIZON, TRIPS, WINDOW};

/// Weight of the newest interval, as a share of 1: fast to learn, slow to be fooled by one stall.
const WEIGHT: f64 = 0.25;
/// Nothing can be measured below the clock's own grain.
const GRAIN: Duration = Duration::from_micros(1);
/// What a source is taken to need for a piece before it gave any.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The measured pace of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// Mean time from one piece to the next while it had work, the newest weighing most.
    interval: Option<Duration>,
    /// Since when it has worked on its next piece.
    since: Option<Instant>,
    open: usize,
    /// The shortest time from asking to an answer, as far as it is known.
    round_trip: Duration,
}

impl Pace {
    /// An answer takes so long, whatever it is asked.
    pub(super) fn is_away(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// It was asked for one piece more.
    pub(super) fn asked(&mut self, now: Instant) {
        if self.open == 0 {
            self.since = Some(now);
        }
        self.open += 1;
    }

    /// It gave a piece that it was asked for then.
    pub(super) fn arrived(&mut self, asked: Instant, now: Instant) {
        // Who was busy when the time was taken seemed farther than it is.
        self.round_trip = self.round_trip.min(now.saturating_duration_since(asked));
        if let Some(since) = self.since {
            let took = now.saturating_duration_since(since);
            let mean = self.interval.map_or(took, |mean| mean.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT));
            self.interval = Some(mean);
        }
        self.open = self.open.saturating_sub(1);
        self.since = (self.open > 0).then_some(now);
    }

    /// It need not give one piece that it was asked for.
    pub(super) fn withdrawn(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.since = self.since.filter(|_| self.open > 0);
    }

    /// Requests that it may have open.
    pub(super) fn window(&self) -> usize {
        let wanted = match self.interval {
            None => *WINDOW.start(),
            Some(interval) => {
                let horizon = HORIZON.max(self.round_trip * TRIPS);
                horizon.div_duration_f64(interval.max(GRAIN)).ceil() as usize
            }
        };
        wanted.clamp(*WINDOW.start(), *WINDOW.end())
    }

    /// How long a piece takes that it is asked for when it owes nothing else.
    pub(super) fn alone(&self) -> Duration {
        self.each() + self.round_trip
    }

    /// How long it takes from one piece to the next.
    fn each(&self) -> Duration {
        self.interval.unwrap_or(UNKNOWN)
    }

    /// How long it takes until it has given the piece in this place of its queue, 1 for the next one. Who is overdue is
    /// taken to need as long again as it has already taken.
    pub(super) fn left(&self, place: u32, now: Instant) -> Duration {
        let waited = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let each = self.each();
        if waited > each { waited * place } else { each * place - waited }
    }
}
