//! Which shares there are and whether they are available: the part of the loop that takes a configuration and what is
//! found of the shares' directories.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::kept::Kept;
use super::presence::{self, Probed};
use super::root::{Identity, Place};
use super::watch::Watch;
use super::{ShareConfig, ShareError};
use crate::catalog::{CatalogError, ShareRecord};

/// How long a directory may take to answer before the daemon goes on without it.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

impl Keeper {
    /// Takes a configuration: who may see what, and which directories there are.
    pub(super) async fn configure(&mut self, configs: Vec<ShareConfig>) -> Result<(), ShareError> {
        let names = configs.iter().map(|config| config.name.clone()).collect();
        self.catalog.hide_shares_except(names).await?;
        let mut before = std::mem::take(&mut self.shares);
        // A catalog that fails takes no share away: the others are gone through all the same.
        let mut failed = None;
        for config in configs {
            let same = |kept: &Kept| {
                let (was, is) = (&kept.config, &config);
                was.name == is.name && was.path == is.path && was.added == is.added
            };
            match before.iter().position(same) {
                Some(at) => {
                    let mut kept = before.swap_remove(at);
                    kept.config = config;
                    self.shares.push(kept);
                    let recorded = self.record(self.shares.len() - 1).await;
                    failed = failed.or(recorded.map_err(ShareError::from).err());
                }
                None => {
                    let kept = Kept::new(self.next_id(), config, &self.timing, Instant::now());
                    self.shares.push(kept);
                    failed = failed.or(self.look_for(self.shares.len() - 1).await.err());
                }
            }
        }
        for gone in before {
            self.workers.cancel_share(gone.id);
            self.refreshes.lost(gone.id);
        }
        self.post();
        failed.map_or(Ok(()), Err)
    }

    /// Finds out whether a share's directory is there, and waits for that, but not for ever.
    async fn look_for(&mut self, at: usize) -> Result<(), ShareError> {
        let kept = &self.shares[at];
        let (path, name, catalog) = (kept.path.clone(), Arc::clone(&kept.name), self.catalog.clone());
        let links = kept.config.links();
        let probe = tokio::task::spawn_blocking(move || presence::probe(&path, links, &name, &catalog));
        match tokio::time::timeout(PROBE_DEADLINE, probe).await {
            Ok(probed) => self.judge(at, &probed??).await?,
            Err(_) => {
                let reason = format!("{} does not answer", self.shares[at].path.display());
                self.disappear(at, reason).await?;
            }
        }
        self.shares[at].next_probe = Instant::now() + self.timing.probe;
        Ok(())
    }

    pub(super) async fn judge(&mut self, at: usize, probed: &Probed) -> Result<(), CatalogError> {
        let kept = &self.shares[at];
        match (presence::judge(&kept.path, probed), &kept.place) {
            (Ok(identity), Ok(place)) if place.identity == identity => Ok(()),
            (Err(reason), Err(known)) if *reason == **known => Ok(()),
            (Ok(identity), _) => self.appear(at, identity).await,
            (Err(reason), _) => self.disappear(at, reason).await,
        }
    }

    /// A share's directory is there, or another one is.
    async fn appear(&mut self, at: usize, identity: Identity) -> Result<(), CatalogError> {
        let id = self.next_id();
        let kept = &mut self.shares[at];
        let (share, path) = (&*kept.name, kept.path.display());
        tracing::info!(share, %path, "the share {share} is available: {path}");
        let place = Place { path: kept.path.clone(), links: kept.config.links(), identity };
        let watch = Watch::new(&kept.path, id, self.hint_sender.clone());
        self.begin_life(at, id, Ok(place), Some(Arc::new(watch)));
        self.record(at).await
    }

    /// A share's directory can't be used.
    async fn disappear(&mut self, at: usize, reason: String) -> Result<(), CatalogError> {
        let id = self.next_id();
        let share = &*self.shares[at].name;
        tracing::warn!(
            share,
            reason,
            "the share {share} is not available, and its files are hidden until it is: {reason}"
        );
        self.begin_life(at, id, Err(reason.into()), None);
        self.record(at).await
    }

    fn begin_life(&mut self, at: usize, id: u64, place: Result<Place, Arc<str>>, watch: Option<Arc<Watch>>) {
        let kept = &mut self.shares[at];
        self.workers.cancel_share(kept.id);
        self.refreshes.lost(kept.id);
        kept.begin_life(id, place, watch, &self.timing);
        kept.next_rescan = Instant::now() + self.timing.rescan;
    }

    /// Tells the catalog who may see a share and whether it is there.
    async fn record(&mut self, at: usize) -> Result<(), CatalogError> {
        let kept = &self.shares[at];
        let place = kept.place.as_ref().ok();
        let record = ShareRecord {
            name: kept.name.to_string(),
            visible: kept.config.visible,
            available: place.is_some(),
            root: place.map(|place| (place.identity.device, place.identity.inode)),
        };
        self.catalog.set_share(record).await?;
        Ok(())
    }
}
