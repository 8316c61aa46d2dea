//! Channels to other peers, shared by whoever needs one: to each peer one for messages, one for pieces of files, and one for
//! short files. What is said on a channel comes after what was said before it, and on a slow link that is some hundred KiB of
//! data: who has which piece would be known a second too late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p_identity::{Identity, PeerId};
use p2p_proto::v1::peer_client::PeerClient;
use p2p_proto::{MAX_MESSAGE_LEN, MEMBERSHIP_METADATA};
use p2p_service::tasks::Tasks;
use p2p_service::wire::{self, ConnectError, Connection};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Members, Network, PeerRef};

/// How long a connection may take, over all addresses of a peer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// A channel that nobody has used for so long is closed; it takes up to twice as long until that is seen.
const IDLE: Duration = Duration::from_secs(600);

/// A client of a peer, whose channel is in use for as long as this or a clone of it is there; each of its calls shows this peer's membership.
pub type PeerRpc = PeerClient<InterceptedService<Channel, ShowMembership>>;

/// The channels to other peers. Clones are handles to the same.
#[derive(Clone)]
pub struct Connections {
    identity: Identity,
    network: Network,
    members: Members,
    open: Arc<Mutex<Open>>,
    tasks: Tasks,
    idle: Duration,
}

type Open = HashMap<(PeerId, Carries), Kept>;

/// A connection that is kept for whoever needs it next.
struct Kept {
    connection: Connection,
    uses: Arc<AtomicU64>,
}

/// A channel in use: it is not closed as idle for as long as this is there.
pub struct Lent {
    channel: Channel,
    in_use: InUse,
}

/// One use of a channel, which is counted when it is over.
#[derive(Clone)]
struct InUse(Arc<AtomicU64>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Kept {
    fn lend(&self) -> Lent {
        Lent { channel: self.connection.channel.clone(), in_use: InUse(Arc::clone(&self.uses)) }
    }
}

impl Lent {
    /// The channel, for tonic's clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Carries {
    Messages,
    Pieces,
    /// Whole files, many after each other. They are taken in batches, so that more of them must be on their way.
    Files,
}

/// Why a peer cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// No connection to it.
    #[error("{peer} cannot be reached: {source}")]
    Connect {
        /// The peer.
        peer: String,
        /// Why.
        source: ConnectError,
    },
    /// No connection in time.
    #[error("{0} does not answer")]
    Silent(String),
    /// It is a plain peer of the first system, which does not speak the peer protocol.
    #[error("{0} is a plain peer of the first system: it only gives whole files")]
    Plain(String),
}

impl Connections {
    /// None yet.
    pub fn new(identity: Identity, network: Network, members: Members, tasks: Tasks) -> Self {
        Self { identity, network, members, open: Arc::default(), tasks, idle: IDLE }
    }

    /// This peer's identity, for connections of another kind.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A client of this peer for calls that carry no file data: over the open channel, or a new one.
    ///
    /// # Errors
    /// Where no address answers in time, or somebody else answers.
    pub async fn peer(&self, peer: &PeerRef) -> Result<PeerRpc, ReachError> {
        let Lent { channel, in_use } = self.channel(peer, Carries::Messages).await?;
        Ok(self.showing(channel, Some(in_use)))
    }

    /// The metadata with which calls of the peer service show this peer's membership.
    pub fn metadata(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        show_membership(&self.network, &mut metadata);
        metadata
    }

    /// The channel for pieces of this peer's files: the open one, or a new one.
    ///
    /// # Errors
    /// Where no address answers in time, or somebody else answers.
    pub async fn pieces(&self, peer: &PeerRef) -> Result<Lent, ReachError> {
        self.channel(peer, Carries::Pieces).await
    }

    /// The channel for this peer's short files: the open one, or a new one.
    ///
    /// # Errors
    /// Where no address answers in time, or somebody else answers.
    pub async fn files(&self, peer: &PeerRef) -> Result<Lent, ReachError> {
        self.channel(peer, Carries::Files).await
    }

    async fn channel(&self, peer: &PeerRef, carries: Carries) -> Result<Lent, ReachError> {
        let PeerRef::Known { id, addresses, .. } = peer else {
            return Err(ReachError::Plain(peer.to_string()));
        };
        let open = |kept: &&Kept| kept.connection.is_open();
        let known = self.lock().get(&(*id, carries)).filter(open).map(Kept::lend);
        let lent = match known {
            Some(lent) => lent,
            None => {
                let connect = async {
                    match carries {
                        Carries::Pieces => wire::connect_lean(&self.identity, addresses, Some(*id)).await,
                        _ => wire::connect(&self.identity, addresses, Some(*id)).await,
                    }
                };
                let connection = tokio::time::timeout(CONNECT_TIMEOUT, connect)
                    .await
                    .map_err(|_| ReachError::Silent(peer.to_string()))?
                    .map_err(|source| ReachError::Connect { peer: peer.to_string(), source })?;
                if carries != Carries::Messages {
                    self.members.dealt_with(peer);
                }
                let kept = Kept { connection, uses: Arc::default() };
                let lent = kept.lend();
                self.forget_when_over((*id, carries), &kept);
                self.lock().insert((*id, carries), kept);
                lent
            }
        };
        Ok(lent)
    }

    /// What a channel holds is given back when its connection closes, or nobody has used it for long, and not only when its
    /// peer is asked again: of all peers that ever were, most are not.
    fn forget_when_over(&self, key: (PeerId, Carries), kept: &Kept) {
        let (open, closed, ending) =
            (Arc::downgrade(&self.open), kept.connection.closed(), self.tasks.token());
        let (uses, idle) = (Arc::downgrade(&kept.uses), self.idle);
        self.tasks.spawn_detached("peer-connection", async move {
            let mut closed = std::pin::pin!(closed);
            let mut seen = None;
            loop {
                let is_closed = tokio::select! {
                    () = closed.as_mut() => true,
                    () = ending.cancelled() => return,
                    () = tokio::time::sleep(idle) => false,
                };
                let Some(open) = open.upgrade() else { return };
                let mut open = lock(&open);
                if is_closed {
                    // Another one may be in its place by now.
                    open.retain(|other, kept| *other != key || kept.connection.is_open());
                    return;
                }
                // It was forgotten already, and others use it still.
                let Some(uses) = uses.upgrade().filter(|uses| is_kept(&open, key, uses)) else { continue };
                let so_far = uses.load(Ordering::Relaxed);
                // Nobody has it but the map and this look, nor had it since the last one.
                if Arc::strong_count(&uses) == 2 && seen.replace(so_far) == Some(so_far) {
                    open.remove(&key);
                }
            }
        });
    }

    /// A client over this channel.
    pub fn client(&self, channel: Channel) -> PeerRpc {
        self.showing(channel, None)
    }

    fn showing(&self, channel: Channel, in_use: Option<InUse>) -> PeerRpc {
        let show = ShowMembership { network: self.network.clone(), _in_use: in_use };
        PeerClient::with_interceptor(channel, show).max_decoding_message_size(MAX_MESSAGE_LEN)
    }

    /// Drops the channels to a peer: one broke, or the next call shall try its addresses anew.
    pub fn forget(&self, peer: PeerId) {
        self.lock().retain(|(id, _), _| *id != peer);
    }

    /// Drops the channels where this answer means that a connection broke.
    pub fn note(&self, peer: PeerId, status: &Status) {
        if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled) {
            self.forget(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is the connection that is kept, and not one that took its place.
fn is_kept(open: &Open, key: (PeerId, Carries), uses: &Arc<AtomicU64>) -> bool {
    open.get(&key).is_some_and(|kept| Arc::ptr_eq(&kept.uses, uses))
}

fn show_membership(network: &Network, metadata: &mut MetadataMap) {
    // Nobody knows which network the other one is of. One of an older release looks at the first.
    for membership in network.memberships() {
        metadata.append_bin(MEMBERSHIP_METADATA, MetadataValue::from_bytes(&membership.to_bytes()));
    }
}

/// Adds this peer's memberships to each call.
#[derive(Clone)]
pub struct ShowMembership {
    network: Network,
    _in_use: Option<InUse>,
}

impl Interceptor for ShowMembership {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        show_membership(&self.network, request.metadata_mut());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use p2p_service::wire::{Accept, Plaintext};
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};
    use tonic::Code;
    use tonic::service::Routes;

    use super::*;

    const SHORTLY: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    /// A peer without any service.
    async fn peer(tasks: &Tasks) -> PeerRef {
        let identity = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![listener.local_addr().unwrap().to_string()];
        let incoming = wire::incoming(listener, &identity, Accept::bulk(Plaintext::Off), tasks).unwrap();
        let serving = wire::server().add_routes(Routes::default()).serve_with_incoming(incoming);
        tasks.spawn_detached("peer", async move { serving.await.unwrap() });
        let (name, rest_url) = ("peer".to_owned(), String::new());
        PeerRef::Known { id: identity.id(), name, addresses, rest_url, grpc_port: 0 }
    }

    #[tokio::test]
    async fn a_channel_that_nobody_uses_is_closed_and_no_other() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let network = Network::open(dir.path().join("network.json")).unwrap();
        let members = Members::open(dir.path().join("members.json"), network.clone()).unwrap();
        let connections = Connections::new(Identity::generate().unwrap(), network, members, tasks.clone());
        let connections = Connections { idle: SHORTLY, ..connections };
        let peer = peer(&tasks).await;
        let id = peer.id().unwrap();
        let closed = |carries| connections.lock()[&(id, carries)].connection.closed();

        let lent = connections.pieces(&peer).await.unwrap();
        let mut client = connections.peer(&peer).await.unwrap();
        let (pieces, mut messages) = (closed(Carries::Pieces), std::pin::pin!(closed(Carries::Messages)));
        drop(lent);
        timeout(LONG, pieces).await.expect("it is kept open for nobody");
        // It is still in use, works, and is there for others too.
        sleep(3 * SHORTLY).await;
        assert!(connections.lock().contains_key(&(id, Carries::Messages)));
        let answer = client.describe(p2p_proto::v1::DescribeRequest::default()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
        assert!(timeout(SHORTLY, messages.as_mut()).await.is_err(), "it is in use");
        drop(client);
        timeout(LONG, messages).await.expect("it is kept open for nobody");
        assert!(connections.lock().is_empty());
        // Whoever needs it again has another one.
        let mut client = connections.peer(&peer).await.unwrap();
        let answer = client.describe(p2p_proto::v1::DescribeRequest::default()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
        tasks.shutdown(SHORTLY).await;
    }
}
