//! What the loop that keeps the shares shows of them to everyone else.

use std::path::PathBuf;
use std::sync::Arc;

use p2p_proto::control::Visibility;
use tokio::sync::watch;

use super::root::Place;

/// All shares, in the order of the configuration.
pub(super) type Board = Vec<Posted>;

/// Where the board is read.
pub(super) type BoardReader = watch::Receiver<Arc<Board>>;

/// What is shown of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Posted {
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    pub(super) visible: Visibility,
    pub(super) downloads: bool,
    /// Its directory, or why it is not available.
    pub(super) place: Result<Place, Arc<str>>,
    pub(super) skipped: Arc<Vec<String>>,
    pub(super) pending: u64,
    pub(super) added: bool,
    /// Whether not every directory is watched.
    pub(super) short: bool,
}

/// Where a share's directory is now.
pub(super) fn place_of(board: &BoardReader, share: &str) -> Result<Place, NoPlace> {
    let board = board.borrow();
    let posted = board.iter().find(|posted| &*posted.name == share);
    match posted.map(|posted| &posted.place) {
        None => Err(NoPlace::NotShared),
        Some(Ok(place)) => Ok(place.clone()),
        Some(Err(reason)) => Err(NoPlace::Unavailable { reason: reason.to_string() }),
    }
}

/// Why a share has no directory.
#[derive(Debug)]
pub(super) enum NoPlace {
    NotShared,
    Unavailable { reason: String },
}
