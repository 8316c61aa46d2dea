//! What the log tells of a transfer, from who asked for it to its end: each line carries TRANSFER_ID, so that
//! `journalctl -u p2pd TRANSFER_ID=7` is the whole story. Called by the files of this room where the thing happens.

use std::fmt;
use std::time::Duration;

use p2p_content::ContentHash;
use p2p_proto::control::{Priority, Transfer};
use p2p_service::status::{counted, duration, size};

use super::gauge::Resumed;
use crate::discovery::PeerRef;

/// Who asks for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedBy {
    /// A process of this machine, by the control socket.
    User {
        /// Its user.
        uid: u32,
        /// Its number, in case it can be seen from here.
        pid: Option<i32>,
    },
    /// A peer that offers the file.
    Peer(PeerRef),
}

impl fmt::Display for AskedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { uid, pid: Some(pid) } => write!(f, "uid {uid} (pid {pid})"),
            Self::User { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Peer(peer) => write!(f, "the peer {peer}"),
        }
    }
}

impl AskedBy {
    fn uid(&self) -> Option<u32> {
        match self {
            Self::User { uid, .. } => Some(*uid),
            Self::Peer(_) => None,
        }
    }

    fn pid(&self) -> Option<i32> {
        match self {
            Self::User { pid, .. } => *pid,
            Self::Peer(_) => None,
        }
    }

    fn peer(&self) -> Option<&PeerRef> {
        match self {
            Self::User { .. } => None,
            Self::Peer(peer) => Some(peer),
        }
    }
}

fn id_of(peer: &PeerRef) -> Option<String> {
    peer.id().map(|id| id.to_string())
}

/// `transfer 7 (docs/a.txt)`.
fn what(transfer: &Transfer) -> String {
    format!("transfer {} ({})", transfer.id, transfer.name)
}

pub(super) fn begins(transfer: &Transfer, by: &AskedBy) {
    let size = transfer.size.map_or_else(|| "of unknown size".to_owned(), size);
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        content_hash = transfer.content,
        bytes = transfer.size,
        caller_uid = by.uid(),
        caller_pid = by.pid(),
        peer_id = by.peer().and_then(id_of),
        peer = by.peer().map(PeerRef::name),
        "{} begins: {size}, asked for by {by}",
        what(transfer),
    );
}

pub(super) fn asked_again(transfer: &Transfer, by: &AskedBy) {
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        content_hash = transfer.content,
        caller_uid = by.uid(),
        caller_pid = by.pid(),
        peer_id = by.peer().and_then(id_of),
        peer = by.peer().map(PeerRef::name),
        "{} is under way, and is asked for again by {by}",
        what(transfer),
    );
}

pub(super) fn goes_on(transfer: &Transfer) {
    let (here, all) = (size(transfer.done_bytes), transfer.size.map_or_else(|| "?".to_owned(), size));
    let does = if transfer.held { "stays paused" } else { "goes on" };
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        content_hash = transfer.content,
        bytes = transfer.done_bytes,
        "{} {does} after the start of p2pd: {here} of {all} are here",
        what(transfer),
    );
}

/// Its part file was opened again, and has so many pieces in all.
pub(super) fn resumes(transfer: &Transfer, found: Resumed, pieces: u32) {
    let here = found.remembered + found.proven;
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        pieces = here,
        hashed_bytes = found.hashed_bytes,
        "{} goes on with {here} of {}: {} were remembered and not read again, {} were hashed ({}), of which {} are right",
        what(transfer),
        counted(pieces.into(), "piece", "pieces"),
        found.remembered,
        found.hashed,
        size(found.hashed_bytes),
        found.proven,
    );
}

/// It goes on with what a failed one has proven of the same content.
pub(super) fn takes_over(id: u64, from: u64) {
    tracing::info!(transfer_id = id, "transfer {id} goes on with what transfer {from} had when it failed");
}

/// Nothing of a failed one is kept any more.
pub(super) fn given_back(id: u64) {
    tracing::info!(transfer_id = id, "what was kept of the failed transfer {id} is removed");
}

/// `is_news`: not said yet in this run of the daemon.
pub(super) fn source_joined(id: u64, peer: &PeerRef, is_news: bool) {
    let peer_id = id_of(peer);
    let name = peer.name();
    match is_news {
        true => {
            tracing::info!(transfer_id = id, peer_id, peer = name, "transfer {id} asks the source {peer}")
        }
        false => {
            tracing::debug!(
                transfer_id = id,
                peer_id,
                peer = name,
                "transfer {id} asks the source {peer} again"
            );
        }
    }
}

pub(super) fn source_lost(id: u64, peer: &PeerRef, reason: &str, is_news: bool) {
    let peer_id = id_of(peer);
    let name = peer.name();
    match is_news {
        true => tracing::info!(
            transfer_id = id,
            peer_id,
            peer = name,
            reason,
            "transfer {id} has lost the source {peer}: {reason}"
        ),
        false => tracing::debug!(
            transfer_id = id,
            peer_id,
            peer = name,
            reason,
            "transfer {id} has lost the source {peer} again: {reason}"
        ),
    }
}

pub(super) fn source_dropped(id: u64, peer: &PeerRef, reason: &str, content: ContentHash) {
    tracing::warn!(
        transfer_id = id,
        peer_id = id_of(peer),
        peer = peer.name(),
        content_hash = %content,
        reason,
        "transfer {id} has dropped the source {peer} for {content}: {reason} (peer {})",
        id_of(peer).unwrap_or_default(),
    );
}

/// `told` and `len`: what was told falsely, and what this source proves; `tellers`: who says so.
pub(super) fn length_false(
    id: u64,
    name: &str,
    content: ContentHash,
    (told, len): (u64, u64),
    by: &PeerRef,
    tellers: &[String],
) {
    let tellers = match tellers {
        [] => "nobody says so any more".to_owned(),
        some => format!("it is {} that says so", some.join(" and ")),
    };
    tracing::warn!(
        transfer_id = id,
        file = name,
        content_hash = %content,
        bytes = len,
        peer_id = id_of(by),
        peer = by.name(),
        "transfer {id} was told a false length of {name}, {told} bytes: it has {len}, as {by} proves; {tellers}",
    );
}

pub(super) fn waits(transfer: &Transfer, reason: &str) {
    let (transfer_id, file) = (transfer.id, &transfer.name);
    tracing::info!(transfer_id, file, reason, "{} waits: {reason}", what(transfer));
}

pub(super) fn paused(transfer: &Transfer, reason: &str) {
    let (transfer_id, file) = (transfer.id, &transfer.name);
    tracing::warn!(
        transfer_id,
        file,
        reason,
        "{} is paused: {reason}; it goes on by itself once that is no longer so",
        what(transfer)
    );
}

pub(super) fn cancel_asked(transfer: &Transfer, by: &AskedBy) {
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        caller_uid = by.uid(),
        caller_pid = by.pid(),
        "{} is to be cancelled, says {by}",
        what(transfer),
    );
}

pub(super) fn held(transfer: &Transfer, held: bool, by: &AskedBy) {
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        caller_uid = by.uid(),
        caller_pid = by.pid(),
        "{} is to be {}, says {by}",
        what(transfer),
        if held { "paused" } else { "resumed" },
    );
}

pub(super) fn prioritized(transfer: &Transfer, priority: Priority, by: &AskedBy) {
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        caller_uid = by.uid(),
        caller_pid = by.pid(),
        "{} has {priority} priority now, and had {}, says {by}",
        what(transfer),
        transfer.priority,
    );
}

/// `to` is the transfer that goes first; without one, fewer may run at once.
pub(super) fn yields(transfer: &Transfer, to: Option<u64>) {
    let why = match to {
        Some(to) => format!("to transfer {to}, which has a higher priority"),
        None => "since fewer may run at once now".to_owned(),
    };
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        bytes = transfer.done_bytes,
        "{} yields its turn {why}",
        what(transfer),
    );
}

pub(super) fn cancelled(transfer: &Transfer) {
    tracing::info!(transfer_id = transfer.id, file = transfer.name, "{} was cancelled", what(transfer));
}

pub(super) fn failed(transfer: &Transfer) {
    let reason = transfer.reason.as_deref().unwrap_or("for no known reason");
    let (transfer_id, file) = (transfer.id, &transfer.name);
    tracing::warn!(transfer_id, file, reason, "{} has failed: {reason}", what(transfer));
}

/// `ran` is how long it ran in this run of the daemon, without the time that it waited, and `moved` how many bytes came
/// meanwhile.
pub(super) fn done(transfer: &Transfer, ran: Duration, moved: u64) {
    let bytes = transfer.size.unwrap_or_default();
    let sources = transfer.sources.iter().filter(|source| source.bytes > 0).count();
    let bytes_per_sec = (moved as f64 / ran.as_secs_f64().max(0.001)) as u64;
    let path = transfer.path.as_deref().unwrap_or_default();
    tracing::info!(
        transfer_id = transfer.id,
        file = transfer.name,
        content_hash = transfer.content,
        path,
        bytes,
        bytes_per_sec,
        wasted_bytes = transfer.wasted_bytes,
        duration_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
        sources,
        "{} is done: {} from {} in {} ({}/s), {path}",
        what(transfer),
        size(bytes),
        counted(sources as u64, "source", "sources"),
        duration(ran),
        size(bytes_per_sec),
    );
}
