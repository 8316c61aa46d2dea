//! What a transfer spends its time with, measured while it goes: who waits for what, and what the disk and the
//! processors take.
//!
//! A source's task turns its [`Stopwatch`] when it begins to wait for something else, and the sink adds to its [`Work`]: a
//! piece costs some clock readings, and a chunk one store. The [`gauge`](super::gauge) collects all of it.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::limits::Held;

/// What a source is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Doing {
    /// It is being connected with.
    #[default]
    Connecting,
    /// It was asked for bytes, and they have not come.
    Bytes,
    /// The same, and it says that a limit of its own holds them back.
    TheirLimit,
    /// It would be asked for more if this peer's limit allowed it.
    OurLimit,
    /// The same, and it is the limit that this peer has for this source alone.
    OurLimitForIt,
    /// What it gave waits for the disk, or to be proven.
    Sink,
    /// It has nothing that is missing and nobody else was asked for.
    Idle,
}

impl Doing {
    /// What a source is at that would be asked for more.
    pub(super) fn held(held: Held) -> Self {
        if held.is_own { Self::OurLimitForIt } else { Self::OurLimit }
    }
}

/// How many there are.
const DOINGS: usize = Doing::Idle as usize + 1;

/// Time by what it was spent with, and the bytes that came meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    by: [Duration; DOINGS],
    pub(super) received: u64,
}

impl Spent {
    /// Time spent with this.
    pub(super) fn with(&self, doing: Doing) -> Duration {
        self.by[doing as usize]
    }

    /// All of it.
    pub(super) fn all(&self) -> Duration {
        self.by.iter().sum()
    }

    #[cfg(test)]
    pub(super) fn of(by: &[(Doing, Duration)], received: u64) -> Self {
        let mut spent = Self { received, ..Self::default() };
        by.iter().for_each(|(doing, time)| spent.by[*doing as usize] += *time);
        spent
    }
}

impl Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let by = std::array::from_fn(|at| self.by[at] + other.by[at]);
        Self { by, received: self.received + other.received }
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let by = std::array::from_fn(|at| self.by[at].saturating_sub(before.by[at]));
        Self { by, received: self.received.saturating_sub(before.received) }
    }
}

/// What one source is at, and was.
#[derive(Debug)]
pub(super) struct Meter {
    now: Mutex<Turn>,
    /// Bytes that it gave. Written by its task alone.
    received: AtomicU64,
}

#[derive(Debug)]
struct Turn {
    doing: Doing,
    since: Instant,
    spent: [Duration; DOINGS],
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        let turn = Turn { doing: Doing::default(), since: now, spent: [Duration::ZERO; DOINGS] };
        Self { now: Mutex::new(turn), received: AtomicU64::new(0) }
    }

    pub(super) fn turn(&self, doing: Doing, now: Instant) {
        let mut turn = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, took) = (turn.doing as usize, now.saturating_duration_since(turn.since));
        turn.spent[before] += took;
        (turn.doing, turn.since) = (doing, now);
    }

    /// What it is at, for how long, and what it was at until now.
    pub(super) fn read(&self, now: Instant) -> (Doing, Duration, Spent) {
        let turn = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let took = now.saturating_duration_since(turn.since);
        let mut by = turn.spent;
        by[turn.doing as usize] += took;
        (turn.doing, took, Spent { by, received: self.received.load(Relaxed) })
    }
}

/// The end of a [`Meter`] that a source's task holds.
#[derive(Debug)]
pub(super) struct Stopwatch {
    meter: Arc<Meter>,
    doing: Doing,
    received: u64,
}

impl Stopwatch {
    pub(super) fn of(meter: Arc<Meter>) -> Self {
        Self { meter, doing: Doing::default(), received: 0 }
    }

    /// It is at this from now on. Costs a comparison where it was already.
    pub(super) fn turn(&mut self, doing: Doing) {
        if self.doing != doing {
            self.doing = doing;
            self.meter.turn(doing, Instant::now());
        }
    }

    /// So many bytes more came.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received += bytes;
        self.meter.received.store(self.received, Relaxed);
    }
}

/// What a run's sink has done so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    proved: Done,
    written: Done,
    flushed: Done,
}

#[derive(Debug, Default)]
struct Done {
    bytes: AtomicU64,
    nanos: AtomicU64,
}

impl Done {
    fn add(&self, bytes: u64, took: Duration) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> (u64, Duration) {
        (self.bytes.load(Relaxed), Duration::from_nanos(self.nanos.load(Relaxed)))
    }
}

impl Work {
    /// So many bytes were proven, true or false, in this time of one thread.
    pub(super) fn proved(&self, bytes: u64, took: Duration) {
        self.proved.add(bytes, took);
    }

    /// So many bytes were written.
    pub(super) fn wrote(&self, bytes: u64, took: Duration) {
        self.written.add(bytes, took);
    }

    /// What was written was made durable.
    pub(super) fn flushed(&self, took: Duration) {
        self.flushed.add(0, took);
    }

    pub(super) fn read(&self) -> Worked {
        let ((proved, proving), (written, writing)) = (self.proved.read(), self.written.read());
        Worked { proved, proving, written, writing, flushing: self.flushed.read().1 }
    }
}

/// Bytes, and the time that threads needed for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Worked {
    pub(super) proved: u64,
    pub(super) proving: Duration,
    pub(super) written: u64,
    pub(super) writing: Duration,
    pub(super) flushing: Duration,
}

impl Worked {
    fn combine(
        self,
        other: Self,
        bytes: fn(u64, u64) -> u64,
        time: fn(Duration, Duration) -> Duration,
    ) -> Self {
        Self {
            proved: bytes(self.proved, other.proved),
            proving: time(self.proving, other.proving),
            written: bytes(self.written, other.written),
            writing: time(self.writing, other.writing),
            flushing: time(self.flushing, other.flushing),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.combine(other, |one, other| one + other, |one, other| one + other)
    }

    pub(super) fn minus(self, before: Self) -> Self {
        self.combine(before, u64::saturating_sub, Duration::saturating_sub)
    }
}

/// Processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cpu {
    /// Of the thread that does all of the network.
    pub(super) network: Duration,
    /// Of the whole daemon.
    pub(super) daemon: Duration,
}

impl Cpu {
    /// So far, where the caller is the thread of the network.
    pub(super) fn now() -> Self {
        let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        Self { network: read(ClockId::ThreadCPUTime), daemon: read(ClockId::ProcessCPUTime) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { network: self.network + other.network, daemon: self.daemon + other.daemon }
    }

    pub(super) fn minus(self, before: Self) -> Self {
        Self {
            network: self.network.saturating_sub(before.network),
            daemon: self.daemon.saturating_sub(before.daemon),
        }
    }
}
