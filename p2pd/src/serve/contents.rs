//! The bytes behind a content, for whoever may see it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use p2p_content::{ContentHash, EndHasher, Manifest};
use p2p_identity::PeerId;
use p2p_proto::PULL_CHUNK_LEN;
use p2p_service::passage::AnswerRoom;
use tonic::Status;

use super::admission::Guest;
use super::brake::Brakes;
use super::buffers::Buffers;
use super::finder::Finder;
use crate::catalog::{Catalog, Viewer};
use crate::limits::Limits;
use crate::shares::Shares;
use crate::transfer::{Outbox, Swarm, Swarms, Unfinished};

/// Bytes of long answers that are held at once, those of Pull apart.
const ANSWERS: usize = 32 << 20;
/// How long nobody may have read on with one that gives way to others: who is far and slow reads in fits and starts.
const HASTE: Duration = Duration::from_secs(1);

/// Bytes that were given to others since the start. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<AtomicU64>);

impl Served {
    /// So many more.
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Finds contents in the shares and in the outbox. Clones are handles to the same.
#[derive(Clone)]
pub struct Contents {
    catalog: Catalog,
    shares: Shares,
    outbox: Outbox,
    swarms: Swarms,
    limits: Limits,
    buffers: Buffers,
    brakes: Brakes,
    answers: AnswerRoom,
    served: Served,
}

/// An open file that holds a content, or what of it has come.
pub(super) struct Held {
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    kind: Kind,
}

enum Kind {
    /// All of it, for as long as the file has this stamp.
    Whole((u64, i64, i64)),
    /// The pieces that have come.
    Part(Arc<Swarm>),
}

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoBytes {
    /// Not here, or not for them.
    #[error("not found")]
    NotFound,
    /// The file is no longer what was announced.
    #[error("the file changed")]
    Changed,
    /// The disk or the database failed; the log knows more.
    #[error("the file cannot be read")]
    Unreadable,
}

impl Held {
    /// All of a content.
    pub(super) fn whole(file: File) -> std::io::Result<Self> {
        let stamp = stamp(&file)?;
        Ok(Self { file: Arc::new(file), size: stamp.0, kind: Kind::Whole(stamp) })
    }

    /// What has come of a content.
    pub(super) fn part(unfinished: Unfinished, swarm: Arc<Swarm>) -> Self {
        let size = unfinished.manifest.pieces().len();
        Self { file: unfinished.file, size, kind: Kind::Part(swarm) }
    }

    /// Whether the file is still as it was when it was opened and found to be what was announced.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.kind {
            Kind::Whole(opened) => stamp(&self.file).is_ok_and(|now| now == *opened),
            // Looked at piece by piece.
            Kind::Part(_) => true,
        }
    }

    /// Whether these bytes are here by now.
    pub(super) fn has(&self, bytes: &Range<u64>) -> bool {
        match &self.kind {
            Kind::Whole(_) => true,
            Kind::Part(swarm) => swarm.has(&self.file, bytes),
        }
    }
}

fn stamp(file: &File) -> std::io::Result<(u64, i64, i64)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Contents {
    /// From these.
    pub fn new(catalog: Catalog, shares: Shares, outbox: Outbox, swarms: Swarms, limits: Limits) -> Self {
        Self {
            catalog,
            shares,
            outbox,
            swarms,
            limits,
            buffers: Buffers::default(),
            brakes: Brakes::default(),
            answers: AnswerRoom::hasty_after(ANSWERS, HASTE),
            served: Served::default(),
        }
    }

    /// What was given out.
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How fast they may go.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What holds them back.
    pub(super) fn brakes(&self) -> &Brakes {
        &self.brakes
    }

    /// The room for long answers, to all peers together.
    pub(super) fn answers(&self) -> &AnswerRoom {
        &self.answers
    }

    /// What was sent to single peers.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What the bytes are read into.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Who fetches what.
    pub(super) fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    /// The length of this content in bytes, where the guest may have all of it from here.
    pub(super) async fn whole_len(
        &self,
        content: ContentHash,
        guest: &Guest,
    ) -> Result<Option<u64>, NoBytes> {
        let visible = self.catalog.find_content(content, guest.viewer).await.map_err(unreadable)?;
        if let Some(fact) = visible.first() {
            return Ok(Some(fact.size));
        }
        let outboxed = self.outbox.find(guest.id, content).await.map_err(unreadable)?;
        Ok(outboxed.map(|outboxed| outboxed.manifest.pieces().len()))
    }

    /// The swarm of a content that this peer fetches itself, where the guest may see what it fetches.
    pub(super) fn fetched(&self, content: ContentHash, viewer: Viewer) -> Option<Arc<Swarm>> {
        let swarm = self.swarms.find(content)?;
        let unfinished = swarm.part()?;
        self.shares.shows(&unfinished.share, viewer).then_some(swarm)
    }

    /// Whether every member of the network may see that this content is here.
    pub(super) async fn is_public(&self, content: ContentHash) -> Result<bool, NoBytes> {
        let visible = self.catalog.find_content(content, Viewer::Network).await.map_err(unreadable)?;
        Ok(!visible.is_empty() || self.fetched(content, Viewer::Network).is_some())
    }

    /// The manifest of a content that the guest may see.
    pub(super) async fn manifest(
        &self,
        content: ContentHash,
        viewer: Viewer,
        id: PeerId,
    ) -> Result<Manifest, NoBytes> {
        let visible = self.catalog.find_content(content, viewer).await.map_err(unreadable)?;
        if !visible.is_empty()
            && let Some(manifest) = self.catalog.manifest(content).await.map_err(unreadable)?
        {
            return Ok(manifest);
        }
        if let Some(outboxed) = self.outbox.find(id, content).await.map_err(unreadable)? {
            return Ok(outboxed.manifest);
        }
        let fetched = self.fetched(content, viewer).and_then(|swarm| swarm.part());
        fetched.map(|unfinished| Manifest::clone(&unfinished.manifest)).ok_or(NoBytes::NotFound)
    }

    /// What proves the length of a content, read from its last piece; `None` where that is not here for the guest.
    pub(super) async fn ending(&self, manifest: &Manifest, guest: &Guest) -> Option<Vec<u8>> {
        let (mut finder, guest, content, pieces) =
            (self.finder(), guest.clone(), manifest.content(), manifest.pieces());
        let reading = move || {
            let held = finder.open(content, &guest).ok()?;
            let range = pieces.range(pieces.count() - 1);
            if held.size != pieces.len() || !held.has(&range) {
                return None;
            }
            let (mut hasher, mut chunk, mut offset) =
                (EndHasher::new(pieces), vec![0; PULL_CHUNK_LEN], range.start);
            while offset < range.end {
                let len = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(PULL_CHUNK_LEN);
                held.file.read_exact_at(&mut chunk[..len], offset).ok()?;
                hasher.update(&chunk[..len]);
                offset += len as u64;
            }
            hasher.finish().filter(|_| held.is_unchanged())
        };
        tokio::task::spawn_blocking(reading).await.ok()?
    }

    /// For who opens one content after another.
    pub(super) fn finder(&self) -> Finder {
        Finder::new(self.clone(), self.shares.opener())
    }
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> NoBytes {
    tracing::error!(%error, "a content cannot be read: {error}; look at the disks of the shares and of the state directory");
    NoBytes::Unreadable
}

impl From<NoBytes> for Status {
    fn from(error: NoBytes) -> Self {
        match error {
            NoBytes::NotFound => Self::not_found("not found"),
            NoBytes::Changed => Self::failed_precondition("the file changed since it was announced"),
            NoBytes::Unreadable => Self::internal("the file cannot be read"),
        }
    }
}
