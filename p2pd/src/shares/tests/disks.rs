//! Shares whose directories are not there, or not the ones that they were.

use super::*;

async fn announced_now(house: &House) -> u64 {
    house.catalog.changes_after(0, u32::MAX).await.unwrap().files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_directory_is_waited_for() {
    let house = House::with(|share| std::fs::remove_dir(share).unwrap(), fast()).await;
    let row = house.shares.rows().remove(0);
    let reason = row.unavailable.unwrap();
    assert!(reason.contains("does not exist") && reason.contains("/share"), "{reason}");
    house.write("a.txt", "a");
    house.has(&["a.txt"]).await;
    house.is_available(true).await;
    house.write("b.txt", "b");
    house.has(&["a.txt", "b.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_directory_is_not_shared() {
    let prepare = |share: &Path| {
        std::fs::remove_dir(share).unwrap();
        std::fs::write(share, "a file").unwrap();
    };
    let house = House::with(prepare, fast()).await;
    let reason = house.shares.rows().remove(0).unavailable.unwrap();
    assert!(reason.contains("not a directory"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_closed_to_us_is_unavailable() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        // Root may read everything: there is nothing to see.
        return;
    }
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let house = House::with(|share| mode(share, 0o000), fast()).await;
    let reason = house.shares.rows().remove(0).unavailable.unwrap();
    assert!(reason.contains("permission denied"), "{reason}");
    mode(&house.path(""), 0o755);
    house.write("a.txt", "a");
    house.has(&["a.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmounted_disk_hides_its_files_and_hashes_nothing_when_it_is_back() {
    let house = House::new().await;
    house.write("d/a.txt", "a");
    house.write("b.txt", "b");
    house.has(&["b.txt", "d/a.txt"]).await;
    assert_eq!(announced_now(&house).await, 2);
    let (fact, hashed) = (house.fact("b.txt").await.unwrap(), house.shares.hashed_bytes());
    // What unmounting leaves: an empty directory that is not the one with the files.
    let aside = house.dir.path().join("aside");
    std::fs::rename(house.path(""), &aside).unwrap();
    std::fs::create_dir(house.path("")).unwrap();
    // In between it did not exist.
    let start = Instant::now();
    let is_empty = |reason: String| reason.contains("is empty") && reason.contains("mounted");
    while !house.shares.rows().remove(0).unavailable.is_some_and(is_empty) {
        assert!(start.elapsed() < DEADLINE, "{:?}", house.shares.rows());
        house.pause().await;
    }
    assert_eq!(house.names().await, [""; 0]);
    assert_eq!(announced_now(&house).await, 0);
    assert!(matches!(house.shares.open(&fact), Err(OpenError::Unavailable { .. })));
    let part = house.shares.downloads().part("x");
    assert!(matches!(part, Err(PublishError::Unavailable { .. })), "a download beside the disk: {part:?}");
    assert_eq!(house.catalog.share_totals().await.unwrap()[0].1.files, 2, "hidden, not forgotten");
    // It is noticed again after a restart.
    let house = house.restart(|_| {}).await;
    assert!(house.shares.rows()[0].unavailable.is_some());
    assert_eq!(house.names().await, [""; 0]);
    std::fs::remove_dir(house.path("")).unwrap();
    std::fs::rename(&aside, house.path("")).unwrap();
    house.has(&["b.txt", "d/a.txt"]).await;
    assert_eq!(announced_now(&house).await, 2);
    house.shares.refresh().await.unwrap();
    assert_eq!((house.shares.hashed_bytes(), hashed), (0, 2));
    // It's watched as before.
    house.write("d/c.txt", "c");
    house.has(&["b.txt", "d/a.txt", "d/c.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_its_owner_empties_is_empty() {
    let house = House::new().await;
    house.write("a.txt", "a");
    house.has(&["a.txt"]).await;
    std::fs::remove_file(house.path("a.txt")).unwrap();
    house.has(&[]).await;
    let house = house.restart(|share| std::fs::write(share.join("b.txt"), "b").unwrap()).await;
    house.has(&["b.txt"]).await;
    let house = house.restart(|share| std::fs::remove_file(share.join("b.txt")).unwrap()).await;
    house.has(&[]).await;
    house.is_available(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_directory_with_files_takes_the_place() {
    let house = House::new().await;
    house.write("a.txt", "a");
    house.has(&["a.txt"]).await;
    std::fs::rename(house.path(""), house.dir.path().join("aside")).unwrap();
    house.write("b.txt", "b");
    house.has(&["b.txt"]).await;
    // Not told of what happens in the one that was moved away.
    std::fs::write(house.dir.path().join("aside/c.txt"), "c").unwrap();
    house.write("d.txt", "d");
    house.has(&["b.txt", "d.txt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_taken_at_once() {
    let house = House::new().await;
    house.write("a.txt", "a");
    house.has(&["a.txt"]).await;
    let hashed = house.shares.hashed_bytes();
    let other = house.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("o.txt"), "o").unwrap();
    let mut both = configs(house.dir.path());
    both[0].visible = Visibility::Friends;
    let second = ShareConfig { name: "more".into(), path: other, downloads: false, ..both[0].clone() };
    both.push(ShareConfig { visible: Visibility::Network, ..second.clone() });
    house.shares.reload(both).await.unwrap();
    assert!(house.catalog.find_name("a.txt", Viewer::Network).await.unwrap().is_empty());
    assert_eq!(house.catalog.find_name("a.txt", Viewer::Friend).await.unwrap().len(), 1);
    house.has(&["a.txt", "o.txt"]).await;
    assert_eq!(house.shares.downloads().share(), "docs");
    house.shares.reload(vec![second.clone()]).await.unwrap();
    assert_eq!(house.names().await, ["o.txt"]);
    assert_eq!(house.shares.downloads().share(), "more");
    house.shares.reload(configs(house.dir.path())).await.unwrap();
    house.has(&["a.txt"]).await;
    assert_eq!(house.shares.hashed_bytes(), hashed + 1);
    let same = vec![second.clone(), second];
    assert!(matches!(house.shares.reload(same).await, Err(ShareError::SameName { .. })));
    assert!(matches!(house.shares.reload(vec![]).await, Err(ShareError::NoShares)));
}
