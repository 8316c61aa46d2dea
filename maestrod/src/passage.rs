//! What is on its way in and out: how much of it is held for those who begin a message and do not end it, or ask and do not
//! read the answer, and for how long.
//!
//! Short ones pass. The long ones of all callers together have so much room: an answer that finds none is refused, a message
//! waits for its place before more of it is read. Where the room is full, those give way who do not move. Called by the
//! edges, `grpc` and `rest`, and by the composition.

use std::time::Duration;

mod incoming;
mod outgoing;

pub(crate) use incoming::{Incoming, Known, MessageRoom};
pub(crate) use outgoing::{AnswerRoom, Outgoing, Place};

/// A message or an answer of at most so many bytes takes no room.
const SHORT: usize = 32 * 1024;
/// Bytes of long messages that are held at once…
const MESSAGES: usize = 96 << 20;
/// … and of long answers at each edge. The buffer that one was written into may be half as large again.
const ANSWERS: usize = 48 << 20;
/// How long a place is kept while nothing moves, and how long somebody waits for one.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
