//! What other rooms refuse, as problem documents: each error's code, status, particulars and advice, said once.
//!
//! The codes are an interface: `p2pctl` chooses its exit code by them. A code may be added, none changes its meaning.

use std::fmt::Display;
use std::io;

use axum::http::StatusCode;
use p2p_content::{ContentHash, NameError};
use p2p_service::problem::Problem;

use super::cursor;
use crate::catalog::CatalogError;
use crate::discovery::{AskError, Candidate, FindPeerError, FriendError, JoinError};
use crate::limits::SetError;
use crate::shares::{AddError, RemoveError, ShareError, Unfit};
use crate::transfer::{ChangeError, FetchError, IntakeError, SendError};

mod trees;

/// How many of several contents, and how many sources of each, an answer names.
const LISTED: usize = 10;

/// The daemon failed; the caller cannot help it, so the cause goes to the log as well.
pub(super) fn internal(error: impl Display) -> Problem {
    tracing::error!(%error, "a request failed: {error}; look at the disk of the state directory, and at the lines before");
    Problem::internal("internal", error.to_string()).hint("the daemon's log has more: `journalctl -u p2pd`")
}

/// A text is not the name of a file.
pub(super) fn invalid_name(error: &NameError) -> Problem {
    // What to do is in the message already.
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-name", "This cannot be the name of a file")
        .detail(error.to_string())
}

/// No share has this content.
pub(super) fn not_here(content: &ContentHash) -> Problem {
    Problem::not_found("not-here", format!("this peer does not have the content {content}"))
        .hint(format!("`p2pctl fetch {content}` gets it"))
}

/// There is no such transfer.
pub(super) fn transfer_unknown(id: u64) -> Problem {
    Problem::not_found("transfer-unknown", format!("there is no transfer {id}"))
        .hint("`p2pctl transfers` lists them")
}

/// A plain peer is nobody whom one could tell from others.
pub(super) fn no_identity(peer: &str) -> Problem {
    unprocessable("no-identity", format!("{peer} is a plain peer and has no identity to limit"))
        .hint("`p2pctl limit --up RATE` holds for all peers together")
}

/// There is no such sending.
pub(super) fn send_unknown(id: u64) -> Problem {
    Problem::not_found("send-unknown", format!("there is no sending {id}"))
        .hint("sendings are forgotten when the daemon restarts: `p2pctl locate NAME` shows whether the file arrived")
}

/// This peer has no maestro.
pub(super) fn no_maestro() -> Problem {
    Problem::conflict("no-maestro", "this peer has joined no network").hint("`p2pctl join HOST` joins one")
}

/// The maestro does not answer.
pub(super) fn maestro_unreachable(why: impl Into<String>) -> Problem {
    Problem::unavailable("maestro-unreachable", why)
        .hint("`p2pctl status` shows how this peer stands with its maestro; friends answer meanwhile")
}

/// The files of the network cannot be listed: the one who was asked is the maestro.
pub(super) fn of_network_listing(error: AskError) -> Problem {
    match error {
        AskError::Unreachable(..) => maestro_unreachable(error.to_string()),
        AskError::Refused(..) => forbidden("not-admitted", error.to_string())
            .hint("`p2pctl status` shows how this peer stands with its maestro"),
        other => other.into(),
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        match &error {
            AskError::Unreachable(..) => peer_unreachable(error.to_string()),
            AskError::Refused(..) => refused_by_peer(error.to_string()),
            AskError::BadCursor(_) => cursor::invalid(),
            AskError::NoMaestro => no_maestro(),
            AskError::Catalog(_) => internal(error),
        }
    }
}

impl From<FindPeerError> for Problem {
    fn from(error: FindPeerError) -> Problem {
        match &error {
            FindPeerError::Unknown(_) => Problem::not_found("peer-unknown", error.to_string())
                .hint("`p2pctl peers` lists those that are known"),
            FindPeerError::Unasked { .. } => Problem::not_found("peer-unknown", error.to_string())
                .hint("try again when the maestro answers: `p2pctl status` says whether it does"),
            FindPeerError::Ambiguous { .. } => Problem::conflict("peer-ambiguous", error.to_string())
                .hint("give more of the peer ID, or the whole name"),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Problem {
        match &error {
            FetchError::NotFound { incomplete, .. } => {
                let why = incomplete
                    .as_ref()
                    .map_or(String::new(), |why| format!("; not all could be asked: {why}"));
                Problem::not_found("not-found", format!("{error}{why}"))
                    .hint("`p2pctl search TEXT` finds files by a part of their name")
            }
            FetchError::SeveralContents { candidates, .. } => {
                let rows: String = listed(candidates, "\n  ", "\n  ", describe);
                Problem::conflict("several-contents", format!("{error}:{rows}"))
                    .hint("choose one by its hash, or with --from PEER")
            }
            FetchError::NameTaken { .. } => name_taken(error.to_string()),
            FetchError::OnlyHere { .. } => Problem::conflict("only-here", error.to_string())
                .hint("`p2pctl fetch HASH -o PATH` copies it to where you want it"),
            FetchError::UnprovenRefused { .. } => forbidden("unproven-refused", error.to_string()).hint(
                "set allow_unproven = true under [transfers] in p2pd.toml, and reload p2pd, if you want them all the same",
            ),
            FetchError::Catalog(_) | FetchError::Store(_) => internal(error),
        }
    }
}

impl From<SetError> for Problem {
    fn from(error: SetError) -> Problem {
        match &error {
            SetError::TooMany => Problem::conflict("too-many-limits", error.to_string())
                .hint("`p2pctl limit` shows them; `p2pctl limit --peer PEER --as-configured` takes one away"),
            SetError::Keep(cause) => of_io(cause),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Problem {
        match error {
            ChangeError::Unknown(id) => transfer_unknown(id),
            ChangeError::Ended(_) => Problem::conflict("transfer-ended", error.to_string()),
        }
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Problem {
        match &error {
            IntakeError::DiskFull(_) => disk_full(error.to_string()),
            IntakeError::Body(_) => Problem::bad_request("body-incomplete", error.to_string())
                .hint("nothing was kept; send the file again"),
            IntakeError::NameTaken(_) => name_taken(error.to_string()),
            IntakeError::Unavailable(_) => Problem::unavailable("share-unavailable", error.to_string())
                .hint("`p2pctl shares` shows why; it is looked for again every few seconds"),
            IntakeError::Internal(_) => internal(error),
        }
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Problem {
        match error {
            SendError::Intake(error) => error.into(),
            SendError::Unreachable(..) => peer_unreachable(error.to_string()),
            SendError::Refused(..) => refused_by_peer(error.to_string()),
            SendError::TooLargeForPlain(..) => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large-for-plain", "The file is too large")
                    .detail(error.to_string())
                    .hint(
                        "a plain peer takes a file in one message only; p2pd on that machine takes any size",
                    )
            }
        }
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Problem {
        match &error {
            JoinError::Configured(_) => Problem::conflict("configured", error.to_string())
                .hint("change it there, and reload the daemon: `systemctl reload p2pd`"),
            JoinError::Changed { .. } => Problem::conflict("maestro-changed", error.to_string())
                .hint("compare both with what its administrator says; only if it is right, `p2pctl leave` and join again"),
            JoinError::Syntax(_) => unprocessable("invalid-address", error.to_string())
                .hint("give the maestro as HOST or HOST:PORT, and its identity as `maestrod` prints it"),
            JoinError::NotJoined(_) => Problem::not_found("maestro-unknown", error.to_string())
                .hint("`p2pctl status` shows the maestros that were joined"),
            JoinError::NotAdmitted(_) => forbidden("not-admitted", error.to_string())
                .hint("ask the network's administrator for admission or a token"),
            JoinError::Unreachable(_) => Problem::unavailable("maestro-unreachable", error.to_string())
                .hint("check the address, and that maestrod runs there"),
            JoinError::Io(cause) => of_io(cause),
        }
    }
}

impl From<FriendError> for Problem {
    fn from(error: FriendError) -> Problem {
        match error {
            FriendError::Unreachable(_) => peer_unreachable(error.to_string()),
            FriendError::WrongPeer { .. } => Problem::conflict("identity-changed", error.to_string())
                .hint("compare both with what the friend's `p2pctl status` shows"),
            FriendError::Find(error) => error.into(),
            FriendError::Pick(FindPeerError::Unknown(text)) => {
                Problem::not_found("friend-unknown", format!("no friend is known as {text}"))
                    .hint("`p2pctl friends list` lists them")
            }
            FriendError::Pick(error) => error.into(),
            FriendError::BadId(..) => unprocessable("invalid-peer-id", error.to_string())
                .hint("the friend's `p2pctl status` shows it"),
            FriendError::Itself(_) => unprocessable("friend-is-itself", error.to_string())
                .hint("name another peer: its address, its name or its ID"),
            FriendError::Io(cause) => of_io(&cause),
        }
    }
}

impl From<ShareError> for Problem {
    fn from(error: ShareError) -> Problem {
        internal(error)
    }
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Problem {
        let text = error.to_string();
        match &error {
            AddError::NotAbsolute { .. } => unprocessable("invalid-path", text).hint(
                "give the whole path, from the root: in a shell, \"$PWD/NAME\" or \"$(realpath NAME)\"",
            ),
            AddError::BadName { .. } => {
                unprocessable("invalid-share-name", text).hint("give it another name with --name NAME")
            }
            AddError::Forbidden { .. } => unprocessable("share-forbidden", text)
                .hint("name a directory that holds what you want to share and nothing else"),
            AddError::NotYours { .. } => forbidden("share-not-yours", text).hint(
                "its owner can share it; an administrator can share anything: `sudo p2pctl share add PATH`",
            ),
            AddError::NameTaken { .. } => Problem::conflict("share-name-taken", text)
                .hint("give it another name with --name NAME; `p2pctl shares` lists those that there are"),
            AddError::Overlaps { .. } => Problem::conflict("share-overlaps", text)
                .hint("a file is in one share only; `p2pctl shares` lists those that there are"),
            AddError::Unfit { why, .. } => unfit(why, text),
            AddError::Keep(cause) => of_io(cause),
            AddError::Shares(_) => internal(error),
        }
    }
}

/// What only the machine's administrator, or the directory's owner, can help. `p2pctl` knows from the code what to
/// advise: it sees the machine from outside of the daemon's sandbox.
fn unfit(why: &Unfit, detail: String) -> Problem {
    match why {
        Unfit::NotThere => Problem::not_found(why.code(), detail).hint(
            "check the path; the sandbox of a service hides some directories from it, such as /home and /tmp",
        ),
        Unfit::NotADirectory => unprocessable(why.code(), detail).hint("share the directory around it"),
        Unfit::Unreadable => forbidden(why.code(), detail)
            .hint("let the user that p2pd runs as read it, and enter the directories on the way to it"),
        Unfit::ReadOnly => forbidden(why.code(), detail)
            .hint("the sandbox of a service lets it write only where its unit says so: ReadWritePaths="),
        Unfit::NotWritable => forbidden(why.code(), detail)
            .hint("let the user that p2pd runs as write in it, or add it without --downloads"),
        Unfit::Other(cause) => {
            let known = of_io(cause);
            match known.body().code.as_str() {
                "internal" => Problem::unavailable(why.code(), detail).hint(
                    "is its disk mounted, and does it answer? `journalctl -k` shows what the system says",
                ),
                _ => known,
            }
        }
    }
}

impl From<RemoveError> for Problem {
    fn from(error: RemoveError) -> Problem {
        match &error {
            RemoveError::Unknown { .. } => Problem::not_found("share-unknown", error.to_string())
                .hint("`p2pctl shares` lists those that there are"),
            RemoveError::Configured { .. } => Problem::conflict("share-configured", error.to_string())
                .hint("take its [[share]] out of p2pd.toml, then `systemctl reload p2pd`"),
            RemoveError::Keep(cause) => of_io(cause),
            RemoveError::Shares(_) => internal(error),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Problem {
        internal(error)
    }
}

/// A disk that its user can do something about, or a failure.
pub(super) fn of_io(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(error.to_string()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            tracing::error!(%error, "a file cannot be written: {error}; give the user of p2pd write permission there");
            Problem::internal("disk-not-writable", error.to_string())
                .hint("the user that the daemon runs as must be allowed to write there")
        }
        _ => internal(error),
    }
}

fn name_taken(detail: String) -> Problem {
    Problem::conflict("name-taken", detail)
        .hint("give the file another name with --as NAME, or remove what is here under this one")
}

fn disk_full(detail: String) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "The disk is full")
        .detail(detail)
        .hint("make room on the disk of the downloads share, then try again")
}

fn peer_unreachable(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "peer-unreachable", "The peer cannot be reached")
        .detail(detail)
        .hint("`p2pctl peers` shows who is online and where")
}

fn refused_by_peer(detail: String) -> Problem {
    forbidden("refused-by-peer", detail).hint(
        "it answers members of its network and its friends: the user there can add this peer as a friend",
    )
}

fn forbidden(code: &str, detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, "This is not allowed").detail(detail)
}

fn unprocessable(code: &str, detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, "This does not make sense").detail(detail)
}

fn describe(candidate: &Candidate) -> String {
    let content = candidate.content.map_or_else(|| "unproven".to_owned(), |content| content.to_string());
    let size = candidate.size.map_or_else(|| "size unknown".to_owned(), |size| format!("{size} bytes"));
    format!("{content}  {size}  {}", listed(&candidate.sources, "", ", ", |source| source.peer.to_string()))
}

/// The first of them, and how many more there are.
fn listed<T>(items: &[T], before: &str, between: &str, text: impl Fn(&T) -> String) -> String {
    let mut texts: Vec<String> = items.iter().take(LISTED).map(text).collect();
    if items.len() > LISTED {
        texts.push(format!("and {} more", items.len() - LISTED));
    }
    format!("{before}{}", texts.join(between))
}

#[cfg(test)]
#[path = "problems_tests.rs"]
mod tests;
