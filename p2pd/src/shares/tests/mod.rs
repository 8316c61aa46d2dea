//! The shares as a whole, with real directories and a real catalog.

mod added;
mod disks;
mod downloads;
mod files;
mod hostile;
mod many;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::Visibility;
use p2p_service::tasks::Tasks;
use tempfile::TempDir;

use super::room::Room;
use super::{
    AddError, DownloadDir, OpenError, PlayedDisk, PublishError, ReadyFile, RemoveError, ShareConfig,
    ShareError, ShareState, Shares, Timing,
};
use crate::catalog::{Catalog, Changed, Fact, ListQuery, Viewer};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A share in a directory of its own, and a catalog that outlives the shares.
struct House {
    dir: TempDir,
    catalog: Catalog,
    tasks: Tasks,
    shares: Shares,
}

impl House {
    /// With an empty share that is scanned and watched.
    async fn new() -> House {
        House::timed(fast()).await
    }

    async fn timed(timing: Timing) -> House {
        let house = House::with(|_| {}, timing).await;
        house.shares.refresh().await.unwrap();
        house
    }

    /// `prepare` is given the shared directory before anything looks at it.
    async fn with(prepare: impl FnOnce(&Path), timing: Timing) -> House {
        House::with_room(prepare, timing, Room::default()).await
    }

    async fn with_room(prepare: impl FnOnce(&Path), timing: Timing, room: Room) -> House {
        let dir = tempfile::tempdir().unwrap();
        for made in ["share", "state"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        prepare(&dir.path().join("share"));
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).unwrap();
        let tasks = Tasks::new();
        let state = dir.path().join("state");
        let shares = Shares::start_with(configs(dir.path()), &state, catalog.clone(), &tasks, timing, room);
        let shares = shares.await.unwrap();
        House { dir, catalog, tasks, shares }
    }

    /// Ends the shares, and starts them again on what is on the disk.
    async fn restart(mut self, meanwhile: impl FnOnce(&Path)) -> House {
        assert!(self.tasks.shutdown(DEADLINE).await, "the shares did not end");
        drop((self.shares, self.catalog));
        meanwhile(&self.dir.path().join("share"));
        self.tasks = Tasks::new();
        self.catalog = Catalog::open(&self.dir.path().join("catalog.sqlite")).unwrap();
        let (configs, state) = (configs(self.dir.path()), self.dir.path().join("state"));
        self.shares =
            Shares::start(configs, &state, self.catalog.clone(), &self.tasks, fast()).await.unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("share").join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn fact(&self, name: &str) -> Option<Fact> {
        self.catalog.find_name(name, Viewer::Own).await.unwrap().pop()
    }

    async fn content(&self, name: &str) -> Option<ContentHash> {
        self.fact(name).await.map(|fact| fact.content)
    }

    async fn names(&self) -> Vec<String> {
        let query = ListQuery {
            prefix: None,
            text: None,
            share: None,
            viewer: Viewer::Own,
            after: None,
            limit: u32::MAX,
        };
        self.catalog.list(query).await.unwrap().into_iter().map(|fact| fact.name.into()).collect()
    }

    /// Waits until the catalog has exactly these files, and says how long that took.
    async fn has(&self, names: &[&str]) -> Duration {
        let start = Instant::now();
        loop {
            let found = self.names().await;
            if found == names {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < DEADLINE,
                "expected {names:?} and found {found:?}; {:?}",
                self.shares.rows()
            );
            self.pause().await;
        }
    }

    async fn has_content(&self, name: &str, bytes: impl AsRef<[u8]>) -> Duration {
        let (start, expected) = (Instant::now(), ContentHash::of(bytes.as_ref()));
        while self.content(name).await != Some(expected) {
            assert!(start.elapsed() < DEADLINE, "{name} does not get its content; {:?}", self.shares.rows());
            self.pause().await;
        }
        start.elapsed()
    }

    /// Waits until the share is available or not.
    async fn is_available(&self, available: bool) {
        let start = Instant::now();
        while self.shares.rows()[0].unavailable.is_none() != available {
            assert!(start.elapsed() < DEADLINE, "{:?}", self.shares.rows());
            self.pause().await;
        }
    }

    /// The next change of the catalog, or a moment.
    async fn pause(&self) {
        let mut last = self.catalog.watch();
        let _ = tokio::time::timeout(Duration::from_millis(20), last.changed()).await;
    }

    /// All that was ever told of a file since `sequence`: what a maestro would hear by polling.
    async fn announced(&self, sequence: u64) -> Vec<Changed> {
        let changes = self.catalog.changes_after(sequence, u32::MAX).await.unwrap();
        assert!(changes.complete);
        changes.changes.into_iter().map(|change| change.what).collect()
    }
}

fn configs(dir: &Path) -> Vec<ShareConfig> {
    vec![ShareConfig {
        name: "docs".to_owned(),
        path: dir.join("share"),
        visible: Visibility::Network,
        downloads: true,
        added: false,
    }]
}

/// The default times, but for what a test would only wait for.
fn fast() -> Timing {
    Timing { probe: Duration::from_millis(200), ..Timing::default() }
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}
