//! The presence loop: keeps the directory showing exactly the peers that the registry says are online.
//!
//! Where other maestros use the same directory, it shows them that this one is alive, gives up the peers whose streams have
//! moved to them, and takes over those of a maestro that is gone.
//!
//! Owns the [`Registry`]. A stream checks in with [`Presence::connect`] and keeps the [`Attendance`]; that it is dropped,
//! in whatever way the stream ends, is how the loop learns of the end. Nothing else changes who is visible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::stream::{FuturesUnordered, StreamExt};
use p2p_identity::PeerId;
use p2p_service::health::{Heartbeat, PATIENCE};
use p2p_service::tasks::{TaskResult, Tasks};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::sharing::{BEAT, Shown};
use crate::directory::{Directory, DirectoryError, Session};
use crate::registry::{Ending, Registry, StreamId};

/// Events that may wait for the loop.
const QUEUE_LEN: usize = 256;
/// How long after a failure the directory is told again.
const RETRY: Duration = Duration::from_secs(1);

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
    Connect { peer: PeerId, session: Session, reply: oneshot::Sender<Attendance> },
    WhoIsConnected { peers: Vec<PeerId>, reply: oneshot::Sender<Vec<PeerId>> },
    Count { reply: oneshot::Sender<u64> },
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
        let attendant = Attendant {
            heart: tasks.heartbeat("presence", PATIENCE),
            registry,
            directory: Arc::clone(&directory),
            settings,
            streams: HashMap::new(),
            sessions: HashMap::new(),
            unsaid: BTreeMap::new(),
            is_silent: false,
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

struct Attendant {
    heart: Heartbeat,
    registry: Registry,
    directory: Arc<dyn Directory>,
    settings: watch::Receiver<Arc<Config>>,
    streams: HashMap<PeerId, (StreamId, CancellationToken)>,
    /// The latest session that this maestro knows of the peers that it holds.
    sessions: HashMap<PeerId, Session>,
    /// Peers of whom the directory may not say yet what the registry says, and when they were last heard of, if that
    /// is new.
    unsaid: BTreeMap<PeerId, Option<i64>>,
    /// The last beat did not come through.
    is_silent: bool,
    ends: FuturesUnordered<StreamEnd>,
}

impl Attendant {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>, token: CancellationToken) -> TaskResult {
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.heart.beat();
            let expiry = self.registry.next_expiry();
            let retry = !self.unsaid.is_empty();
            tokio::select! {
                () = token.cancelled() => {
                    self.resign().await;
                    return Ok(());
                }
                _ = beats.tick() => self.keep_company().await,
                Some(event) = queue.recv() => self.handle(event).await,
                Some((peer, stream, ending)) = self.ends.next() => {
                    self.registry.disconnect(peer, stream, ending, Instant::now());
                    if self.streams.get(&peer).is_some_and(|(latest, _)| *latest == stream) {
                        self.streams.remove(&peer);
                        self.unsaid.insert(peer, Some(now_ms()));
                    }
                }
                () = tokio::time::sleep_until(expiry.unwrap_or_else(Instant::now).into()), if expiry.is_some() => {
                    for peer in self.registry.expire(Instant::now()) {
                        let short = peer.short();
                        tracing::info!(peer_id = %peer, "the lease of peer {short} ran out; its files are hidden");
                        // Of one that was connected until this maestro was killed nothing later is known.
                        self.unsaid.entry(peer).or_insert_with(|| Some(now_ms()));
                    }
                }
                () = tokio::time::sleep(RETRY), if retry => {}
                () = self.heart.due() => {}
                Ok(()) = self.settings.changed() => {
                    let lease = self.settings.borrow_and_update().lease();
                    self.registry.set_lease(lease);
                }
            }
            self.tell_directory().await;
        }
    }

    async fn handle(&mut self, event: Event) {
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
                self.unsaid.insert(peer, Some(now_ms()));
                // Before the answer: who is welcomed is visible.
                self.tell_directory().await;
                // A stream that has ended meanwhile drops the attendance, which is its end.
                let _ = reply.send(Attendance { replaced, ended });
            }
            Event::WhoIsConnected { mut peers, reply } => {
                peers.retain(|peer| self.registry.is_connected(peer));
                let _ = reply.send(peers);
            }
            Event::Count { reply } => {
                let _ = reply.send(self.streams.len() as u64);
            }
        }
    }

    async fn tell_directory(&mut self) {
        while let Some((peer, heard_ms)) = self.unsaid.first_key_value().map(|(peer, heard)| (*peer, *heard))
        {
            let visible = self.registry.is_visible(&peer);
            match self.say(peer, visible, heard_ms).await {
                Ok(true) => {
                    if !visible {
                        self.sessions.remove(&peer);
                    }
                }
                Ok(false) => self.give_up(peer),
                Err(error) => {
                    let (short, what) = (peer.short(), if visible { "show" } else { "hide" });
                    tracing::warn!(peer_id = %peer, %error, "cannot {what} peer {short}, trying again: {error}");
                    return;
                }
            }
            self.unsaid.remove(&peer);
        }
    }

    /// Whether it is this maestro's to say.
    async fn say(
        &mut self,
        peer: PeerId,
        visible: bool,
        heard_ms: Option<i64>,
    ) -> Result<bool, DirectoryError> {
        let Some(sharing) = self.directory.sharing() else {
            return self.directory.set_visible(peer, visible, heard_ms).await.map(|()| true);
        };
        let Some(session) = self.sessions.get(&peer) else { return Ok(true) };
        let shown = match (visible, self.registry.is_connected(&peer)) {
            (_, true) => Shown::Connected,
            (true, false) => Shown::Leased,
            (false, false) => Shown::Hidden,
        };
        sharing.show(peer, *session, shown, heard_ms).await
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

    /// What this maestro owes the others of its directory.
    async fn keep_company(&mut self) {
        let directory = Arc::clone(&self.directory);
        let Some(sharing) = directory.sharing() else { return };
        match sharing.beat().await {
            Ok(true) => self.is_silent = false,
            Ok(false) => {
                self.is_silent = false;
                tracing::warn!("other maestros took this one for gone; its peers are shown again");
                for peer in self.streams.keys() {
                    self.unsaid.entry(*peer).or_insert(None);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_silent, true) {
                    tracing::warn!(%error, "cannot show other maestros that this one is alive, trying again: {error}");
                }
                return;
            }
        }
        match sharing.take_over().await {
            Ok(taken) => self.take_over(taken),
            Err(error) => {
                tracing::warn!(%error, "cannot take over the peers of maestros that are gone: {error}");
            }
        }
    }

    fn take_over(&mut self, taken: Vec<(PeerId, Session)>) {
        let peers = taken.len();
        for (peer, session) in taken {
            if self.sessions.get(&peer).is_some_and(|known| known.0 < session.0) {
                self.give_up(peer);
            }
            self.sessions.insert(peer, session);
            self.registry.restore([peer], Instant::now());
        }
        if peers > 0 {
            tracing::info!(
                peers,
                "took over {peers} peers whose maestro is gone; each has its lease to come back"
            );
        }
    }

    async fn resign(&mut self) {
        if let Some(sharing) = self.directory.sharing()
            && let Err(error) = sharing.resign().await
        {
            tracing::debug!(%error, "the other maestros learn by silence that this one has ended: {error}");
        }
    }
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
