//! The part file on a disk whose power is cut, again and again.
//!
//! The disk is played. The real file is what the kernel shows; beside it stands what is safe: what the file held when it
//! was last flushed. A cut leaves that, and of what was written since, each sector that luck chose. The database is a real
//! one, of whose log a cut leaves as much as luck chose, since it is not flushed at each change.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p_content::{ContentHasher, PARTIAL_DIR};
use p2p_proto::control::Visibility;
use p2p_service::tasks::Tasks;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::super::fetch::fresh;
use super::super::store::Terms;
use super::*;
use crate::catalog::Catalog;
use crate::shares::{ShareConfig, Shares, Timing};

const CASES: u64 = 48;
/// In each case; the transfer goes on with what each leaves.
const CUTS: u32 = 3;
/// Things that are done before each cut, at the most.
const STEPS: u32 = 24;
const LONGEST: usize = 8 << 20;
/// What a disk writes as a whole; it is torn here all the same.
const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Bytes that arrive at once.
const CHUNK: usize = 256 * 1024;
const STORE: &str = "transfers.sqlite";
const LOG: &str = "transfers.sqlite-wal";

/// What the played disk knows of the part file.
struct Disk {
    /// What no cut takes from it.
    safe: Vec<u8>,
    /// Flushes until the power is cut in the middle of one; `None`: it is cut between two steps.
    flushes_left: Option<u32>,
    /// What there was when it was cut in the middle of one.
    caught: Option<Moment>,
}

/// All that there is at some moment.
struct Moment {
    safe: Vec<u8>,
    /// As the kernel shows it.
    seen: Vec<u8>,
    /// The database with its log.
    store: TempDir,
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn copied(store: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [STORE, LOG].into_iter().filter(|name| store.join(name).exists()) {
        fs::copy(store.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// A flush: while it lasts, nothing more than before is safe.
fn flush(disk: &Mutex<Disk>, file: &File, store: &Path) {
    let seen = contents(file);
    let disk = &mut *lock(disk);
    disk.flushes_left = match disk.flushes_left {
        Some(0) if disk.caught.is_none() => {
            let (safe, seen) = (disk.safe.clone(), seen.clone());
            disk.caught = Some(Moment { safe, seen, store: copied(store) });
            Some(0)
        }
        left => left.map(|left| left.saturating_sub(1)),
    };
    disk.safe = seen;
}

/// What a cut leaves of the file.
pub(in crate::transfer) fn left_of(safe: &[u8], seen: &[u8], random: &mut StdRng) -> Vec<u8> {
    let luck = [0.0, 0.5, 0.9, 1.0][random.random_range(0..4_usize)];
    let mut left = seen.to_vec();
    for (sector, before) in left.chunks_mut(SECTOR).zip(safe.chunks(SECTOR)) {
        if &*sector == before || random.random_bool(luck) {
            continue;
        }
        match random.random_range(0..4) {
            0 => {
                let at = random.random_range(0..sector.len());
                sector[at..].copy_from_slice(&before[at..]);
            }
            1 => random.fill(sector),
            _ => sector.copy_from_slice(before),
        }
    }
    left
}

/// What a cut leaves of the database's log.
pub(in crate::transfer) fn tear_log(path: &Path, random: &mut StdRng) {
    let mut log = fs::read(path).unwrap_or_default();
    if log.is_empty() || random.random_bool(0.5) {
        return;
    }
    let at = random.random_range(0..log.len());
    match random.random_bool(0.5) {
        true => log.truncate(at),
        false => log[at..].fill(0),
    }
    fs::write(path, log).unwrap();
}

/// Writes a file in which holes stay holes.
pub(in crate::transfer) fn put(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (nth, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, (nth * PAGE) as u64).unwrap();
        }
    }
}

/// Makes all that is in the database durable.
fn checkpoint(store: &Path) {
    let connection = rusqlite::Connection::open(store.join(STORE)).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// A share to fetch into.
struct House {
    downloads: DownloadDir,
    _shares: Shares,
    _tasks: Tasks,
    _dir: TempDir,
}

impl House {
    async fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let [share, state] = ["share", "state"].map(|name| dir.path().join(name));
        fs::create_dir(&share).unwrap();
        fs::create_dir(&state).unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).unwrap();
        let config = ShareConfig {
            name: "docs".to_owned(),
            path: share,
            visible: Visibility::Network,
            downloads: true,
            added: false,
        };
        let tasks = Tasks::new();
        let shares = Shares::start(vec![config], &state, catalog, &tasks, Timing::default()).await.unwrap();
        House { downloads: shares.downloads(), _shares: shares, _tasks: tasks, _dir: dir }
    }
}

/// A transfer through some cuts.
struct Case<'a> {
    house: &'a House,
    random: StdRng,
    bytes: Vec<u8>,
    manifest: Arc<Manifest>,
    id: u64,
    store: Store,
    store_dir: TempDir,
}

impl<'a> Case<'a> {
    async fn new(house: &'a House, seed: u64) -> Case<'a> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(1..LONGEST)];
        random.fill(&mut bytes[..]);
        let mut hasher = ContentHasher::new();
        hasher.update(&bytes);
        let (content, manifest) = hasher.finish();
        let store_dir = tempfile::tempdir().unwrap();
        let store = Store::open(&store_dir.path().join(STORE)).unwrap();
        let transfer = fresh(FileName::parse("a.bin").unwrap(), Some(content), Some(bytes.len() as u64));
        let id = store.add(transfer, Terms::default()).await.unwrap().id;
        Case { house, random, bytes, manifest: Arc::new(manifest), id, store, store_dir }
    }

    fn count(&self) -> u32 {
        self.manifest.pieces().count()
    }

    fn range(&self, piece: u32) -> Range<usize> {
        let range = self.manifest.pieces().range(piece);
        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
    }

    fn key(&self) -> String {
        part_key(self.manifest.content(), self.id)
    }

    async fn open(&self, remembered: Option<Bitmap>) -> (Sink, Bitmap) {
        let (dir, manifest) = (self.house.downloads.clone(), Arc::clone(&self.manifest));
        Sink::open(self.id, dir, manifest, remembered, Room::default(), self.store.clone()).await.unwrap()
    }

    async fn run(mut self) {
        let (mut sink, mut held) = self.open(None).await;
        assert_eq!(held.count_ones(), 0);
        self.store.set_proven(self.id, Some(self.manifest.to_bytes()), held.to_bytes()).await.unwrap();
        if self.random.random_bool(0.75) {
            // A cut may take the bitmaps that follow, and not the transfer.
            checkpoint(self.store_dir.path());
        }
        for _ in 0..CUTS {
            let moment = self.until_cut(sink, held).await;
            match self.reopened(moment).await {
                Some(opened) => (sink, held) = opened,
                None => return discard(self.house.downloads.clone(), self.key()).await.unwrap(),
            }
        }
        while !held.is_full() {
            self.write_one(&sink, &mut held).await;
        }
        assert!(contents(&sink.file()) == self.bytes, "the whole file is another one");
        discard(self.house.downloads.clone(), self.key()).await.unwrap();
    }

    /// Writes and remembers, as the engine does, until the power is cut.
    async fn until_cut(&mut self, mut sink: Sink, held: Bitmap) -> Moment {
        let flushes_left = self.random.random_bool(0.5).then(|| self.random.random_range(0..4));
        let disk = Disk { safe: contents(&sink.file()), flushes_left, caught: None };
        let disk = Arc::new(Mutex::new(disk));
        let (played, store) = (Arc::clone(&disk), self.store_dir.path().to_owned());
        sink.flush = Arc::new(move |file: &File| {
            flush(&played, file, &store);
            Ok(())
        });
        // What is remembered is what was written when it was decided to remember; other pieces are written meanwhile.
        let (mut written, mut noted) = (held.clone(), held);
        for _ in 0..self.random.random_range(1..STEPS) {
            match self.random.random_range(0..10) {
                0..=5 => self.write_one(&sink, &mut written).await,
                6 | 7 => noted = written.clone(),
                _ => {
                    sink.remember(noted.clone()).await.unwrap();
                    let caught = lock(&disk).caught.take();
                    if let Some(moment) = caught {
                        return moment;
                    }
                }
            }
        }
        let safe = std::mem::take(&mut lock(&disk).safe);
        Moment { safe, seen: contents(&sink.file()), store: copied(self.store_dir.path()) }
    }

    /// Writes one of the pieces that are missing; now and then it is false.
    async fn write_one(&mut self, sink: &Sink, written: &mut Bitmap) {
        let missing: Vec<u32> = written.iter_missing().collect();
        if missing.is_empty() {
            return;
        }
        let piece = missing[self.random.random_range(0..missing.len())];
        let mut bytes = self.bytes[self.range(piece)].to_vec();
        let is_false = self.random.random_bool(0.1);
        if is_false {
            let at = self.random.random_range(0..bytes.len());
            bytes[at] ^= 1;
        }
        match sink.keep(piece, bytes.chunks(CHUNK).map(Bytes::copy_from_slice).collect()).await.unwrap() {
            Kept::Written => assert!(!is_false && written.set(piece)),
            Kept::False(_) => assert!(is_false),
        }
    }

    /// Opens what luck leaves, and looks at what is said to be there. `None` where the list of transfers has forgotten
    /// the transfer itself.
    async fn reopened(&mut self, moment: Moment) -> Option<(Sink, Bitmap)> {
        let Moment { safe, seen, store } = moment;
        tear_log(&store.path().join(LOG), &mut self.random);
        self.store = Store::open(&store.path().join(STORE)).unwrap();
        self.store_dir = store;
        let path = self.house.downloads.path().join(PARTIAL_DIR).join(self.key());
        let left = left_of(&safe, &seen, &mut self.random);
        // A file system may forget a name or a length too.
        let is_gone = match self.random.random_range(0..8) {
            0 => {
                fs::remove_file(&path).unwrap();
                true
            }
            1 => {
                fs::remove_file(&path).unwrap();
                put(&path, &left[..self.random.random_range(0..left.len())]);
                true
            }
            _ => {
                fs::remove_file(&path).unwrap();
                put(&path, &left);
                false
            }
        };
        let remembered = self.remembered(&self.store).await;
        let (sink, held) = self.open(remembered.clone()).await;
        let Some(remembered) = remembered else {
            assert_eq!(held.count_ones(), 0, "nothing is known that could prove them");
            return None;
        };
        let shown = contents(&sink.file());
        for piece in 0..self.count() {
            let range = self.range(piece);
            let is_true = |file: &[u8]| file[range.clone()] == self.bytes[range.clone()];
            assert!(!held.get(piece) || is_true(&shown), "piece {piece} is held, and is false");
            let is_kept = is_true(&safe) || remembered.get(piece);
            assert!(held.get(piece) || is_gone || !is_kept, "piece {piece} was flushed, and is not held");
        }
        if is_gone {
            assert_eq!(held.count_ones(), 0);
            // The next cut may come before anything else is flushed.
            let copy = copied(self.store_dir.path());
            let _ = fs::remove_file(copy.path().join(LOG));
            let known = self.remembered(&Store::open(&copy.path().join(STORE)).unwrap()).await;
            assert_eq!(known.unwrap().count_ones(), 0, "pieces of a file that is gone are remembered");
        }
        Some((sink, held))
    }

    async fn remembered(&self, store: &Store) -> Option<Bitmap> {
        let proven = store.proven(self.id, self.manifest.content(), self.bytes.len() as u64).await.unwrap();
        proven.map(|proven| proven.pieces)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_makes_a_piece_count_that_is_not_there() {
    let house = House::new().await;
    for seed in 0..CASES {
        println!("seed {seed}");
        Case::new(&house, seed).await.run().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_flush_may_have_lost_is_fetched_again() {
    let house = House::new().await;
    for seed in 0..8 {
        let mut case = Case::new(&house, seed).await;
        let (mut sink, mut held) = case.open(None).await;
        case.store.set_proven(case.id, Some(case.manifest.to_bytes()), held.to_bytes()).await.unwrap();
        while held.count_ones() < case.count() / 2 {
            case.write_one(&sink, &mut held).await;
        }
        sink.remember(held.clone()).await.unwrap();
        let remembered = held.clone();
        while !held.is_full() {
            case.write_one(&sink, &mut held).await;
        }
        sink.flush = Arc::new(|_: &File| Err(std::io::ErrorKind::Other.into()));
        assert!(matches!(sink.remember(held).await, Err(SinkError::Io(_))));
        drop(sink);
        // The kernel would say now that all is well.
        let (sink, held) = case.open(case.remembered(&case.store).await).await;
        assert_eq!(held.to_bytes(), remembered.to_bytes());
        drop(sink);
        discard(house.downloads.clone(), case.key()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_flush_nothing_more_is_remembered_or_published() {
    let house = House::new().await;
    for (seed, fails_while_publishing) in [(0, false), (1, true), (2, false), (3, true)] {
        let mut case = Case::new(&house, seed).await;
        let (mut sink, mut held) = case.open(None).await;
        case.store.set_proven(case.id, Some(case.manifest.to_bytes()), held.to_bytes()).await.unwrap();
        let remembered = held.to_bytes();
        while !held.is_full() {
            case.write_one(&sink, &mut held).await;
        }
        // As the kernel does, once for each handle.
        let fails = Mutex::new(true);
        sink.flush = Arc::new(move |_: &File| {
            let fails = std::mem::take(&mut *fails.lock().unwrap());
            if fails { Err(io::Error::from(Errno::IO)) } else { Ok(()) }
        });
        let name = FileName::parse("a.bin").unwrap();
        if !fails_while_publishing {
            assert!(matches!(sink.remember(held.clone()).await, Err(SinkError::Io(_))));
            assert!(matches!(sink.remember(held.clone()).await, Err(SinkError::Io(_))));
        }
        let published = sink.publish(name.clone()).await;
        assert!(
            matches!(&published, Err(SinkError::Io(why)) if why.contains("Input/output error")),
            "{published:?}"
        );
        assert!(!house.downloads.exists(&name).unwrap());
        drop(sink);
        let (sink, held) = case.open(case.remembered(&case.store).await).await;
        assert_eq!(held.to_bytes(), remembered);
        drop(sink);
        discard(house.downloads.clone(), case.key()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_kept_for_the_files_that_still_grow() {
    let house = House::new().await;
    let case = Case::new(&house, 1).await;
    let free = house.downloads.free_bytes().unwrap();
    let reserve = free / 4 * 3;
    let open = async || {
        let (dir, manifest) = (house.downloads.clone(), Arc::clone(&case.manifest));
        Sink::open(case.id, dir, manifest, None, Room { reserve, claimed: 0 }, case.store.clone())
            .await
            .map(drop)
    };
    open().await.unwrap();
    discard(house.downloads.clone(), case.key()).await.unwrap();
    // As it is where the file system reserves nothing.
    house.downloads.part("other").unwrap().set_len(free / 2).unwrap();
    assert!(matches!(open().await, Err(SinkError::Full(why)) if why.contains("not whole yet")));
    assert_eq!(house.downloads.parts().unwrap(), ["other"]);
}
