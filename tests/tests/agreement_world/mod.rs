//! A peer and a maestro, and what may happen to them.

mod databases;

use std::collections::VecDeque;

use databases::{Databases, Standing};
use maestrod::directory::{Digest, Directory, DirectoryError, Profile};
use maestrod::sync::conversation::{Conversation, Failure, Taken};
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_proto::control::Visibility;
use p2p_proto::v1::sync_request::Message as Up;
use p2p_proto::v1::sync_response::Message as Down;
use p2p_proto::v1::{Hello, Welcome};
use p2pd::catalog::{Fact, FactChange, ListQuery, ShareRecord, Viewer};
use p2pd::discovery::Telling;
use proptest::sample::Index;
use tokio::runtime::Runtime;

/// Changes in a batch, and files in a question: few, so that a few files need several.
const BATCH: u32 = 2;
const FILES_ASKED: u64 = 3;
/// Removals that the peer remembers.
const TOMBSTONES: u64 = 2;
/// Messages after which quiet must have come.
const PATIENCE: usize = 3000;
const SHARES: [&str; 2] = ["net", "pals"];

/// What becomes of rows on a disk, of those of one peer.
pub(crate) const SPOILS: [&str; 11] = [
    "UPDATE files SET size = size + 1 WHERE peer = ?1 AND name_id % 2 = 0",
    "UPDATE files SET content = zeroblob(32) WHERE peer = ?1 AND name_id % 3 = 0",
    "DELETE FROM files WHERE peer = ?1 AND name_id % 2 = 1",
    "INSERT OR IGNORE INTO files (peer, share, name_id, content, size, modified_ms, generation)
     SELECT peer, 'zz', name_id, content, size, modified_ms, generation FROM files WHERE peer = ?1",
    "UPDATE files SET generation = generation + 1 WHERE peer = ?1",
    "UPDATE peers SET digest = x'0102030405060708090a0b0c0d0e0f10' WHERE id = ?1",
    "UPDATE peers SET files = files + 1 WHERE id = ?1",
    "UPDATE peers SET applied = applied + 2 WHERE id = ?1",
    "UPDATE peers SET applied = max(applied - 3, 0) WHERE id = ?1",
    "UPDATE peers SET epoch = epoch + 1 WHERE id = ?1",
    "UPDATE peers SET sweeping = 1 - sweeping, generation = generation + 1 WHERE id = ?1",
];

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put {
        share: usize,
        name: u8,
        bytes: u8,
    },
    Remove {
        share: usize,
        name: u8,
    },
    Show {
        share: usize,
        friends: bool,
        available: bool,
    },
    /// The peer begins a stream; the one that it had is cut with all that is on its way.
    Connect,
    /// The peer says the next thing.
    Say,
    /// The maestro takes the next message of one of the streams that it has.
    Take(Index),
    /// The peer hears the next message.
    Hear,
    /// The two say, take and hear so many times.
    Talk(u8),
    /// The stream breaks, and of what the peer has said so many messages will still arrive.
    Cut {
        delivered: u8,
    },
    RestartPeer,
    RestartMaestro,
    BackUpPeer,
    RestorePeer(Index),
    BackUpMaestro,
    RestoreMaestro(Index),
    /// The peer's database is replaced by a new one.
    LosePeer,
    /// One of [`SPOILS`].
    Spoil(usize),
    /// The maestro looks whether it holds the right files.
    Examine,
    /// The maestro forgets the peer, if it is away.
    Forget,
}

/// How often something was seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    cases: u64,
    messages: u64,
    superseded: u64,
    whole_catalogs: u64,
    resyncs: u64,
    repairs: u64,
    files_repaired: u64,
    restored_peers: u64,
    restored_maestros: u64,
    forgotten: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 10] {
        [
            &mut self.cases,
            &mut self.messages,
            &mut self.superseded,
            &mut self.whole_catalogs,
            &mut self.resyncs,
            &mut self.repairs,
            &mut self.files_repaired,
            &mut self.restored_peers,
            &mut self.restored_maestros,
            &mut self.forgotten,
        ]
    }

    pub(crate) fn add(&mut self, more: &Counts) {
        let mut more = Counts { ..*more };
        for (mine, more) in self.all().into_iter().zip(more.all()) {
            *mine += *more;
        }
    }

    /// Resyncs may well be none: part by part is enough.
    pub(crate) fn saw_everything(&self) -> bool {
        let mut seen = Counts { resyncs: 1, ..*self };
        seen.all().into_iter().all(|count| *count > 0)
    }
}

/// Databases for one case after the other.
pub(crate) struct Lab {
    runtime: Runtime,
    databases: Databases,
    number: u64,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Lab { runtime, databases: Databases::new(), number: 0 }
    }

    /// Lets all of it happen, waits for quiet, and says what is wrong then.
    pub(crate) fn play(&mut self, steps: &[Step], counts: &mut Counts) -> Result<(), String> {
        self.number += 1;
        let peer = PeerId::from_bytes(*ContentHash::of(&self.number.to_le_bytes()).as_bytes());
        self.runtime.block_on(async {
            self.databases.begin();
            let mut world = World {
                peer,
                databases: &mut self.databases,
                counts,
                near: None,
                far: Vec::new(),
                streams: 0,
                is_disturbed: false,
            };
            world.counts.cases += 1;
            for share in 0..SHARES.len() {
                world.show(share, Visibility::Network, true).await;
            }
            for step in steps {
                world.take_step(step).await.map_err(|error| format!("{step:?}: {error}"))?;
            }
            world.settle().await?;
            world.compare().await?;
            world.leave().await;
            Ok(())
        })
    }
}

/// The peer's end of its stream.
struct Near {
    stream: u64,
    /// `None` before the Welcome.
    telling: Option<Telling>,
    hears: VecDeque<Down>,
}

/// The maestro's end of one.
struct Far {
    stream: u64,
    conversation: Conversation,
    takes: VecDeque<Up>,
}

struct World<'a> {
    peer: PeerId,
    databases: &'a mut Databases,
    counts: &'a mut Counts,
    near: Option<Near>,
    /// The last one may be of the peer's stream; the others are of those that it lost.
    far: Vec<Far>,
    streams: u64,
    /// A database was replaced by an older one, or spoiled: only then may the two come to differ.
    is_disturbed: bool,
}

impl World<'_> {
    async fn take_step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Put { share, name, bytes } => {
                let fact = fact(SHARES[*share], *name, *bytes);
                let change = FactChange::Upsert { fact, manifest: None };
                self.databases.catalog().apply(vec![change]).await.unwrap();
            }
            Step::Remove { share, name } => {
                let change = FactChange::Remove { share: SHARES[*share].to_owned(), name: named(*name) };
                self.databases.catalog().apply(vec![change]).await.unwrap();
            }
            Step::Show { share, friends, available } => {
                let visible = if *friends { Visibility::Friends } else { Visibility::Network };
                self.show(*share, visible, *available).await;
            }
            Step::Connect => self.connect().await?,
            Step::Say => drop(self.say().await),
            Step::Take(index) if !self.far.is_empty() => drop(self.take(index.index(self.far.len())).await?),
            Step::Hear => drop(self.hear()),
            Step::Talk(times) => {
                for _ in 0..*times {
                    self.say().await;
                    if let Some(last) = self.far.len().checked_sub(1) {
                        self.take(last).await?;
                    }
                    self.hear();
                }
            }
            Step::Cut { delivered } => self.cut(usize::from(*delivered)),
            Step::RestartPeer => {
                self.cut(usize::MAX);
                self.databases.restart_peer();
            }
            Step::RestartMaestro => {
                self.end_of_maestro();
                self.databases.restart_maestro();
            }
            Step::BackUpPeer => self.databases.back_up_peer(),
            Step::RestorePeer(index) if self.databases.has_peer_copies() => {
                self.cut(usize::MAX);
                self.databases.restore_peer(index);
                self.is_disturbed = true;
                self.counts.restored_peers += 1;
            }
            Step::BackUpMaestro => self.databases.back_up_maestro(),
            Step::RestoreMaestro(index) if self.databases.has_maestro_copies() => {
                self.end_of_maestro();
                self.databases.restore_maestro(index);
                self.is_disturbed = true;
                self.counts.restored_maestros += 1;
            }
            Step::LosePeer => {
                self.cut(usize::MAX);
                self.databases.lose_peer();
                for share in 0..SHARES.len() {
                    self.show(share, Visibility::Network, true).await;
                }
            }
            Step::Spoil(which) => {
                self.databases.spoil(self.peer, SPOILS[*which]);
                self.is_disturbed = true;
            }
            Step::Examine => self.examine(),
            Step::Forget if self.near.is_none() && self.far.is_empty() => {
                self.counts.forgotten += u64::from(self.forget().await);
            }
            Step::Take(_) | Step::RestorePeer(_) | Step::RestoreMaestro(_) | Step::Forget => {}
        }
        Ok(())
    }

    async fn show(&self, share: usize, visible: Visibility, available: bool) {
        let record = ShareRecord { name: SHARES[share].to_owned(), visible, available, root: None };
        self.databases.catalog().set_share(record).await.unwrap();
    }

    async fn connect(&mut self) -> Result<(), String> {
        self.cut(usize::MAX);
        let (catalog, directory) = (self.databases.catalog(), self.databases.directory());
        let hello = Hello {
            epoch: catalog.epoch(),
            last_sequence: *catalog.watch().borrow(),
            compares_buckets: true,
            ..Hello::default()
        };
        let held = directory.begin(self.peer, Profile::default(), 1).await.unwrap();
        let (conversation, resume) =
            Conversation::begin(self.peer, &hello, held).map_err(|error| error.to_string())?;
        directory.set_visible(self.peer, true, Some(1)).await.unwrap();
        self.streams += 1;
        let welcome = Welcome { epoch: resume.epoch, applied_sequence: resume.applied, ..Welcome::default() };
        let (stream, hears) = (self.streams, VecDeque::from([Down::Welcome(welcome)]));
        self.near = Some(Near { stream, telling: None, hears });
        let conversation = conversation.asking_for(FILES_ASKED);
        self.far.push(Far { stream, conversation, takes: VecDeque::new() });
        Ok(())
    }

    /// The peer says the next thing, if there is one.
    async fn say(&mut self) -> bool {
        let Some(Near { stream, telling: Some(telling), .. }) = &mut self.near else { return false };
        let catalog = self.databases.catalog();
        if !telling.has_more(*catalog.watch().borrow()) {
            return false;
        }
        self.counts.whole_catalogs += u64::from(telling.begins_anew());
        let said = telling.next(catalog).await.unwrap();
        if let Some(far) = self.far.last_mut().filter(|far| far.stream == *stream) {
            far.takes.extend(said);
        }
        true
    }

    /// The maestro takes the next message of a stream, or sees that it has ended.
    async fn take(&mut self, index: usize) -> Result<bool, String> {
        let far = &mut self.far[index];
        let is_near = self.near.as_ref().is_some_and(|near| near.stream == far.stream);
        let Some(message) = far.takes.pop_front() else {
            if !is_near {
                self.far.remove(index);
            }
            return Ok(!is_near);
        };
        self.counts.messages += 1;
        match far.conversation.take(self.databases.directory(), message, 1).await {
            Ok(Taken { is_hopeless: true, .. }) => {
                Err("whole catalogs came again and again, and still differ".to_owned())
            }
            Ok(Taken { resync, repaired, .. }) if !self.is_disturbed && (resync || repaired.is_some()) => {
                Err("they differed, and nothing was done to the databases".to_owned())
            }
            Ok(taken) => {
                self.counts.resyncs += u64::from(taken.resync);
                self.counts.repairs += u64::from(taken.repaired.is_some());
                self.counts.files_repaired += taken.repaired.unwrap_or(0);
                if let Some(near) = self.near.as_mut().filter(|_| is_near) {
                    near.hears.extend(taken.answers);
                }
                Ok(true)
            }
            Err(Failure::Directory(DirectoryError::Superseded)) if !is_near => {
                self.counts.superseded += 1;
                self.far.remove(index);
                Ok(true)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The peer hears the next message, if there is one.
    fn hear(&mut self) -> bool {
        let Some(near) = &mut self.near else { return false };
        match near.hears.pop_front() {
            None => return false,
            Some(Down::Welcome(welcome)) => {
                let telling = Telling::resume(&welcome, self.databases.catalog());
                near.telling = Some(telling.in_batches_of(BATCH));
            }
            Some(message) => {
                if let Some(telling) = &mut near.telling {
                    telling.heard(&message);
                }
            }
        }
        true
    }

    fn cut(&mut self, delivered: usize) {
        if let Some(near) = self.near.take()
            && let Some(far) = self.far.last_mut().filter(|far| far.stream == near.stream)
        {
            far.takes.truncate(delivered);
        }
    }

    fn end_of_maestro(&mut self) {
        self.near = None;
        self.far.clear();
    }

    fn examine(&mut self) {
        if let (Some(near), Some(far)) = (&mut self.near, self.far.last_mut())
            && near.stream == far.stream
        {
            near.hears.extend(far.conversation.examine());
        }
    }

    /// Whether something was left to forget.
    async fn forget(&mut self) -> bool {
        let directory = self.databases.directory();
        directory.set_visible(self.peer, false, None).await.unwrap();
        let mut something = false;
        while directory.forget_unseen(i64::MAX).await.unwrap().more {
            something = true;
        }
        something
    }

    /// Nothing more happens, but that the peer connects if it is not connected, and that some time later the maestro looks
    /// whether it holds the right files.
    async fn settle(&mut self) -> Result<(), String> {
        if self.near.is_none() {
            self.connect().await?;
        }
        self.quiet().await?;
        self.examine();
        self.quiet().await?;
        // Where the catalog stands is only looked at when a stream begins.
        if self.databases.standing(self.peer).at != self.catalog_at() {
            self.connect().await?;
            self.quiet().await?;
        }
        Ok(())
    }

    fn catalog_at(&self) -> (u64, u64) {
        let catalog = self.databases.catalog();
        (catalog.epoch(), *catalog.watch().borrow())
    }

    async fn quiet(&mut self) -> Result<(), String> {
        for _ in 0..PATIENCE {
            let mut is_quiet = !self.say().await;
            for index in (0..self.far.len()).rev() {
                is_quiet &= !self.take(index).await?;
            }
            is_quiet &= !self.hear();
            if is_quiet {
                return Ok(());
            }
        }
        Err(format!("no quiet after {PATIENCE} rounds"))
    }

    async fn compare(&mut self) -> Result<(), String> {
        let (catalog, directory) = (self.databases.catalog(), self.databases.directory());
        let telling = self.near.as_ref().and_then(|near| near.telling.as_ref());
        if !telling.is_some_and(Telling::is_done) {
            return Err("the peer waits for an acknowledgement, and none comes".to_owned());
        }
        let query = ListQuery {
            prefix: None,
            text: None,
            share: None,
            viewer: Viewer::Network,
            after: None,
            limit: 1000,
        };
        let mut has: Vec<_> = catalog.list(query).await.unwrap();
        has.sort_by(|a, b| (&a.share, &a.name).cmp(&(&b.share, &b.name)));
        let has: Vec<_> = has
            .into_iter()
            .map(|fact| (fact.share, fact.name.to_string(), Some(fact.content), fact.size))
            .collect();
        let page = directory.files_of(self.peer, None, 1000).await.unwrap();
        let mut digest = Digest::default();
        page.items.iter().for_each(|file| digest ^= Digest::of(file));
        let mut held: Vec<_> =
            page.items.into_iter().map(|file| (file.share, file.name, file.content, file.size)).collect();
        held.sort();
        if has != held {
            return Err(format!("the peer has {has:#?}\nand the maestro holds {held:#?}"));
        }
        let last = self.catalog_at();
        let changes = catalog.changes_after(last.1, 1).await.unwrap();
        let (told, standing) = ((Digest(changes.digest), changes.files), self.databases.standing(self.peer));
        if told != (digest, held.len() as u64) || told != standing.tally || standing.at != last {
            let Standing { at, tally } = standing;
            return Err(format!(
                "the peer says {last:?}, {told:?} and the maestro {at:?}, {tally:?} of {held:?}"
            ));
        }
        Ok(())
    }

    /// Leaves nothing for the next case.
    async fn leave(&mut self) {
        self.end_of_maestro();
        self.forget().await;
    }
}

fn named(name: u8) -> FileName {
    FileName::parse(&format!("f{name}")).unwrap()
}

fn fact(share: &str, name: u8, bytes: u8) -> Fact {
    let content = ContentHash::of(&[bytes]);
    let (share, name, size) = (share.to_owned(), named(name), u64::from(bytes));
    Fact { share, name, content, size, modified_ns: 0, changed_ns: 0, inode: 0 }
}
