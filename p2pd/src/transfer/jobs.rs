//! All transfers: which there are, and whose turn it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_proto::control::{Priority, Transfer, TransferState};
use p2p_service::tasks::Tasks;
use tokio::sync::{oneshot, watch};

use super::job::Job;
use super::leftovers;
use super::queue::Queue;
use super::sink;
use super::store::{ENDED_KEPT, Store, StoreError, Terms};
use super::story::{self, AskedBy};
use super::swarm::Swarms;
use super::tree;
use crate::catalog::Viewer;
use crate::discovery::{Connections, Locator, Myself};
use crate::limits::Limits;
use crate::shares::Shares;

/// What of the configuration transfers follow; may change while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferSettings {
    /// Whether files of plain peers, for which nobody vouches, are fetched.
    pub allow_unproven: bool,
    /// Bytes that stay free on the disk of the downloads.
    pub reserve_bytes: u64,
}

/// The transfers. Clones are handles to the same.
#[derive(Clone)]
pub struct Transfers {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) myself: Arc<Myself>,
    pub(super) swarms: Swarms,
    pub(super) limits: Limits,
    pub(super) locator: Locator,
    pub(super) connections: Connections,
    pub(super) shares: Shares,
    pub(super) catalog: crate::catalog::Catalog,
    pub(super) settings: watch::Receiver<TransferSettings>,
    pub(super) tasks: Tasks,
    pub(super) queue: Queue,
    /// Held from the look at what there is to the beginning of a transfer: two who ask at once get the same one.
    pub(super) beginning: tokio::sync::Mutex<()>,
    /// Held while what failed transfers left is given to another one, or back.
    pub(super) leftovers: tokio::sync::Mutex<()>,
    pub(super) jobs: Mutex<BTreeMap<u64, Arc<Job>>>,
}

impl Shared {
    /// The transfer of this number.
    pub(super) fn job(&self, id: u64) -> Option<Arc<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Does this to its end, whatever becomes of who asked for it: what is awaited in a request is dropped where its client
    /// goes away, and half of a change is worse than none.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn_detached("a change of a transfer", async move {
            // Nobody may be there any more.
            let _ = tell.send(work.await);
        });
        told.await.map_err(|_| StoreError::Ending)
    }

    /// The file under this name in the downloads, where it has this content.
    pub(super) async fn under(&self, name: &FileName, content: ContentHash) -> Option<(PathBuf, Manifest)> {
        let dir = self.shares.downloads();
        let facts = self.catalog.find_name(name.as_str(), Viewer::Own).await.ok()?;
        facts.iter().find(|fact| fact.share == dir.share() && fact.content == content)?;
        let manifest = self.catalog.manifest(content).await.ok()??;
        Some((dir.absolute(name), manifest))
    }
}

/// Why a transfer was not cancelled, paused or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is none of that number.
    #[error("there is no transfer {0}")]
    Unknown(u64),
    /// It is over.
    #[error("transfer {0} has ended")]
    Ended(u64),
}

impl Transfers {
    /// Reads what is remembered, and goes on with what has not ended; `running` at once at the most.
    #[allow(
        clippy::too_many_arguments,
        reason = "one caller, which hands over the rooms that transfers stand on"
    )]
    pub async fn start(
        store: Store,
        myself: Arc<Myself>,
        swarms: Swarms,
        limits: Limits,
        locator: Locator,
        connections: Connections,
        shares: Shares,
        catalog: crate::catalog::Catalog,
        settings: watch::Receiver<TransferSettings>,
        running: usize,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let kept = store.all().await?;
        let shared = Arc::new(Shared {
            store,
            myself,
            swarms,
            limits,
            locator,
            connections,
            shares,
            catalog,
            settings,
            tasks: tasks.clone(),
            queue: Queue::of(running),
            beginning: tokio::sync::Mutex::default(),
            leftovers: tokio::sync::Mutex::default(),
            jobs: Mutex::default(),
        });
        let mut jobs: Vec<_> = kept.into_iter().map(|kept| Job::new(kept.transfer, kept.terms)).collect();
        // They come to the line one after the other: none is to begin only to yield to the next.
        jobs.sort_by_key(|job| (Reverse(job.snapshot().priority), job.id));
        let open: Vec<_> = jobs.iter().filter(|job| !job.snapshot().state.is_ended()).collect();
        let parts = tree::part_keys(&shared.store, &open).await?;
        let mut keys = leftovers::part_keys(&shared.store).await?;
        keys.extend(open.iter().filter_map(|job| job.part_key()));
        if let Err(error) = sink::discard_all_but(shared.shares.downloads(), keys, parts).await {
            tracing::info!(%error, "unfinished files were not looked through: {error}");
        }
        let (queue, token) = (shared.queue.clone(), tasks.token());
        tasks.spawn("queue", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = queue.tell_places() => {}
            }
            Ok(())
        });
        let (left, token) = (Arc::clone(&shared), tasks.token());
        tasks.spawn("leftovers", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = leftovers::look_after(left) => {}
            }
            Ok(())
        });
        let transfers = Self { shared };
        for job in jobs {
            if !job.snapshot().state.is_ended() {
                story::goes_on(&job.snapshot());
            }
            transfers.enter(job);
        }
        Ok(transfers)
    }

    /// All that are remembered, the newest first.
    pub fn list(&self) -> Vec<Transfer> {
        self.lock().values().rev().map(|job| job.snapshot()).collect()
    }

    /// The one of this number.
    pub fn get(&self, id: u64) -> Option<Transfer> {
        self.lock().get(&id).map(|job| job.snapshot())
    }

    /// What becomes of the one of this number.
    pub fn watch(&self, id: u64) -> Option<watch::Receiver<Transfer>> {
        self.lock().get(&id).map(|job| job.watch())
    }

    /// How many are not ended, and how many bytes come in per second.
    pub fn under_way(&self) -> (u64, u64) {
        let jobs = self.lock();
        let open = jobs.values().filter_map(|job| job.rate());
        open.fold((0, 0), |(count, sum), rate| (count + 1, sum + rate))
    }

    /// Ends a transfer. What is there of its file is removed.
    pub async fn cancel(&self, id: u64, by: &AskedBy) -> Result<Transfer, ChangeError> {
        let job = self.lock().get(&id).cloned().ok_or(ChangeError::Unknown(id))?;
        if job.snapshot().state.is_ended() {
            return Err(ChangeError::Ended(id));
        }
        let mut known = job.watch();
        story::cancel_asked(&job.snapshot(), by);
        job.cancel();
        // The daemon may stop meanwhile; the transfer then is as it was.
        let _ = known.wait_for(|transfer| transfer.state.is_ended()).await;
        Ok(job.snapshot())
    }

    /// Pauses a transfer until it is resumed, over restarts too; or resumes it. What is there of its file stays.
    ///
    /// # Errors
    /// Where it has ended, or there is none.
    pub async fn hold(&self, id: u64, held: bool, by: &AskedBy) -> Result<Transfer, ChangeError> {
        let job = self.lock().get(&id).cloned().ok_or(ChangeError::Unknown(id))?;
        let before = job.snapshot();
        if before.state.is_ended() {
            return Err(ChangeError::Ended(id));
        }
        // Of two who say different things at once the later one holds.
        if before.held != held || job.is_to_be_held() != held {
            story::held(&before, held, by);
            let (shared, job) = (Arc::clone(&self.shared), Arc::clone(&job));
            // Where the daemon is ending, it may not be written down: that is as if it had come too late.
            let _ = self.shared.to_its_end(async move { job.hold(&shared, held).await }).await;
        }
        if held {
            // What runs puts its things in order first. It may also have come to its end meanwhile.
            let mut known = job.watch();
            // Or somebody else has resumed it.
            let is_still = |transfer: &Transfer| transfer.state != TransferState::Running || !transfer.held;
            let _ = known.wait_for(is_still).await;
        }
        Ok(job.snapshot())
    }

    /// Gives a transfer another priority, over restarts too. One of higher priority that waits makes one of lower
    /// priority that runs yield its turn.
    ///
    /// # Errors
    /// Where it has ended, or there is none.
    pub async fn prioritize(
        &self,
        id: u64,
        priority: Priority,
        by: &AskedBy,
    ) -> Result<Transfer, ChangeError> {
        let job = self.shared.job(id).ok_or(ChangeError::Unknown(id))?;
        let before = job.snapshot();
        if before.state.is_ended() {
            return Err(ChangeError::Ended(id));
        }
        if before.priority != priority || job.priority_to_be() != priority {
            story::prioritized(&before, priority, by);
            let (shared, job) = (Arc::clone(&self.shared), Arc::clone(&job));
            let _ = self.shared.to_its_end(async move { job.prioritize(&shared, priority).await }).await;
        }
        match job.snapshot() {
            // It came to its end meanwhile.
            after if after.state.is_ended() => Err(ChangeError::Ended(id)),
            after => Ok(after),
        }
    }

    /// So many run at once from now on, at least one: where it is fewer, the last ones yield.
    pub fn set_running(&self, running: usize) {
        self.shared.queue.set_running(running);
    }

    /// Remembers a new transfer, and starts it if it has not ended.
    pub(super) async fn begin(
        &self,
        transfer: Transfer,
        terms: Terms,
        by: &AskedBy,
    ) -> Result<Transfer, StoreError> {
        let transfer = self.shared.store.add(transfer, terms.clone()).await?;
        if !transfer.state.is_ended() {
            story::begins(&transfer, by);
            if let Some(content) = transfer.content.as_deref().and_then(|text| text.parse().ok()) {
                leftovers::hand_over(&self.shared, content, transfer.id).await;
            }
        }
        self.enter(Job::new(transfer.clone(), terms));
        Ok(transfer)
    }

    pub(super) fn enter(&self, job: Job) {
        let ended = job.snapshot().state.is_ended();
        let job = Arc::new(job);
        {
            let mut jobs = self.lock();
            jobs.insert(job.id, Arc::clone(&job));
            forget_old(&mut jobs);
        }
        if !ended {
            self.shared.tasks.spawn_detached("transfer", job.run(Arc::clone(&self.shared)));
        }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Job>>> {
        self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the oldest of those that have ended, as the database does.
fn forget_old(jobs: &mut BTreeMap<u64, Arc<Job>>) {
    let kept = ENDED_KEPT as usize;
    if jobs.len() <= kept {
        return;
    }
    let ended: Vec<u64> = jobs.values().filter(|job| job.rate().is_none()).map(|job| job.id).collect();
    for old in ended.iter().rev().skip(kept) {
        jobs.remove(old);
    }
}
