//! Files that get their names on a disk whose power is cut, again and again: single ones, and many at once. What is under a
//! name is whole; what was told to be done is there; the catalog and the list of transfers know of nothing that is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use p2p_content::{Bitmap, ContentHash, ContentHasher, FileName, Manifest};
use p2p_identity::Identity;
use p2p_proto::control::{Transfer, TransferState, Visibility};
use p2p_service::tasks::Tasks;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::watch;

use super::batch::{self, Came, Found};
use crate::catalog::{Catalog, ListQuery, Viewer};
use crate::discovery::{Connections, Friends, Locator, Maestros, Members, Myself, Network};
use crate::limits::{Configured, Limits};
use crate::shares::{ShareConfig, Shares, Timing};
use crate::transfer::TransferSettings;
use crate::transfer::fetch::fresh;
use crate::transfer::jobs::Shared;
use crate::transfer::measure::Work;
use crate::transfer::queue::Queue;
use crate::transfer::sink::{Kept, Room, Sink};
use crate::transfer::store::{Store, Terms, Told, TreeFile};
use crate::transfer::swarm::Swarms;

mod disk;

use disk::Played;

const CASES: u64 = 24;
/// In each case; what is missing after each is fetched again.
const CUTS: u32 = 3;
/// Things that are done before each cut, at the most.
const STEPS: u32 = 4;
const SINGLES: usize = 4;
const LONGEST: usize = 3 << 20;
const SHORT: usize = 32;
const LONGEST_SHORT: usize = 24 << 10;
/// Short files that get their names at once, at the most.
const BATCH: usize = 12;
const CHUNK: usize = 256 << 10;
const GRACE: Duration = Duration::from_secs(20);

/// A file that is to be here in the end.
struct Wanted {
    name: FileName,
    bytes: Vec<u8>,
    content: ContentHash,
    manifest: Arc<Manifest>,
}

fn wanted(name: &str, longest: usize, random: &mut StdRng) -> Wanted {
    let mut bytes = vec![0; random.random_range(1..longest)];
    random.fill(&mut bytes[..]);
    let mut hasher = ContentHasher::new();
    hasher.update(&bytes);
    let (content, manifest) = hasher.finish();
    Wanted { name: FileName::parse(name).unwrap(), bytes, content, manifest: Arc::new(manifest) }
}

/// A peer's rooms, as far as files go through them.
struct House {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl House {
    async fn open(dir: &Path) -> House {
        let tasks = Tasks::new();
        let catalog = Catalog::open(&dir.join("catalog.sqlite")).unwrap();
        let config = ShareConfig {
            name: "docs".to_owned(),
            path: dir.join("share"),
            visible: Visibility::Network,
            downloads: true,
            added: false,
        };
        let state = dir.join("state");
        // Nobody else writes here.
        let (debounce, settle) = (Duration::ZERO, Duration::ZERO);
        let timing = Timing { debounce, settle, ..Timing::default() };
        let shares = Shares::start(vec![config], &state, catalog.clone(), &tasks, timing);
        let shares = shares.await.unwrap();
        let identity = Identity::generate().unwrap();
        let myself = Arc::new(Myself {
            id: identity.id(),
            name: "casa".to_owned(),
            addresses: Vec::new(),
            rest_url: String::new(),
            grpc_port: 0,
        });
        let network = Network::open(dir.join("network.json")).unwrap();
        let members = Members::open(dir.join("members.json"), network.clone()).unwrap();
        let connections = Connections::new(identity.clone(), network.clone(), members.clone(), tasks.clone());
        let friends = Friends::open(dir.join("friends.json"), connections.clone(), members.clone()).unwrap();
        let (me, known) = (Arc::clone(&myself), catalog.clone());
        let maestros = Maestros::start(identity, me, known, network, members.clone(), &[], &tasks).unwrap();
        let (me, known) = (Arc::clone(&myself), catalog.clone());
        let shared = Shared {
            store: Store::open(&dir.join("transfers.sqlite")).unwrap(),
            myself,
            swarms: Swarms::default(),
            limits: Limits::open(dir.join("limits.json"), Configured::default()).unwrap(),
            locator: Locator::new(me, known, maestros, friends, members, connections.clone()),
            connections,
            shares,
            catalog,
            settings: watch::channel(TransferSettings { allow_unproven: false, reserve_bytes: 0 }).1,
            tasks: tasks.clone(),
            queue: Queue::of(1),
            beginning: tokio::sync::Mutex::default(),
            leftovers: tokio::sync::Mutex::default(),
            jobs: Mutex::default(),
        };
        House { shared: Arc::new(shared), tasks }
    }

    async fn close(self) {
        assert!(self.tasks.shutdown(GRACE).await, "it did not end");
    }
}

/// What is to be fetched, through some cuts.
struct Case {
    dir: TempDir,
    random: StdRng,
    singles: Vec<(Transfer, Wanted)>,
    /// The number of the directory's transfer, and its files.
    id: u64,
    short: Vec<Wanted>,
    /// What was said to have its name before the power was cut.
    promised: BTreeSet<FileName>,
}

impl Case {
    async fn new(seed: u64) -> Case {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("share")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let mut singles = Vec::new();
        for number in 0..SINGLES {
            let file = wanted(&format!("solo/{number}/uno.bin"), LONGEST, &mut random);
            let size = Some(file.bytes.len() as u64);
            let transfer = fresh(file.name.as_str(), Some(file.content), size);
            singles.push((store.add(transfer, Terms::default()).await.unwrap(), file));
        }
        let id = store.add(fresh("t", None, None), Terms::default()).await.unwrap().id;
        // In few directories, or in many, some in each other.
        let directories = [1, 1, 3, 9][random.random_range(0..4_usize)];
        let short = (0..SHORT).map(|number| {
            let directory = number % directories;
            let name = format!("t/{directory}/{}/{number}", if directory % 2 == 0 { "a" } else { "b/c" });
            wanted(&name, LONGEST_SHORT, &mut random)
        });
        let short: Vec<Wanted> = short.collect();
        let listed = short.iter().map(|file| {
            let (name, size) = (file.name.clone(), file.bytes.len() as u64);
            (TreeFile { name, content: file.content, size }, Told::OfItself)
        });
        store.list_files(id, listed.collect()).await.unwrap();
        drop(store);
        // A cut may take what follows, and not the list.
        let connection = rusqlite::Connection::open(dir.path().join("transfers.sqlite")).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        Case { dir, random, singles, id, short, promised: BTreeSet::new() }
    }

    fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    async fn run(mut self) {
        let databases = ["catalog.sqlite", "transfers.sqlite"].map(|name| self.dir.path().join(name));
        let mut house = House::open(self.dir.path()).await;
        for _ in 0..CUTS {
            let flushes_left = self.random.random_bool(0.75).then(|| self.random.random_range(0..12));
            let played = Played::new(&self.share(), &databases, flushes_left);
            for _ in 0..self.random.random_range(1..=STEPS) {
                match self.random.random_bool(0.4) {
                    true => self.fetch_one(&house, &played).await,
                    false => self.fetch_some(&house, &played).await,
                }
                if played.is_cut() {
                    break;
                }
            }
            let moment = played.cut();
            house.close().await;
            played.leave(moment, &mut self.random);
            self.check_left().await;
            house = House::open(self.dir.path()).await;
            self.check_catalog(&house).await;
        }
        let whole = Played::new(&self.share(), &databases, None);
        while !self.singles.iter().all(|(_, file)| self.promised.contains(&file.name)) {
            self.fetch_one(&house, &whole).await;
        }
        while house.shared.store.files_left(self.id).await.unwrap().files > 0 {
            self.fetch_some(&house, &whole).await;
        }
        self.check_catalog(&house).await;
        let totals = house.shared.catalog.totals().await.unwrap();
        assert_eq!(totals.files, (SINGLES + SHORT) as u64, "all that is not on the list any more is here");
        house.close().await;
        self.check_left().await;
    }

    /// One file gets its name, as the engine and the transfer give it.
    async fn fetch_one(&mut self, house: &House, played: &Arc<Played>) {
        let missing: Vec<usize> =
            (0..SINGLES).filter(|number| !self.promised.contains(&self.singles[*number].1.name)).collect();
        if missing.is_empty() {
            return;
        }
        let number = missing[self.random.random_range(0..missing.len())];
        let (transfer, Wanted { name, bytes, content, manifest }) = &self.singles[number];
        let (id, store) = (transfer.id, &house.shared.store);
        let dir = house.shared.shares.downloads().on(played.disk());
        // Published just before the power was cut: what is there is what a restart left.
        if dir.exists(name).unwrap() {
            assert!(fs::read(self.share().join(name.as_str())).unwrap() == *bytes);
            self.promised.insert(name.clone());
            return;
        }
        let known = store.proven(id, *content, bytes.len() as u64).await.unwrap();
        let remembered = known.map(|known| known.pieces);
        let is_new = remembered.is_none();
        let opened =
            Sink::open(id, dir, Arc::clone(manifest), remembered, Room::default(), store.clone()).await;
        let (sink, mut held) = opened.unwrap();
        let flushed = Arc::clone(played);
        let sink = sink.on(Arc::new(move |file: &File| {
            flushed.flush_file(file);
            Ok(())
        }));
        if is_new {
            store.set_manifest(id, manifest, true, &held).await.unwrap();
        }
        for piece in held.iter_missing().collect::<Vec<u32>>() {
            let range = manifest.pieces().range(piece);
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let chunks = bytes[range].chunks(CHUNK).map(Bytes::copy_from_slice).collect();
            assert!(matches!(sink.keep(piece, chunks).await.unwrap(), Kept::Written));
            held.set(piece);
            if self.random.random_bool(0.3) {
                sink.remember(Bitmap::from_bytes(held.count(), &held.to_bytes()).unwrap()).await.unwrap();
            }
        }
        sink.publish(name.clone()).await.unwrap();
        if !played.is_cut() {
            self.promised.insert(name.clone());
        }
        let shares = &house.shared.shares;
        shares.adopt("docs", name, *content, Manifest::clone(manifest)).await.unwrap();
        store.update(1, Transfer { state: TransferState::Done, ..transfer.clone() }).await.unwrap();
    }

    /// Some short files get their names at once.
    async fn fetch_some(&mut self, house: &House, played: &Arc<Played>) {
        let (id, shared, work) = (self.id, &house.shared, Work::default());
        let mut files = shared.store.files_after(id, None, 0..=u64::MAX, SHORT).await.unwrap();
        let many = self.random.random_range(1..=BATCH);
        while files.len() > many {
            files.remove(self.random.random_range(0..files.len()));
        }
        let together = Arc::new(shared.shares.downloads().on(played.disk()).together().unwrap());
        let parts = batch::left_parts(shared, id).await.unwrap();
        let (mut proven, mut came) = (Vec::new(), Vec::new());
        for (file, found) in batch::look(&together, id, files.clone(), &parts).unwrap() {
            match found {
                Found::Proven(there) => proven.push(there),
                Found::Nothing => {
                    let bytes = &self.short.iter().find(|short| short.name == file.name).unwrap().bytes;
                    let chunks = vec![Bytes::copy_from_slice(bytes)];
                    came.push(Came { key: 0, source: 0, file, chunks });
                }
                Found::Taken => panic!("there is something else under {}", file.name),
            }
        }
        let kept = batch::keep(&together, id, came, &work).unwrap();
        proven.extend(kept.into_iter().map(|kept| kept.proven.unwrap()));
        let named = batch::finish(shared, id, together, proven, &work).await.unwrap();
        assert_eq!(named.files, files.len() as u64);
        if !played.is_cut() {
            self.promised.extend(files.into_iter().map(|file| file.name));
        }
    }

    /// Holds what a cut has left against what was promised, before anybody looks at it.
    async fn check_left(&self) {
        let store = Store::open(&self.dir.path().join("transfers.sqlite")).unwrap();
        let listed = store.files_after(self.id, None, 0..=u64::MAX, SHORT).await.unwrap();
        let ended = |transfer: &Transfer| transfer.state.is_ended();
        let done: Vec<u64> = store
            .all()
            .await
            .unwrap()
            .into_iter()
            .map(|kept| kept.transfer)
            .filter(ended)
            .map(|transfer| transfer.id)
            .collect();
        let catalog = Catalog::open(&self.dir.path().join("catalog.sqlite")).unwrap();
        let facts = facts(&catalog).await;
        let singles = self.singles.iter().map(|(transfer, file)| (file, done.contains(&transfer.id)));
        let short = self.short.iter();
        let short = short.map(|file| (file, !listed.iter().any(|listed| listed.name == file.name)));
        for (Wanted { name, bytes, content, .. }, is_done) in singles.chain(short) {
            let there = fs::read(self.share().join(name.as_str())).ok();
            assert!(there.as_ref().is_none_or(|there| there == bytes), "{name} is not whole");
            assert!(there.is_some() || !self.promised.contains(name), "{name} was said to be there");
            assert!(there.is_some() || !is_done, "{name} is not there, and needs not be fetched");
            let known = facts.iter().find(|(known, _)| known == name.as_str());
            assert!(
                known.is_none_or(|(_, known)| known == content && there.is_some()),
                "{name} is in the catalog"
            );
        }
    }

    /// Holds the catalog of a peer that was started against what is there.
    async fn check_catalog(&self, house: &House) {
        house.shared.shares.refresh().await.unwrap();
        let facts = facts(&house.shared.catalog).await;
        for (name, content) in &facts {
            assert_eq!(ContentHash::of(&fs::read(self.share().join(name)).unwrap()), *content, "{name}");
        }
        let files = self.singles.iter().map(|(_, file)| file).chain(&self.short);
        for Wanted { name, .. } in files.filter(|file| self.share().join(file.name.as_str()).exists()) {
            assert!(facts.iter().any(|(known, _)| known == name.as_str()), "{name} is not in the catalog");
        }
    }
}

async fn facts(catalog: &Catalog) -> Vec<(String, ContentHash)> {
    let query =
        ListQuery { prefix: None, text: None, share: None, viewer: Viewer::Own, after: None, limit: 1000 };
    let facts = catalog.list(query).await.unwrap().into_iter();
    facts.map(|fact| (fact.name.as_str().to_owned(), fact.content)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_takes_a_name_that_was_given_or_gives_one_to_what_is_not_whole() {
    for seed in 0..CASES {
        println!("seed {seed}");
        Case::new(seed).await.run().await;
    }
}
