//! What bounds a transfer, and how that is said: from what was measured to a verdict with its figures. Pure.

use std::time::Duration;

use p2p_proto::control::{Bound, PeerLimit, Priority, SourceState, TimeShares, Transfer, TransferState};
use p2p_service::status::{counted, duration, size};

use super::gauge::{Missing, Phase, SourceWindow, Window};
use super::measure::{Doing, Spent, Worked};

/// A thread that is busy for so much of the time can do no more.
const BUSY: f64 = 0.9;
/// Sources that a sentence names.
const NAMED: usize = 3;

/// What a verdict is made from.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) transfer: &'a Transfer,
    /// Of the last seconds; of one that has ended, of all that it ran.
    pub(super) window: &'a Window,
    /// Processors that the daemon may use.
    pub(super) cores: usize,
    /// This peer's limit of all its sources together, in bytes per second; 0 is none.
    pub(super) limit: u64,
    /// Its limits of single peers.
    pub(super) peer_limits: &'a [PeerLimit],
    /// Transfers that run now.
    pub(super) running: usize,
    pub(super) now_ms: i64,
}

impl Seen<'_> {
    /// This peer's limit for this source alone, in bytes per second; 0 is none.
    pub(super) fn limit_of(&self, source: &SourceWindow) -> u64 {
        let is_it =
            |limit: &&PeerLimit| limit.peer.peer_id.is_some() && limit.peer.peer_id == source.peer.peer_id;
        self.peer_limits.iter().find(is_it).map_or(0, |limit| limit.down_bytes_per_sec)
    }
}

/// The verdict; of one that has ended, also what bounded it then.
pub(super) fn judge(seen: &Seen<'_>) -> (Bound, Option<Bound>) {
    let Seen { transfer, window, .. } = seen;
    let full = window.waits.is_some_and(|waits| waits.is_full);
    let now = match transfer.state {
        state if state.is_ended() => return (Bound::Ended, most(window, seen.cores)),
        _ if transfer.held => Bound::Paused,
        TransferState::Paused if full => Bound::DiskFull,
        TransferState::Paused => Bound::Failure,
        TransferState::Queued => Bound::Queued,
        TransferState::Waiting => nobody(window),
        _ => running(window, seen.cores),
    };
    (now, None)
}

fn nobody(window: &Window) -> Bound {
    if window.missing.rare > 0 { Bound::RarePieces } else { Bound::NoSources }
}

fn running(window: &Window, cores: usize) -> Bound {
    match (window.phase, window.waits) {
        (Phase::Plain, _) => Bound::Network,
        (Phase::Pulls, _) => pulling(window, cores),
        (Phase::Prepares | Phase::Publishes, None) => Bound::Disk,
        (_, Some(waits)) if waits.is_full => Bound::DiskFull,
        // It looks again, after it found nobody.
        (_, Some(_)) => nobody(window),
        _ => Bound::Starting,
    }
}

fn pulling(window: &Window, cores: usize) -> Bound {
    let mut connected = window.sources.iter().filter(|source| source.doing != Doing::Connecting).peekable();
    if connected.peek().is_none() {
        return match window.waits {
            Some(_) => nobody(window),
            // Nobody was lost yet.
            None if window.spent.received == 0 => Bound::Starting,
            None => Bound::NoSources,
        };
    }
    if window.missing.rare > 0 && connected.all(|source| source.doing == Doing::Idle) {
        return Bound::RarePieces;
    }
    most(window, cores).unwrap_or(Bound::Network)
}

/// What most of the time went into that was not spent on connecting and on nothing.
fn most(window: &Window, cores: usize) -> Option<Bound> {
    let shares = shares(&window.spent, &window.worked);
    let (most, bound) = [
        (shares.bytes, Bound::Network),
        (shares.their_limit, Bound::TheirLimit),
        (shares.our_limit, Bound::OurLimit),
        (shares.disk, Bound::Disk),
        (shares.proofs, Bound::Cpu),
    ]
    .into_iter()
    .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    let is_busy = network_thread(window) >= BUSY || busy_cores(window) >= BUSY * cores as f64;
    match bound {
        _ if most <= 0.0 => None,
        // Bytes that have come wait too, for the thread that takes them.
        Bound::Network if is_busy => Some(Bound::Cpu),
        bound => Some(bound),
    }
}

/// What so much time was spent with, in parts of 1. What waits for the sink waits for the disk and for the proofs as much as
/// the sink's threads do.
pub(super) fn shares(spent: &Spent, worked: &Worked) -> TimeShares {
    let part = |doing| ratio(spent.with(doing), spent.all());
    let writing = match worked.proving + worked.writing {
        Duration::ZERO => 1.0,
        both => ratio(worked.writing, both),
    };
    TimeShares {
        bytes: part(Doing::Bytes),
        their_limit: part(Doing::TheirLimit),
        our_limit: part(Doing::OurLimit) + part(Doing::OurLimitForIt),
        disk: part(Doing::Sink) * writing,
        proofs: part(Doing::Sink) * (1.0 - writing),
        connecting: part(Doing::Connecting),
        idle: part(Doing::Idle),
    }
}

/// How much of the time the thread of the network was busy.
pub(super) fn network_thread(window: &Window) -> f64 {
    ratio(window.cpu.network, window.over)
}

/// How many processors the daemon kept busy.
pub(super) fn busy_cores(window: &Window) -> f64 {
    ratio(window.cpu.daemon, window.over)
}

fn ratio(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

/// So many bytes in this time, per second; `None` where there was none.
pub(super) fn pace(bytes: u64, time: Duration) -> Option<u64> {
    (bytes > 0 && !time.is_zero()).then(|| (bytes as f64 / time.as_secs_f64()) as u64)
}

/// The verdict as a sentence, with the figures.
pub(super) fn say(seen: &Seen<'_>, verdict: (Bound, Option<Bound>)) -> String {
    let said = say_bound(seen, verdict);
    let Transfer { files, files_done, .. } = seen.transfer;
    match files {
        Some(files) => format!("{said}; {} of its {files} files are here", files_done.unwrap_or_default()),
        None => said,
    }
}

fn say_bound(seen: &Seen<'_>, (bound, was): (Bound, Option<Bound>)) -> String {
    let Seen { transfer, window, .. } = seen;
    let what = format!("transfer {} ({})", transfer.id, transfer.name);
    let given = given(window);
    let reason = transfer.reason.as_deref().unwrap_or(match transfer.held {
        true => "its user paused it",
        false => "the log says why",
    });
    match bound {
        Bound::Network if window.phase == Phase::Plain => format!(
            "{what} is bound by the network: a plain peer gives it in one message, of which nothing can be measured"
        ),
        Bound::Network => {
            let disk = pace(window.worked.written, window.worked.writing);
            let disk = disk
                .map(|pace| format!("; the disk takes {}/s when it is asked", size(pace)))
                .unwrap_or_default();
            format!("{what} is bound by the network, or by what its sources manage: {given}{disk}")
        }
        Bound::TheirLimit => {
            let is_held = |source: &&SourceWindow| source.doing == Doing::TheirLimit;
            let held = window.sources.iter().filter(is_held).count();
            let of = match (held, window.sources.len()) {
                (1, 1) => "it says that a limit of its own holds its bytes back".to_owned(),
                (held, all) => {
                    format!("{held} of {all} say that a limit of their own holds their bytes back")
                }
            };
            format!(
                "{what} is bound by the limits of its sources: {given}; {of}, which `p2pctl limit` shows there and not here"
            )
        }
        Bound::OurLimit => {
            let (limit, other) = our_limit(seen);
            format!("{what} is bound by {limit}: {given}; {other}")
        }
        Bound::Disk => disk(&what, window),
        Bound::Cpu => format!("{what} is bound by the processors of this machine: {}; {given}", cpu(seen)),
        Bound::NoSources => format!("{what} has no source{}", tried(seen)),
        Bound::RarePieces => {
            let Missing { pieces, rare } = window.missing;
            let connected = match window.sources.len() {
                0 => String::new(),
                some => {
                    format!("; {} for them", counted(some as u64, "source is asked", "sources are asked"))
                }
            };
            format!(
                "{what} waits for pieces that nobody has who can be reached: {} of {pieces} that are missing{connected}{}",
                counted(rare.into(), "piece", "pieces"),
                tried(seen)
            )
        }
        Bound::Paused | Bound::DiskFull | Bound::Failure => format!("{what} is paused: {reason}"),
        Bound::Queued => queued(&what, seen),
        Bound::Starting => format!("{what} has just begun: its sources are looked for"),
        Bound::Ended => {
            let end = match transfer.state {
                TransferState::Done => "is done".to_owned(),
                TransferState::Cancelled => "was cancelled".to_owned(),
                _ => format!("has failed: {reason}"),
            };
            match was {
                Some(was) => format!("{what} {end}; {}", past(seen, was)),
                None => format!("{what} {end}; what bounded it is not known any more"),
            }
        }
    }
}

/// Which of this peer's own limits it is, and how another one is set.
fn our_limit(seen: &Seen<'_>) -> (String, String) {
    let Seen { window, limit, .. } = seen;
    if window.spent.with(Doing::OurLimitForIt) <= window.spent.with(Doing::OurLimit) {
        let limit = match limit {
            0 => "this peer's own limit".to_owned(),
            limit => format!("this peer's own limit of {}/s for all that it fetches", size(*limit)),
        };
        return (limit, "`p2pctl limit --down RATE` sets another".to_owned());
    }
    let is_held = |source: &&SourceWindow| !source.spent.with(Doing::OurLimitForIt).is_zero();
    let mut held: Vec<&SourceWindow> = window.sources.iter().filter(is_held).collect();
    held.sort_by_key(|source| std::cmp::Reverse(source.spent.with(Doing::OurLimitForIt)));
    let rate = |source: &SourceWindow| match seen.limit_of(source) {
        0 => String::new(),
        limit => format!(" of {}/s", size(limit)),
    };
    match held.as_slice() {
        [] => ("this peer's own limits for single peers".to_owned(), "`p2pctl limit` shows them".to_owned()),
        [one] => (
            format!("this peer's own limit{} for what comes from {}", rate(one), one.peer.name),
            format!("`p2pctl limit --peer {} --down RATE` sets another", typed(one)),
        ),
        some => {
            let named = |source: &&SourceWindow| format!("{}{}", source.peer.name, rate(source));
            let first: Vec<String> = some.iter().take(NAMED).map(named).collect();
            let others = match some.len() - first.len() {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            (
                format!("this peer's own limits for what comes from {}{others}", first.join(", ")),
                format!("`p2pctl limit --peer {} --down RATE` sets another", typed(some[0])),
            )
        }
    }
}

/// A source as it is typed: its name, where a shell takes it for one word.
fn typed(source: &SourceWindow) -> &str {
    let name = source.peer.name.as_str();
    let is_word =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    match &source.peer.peer_id {
        Some(id) if !is_word(name) => id,
        _ => name,
    }
}

/// Where it stands, behind whom, and how it would go first.
fn queued(what: &str, seen: &Seen<'_>) -> String {
    let Transfer { id, queue_place, reason, priority, .. } = seen.transfer;
    let others = counted(seen.running as u64, "other transfer runs", "other transfers run");
    let place = match (queue_place, reason) {
        (Some(place), Some(reason)) => format!(", as number {place} of those that wait: {reason}"),
        _ => format!(": {others} now"),
    };
    let hurry = match priority {
        Priority::High => String::new(),
        _ => format!("; `p2pctl transfers priority {id} high` lets it go before others"),
    };
    format!("{what} waits for its turn{place}{hurry}")
}

/// `2 sources have 31 requests open and give 11 MiB/s together`.
fn given(window: &Window) -> String {
    let open = window.sources.iter().map(|source| source.open).sum::<usize>() as u64;
    let pace = size(pace(window.spent.received, window.over).unwrap_or_default());
    let requests = counted(open, "request", "requests");
    match window.sources.as_slice() {
        [one] => format!("{} has {requests} open and gives {pace}/s", one.peer.name),
        all => {
            let sources = counted(all.len() as u64, "source has", "sources have");
            format!("{sources} {requests} open and give {pace}/s together")
        }
    }
}

fn disk(what: &str, window: &Window) -> String {
    match window.phase {
        Phase::Prepares => {
            format!("{what} is bound by the disk: its unfinished file is made there, or read and proven")
        }
        Phase::Publishes => {
            format!("{what} is bound by the disk: all is here, and is being made durable under its name")
        }
        _ => format!("{what} is bound by the disk: {}; {}", written(window), given(window)),
    }
}

fn written(window: &Window) -> String {
    let Worked { written, writing, flushing, .. } = window.worked;
    let waited = percent(shares(&window.spent, &window.worked).disk);
    format!(
        "it takes {}/s when it is asked, and what the sources gave waited for it {waited} of the time ({} of flushing in {})",
        size(pace(written, writing).unwrap_or_default()),
        duration(flushing),
        duration(window.over)
    )
}

fn cpu(seen: &Seen<'_>) -> String {
    let window = seen.window;
    let proofs = match pace(window.worked.proved, window.worked.proving) {
        Some(pace) => format!(", a thread proves {}/s", size(pace)),
        None => String::new(),
    };
    format!(
        "the thread of the network is busy {} of the time, p2pd keeps {:.1} of {} busy{proofs}",
        percent(network_thread(window)),
        busy_cores(window),
        counted(seen.cores as u64, "core", "cores"),
    )
}

/// Since when, how often, and what became of those that were asked.
fn tried(seen: &Seen<'_>) -> String {
    let mut text = String::new();
    if let Some(waits) = seen.window.waits {
        let ms = |ms: i64| duration(Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
        let tries = counted(waits.tries.into(), "try", "tries");
        text = format!(" for {}: {tries}", ms(seen.now_ms - waits.since_ms));
        if waits.next_ms > seen.now_ms {
            text.push_str(&format!(", the next in {}", ms(waits.next_ms - seen.now_ms)));
        }
    }
    if let Some(reason) = &seen.transfer.reason {
        text.push_str(&format!("; {reason}"));
    }
    let gone = seen.transfer.sources.iter().filter(|source| source.state != SourceState::Active);
    // The reason of the last one lost is the transfer's own.
    let known = seen.transfer.reason.as_deref().unwrap_or_default();
    let others = gone.filter(|source| !known.starts_with(&source.peer.name));
    for source in others.take(NAMED) {
        let why = source.reason.as_deref().unwrap_or("lost");
        text.push_str(&format!("; {}: {why}", source.peer.name));
    }
    text
}

fn past(seen: &Seen<'_>, was: Bound) -> String {
    let window = seen.window;
    let shares = shares(&window.spent, &window.worked);
    let (what, share) = match was {
        Bound::TheirLimit => ("the limits of its sources", shares.their_limit),
        Bound::OurLimit => ("this peer's own limit", shares.our_limit),
        Bound::Disk => ("the disk", shares.disk),
        Bound::Cpu => {
            return format!("it was bound by the processors of this machine: {}", cpu(seen));
        }
        _ => ("the network, or by what its sources managed", shares.bytes),
    };
    format!(
        "it was bound by {what}, {} of {}, and got {}/s",
        percent(share),
        duration(window.over),
        size(pace(window.spent.received, window.over).unwrap_or_default())
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
#[path = "bound_tests.rs"]
mod tests;
