//! Files on their way into the share, many at once: proven and written as parts as they come; then all of them are made
//! durable by one flush, get their names, enter the catalog, and are struck off the list.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use p2p_content::{ContentHash, ContentHasher, FileName, Manifest};

use super::super::jobs::Shared;
use super::super::measure::Work;
use super::super::plan::SourceKey;
use super::super::sink::{SinkError, blocking, of_naming};
use super::super::store::TreeFile;
use super::plan::FileKey;
use super::{LONGEST, discard, part_key};
use crate::shares::{PublishError, ReadyFile, Together, Under};

/// The bytes of a file, as a source gave them.
pub(super) struct Came {
    pub(super) key: FileKey,
    pub(super) source: SourceKey,
    pub(super) file: TreeFile,
    pub(super) chunks: Vec<Bytes>,
}

/// What is here of a file before anybody is asked for it.
pub(super) enum Found {
    /// Nothing, or nothing that is right.
    Nothing,
    /// All of it.
    Proven(Proven),
    /// Something else has its name.
    Taken,
}

/// A file that is proven, and not struck off the list yet.
pub(super) struct Proven {
    pub(super) file: TreeFile,
    pub(super) manifest: Manifest,
    /// Whether it has its name already: a daemon that was killed left it so, or a user put it there.
    pub(super) has_name: bool,
}

/// What came of the bytes of a file.
pub(super) struct Kept {
    pub(super) key: FileKey,
    pub(super) source: SourceKey,
    pub(super) size: u64,
    /// Nothing where they were false.
    pub(super) proven: Option<Proven>,
}

/// What became of a batch.
pub(super) struct Named {
    /// Files that are here under their names, and their bytes.
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Proves the files, and writes those that are what they should be. Waits for the disk.
pub(super) fn keep(
    together: &Together,
    id: u64,
    came: Vec<Came>,
    work: &Work,
) -> Result<Vec<Kept>, SinkError> {
    let mut kept = Vec::with_capacity(came.len());
    for Came { key, source, file, chunks } in came {
        let (mut hasher, began) = (ContentHasher::new(), Instant::now());
        chunks.iter().for_each(|chunk| hasher.update(chunk));
        let (content, manifest) = hasher.finish();
        let size = file.size;
        work.proved(size, began.elapsed());
        let proven = (content == file.content && manifest.pieces().len() == file.size).then(|| {
            let began = Instant::now();
            together.write(&part_key(id, &file.name), &chunks)?;
            work.wrote(size, began.elapsed());
            Ok::<_, SinkError>(Proven { file, manifest, has_name: false })
        });
        kept.push(Kept { key, source, size, proven: proven.transpose()? });
    }
    Ok(kept)
}

/// The keys of the parts that an earlier run left.
pub(super) async fn left_parts(shared: &Shared, id: u64) -> Result<HashSet<String>, SinkError> {
    let (dir, beginning) = (shared.shares.downloads(), super::beginning(id));
    let is_own = move |key: &String| key.starts_with(&beginning);
    blocking(move || Ok(dir.parts()?.into_iter().filter(is_own).collect())).await
}

/// What is here of these files already. Waits for the disk.
pub(super) fn look(
    together: &Together,
    id: u64,
    files: Vec<TreeFile>,
    parts: &HashSet<String>,
) -> Result<Vec<(TreeFile, Found)>, SinkError> {
    let under = together.under(files.iter().map(|file| &file.name), LONGEST)?;
    let mut found = Vec::with_capacity(files.len());
    for (file, under) in files.into_iter().zip(under) {
        let (held, has_name) = match under {
            Under::File(manifest) => (Some(manifest), true),
            Under::Other => (None, true),
            Under::Nothing => {
                let key = part_key(id, &file.name);
                let held = if parts.contains(&key) { together.read(&key, LONGEST)? } else { None };
                (held, false)
            }
        };
        // Its length is proven by its bytes, whatever was told.
        let manifest = held.filter(|manifest| manifest.content() == file.content);
        let what = match manifest {
            Some(manifest) => Found::Proven(Proven { file: file.clone(), manifest, has_name }),
            None if has_name => Found::Taken,
            None => Found::Nothing,
        };
        found.push((file, what));
    }
    Ok(found)
}

/// Why a file has no name that another one has.
pub(super) const TAKEN: &str = "another file is here under this name";

/// Makes the files durable, gives them their names, has them in the catalog, and strikes them off the list.
pub(super) async fn finish(
    shared: &Shared,
    id: u64,
    together: Arc<Together>,
    batch: Vec<Proven>,
    work: &Work,
) -> Result<Named, SinkError> {
    let (flushed, began) = (Arc::clone(&together), Instant::now());
    if let Err(error) = blocking(move || Ok(flushed.flush()?)).await {
        // The kernel tells of a lost write once, and what it still has of it in memory would prove itself.
        discard(shared, super::beginning(id)).await?;
        return Err(error);
    }
    work.flushed(began.elapsed());
    let (known, unnamed): (Vec<_>, Vec<_>) = batch.into_iter().partition(|proven| proven.has_name);
    let ready = |proven: Proven| ReadyFile {
        key: part_key(id, &proven.file.name),
        name: proven.file.name.clone(),
        content: proven.file.content,
        manifest: proven.manifest,
    };
    let files: Vec<_> = unnamed.iter().map(|proven| proven.file.clone()).collect();
    let published = shared.shares.publish_all(&together, unnamed.into_iter().map(ready).collect()).await?;
    let (mut here, mut broken) = (known.into_iter().map(|proven| proven.file).collect::<Vec<_>>(), None);
    for (file, result) in files.into_iter().zip(published.results) {
        let why = match result {
            Ok(()) => {
                here.push(file);
                continue;
            }
            Err(PublishError::Exists { .. }) => match is_under(&together, &file).await? {
                true => {
                    here.push(file);
                    continue;
                }
                false => TAKEN.to_owned(),
            },
            Err(error) => match of_naming(error) {
                SinkError::NoWay(why) | SinkError::Closed(why) => why,
                // What has its name by now is seen to first.
                other => {
                    broken = broken.or(Some(other));
                    continue;
                }
            },
        };
        fail(shared, id, file.name, file.content, why).await?;
    }
    let counted = Named { files: here.len() as u64, bytes: here.iter().map(|file| file.size).sum() };
    let struck = here.into_iter().map(|file| (file.name, file.content)).collect();
    let (adopted, struck) = tokio::join!(published.adopted, shared.store.strike_files(id, struck));
    if let Ok(Err(error)) = adopted {
        // The files are whole and in their places; the next look finds them there.
        tracing::warn!(transfer_id = id, %error, "files of transfer {id} are not in the catalog yet: {error}");
    }
    struck?;
    broken.map_or(Ok(counted), Err)
}

/// Whether the file is under its name: who put something there may have put the same. It is a user's to change then, and
/// the share's own look enters it into the catalog.
async fn is_under(together: &Arc<Together>, file: &TreeFile) -> Result<bool, SinkError> {
    let (together, file) = (Arc::clone(together), file.clone());
    blocking(move || {
        let under = together.under(std::iter::once(&file.name), LONGEST);
        let under = under.ok().and_then(|mut under| under.pop());
        Ok(matches!(under, Some(Under::File(manifest)) if manifest.content() == file.content))
    })
    .await
}

/// A file cannot get its name: the others go on. What came of it is removed.
pub(super) async fn fail(
    shared: &Shared,
    id: u64,
    name: FileName,
    content: ContentHash,
    why: String,
) -> Result<(), SinkError> {
    tracing::warn!(
        transfer_id = id,
        file = %name,
        content_hash = %content,
        reason = why,
        "transfer {id} does not get {name}: {why}"
    );
    let (dir, key) = (shared.shares.downloads(), part_key(id, &name));
    blocking(move || Ok(dir.remove_part(&key)?)).await?;
    Ok(shared.store.fail_file(id, name, content, why).await?)
}
