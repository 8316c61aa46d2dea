//! A peer and a maestro, and what may happen to them.

mod databases;
mod rules;
mod steps;

use std::collections::VecDeque;

use databases::{Databases, Standing};
use maestrod::directory::{Digest, Directory, DirectoryError, FileRecord, Profile};
use maestrod::sync::conversation::{Conversation, Failure, Taken};
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_proto::control::Visibility;
use p2p_proto::v1::sync_request::Message as Up;
use p2p_proto::v1::sync_response::Message as Down;
use p2p_proto::v1::{Hello, Welcome};
use p2pd::catalog::{Fact, FactChange, ListQuery, ShareRecord, Viewer};
use p2pd::discovery::Telling;
pub(crate) use steps::{Counts, Garbling, LEDGER_SPOILS, SPOILS, Step};
use tokio::runtime::Runtime;

/// Changes in a batch, and files in a question: few, so that a few files need several.
const BATCH: u32 = 2;
const FILES_ASKED: u64 = 3;
/// Removals that the peer remembers.
const TOMBSTONES: u64 = 2;
/// Messages after which quiet must have come.
const PATIENCE: usize = 3000;
const SHARES: [&str; 2] = ["net", "pals"];

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
                spoils: 0,
                is_disturbed: false,
                is_ledger_spoiled: false,
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
    epoch: u64,
    /// How far the maestro is, and whether it was told that this is the end of the catalog.
    through: (u64, bool),
    is_older: bool,
    /// The whole catalog is being told.
    is_whole: bool,
    /// What it takes is not what the peer said.
    is_garbled: bool,
    /// How often something was spoiled before it began.
    spoils: u64,
}

struct World<'a> {
    peer: PeerId,
    databases: &'a mut Databases,
    counts: &'a mut Counts,
    near: Option<Near>,
    /// The last one may be of the peer's stream; the others are of those that it lost.
    far: Vec<Far>,
    streams: u64,
    /// How often something was spoiled.
    spoils: u64,
    /// A database was replaced by an older one, or spoiled, or a change was kept back: only then may the two come to differ.
    is_disturbed: bool,
    is_ledger_spoiled: bool,
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
            Step::Connect { is_older } => self.connect(*is_older).await?,
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
                self.spoils += 1;
            }
            Step::SpoilLedger(which) => {
                self.databases.spoil_ledger(LEDGER_SPOILS[*which]);
                (self.is_disturbed, self.is_ledger_spoiled) = (true, true);
                self.spoils += 1;
            }
            Step::Garble(garbling) => self.garble(*garbling),
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

    async fn connect(&mut self, is_older: bool) -> Result<(), String> {
        self.cut(usize::MAX);
        let (catalog, directory) = (self.databases.catalog(), self.databases.directory());
        let hello = Hello {
            epoch: catalog.epoch(),
            last_sequence: *catalog.watch().borrow(),
            compares_buckets: !is_older,
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
        self.far.push(Far {
            stream,
            conversation,
            takes: VecDeque::new(),
            epoch: hello.epoch,
            through: (if resume.epoch == hello.epoch { resume.applied } else { 0 }, false),
            is_older,
            is_whole: false,
            is_garbled: false,
            spoils: self.spoils,
        });
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
        let is_right = rules::is_right(&message, far.epoch, far.through);
        let (is_garbled, said) = (far.is_garbled, message.clone());
        let taken = far.conversation.take(self.databases.directory(), message, 1).await;
        match taken {
            Ok(_) if !is_right => Err(format!("what no peer may say was taken: {said:?}")),
            Ok(Taken { is_hopeless: true, .. }) => {
                Err("whole catalogs came again and again, and still differ".to_owned())
            }
            Ok(Taken { resync, repaired, .. }) if !self.is_disturbed && (resync || repaired.is_some()) => {
                Err("they differed, and nothing was done to the databases".to_owned())
            }
            Ok(taken) => {
                self.look_at(index, &said, &taken).await?;
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
            Err(Failure::Violation(_)) if is_garbled => {
                self.counts.refused += 1;
                self.far.remove(index);
                self.near.take_if(|_| is_near);
                Ok(true)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What must be true of a message that was taken, and of what it came to.
    async fn look_at(&mut self, index: usize, said: &Up, taken: &Taken) -> Result<(), String> {
        let standing = self.databases.standing(self.peer);
        let (catalog_at, spoils) = (self.catalog_at(), self.spoils);
        let far = &mut self.far[index];
        if let Up::Delta(delta) = said {
            far.through = (delta.through_sequence, delta.complete);
            let Some(Down::Ack(ack)) = taken.answers.first() else {
                return Err("a delta is not acknowledged".to_owned());
            };
            let at = (far.epoch, delta.through_sequence);
            let is_kept = standing.at.1 == at.1 && (standing.at.0 == at.0 || self.is_disturbed);
            if !is_kept || ack.applied_sequence != at.1 {
                return Err(format!("{ack:?}, and on the disk is {:?}, not {at:?}", standing.at));
            }
            far.is_whole |= delta.reset;
        }
        let is_mendable = !far.is_older
            && !far.is_whole
            && !far.is_garbled
            && far.spoils == spoils
            && !self.is_ledger_spoiled;
        if let Up::Delta(delta) = said {
            far.is_whole &= !delta.complete;
        }
        if taken.resync && is_mendable {
            return Err("the parts could be told, and all was asked for".to_owned());
        }
        // What was said on a stream that is cut, the peer need not have any more: its database may be another by now, with other
        // changes of the same number.
        let is_near = self.near.as_ref().is_some_and(|near| near.stream == far.stream);
        if let (Up::Digests(_), Some(Down::Tell(asked))) = (said, taken.answers.last())
            && is_near
            && catalog_at == (far.epoch, far.through.0)
        {
            let differing = rules::differing(&self.has().await, &self.held().await, asked.bits);
            if let Some(bucket) = asked.buckets.iter().find(|bucket| !differing.contains(bucket)) {
                return Err(format!("{bucket} was asked for, and of {asked:?} only {differing:?} differ"));
            }
        }
        Ok(())
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

    fn garble(&mut self, garbling: Garbling) {
        let Some(far) = self.far.last_mut() else { return };
        far.is_garbled |= rules::garble(&mut far.takes, garbling);
        // What was kept back is missing until the whole is compared.
        self.is_disturbed |= far.is_garbled && matches!(garbling, Garbling::Swapped);
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
        self.quiet().await?;
        // Only a stream whose peer can tell its catalog part by part is looked at without a reason.
        let streams = (self.near.as_ref().map(|near| near.stream), self.far.last());
        if !matches!(streams, (Some(near), Some(far)) if near == far.stream && !far.is_older && !far.is_garbled)
        {
            self.connect(false).await?;
        }
        self.quiet().await?;
        self.examine();
        self.quiet().await?;
        // Where the catalog stands is only looked at when a stream begins.
        if self.databases.standing(self.peer).at != self.catalog_at() {
            self.connect(false).await?;
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
        let catalog = self.databases.catalog();
        let telling = self.near.as_ref().and_then(|near| near.telling.as_ref());
        if !telling.is_some_and(Telling::is_done) {
            return Err("the peer waits for an acknowledgement, and none comes".to_owned());
        }
        let (has, held) = (self.has().await, self.held().await);
        let mut digest = Digest::default();
        held.iter().for_each(|file| digest ^= Digest::of(file));
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

    /// What the peer has for the network, by share and name.
    async fn has(&self) -> Vec<FileRecord> {
        let query = ListQuery {
            prefix: None,
            text: None,
            share: None,
            viewer: Viewer::Network,
            after: None,
            limit: 1000,
        };
        let facts = self.databases.catalog().list(query).await.unwrap();
        let records = facts.into_iter().map(|fact| FileRecord {
            modified_ms: fact.modified_ms(),
            share: fact.share,
            name: fact.name.to_string(),
            content: Some(fact.content),
            size: fact.size,
        });
        rules::in_order(records.collect())
    }

    /// What the maestro holds of it.
    async fn held(&self) -> Vec<FileRecord> {
        rules::in_order(self.databases.directory().files_of(self.peer, None, 1000).await.unwrap().items)
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
