//! A look at everything that somebody waits for: until what it finds is in the catalog.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Refreshed, ShareError};
use crate::catalog::Applied;

/// How long it waits, after the scans, for who is writing a file to close it, and then from one such look to the next.
/// The sign that a file was closed may be on its way while the scan ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the result of a refresh goes.
pub(super) type Reply = oneshot::Sender<Result<Refreshed, ShareError>>;

/// Those who wait for a refresh, and what the one that runs still waits for.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    /// For the next one: the one that runs may have passed already what they want seen.
    next: Vec<Reply>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    replies: Vec<Reply>,
    /// Shares, by their life, whose scan has not ended.
    scans: HashSet<u64>,
    /// Files that the scans have found and that are not in the catalog.
    files: HashSet<(u64, Arc<str>)>,
    /// When those are dropped that someone is writing.
    drop_open_at: Instant,
    applied: Applied,
}

impl Refreshes {
    pub(super) fn ask(&mut self, reply: Reply) {
        self.next.push(reply);
    }

    /// Whether one is wanted and none runs.
    pub(super) fn is_wanted(&self) -> bool {
        self.running.is_none() && !self.next.is_empty()
    }

    /// One runs from now on; it waits for a scan of each of these shares that starts after this.
    pub(super) fn begin(&mut self, shares: impl Iterator<Item = u64>, now: Instant) {
        self.running = Some(Running {
            replies: std::mem::take(&mut self.next),
            scans: shares.collect(),
            files: HashSet::new(),
            drop_open_at: now,
            applied: Applied::default(),
        });
    }

    /// Whether it waits for a scan of this share.
    pub(super) fn wants_scan(&self, share: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.scans.contains(&share))
    }

    /// A scan that it waited for has ended; these files of the share are on their way.
    pub(super) fn scanned<'a>(
        &mut self,
        share: u64,
        files: impl Iterator<Item = &'a Arc<str>>,
        now: Instant,
    ) {
        if let Some(running) = &mut self.running
            && running.scans.remove(&share)
        {
            running.drop_open_at = now + PATIENCE;
            running.files.extend(files.map(|name| (share, Arc::clone(name))));
        }
    }

    /// What is known of the file is in the catalog, or it turned out that it must be waited for.
    pub(super) fn settled(&mut self, share: u64, name: &Arc<str>) {
        if let Some(running) = &mut self.running
            && !running.files.is_empty()
        {
            running.files.remove(&(share, Arc::clone(name)));
        }
    }

    /// The share is not available any more.
    pub(super) fn lost(&mut self, share: u64) {
        if let Some(running) = &mut self.running {
            running.scans.remove(&share);
            running.files.retain(|(of, _)| *of != share);
        }
    }

    /// When [`drop_open`](Refreshes::drop_open) is to be called.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let running = self.running.as_ref().filter(|running| running.scans.is_empty())?;
        (!running.files.is_empty()).then_some(running.drop_open_at)
    }

    /// If it is time, stops waiting for the files that someone is writing.
    pub(super) fn drop_open(&mut self, now: Instant, is_open: impl Fn(u64, &str) -> bool) {
        if self.next_at().is_some_and(|at| at <= now)
            && let Some(running) = &mut self.running
        {
            running.files.retain(|(share, name)| !is_open(*share, name));
            running.drop_open_at = now + PATIENCE;
        }
    }

    /// Changes went into the catalog.
    pub(super) fn applied(&mut self, applied: Applied) {
        if let Some(running) = &mut self.running {
            running.applied.changed += applied.changed;
            running.applied.removed += applied.removed;
        }
    }

    /// If it has all that it waited for: those who wait, and what came of it.
    pub(super) fn take_ended(&mut self) -> Option<(Vec<Reply>, Applied)> {
        let running = self.running.take_if(|running| running.scans.is_empty() && running.files.is_empty())?;
        Some((running.replies, running.applied))
    }
}
