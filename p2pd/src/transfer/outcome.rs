//! How a run of a transfer ended.

use std::path::PathBuf;
use std::sync::Arc;

use p2p_content::Manifest;

use super::sink::SinkError;
use super::store::StoreError;
use super::swarm::Serving;

/// How a run ended.
pub(super) enum Outcome {
    /// The file is whole, and has its name.
    Whole {
        path: PathBuf,
        manifest: Arc<Manifest>,
        /// Gives its pieces to others until the file is in the catalog.
        serving: Option<Serving>,
    },
    /// All files of a directory are whole, and have their names.
    Directory { path: PathBuf },
    /// There is nobody to ask now.
    NoSources {
        why: String,
        /// Gives its pieces to others meanwhile.
        serving: Option<Serving>,
    },
    /// It cannot go on now; it may later by itself.
    Blocked(String),
    /// The same, since the directory that the file is to be in takes none.
    Closed(String),
    /// The same, since the disk is full or would be.
    Full(String),
    /// It can never be done.
    Failed(String),
    /// The daemon stops, or the transfer was cancelled.
    Stopped,
}

impl From<SinkError> for Outcome {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::NameTaken(_) | SinkError::NoWay(_) => Self::Failed(error.to_string()),
            SinkError::Full(why) => Self::Full(why),
            SinkError::Closed(why) => Self::Closed(why),
            // Whatever is wrong with the disk, what is here is kept, and tried again.
            other => Self::Blocked(other.to_string()),
        }
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        Self::Blocked(error.to_string())
    }
}
