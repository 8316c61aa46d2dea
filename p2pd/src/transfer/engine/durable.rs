//! When a run makes its bitmap durable: now and then while it grows, and at the end of the run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::Bitmap;
use tokio::task::JoinSet;

use crate::transfer::sink::{Sink, SinkError};

/// Bytes, and time, after which the bitmap is made durable.
const REMEMBER_LEN: u64 = 64 << 20;
const REMEMBER_EVERY: Duration = Duration::from_secs(1);
/// Bytes below which a flush costs more than what it leaves to be done at the end.
const LEAST_LEN: u64 = 8 << 20;

/// When the bitmap was last made durable, and the task that does it.
pub(super) struct Durable {
    pub(super) task: JoinSet<Result<(), SinkError>>,
    since: Instant,
    len: u64,
}

impl Durable {
    pub(super) fn new() -> Self {
        Self { task: JoinSet::new(), since: Instant::now(), len: 0 }
    }

    pub(super) fn wrote(&mut self, len: u64) {
        self.len += len;
    }

    /// Starts to make what is written durable, where enough has come together; one at a time. Of what is missing less is
    /// enough towards the end: the file gets its name once all of it is on the disk, and nothing else is done while
    /// that is waited for.
    pub(super) fn go_on(&mut self, sink: &Arc<Sink>, pieces: &Bitmap, missing_len: u64) {
        let enough_len = missing_len.clamp(LEAST_LEN, REMEMBER_LEN);
        let enough = self.len >= enough_len || (self.len > 0 && self.since.elapsed() >= REMEMBER_EVERY);
        if enough && self.task.is_empty() {
            let (sink, pieces) = (Arc::clone(sink), pieces.clone());
            self.task.spawn(async move { sink.remember(pieces).await });
            (self.since, self.len) = (Instant::now(), 0);
        }
    }

    /// Makes all that is written durable, before the run ends.
    ///
    /// # Errors
    /// Where it may be lost: the pieces that are not remembered are emptied then, and no longer to be given to anybody.
    pub(super) async fn settle(&mut self, sink: &Arc<Sink>, pieces: &Bitmap) -> Result<(), SinkError> {
        // Where that one fails, so does the next.
        while self.task.join_next().await.is_some() {}
        let remembered = sink.remember(pieces.clone()).await;
        if let Err(error) = &remembered {
            let id = sink.id();
            tracing::warn!(transfer_id = id, %error, "what is here of transfer {id} could not be remembered: {error}");
        }
        remembered
    }
}
