//! The catalog with a real database.

mod model;
mod questions;

use std::path::PathBuf;

use p2p_content::{ContentHasher, FileName};
use p2p_proto::control::Visibility;
use tempfile::TempDir;

use super::*;

struct Store {
    dir: TempDir,
    catalog: Catalog,
}

impl Store {
    /// A catalog with the share `net` for the network and `pals` for friends.
    async fn new() -> Store {
        Store::keeping(3).await
    }

    async fn keeping(tombstones: u64) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open_keeping(&dir.path().join("catalog.sqlite"), tombstones).unwrap();
        let store = Store { dir, catalog };
        store.set("net", Visibility::Network, true).await;
        store.set("pals", Visibility::Friends, true).await;
        store
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("catalog.sqlite")
    }

    async fn set(&self, name: &str, visible: Visibility, available: bool) -> u64 {
        let record = ShareRecord { name: name.to_owned(), visible, available, root: Some((1, 2)) };
        self.catalog.set_share(record).await.unwrap()
    }

    async fn put(&self, share: &str, name: &str, bytes: &str) -> u64 {
        self.catalog.apply(vec![upsert(share, name, bytes)]).await.unwrap()
    }

    async fn remove(&self, share: &str, name: &str) -> u64 {
        self.catalog.apply(vec![remove(share, name)]).await.unwrap()
    }

    /// Everything after a sequence number, read in pages of `limit`.
    async fn told(&self, after: u64, limit: u32) -> (Vec<(u64, String)>, Changes) {
        let (mut from, mut told) = (after, Vec::new());
        loop {
            let page = self.catalog.changes_after(from, limit).await.unwrap();
            assert!(page.changes.len() <= limit as usize);
            told.extend(page.changes.iter().map(|change| (change.sequence, shown(&change.what))));
            if page.complete {
                return (told, page);
            }
            assert!(page.through > from);
            from = page.through;
        }
    }
}

/// What it keeps beside its files went wrong on the disk: that is no reason to take no changes, and it does not stay.
#[tokio::test]
async fn a_tally_that_is_wrong_is_counted_anew() {
    for sql in [
        "UPDATE catalog SET digest = x'0102030405060708090a0b0c0d0e0f10'",
        "UPDATE catalog SET announced = 0",
        "UPDATE catalog SET announced = announced + 7, dead = 1000",
    ] {
        let store = Store::keeping(1).await;
        for name in ["a", "b", "c", "d"] {
            store.put("net", name, name).await;
        }
        store.put("pals", "secret", "x").await;
        store.remove("net", "d").await;
        let all = async || {
            let query = Some(BucketQuery::Digests { bits: 1 });
            store.catalog.changes_and_buckets(0, 100, query).await.unwrap()
        };
        let (right, totals) = (all().await, store.catalog.share_totals().await.unwrap());
        let spoil = || {
            let database = Connection::open(store.path()).unwrap();
            database.execute_batch(sql).unwrap();
            database.execute_batch("UPDATE shares SET files = 0, bytes = 0").unwrap();
        };
        spoil();
        assert_ne!(store.catalog.changes_after(0, 100).await.unwrap(), right.0, "{sql}");
        assert_eq!(all().await, right, "{sql}");
        assert_eq!(store.catalog.share_totals().await.unwrap(), totals, "{sql}");
        // More goes than is said to be there.
        spoil();
        for name in ["a", "b", "c"] {
            store.remove("net", name).await;
        }
        for name in ["a", "b", "c"] {
            store.put("net", name, name).await;
        }
        store.catalog.recount().await.unwrap();
        let (changes, _) = store.catalog.changes_and_buckets(0, 100, None).await.unwrap();
        assert_eq!((changes.digest, changes.files), (right.0.digest, right.0.files), "{sql}");
        assert_eq!(store.catalog.share_totals().await.unwrap(), totals, "{sql}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_take_is_given_back_once_they_are_over() {
    let store = Store::new().await;
    let tasks = Tasks::new();
    store.catalog.rest_between_changes(&tasks);
    for round in 0..3 {
        for name in ["a", "b", "c"] {
            store.put("net", name, &format!("{name} {round}")).await;
            store.catalog.totals().await.unwrap();
            tokio::time::sleep(REST - Duration::from_millis(100)).await;
            assert_eq!(store.catalog.inner.pool.idle(), 1, "in round {round}, before it is over");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(store.catalog.inner.pool.idle(), 0, "in round {round}");
        assert_eq!(store.catalog.totals().await.unwrap().files, 3, "a question finds all there");
    }
    tasks.shutdown(Duration::from_secs(1)).await;
}

fn shown(what: &Changed) -> String {
    match what {
        Changed::Upserted(fact) => format!("+{}/{}={}", fact.share, fact.name, fact.size),
        Changed::Removed { share, name } => format!("-{share}/{name}"),
    }
}

fn named(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn fact(share: &str, name: &str, bytes: &str) -> Fact {
    Fact {
        share: share.to_owned(),
        name: named(name),
        content: ContentHash::of(bytes.as_bytes()),
        size: bytes.len() as u64,
        modified_ns: 1_000_000_007,
        changed_ns: 5,
        inode: u64::MAX - 3,
    }
}

fn upsert(share: &str, name: &str, bytes: &str) -> FactChange {
    FactChange::Upsert { fact: fact(share, name, bytes), manifest: None }
}

fn remove(share: &str, name: &str) -> FactChange {
    FactChange::Remove { share: share.to_owned(), name: named(name) }
}

#[tokio::test]
async fn changes_get_numbers_in_their_order_and_watchers_see_the_last() {
    let store = Store::new().await;
    let mut last = store.catalog.watch();
    assert_eq!(*last.borrow_and_update(), 0);
    let both = vec![upsert("net", "b", "1"), upsert("net", "a", "22")];
    assert_eq!(store.catalog.apply(both).await.unwrap(), 2);
    assert!(last.has_changed().unwrap());
    assert_eq!(*last.borrow_and_update(), 2);
    assert_eq!(store.told(0, 10).await.0, [(1, "+net/b=1".to_owned()), (2, "+net/a=2".to_owned())]);
    // Only the latest change of a file is told.
    store.put("net", "b", "333").await;
    assert_eq!(store.told(0, 10).await.0, [(2, "+net/a=2".to_owned()), (3, "+net/b=3".to_owned())]);
    assert_eq!(store.told(2, 10).await.0, [(3, "+net/b=3".to_owned())]);
    store.remove("net", "a").await;
    assert_eq!(store.told(3, 10).await.0, [(4, "-net/a".to_owned())]);
    assert_eq!(store.told(4, 10).await.1.through, 4);
}

#[tokio::test]
async fn what_changes_nothing_gets_no_number_and_wakes_nobody() {
    let store = Store::new().await;
    store.put("net", "a", "1").await;
    let mut last = store.catalog.watch();
    last.borrow_and_update();
    assert_eq!(store.put("net", "a", "1").await, 1);
    assert_eq!(store.remove("net", "never/was").await, 1);
    // Another inode with the same bytes and time, as after a restore: noted, and not told.
    let moved = Fact { inode: 9, changed_ns: 6, ..fact("net", "a", "1") };
    let change = FactChange::Upsert { fact: moved.clone(), manifest: None };
    assert_eq!(store.catalog.apply(vec![change]).await.unwrap(), 1);
    assert!(!last.has_changed().unwrap());
    assert_eq!(store.catalog.find_name("a", Viewer::Own).await.unwrap(), [moved]);
}

#[tokio::test]
async fn a_transaction_is_whole_or_not_at_all() {
    let store = Store::new().await;
    let changes = vec![upsert("net", "a", "1"), upsert("nowhere", "a", "1")];
    let refused = store.catalog.apply(changes).await;
    assert!(matches!(refused, Err(CatalogError::UnknownShare { name }) if name == "nowhere"));
    assert_eq!(store.catalog.find_name("a", Viewer::Own).await.unwrap(), []);
    assert_eq!(store.told(0, 10).await.1.through, 0);
}

#[tokio::test]
async fn everything_is_there_after_a_reopening() {
    let store = Store::new().await;
    let bytes = vec![7; 3 << 20];
    let mut hasher = ContentHasher::new();
    hasher.update(&bytes);
    let (content, manifest) = hasher.finish();
    let long = Fact { content, size: 3 << 20, ..fact("pals", "d/long", "") };
    let change = FactChange::Upsert { fact: long.clone(), manifest: Some(manifest.clone()) };
    store.catalog.apply(vec![change, upsert("net", "a", "1")]).await.unwrap();
    let (epoch, told) = (store.catalog.epoch(), store.told(0, 10).await);
    assert_ne!(epoch, 0);
    let Store { dir, catalog } = store;
    drop(catalog);
    let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).unwrap();
    let store = Store { dir, catalog };
    assert_eq!(store.catalog.epoch(), epoch);
    assert_eq!(*store.catalog.watch().borrow(), 2);
    assert_eq!(store.told(0, 10).await, told);
    assert_eq!(store.catalog.find_content(content, Viewer::Own).await.unwrap(), [long]);
    assert_eq!(store.catalog.manifest(content).await.unwrap(), Some(manifest));
    let record = store.catalog.share("pals").await.unwrap().unwrap();
    assert_eq!((record.visible, record.available, record.root), (Visibility::Friends, true, Some((1, 2))));
    let other = Catalog::open(&store.dir.path().join("other.sqlite")).unwrap();
    assert_ne!(other.epoch(), epoch);
}

#[test]
fn a_newer_catalog_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    drop(Catalog::open(&path).unwrap());
    let newer = schema::VERSION + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let error = Catalog::open(&path).unwrap_err();
    assert!(matches!(error, CatalogError::Newer { found, .. } if found == newer));
    let message = error.to_string();
    assert!(message.contains("newer version") && message.contains("catalog.sqlite"), "{message}");
    let kept: i64 =
        Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, newer);
}

#[test]
fn what_is_no_database_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    std::fs::write(&path, "not a database at all, but long enough to look at").unwrap();
    let message = Catalog::open(&path).unwrap_err().to_string();
    assert!(message.contains("catalog.sqlite"), "{message}");
    assert!(Catalog::open(&dir.path().join("no/such/dir/catalog.sqlite")).is_err());
}

#[tokio::test]
async fn old_removals_are_forgotten_and_it_says_from_where_on_it_can_resume() {
    let store = Store::new().await;
    for n in 0..7 {
        store.put("net", &format!("f{n}"), "1").await;
    }
    assert_eq!(store.catalog.oldest_resumable(), 0);
    for n in 0..6 {
        store.remove("net", &format!("f{n}")).await;
    }
    assert_eq!(store.catalog.oldest_resumable(), 0, "twice as many as are kept, and not more");
    store.remove("net", "f6").await;
    // Removals 8 to 14; the last three are kept.
    assert_eq!(store.catalog.oldest_resumable(), 11);
    let kept = ["-net/f4", "-net/f5", "-net/f6"].map(str::to_owned);
    assert_eq!(store.told(0, 10).await.0.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>(), kept);
    assert_eq!(store.told(11, 10).await.0.len(), 3);
    let again = Catalog::open(&store.path()).unwrap();
    assert_eq!(again.oldest_resumable(), 11);
}

#[tokio::test]
async fn numbers_that_a_power_cut_may_have_lost_are_not_given_out_again() {
    let store = Store::new().await;
    store.put("net", "a", "1").await;
    let Store { dir, catalog } = store;
    drop(catalog);
    let path = dir.path().join("catalog.sqlite");
    Connection::open(&path).unwrap().execute("UPDATE catalog SET boot = 'another'", []).unwrap();
    let store = Store { catalog: Catalog::open(&path).unwrap(), dir };
    let next = store.put("net", "b", "1").await;
    assert!(next > 1 << 32, "{next}");
    assert_eq!((store.catalog.count_after(0), store.catalog.count_after(1)), (2, 1));
    assert_eq!(store.told(1, 10).await.0, [(next, "+net/b=1".to_owned())]);
    // Opened again without a boot between, they go on.
    let again = Catalog::open(&store.path()).unwrap();
    assert_eq!(*again.watch().borrow(), next);
}
