//! The answer to "what bounds this transfer": what was measured, with the verdict. Called by the control API.

use std::time::{Duration, Instant};

use p2p_proto::control::{
    Bound, CpuWork, DiskWork, ResumedFile, TimeShares, TransferState, WaitsFor, Why, WhySource,
};

use super::bound::{self, Seen};
use super::gauge::{Resumed, SourceWindow, Window};
use super::jobs::Transfers;
use super::measure::{Cpu, Doing, Worked};
use crate::discovery::now_ms;

impl Transfers {
    /// What bounds the transfer of this number, from what was measured; `None` where there is none.
    pub fn why(&self, id: u64) -> Option<Why> {
        let job = self.lock().get(&id).cloned()?;
        let is_other_running =
            |other: &p2p_proto::control::Transfer| other.state == TransferState::Running && other.id != id;
        let running = self.list().iter().filter(|other| is_other_running(other)).count();
        let transfer = job.snapshot();
        let window = match transfer.state.is_ended() {
            true => job.gauge.overall(),
            false => job.gauge.window(Instant::now(), Cpu::now()),
        };
        let limits = self.shared.limits.answer();
        let seen = Seen {
            transfer: &transfer,
            window: &window,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            limit: limits.down.bytes_per_sec,
            peer_limits: &limits.peers,
            running,
            now_ms: now_ms(),
        };
        Some(answer(&seen))
    }
}

fn answer(seen: &Seen<'_>) -> Why {
    let Seen { transfer, window, .. } = seen;
    let (bound_by, was_bound_by) = bound::judge(seen);
    // They are told with the verdict only: of one that runs well again they are history.
    let is_waiting = matches!(bound_by, Bound::NoSources | Bound::RarePieces | Bound::DiskFull);
    let waits = window.waits.filter(|_| is_waiting);
    let mut sources: Vec<_> = window.sources.iter().map(|source| source_of(source, seen)).collect();
    sources.sort_by_key(|source| std::cmp::Reverse(source.bytes_per_sec));
    Why {
        id: transfer.id,
        name: transfer.name.clone(),
        state: transfer.state,
        bound_by,
        was_bound_by,
        says: bound::say(seen, (bound_by, was_bound_by)),
        waits_since_ms: waits.map(|waits| waits.since_ms),
        tries: waits.map_or(0, |waits| waits.tries),
        next_try_ms: waits.map(|waits| waits.next_ms),
        measured_ms: millis(window.over),
        bytes_per_sec: bound::pace(window.spent.received, window.over).unwrap_or_default(),
        shares: rounded(bound::shares(&window.spent, &window.worked)),
        sources,
        disk: disk_of(window.worked),
        cpu: cpu_of(window, seen.cores),
        limit_bytes_per_sec: seen.limit,
        missing_pieces: window.missing.pieces,
        rare_pieces: window.missing.rare,
        resumed: window.resumed.map(resumed_of),
    }
}

fn source_of(source: &SourceWindow, seen: &Seen<'_>) -> WhySource {
    let window = seen.window;
    WhySource {
        peer: source.peer.clone(),
        bytes_per_sec: bound::pace(source.spent.received, window.over).unwrap_or_default(),
        open_requests: source.open as u64,
        waits_for: match source.doing {
            Doing::Connecting => WaitsFor::Connection,
            Doing::Bytes => WaitsFor::Bytes,
            Doing::TheirLimit => WaitsFor::TheirLimit,
            Doing::OurLimit => WaitsFor::OurLimit,
            Doing::OurLimitForIt => WaitsFor::OurLimitForIt,
            Doing::Sink => WaitsFor::Sink,
            Doing::Idle => WaitsFor::Nothing,
        },
        waits_ms: millis(source.since),
        shares: rounded(bound::shares(&source.spent, &window.worked)),
        limit_bytes_per_sec: seen.limit_of(source),
    }
}

fn disk_of(worked: Worked) -> DiskWork {
    DiskWork {
        written_bytes: worked.written,
        writing_ms: millis(worked.writing),
        bytes_per_sec: bound::pace(worked.written, worked.writing),
        flushing_ms: millis(worked.flushing),
    }
}

fn cpu_of(window: &Window, cores: usize) -> CpuWork {
    let worked = window.worked;
    CpuWork {
        proved_bytes: worked.proved,
        proving_ms: millis(worked.proving),
        bytes_per_sec: bound::pace(worked.proved, worked.proving),
        network_thread: thousandths(bound::network_thread(window)),
        busy_cores: thousandths(bound::busy_cores(window)),
        cores: cores as u64,
    }
}

fn resumed_of(resumed: Resumed) -> ResumedFile {
    ResumedFile {
        remembered_pieces: resumed.remembered,
        hashed_pieces: resumed.hashed,
        hashed_bytes: resumed.hashed_bytes,
        proven_pieces: resumed.proven,
    }
}

/// Nobody reads more digits.
fn rounded(shares: TimeShares) -> TimeShares {
    TimeShares {
        bytes: thousandths(shares.bytes),
        their_limit: thousandths(shares.their_limit),
        our_limit: thousandths(shares.our_limit),
        disk: thousandths(shares.disk),
        proofs: thousandths(shares.proofs),
        connecting: thousandths(shares.connecting),
        idle: thousandths(shares.idle),
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
