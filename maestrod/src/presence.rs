//! The presence loop: keeps the directory showing exactly the peers that the registry says are online.
//!
//! Where other maestros use the same directory, it gives up the peers whose streams have moved to them, and has those of a
//! maestro that is gone (`company`).
//!
//! Owns the [`Registry`]. A stream checks in with [`Presence::connect`] and keeps the [`Attendance`]; that it is dropped,
//! in whatever way the stream ends, is how the loop learns of the end. Nothing else changes who is visible. It never waits
//! for the directory itself: a peer that cannot be shown now is in nobody's way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::stream::{FuturesUnordered, StreamExt};
use p2p_identity::PeerId;
use p2p_service::health::{Heartbeat, PATIENCE};
use p2p_service::tasks::{TaskResult, Tasks};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::sharing::Shown;
use crate::directory::{Directory, DirectoryError, Session};
use crate::registry::{Ending, Registry, StreamId};

mod company;

/// Events that may wait for the loop.
const QUEUE_LEN: usize = 256;
/// How long after a failure the directory is told again.
const RETRY: Duration = Duration::from_secs(1);
/// Peers of whom the directory is told at the same time.
const AT_ONCE: usize = 8;

/// The loop has ended: the maestro is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the maestro is stopping")]
pub struct Stopping;

/// A handle to the loop.
#[derive(Clone)]
pub struct Presence {
    events: mpsc::Sender<Event>,
    directory: Arc<dyn Directory>,
}

/// A stream's place among those that are online.
#[derive(Debug)]
pub struct Attendance {
    replaced: CancellationToken,
    ended: oneshot::Sender<Ending>,
}

impl Attendance {
    /// Cancelled when a newer stream of the same peer takes this one's place.
    pub fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }

    /// The peer leaves on purpose: it is hidden at once. Dropping the attendance instead leaves a lease.
    pub fn goodbye(self) {
        // Only a loop that has ended does not listen.
        let _ = self.ended.send(Ending::Goodbye);
    }
}

#[derive(Debug)]
enum Event {
    Connect {
        peer: PeerId,
        session: Session,
        reply: oneshot::Sender<Attendance>,
    },
    WhoIsConnected {
        peers: Vec<PeerId>,
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    Count {
        reply: oneshot::Sender<u64>,
    },
    /// Their maestro is gone, and this one has them.
    TakenOver {
        peers: Vec<(PeerId, Session)>,
    },
    /// This maestro has them, as the directory said lately.
    Held {
        peers: Vec<(PeerId, Session)>,
    },
}

impl Presence {
    /// Starts the loop, with a lease for everyone whom the directory still shows.
    ///
    /// # Errors
    ///
    /// If the directory cannot say whom it shows.
    pub async fn start(
        directory: Arc<dyn Directory>,
        settings: watch::Receiver<Arc<Config>>,
        tasks: &Tasks,
    ) -> Result<Presence, DirectoryError> {
        let mut registry = Registry::new(settings.borrow().lease());
        // Among several, those whom nobody holds are taken over by and by.
        if directory.sharing().is_none() {
            registry.restore(directory.visible_peers().await?, Instant::now());
        }
        let (events, queue) = mpsc::channel(QUEUE_LEN);
        let mistaken = Arc::new(Notify::new());
        company::start(&directory, &mistaken, &events, tasks).await;
        let attendant = Attendant {
            heart: tasks.heartbeat("presence", PATIENCE),
            registry,
            directory: Arc::clone(&directory),
            settings,
            streams: HashMap::new(),
            sessions: HashMap::new(),
            unsaid: BTreeMap::new(),
            failed: BTreeMap::new(),
            saying: FuturesUnordered::new(),
            in_question: HashSet::new(),
            told: None,
            mistaken,
            ends: FuturesUnordered::new(),
        };
        tasks.spawn("presence", attendant.run(queue, tasks.token()));
        Ok(Presence { events, directory })
    }

    /// A stream of `peer` begins, of this session; an older one is told to end. When this returns the peer is visible.
    ///
    /// # Errors
    ///
    /// [`Stopping`] during the shutdown.
    pub async fn connect(&self, peer: PeerId, session: Session) -> Result<Attendance, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Connect { peer, session, reply }).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Those of `peers` that have a stream now, at this maestro or at another one of its directory; in order, if they are.
    ///
    /// # Errors
    ///
    /// [`Stopping`] during the shutdown.
    pub async fn connected(&self, peers: Vec<PeerId>) -> Result<Vec<PeerId>, Stopping> {
        let (reply, answer) = oneshot::channel();
        let elsewhere = match self.directory.sharing() {
            // What is shown of a peer beside this came from the directory just now: this is no news of a failure.
            Some(sharing) => sharing.connected_elsewhere(&peers).await.unwrap_or_default(),
            None => Vec::new(),
        };
        self.events.send(Event::WhoIsConnected { peers, reply }).await.map_err(|_| Stopping)?;
        let mut connected = answer.await.map_err(|_| Stopping)?;
        if !elsewhere.is_empty() {
            connected.extend(elsewhere);
            connected.sort_unstable();
            connected.dedup();
        }
        Ok(connected)
    }

    /// How many peers have a stream at this maestro now.
    ///
    /// # Errors
    ///
    /// [`Stopping`] during the shutdown.
    pub async fn count(&self) -> Result<u64, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Count { reply }).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }
}

type StreamEnd = futures::future::BoxFuture<'static, (PeerId, StreamId, Ending)>;

/// What the directory may not know yet of a peer, beside what the registry says of it.
#[derive(Debug, Default)]
struct Unsaid {
    /// When it was last heard of, if that is new.
    heard_ms: Option<i64>,
    /// Who is answered once it is said.
    welcome: Option<(oneshot::Sender<Attendance>, Attendance)>,
}

impl Unsaid {
    fn heard_now() -> Unsaid {
        Unsaid { heard_ms: Some(now_ms()), welcome: None }
    }

    fn welcome(&mut self) {
        if let Some((reply, attendance)) = self.welcome.take() {
            // A stream that has ended meanwhile drops the attendance, which is its end.
            let _ = reply.send(attendance);
        }
    }

    /// Takes what is newer of the two.
    fn merge(&mut self, mut newer: Unsaid) {
        self.heard_ms = newer.heard_ms.or(self.heard_ms);
        if newer.welcome.is_some() {
            self.welcome();
            self.welcome = newer.welcome.take();
        }
    }
}

/// What the directory answered.
struct Said {
    peer: PeerId,
    session: Option<Session>,
    shown: Shown,
    unsaid: Unsaid,
    /// Whether it is this maestro's to say.
    answer: Result<bool, DirectoryError>,
}

struct Attendant {
    heart: Heartbeat,
    registry: Registry,
    directory: Arc<dyn Directory>,
    settings: watch::Receiver<Arc<Config>>,
    streams: HashMap<PeerId, (StreamId, CancellationToken)>,
    /// The latest session that this maestro knows of the peers that it holds.
    sessions: HashMap<PeerId, Session>,
    /// Peers of whom the directory may not say yet what the registry says.
    unsaid: BTreeMap<PeerId, Unsaid>,
    /// The same, where the directory did not take it when it was last told.
    failed: BTreeMap<PeerId, Unsaid>,
    /// What the directory is being told, of each peer one thing at a time.
    saying: FuturesUnordered<futures::future::BoxFuture<'static, Said>>,
    in_question: HashSet<PeerId>,
    /// Whom it was told of last.
    told: Option<PeerId>,
    /// The other maestros took this one for gone.
    mistaken: Arc<Notify>,
    ends: FuturesUnordered<StreamEnd>,
}

impl Attendant {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>, token: CancellationToken) -> TaskResult {
        let mistaken = Arc::clone(&self.mistaken);
        let mut retry_at = tokio::time::Instant::now();
        loop {
            self.heart.beat();
            let expiry = self.registry.next_expiry();
            let retry = !self.failed.is_empty();
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                Some(event) = queue.recv() => self.handle(event),
                Some((peer, stream, ending)) = self.ends.next() => {
                    self.registry.disconnect(peer, stream, ending, Instant::now());
                    if self.streams.get(&peer).is_some_and(|(latest, _)| *latest == stream) {
                        self.streams.remove(&peer);
                        self.unsaid.entry(peer).or_default().merge(Unsaid::heard_now());
                    }
                }
                Some(said) = self.saying.next() => self.take_answer(said),
                () = tokio::time::sleep_until(expiry.unwrap_or_else(Instant::now).into()), if expiry.is_some() => {
                    for peer in self.registry.expire(Instant::now()) {
                        let short = peer.short();
                        tracing::info!(peer_id = %peer, "the lease of peer {short} ran out; its files are hidden");
                        // Of one that was connected until this maestro was killed nothing later is known.
                        self.unsaid.entry(peer).or_insert_with(Unsaid::heard_now);
                    }
                }
                () = tokio::time::sleep_until(retry_at), if retry => {
                    retry_at = tokio::time::Instant::now() + RETRY;
                    for (peer, unsaid) in std::mem::take(&mut self.failed) {
                        self.unsaid.entry(peer).or_insert(unsaid);
                    }
                }
                () = mistaken.notified() => {
                    for peer in self.streams.keys() {
                        self.unsaid.entry(*peer).or_default();
                    }
                }
                () = self.heart.due() => {}
                Ok(()) = self.settings.changed() => {
                    let lease = self.settings.borrow_and_update().lease();
                    self.registry.set_lease(lease);
                }
            }
            self.tell_directory();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connect { peer, session, reply } => {
                if self.sessions.get(&peer).is_some_and(|latest| latest.0 > session.0) {
                    // A later stream was faster.
                    let (replaced, (ended, _)) = (CancellationToken::new(), oneshot::channel());
                    replaced.cancel();
                    let _ = reply.send(Attendance { replaced, ended });
                    return;
                }
                self.sessions.insert(peer, session);
                let stream = self.registry.connect(peer);
                let replaced = CancellationToken::new();
                if let Some((_, older)) = self.streams.insert(peer, (stream, replaced.clone())) {
                    older.cancel();
                }
                let (ended, end) = oneshot::channel();
                self.ends.push(Box::pin(async move { (peer, stream, end.await.unwrap_or(Ending::Broken)) }));
                // The answer comes when it is said: who is welcomed is visible.
                let welcome = Some((reply, Attendance { replaced, ended }));
                let unsaid = Unsaid { welcome, ..Unsaid::heard_now() };
                self.unsaid.entry(peer).or_default().merge(unsaid);
            }
            Event::WhoIsConnected { mut peers, reply } => {
                peers.retain(|peer| self.registry.is_connected(peer));
                let _ = reply.send(peers);
            }
            Event::Count { reply } => {
                let _ = reply.send(self.streams.len() as u64);
            }
            Event::TakenOver { peers } => self.take_over(peers),
            Event::Held { peers } => {
                self.show_again(&peers);
                self.find_unknown(peers);
            }
        }
    }

    /// Begins to tell the directory what it may not know.
    fn tell_directory(&mut self) {
        while self.saying.len() < AT_ONCE {
            let next = next_in_turn(&self.unsaid, self.told, &self.in_question);
            let Some((peer, mut unsaid)) = next.and_then(|peer| self.unsaid.remove_entry(&peer)) else {
                return;
            };
            self.told = next;
            if let Some(failed) = self.failed.remove(&peer) {
                unsaid.heard_ms = unsaid.heard_ms.or(failed.heard_ms);
            }
            let session = self.sessions.get(&peer).copied();
            let shown = match (self.registry.is_visible(&peer), self.registry.is_connected(&peer)) {
                (_, true) => Shown::Connected,
                (true, false) => Shown::Leased,
                (false, false) => Shown::Hidden,
            };
            let directory = Arc::clone(&self.directory);
            self.in_question.insert(peer);
            self.saying.push(Box::pin(async move {
                let heard_ms = unsaid.heard_ms;
                let answer = match (directory.sharing(), session) {
                    (None, _) => {
                        directory.set_visible(peer, shown != Shown::Hidden, heard_ms).await.map(|()| true)
                    }
                    (Some(_), None) => Ok(true),
                    (Some(sharing), Some(session)) => sharing.show(peer, session, shown, heard_ms).await,
                };
                Said { peer, session, shown, unsaid, answer }
            }));
        }
    }

    fn take_answer(&mut self, Said { peer, session, shown, mut unsaid, answer }: Said) {
        self.in_question.remove(&peer);
        // Whoever came since the directory was asked is not meant.
        let is_latest = self.sessions.get(&peer) == session.as_ref();
        match answer {
            Ok(true) if shown == Shown::Hidden && is_latest && !self.registry.is_visible(&peer) => {
                self.sessions.remove(&peer);
            }
            Ok(false) if is_latest => self.give_up(peer),
            Ok(_) => {}
            Err(error) => {
                let failed = Unsaid { heard_ms: unsaid.heard_ms, welcome: None };
                self.failed.insert(peer, failed);
                // Of a database that cannot be reached the store tells once.
                if !matches!(error, DirectoryError::Unavailable(_)) {
                    let short = peer.short();
                    let what = if shown == Shown::Hidden { "hide" } else { "show" };
                    tracing::warn!(peer_id = %peer, %error, "cannot {what} peer {short}, trying again: {error}");
                }
            }
        }
        unsaid.welcome();
    }

    /// The peer is another maestro's; a stream that it may still have here has come to its end.
    fn give_up(&mut self, peer: PeerId) {
        self.registry.forget(&peer);
        self.sessions.remove(&peer);
        if let Some((_, stream)) = self.streams.remove(&peer) {
            stream.cancel();
            let short = peer.short();
            tracing::info!(peer_id = %peer, "peer {short} has begun a newer stream at another maestro");
        }
    }

    fn take_over(&mut self, taken: Vec<(PeerId, Session)>) {
        let peers = taken.len();
        for (peer, session) in taken {
            let known = self.sessions.get(&peer).map_or(session.0, |known| known.0);
            if known > session.0 {
                // It has begun a newer stream here since.
                continue;
            }
            if known < session.0 {
                self.give_up(peer);
            }
            self.sessions.insert(peer, session);
            self.registry.restore([peer], Instant::now());
        }
        if peers > 0 {
            tracing::info!("took over {peers} peers whose maestro is gone; each has its lease to come back");
        }
    }

    /// Shows peers again whose streams are here and that this maestro does not hold: that others took it for gone is said once, and
    /// may not have been heard. One that has begun a newer stream elsewhere is given up by that.
    fn show_again(&mut self, held: &[(PeerId, Session)]) {
        let held: HashSet<&PeerId> = held.iter().map(|(peer, _)| peer).collect();
        for peer in self.streams.keys() {
            // What is being told may have been looked at before.
            if !held.contains(peer) && !self.in_question.contains(peer) && !self.failed.contains_key(peer) {
                self.unsaid.entry(*peer).or_default();
            }
        }
    }

    /// Gives their lease to peers that this maestro holds and does not know.
    fn find_unknown(&mut self, held: Vec<(PeerId, Session)>) {
        for (peer, session) in held {
            let is_being_told = self.in_question.contains(&peer)
                || self.unsaid.contains_key(&peer)
                || self.failed.contains_key(&peer);
            if self.registry.is_visible(&peer) || is_being_told {
                continue;
            }
            self.sessions.insert(peer, session);
            self.registry.restore([peer], Instant::now());
            let short = peer.short();
            tracing::info!(peer_id = %peer, "peer {short} is shown here without a stream; it has its lease to come back");
        }
    }
}

/// Of whom the directory is told next: of all in turn, so that whoever comes and goes all the time keeps nobody waiting.
fn next_in_turn<T>(
    unsaid: &BTreeMap<PeerId, T>,
    told: Option<PeerId>,
    in_question: &HashSet<PeerId>,
) -> Option<PeerId> {
    let behind = unsaid.range((told.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    behind.chain(unsaid).map(|(peer, _)| *peer).find(|peer| !in_question.contains(peer))
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_at_once_keeps_nobody_waiting() {
        let peer = |number| PeerId::from_bytes([number; 32]);
        let unsaid: BTreeMap<PeerId, ()> = (1..=3).map(|number| (peer(number), ())).collect();
        let mut in_question = HashSet::new();
        let mut told = None;
        // None of them is ever done.
        let turns = (0..4).map(|_| {
            told = next_in_turn(&unsaid, told, &in_question);
            told
        });
        assert_eq!(turns.collect::<Vec<_>>(), [1, 2, 3, 1].map(|number| Some(peer(number))));
        in_question.extend([peer(1), peer(3)]);
        assert_eq!(next_in_turn(&unsaid, Some(peer(3)), &in_question), Some(peer(2)));
        in_question.insert(peer(2));
        assert_eq!(next_in_turn(&unsaid, Some(peer(3)), &in_question), None);
    }
}
