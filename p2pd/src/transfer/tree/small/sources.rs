//! The sources of a run over short files: how they are found, and what becomes of files that nobody gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::ContentHash;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{LOOK_EVERY, LOSSES, Run, Running, SOURCES};
use crate::discovery::PeerRef;
use crate::transfer::gone::Gone;
use crate::transfer::plan::SourceKey;
use crate::transfer::tree::LONGEST;
use crate::transfer::tree::plan::FileKey;
use crate::transfer::tree::stream::{Order, StreamTask, Wanted};

/// Orders that wait for a source's task: as many as it can be asked for, and to leave all of them.
const ORDERS: usize = 512;
/// Files for which somebody is looked for at once. Those that are looked at beside come so far after each other, in parts of the
/// list: so they are spread evenly, however many they are.
const LOOKS: usize = 4;
const AROUND: usize = 2;
const GOLDEN: f64 = 0.618_033_988_749_895;
/// Files in a row that nobody has before each look waits for so long: then it is at most 200 a second.
const MANY_MISSING: u64 = 256;
const PACED: Duration = Duration::from_millis(20);

impl Run<'_> {
    pub(super) fn gone(&mut self, source: SourceKey, why: &Gone) {
        self.plan.leave(source);
        self.measured.left(source);
        let Some(running) = self.sources.remove(&source) else { return };
        let (Gone::Lost(reason) | Gone::Unkept(reason) | Gone::Dropped(reason)) = why;
        match why {
            Gone::Lost(_) | Gone::Unkept(_) => self.job.source_lost(&running.peer, reason),
            Gone::Dropped(_) => {
                let content = self.plan.any().and_then(|key| self.files.get(&key));
                let content = content.map_or(ContentHash::of(&[]), |file| file.content);
                self.job.source_dropped(&running.peer, reason, content);
            }
        }
        if let Some(id) = running.peer.id() {
            *self.losses.entry(id).or_default() += 1;
        }
        self.lacking.why = Some(why.said_of(&running.peer));
        self.gone.insert(source, running.peer);
    }

    pub(super) fn ask_everyone(&mut self) {
        self.plan.sources().into_iter().for_each(|source| self.ask(source));
    }

    pub(super) fn ask(&mut self, source: SourceKey) {
        if self.in_doubt.contains_key(&source) {
            return;
        }
        let keys = self.plan.requests(source, Instant::now()).into_iter();
        let wanted =
            |key| self.files.get(&key).map(|file| Wanted { key, content: file.content, size: file.size });
        let wanted: Vec<_> = keys.filter_map(wanted).collect();
        if !wanted.is_empty()
            && let Some(to) = self.sources.get(&source)
            // The last words of one whose task has ended are still to be heard: what it gave, and why it is gone.
            && let Err(TrySendError::Full(_)) = to.orders.try_send(Order::Ask(wanted))
        {
            self.gone(source, &Gone::Lost("it takes no more requests".to_owned()));
        }
    }

    /// Tells a source that a file has come, if it can be told.
    pub(super) fn leave(&self, source: SourceKey, key: FileKey) {
        if let Some(to) = self.sources.get(&source) {
            // Otherwise its copy comes for nothing.
            let _ = to.orders.try_send(Order::Leave(key));
        }
    }

    /// Somebody has to be found for files that all who are there have refused, and for any where nobody is there.
    pub(super) fn look_for_sources(&mut self) {
        if self.sources.is_empty() {
            // Whoever has the first has most likely all; where nobody has it, others may be had by others.
            let at_once = if self.missing_in_a_row == 0 { 1 } else { LOOKS };
            while self.looking.len() < at_once {
                let key = self.plan.lacking().find(|key| !self.being_looked_for.contains(key));
                let Some(key) = key else { return };
                self.look_for(key);
            }
            return;
        }
        if self.plan.orphans().is_empty() {
            return;
        }
        let is_connecting = self.sources.values().any(|running| !running.is_ready);
        for key in self.plan.orphans().to_vec() {
            match self.looked_for.contains(&key) {
                true if is_connecting || !self.looking.is_empty() || self.no_place.contains(&key) => {}
                true => self.missing(key),
                false if self.looking.len() < LOOKS => self.look_for(key),
                false => break,
            }
        }
    }

    pub(super) fn look_for(&mut self, key: FileKey) {
        let Some(file) = self.files.get(&key) else { return self.plan.remove(key) };
        self.looked_for.insert(key);
        self.being_looked_for.insert(key);
        let look = self.job.look(self.shared, file.content);
        // A million files that nobody has are no reason to ask the maestro for nothing else.
        let pause = if self.missing_in_a_row < MANY_MISSING { Duration::ZERO } else { PACED };
        self.looking.spawn(async move {
            tokio::time::sleep(pause).await;
            (Some(key), look.await)
        });
    }

    /// Looks who has the first of the files, and any others, be they read yet or not: those who have the first ones may be slow, and
    /// may have no others. Of those for whose holders there was no place, some are looked for again.
    pub(super) fn look_around(&mut self) {
        for key in self.no_place.iter().take(LOOKS).copied().collect::<Vec<_>>() {
            self.no_place.remove(&key);
            self.looked_for.remove(&key);
        }
        if let Some(key) = self.plan.any() {
            self.look_for(key);
        }
        for _ in 0..AROUND {
            self.looked_at = (self.looked_at + GOLDEN).fract();
            let place = (self.tally.short as f64 * self.looked_at) as u64;
            let (shared, job) = (Arc::clone(self.shared), Arc::clone(self.job));
            self.looking.spawn(async move {
                // Whatever keeps it from being read is told where it is read to be fetched.
                let any = shared.store.file_at(job.id, 0..=LONGEST, place).await.ok().flatten();
                match any {
                    Some(content) => (None, job.look(&shared, content).await),
                    None => (None, Vec::new()),
                }
            });
        }
    }

    pub(super) fn found(&mut self, key: Option<FileKey>, peers: Vec<PeerRef>) {
        key.inspect(|key| {
            self.being_looked_for.remove(key);
        });
        let is_orphan = key.is_some_and(|key| self.plan.orphans().contains(&key));
        let mut is_turned_away = false;
        for peer in peers {
            let is_running = self.sources.values().any(|running| running.peer.id() == peer.id());
            let is_own = peer.id() == Some(self.shared.myself.id);
            let losses = peer.id().and_then(|id| self.losses.get(&id)).copied().unwrap_or_default();
            if losses >= LOSSES || is_running || is_own || self.job.is_dropped(peer.id()) {
                continue;
            }
            if !self.has_place_for(&peer, is_orphan) {
                is_turned_away = true;
                continue;
            }
            self.tried.extend(peer.id());
            let source = self.next_source;
            self.next_source += 1;
            let (orders, told) = mpsc::channel(ORDERS);
            let task = StreamTask {
                key: source,
                peer: peer.clone(),
                connections: self.shared.connections.clone(),
                limits: self.shared.limits.clone(),
                watch: self.measured.joined(source, &peer),
                orders: told,
                events: self.events.clone(),
            };
            self.tasks.spawn(task.run());
            self.job.source_joined(&peer);
            self.sources.insert(source, Running { peer, orders, is_ready: false });
        }
        match key {
            Some(key) if self.sources.is_empty() => self.missing(key),
            Some(key) if is_orphan && is_turned_away => {
                self.no_place.insert(key);
            }
            _ => {}
        }
    }

    /// Whether there is a place for one more source. Where all are taken, now and then one that has nothing to give, or the
    /// slowest, gives up its own to somebody who was never asked, or has what all the others have refused: slow ones would else
    /// keep a fast one out for good.
    fn has_place_for(&mut self, peer: &PeerRef, has_orphan: bool) -> bool {
        if self.sources.len() < SOURCES {
            return true;
        }
        let is_new = peer.id().is_some_and(|id| !self.tried.contains(&id));
        let is_due = self.displaced.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        // Where the disk is what all wait for, none of them is slow.
        if !is_due || !(is_new || has_orphan) || self.is_behind() {
            return false;
        }
        // Before all is read, who has nothing to do may only wait for what comes next.
        let is_certain = self.is_all_read && self.loading.is_empty();
        let idle = self.plan.idle().filter(|idle| is_certain && !self.in_doubt.contains_key(idle));
        if let Some(idle) = idle {
            self.displace(idle, "it has nothing that is missing, and another is asked in its place");
            return true;
        }
        let Some(last) = self.plan.last(Instant::now()) else { return false };
        self.displace(last, "it is the slowest, and another is tried in its place");
        true
    }

    /// A source gives up its place, which is held against it no further.
    fn displace(&mut self, source: SourceKey, why: &str) {
        self.displaced = Some(Instant::now());
        self.plan.leave(source);
        // Of what it alone has, it is known who that is.
        for key in self.plan.orphans() {
            self.looked_for.remove(key);
        }
        self.measured.left(source);
        let Some(running) = self.sources.remove(&source) else { return };
        self.job.source_lost(&running.peer, why);
        self.gone.insert(source, running.peer);
    }

    /// Nobody has this file now: it stays on the list for a later run. That says nothing of the others.
    pub(super) fn missing(&mut self, key: FileKey) {
        let Some(file) = self.strike(key) else { return };
        // Why a source was lost tells more than that there is none.
        self.lacking.why.get_or_insert_with(|| format!("nobody who can be reached has {} now", file.name));
        self.missing += 1;
        self.missing_in_a_row += 1;
    }
}
