//! Many files, long files, and more events than can be told.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::hint::Hint;
use super::super::watch::Watch;
use super::*;

fn unpack(share: &Path, files: usize) {
    for directory in 0..files.div_ceil(100) {
        let path = share.join(format!("tree/{directory:03}"));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..100 {
            std::fs::write(path.join(format!("{file:02}.txt")), format!("file {directory} {file}")).unwrap();
        }
    }
}

async fn count(house: &House) -> u64 {
    house.catalog.totals().await.unwrap().files
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_are_in_the_catalog_within_seconds() {
    let house = House::new().await;
    let start = Instant::now();
    let share = house.path("");
    tokio::task::spawn_blocking(move || unpack(&share, 10_000)).await.unwrap();
    let unpacked = start.elapsed();
    while count(&house).await < 10_000 {
        assert!(start.elapsed() < DEADLINE, "{} files; {:?}", count(&house).await, house.shares.rows());
        house.pause().await;
    }
    let took = start.elapsed();
    println!("10,000 files: unpacked in {unpacked:?}, in the catalog {:?} later", took - unpacked);
    // From the end of the unpacking: how long that takes is up to the file system (ext4 searches long for free inodes
    // when many files were deleted shortly before).
    assert!(took - unpacked < Duration::from_secs(5), "{took:?}, {unpacked:?} of it for unpacking");
    assert_eq!(house.content("tree/042/07.txt").await, Some(ContentHash::of(b"file 42 7")));
    let hashed = house.shares.hashed_bytes();
    // Moved as a whole, nothing is hashed; then all of it goes.
    std::fs::rename(house.path("tree"), house.path("moved")).unwrap();
    let start = Instant::now();
    let moved = async |house: &House| {
        house.fact("tree/099/99.txt").await.is_none()
            && house.fact("moved/099/99.txt").await.is_some()
            && count(house).await == 10_000
    };
    while !moved(&house).await {
        assert!(start.elapsed() < DEADLINE, "{} files", count(&house).await);
        house.pause().await;
    }
    println!("10,000 files: renamed directory in the catalog after {:?}", start.elapsed());
    assert_eq!(house.shares.hashed_bytes(), hashed);
    std::fs::remove_dir_all(house.path("moved")).unwrap();
    let start = Instant::now();
    house.has(&[]).await;
    println!("10,000 files: deletion in the catalog after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_that_were_there_before_are_read_once() {
    let house = House::with(|share| unpack(share, 4000), fast()).await;
    let start = Instant::now();
    house.shares.refresh().await.unwrap();
    assert_eq!(count(&house).await, 4000);
    println!("4,000 files that were there at the start: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let (start, hashed) = (Instant::now(), house.shares.hashed_bytes());
    let refreshed = house.shares.refresh().await.unwrap();
    assert_eq!((refreshed.files, refreshed.changed, refreshed.removed), (4000, 0, 0));
    assert_eq!(house.shares.hashed_bytes(), hashed);
    println!("4,000 files looked at again: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_file_does_not_wait_for_long_ones() {
    let house = House::new().await;
    for n in 0..3 {
        let file = std::fs::File::create(house.path(&format!("long-{n}"))).unwrap();
        file.set_len(2 << 30).unwrap();
    }
    let start = Instant::now();
    while house.shares.hashed_bytes() == 0 {
        assert!(start.elapsed() < DEADLINE);
        house.pause().await;
    }
    house.write("short", "short");
    let took = house.has_content("short", "short").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let rows = house.shares.rows();
    assert!(rows[0].pending >= 2, "the long ones were done already, so this shows nothing: {rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_that_find_no_room_are_known_to_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut hints) = tokio::sync::mpsc::channel(1);
    let watch = Watch::new(dir.path(), 7, sender);
    watch.add("");
    assert!(!watch.take_lost_hints());
    std::fs::write(dir.path().join("a"), "a").unwrap();
    let start = Instant::now();
    while !watch.take_lost_hints() {
        assert!(start.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    assert_eq!(hints.recv().await, Some((7, Hint::Created("a".to_owned()))));
}

/// The most names that wait at any time from now on.
fn most_waiting(house: &House) -> Arc<AtomicU64> {
    let (mut board, most) = (house.shares.board.clone(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&most);
    tokio::spawn(async move {
        while board.changed().await.is_ok() {
            let waiting = board.borrow().iter().map(|posted| posted.pending).sum();
            seen.fetch_max(waiting, Ordering::Relaxed);
        }
    });
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_than_may_wait_are_all_shared() {
    // More than a scan tells at once.
    const HINTS: usize = 320;
    let timing = Timing {
        // More is unpacked than may wait before the first file is looked at.
        debounce: Duration::from_secs(1),
        open_grace: Duration::from_secs(1),
        ..fast()
    };
    let prepare = |share: &Path| {
        for directory in 0..10 {
            std::fs::create_dir(share.join(format!("{directory}"))).unwrap();
        }
        for known in ["0/changed", "1/gone", "2/renamed"] {
            std::fs::write(share.join(known), known).unwrap();
        }
    };
    let house = House::with_room(prepare, timing, Room::new(64, HINTS, 16)).await;
    house.shares.refresh().await.unwrap();
    let most = most_waiting(&house);
    let mut names: Vec<String> = (0..2000).map(|file| format!("{}/{file}", file % 10)).collect();
    names.push("at-the-top".to_owned());
    for name in &names {
        std::fs::write(house.path(name), name).unwrap();
    }
    std::fs::write(house.path("0/changed"), "0/changed again").unwrap();
    std::fs::remove_file(house.path("1/gone")).unwrap();
    std::fs::rename(house.path("2/renamed"), house.path("3/renamed")).unwrap();
    names.extend(["0/changed", "3/renamed"].map(str::to_owned));
    names.sort_unstable();
    let start = Instant::now();
    while count(&house).await != names.len() as u64 || house.fact("1/gone").await.is_some() {
        assert!(start.elapsed() < DEADLINE, "{} files; {:?}", count(&house).await, house.shares.rows());
        house.pause().await;
    }
    println!("{} files, of which {HINTS} may wait: {:?}", names.len(), start.elapsed());
    assert_eq!(house.names().await, names);
    house.has_content("0/changed", "0/changed again").await;
    house.has_content("3/renamed", "2/renamed").await;
    assert_eq!(most.load(Ordering::Relaxed), HINTS as u64, "it shows nothing, or too many waited");
    // And then each is followed by itself again.
    let is_quiet = || house.shares.rows()[0].pending == 0;
    while !is_quiet() {
        assert!(start.elapsed() < DEADLINE, "{:?}", house.shares.rows());
        house.pause().await;
    }
    house.write("9/later", "later");
    house.has_content("9/later", "later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_signs_were_passed_over_is_never_seen_half_done() {
    let timing = Timing {
        debounce: Duration::from_millis(300),
        settle: Duration::from_millis(20),
        open_grace: Duration::from_secs(6),
        ..fast()
    };
    let prepare = |share: &Path| std::fs::create_dir(share.join("d")).unwrap();
    let house = House::with_room(prepare, timing, Room::new(64, 128, 0)).await;
    house.shares.refresh().await.unwrap();
    // As an archive has them, so that their age keeps nobody waiting.
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    for file in 0..400 {
        let mut made = std::fs::File::create(house.path(&format!("d/{file:03}"))).unwrap();
        made.write_all(b"old").unwrap();
        made.set_modified(old).unwrap();
    }
    let mut slow = std::fs::File::create(house.path("d/slow")).unwrap();
    slow.write_all(b"one").unwrap();
    let start = Instant::now();
    while count(&house).await < 400 {
        assert!(start.elapsed() < DEADLINE, "{} files; {:?}", count(&house).await, house.shares.rows());
        house.pause().await;
    }
    // Time enough to be looked at, and far from what an open file is given.
    while start.elapsed() < Duration::from_millis(1500) {
        house.pause().await;
    }
    assert_eq!((count(&house).await, house.content("d/slow").await), (400, None), "seen half-done");
    slow.write_all(b"two").unwrap();
    drop(slow);
    house.has_content("d/slow", "onetwo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shares_end_at_once_in_the_midst_of_a_long_hash() {
    let house = House::new().await;
    std::fs::File::create(house.path("long")).unwrap().set_len(64 << 30).unwrap();
    let start = Instant::now();
    while house.shares.hashed_bytes() == 0 {
        assert!(start.elapsed() < DEADLINE);
        house.pause().await;
    }
    let start = Instant::now();
    let house = house.restart(|share| std::fs::remove_file(share.join("long")).unwrap()).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    house.write("a", "a");
    house.has(&["a"]).await;
}
