//! Files that come, change and go.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_at_the_start_is_shared() {
    let house = House::with(
        |share| {
            std::fs::create_dir_all(share.join("a/b")).unwrap();
            std::fs::write(share.join("a/b/c.txt"), "c").unwrap();
            std::fs::write(share.join("a-b"), "").unwrap();
            std::fs::write(share.join("a.txt"), "a").unwrap();
        },
        fast(),
    )
    .await;
    house.has(&["a-b", "a.txt", "a/b/c.txt"]).await;
    assert_eq!(house.content("a-b").await, Some(ContentHash::EMPTY));
    assert_eq!(house.content("a/b/c.txt").await, Some(ContentHash::of(b"c")));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_in_the_catalog_within_a_second() {
    let house = House::new().await;
    let limit = Duration::from_secs(1);
    let mut took = Vec::new();
    house.write("a.txt", "one");
    took.push(("create", house.has_content("a.txt", "one").await));
    house.write("a.txt", "two");
    took.push(("change", house.has_content("a.txt", "two").await));
    std::fs::rename(house.path("a.txt"), house.path("b.txt")).unwrap();
    took.push(("rename", house.has(&["b.txt"]).await));
    house.write("new/dir/c.txt", "three");
    took.push(("in a new directory", house.has(&["b.txt", "new/dir/c.txt"]).await));
    std::fs::rename(house.path("new"), house.path("old")).unwrap();
    took.push(("rename a directory", house.has(&["b.txt", "old/dir/c.txt"]).await));
    house.write("old/dir/d.txt", "four");
    took.push(("create in it", house.has(&["b.txt", "old/dir/c.txt", "old/dir/d.txt"]).await));
    std::fs::remove_file(house.path("b.txt")).unwrap();
    took.push(("delete", house.has(&["old/dir/c.txt", "old/dir/d.txt"]).await));
    std::fs::remove_dir_all(house.path("old")).unwrap();
    took.push(("delete a directory", house.has(&[]).await));
    println!("{took:?}");
    assert!(took.iter().all(|(_, took)| *took < limit), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_never_seen_half_done() {
    use std::io::Write;
    let house = House::new().await;
    house.write("done.txt", "done");
    house.has(&["done.txt"]).await;
    let path = house.path("slow.bin");
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).unwrap();
        let start = Instant::now();
        let mut whole = Vec::new();
        while start.elapsed() < Duration::from_secs(2) {
            file.write_all(&[whole.len() as u8; 1000]).unwrap();
            whole.extend([whole.len() as u8; 1000]);
            std::thread::sleep(Duration::from_millis(100));
        }
        whole
    });
    let mut seen = Vec::new();
    while !writer.is_finished() {
        seen.extend(house.fact("slow.bin").await.map(|fact| fact.size));
        house.pause().await;
    }
    let whole = writer.join().unwrap();
    house.has_content("slow.bin", &whole).await;
    // One that was seen before the writer had ended is the whole one all the same: the thread ends after the closing.
    assert!(seen.iter().all(|size| *size == whole.len() as u64), "seen half-done: {seen:?}");
    let slow = house.announced(1).await;
    assert_eq!(slow.len(), 1, "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_closes_is_shared_after_the_grace() {
    use std::io::Write;
    let timing = Timing { open_grace: Duration::from_millis(900), ..fast() };
    let house = House::timed(timing).await;
    let mut file = std::fs::File::create(house.path("log")).unwrap();
    file.write_all(b"one").unwrap();
    let took = house.has_content("log", "one").await;
    assert!(took > Duration::from_millis(700), "{took:?}");
    file.write_all(b"two").unwrap();
    house.has_content("log", "onetwo").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_link_to_a_file_need_not_be_closed() {
    let house = House::new().await;
    house.write("a", "text");
    house.has(&["a"]).await;
    std::fs::hard_link(house.path("a"), house.path("b")).unwrap();
    let took = house.has(&["a", "b"]).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_hashed_twice_over_a_restart() {
    let bytes = vec![3; 5_000_000];
    let house = House::new().await;
    house.write("long.bin", &bytes);
    house.write("d/short.txt", "one");
    house.has(&["d/short.txt", "long.bin"]).await;
    assert_eq!(house.shares.hashed_bytes(), 5_000_003);
    let last = *house.catalog.watch().borrow();
    let house = house.restart(|share| std::fs::write(share.join("d/new.txt"), "four").unwrap()).await;
    house.has(&["d/new.txt", "d/short.txt", "long.bin"]).await;
    let refreshed = house.shares.refresh().await.unwrap();
    assert_eq!(house.shares.hashed_bytes(), 4);
    assert_eq!((refreshed.files, refreshed.last_sequence), (3, last + 1));
    // What changed with the same length is found by its times.
    let house = house.restart(|share| std::fs::write(share.join("d/short.txt"), "two").unwrap()).await;
    house.has_content("d/short.txt", "two").await;
    assert_eq!(house.shares.hashed_bytes(), 3);
    let house = house.restart(|share| std::fs::remove_file(share.join("long.bin")).unwrap()).await;
    house.has(&["d/new.txt", "d/short.txt"]).await;
    assert_eq!(house.shares.hashed_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_is_not_a_reason_to_hash() {
    let bytes = vec![3; 3_000_000];
    let house = House::new().await;
    house.write("d/a.bin", &bytes);
    house.has_content("d/a.bin", &bytes).await;
    let hashed = house.shares.hashed_bytes();
    std::fs::rename(house.path("d/a.bin"), house.path("d/b.bin")).unwrap();
    house.has(&["d/b.bin"]).await;
    std::fs::rename(house.path("d"), house.path("e")).unwrap();
    house.has(&["e/b.bin"]).await;
    house.has_content("e/b.bin", &bytes).await;
    assert_eq!(house.shares.hashed_bytes(), hashed);
    let content = ContentHash::of(&bytes);
    assert_eq!(house.catalog.manifest(content).await.unwrap().unwrap().pieces().len(), 3_000_000);
    // Another file under the old name is another file, even with the same length and time.
    let modified = std::fs::metadata(house.path("e/b.bin")).unwrap().modified().unwrap();
    let other = vec![4; 3_000_000];
    house.write("d/a.bin", &other);
    std::fs::File::options().write(true).open(house.path("d/a.bin")).unwrap().set_modified(modified).unwrap();
    house.has_content("d/a.bin", &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_returns_when_what_is_there_is_in_the_catalog() {
    // No watching to speak of: the events are too late for this.
    let timing = Timing { debounce: Duration::from_millis(10), ..fast() };
    let house = House::timed(timing).await;
    for round in 0..5 {
        house.write("a.txt", format!("round {round}"));
        house.write(&format!("d{round}/b.txt"), "b");
        let refreshed = house.shares.refresh().await.unwrap();
        assert_eq!(house.content("a.txt").await, Some(ContentHash::of(format!("round {round}").as_bytes())));
        assert_eq!(refreshed.files, round + 2);
        assert_eq!(refreshed.last_sequence, *house.catalog.watch().borrow());
    }
    std::fs::remove_file(house.path("a.txt")).unwrap();
    let (one, other) = tokio::join!(house.shares.refresh(), house.shares.refresh());
    assert_eq!((one.unwrap().files, other.unwrap().files), (5, 5));
    assert_eq!(house.fact("a.txt").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_a_directory_and_back() {
    let house = House::new().await;
    house.write("x", "file");
    house.has(&["x"]).await;
    std::fs::remove_file(house.path("x")).unwrap();
    house.write("x/y", "below");
    house.has(&["x/y"]).await;
    std::fs::remove_dir_all(house.path("x")).unwrap();
    house.write("x", "file");
    house.has(&["x"]).await;
}
