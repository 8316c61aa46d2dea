//! The part file of a transfer: pieces are proven, written once where they belong, and remembered only when they are
//! durable.
//!
//! The order is the whole of its safety: bytes, then fdatasync, then the bitmap. After a crash the bitmap may know
//! less than the file holds, never more; what it does not know of is proven again from the file before anybody is
//! asked for it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use p2p_content::{Bitmap, ContentHash, FalsePiece, FileName, Manifest};
use rustix::fs::{FallocateFlags, SeekFrom as Seeking, fallocate, seek};
use rustix::io::Errno;

use super::gauge::Resumed;
use super::measure::Work;
use super::store::{Store, StoreError};
use crate::shares::{DownloadDir, PublishError};

#[cfg(test)]
pub(super) mod power_cut;

/// Makes durable what was written to a file. It is kept as a value so that a test can be the disk.
type Flush = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// The part file.
pub(super) struct Sink {
    id: u64,
    key: String,
    dir: DownloadDir,
    file: Arc<File>,
    manifest: Arc<Manifest>,
    store: Store,
    flush: Flush,
    safe: Arc<Mutex<Safe>>,
    /// Held while a piece is written. The kernel lets one thread at a time write to a file, and who waits for that burns
    /// a core that could prove the next piece: an eighth of the time of a transfer.
    writing: Arc<Mutex<()>>,
    resumed: Resumed,
    work: Arc<Work>,
}

/// What of the file no crash takes.
struct Safe {
    /// The pieces that were remembered last.
    pieces: Bitmap,
    /// Why a flush failed, once one has. The kernel tells of a lost write once: who asks again is told that all is well.
    lost: Option<String>,
}

/// Why a piece or a file could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// The disk is full, or would be.
    #[error("{0}")]
    Full(String),
    /// The name is taken by another file.
    #[error("there is another file under the name {0}; fetch it again with --as NAME")]
    NameTaken(FileName),
    /// No file can have this name there.
    #[error("{0}")]
    NoWay(String),
    /// The directory that the file is to be in takes none of this program; others may.
    #[error("{0}")]
    Closed(String),
    /// The share is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The disk failed.
    #[error("{0}")]
    Io(String),
    /// The list of transfers failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SinkError {
    pub(super) fn of_io(error: io::Error, what: &str) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(format!("the disk is full ({what}: {error})"))
            }
            _ => Self::Io(format!("{what}: {error}")),
        }
    }
}

impl From<PublishError> for SinkError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Exists { name } => Self::NameTaken(name),
            PublishError::Unavailable { .. } => Self::Unavailable(error.to_string()),
            // Something that is no directory stands in the middle of the name.
            PublishError::Io { source, path } if is_no_way(&source) => {
                Self::NoWay(format!("{}: {source}; fetch it again with --as NAME", path.display()))
            }
            PublishError::Unflushed { source, path } | PublishError::Io { source, path } => {
                Self::of_io(source, &path.display().to_string())
            }
            other => Self::Io(other.to_string()),
        }
    }
}

/// Of a file that was to get its name.
pub(super) fn of_naming(error: PublishError) -> SinkError {
    match &error {
        PublishError::Io { source, .. } if is_closed(source) => SinkError::Closed(error.to_string()),
        _ => error.into(),
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::CrossesDevices
    )
}

fn is_no_way(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::ISDIR)
    )
}

/// What became of a piece.
pub(super) enum Kept {
    /// It is proven and written.
    Written,
    /// It is not what the manifest says.
    False(FalsePiece),
}

/// Room on the disk that a new file leaves to others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// Bytes that are kept free.
    pub(super) reserve: u64,
    /// Bytes of files that are to come before it.
    pub(super) claimed: u64,
}

impl Sink {
    /// Opens the part file, or makes it at its full size, and finds out which pieces it holds: those that are
    /// remembered, and those that prove themselves.
    ///
    /// # Errors
    /// [`SinkError::Full`] where the file would leave less room than is kept.
    pub(super) async fn open(
        id: u64,
        dir: DownloadDir,
        manifest: Arc<Manifest>,
        remembered: Option<Bitmap>,
        room: Room,
        store: Store,
    ) -> Result<(Self, Bitmap), SinkError> {
        let key = part_key(manifest.content(), id);
        let (at, part, len) = (dir.clone(), key.clone(), manifest.pieces().len());
        let is_whole_len = blocking(move || part_has_len(&at, &part, len)).await?;
        let mut remembered = remembered;
        if !is_whole_len && remembered.is_some() {
            // The part file is another than the one that was remembered. That nothing is known of the new one is on the
            // disk before the new one is: a crash in between must not find an empty file and a full bitmap.
            tracing::warn!(
                transfer_id = id,
                "the unfinished file of transfer {id} is gone: it is fetched anew"
            );
            let nothing = Bitmap::new(manifest.pieces().count());
            store.forget_proven(id, nothing.to_bytes()).await?;
            remembered = Some(nothing);
        }
        let pieces = remembered.clone().unwrap_or_else(|| Bitmap::new(manifest.pieces().count()));
        let safe = Arc::new(Mutex::new(Safe { pieces, lost: None }));
        let (proofs, at, part) = (Arc::clone(&manifest), dir.clone(), key.clone());
        let opened = blocking(move || open_part(&at, &part, &proofs, remembered, room)).await?;
        let (file, pieces, resumed) = opened;
        let (file, flush) = (Arc::new(file), Arc::new(File::sync_all));
        let (writing, work) = (Arc::default(), Arc::default());
        Ok((Self { id, key, dir, file, manifest, store, flush, safe, writing, resumed, work }, pieces))
    }

    /// The same on a disk that is played.
    #[cfg(test)]
    pub(super) fn on(self, flush: Flush) -> Self {
        Self { flush, ..self }
    }

    /// The transfer's number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The part file, for those who read from it what is proven.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// What was found in the part file when it was opened.
    pub(super) fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// What it has done so far.
    pub(super) fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    /// Proves the piece, and writes it.
    pub(super) async fn keep(&self, index: u32, chunks: Vec<Bytes>) -> Result<Kept, SinkError> {
        let (file, manifest) = (Arc::clone(&self.file), Arc::clone(&self.manifest));
        let (writing, work) = (Arc::clone(&self.writing), Arc::clone(&self.work));
        blocking(move || {
            let range = manifest.pieces().range(index);
            let (len, began) = (range.end - range.start, Instant::now());
            let proof = manifest.prove(index, &chunks);
            work.proved(len, began.elapsed());
            if let Err(false_piece) = proof {
                return Ok(Kept::False(false_piece));
            }
            let _turn = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let (began, mut offset) = (Instant::now(), range.start);
            for chunk in &chunks {
                file.write_all_at(chunk, offset)
                    .map_err(|error| SinkError::of_io(error, "writing the file"))?;
                offset += chunk.len() as u64;
            }
            work.wrote(len, began.elapsed());
            Ok(Kept::Written)
        })
        .await
    }

    /// Makes what is written durable, and then remembers these pieces. Where that fails, what is not remembered is
    /// fetched again, by another sink: this one remembers and publishes nothing more.
    pub(super) async fn remember(&self, pieces: Bitmap) -> Result<(), SinkError> {
        let flush = self.flushing();
        blocking(move || flush().map_err(|error| SinkError::of_io(error, "writing the file"))).await?;
        self.store.set_proven(self.id, None, pieces.to_bytes()).await?;
        lock(&self.safe).pieces = pieces;
        Ok(())
    }

    /// Gives the whole file its name, once all of it is on the disk.
    pub(super) async fn publish(&self, name: FileName) -> Result<PathBuf, SinkError> {
        let (dir, key, flush) = (self.dir.clone(), self.key.clone(), self.flushing());
        blocking(move || dir.publish_flushed(&key, &name, false, |_| flush()).map_err(of_naming)).await
    }

    /// Makes what is written durable. Where that fails, the pieces that are not remembered are emptied: what the kernel still
    /// has of them in memory would prove itself.
    fn flushing(&self) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (file, flush) = (Arc::clone(&self.file), Arc::clone(&self.flush));
        let (manifest, safe) = (Arc::clone(&self.manifest), Arc::clone(&self.safe));
        let (work, began) = (Arc::clone(&self.work), Instant::now());
        move || {
            if let Some(lost) = &lock(&safe).lost {
                return Err(io::Error::other(lost.clone()));
            }
            let flushed = flush(&file);
            match &flushed {
                Ok(()) => work.flushed(began.elapsed()),
                Err(error) => {
                    let mut safe = lock(&safe);
                    safe.lost = Some(error.to_string());
                    empty(&file, &manifest, safe.pieces.iter_missing());
                }
            }
            flushed
        }
    }
}

fn lock(safe: &Mutex<Safe>) -> MutexGuard<'_, Safe> {
    safe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a transfer's part file.
pub(super) fn part_key(content: ContentHash, id: u64) -> String {
    format!("{}-{id}", content.short())
}

/// Removes a part file.
pub(super) async fn discard(dir: DownloadDir, key: String) -> Result<(), SinkError> {
    blocking(move || Ok(dir.remove_part(&key)?)).await
}

/// Removes the part files that no open transfer has: of uploads that a crash broke off, of transfers that ended while
/// the share was not there. Of directories there are many, with these beginnings.
pub(super) async fn discard_all_but(
    dir: DownloadDir,
    open: Vec<String>,
    beginnings: Vec<String>,
) -> Result<(), SinkError> {
    let is_open = move |key: &String| {
        open.contains(key) || beginnings.iter().any(|beginning| key.starts_with(beginning))
    };
    blocking(move || {
        for key in dir.parts()?.into_iter().filter(|key| !is_open(key)) {
            tracing::info!(path = key, "removing an unfinished file that belongs to no transfer: {key}");
            dir.remove_part(&key)?;
        }
        Ok(())
    })
    .await
}

/// Runs work that waits for the disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(SinkError::Io("the daemon is ending".to_owned())),
    }
}

fn part_has_len(dir: &DownloadDir, key: &str, len: u64) -> Result<bool, SinkError> {
    if !dir.parts()?.iter().any(|part| part == key) {
        return Ok(false);
    }
    let metadata = dir.part(key)?.metadata();
    Ok(metadata.map_err(|error| SinkError::of_io(error, "preparing the file"))?.len() == len)
}

fn open_part(
    dir: &DownloadDir,
    key: &str,
    manifest: &Manifest,
    remembered: Option<Bitmap>,
    Room { reserve, claimed }: Room,
) -> Result<(File, Bitmap, Resumed), SinkError> {
    let mut file = dir.part(key)?;
    let failed = |error: io::Error| SinkError::of_io(error, "preparing the file");
    let (len, known) = (manifest.pieces().len(), remembered.is_some());
    let is_new = file.metadata().map_err(failed)?.len() != len;
    if is_new {
        file.set_len(0).map_err(failed)?;
    }
    // Where the file system reserves nothing, others' files grow too.
    let awaited = dir.awaited_bytes()?.saturating_add(if is_new { claimed } else { 0 });
    let needs = if is_new { len } else { 0 }.saturating_add(awaited);
    let free = dir.free_bytes()?;
    if needs > 0 && free.saturating_sub(needs) < reserve {
        if is_new {
            dir.remove_part(key)?;
        }
        let needed = match (is_new, awaited) {
            (true, 0) => format!("it needs {len} bytes"),
            (true, _) => format!("it needs {len} bytes, and files that are not whole yet {awaited} more"),
            (false, _) => format!("files that are not whole yet need {awaited} bytes"),
        };
        return Err(SinkError::Full(format!(
            "{needed}, and {free} are free, of which {reserve} are kept free ([transfers] reserve_bytes)"
        )));
    }
    if is_new && let Err(error) = allocate(&file, len) {
        // What it got of the disk is given back: others may need it while this one waits.
        dir.remove_part(key)?;
        return Err(failed(error));
    }
    let mut pieces = remembered.unwrap_or_else(|| Bitmap::new(manifest.pieces().count()));
    let mut resumed = Resumed { remembered: pieces.count_ones(), ..Resumed::default() };
    if known {
        prove_unremembered(&mut file, manifest, &mut pieces, &mut resumed).map_err(failed)?;
    }
    Ok((file, pieces, resumed))
}

/// Reserves the blocks now, so that the disk cannot run full in the middle, and the file lies in few extents. In memory
/// there are no extents, and each page would be written twice: once with zeros.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    file.set_len(0)?;
    match len {
        0 => Ok(()),
        _ if u64::try_from(rustix::fs::fstatfs(file)?.f_type) == Ok(TMPFS_MAGIC) => file.set_len(len),
        _ => match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(len),
            done => Ok(done?),
        },
    }
}

/// Leaves holes where these pieces are; zeros where the file system knows no holes.
fn empty(file: &File, manifest: &Manifest, pieces: impl Iterator<Item = u32>) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for piece in pieces {
        let range = manifest.pieces().range(piece);
        let len = range.end - range.start;
        let emptied = fallocate(file, flags, range.start, len)
            .map_err(io::Error::from)
            .or_else(|_| file.write_all_at(&vec![0; usize::try_from(len).unwrap_or_default()], range.start));
        if let Err(error) = emptied {
            tracing::error!(
                %error,
                "piece {piece} of an unfinished file may be lost on the disk, and cannot be emptied: {error}; cancel the \
                 transfer and fetch the file again"
            );
        }
    }
}

/// Pieces that were written after the bitmap was last remembered are in the file all the same, unless the machine
/// itself went down: proving them from there is cheaper than asking for them again. Holes are not read.
fn prove_unremembered(
    file: &mut File,
    manifest: &Manifest,
    pieces: &mut Bitmap,
    resumed: &mut Resumed,
) -> io::Result<()> {
    let missing: Vec<u32> = pieces.iter_missing().collect();
    let mut buffer = Vec::new();
    for index in missing {
        let range = manifest.pieces().range(index);
        match seek(&*file, Seeking::Data(range.start)) {
            Ok(data) if data >= range.end => continue,
            Err(Errno::NXIO) => break,
            _ => {}
        }
        file.seek(SeekFrom::Start(range.start))?;
        buffer.clear();
        file.by_ref().take(range.end - range.start).read_to_end(&mut buffer)?;
        (resumed.hashed, resumed.hashed_bytes) =
            (resumed.hashed + 1, resumed.hashed_bytes + buffer.len() as u64);
        if manifest.prove(index, &[&buffer]).is_ok() {
            resumed.proven += 1;
            pieces.set(index);
        }
    }
    Ok(())
}
