//! Bytes that arrive as a stream become a file: hashed as they are written, never whole in memory.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use p2p_content::{ContentHash, ContentHasher, FileName, Manifest};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};

use super::jobs::TransferSettings;
use super::sink::{SinkError, blocking};
use crate::shares::{DownloadDir, Shares};

/// Chunks that may wait for the disk.
const WAITING: usize = 8;
/// Bytes after which it is looked at again how much room is left on the disk, however much there was.
const LOOK_EVERY_LEN: u64 = 8 << 20;

/// Takes in files that users hand over. Clones are handles to the same.
#[derive(Clone)]
pub struct Intake {
    shares: Shares,
    settings: watch::Receiver<TransferSettings>,
    /// One file at a time gets its name and enters the catalog: of two under one name, the last one is then what the
    /// catalog says.
    naming: Arc<Mutex<()>>,
}

/// A file that was taken in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its name.
    pub name: FileName,
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub content: ContentHash,
    /// Bytes.
    pub size: u64,
    /// The catalog's sequence number that tells of it.
    pub sequence: u64,
}

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// No room.
    #[error("{0}")]
    DiskFull(String),
    /// The bytes stopped coming.
    #[error("the bytes stopped coming: {0}")]
    Body(String),
    /// The name is taken, by a directory or by another file.
    #[error("{0}")]
    NameTaken(String),
    /// The share is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The disk or the catalog failed.
    #[error("{0}")]
    Internal(String),
}

impl From<SinkError> for IntakeError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Full(why) => Self::DiskFull(why),
            SinkError::Unavailable(why) => Self::Unavailable(why),
            SinkError::NameTaken(name) => {
                Self::NameTaken(format!("{name} is the name of something else here"))
            }
            other => Self::Internal(other.to_string()),
        }
    }
}

impl Intake {
    /// Into these shares' downloads, as these settings say.
    pub fn new(shares: Shares, settings: watch::Receiver<TransferSettings>) -> Self {
        Self { shares, settings, naming: Arc::default() }
    }

    /// Takes in a file under this name; where another has it, `replace` says whether it is replaced. When this returns, the file is in the share
    /// and in the catalog. A body that breaks off leaves nothing behind; nor does a call that is dropped, unless the file just gets its name.
    pub async fn receive<S, E>(&self, name: FileName, body: S, replace: bool) -> Result<Received, IntakeError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let dir = self.shares.downloads();
        let key = format!("upload-{:016x}", rand::random::<u64>());
        let mut part = Part { dir: dir.clone(), key: key.clone(), is_settled: false };
        let (at, made) = (dir.clone(), key.clone());
        let file = blocking(move || Ok(at.part(&made)?)).await?;
        let taken = self.take(&name, &key, file, body, replace).await;
        if taken.is_err() {
            // Before it is answered.
            let _ = blocking(move || Ok(dir.remove_part(&key)?)).await;
        }
        part.is_settled = true;
        taken
    }

    async fn take<S, E>(
        &self,
        name: &FileName,
        key: &str,
        file: File,
        body: S,
        replace: bool,
    ) -> Result<Received, IntakeError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let reserve = self.settings.borrow().reserve_bytes;
        let (content, manifest) = write_hashed(file, body, reserve).await?;
        let dir = self.shares.downloads();
        let _naming = self.naming.lock().await;
        let (at, part, wanted) = (dir.clone(), key.to_owned(), name.clone());
        let path = blocking(move || Ok(at.publish(&part, &wanted, replace)?)).await?;
        let size = manifest.pieces().len();
        let adopted = self.shares.adopt(dir.share(), name, content, manifest).await;
        let sequence = adopted.map_err(|error| IntakeError::Internal(error.to_string()))?;
        Ok(Received { name: name.clone(), path, content, size, sequence })
    }
}

/// An unfinished file: whatever keeps it from its name, without a transfer it is of no use to anybody.
struct Part {
    dir: DownloadDir,
    key: String,
    is_settled: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        // A client that goes away takes its call with it.
        if !self.is_settled
            && let Ok(runtime) = Handle::try_current()
        {
            let (dir, key) = (self.dir.clone(), std::mem::take(&mut self.key));
            runtime.spawn_blocking(move || dir.remove_part(&key));
        }
    }
}

/// Writes a stream into a file, and hashes it on the way, as long as `reserve` bytes of the disk stay free.
pub(super) async fn write_hashed<S, E>(
    mut file: File,
    mut body: S,
    reserve: u64,
) -> Result<(ContentHash, Manifest), IntakeError>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Display,
{
    let (chunks, mut waiting) = mpsc::channel::<Bytes>(WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let (mut hasher, mut room) = (ContentHasher::new(), 0);
        let failed = |error| SinkError::of_io(error, "writing the file");
        while let Some(chunk) = waiting.blocking_recv() {
            let len = chunk.len() as u64;
            if len > room {
                room = room_for(&file, len, reserve)?.min(LOOK_EVERY_LEN.max(len));
            }
            room -= len;
            hasher.update(&chunk);
            file.write_all(&chunk).map_err(failed)?;
        }
        Ok::<_, SinkError>(hasher.finish())
    });
    let mut broke = None;
    while let Some(chunk) = body.next().await {
        match chunk {
            // The writer has stopped: why is in its result.
            Ok(chunk) => {
                if chunks.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broke = Some(IntakeError::Body(error.to_string()));
                break;
            }
        }
    }
    drop(chunks);
    let written = writing.await.map_err(|_| IntakeError::Internal("the daemon is ending".to_owned()))?;
    match (written, broke) {
        (Err(error), _) => Err(error.into()),
        (Ok(_), Some(broke)) => Err(broke),
        (Ok(hashed), None) => Ok(hashed),
    }
}

/// How many bytes can be written so that `reserve` stay free, where `len` can.
fn room_for(file: &File, len: u64, reserve: u64) -> Result<u64, SinkError> {
    let stat =
        rustix::fs::fstatvfs(file).map_err(|error| SinkError::of_io(error.into(), "looking at the disk"))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    match free.checked_sub(reserve) {
        Some(room) if room >= len => Ok(room),
        _ => Err(SinkError::Full(format!(
            "{len} bytes are to be written, and {free} are free on the disk, of which {reserve} are kept free \
             ([transfers] reserve_bytes)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p2p_content::PARTIAL_DIR;
    use p2p_proto::control::Visibility;
    use p2p_service::tasks::Tasks;
    use tokio::time::timeout;

    use super::*;
    use crate::catalog::Catalog;
    use crate::shares::{ShareConfig, Timing};

    /// One chunk, as a plain peer's file is.
    async fn write(len: usize, keep_free: impl Fn(u64) -> u64) -> (Result<u64, IntakeError>, u64) {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstatvfs(&file).unwrap();
        let reserve = keep_free(stat.f_bavail * stat.f_frsize);
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![7; len]))]);
        let written = write_hashed(file.try_clone().unwrap(), body, reserve).await;
        let written = written.map(|(_, manifest)| manifest.pieces().len());
        (written, file.metadata().unwrap().len())
    }

    #[tokio::test]
    async fn what_is_kept_free_is_not_written_to_by_the_last_chunk_either() {
        let (written, len) = write(16 << 20, |free| free - (1 << 20)).await;
        assert!(matches!(written, Err(IntakeError::DiskFull(_))), "{written:?}");
        assert_eq!(len, 0, "it was not begun");
        let (written, len) = write(16 << 20, |_| 0).await;
        assert_eq!((written.unwrap(), len), (16 << 20, 16 << 20));
    }

    #[tokio::test]
    async fn what_is_there_of_an_upload_goes_with_its_call() {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, catalog) = (Tasks::new(), Catalog::open(&dir.path().join("catalog.sqlite")).unwrap());
        let config = ShareConfig {
            name: "docs".to_owned(),
            path: dir.path().join("share"),
            visible: Visibility::Network,
            downloads: true,
            added: false,
        };
        let state = dir.path().join("state");
        std::fs::create_dir(&config.path).unwrap();
        let shares = Shares::start(vec![config], &state, catalog, &tasks, Timing::default()).await.unwrap();
        let (_settings, settings) =
            watch::channel(TransferSettings { allow_unproven: false, reserve_bytes: 0 });
        let (intake, downloads) = (Intake::new(shares, settings), dir.path().join("share").join(PARTIAL_DIR));
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"some"))]);
        let body = Box::pin(body.chain(futures::stream::pending()));
        let parts = || std::fs::read_dir(&downloads).map_or(0, Iterator::count);
        let call = tokio::spawn(async move {
            intake.receive(FileName::parse("a").unwrap(), body, false).await.map(drop)
        });
        let until = async |count| {
            while parts() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), until(1)).await.expect("it is begun");
        call.abort();
        timeout(Duration::from_secs(20), until(0)).await.expect("it is removed");
        assert!(tasks.shutdown(Duration::from_secs(5)).await, "it did not end");
    }
}
