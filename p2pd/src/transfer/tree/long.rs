//! One run over the long files of a directory: a few at a time, each by the engine that a single file has, with a transfer
//! of its own that nobody else sees: what is proven of it is remembered there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use p2p_content::{ContentHash, FileName};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::super::fetch::fresh;
use super::super::gauge::Missing;
use super::super::job::Job;
use super::super::jobs::Shared;
use super::super::outcome::Outcome;
use super::super::sink;
use super::super::store::{StoreError, Terms, TreeFile};
use super::{LONGEST, Lacking, Run, batch};

/// Files that are fetched at once.
const AT_ONCE: usize = 3;
/// Files of the list that are read at once.
const PAGE: usize = 64;
/// How often what is shown is brought up to date.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Works off the list until it is done or nobody has what is left, or it does not fit: that is what it returns.
pub(super) async fn run(run: &Run<'_>) -> Result<Lacking, Outcome> {
    let Run { shared, job, tally, stop } = *run;
    let mut lacking = Lacking::default();
    // Whom the files' own runs ask, and what is done with what comes, they tell themselves.
    let measured = job.gauge.pulls(Arc::default());
    let mut known: HashMap<(String, Option<String>), Arc<Job>> = HashMap::new();
    for part in shared.store.parts_of(job.id).await? {
        let key = (part.transfer.name.clone(), part.transfer.content.clone());
        known.insert(key, Arc::new(Job::part(part.transfer, part.terms, Arc::clone(job))));
    }
    let begun = Begun(&tally.begun);
    // What ends one of them ends the others, each of which puts its things in order first.
    let (others, mut broken) = (stop.child_token(), None);
    let mut after: Option<(FileName, ContentHash)> = None;
    let mut shown = interval(SHOWN_EVERY);
    shown.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let page = shared.store.files_after(job.id, after.take(), LONGEST + 1..=u64::MAX, PAGE).await?;
        let Some(last) = page.last() else { return Ok(lacking) };
        after = Some((last.name.clone(), last.content));
        let mut waiting = page.into_iter();
        let mut running = FuturesUnordered::new();
        let mut parts: Vec<Arc<Job>> = Vec::new();
        loop {
            while broken.is_none()
                && running.len() < AT_ONCE
                && let Some(file) = waiting.next()
            {
                match part(shared, job, &known, &file).await {
                    Ok(part) => {
                        parts.push(Arc::clone(&part));
                        let stop = &others;
                        running
                            .push(async move { (fetch(shared, job, &part, &file, stop).await, part, file) });
                    }
                    Err(error) => {
                        broken = Some(error.into());
                        others.cancel();
                    }
                }
            }
            tokio::select! {
                ended = running.next() => match ended {
                    None => break,
                    Some((ended, part, file)) => {
                        parts.retain(|other| other.id != part.id);
                        begun.are(&parts);
                        match ended {
                            Ok(Ended::Here(size)) => tally.add(1, size),
                            Ok(Ended::Failed) => {}
                            Ok(Ended::Missing(why)) => lacking.why = Some(format!("{}: {why}", file.name)),
                            Ok(Ended::Full(why)) => lacking.is_full(&file.name, &why),
                            Err(outcome) => {
                                broken.get_or_insert(outcome);
                                others.cancel();
                            }
                        }
                    }
                },
                _ = shown.tick() => {
                    begun.are(&parts);
                    tally.show(job);
                    measured.look(Instant::now(), Missing::default, |_| 0);
                }
            }
        }
        if let Some(outcome) = broken {
            return Err(outcome);
        }
    }
}

/// Bytes of the files that are under way; none are once this is dropped.
struct Begun<'a>(&'a AtomicU64);

impl Begun<'_> {
    fn are(&self, parts: &[Arc<Job>]) {
        self.0.store(parts.iter().map(|part| part.snapshot().done_bytes).sum(), Relaxed);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// The transfer of a long file: the one that an earlier run began, or a new one.
async fn part(
    shared: &Shared,
    job: &Arc<Job>,
    known: &HashMap<(String, Option<String>), Arc<Job>>,
    file: &TreeFile,
) -> Result<Arc<Job>, StoreError> {
    if let Some(part) = known.get(&(file.name.to_string(), Some(file.content.to_string()))) {
        return Ok(Arc::clone(part));
    }
    let transfer = fresh(file.name.clone(), Some(file.content), Some(file.size));
    let terms = Terms { only_from: job.terms.only_from.clone(), name_there: None };
    let transfer = shared.store.add_part(job.id, transfer, terms.clone()).await?;
    Ok(Arc::new(Job::part(transfer, terms, Arc::clone(job))))
}

/// How the run of one file ended, where the others can go on.
enum Ended {
    /// It has so many bytes.
    Here(u64),
    /// It cannot get its name.
    Failed,
    /// Nobody has it now.
    Missing(String),
    /// It does not fit on the disk now.
    Full(String),
}

async fn fetch(
    shared: &Arc<Shared>,
    job: &Job,
    part: &Arc<Job>,
    file: &TreeFile,
    stop: &CancellationToken,
) -> Result<Ended, Outcome> {
    match Box::pin(part.once(shared, None, stop)).await {
        Outcome::Whole { path, manifest, serving } => {
            let size = manifest.pieces().len();
            if let Err(why) = part.entered(shared, path, &manifest).await {
                return Err(Outcome::Blocked(why));
            }
            if let Some(serving) = serving {
                serving.done();
            }
            shared.store.strike_files(job.id, vec![(file.name.clone(), file.content)]).await?;
            shared.store.remove_part(part.id).await?;
            Ok(Ended::Here(size))
        }
        // Other directories may take theirs.
        Outcome::Failed(why) | Outcome::Closed(why) => {
            batch::fail(shared, job.id, file.name.clone(), file.content, why).await?;
            if let Some(key) = part.part_key() {
                sink::discard(shared.shares.downloads(), key).await?;
            }
            shared.store.remove_part(part.id).await?;
            Ok(Ended::Failed)
        }
        Outcome::NoSources { why, .. } => {
            forget_empty(shared, part).await?;
            Ok(Ended::Missing(why))
        }
        Outcome::Full(why) => {
            forget_empty(shared, part).await?;
            Ok(Ended::Full(why))
        }
        other => Err(other),
    }
}

/// Forgets the transfer of a file of which nothing is here, and begins another one when somebody has it: of very many such
/// files each would be held in memory.
async fn forget_empty(shared: &Shared, part: &Job) -> Result<(), StoreError> {
    match shared.store.has_proven(part.id).await? {
        true => Ok(()),
        false => shared.store.remove_part(part.id).await,
    }
}
