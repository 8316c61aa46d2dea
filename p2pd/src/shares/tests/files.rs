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
