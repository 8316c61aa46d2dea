//! A whole directory as one transfer: thousands of small files, many at a time on one stream per source, and its long files
//! by the engine that single files have.
//!
//! What is to be fetched is [listed](list) in the store before anything is fetched. A run works the list off: [`small`]
//! asks for the files that are short enough to be proven whole, the [`plan`] decides who is asked for which, a [`stream`]
//! speaks with one source, a [`batch`] makes many files durable at once and gives them their names; beside that, [`long`] runs
//! the others, a few at a time: whoever gives the one kind slowly holds up nothing of the other. A file is struck off the
//! list only when it is here under its name, durable. Called by `job`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use p2p_content::{ContentHash, FileName};
use tokio_util::sync::CancellationToken;

use super::job::Job;
use super::jobs::Shared;
use super::outcome::Outcome;
use super::sink::{self, blocking};
use super::store::{Store, StoreError, TreeLeft};

mod batch;
mod list;
mod long;
mod pattern;
mod plan;
#[cfg(test)]
mod power_cut;
mod small;
mod stream;
mod verdict;

pub use list::{Conflict, TreeError, TreeFileFound, TreeFiles, TreeFound, TreeOrder};
pub use pattern::{Pattern, PatternError};

/// Bytes of a file that is fetched whole and proven as a whole; longer ones are fetched in pieces.
const LONGEST: u64 = 4 << 20;
/// How long after a failure long files are tried again while short ones come.
const AGAIN: Duration = Duration::from_secs(15);
/// What a disk gives at least to a file.
const BLOCK: u64 = 4096;

/// How far a run is.
struct Tally {
    /// Bytes of the files that are here under their names.
    bytes: AtomicU64,
    /// How many those are.
    files: AtomicU64,
    /// Bytes of short files that are proven and have no name yet, and those that are proven of long ones.
    unnamed: AtomicU64,
    begun: AtomicU64,
    /// Short files that were to be fetched when the run began.
    short: u64,
}

impl Tally {
    /// So many more are here.
    fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Shows it.
    fn show(&self, job: &Job) {
        let proven = [&self.bytes, &self.unnamed, &self.begun];
        job.progressed(proven.map(|bytes| bytes.load(Relaxed)).iter().sum());
        let files = self.files.load(Relaxed);
        job.change(|transfer| transfer.files_done = Some(files));
    }
}

/// A run of a directory's transfer.
#[derive(Clone, Copy)]
struct Run<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Arc<Job>,
    tally: &'a Tally,
    stop: &'a CancellationToken,
}

/// Why files are missing still after a run over them.
#[derive(Default)]
struct Lacking {
    /// What is said of one that nobody gave.
    why: Option<String>,
    /// Files that do not fit on the disk, and what is said of the first of them.
    full: u64,
    first_full: Option<String>,
    /// Some were told as short and are long.
    are_longer: bool,
}

impl Lacking {
    /// This file does not fit; the others may.
    fn is_full(&mut self, name: &FileName, why: &str) {
        self.full += 1;
        self.first_full.get_or_insert_with(|| format!("{name}: {why}"));
    }

    /// Of both.
    fn and(self, other: Self) -> Self {
        Self {
            why: self.why.or(other.why),
            full: self.full + other.full,
            first_full: self.first_full.or(other.first_full),
            are_longer: self.are_longer || other.are_longer,
        }
    }
}

/// Runs a directory's transfer until something ends it.
pub(super) async fn run(shared: &Arc<Shared>, job: &Arc<Job>, stop: &CancellationToken) -> Outcome {
    match try_run(shared, job, stop).await {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

async fn try_run(shared: &Arc<Shared>, job: &Arc<Job>, stop: &CancellationToken) -> Result<Outcome, Outcome> {
    let before = job.snapshot();
    let (files, size) = (before.files.unwrap_or_default(), before.size.unwrap_or_default());
    let left = shared.store.files_left(job.id).await?;
    let (short, claimed) = shared.store.room_for(job.id, 0..=LONGEST, BLOCK).await?;
    let tally = Tally {
        bytes: AtomicU64::new(size.saturating_sub(left.bytes)),
        files: AtomicU64::new(files.saturating_sub(left.files + left.failed)),
        unnamed: AtomicU64::new(0),
        begun: AtomicU64::new(0),
        short,
    };
    tally.show(job);
    job.forget_shorter();
    // Before a long file takes it.
    job.claim(claimed);
    // What ends the short ones is tried again soon, and not when long ones are here.
    let (stop_long, short_over) = (stop.child_token(), CancellationToken::new());
    let run = Run { shared, job, tally: &tally, stop };
    let run_long = Run { stop: &stop_long, ..run };
    let short = async {
        let ended = small::run(&run).await;
        job.claim(0);
        short_over.cancel();
        if ended.is_err() {
            stop_long.cancel();
        }
        ended
    };
    let (short, long) = tokio::join!(short, long_beside(&run_long, &short_over));
    let (short, mut long) = match (short, long) {
        (Err(_), _) | (_, Err(_)) if stop.is_cancelled() => return Err(Outcome::Stopped),
        (short, long) => (short?, long?),
    };
    if long.full > 0 && claimed > 0 || short.are_longer {
        // Of the short ones not all may have come: now there is what room there is.
        long = long::run(&run).await?;
    }
    let lacking = short.and(long);
    tally.show(job);
    let left = shared.store.files_left(job.id).await?;
    Ok(match (left.files, &left.first_failed) {
        (0, None) => Outcome::Directory { path: path_of(shared, &before.name) },
        (0, Some((name, why))) => {
            let others = match left.failed - 1 {
                0 => String::new(),
                others => format!(", and {others} more could not get their names"),
            };
            Outcome::Failed(format!("{name}: {why}{others}; all other files are here"))
        }
        (missing, _) => {
            let others = missing.saturating_sub(lacking.full);
            let why = lacking.why.unwrap_or_else(|| "nobody who can be reached has them".to_owned());
            match lacking.first_full {
                None => Outcome::NoSources { why: format!("{}: {why}", named(&left)), serving: None },
                Some(full) => {
                    let fits = match others {
                        0 => "all others are here".to_owned(),
                        others => format!("{others} others are missing: {why}"),
                    };
                    let wait = match lacking.full {
                        1 => "1 of its files waits".to_owned(),
                        some => format!("{some} of its files wait"),
                    };
                    Outcome::Full(format!("{wait} for room on the disk; {full}; {fits}"))
                }
            }
        }
    })
}

/// The long files while short ones come. What keeps them from coming now is not what the others are to wait for.
async fn long_beside(run: &Run<'_>, short_over: &CancellationToken) -> Result<Lacking, Outcome> {
    loop {
        let why = match long::run(run).await {
            Err(Outcome::Blocked(why)) if !short_over.is_cancelled() => why,
            ended => return ended,
        };
        run.job.change(|transfer| transfer.reason = Some(why.clone()));
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = short_over.cancelled() => return Err(Outcome::Blocked(why)),
        }
        run.job.change(|transfer| transfer.reason = None);
    }
}

/// `300 files are missing (a, b, c and 297 more)`.
fn named(left: &TreeLeft) -> String {
    let others = match left.files - left.first.len() as u64 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    format!("{} files are missing ({}{others})", left.files, left.first.join(", "))
}

/// The directory that the files are in.
fn path_of(shared: &Shared, text: &str) -> PathBuf {
    let dir = shared.shares.downloads();
    let pattern = Pattern::parse(text).ok();
    let directory = pattern.as_ref().and_then(Pattern::directory).map(FileName::parse);
    match directory {
        Some(Ok(directory)) => dir.absolute(&directory),
        _ => dir.path().to_owned(),
    }
}

/// What the keys of a directory's parts begin with.
fn beginning(id: u64) -> String {
    format!("tree-{id}-")
}

/// The key of a file's part.
fn part_key(id: u64, name: &FileName) -> String {
    let hash = ContentHash::of(name.as_str().as_bytes()).to_string();
    format!("{}{}", beginning(id), &hash[..32])
}

/// What the keys of the parts begin with that open transfers of directories have.
pub(super) async fn part_keys(store: &Store, open: &[&Job]) -> Result<Vec<String>, StoreError> {
    let mut keys = Vec::new();
    for job in open.iter().filter(|job| job.snapshot().files.is_some()) {
        keys.push(beginning(job.id));
        for part in store.parts_of(job.id).await? {
            keys.extend(Job::new(part.transfer, part.terms).part_key());
        }
    }
    Ok(keys)
}

/// Removes what a directory's transfer that has ended leaves of unfinished files.
pub(super) async fn clear(shared: &Shared, job: &Job) {
    if job.snapshot().files.is_none() {
        return;
    }
    let cleared = async {
        for beginning in part_keys(&shared.store, &[job]).await? {
            discard(shared, beginning).await?;
        }
        Ok::<_, sink::SinkError>(())
    };
    if let Err(error) = cleared.await {
        // They are removed when the daemon next starts.
        let id = job.id;
        tracing::warn!(transfer_id = id, %error, "the unfinished files of transfer {id} stay for now: {error}");
    }
}

/// Removes the parts whose keys begin so.
async fn discard(shared: &Shared, beginning: String) -> Result<(), sink::SinkError> {
    let dir = shared.shares.downloads();
    blocking(move || {
        for key in dir.parts()?.into_iter().filter(|key| key.starts_with(&beginning)) {
            dir.remove_part(&key)?;
        }
        Ok(())
    })
    .await
}
