//! Small lists that outlive the daemon: JSON files in the state directory, read once, written whole.

use std::io;
use std::path::{Path, PathBuf};

use p2p_service::state_dir::write_private;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A JSON file.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    path: PathBuf,
}

impl Kept {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is kept; the default where nothing is yet.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else; it is then left as it is.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> io::Result<T> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| at(&self.path, error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(at(&self.path, error)),
        }
    }

    /// Replaces what is kept; a crash leaves the old or the new.
    pub(super) fn write<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(value)?;
        write_private(&self.path, &bytes)
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
