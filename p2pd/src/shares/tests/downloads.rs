//! Parts, publishing and adopting.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};

use p2p_content::{ContentHasher, Manifest};

use super::*;

fn manifest_of(bytes: &[u8]) -> (ContentHash, Manifest) {
    let mut hasher = ContentHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

fn put_part(downloads: &DownloadDir, key: &str, bytes: &[u8]) {
    downloads.part(key).unwrap().write_all(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_kept_until_it_is_removed_and_is_shared_with_nobody() {
    let house = House::new().await;
    let downloads = house.shares.downloads();
    assert_eq!(
        (downloads.share(), downloads.path()),
        ("docs", house.path("").as_path().components().as_path())
    );
    assert_eq!(downloads.parts().unwrap(), [""; 0]);
    put_part(&downloads, "k1", b"half");
    let mode = |path: &str| std::fs::metadata(house.path(path)).unwrap().mode() & 0o777;
    assert_eq!((mode(".p2p-partial"), mode(".p2p-partial/k1")), (0o700, 0o600));
    let mut read = String::new();
    downloads.part("k1").unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "half");
    assert_eq!(downloads.parts().unwrap(), ["k1"]);
    house.write("other", "x");
    house.shares.refresh().await.unwrap();
    assert_eq!(house.names().await, ["other"]);
    downloads.remove_part("k1").unwrap();
    downloads.remove_part("k1").unwrap();
    assert_eq!(downloads.parts().unwrap(), [""; 0]);
    assert!(downloads.free_bytes().unwrap() > 0);
    for key in ["", "..", "a/b", "../x", "/etc/x", "a\nb"] {
        assert!(matches!(downloads.part(key), Err(PublishError::BadKey { .. })), "{key:?}");
        assert!(matches!(downloads.remove_part(key), Err(PublishError::BadKey { .. })), "{key:?}");
    }
    symlink("/etc/passwd", house.path(".p2p-partial/link")).unwrap();
    assert!(matches!(downloads.part("link"), Err(PublishError::Io { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_replaces_only_what_it_is_told_to() {
    let house = House::new().await;
    let downloads = house.shares.downloads();
    put_part(&downloads, "k", b"one");
    let target = name("new/dir/a.bin");
    assert!(!downloads.exists(&target).unwrap());
    assert_eq!(downloads.publish("k", &target, false).unwrap(), house.path("new/dir/a.bin"));
    assert!(downloads.exists(&target).unwrap());
    let mode = std::fs::metadata(house.path("new/dir/a.bin")).unwrap().permissions().mode() & 0o777;
    std::fs::write(house.path("by-hand"), "x").unwrap();
    assert_eq!(mode, std::fs::metadata(house.path("by-hand")).unwrap().mode() & 0o777, "as any new file");
    assert!(matches!(downloads.publish("k", &target, false), Err(PublishError::NoPart { .. })));
    put_part(&downloads, "k", b"two");
    let taken = downloads.publish("k", &target, false);
    assert!(matches!(&taken, Err(PublishError::Exists { name }) if *name == target), "{taken:?}");
    assert_eq!(std::fs::read(house.path("new/dir/a.bin")).unwrap(), b"one");
    downloads.publish("k", &target, true).unwrap();
    assert_eq!(std::fs::read(house.path("new/dir/a.bin")).unwrap(), b"two");
    put_part(&downloads, "k", b"three");
    for replace in [false, true] {
        let onto = downloads.publish("k", &name("new/dir"), replace);
        assert!(matches!(onto, Err(PublishError::Exists { .. })), "{onto:?}");
    }
    assert!(matches!(downloads.publish("k", &name("by-hand/x"), false), Err(PublishError::Io { .. })));
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), house.path("linked")).unwrap();
    assert!(matches!(downloads.publish("k", &name("linked/x"), true), Err(PublishError::Io { .. })));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "nothing is put outside of the share");
    assert_eq!(downloads.parts().unwrap(), ["k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_file_is_in_the_catalog_without_being_hashed() {
    let house = House::new().await;
    let bytes = vec![5; 3 << 20];
    let (content, manifest) = manifest_of(&bytes);
    let downloads = house.shares.downloads();
    put_part(&downloads, "k", &bytes);
    let target = name("got/a.bin");
    downloads.publish("k", &target, false).unwrap();
    let sequence = house.shares.adopt("docs", &target, content, manifest.clone()).await.unwrap();
    assert_eq!(house.content("got/a.bin").await, Some(content));
    assert_eq!(house.catalog.manifest(content).await.unwrap(), Some(manifest.clone()));
    house.shares.refresh().await.unwrap();
    assert_eq!(house.shares.hashed_bytes(), 0);
    assert_eq!(*house.catalog.watch().borrow(), sequence);
    // The same again is no news; what isn't there as said is refused.
    assert_eq!(house.shares.adopt("docs", &target, content, manifest.clone()).await.unwrap(), sequence);
    house.write("short", "x");
    for text in ["short", "missing", "got"] {
        let refused = house.shares.adopt("docs", &name(text), content, manifest.clone()).await;
        assert!(matches!(refused, Err(ShareError::NotThere { .. })), "{text}: {refused:?}");
    }
    let nowhere = house.shares.adopt("nowhere", &target, content, manifest).await;
    assert!(matches!(nowhere, Err(ShareError::NotShared { .. })));
    house.has(&["got/a.bin", "short"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_get_their_names_at_once_and_none_is_hashed() {
    let house = House::new().await;
    let together = Arc::new(house.shares.downloads().together().unwrap());
    let ready = |number: usize| {
        let text = format!("number {number}");
        let (content, manifest) = manifest_of(text.as_bytes());
        let key = format!("k{number}");
        together.write(&key, &[text.into()]).unwrap();
        ReadyFile { key, name: name(&format!("new/{}/{number:04}", number % 7)), content, manifest }
    };
    house.write("new/3/0003", "taken");
    house.has(&["new/3/0003"]).await;
    let hashed = house.shares.hashed_bytes();
    // Enough for looks at the first to begin before the last have their names.
    let mut files: Vec<_> = (0..2000).map(ready).collect();
    files.push(ReadyFile { key: "none".to_owned(), name: name("none"), ..ready(2000) });
    let expected: Vec<_> = files.iter().map(|file| (file.name.clone(), file.content)).collect();
    together.flush().unwrap();
    let published = house.shares.publish_all(&together, files).await.unwrap();
    for (number, result) in published.results.iter().enumerate() {
        match number {
            3 => assert!(matches!(result, Err(PublishError::Exists { .. })), "{result:?}"),
            2000 => assert!(matches!(result, Err(PublishError::NoPart { .. })), "{result:?}"),
            _ => assert!(result.is_ok(), "{number}: {result:?}"),
        }
    }
    let sequence = published.adopted.await.unwrap().unwrap();
    assert_eq!(sequence, *house.catalog.watch().borrow());
    house.shares.refresh().await.unwrap();
    for (number, (name, content)) in expected.iter().enumerate().take(2000) {
        let there = if number == 3 { ContentHash::of(b"taken") } else { *content };
        assert_eq!(house.content(name.as_str()).await, Some(there), "{name}");
    }
    assert_eq!(house.shares.hashed_bytes(), hashed);
    assert_eq!(*house.catalog.watch().borrow(), sequence, "what was adopted is no news to the next look");
    // Nobody keeps the names: what happens to them now is seen.
    std::fs::remove_file(house.path("new/0/0000")).unwrap();
    house.write("new/1/0001", "changed");
    house.write("new/3/0003", "changed too");
    house.has_content("new/1/0001", "changed").await;
    house.has_content("new/3/0003", "changed too").await;
    while house.fact("new/0/0000").await.is_some() {
        house.pause().await;
    }
}

/// Files that get their names in very many directories need few open files.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_opens_one_directory_after_the_other() {
    const COUNT: usize = 3000;
    let house = House::new().await;
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let disk = PlayedDisk::played(move |_, _| {
        seen.fetch_max(std::fs::read_dir("/proc/self/fd").unwrap().count(), Ordering::Relaxed);
        Ok(())
    });
    let together = Arc::new(house.shares.downloads().on(disk).together().unwrap());
    let ready = |number: usize| {
        let (content, manifest) = manifest_of(b"x");
        let key = format!("k{number}");
        together.write(&key, &["x".into()]).unwrap();
        ReadyFile { key, name: name(&format!("many/{number:04}/deep/x")), content, manifest }
    };
    let files: Vec<_> = (0..COUNT).map(ready).collect();
    let published = house.shares.publish_all(&together, files).await.unwrap();
    assert!(published.results.iter().all(Result::is_ok));
    published.adopted.await.unwrap().unwrap();
    assert!(house.path("many/2999/deep/x").exists());
    // Other tests have some of their own open.
    let most = most.load(Ordering::Relaxed);
    assert!((1..COUNT / 2).contains(&most), "{most} were open");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_does_not_wait_for_a_hash_that_it_makes_needless() {
    let house = House::new().await;
    // Sparse: long to hash, nothing to write.
    let len = 8 << 30;
    let path = house.path("big");
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    let start = Instant::now();
    while house.shares.hashed_bytes() == 0 {
        assert!(start.elapsed() < DEADLINE);
        house.pause().await;
    }
    // Any content of that length will do: nobody reads it.
    let values = vec![[9; 32]; usize::try_from(len >> 20).unwrap()];
    let content = merged(&values);
    let manifest = Manifest::from_parts(content, len, values).unwrap();
    house.shares.adopt("docs", &name("big"), content, manifest).await.unwrap();
    assert_eq!(house.content("big").await, Some(content));
    house.shares.refresh().await.unwrap();
    assert!(house.shares.hashed_bytes() < len, "it was hashed to its end");
    assert_eq!(house.content("big").await, Some(content));
}

/// The content that these values prove, as who refuses them says.
fn merged(values: &[[u8; 32]]) -> ContentHash {
    let len = (values.len() as u64) << 20;
    match Manifest::from_parts(ContentHash::EMPTY, len, values.to_vec()) {
        Err(p2p_content::ManifestError::DoesNotProve { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}
