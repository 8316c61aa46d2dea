//! How the shares stand, looked at now and from where this program stands: for whoever asks what is wrong.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use p2p_proto::control::Watches;

use super::fitness::{self, Unfit};
use super::looks::Aim;
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
            let at = row.path.clone();
            let look = move || fitness::try_out(&path, links, writes);
            let tried = self.looks.at(&at, Aim::Fitness, DEADLINE, look).await;
            (row, tried.unwrap_or_else(|| Err(Unfit::Other(io::ErrorKind::TimedOut.into()))))
        });
        futures::future::join_all(examined).await
    }

    /// What it takes to be told of changes.
    pub async fn watches(&self) -> Watches {
        let board = std::sync::Arc::clone(&self.board.borrow());
        let short = board.iter().any(|posted| posted.short);
        let paths: Vec<_> =
            board.iter().filter(|posted| posted.place.is_ok()).map(|posted| posted.path.clone()).collect();
        let count = move || {
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
        };
        self.looks.at(Path::new("/"), Aim::Watches, 2 * COUNTING, count).await.unwrap_or_default()
    }

    /// The share in which fetched files land, and how many bytes can be written there, or why none.
    pub async fn room_for_downloads(&self) -> (String, Result<u64, String>) {
        let dir = self.downloads();
        let share = dir.share().to_owned();
        let row = self.rows().into_iter().find(|row| row.name == share);
        let path = row.map(|row| row.path).unwrap_or_default();
        let look = move || dir.free_bytes().map_err(|error| error.to_string());
        let free = self.looks.at(&path, Aim::Room, DEADLINE, look).await;
        (share, free.unwrap_or_else(|| Err(format!("{} does not answer", path.display()))))
    }
}
