//! One transfer: what is known of it, and the loop that brings it to its end.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_proto::control::{Priority, Transfer, TransferState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::engine;
use super::gauge::{Gauge, Phase};
use super::jobs::Shared;
use super::leftovers;
use super::outcome::Outcome;
use super::plain;
use super::queue::Spot;
use super::sink;
use super::store::Terms;
use super::story;
use super::swarm::Serving;
use super::tree;
use crate::discovery::{PeerRef, now_ms};

mod finding;
mod length;
mod sources;
mod turn;

/// Pauses between looks for a source, or for room on the disk.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(15);
/// How often what is known is written down while bytes arrive.
const STORED_EVERY: Duration = Duration::from_secs(2);

/// A transfer.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) terms: Terms,
    /// The directory's transfer that this one is a part of.
    part_of: Option<Arc<Job>>,
    /// Bytes of the disk that the short files of a directory are to have before the long ones.
    claimed: AtomicU64,
    /// Long files of a directory that have proven to be short ones in this run.
    shorter: Mutex<HashSet<(FileName, ContentHash)>>,
    known: watch::Sender<Transfer>,
    /// What is to be written down before it is shown.
    ahead: Mutex<Ahead>,
    held: watch::Sender<bool>,
    cancel: CancellationToken,
    /// What it spends its time with.
    pub(super) gauge: Gauge,
    /// What the log was told of each source: nothing but that it is asked, or why it was lost.
    said: Mutex<HashMap<String, String>>,
    /// How many times each source did not have what it told of, since it last gave something.
    unkept: Mutex<HashMap<String, u32>>,
    /// Others that fetch the same, as sources spoke of them: who fetches is in no directory.
    fetchers: Mutex<Vec<PeerRef>>,
    /// Sources that gave what does not prove itself, while nobody has proven how long the content is.
    suspects: Mutex<Vec<length::Suspect>>,
    /// How long it ran in this run of the daemon, and how much of it was there before.
    ran: Mutex<Duration>,
    done_before: u64,
}

/// What of a transfer is written down before it is shown: who sees it can rely on it. Several may change it at once, and
/// what each writes has what all of them changed before.
struct Ahead {
    /// Of what is written next. The store keeps the newest, in whatever order they come to it.
    version: u64,
    /// The state that it gets, and why.
    state: Option<(TransferState, Option<String>)>,
    priority: Priority,
    held: bool,
}

impl Job {
    pub(super) fn new(transfer: Transfer, terms: Terms) -> Self {
        Self {
            id: transfer.id,
            terms,
            part_of: None,
            claimed: AtomicU64::new(0),
            shorter: Mutex::default(),
            done_before: transfer.done_bytes,
            held: watch::Sender::new(transfer.held),
            ahead: Mutex::new(Ahead {
                version: 0,
                state: None,
                priority: transfer.priority,
                held: transfer.held,
            }),
            known: watch::Sender::new(transfer),
            cancel: CancellationToken::new(),
            gauge: Gauge::default(),
            said: Mutex::default(),
            unkept: Mutex::default(),
            fetchers: Mutex::default(),
            suspects: Mutex::default(),
            ran: Mutex::default(),
        }
    }

    /// The transfer of one long file of a directory.
    pub(super) fn part(transfer: Transfer, terms: Terms, of: Arc<Job>) -> Self {
        Self { part_of: Some(of), ..Self::new(transfer, terms) }
    }

    /// So many bytes of the disk are for a directory's short files.
    pub(super) fn claim(&self, bytes: u64) {
        self.claimed.store(bytes, Relaxed);
    }

    /// So many more: a file is longer than was told.
    pub(super) fn claim_more(&self, bytes: u64) {
        self.claimed.fetch_add(bytes, Relaxed);
    }

    /// So many less: they are used, or not needed.
    pub(super) fn unclaim(&self, bytes: u64) {
        let _ = self.claimed.fetch_update(Relaxed, Relaxed, |claimed| Some(claimed.saturating_sub(bytes)));
    }

    /// What others of the same directory are to have before this one.
    pub(super) fn claimed_before(&self) -> u64 {
        self.part_of.as_ref().map_or(0, |of| of.claimed.load(Relaxed))
    }

    pub(super) fn snapshot(&self) -> Transfer {
        self.known.borrow().clone()
    }

    /// Bytes that come in per second; `None` where it has ended.
    pub(super) fn rate(&self) -> Option<u64> {
        let known = self.known.borrow();
        (!known.state.is_ended()).then_some(known.rate)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Transfer> {
        self.known.subscribe()
    }

    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Pauses it, or lets it go on. It is written down before it takes effect.
    pub(super) async fn hold(&self, shared: &Shared, held: bool) {
        self.ahead().held = held;
        self.store(shared).await;
        // Somebody else may have said otherwise meanwhile.
        let held = self.ahead().held;
        self.change(|transfer| transfer.held = held);
        self.held.send_replace(held);
    }

    /// Whether it is paused once all is written down that was said.
    pub(super) fn is_to_be_held(&self) -> bool {
        self.ahead().held
    }

    /// Until its user has paused it, or lets it go on.
    async fn until_held(&self, held: bool) {
        let mut watching = self.held.subscribe();
        // The sender is this job's own.
        let _ = watching.wait_for(|now| *now == held).await;
    }

    /// Runs until the transfer has ended or the daemon stops.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let stopping = shared.tasks.token();
        let mut wait = FIRST_WAIT;
        let mut displaces_at = tokio::time::Instant::now();
        let mut serving = None;
        let ended = loop {
            if *self.held.borrow() {
                let why = format!("its user paused it; `p2pctl transfers resume {}` lets it go on", self.id);
                self.set_state(&shared, TransferState::Paused, Some(why)).await;
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = self.cancel.cancelled() => break TransferState::Cancelled,
                    () = self.until_held(false) => self.set_state(&shared, TransferState::Queued, None).await,
                }
                wait = FIRST_WAIT;
                displaces_at = tokio::time::Instant::now();
            }
            let turn = tokio::select! {
                () = stopping.cancelled() => return,
                () = self.cancel.cancelled() => break TransferState::Cancelled,
                () = self.until_held(true) => continue,
                turn = self.turn(&shared, displaces_at) => turn,
            };
            self.set_state(&shared, TransferState::Running, None).await;
            let done_before = self.snapshot().done_bytes;
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = self.attempt(&shared, serving.take(), &turn, &stopping) => outcome,
                () = self.keep_stored(&shared) => continue,
            };
            drop(turn);
            *self.ran.lock().unwrap_or_else(PoisonError::into_inner) += began.elapsed();
            let mut is_full = false;
            let (state, why) = match outcome {
                Outcome::Whole { path, manifest, serving: given } => {
                    match self.entered(&shared, path, &manifest).await {
                        Ok(()) => {
                            if let Some(given) = given {
                                given.done();
                            }
                            break TransferState::Done;
                        }
                        Err(why) => {
                            self.change(|transfer| transfer.reason = Some(why));
                            break TransferState::Failed;
                        }
                    }
                }
                Outcome::Directory { path } => {
                    self.change(|transfer| transfer.path = Some(path.display().to_string()));
                    break TransferState::Done;
                }
                Outcome::Stopped if self.is_cancelled() => break TransferState::Cancelled,
                Outcome::Stopped if stopping.is_cancelled() => {
                    self.store(&shared).await;
                    return;
                }
                // Its user paused it, which is seen to above; or it yields to another.
                Outcome::Stopped => continue,
                Outcome::Failed(why) => {
                    self.change(|transfer| transfer.reason = Some(why));
                    break TransferState::Failed;
                }
                Outcome::NoSources { why, serving: given } => {
                    serving = given;
                    (TransferState::Waiting, why)
                }
                Outcome::Blocked(why) | Outcome::Closed(why) => (TransferState::Paused, why),
                Outcome::Full(why) => {
                    // Room that is kept in case that somebody wants it goes to who needs it.
                    if leftovers::make_room(&shared).await {
                        continue;
                    }
                    is_full = true;
                    (TransferState::Paused, why)
                }
            };
            let before = self.snapshot();
            if before.state != state || before.reason.as_deref() != Some(&why) {
                match state {
                    TransferState::Paused => story::paused(&before, &why),
                    _ => story::waits(&before, &why),
                }
            }
            self.set_state(&shared, state, Some(why)).await;
            // A source that was lost may be asked again as soon as one is found; a full disk is looked at again.
            let moved = done_before < before.done_bytes;
            wait = if moved { FIRST_WAIT } else { (wait * 2).min(LAST_WAIT) };
            self.gauge.waits(now_ms(), wait, is_full);
            displaces_at =
                tokio::time::Instant::now() + if moved { Duration::ZERO } else { turn::DISPLACES_AGAIN };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.cancel.cancelled() => break TransferState::Cancelled,
                () = self.until_held(true) => {}
                () = tokio::time::sleep(wait.mul_f64(rand::random_range(0.75..1.25))) => {}
            }
        };
        // One that came by another way leaves its part too. What failed may be tried again under another name.
        if ended == TransferState::Failed && leftovers::is_kept(&shared, &self).await {
            self.change(|transfer| {
                let why = transfer.reason.take().unwrap_or_default();
                transfer.reason = Some(format!("{why}; {}", leftovers::SAID));
            });
        } else if let Some(key) = self.part_key()
            && let Err(error) = sink::discard(shared.shares.downloads(), key).await
        {
            // It is removed when the daemon next starts.
            let id = self.id;
            tracing::warn!(transfer_id = id, %error, "the unfinished file of transfer {id} stays for now: {error}");
        }
        tree::clear(&shared, &self).await;
        let why = self.snapshot().reason.filter(|_| ended == TransferState::Failed);
        self.finish(&shared, ended, why).await;
    }

    /// One run, which puts its things in order whatever stops it: the daemon's end, its user, or one that goes first.
    async fn attempt(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        before: Option<Serving>,
        turn: &Spot,
        stopping: &CancellationToken,
    ) -> Outcome {
        let stop = stopping.child_token();
        let stopped = async {
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = self.until_held(true) => {}
                () = self.asked_back(turn) => {}
            }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = self.once(shared, before, &stop) => outcome,
            () = stopped => Outcome::Stopped,
        }
    }

    pub(super) async fn once(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        before: Option<Serving>,
        stop: &CancellationToken,
    ) -> Outcome {
        let transfer = self.snapshot();
        if transfer.files.is_some() {
            return tree::run(shared, self, stop).await;
        }
        let Ok(name) = FileName::parse(&transfer.name) else {
            return Outcome::Failed(format!("{:?} is no name", transfer.name));
        };
        if !transfer.proven {
            self.gauge.enters(Phase::Plain);
            return plain::run(shared, self, name, stop).await;
        }
        let content = transfer.content.as_deref().and_then(|text| text.parse::<ContentHash>().ok());
        if let Some(content) = content {
            // It is here by now: copied in by the user, or published just before the daemon was killed.
            let found = tokio::select! {
                found = self.published(shared, &name, content) => found,
                () = stop.cancelled() => return Outcome::Stopped,
            };
            if let Some((path, manifest)) = found {
                return Outcome::Whole { path, manifest: Arc::new(manifest), serving: None };
            }
        }
        match (content, transfer.size) {
            (Some(content), Some(size)) => engine::run(shared, self, content, size, name, before, stop).await,
            _ => Outcome::Failed("its content is not known".to_owned()),
        }
    }

    /// The file, where it has its name already. A daemon that ends between giving it the name and entering it into the
    /// catalog leaves no part of it, and a file that nobody has looked at.
    async fn published(
        &self,
        shared: &Shared,
        name: &FileName,
        content: ContentHash,
    ) -> Option<(PathBuf, Manifest)> {
        if let Some(found) = shared.under(name, content).await {
            return Some(found);
        }
        let (key, dir, wanted) = (self.part_key()?, shared.shares.downloads(), name.clone());
        let is_left = sink::blocking(move || Ok(dir.exists(&wanted)? && !dir.parts()?.contains(&key)));
        if !is_left.await.unwrap_or(false) {
            return None;
        }
        // Where that fails, the transfer begins anew, as it would without.
        let _ = shared.shares.refresh().await;
        shared.under(name, content).await
    }

    /// The whole file goes into the catalog by the same door as one that the user copied in.
    pub(super) async fn entered(
        &self,
        shared: &Shared,
        path: PathBuf,
        manifest: &Manifest,
    ) -> Result<(), String> {
        let transfer = self.snapshot();
        let name = FileName::parse(&transfer.name).map_err(|error| error.to_string())?;
        let share = shared.shares.downloads().share().to_owned();
        let adopted = shared.shares.adopt(&share, &name, manifest.content(), manifest.clone()).await;
        if let Err(error) = adopted {
            // The file is whole and in its place; the watcher finds it there.
            let id = self.id;
            tracing::warn!(transfer_id = id, %error, "the file of transfer {id} is not in the catalog yet: {error}");
        }
        self.change(|transfer| {
            transfer.path = Some(path.display().to_string());
            transfer.content = Some(manifest.content().to_string());
            transfer.size = Some(manifest.pieces().len());
            transfer.done_bytes = manifest.pieces().len();
        });
        Ok(())
    }

    async fn finish(&self, shared: &Shared, state: TransferState, why: Option<String>) {
        self.change(|transfer| {
            transfer.ended_ms = Some(now_ms());
            (transfer.rate, transfer.eta_secs) = (0, None);
        });
        self.set_state(shared, state, why).await;
        let transfer = self.snapshot();
        match state {
            TransferState::Done => {
                let ran = *self.ran.lock().unwrap_or_else(PoisonError::into_inner);
                story::done(&transfer, ran, transfer.done_bytes.saturating_sub(self.done_before));
            }
            TransferState::Failed => story::failed(&transfer),
            _ => story::cancelled(&transfer),
        }
    }

    /// The name of its part file; `None` for a directory, which has many.
    pub(super) fn part_key(&self) -> Option<String> {
        let known = self.known.borrow();
        if !known.proven {
            return Some(plain::part_key(self.id));
        }
        let content = known.content.as_deref()?.parse().ok()?;
        Some(sink::part_key(content, self.id))
    }

    /// Shows how far it is, and how fast.
    pub(super) fn progressed(&self, done: u64) {
        let rate = self.gauge.progressed(done, Instant::now());
        self.change(|transfer| {
            transfer.done_bytes = done;
            transfer.rate = rate as u64;
            let left = transfer.size.map(|size| size.saturating_sub(done));
            transfer.eta_secs = left.filter(|_| rate >= 1.0).map(|left| (left as f64 / rate).ceil() as u64);
        });
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Transfer)) {
        self.known.send_modify(change);
    }

    /// Writes down what is known, every now and then, until the future is dropped.
    async fn keep_stored(&self, shared: &Shared) {
        loop {
            tokio::time::sleep(STORED_EVERY).await;
            self.store(shared).await;
        }
    }

    async fn set_state(&self, shared: &Shared, state: TransferState, why: Option<String>) {
        if state != TransferState::Running {
            self.gauge.paused();
        }
        self.ahead().state = Some((state, why.clone()));
        self.store(shared).await;
        self.change(|transfer| {
            (transfer.state, transfer.reason, transfer.queue_place) = (state, why, None);
        });
        self.ahead().state = None;
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is known, and what is to be shown once it is written.
    async fn store(&self, shared: &Shared) {
        let (version, transfer) = {
            let mut ahead = self.ahead();
            ahead.version += 1;
            let known = Transfer { priority: ahead.priority, held: ahead.held, ..self.snapshot() };
            let next = match ahead.state.clone() {
                Some((state, reason)) => Transfer { state, reason, queue_place: None, ..known },
                None => known,
            };
            (ahead.version, next)
        };
        if let Err(error) = shared.store.update(version, transfer).await {
            let id = self.id;
            tracing::error!(
                transfer_id = id,
                %error,
                "transfer {id} could not be written down: {error}; look at the disk of the state directory: after a \
                 restart p2pd may fetch again what is here"
            );
        }
    }
}
