//! What is on its way in and out: how much of it is held for those who begin a message and do not end it, or ask and do not
//! read the answer, and for how long.
//!
//! Short ones pass. The long ones of all callers together have so much room: an answer that finds none is refused, or waited
//! for where it is not made yet; a message waits for its place before more of it is read. Where the room is full, those give
//! way who do not move. Called by the daemons' edges and compositions, which say how much room there is.

use std::time::Duration;

mod incoming;
mod outgoing;

pub use incoming::{Incoming, Known, MessagePlace, MessageRoom};
pub use outgoing::{AnswerRoom, NoRoom, Outgoing, Place, held_out, placed};

/// A message or an answer of at most so many bytes takes no room.
const SHORT: usize = 32 * 1024;
/// How long a place is kept while nothing moves, and how long somebody waits for one.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
