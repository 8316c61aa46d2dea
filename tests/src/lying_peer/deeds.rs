//! What was asked of a lying peer, and how it answered: what others made of it is held against this.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Conduct;

/// What somebody asked of a [`LyingPeer`](super::LyingPeer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A manifest.
    Manifest,
    /// What it has, told for as long as the asker listens.
    Availability,
    /// The bytes of one of its files, from this offset on.
    Bytes(u64),
}

/// One thing that was asked, and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Deed {
    /// What.
    pub asked: Asked,
    /// The conduct that the answer shows: [`Conduct::Honest`] where it is as it should be, and at full speed.
    pub conduct: Conduct,
    /// When the answer, or the lie in it, was given to its end; `None`: it was not.
    pub ended: Option<Instant>,
}

/// All of them, in the order in which they were asked.
#[derive(Debug, Default)]
pub(super) struct Deeds(Mutex<Vec<Deed>>);

impl Deeds {
    /// Something is asked. Its number.
    pub(super) fn begin(&self, asked: Asked) -> usize {
        let mut all = self.lock();
        all.push(Deed { asked, conduct: Conduct::Honest, ended: None });
        all.len() - 1
    }

    /// The answer shows this conduct.
    pub(super) fn shows(&self, number: usize, conduct: Conduct) {
        if let Some(deed) = self.lock().get_mut(number) {
            deed.conduct = conduct;
        }
    }

    /// The answer was given to its end.
    pub(super) fn ends(&self, number: usize) {
        if let Some(deed) = self.lock().get_mut(number) {
            deed.ended = Some(Instant::now());
        }
    }

    pub(super) fn all(&self) -> Vec<Deed> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Deed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
