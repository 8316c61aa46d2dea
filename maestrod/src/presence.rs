//! The presence loop: keeps the directory showing exactly the peers that the registry says are online.
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
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
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
#[derive(Debug, Clone)]
pub struct Presence {
    events: mpsc::Sender<Event>,
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
    Connect { peer: PeerId, reply: oneshot::Sender<Attendance> },
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
        registry.restore(directory.visible_peers().await?, Instant::now());
        let (events, queue) = mpsc::channel(QUEUE_LEN);
        let attendant = Attendant {
            heart: tasks.heartbeat("presence", PATIENCE),
            registry,
            directory,
            settings,
            streams: HashMap::new(),
            unsaid: BTreeMap::new(),
            ends: FuturesUnordered::new(),
        };
        tasks.spawn("presence", attendant.run(queue, tasks.token()));
        Ok(Presence { events })
    }

    /// A stream of `peer` begins; an older one is told to end. When this returns the peer is visible.
    ///
    /// # Errors
    ///
    /// [`Stopping`] during the shutdown.
    pub async fn connect(&self, peer: PeerId) -> Result<Attendance, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Connect { peer, reply }).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Those of `peers` that have a stream now.
    ///
    /// # Errors
    ///
    /// [`Stopping`] during the shutdown.
    pub async fn connected(&self, peers: Vec<PeerId>) -> Result<Vec<PeerId>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::WhoIsConnected { peers, reply }).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// How many peers have a stream now.
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
    /// Peers of whom the directory may not say yet what the registry says, and when they were last heard of, if that
    /// is new.
    unsaid: BTreeMap<PeerId, Option<i64>>,
    ends: FuturesUnordered<StreamEnd>,
}

impl Attendant {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>, token: CancellationToken) -> TaskResult {
        loop {
            self.heart.beat();
            let expiry = self.registry.next_expiry();
            let retry = !self.unsaid.is_empty();
            tokio::select! {
                () = token.cancelled() => return Ok(()),
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
            Event::Connect { peer, reply } => {
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
            if let Err(error) = self.directory.set_visible(peer, visible, heard_ms).await {
                let (short, what) = (peer.short(), if visible { "show" } else { "hide" });
                tracing::warn!(peer_id = %peer, %error, "cannot {what} peer {short}, trying again: {error}");
                return;
            }
            self.unsaid.remove(&peer);
        }
    }
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
