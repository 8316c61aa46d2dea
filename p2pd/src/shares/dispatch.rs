//! The work that follows from the state of the shares: which pieces are started now, and when to look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName, Manifest};

use super::keeper::Keeper;
use super::kept::{Kept, RunningScan};
use super::look::Looker;
use super::presence;
use super::root::Place;
use super::scan::Scan;
use super::settle::Due;
use super::work::{About, Adopted, Batch, Done, Stated, state};
use super::{Refreshed, ShareError};
use crate::catalog::FactChange;

/// How many names one piece of work looks at.
const NAMES_AT_ONCE: usize = 64;

/// From so many changes on, none waits for more.
const FULL_BATCH: usize = 256;

/// The most changes made at once.
const LARGEST_BATCH: usize = 4096;

/// How many names may wait before a scan has to.
const PENDING: usize = 8192;

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
    pub(super) fn has_room(&self) -> bool {
        self.shares.iter().map(|kept| kept.pending.len()).sum::<usize>() < PENDING
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
        let (id, place) = match self.place_of(share) {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let Some(at) = self.position(id) else { return };
        let kept = &mut self.shares[at];
        // The watches may have told of it first: hashing what is proven already would be in vain.
        let due = kept.pending.claim(name.as_str());
        self.workers.cancel(kept.id, &due.name);
        let share = Arc::clone(&kept.name);
        self.jobs.spawn_blocking(move || {
            let result = state(&place, &share, name, content, manifest);
            Done::Stated { share: id, due, reply, result }
        });
    }

    /// The life of a share, and where it is.
    fn place_of(&self, share: &str) -> Result<(u64, Place), ShareError> {
        let kept = self.shares.iter().find(|kept| *kept.name == *share);
        let kept = kept.ok_or_else(|| ShareError::NotShared { share: share.to_owned() })?;
        match &kept.place {
            Ok(place) => Ok((kept.id, place.clone())),
            Err(reason) => {
                Err(ShareError::Unavailable { share: share.to_owned(), reason: reason.to_string() })
            }
        }
    }

    /// [`adopt`](Keeper::adopt) of many files at once.
    pub(super) fn adopt_all(
        &mut self,
        share: &str,
        files: Vec<(FileName, ContentHash, Manifest)>,
        reply: Adopted,
    ) {
        let (id, place) = match self.place_of(share) {
            Ok(found) => found,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let Some(at) = self.position(id) else { return };
        let kept = &mut self.shares[at];
        let dues: Vec<_> = files.iter().map(|(name, ..)| kept.pending.claim(name.as_str())).collect();
        dues.iter().for_each(|due| self.workers.cancel(id, &due.name));
        let share = Arc::clone(&kept.name);
        self.jobs.spawn_blocking(move || {
            let stated = files.into_iter().zip(dues);
            let stated = stated.map(|((name, content, manifest), due)| {
                (due, state(&place, &share, name, content, manifest))
            });
            Done::StatedAll { share: id, files: stated.collect(), reply }
        });
    }

    pub(super) fn on_stated_all(
        &mut self,
        share: u64,
        files: Vec<(Due, Stated)>,
        reply: Adopted,
        now: Instant,
    ) {
        let mut changes = Vec::with_capacity(files.len());
        for (due, result) in files {
            match result {
                Ok((fact, manifest)) => {
                    let change = FactChange::Upsert { fact, manifest: Some(manifest) };
                    changes.push((change, About { share, due, reply: None }));
                }
                Err(error) => {
                    tracing::debug!(%error, "a fetched file is not adopted: {error}");
                    self.settled(share, &due);
                }
            }
        }
        let Some((_, last)) = changes.last_mut() else {
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

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(JITTER))
}
