//! Files on their way to one peer each, which are in no share: kept until that peer has them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use p2p_content::{ContentHash, Manifest};
use p2p_identity::PeerId;
use tokio::sync::Mutex;

use super::intake::{IntakeError, write_hashed};
use super::sink::{SinkError, blocking};
use super::store::{Store, StoreError};
use crate::discovery::now_ms;

/// How long an offered file is kept for a peer that does not fetch it.
const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;

/// The outbox. Clones are handles to the same.
#[derive(Clone)]
pub struct Outbox {
    dir: PathBuf,
    store: Store,
    /// A file and the permissions for it change together.
    changing: Arc<Mutex<()>>,
}

/// A content that one peer may fetch.
#[derive(Debug)]
pub struct Outboxed {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its bytes, where the outbox has them; a shared file may have them too.
    pub file: Option<File>,
}

impl Outbox {
    /// Opens the outbox in this directory; what is too old, and what nobody may fetch any more, is removed.
    pub async fn open(dir: &Path, store: Store) -> Result<Self, IntakeError> {
        let outbox = Self { dir: dir.to_owned(), store, changing: Arc::default() };
        let at = outbox.dir.clone();
        disk(move || fs::DirBuilder::new().recursive(true).mode(0o700).create(at)).await?;
        outbox.tidy().await?;
        Ok(outbox)
    }

    /// Removes what is too old, and what nobody may fetch any more.
    pub async fn tidy(&self) -> Result<(), IntakeError> {
        let _changing = self.changing.lock().await;
        let wanted = self.store.expire(now_ms() - KEPT_MS).await.map_err(of_store)?;
        let wanted: Vec<String> = wanted.iter().map(ContentHash::to_string).collect();
        let dir = self.dir.clone();
        disk(move || {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if !wanted.iter().any(|name| entry.file_name() == name.as_str()) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes in a file that this peer, and nobody else, may fetch.
    pub(super) async fn stage<S, E>(&self, peer: PeerId, body: S) -> Result<Manifest, IntakeError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let part = self.dir.join(format!("part-{:016x}", rand::random::<u64>()));
        let at = part.clone();
        let file = disk(move || OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)).await?;
        // What is kept free is for the disk of the downloads; what waits here is gone when it was delivered.
        let hashed = match write_hashed(file, body, 0).await {
            Ok((_, manifest)) => self.keep(peer, part.clone(), manifest).await,
            Err(error) => Err(error),
        };
        if hashed.is_err() {
            let _ = disk(move || fs::remove_file(part)).await;
        }
        hashed
    }

    async fn keep(&self, peer: PeerId, part: PathBuf, manifest: Manifest) -> Result<Manifest, IntakeError> {
        let path = self.path(manifest.content());
        let _changing = self.changing.lock().await;
        disk(move || {
            File::open(&part)?.sync_all()?;
            fs::rename(part, path)
        })
        .await?;
        self.store.grant(peer, &manifest, now_ms()).await.map_err(of_store)?;
        Ok(manifest)
    }

    /// What this peer may fetch of this content, if anything.
    pub async fn find(&self, peer: PeerId, content: ContentHash) -> Result<Option<Outboxed>, IntakeError> {
        let Some(manifest) = self.store.granted(peer, content, now_ms() - KEPT_MS).await.map_err(of_store)?
        else {
            return Ok(None);
        };
        let path = self.path(content);
        let file = disk(move || match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        })
        .await?;
        Ok(Some(Outboxed { manifest, file }))
    }

    /// The peer has it, or does not want it.
    pub(super) async fn remove(&self, peer: PeerId, content: ContentHash) -> Result<(), IntakeError> {
        let _changing = self.changing.lock().await;
        if self.store.revoke(peer, content).await.map_err(of_store)? {
            let path = self.path(content);
            disk(move || fs::remove_file(path)).await?;
        }
        Ok(())
    }

    /// The bytes of a content that was just staged, whole: for a plain peer, which takes nothing else.
    pub(super) async fn read(&self, content: ContentHash) -> Result<Bytes, IntakeError> {
        let path = self.path(content);
        disk(move || fs::read(path)).await.map(Bytes::from)
    }

    fn path(&self, content: ContentHash) -> PathBuf {
        self.dir.join(content.to_string())
    }
}

async fn disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, IntakeError> {
    let work = move || work().map_err(|error| SinkError::of_io(error, "the outbox"));
    Ok(blocking(work).await?)
}

fn of_store(error: StoreError) -> IntakeError {
    IntakeError::Internal(error.to_string())
}
