//! How the shares stand, looked at now and from where this program stands: for whoever asks what is wrong.

use std::time::{Duration, Instant};

use p2p_proto::control::Watches;

use super::fitness::{self, Unfit};
use super::{ShareConfig, ShareState, Shares};

/// How long one directory may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the directories of a share are counted.
const COUNTING: Duration = Duration::from_secs(5);

impl Shares {
    /// Tries each share out: whether it can be read, and where fetched files land also written.
    pub async fn examine(&self) -> Vec<(ShareState, Result<(), Unfit>)> {
        let examined = self.rows().into_iter().map(async |row| {
            let (path, links) = (row.path.clone(), ShareConfig::links_of(row.added));
            let writes = row.downloads;
            let tried = tokio::task::spawn_blocking(move || fitness::try_out(&path, links, writes));
            let tried = match tokio::time::timeout(DEADLINE, tried).await {
                Ok(Ok(tried)) => tried,
                Ok(Err(error)) => Err(Unfit::Other(std::io::Error::other(error))),
                Err(_) => Err(Unfit::Other(std::io::ErrorKind::TimedOut.into())),
            };
            (row, tried)
        });
        futures::future::join_all(examined).await
    }

    /// What it takes to be told of changes.
    pub async fn watches(&self) -> Watches {
        let board = std::sync::Arc::clone(&self.board.borrow());
        let short = board.iter().any(|posted| posted.short);
        let paths: Vec<_> =
            board.iter().filter(|posted| posted.place.is_ok()).map(|posted| posted.path.clone()).collect();
        let counted = tokio::task::spawn_blocking(move || {
            let held = fitness::watches_held();
            // Where none was refused, each directory has its own.
            let needed = match short {
                false => held,
                true => {
                    let until = Instant::now() + COUNTING;
                    paths.iter().map(|path| fitness::directories_in(path, until)).sum::<u64>().max(held)
                }
            };
            Watches { needed, held, short }
        });
        counted.await.unwrap_or_default()
    }
}
