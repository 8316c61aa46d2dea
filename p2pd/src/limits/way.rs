//! The way of bytes to one peer, or from it: through the peer's own lane and through that of all, in its turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turns::Seat;
use super::{Limits, Own};

/// What bytes wait for that are to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// A rate, of all or of the peer.
    Rate,
    /// The peer's turn.
    Turn,
}

/// What goes out to one peer, on one stream.
pub struct WayOut {
    pub(super) limits: Limits,
    pub(super) own: Arc<Own>,
    pub(super) seat: Seat,
}

impl WayOut {
    /// Takes as many bytes as shall be sent next, of `most`: with a rate they are fewer, so that many can take turns.
    /// Waits as long as it must, and says what for; `None` where nobody wants them any more. No portion is a crumb but where
    /// `most` is one.
    pub fn take(&self, most: usize, is_wanted: impl Fn(WaitsFor) -> bool) -> Option<usize> {
        let portion = self.own.up.portion(most).min(self.limits.up().portion(most));
        let len = if most < portion * 2 { most } else { portion };
        let bytes = len as u64;
        // First its own lane: who waits there does not hold up the others.
        if !self.own.up.take_blocking(bytes, || is_wanted(WaitsFor::Rate)) {
            return None;
        }
        let mut waiting = None;
        loop {
            let now = Instant::now();
            // Whose turn it is not need not ask before there is something to take.
            let held = self.limits.up().left(now);
            let turn = self.seat.turn(now).map_err(|wait| wait.max(held));
            // Where turns are taken because of the rate, it is the rate that holds.
            let waits_for = if turn.is_err() && held.is_zero() { WaitsFor::Turn } else { WaitsFor::Rate };
            let taken = turn.and_then(|()| self.limits.up().take(bytes, now));
            let Err(wait) = taken else {
                self.seat.took(bytes, now);
                return Some(len);
            };
            waiting.get_or_insert_with(|| self.seat.wait());
            if !is_wanted(waits_for) {
                return None;
            }
            std::thread::sleep(wait);
        }
    }
}

/// Why bytes cannot come in yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How long to wait before it is asked again; not longer than [`LOOK_AGAIN`](super::LOOK_AGAIN).
    pub wait: Duration,
    /// It is the limit of this source alone, and not that of all.
    pub is_own: bool,
}

/// What comes in from one source.
pub struct WayIn {
    pub(super) limits: Limits,
    /// Absent for a source without an ID.
    pub(super) own: Option<Arc<Own>>,
    /// Its own lane has let the next bytes pass, and the lane of all has not yet.
    pub(super) is_half_way: bool,
}

impl WayIn {
    /// Takes these bytes, or says which limit holds them and how long to wait before it is asked again, for the same or for
    /// others.
    ///
    /// # Errors
    /// [`Held`].
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Held> {
        let held = |is_own| move |wait| Held { wait, is_own };
        if let Some(own) = self.own.as_ref().filter(|_| !self.is_half_way) {
            own.down.take(bytes, now).map_err(held(true))?;
        }
        self.is_half_way = true;
        self.limits.down().take(bytes, now).map_err(held(false))?;
        self.is_half_way = false;
        Ok(())
    }
}
