//! The work that follows from the state of the shares: which pieces are started now, and when to look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName, Manifest};

use super::keeper::Keeper;
use super::kept::Kept;
use super::look::Looker;
use super::presence;
use super::root::Place;
use super::scan::Scan;
use super::settle::{Cause, Due};
use super::wanted::RunningScan;
use super::work::{About, Adopted, Batch, Done, Named, Stated, state, state_of};
use super::{PublishError, ReadyFile, Refreshed, ShareError, Together};
use crate::catalog::FactChange;

/// How many names one piece of work looks at.
const NAMES_AT_ONCE: usize = 64;

/// From so many changes on, none waits for more.
const FULL_BATCH: usize = 256;

/// The most changes made at once.
const LARGEST_BATCH: usize = 4096;

/// How far, at the most, the time between two looks at everything strays from what is configured: a tenth of it.
const JITTER: std::ops::Range<f64> = 0.9..1.1;

impl Keeper {
    /// Starts what is to be started, and says when there is something to do again, unless something happens before.
    pub(super) fn start_work(&mut self, now: Instant) -> Instant {
        if self.refreshes.is_wanted() {
            self.begin_refresh(now);
        }
        for at in 0..self.shares.len() {
            self.start_probe(at, now);
            self.start_scan(at, now);
        }
        while self.workers.has_idle() && self.has_room_for_changes() && self.start_look(now) {}
        self.start_apply(now);
        self.end_refresh(now);
        self.next_wake(now)
    }

    /// Whether what scans tell can be taken now.
    pub(super) fn has_room_for_scans(&self) -> bool {
        self.room.takes_scans(self.waiting())
    }

    /// Whether a hint can be taken of a name of this share that does not wait yet.
    pub(super) fn has_room_for_hints(&mut self, at: usize) -> bool {
        let (waiting, own) = (self.waiting(), self.shares[at].pending.len());
        self.room.takes_hints(waiting, own)
    }

    fn waiting(&self) -> usize {
        self.shares.iter().map(|kept| kept.pending.len()).sum()
    }

    fn has_room_for_changes(&self) -> bool {
        self.changes.len() < LARGEST_BATCH
    }

    fn begin_refresh(&mut self, now: Instant) {
        for kept in &mut self.shares {
            kept.next_probe = now;
            kept.scans.want_whole();
        }
        self.refreshes.begin(self.shares.iter().filter(|kept| kept.place.is_ok()).map(|kept| kept.id), now);
    }

    /// Answers those who wait for a refresh that has all it waited for.
    fn end_refresh(&mut self, now: Instant) {
        let shares = &self.shares;
        let kept = |id| shares.iter().find(|kept| kept.id == id);
        self.refreshes.drop_open(now, |id, name| kept(id).is_none_or(|kept| kept.pending.is_open(name)));
        let Some((replies, applied)) = self.refreshes.take_ended() else { return };
        let catalog = self.catalog.clone();
        self.jobs.spawn(async move {
            let last_sequence = *catalog.watch().borrow();
            match catalog.totals().await {
                Ok(totals) => {
                    let (files, changed, removed) = (totals.files, applied.changed, applied.removed);
                    for reply in replies {
                        let _ = reply.send(Ok(Refreshed { files, changed, removed, last_sequence }));
                    }
                }
                Err(error) => tracing::error!(
                    %error,
                    "a refresh is done and cannot be answered: {error}; look at the disk of the state directory"
                ),
            }
            Done::Scanned
        });
    }

    fn start_probe(&mut self, at: usize, now: Instant) {
        let kept = &mut self.shares[at];
        if kept.is_probing || kept.next_probe > now {
            return;
        }
        kept.is_probing = true;
        let (share, path, name) = (kept.id, kept.path.clone(), Arc::clone(&kept.name));
        let (links, catalog) = (kept.config.links(), self.catalog.clone());
        self.jobs.spawn_blocking(move || {
            let result = presence::probe(&path, links, &name, &catalog);
            Done::Probed { share, result }
        });
    }

    fn start_scan(&mut self, at: usize, now: Instant) {
        let kept = &mut self.shares[at];
        let (Ok(place), Some(watch)) = (kept.place.clone(), kept.watch.clone()) else { return };
        kept.check_hints(now);
        if kept.next_rescan <= now {
            kept.scans.want_whole();
            let pause = if kept.is_unwatched() { self.timing.rescan_unwatched } else { self.timing.rescan };
            kept.next_rescan = now + jittered(pause);
        }
        if !kept.scans.is_whole_next() && kept.adoptions.hold_scans_until().is_some_and(|until| now < until) {
            return;
        }
        let Some(directory) = kept.scans.take() else { return };
        let is_whole = directory.is_none();
        let is_awaited = is_whole && self.refreshes.wants_scan(kept.id);
        kept.scans.running = Some(RunningScan { is_whole, is_awaited });
        if is_whole {
            kept.whole_scan_begins();
            watch.try_again();
        }
        let scan = Scan {
            id: kept.id,
            share: Arc::clone(&kept.name),
            place,
            directory,
            catalog: self.catalog.clone(),
            watch,
            told: self.told_sender.clone(),
            cancel: self.cancel.clone(),
        };
        self.jobs.spawn_blocking(move || {
            scan.run();
            Done::Scanned
        });
    }

    /// Starts one look or one hashing, of whichever share has waited longest, and says whether there was one to start.
    fn start_look(&mut self, now: Instant) -> bool {
        let due = |kept: &Kept| kept.pending.next_at().filter(|at| *at <= now);
        let longest = (0..self.shares.len()).filter(|at| due(&self.shares[*at]).is_some());
        if let Some(at) = longest.min_by_key(|at| due(&self.shares[*at])) {
            return self.start_looks(at, now);
        }
        (0..self.shares.len()).any(|at| self.start_hash(at))
    }

    fn start_looks(&mut self, at: usize, now: Instant) -> bool {
        let Some(looker) = self.looker(at) else { return false };
        let kept = &mut self.shares[at];
        let (share, names) = (kept.id, kept.pending.take(now, NAMES_AT_ONCE));
        self.workers.begin_look();
        self.jobs.spawn_blocking(move || {
            let result = looker.look(&names);
            Done::Looked { share, names, result }
        });
        true
    }

    fn start_hash(&mut self, at: usize) -> bool {
        let Some(mut looker) = self.looker(at) else { return false };
        let may_be_long = self.workers.may_hash_long();
        let kept = &mut self.shares[at];
        let share = kept.id;
        let Some((due, is_long)) = kept.take_for_hashing(may_be_long) else { return false };
        if !kept.pending.is_current(&due.name, due.ticket) {
            return true;
        }
        looker.cancel = self.cancel.child_token();
        self.workers.begin_hash(share, &due, is_long, looker.cancel.clone());
        self.jobs.spawn_blocking(move || {
            let result = looker.hash(&due);
            Done::Hashed { share, due, is_long, result }
        });
        true
    }

    fn looker(&self, at: usize) -> Option<Looker> {
        let kept = &self.shares[at];
        let place = kept.place.as_ref().ok()?.clone();
        Some(Looker {
            share: Arc::clone(&kept.name),
            place,
            catalog: self.catalog.clone(),
            settle: self.timing.settle,
            debounce: self.timing.debounce,
            open_grace: self.timing.open_grace,
            hashed_bytes: Arc::clone(&self.hashed_bytes),
            cancel: self.cancel.clone(),
        })
    }

    /// Sends the changes off when there are many, or the first has waited long enough, or nothing is under way that
    /// could bring more. One batch at a time: their order is that in which things were found.
    fn start_apply(&mut self, now: Instant) {
        if self.is_applying {
            return;
        }
        let batch = match self.failed.take_if(|(at, _)| *at <= now) {
            Some((_, batch)) => batch,
            None if self.failed.is_some() || !self.is_batch_ripe(now) => return,
            None => {
                let rest = self.changes.split_off(self.changes.len().min(LARGEST_BATCH));
                let changes = std::mem::replace(&mut self.changes, rest);
                let rest = self.abouts.split_off(changes.len());
                let abouts = std::mem::replace(&mut self.abouts, rest);
                self.flush_at = now;
                Batch { changes: Arc::new(changes), abouts }
            }
        };
        self.is_applying = true;
        let catalog = self.catalog.clone();
        self.jobs.spawn(async move {
            let result = catalog.apply_counted(Arc::clone(&batch.changes)).await;
            Done::Applied { batch, result }
        });
    }

    fn is_batch_ripe(&self, now: Instant) -> bool {
        let is_idle = self.workers.is_idle();
        !self.changes.is_empty() && (self.changes.len() >= FULL_BATCH || self.flush_at <= now || is_idle)
    }

    /// Has a file put into the catalog that somebody else has put into the share.
    pub(super) fn adopt(
        &mut self,
        share: &str,
        name: FileName,
        content: ContentHash,
        manifest: Manifest,
        reply: Adopted,
    ) {
        let Claimed { id, place, share, dues } = match self.claim(share, [name.as_str()]) {
            Ok(claimed) => claimed,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let Some(due) = dues.into_iter().next() else { return };
        self.adoption_begins(id);
        self.jobs.spawn_blocking(move || {
            let result = state(&place, &share, name, content, manifest);
            Done::Stated { share: id, due, reply, result }
        });
    }

    /// Has parts given their names, and then put into the catalog.
    pub(super) fn publish_all(
        &mut self,
        together: Arc<Together>,
        files: Vec<ReadyFile>,
        named: Named,
        reply: Adopted,
    ) {
        let claimed = self.claim(together.share(), files.iter().map(|file| file.name.as_str()));
        let Claimed { id, place, share, dues } = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                let (share, reason) = (together.share().to_owned(), error.to_string());
                let _ = named.send(Err(PublishError::Unavailable { share, reason }));
                return;
            }
        };
        self.adoption_begins(id);
        self.jobs.spawn_blocking(move || {
            let (published, stats) = match together.publish(&files) {
                Ok(results) => {
                    let stats = results.iter().map(|result| result.as_ref().ok().copied()).collect();
                    (Ok(results.into_iter().map(|result| result.map(drop)).collect()), stats)
                }
                Err(error) => (Err(error), vec![None; files.len()]),
            };
            let _ = named.send(published);
            let stated = files.into_iter().zip(dues).zip(stats).map(|((file, due), stat)| {
                let ReadyFile { name, content, manifest, .. } = file;
                (due, stat.map(|stat| state_of(&stat, &place, &share, name, content, manifest)))
            });
            Done::Published { share: id, files: stated.collect(), reply }
        });
    }

    fn adoption_begins(&mut self, share: u64) {
        if let Some(at) = self.position(share) {
            self.shares[at].adoptions.begin(Instant::now());
        }
    }

    pub(super) fn adoption_ends(&mut self, share: u64) {
        if let Some(at) = self.position(share) {
            self.shares[at].adoptions.end();
        }
    }

    /// Takes names of a share out of their turn: the watches may have told of them already, or will soon, and hashing
    /// what is proven would be in vain.
    fn claim<'n>(
        &mut self,
        share: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Claimed, ShareError> {
        let kept = self.shares.iter_mut().find(|kept| *kept.name == *share);
        let kept = kept.ok_or_else(|| ShareError::NotShared { share: share.to_owned() })?;
        let unavailable = |reason: &Arc<str>| ShareError::Unavailable {
            share: share.to_owned(),
            reason: reason.to_string(),
        };
        let place = kept.place.as_ref().map_err(unavailable)?.clone();
        let dues: Vec<_> = names.into_iter().map(|name| kept.pending.claim(name)).collect();
        dues.iter().for_each(|due| self.workers.cancel(kept.id, &due.name));
        Ok(Claimed { id: kept.id, place, share: Arc::clone(&kept.name), dues })
    }

    pub(super) fn on_published(
        &mut self,
        share: u64,
        files: Vec<(Due, Option<Stated>)>,
        reply: Adopted,
        now: Instant,
    ) {
        let mut changes = Vec::with_capacity(files.len());
        for (due, result) in files {
            match result {
                Some(Ok((fact, manifest))) => {
                    let change = FactChange::Upsert { fact, manifest: Some(manifest) };
                    changes.push((change, About { share, due, reply: None }));
                }
                // Whatever is there: it is looked at as if somebody had come across it.
                Some(Err(_)) | None => {
                    if let Some(at) = self.position(share) {
                        let pending = &mut self.shares[at].pending;
                        pending.again(&due, Cause::Sighted, now, self.timing.settle);
                    }
                    self.refreshes.settled(share, &due.name);
                }
            }
        }
        let Some((_, last)) = changes.last_mut() else {
            self.adoption_ends(share);
            let _ = reply.send(Ok(0));
            return;
        };
        // They are made in their order: once the last one is, all are.
        last.reply = Some(reply);
        changes.into_iter().for_each(|(change, about)| self.change(change, about, now));
        self.flush_at = now;
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let mut wake_at = now + Duration::from_secs(3600);
        let mut at = |when: Instant| wake_at = wake_at.min(when);
        for kept in &self.shares {
            if !kept.is_probing {
                at(kept.next_probe);
            }
            if kept.place.is_ok() {
                at(kept.next_rescan);
                if kept.scans.are_wanted() {
                    kept.adoptions.hold_scans_until().map(&mut at);
                }
                // Where no worker is idle, the end of their work wakes the loop.
                if self.workers.has_idle() && self.has_room_for_changes() {
                    kept.pending.next_at().map(&mut at);
                }
            }
        }
        self.refreshes.next_at().map(&mut at);
        if !self.is_applying {
            match &self.failed {
                Some((when, _)) => at(*when),
                None if !self.changes.is_empty() => at(self.flush_at),
                None => {}
            }
        }
        wake_at
    }
}

/// Names of a share that nobody looks at until something has come of them.
struct Claimed {
    /// The life of the share.
    id: u64,
    place: Place,
    share: Arc<str>,
    dues: Vec<Due>,
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(JITTER))
}
