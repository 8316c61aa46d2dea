//! Peers that fetch the same content at the same time: what each has of it by now, and who they are.
//!
//! One [`Swarm`] per content that is fetched here, or from here. The transfer that fetches it says which pieces have
//! come; whoever serves says which pieces were asked for; each [`Follower`] is one other peer, which is told what is
//! new to it the moment that it is known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use p2p_content::{Bitmap, ContentHash, Manifest, Pieces};
use p2p_identity::PeerId;
use p2p_proto::v1::{AvailabilityUpdate, PeerInfo};
use tokio::sync::watch;

/// Fetchers that one answer names at the most: the newest.
const NAMED: usize = 64;
/// What is passed on of a fetcher: no more addresses, and no longer texts.
const ADDRESSES: usize = 8;
const TEXT_LEN: usize = 128;

/// The swarms of this peer. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct Swarms(Arc<Mutex<HashMap<ContentHash, Weak<Swarm>>>>);

/// Everybody that fetches one content from here, and what is here of it. Gone when nobody holds it.
pub struct Swarm {
    content: ContentHash,
    all: Swarms,
    state: Mutex<State>,
    /// Rings whenever the state changed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    here: Here,
    /// Known from the first follower or transfer on.
    pieces: Option<Pieces>,
    /// Pieces in the order in which they came, those before the transfer's start left out.
    gained: Vec<u32>,
    /// Pieces in the order in which they were first asked for, and by whom. Each once, whoever comes and goes: who heard of it
    /// would learn nothing.
    promised: Vec<(u32, PeerId)>,
    is_promised: HashSet<u32>,
    /// By the order in which they came.
    fetchers: BTreeMap<u64, Fetcher>,
    next_fetcher: u64,
}

/// A peer that fetches the content and gives what it gets.
struct Fetcher {
    id: PeerId,
    introduced: Introduced,
    followers: usize,
}

/// A fetcher, as others that fetch the same are told of it.
#[derive(Clone)]
pub struct Introduced {
    /// Where it can be reached.
    pub info: PeerInfo,
    /// The networks that it belongs to: only their members are told of it.
    pub networks: Arc<[PeerId]>,
}

impl Introduced {
    fn shares_a_network(&self, other: &Self) -> bool {
        self.networks.iter().any(|network| other.networks.contains(network))
    }
}

/// What a transfer has of the content.
#[derive(Default)]
enum Here {
    /// No transfer fetches it.
    #[default]
    Nothing,
    Part(Part),
    /// The transfer is done; the file was so then.
    Whole {
        file: Arc<File>,
        stamp: Option<Stamp>,
    },
}

struct Part {
    file: Arc<File>,
    manifest: Arc<Manifest>,
    pieces: Bitmap,
    /// Where the file will be, and so for whom.
    share: Arc<str>,
}

/// Length and time of change: what shows that a file is another by now.
type Stamp = (u64, SystemTime);

fn stamp(file: &File) -> Option<Stamp> {
    let metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// The unfinished file of a content.
pub struct Unfinished {
    /// What is there is proven, the rest is not.
    pub file: Arc<File>,
    /// Proves the pieces.
    pub manifest: Arc<Manifest>,
    /// The share that it will be in.
    pub share: Arc<str>,
}

impl Swarms {
    /// The swarm of this content, new where there is none.
    pub fn of(&self, content: ContentHash) -> Arc<Swarm> {
        let mut all = self.lock();
        if let Some(swarm) = all.get(&content).and_then(Weak::upgrade) {
            return swarm;
        }
        let swarm = Arc::new(Swarm {
            content,
            all: self.clone(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        all.insert(content, Arc::downgrade(&swarm));
        swarm
    }

    /// The swarm of this content, where there is one.
    pub fn find(&self, content: ContentHash) -> Option<Arc<Swarm>> {
        self.lock().get(&content).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentHash, Weak<Swarm>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swarm {
    /// The unfinished file of the content, while a transfer fetches it.
    pub fn part(&self) -> Option<Unfinished> {
        match &self.lock().here {
            Here::Part(Part { file, manifest, share, .. }) => Some(Unfinished {
                file: Arc::clone(file),
                manifest: Arc::clone(manifest),
                share: Arc::clone(share),
            }),
            Here::Nothing | Here::Whole { .. } => None,
        }
    }

    /// Whether these bytes are in this file, which was [`part`](Self::part) once, and proven.
    pub fn has(&self, opened: &Arc<File>, bytes: &Range<u64>) -> bool {
        match &self.lock().here {
            Here::Part(part) if Arc::ptr_eq(&part.file, opened) => {
                let piece_len = part.manifest.pieces().piece_len();
                let last = bytes.end.saturating_sub(1).max(bytes.start) / piece_len;
                let mut pieces = bytes.start / piece_len..=last;
                pieces.all(|piece| u32::try_from(piece).is_ok_and(|piece| part.pieces.get(piece)))
            }
            // Under its name it is its user's, who may write in it.
            Here::Whole { file, stamp: then } if Arc::ptr_eq(file, opened) => {
                then.is_some() && stamp(file) == *then
            }
            // Another transfer's file by now.
            _ => false,
        }
    }

    /// A fetcher asked this peer for these bytes: where they are a piece, others had better ask for another one.
    pub fn promised(&self, bytes: Range<u64>, to: PeerId) {
        let mut state = self.lock();
        let Some(piece) = state.pieces.and_then(|pieces| whole_piece(pieces, &bytes)) else { return };
        let is_fetcher = state.fetchers.values().any(|fetcher| fetcher.id == to);
        if is_fetcher && state.is_promised.insert(piece) {
            state.promised.push((piece, to));
            let others = state.fetchers.len() > 1;
            drop(state);
            if others {
                self.ring();
            }
        }
    }

    /// Follows it for this peer; `fetcher` says where which others can reach it, if they are to know. `whole`: the length
    /// in bytes, where this peer has all of it, whatever its transfers are at.
    pub fn follow(self: Arc<Self>, id: PeerId, fetcher: Option<Introduced>, whole: Option<u64>) -> Follower {
        let is_whole = whole.is_some();
        if let Some(len) = whole {
            self.lock().pieces = Some(Pieces::of(len));
        }
        let introduced =
            fetcher.map(|Introduced { info, networks }| Introduced { info: short(info), networks });
        let number = introduced.clone().map(|introduced| self.lock().enter(id, introduced));
        self.ring();
        let changed = self.changed.subscribe();
        let told = Told { whole: false, pieces: is_whole, gained: 0, promised: 0, fetchers: 0 };
        Follower { swarm: self, id, number, introduced, is_whole, told, changed }
    }

    fn ring(&self) {
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One more follower of a fetcher. Its number.
    fn enter(&mut self, id: PeerId, introduced: Introduced) -> u64 {
        if let Some((number, fetcher)) = self.fetchers.iter_mut().find(|(_, fetcher)| fetcher.id == id) {
            fetcher.followers += 1;
            fetcher.introduced = introduced;
            return *number;
        }
        let number = self.next_fetcher;
        self.next_fetcher += 1;
        self.fetchers.insert(number, Fetcher { id, introduced, followers: 1 });
        number
    }

    /// One follower less of a fetcher.
    fn leave(&mut self, number: u64) {
        let Some(fetcher) = self.fetchers.get_mut(&number) else { return };
        fetcher.followers -= 1;
        if fetcher.followers == 0 {
            self.fetchers.remove(&number);
        }
    }
}

/// The piece that this range is, if it is one.
fn whole_piece(pieces: Pieces, bytes: &Range<u64>) -> Option<u32> {
    let piece = u32::try_from(bytes.start / pieces.piece_len()).ok()?;
    (piece < pieces.count() && pieces.range(piece) == *bytes).then_some(piece)
}

/// As it is passed on.
fn short(info: PeerInfo) -> PeerInfo {
    let addresses = info.addresses.into_iter().filter(|address| address.len() <= TEXT_LEN).take(ADDRESSES);
    let mut name = info.name;
    name.truncate(name.floor_char_boundary(TEXT_LEN));
    PeerInfo { addresses: addresses.collect(), name, rest_url: String::new(), version: String::new(), ..info }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // By now there may be another one in its place.
        if all.get(&self.content).is_some_and(|swarm| swarm.strong_count() == 0) {
            all.remove(&self.content);
        }
    }
}

/// The pieces that a transfer has go to others, until this is dropped.
pub(super) struct Serving {
    swarm: Arc<Swarm>,
    /// Another transfer fetches the same content under another name, and gives its pieces.
    is_second: bool,
}

impl Serving {
    /// From this file, which holds these pieces of it and will be in this share. `before`: what gave them in an earlier run
    /// of the same transfer.
    pub(super) fn begin(
        swarms: &Swarms,
        before: Option<Serving>,
        file: Arc<File>,
        manifest: Arc<Manifest>,
        pieces: &Bitmap,
        share: &str,
    ) -> Self {
        let swarm = swarms.of(manifest.content());
        let mut state = swarm.lock();
        let is_own = before.as_ref().is_some_and(|before| !before.is_second);
        let is_second = matches!(state.here, Here::Part(_)) && !is_own;
        if !is_second {
            let news: Vec<u32> = match &state.here {
                Here::Part(known) => pieces.iter_ones().filter(|piece| !known.pieces.get(*piece)).collect(),
                _ => Vec::new(),
            };
            state.gained.extend(news);
            state.pieces = Some(manifest.pieces());
            state.here = Here::Part(Part { file, manifest, pieces: pieces.clone(), share: share.into() });
        }
        drop(state);
        if let Some(mut before) = before {
            // What it gave is this one's now.
            before.is_second = true;
        }
        swarm.ring();
        Self { swarm, is_second }
    }

    /// The piece is in the file, and proven.
    pub(super) fn gained(&self, piece: u32) {
        if self.is_second {
            return;
        }
        let mut state = self.swarm.lock();
        if let Here::Part(part) = &mut state.here
            && part.pieces.set(piece)
        {
            state.gained.push(piece);
            drop(state);
            self.swarm.ring();
        }
    }

    /// The file has its name, and is in the catalog.
    pub(super) fn done(self) {
        if self.is_second {
            return;
        }
        let mut state = self.swarm.lock();
        if let Here::Part(part) = &state.here {
            let file = Arc::clone(&part.file);
            state.here = Here::Whole { stamp: stamp(&file), file };
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_second {
            let mut state = self.swarm.lock();
            if matches!(state.here, Here::Part(_)) {
                state.here = Here::Nothing;
            }
        }
        self.swarm.ring();
    }
}

/// One peer that is told what changes.
pub struct Follower {
    swarm: Arc<Swarm>,
    id: PeerId,
    number: Option<u64>,
    /// As others are told of it, where it is a fetcher.
    introduced: Option<Introduced>,
    is_whole: bool,
    told: Told,
    changed: watch::Receiver<()>,
}

/// How far a follower knows what happened.
struct Told {
    whole: bool,
    pieces: bool,
    gained: usize,
    promised: usize,
    fetchers: u64,
}

/// What there is for a follower.
enum News {
    Some(AvailabilityUpdate),
    None,
    /// The content is no longer here.
    Over,
}

impl Follower {
    /// What is followed.
    pub fn content(&self) -> ContentHash {
        self.swarm.content
    }

    /// What is new, as soon as something is; `None` once the content is no longer here.
    pub async fn next(&mut self) -> Option<AvailabilityUpdate> {
        loop {
            // Before it is looked: what comes afterwards rings again.
            self.changed.mark_unchanged();
            match self.news() {
                News::Some(update) => return Some(update),
                News::Over => return None,
                News::None => self.changed.changed().await.ok()?,
            }
        }
    }

    fn news(&mut self) -> News {
        let state = self.swarm.lock();
        let mut update = AvailabilityUpdate::default();
        let whole = self.is_whole || matches!(state.here, Here::Whole { .. });
        if whole {
            update.whole = !std::mem::replace(&mut self.told.whole, true);
        } else if let Here::Part(part) = &state.here {
            if std::mem::replace(&mut self.told.pieces, true) {
                update.gained = state.gained.get(self.told.gained..).unwrap_or_default().to_vec();
            } else {
                update.pieces = part.pieces.to_bytes().into();
            }
            self.told.gained = state.gained.len();
        } else {
            return News::Over;
        }
        let promised = state.promised.get(self.told.promised..).unwrap_or_default();
        update.promised = promised.iter().filter(|(_, to)| *to != self.id).map(|(piece, _)| *piece).collect();
        self.told.promised = state.promised.len();
        if let Some(introduced) = &self.introduced {
            let unknown = state.fetchers.range(self.told.fetchers..).map(|(_, fetcher)| fetcher);
            let others = unknown.rev().filter(|fetcher| fetcher.id != self.id);
            let known =
                others.map(|fetcher| &fetcher.introduced).filter(|it| it.shares_a_network(introduced));
            update.fetchers = known.take(NAMED).map(|fetcher| fetcher.info.clone()).collect();
            self.told.fetchers = state.next_fetcher;
        }
        let is_news = update != AvailabilityUpdate::default();
        if is_news { News::Some(update) } else { News::None }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.swarm.lock().leave(number);
        }
    }
}

#[cfg(test)]
mod tests;
