//! The loop that keeps the catalog true to the disks. It alone holds the state of the shares: it takes what happened,
//! changes its state, and then starts the work that follows from it (`dispatch`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_service::health::{Heartbeat, PATIENCE};
use p2p_service::tasks::Tasks;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::{Board, BoardReader};
use super::change::Changed;
use super::hint::Hinted;
use super::kept::Kept;
use super::look::{Finding, LookError};
use super::refresh::{self, Refreshes};
use super::room::Room;
use super::roster::Roster;
use super::scan::{ScanError, Told, What};
use super::settle::{Cause, Due};
use super::work::{About, Adopted, Batch, Done, Named, Workers};
use super::{AddError, ReadyFile, RemoveError, SetAside, ShareConfig, ShareError, Timing, Together};
use crate::catalog::{Applied, Catalog, CatalogError, FactChange};

/// How many files are looked at or hashed at once.
const WORKERS: usize = 2;

/// How many hints may wait: as many events as the kernel itself keeps by default.
const HINTS: usize = 16_384;

/// How many batches of a scan may wait.
const TOLD: usize = 8;

/// How long what failed for want of a share's directory, or of the catalog, waits to be tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the loop is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Refresh {
        reply: refresh::Reply,
    },
    Adopt {
        share: String,
        name: FileName,
        content: ContentHash,
        manifest: Box<Manifest>,
        reply: Adopted,
    },
    PublishAll {
        together: Arc<Together>,
        files: Vec<ReadyFile>,
        named: Named,
        reply: Adopted,
    },
    Reload {
        configs: Vec<ShareConfig>,
        reply: oneshot::Sender<Result<(), ShareError>>,
    },
    Add {
        share: ShareConfig,
        reply: Changed<AddError>,
    },
    Remove {
        name: String,
        reply: Changed<RemoveError>,
    },
    /// A file was found changed by who wanted to read it.
    Suspect {
        share: String,
        name: FileName,
    },
}

/// The state of the shares.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) catalog: Catalog,
    pub(super) timing: Timing,
    pub(super) cancel: CancellationToken,
    pub(super) hashed_bytes: Arc<AtomicU64>,
    pub(super) roster: Roster,
    pub(super) shares: Vec<Kept>,
    pub(super) refreshes: Refreshes,
    pub(super) room: Room,
    pub(super) workers: Workers,
    pub(super) jobs: JoinSet<Done>,
    /// Changes that are not on their way yet.
    pub(super) changes: Vec<FactChange>,
    pub(super) abouts: Vec<About>,
    /// Changes that the catalog did not take, and when to try again.
    pub(super) failed: Option<(Instant, Batch)>,
    pub(super) is_applying: bool,
    pub(super) flush_at: Instant,
    pub(super) told_sender: mpsc::Sender<Told>,
    board: watch::Sender<Arc<Board>>,
    aside: watch::Sender<Arc<Vec<SetAside>>>,
    commands: mpsc::Receiver<Command>,
    heart: Heartbeat,
    hints: mpsc::Receiver<Hinted>,
    pub(super) hint_sender: mpsc::Sender<Hinted>,
    told: mpsc::Receiver<Told>,
    last_id: u64,
}

impl Keeper {
    pub(super) fn new(
        catalog: Catalog,
        timing: Timing,
        room: Room,
        tasks: &Tasks,
        commands: mpsc::Receiver<Command>,
        hashed_bytes: Arc<AtomicU64>,
        roster: Roster,
    ) -> Keeper {
        let (hint_sender, hints) = mpsc::channel(HINTS);
        let (told_sender, told) = mpsc::channel(TOLD);
        Keeper {
            catalog,
            timing,
            cancel: tasks.token(),
            hashed_bytes,
            heart: tasks.heartbeat("shares", PATIENCE),
            roster,
            shares: Vec::new(),
            refreshes: Refreshes::default(),
            room,
            workers: Workers::new(WORKERS),
            jobs: JoinSet::new(),
            changes: Vec::new(),
            abouts: Vec::new(),
            failed: None,
            is_applying: false,
            flush_at: Instant::now(),
            told_sender,
            board: watch::Sender::new(Arc::default()),
            aside: watch::Sender::new(Arc::default()),
            commands,
            hints,
            hint_sender,
            told,
            last_id: 0,
        }
    }

    pub(super) fn board(&self) -> BoardReader {
        self.board.subscribe()
    }

    pub(super) fn aside(&self) -> watch::Receiver<Arc<Vec<SetAside>>> {
        self.aside.subscribe()
    }

    /// Puts the shares in force that there are now: the configured ones, and those that were added.
    pub(super) async fn take_roster(&mut self) -> Result<(), ShareError> {
        let (shares, aside) = self.roster.merged();
        for SetAside { name, reason } in &aside {
            tracing::warn!(
                share = name,
                reason,
                "a share that was added is not in force: the configuration contradicts it; `p2pctl share remove` ends this"
            );
        }
        self.aside.send_replace(Arc::new(aside));
        self.configure(shares).await
    }

    /// Runs until the token is cancelled. What is on its way to the catalog then is written all the same.
    pub(super) async fn run(mut self) -> Result<(), ShareError> {
        let cancel = self.cancel.clone();
        let mut hints = Vec::new();
        loop {
            self.heart.beat();
            let wake_at = self.start_work(Instant::now());
            self.post();
            let has_room = self.has_room_for_scans();
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(command) = self.commands.recv() => self.on_command(command).await?,
                _ = self.hints.recv_many(&mut hints, 1024) => self.on_hints(&mut hints),
                Some(told) = self.told.recv(), if has_room => self.on_told(told),
                Some(done) = self.jobs.join_next() => self.on_done(done?).await,
                () = tokio::time::sleep_until(wake_at.into()) => {}
                () = self.heart.due() => {}
            }
        }
    }

    async fn on_command(&mut self, command: Command) -> Result<(), ShareError> {
        match command {
            Command::Refresh { reply } => self.refreshes.ask(reply),
            Command::Adopt { share, name, content, manifest, reply } => {
                self.adopt(&share, name, content, *manifest, reply);
            }
            Command::PublishAll { together, files, named, reply } => {
                self.publish_all(together, files, named, reply);
            }
            Command::Reload { configs, reply } => {
                self.roster.set_configured(configs);
                let result = self.take_roster().await;
                let _ = reply.send(result);
            }
            Command::Add { share, reply } => self.on_add(share, reply).await,
            Command::Remove { name, reply } => self.on_remove(&name, reply).await,
            Command::Suspect { share, name } => {
                if let Some(at) = self.shares.iter().position(|kept| *kept.name == *share) {
                    let has_room = self.has_room_for_hints(at);
                    self.shares[at].on_sight(name.as_str(), has_room, Instant::now());
                }
            }
        }
        Ok(())
    }

    fn on_hints(&mut self, hints: &mut Vec<Hinted>) {
        let now = Instant::now();
        for (id, hint) in hints.drain(..) {
            let Some(at) = self.position(id) else { continue };
            let has_room = self.has_room_for_hints(at);
            self.shares[at].on_hint(hint, has_room, now);
        }
    }

    fn on_told(&mut self, told: Told) {
        let now = Instant::now();
        let Some(at) = self.position(told.share) else { return };
        let kept = &mut self.shares[at];
        match told.what {
            What::Look(names) => names.iter().for_each(|name| kept.pending.sighted(name, now)),
            What::Skipped { shown, reason } => kept.skip(&shown, &reason),
            What::End(end) => {
                let Some(ran) = kept.scans.running.take() else { return };
                if ran.is_whole && end.is_ok() {
                    kept.whole_scan_ended();
                }
                // Whether the directory is still this share's says the next probe: who waits for a scan waits for that.
                kept.is_scan_lost = ran.is_awaited && matches!(end, Err(ScanError::Lost(_)));
                if ran.is_awaited && !kept.is_scan_lost {
                    self.refreshes.scanned(told.share, kept.pending.names(), now);
                }
                match end {
                    Ok(()) | Err(ScanError::Cancelled) => {}
                    Err(ScanError::Lost(lost)) => {
                        let share = &*kept.name;
                        tracing::debug!(share, error = %lost, "a scan of the share {share} ended early: {lost}");
                        kept.next_probe = now;
                    }
                    Err(ScanError::Catalog(error)) => {
                        let share = &*kept.name;
                        tracing::error!(
                            share,
                            %error,
                            "a scan of the share {share} ended early and is repeated: {error}; look at the disk of the \
                             state directory"
                        );
                        kept.next_rescan = now + RETRY;
                    }
                }
            }
        }
    }

    async fn on_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Scanned => {}
            Done::Probed { share, result } => {
                let Some(at) = self.position(share) else { return };
                self.shares[at].is_probing = false;
                self.shares[at].next_probe = now + self.timing.probe;
                let judged = match result {
                    Ok(probed) => self.judge(at, &probed).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = judged {
                    let share = &*self.shares[at].name;
                    tracing::error!(
                        share,
                        %error,
                        "cannot note how the share {share} stands, trying again: {error}; look at the disk of the state \
                         directory"
                    );
                }
                // Of a share that has come to another life nobody waits any more.
                if let Some(at) = self.position(share) {
                    let kept = &mut self.shares[at];
                    if std::mem::take(&mut kept.is_scan_lost) {
                        self.refreshes.scanned(share, kept.pending.names(), now);
                    }
                }
            }
            Done::Looked { share, names, result } => {
                self.workers.end_look();
                match result {
                    Ok(found) => {
                        found.into_iter().for_each(|(due, finding)| self.on_finding(share, due, finding, now))
                    }
                    Err(error) => names.into_iter().for_each(|due| self.on_no_look(share, &due, &error, now)),
                }
            }
            Done::Hashed { share, due, is_long, result } => {
                self.workers.end_hash(share, &due, is_long);
                match result {
                    Ok(finding) => self.on_finding(share, due, finding, now),
                    Err(error) => self.on_no_look(share, &due, &error, now),
                }
            }
            Done::Stated { share, due, reply, result } => match result {
                Ok((fact, manifest)) => {
                    let change = FactChange::Upsert { fact, manifest: Some(manifest) };
                    self.change(change, About { share, due, reply: Some(reply) }, now);
                }
                Err(error) => {
                    self.adoption_ends(share);
                    self.settled(share, &due);
                    let _ = reply.send(Err(error));
                }
            },
            Done::Published { share, files, reply } => self.on_published(share, files, reply, now),
            Done::Applied { batch, result } => self.on_applied(batch, result, now),
        }
    }

    fn on_applied(&mut self, batch: Batch, result: Result<Applied, CatalogError>, now: Instant) {
        self.is_applying = false;
        match result {
            Ok(applied) => {
                self.refreshes.applied(applied);
                for About { share, due, reply } in batch.abouts {
                    self.settled(share, &due);
                    if let Some(reply) = reply {
                        self.adoption_ends(share);
                        let _ = reply.send(Ok(applied.sequence));
                    }
                }
            }
            Err(error) => {
                let changes = batch.changes.len();
                tracing::error!(
                    changes,
                    %error,
                    "the catalog does not take {changes} changes, trying again: {error}; look at the disk of the state \
                     directory"
                );
                self.failed = Some((now + RETRY, batch));
            }
        }
    }

    fn on_finding(&mut self, share: u64, due: Due, finding: Finding, now: Instant) {
        let Some(at) = self.position(share) else { return };
        let Timing { debounce, settle, open_grace, .. } = self.timing;
        let kept = &mut self.shares[at];
        if !kept.pending.is_current(&due.name, due.ticket) {
            return;
        }
        match &finding {
            Finding::Skipped { reason, .. } => kept.skip(&due.name, reason),
            Finding::Failed { error } => kept.skip(&due.name, &format!("it cannot be read: {error}")),
            Finding::Cancelled | Finding::Moving | Finding::Unhashed { .. } => {}
            _ => kept.unskip(&due.name),
        }
        let was_known = match finding {
            Finding::File { fact, manifest } => {
                let change = FactChange::Upsert { fact, manifest };
                return self.change(change, About { share, due, reply: None }, now);
            }
            Finding::Unhashed { size } => return kept.queue_for_hashing(due, size),
            Finding::Unsettled { wait } => {
                let longest = if due.is_unsure { open_grace } else { settle };
                // Not less than a moment, so that a clock that stands still is not asked without end.
                let wait = wait.clamp(debounce / 4, longest.max(debounce));
                return kept.pending.again(&due, due.cause.clone(), now, wait);
            }
            Finding::StillOpen => return kept.pending.still_open(&due.name, due.ticket, now),
            Finding::Moving => {
                kept.pending.again(&due, Cause::Sighted, now, settle);
                return self.refreshes.settled(share, &due.name);
            }
            Finding::Gone { was_known, was_directory } => {
                if was_directory {
                    kept.scans.want(&due.name);
                }
                was_known
            }
            Finding::Directory { was_known } => {
                kept.scans.want(&due.name);
                was_known
            }
            Finding::Skipped { was_known, .. } | Finding::Ignored { was_known } => was_known,
            Finding::Unchanged | Finding::Failed { .. } | Finding::Cancelled => false,
        };
        match FileName::parse(&due.name) {
            Ok(name) if was_known => {
                let change = FactChange::Remove { share: kept.name.to_string(), name };
                self.change(change, About { share, due, reply: None }, now);
            }
            _ => self.settled(share, &due),
        }
    }

    fn on_no_look(&mut self, share: u64, due: &Due, error: &LookError, now: Instant) {
        let Some(at) = self.position(share) else { return };
        let kept = &mut self.shares[at];
        match error {
            LookError::Lost => kept.next_probe = now,
            LookError::Catalog(error) => {
                let share = &*kept.name;
                tracing::error!(
                    share,
                    %error,
                    "the share {share} cannot ask the catalog, trying again: {error}; look at the disk of the state \
                     directory"
                );
            }
        }
        kept.pending.again(due, due.cause.clone(), now, RETRY);
    }

    /// Has a change made, with others.
    pub(super) fn change(&mut self, change: FactChange, about: About, now: Instant) {
        if self.changes.is_empty() {
            self.flush_at = now + self.timing.debounce;
        }
        self.changes.push(change);
        self.abouts.push(about);
    }

    /// What was found of a file is in the catalog, or need not be.
    pub(super) fn settled(&mut self, share: u64, due: &Due) {
        if let Some(at) = self.position(share) {
            self.shares[at].pending.finish(&due.name, due.ticket);
            self.refreshes.settled(share, &due.name);
        }
    }

    pub(super) fn position(&self, id: u64) -> Option<usize> {
        self.shares.iter().position(|kept| kept.id == id)
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn post(&mut self) {
        let now = Instant::now();
        let board: Board = self.shares.iter_mut().map(|kept| kept.posted(now)).collect();
        self.board.send_if_modified(|shown| {
            let is_news = **shown != board;
            if is_news {
                *shown = Arc::new(board);
            }
            is_news
        });
    }
}
