//! Many files, long files, and more events than can be told.

use super::super::watch::{Hint, Watch};
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
