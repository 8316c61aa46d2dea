//! What is on its way in and out: how much of it is held for those who begin a message and do not end it, or ask and do not
//! read the answer, and for how long.
//!
//! Short ones pass. The long ones of all callers together have so much room: an answer that finds none is refused, a message
//! waits for its place before more of it is read. Called by the edges, `grpc` and `rest`, and by the composition.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod incoming;
mod outgoing;

pub(crate) use incoming::Incoming;
pub(crate) use outgoing::Outgoing;

/// A message or an answer of at most so many bytes takes no room.
const SHORT: usize = 32 * 1024;
/// Bytes of long ones in one direction, at the most.
const ROOM: usize = 96 << 20;
/// How long a place is kept while nothing moves, and how long somebody waits for one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The room for one direction. Clones are the same room.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    /// In KiB.
    places: Arc<Semaphore>,
    patience: Duration,
}

/// The place of one answer; free again when the last clone of it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
    patience: Duration,
}

/// There is no room for an answer.
#[derive(Debug, thiserror::Error)]
#[error("answers that others asked for and do not read fill the room for them; try again later")]
pub(crate) struct NoRoom;

impl Room {
    pub(crate) fn new() -> Room {
        Room::with_patience(PATIENCE)
    }

    fn with_patience(patience: Duration) -> Room {
        Room { places: Arc::new(Semaphore::new(ROOM / 1024)), patience }
    }

    /// A place for an answer of so many bytes; `None`: it needs none.
    pub(crate) fn place(&self, bytes: usize) -> Result<Option<Place>, NoRoom> {
        if bytes <= SHORT {
            return Ok(None);
        }
        let permit = Arc::clone(&self.places).try_acquire_many_owned(kib(bytes)).map_err(|_| NoRoom)?;
        Ok(Some(Place { _permit: Arc::new(permit), patience: self.patience }))
    }
}

/// No answer is larger than all of the room, and one that is must still find a place.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.min(ROOM) / 1024).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
