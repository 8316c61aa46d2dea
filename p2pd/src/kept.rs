//! Small lists that outlive the daemon: JSON files in the state directory, read once, written whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_service::state_dir::write_private;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A JSON file. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    path: Arc<Path>,
    /// Number of the last version that was handed over, and of the last one that was written: a version that is late
    /// does not replace a later one.
    handed: Arc<AtomicU64>,
    written: Arc<Mutex<u64>>,
}

impl Kept {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path: path.into(), handed: Arc::default(), written: Arc::default() }
    }

    /// What is kept; the default where nothing is yet.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else; it is then left as it is.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self) -> io::Result<T> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| at(&self.path, error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(at(&self.path, error)),
        }
    }

    /// Replaces what is kept; a crash leaves the old or the new. Waits for the disk: for what a user asked for, and has
    /// to be told of if it fails.
    pub(crate) fn write<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(value)?;
        let version = self.handed.fetch_add(1, Ordering::Relaxed) + 1;
        self.write_version(version, &bytes)
    }

    /// The same beside whatever else goes on, for what the program keeps for itself; a failure is logged.
    pub(crate) fn write_later<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(value)?;
        let version = self.handed.fetch_add(1, Ordering::Relaxed) + 1;
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = this.write_version(version, &bytes) {
                let path = this.path.display();
                tracing::error!(
                    %path,
                    %error,
                    "{path} cannot be written: {error}; make room on its disk or set its permissions right: it is \
                     tried again at the next change"
                );
            }
        });
        Ok(())
    }

    fn write_version(&self, version: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if version > *written {
            write_private(&self.path, bytes)?;
            *written = version;
        }
        Ok(())
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
