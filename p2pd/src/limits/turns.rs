//! Whose turn it is to be served, among peers that ask for bytes at the same time.
//!
//! What is shared is what this peer can give out: some *slots* for peers that are served at once, and, where there is a
//! rate for all, the next bytes of it. The rules are in [`Round`], which is pure; here is the handle that streams use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p2p_identity::PeerId;

mod round;

use round::Round;

/// The round of all who are served. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Round>>);

impl Turns {
    /// One with so many slots, at least one.
    pub(super) fn of(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(Round::of(slots))))
    }

    /// So many peers are served at once now.
    pub(super) fn set_slots(&self, slots: usize) {
        self.lock().set_slots(slots);
    }

    /// A stream of this peer.
    pub(super) fn enter(&self, peer: PeerId) -> Seat {
        self.lock().enter(peer, Instant::now());
        Seat { turns: self.clone(), peer }
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of a peer, until it is dropped.
pub(super) struct Seat {
    turns: Turns,
    peer: PeerId,
}

impl Seat {
    /// Whether it is this peer's turn, or how long to wait before it is asked again.
    ///
    /// # Errors
    /// The time.
    pub(super) fn turn(&self, now: Instant) -> Result<(), Duration> {
        self.turns.lock().turn(self.peer, now)
    }

    /// It took so many bytes.
    pub(super) fn took(&self, bytes: u64, now: Instant) {
        self.turns.lock().took(self.peer, bytes, now);
    }

    /// It waits for its turn, until what this gives is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.turns.lock().waits(self.peer);
        Waiting(self)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.turns.lock().leave(self.peer);
    }
}

/// A thread that waits for its peer's turn.
pub(super) struct Waiting<'a>(&'a Seat);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.turns.lock().waits_no_more(self.0.peer);
    }
}
