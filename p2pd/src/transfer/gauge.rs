//! The measurements of one transfer: of the last seconds, and of all that it ran since the daemon's start.
//!
//! A job owns one. Its runs tell it where they are, whom they ask and what their sink does, and have a sample kept every
//! second; those of a directory's long files are runs beside the one over all of it; [`why`](super::why) reads it, and [`bound`](super::bound) says what it means.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use p2p_proto::control::PeerName;

use super::measure::{Cpu, Doing, Meter, Spent, Stopwatch, Work, Worked};
use super::plan::SourceKey;
use crate::discovery::PeerRef;

/// How far what is shown of the present reaches back, and how often a sample is kept.
const WINDOW: Duration = Duration::from_secs(10);
const SAMPLED_EVERY: Duration = Duration::from_secs(1);
/// Time over which the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(3);

/// What was found in the part file when the transfer went on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Resumed {
    /// Pieces that were remembered as proven, and were not read again; where it was opened often, the first time.
    pub(super) remembered: u32,
    /// Pieces that were not, and were read and hashed; and how many bytes that were.
    pub(super) hashed: u32,
    pub(super) hashed_bytes: u64,
    /// Of them, those that proved themselves.
    pub(super) proven: u32,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// None runs.
    #[default]
    Rests,
    /// Sources are looked for, and one that gives the manifest.
    Looks,
    /// The part file is made, or looked through.
    Prepares,
    /// Pieces come.
    Pulls,
    /// The file gets its name.
    Publishes,
    /// A plain peer gives the file in one message, of which nothing can be measured.
    Plain,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Missing {
    /// Pieces that are not here.
    pub(super) pieces: u32,
    /// Of them, those that no source has that is connected.
    pub(super) rare: u32,
}

/// How the looks for a source, or for room on the disk, went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) since_ms: i64,
    pub(super) tries: u32,
    /// When the next one begins.
    pub(super) next_ms: i64,
    /// It waits for room on the disk.
    pub(super) is_full: bool,
}

/// A source in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceWindow {
    pub(super) peer: PeerName,
    pub(super) doing: Doing,
    /// For how long.
    pub(super) since: Duration,
    pub(super) spent: Spent,
    /// Requests that it has open.
    pub(super) open: usize,
}

impl SourceWindow {
    /// The same peer in another run: it is told as the one that gives more of the two.
    fn add(&mut self, other: Self) {
        if other.spent.received > self.spent.received {
            (self.doing, self.since) = (other.doing, other.since);
        }
        self.spent = self.spent + other.spent;
        self.open += other.open;
    }
}

/// What was measured between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Window {
    pub(super) over: Duration,
    pub(super) phase: Phase,
    /// Of all sources together.
    pub(super) spent: Spent,
    pub(super) worked: Worked,
    pub(super) cpu: Cpu,
    /// Those of the run.
    pub(super) sources: Vec<SourceWindow>,
    pub(super) missing: Missing,
    pub(super) resumed: Option<Resumed>,
    pub(super) waits: Option<Waits>,
}

/// The measurements of a job.
#[derive(Debug, Default)]
pub(super) struct Gauge(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    progress: VecDeque<(Instant, u64)>,
    phase: Phase,
    /// Those that go on now, and what their sinks have done.
    runs: BTreeMap<RunKey, Arc<Work>>,
    next_run: RunKey,
    sources: Vec<Metered>,
    samples: VecDeque<Sample>,
    /// Of the runs that go on; of the last one while there is none.
    missing: BTreeMap<RunKey, Missing>,
    /// Of sources and runs that are over.
    spent: Spent,
    worked: Worked,
    cpu: Cpu,
    ran: Duration,
    resumed: Option<Resumed>,
    waits: Option<Waits>,
}

/// The number of a run of a job.
type RunKey = u64;

#[derive(Debug)]
struct Metered {
    key: (RunKey, SourceKey),
    peer: PeerName,
    meter: Arc<Meter>,
    open: usize,
}

/// What had been measured at some moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    spent: Spent,
    worked: Worked,
    cpu: Cpu,
    sources: Vec<((RunKey, SourceKey), Spent)>,
}

impl Board {
    fn sample(&self, now: Instant, cpu: Cpu) -> Sample {
        let sources: Vec<_> =
            self.sources.iter().map(|source| (source.key, source.meter.read(now).2)).collect();
        let spent = sources.iter().fold(self.spent, |sum, (_, spent)| sum + *spent);
        let worked = self.runs.values().fold(self.worked, |sum, work| sum.plus(work.read()));
        Sample { at: now, spent, worked, cpu, sources }
    }

    fn keep(&mut self, sample: Sample) {
        if let Some(last) = self.samples.back() {
            self.cpu = self.cpu.plus(sample.cpu.minus(last.cpu));
            self.ran += sample.at.saturating_duration_since(last.at);
        }
        // The oldest that is kept is as old as the window, or a little older.
        let is_old = |kept: &Sample| sample.at.saturating_duration_since(kept.at) >= WINDOW;
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

impl Gauge {
    /// How many bytes are here now; how many come in a second.
    pub(super) fn progressed(&self, done: u64, now: Instant) -> f64 {
        let samples = &mut self.lock().progress;
        samples.push_back((now, done));
        while samples.len() > 2 && samples.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            samples.pop_front();
        }
        samples.front().map_or(0.0, |(at, before)| {
            let secs = (now - *at).as_secs_f64();
            if secs > 0.0 { done.saturating_sub(*before) as f64 / secs } else { 0.0 }
        })
    }

    /// What came before says nothing of how fast it goes on.
    pub(super) fn paused(&self) {
        self.lock().progress.clear();
    }

    /// It waits before the next try, for a source or for room on the disk.
    pub(super) fn waits(&self, now_ms: i64, wait: Duration, is_full: bool) {
        let board = &mut *self.lock();
        let before = board.waits.filter(|before| before.is_full == is_full);
        let (since_ms, tries) = before.map_or((now_ms, 0), |before| (before.since_ms, before.tries));
        let next_ms = now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        board.waits = Some(Waits { since_ms, tries: tries + 1, next_ms, is_full });
    }

    /// There is nobody to ask: what some lacked is of no interest any more.
    pub(super) fn found_nobody(&self) {
        self.lock().missing.values_mut().for_each(|missing| missing.rare = 0);
    }

    /// The part file was opened. Whether it was for the first time.
    pub(super) fn resumed(&self, resumed: Resumed) -> bool {
        let kept = &mut self.lock().resumed;
        let is_first = kept.is_none();
        let sum = kept.get_or_insert(Resumed { remembered: resumed.remembered, ..Resumed::default() });
        sum.hashed += resumed.hashed;
        sum.hashed_bytes += resumed.hashed_bytes;
        sum.proven += resumed.proven;
        is_first
    }

    /// Where the run is.
    pub(super) fn enters(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// Pieces are pulled from now on, until what this gives is dropped.
    pub(super) fn pulls(&self, work: Arc<Work>) -> Pulling<'_> {
        let board = &mut *self.lock();
        if board.runs.is_empty() {
            board.missing.clear();
        }
        let run = board.next_run;
        board.next_run += 1;
        board.phase = Phase::Pulls;
        board.runs.insert(run, work);
        if board.runs.len() == 1 {
            let sample = board.sample(Instant::now(), Cpu::now());
            board.samples = VecDeque::from([sample]);
        }
        Pulling { gauge: self, run }
    }

    /// What was measured in the last seconds.
    pub(super) fn window(&self, now: Instant, cpu: Cpu) -> Window {
        let board = &*self.lock();
        let fresh = board.sample(now, cpu);
        let oldest = board.samples.front().unwrap_or(&fresh);
        let mut sources: Vec<SourceWindow> = Vec::new();
        for source in &board.sources {
            let (doing, since, spent) = source.meter.read(now);
            let before = oldest.sources.iter().find(|(key, _)| *key == source.key);
            let spent = spent - before.map_or_else(Spent::default, |(_, spent)| *spent);
            let one = SourceWindow { peer: source.peer.clone(), doing, since, spent, open: source.open };
            match sources.iter_mut().find(|known| known.peer == one.peer) {
                Some(known) => known.add(one),
                None => sources.push(one),
            }
        }
        Window {
            over: now.saturating_duration_since(oldest.at),
            spent: fresh.spent - oldest.spent,
            worked: fresh.worked.minus(oldest.worked),
            cpu: cpu.minus(oldest.cpu),
            sources,
            ..board.outside()
        }
    }

    /// What was measured since the daemon's start.
    pub(super) fn overall(&self) -> Window {
        let board = &*self.lock();
        let (over, cpu) = (board.ran, board.cpu);
        Window { over, spent: board.spent, worked: board.worked, cpu, ..board.outside() }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// What needs no two moments.
    fn outside(&self) -> Window {
        let Self { phase, resumed, waits, .. } = *self;
        let missing = self.missing.values().fold(Missing::default(), |sum, missing| Missing {
            pieces: sum.pieces.saturating_add(missing.pieces),
            rare: sum.rare.saturating_add(missing.rare),
        });
        Window { phase, missing, resumed, waits, ..Window::default() }
    }
}

/// A run that pulls pieces: what it tells the job's gauge.
#[derive(Debug)]
pub(super) struct Pulling<'a> {
    gauge: &'a Gauge,
    run: RunKey,
}

impl Pulling<'_> {
    /// A source more.
    pub(super) fn joined(&self, key: SourceKey, peer: &PeerRef) -> Stopwatch {
        let meter = Arc::new(Meter::new(Instant::now()));
        let metered = Metered { key: (self.run, key), peer: peer.into(), meter: Arc::clone(&meter), open: 0 };
        self.gauge.lock().sources.push(metered);
        Stopwatch::of(meter)
    }

    /// A source less.
    pub(super) fn left(&self, key: SourceKey) {
        self.gauge.lock().left(|source| source.key == (self.run, key));
    }

    /// Bytes of somebody came, and were true: whatever it waited for is over.
    pub(super) fn got(&self) {
        self.gauge.lock().waits = None;
    }

    /// Takes down what is missing and asked for, and keeps a sample where a second has passed since the last.
    pub(super) fn look(
        &self,
        now: Instant,
        missing: impl FnOnce() -> Missing,
        open: impl Fn(SourceKey) -> usize,
    ) {
        let board = &mut *self.gauge.lock();
        board.missing.insert(self.run, missing());
        let own = board.sources.iter_mut().filter(|source| source.key.0 == self.run);
        own.for_each(|source| source.open = open(source.key.1));
        let last = board.samples.back();
        if last.is_some_and(|last| now.saturating_duration_since(last.at) < SAMPLED_EVERY) {
            return;
        }
        let sample = board.sample(now, Cpu::now());
        board.keep(sample);
    }
}

impl Board {
    /// Sources less. What they spent stays part of the whole.
    fn left(&mut self, is_it: impl Fn(&Metered) -> bool) {
        let now = Instant::now();
        let gone = self.sources.extract_if(.., |source| is_it(source));
        self.spent = gone.fold(self.spent, |sum, source| sum + source.meter.read(now).2);
    }
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        let board = &mut *self.gauge.lock();
        let last = board.sample(Instant::now(), Cpu::now());
        board.keep(last);
        let had_sources = !board.sources.is_empty();
        board.left(|source| source.key.0 == self.run);
        if let Some(work) = board.runs.remove(&self.run) {
            board.worked = board.worked.plus(work.read());
        }
        if !board.runs.is_empty() {
            board.missing.remove(&self.run);
            return;
        }
        board.samples.clear();
        // What nobody had is known for as long as there is nobody else.
        if !had_sources {
            board.missing.values_mut().for_each(|missing| missing.rare = 0);
        }
        // A file that has its name is yet to be entered into the catalog.
        if board.phase != Phase::Publishes {
            board.phase = Phase::Rests;
        }
    }
}

#[cfg(test)]
#[path = "gauge_tests.rs"]
mod tests;
