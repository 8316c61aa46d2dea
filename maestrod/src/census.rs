//! What the directory holds, in numbers: for `GET /status`, `GET /metrics` and `maestrod status`.
//!
//! Most is told by the store at once. Counting different contents means going through all of them, so a loop does it in
//! steps now and then, and everybody gets what it last found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_service::health::PATIENCE;
use p2p_service::tasks::{TaskResult, Tasks};
use tokio::sync::watch;

use crate::directory::{Directory, DirectoryError, Holdings};
use crate::presence::Presence;

/// The least time between two counts.
const EVERY: Duration = Duration::from_secs(5);
/// Of the time, counting takes one part in this many at the most.
const SHARE: u32 = 50;

/// What there is now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Peers with an open stream.
    pub(crate) connected: u64,
    /// What the store says.
    pub(crate) held: Holdings,
    /// Different contents, as last counted. `None`: not yet.
    pub(crate) contents: Option<u64>,
}

/// Who knows the numbers.
#[derive(Clone)]
pub(crate) struct Census {
    directory: Arc<dyn Directory>,
    presence: Presence,
    contents: watch::Receiver<Option<u64>>,
}

impl Census {
    /// Starts the loop that counts.
    pub(crate) fn start(directory: Arc<dyn Directory>, presence: Presence, tasks: &Tasks) -> Census {
        let (found, contents) = watch::channel(None);
        tasks.spawn("census", keep_counting(Arc::clone(&directory), found, tasks.clone()));
        Census { directory, presence, contents }
    }

    /// What there is now.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub(crate) async fn standing(&self) -> Result<Standing, DirectoryError> {
        let held = self.directory.holdings().await?;
        // During the shutdown nobody is connected any more.
        let connected = self.presence.count().await.unwrap_or(0);
        Ok(Standing { connected, held, contents: *self.contents.borrow() })
    }
}

async fn keep_counting(
    directory: Arc<dyn Directory>,
    found: watch::Sender<Option<u64>>,
    tasks: Tasks,
) -> TaskResult {
    let (token, heart) = (tasks.token(), tasks.heartbeat("census", PATIENCE));
    let mut pause = Duration::ZERO;
    let mut counted_at = None;
    loop {
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until {
            heart.beat();
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(until) => {}
                () = heart.due() => {}
            }
        }
        let began = Instant::now();
        let counted = async {
            let changes = directory.holdings().await?.changes;
            if counted_at == Some(changes) {
                return Ok(None);
            }
            let (mut count, mut after) = (0, None);
            loop {
                heart.beat();
                let (more, next) = directory.count_contents(after).await?;
                count += more;
                after = next;
                if after.is_none() || token.is_cancelled() {
                    return Ok(Some((changes, count)));
                }
            }
        };
        match counted.await {
            Ok(Some((changes, count))) => {
                counted_at = Some(changes);
                found.send_replace(Some(count));
            }
            // Of a database that cannot be reached the store tells once.
            Ok(None) | Err(DirectoryError::Unavailable(_)) => {}
            Err::<_, DirectoryError>(error) => {
                tracing::warn!(%error, "cannot count the contents of the directory: {error}");
            }
        }
        pause = (began.elapsed() * SHARE).max(EVERY);
    }
}
