//! Channels to other peers, shared by whoever needs one: to each peer one for messages, one for pieces of files, and one for
//! short files. What is said on a channel comes after what was said before it, and on a slow link that is some hundred KiB of
//! data: who has which piece would be known a second too late.

use std::collections::HashMap;
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

/// A client of a peer; each of its calls shows this peer's membership.
pub type PeerRpc = PeerClient<InterceptedService<Channel, ShowMembership>>;

/// The channels to other peers. Clones are handles to the same.
#[derive(Clone)]
pub struct Connections {
    identity: Identity,
    network: Network,
    members: Members,
    open: Arc<Mutex<Open>>,
    tasks: Tasks,
}

type Open = HashMap<(PeerId, Carries), Connection>;

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
        Self { identity, network, members, open: Arc::default(), tasks }
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
        self.channel(peer, Carries::Messages).await.map(|channel| self.client(channel))
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
    pub async fn pieces(&self, peer: &PeerRef) -> Result<Channel, ReachError> {
        self.channel(peer, Carries::Pieces).await
    }

    /// The channel for this peer's short files: the open one, or a new one.
    ///
    /// # Errors
    /// Where no address answers in time, or somebody else answers.
    pub async fn files(&self, peer: &PeerRef) -> Result<Channel, ReachError> {
        self.channel(peer, Carries::Files).await
    }

    async fn channel(&self, peer: &PeerRef, carries: Carries) -> Result<Channel, ReachError> {
        let PeerRef::Known { id, addresses, .. } = peer else {
            return Err(ReachError::Plain(peer.to_string()));
        };
        let known = self.lock().get(&(*id, carries)).filter(|connection| connection.is_open()).cloned();
        let channel = match known {
            Some(connection) => connection.channel,
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
                let channel = connection.channel.clone();
                self.forget_when_closed((*id, carries), &connection);
                self.lock().insert((*id, carries), connection);
                channel
            }
        };
        Ok(channel)
    }

    /// What a channel holds is given back when its connection closes, and not only when its peer is asked again: of all
    /// peers that ever were, most are not.
    fn forget_when_closed(&self, key: (PeerId, Carries), connection: &Connection) {
        let (open, closed, ending) = (Arc::downgrade(&self.open), connection.closed(), self.tasks.token());
        self.tasks.spawn_detached("peer-connection", async move {
            tokio::select! {
                () = closed => {}
                () = ending.cancelled() => return,
            }
            if let Some(open) = open.upgrade() {
                // Another one may be in its place by now.
                lock(&open).retain(|other, connection| *other != key || connection.is_open());
            }
        });
    }

    /// A client over this channel.
    pub fn client(&self, channel: Channel) -> PeerRpc {
        let show = ShowMembership { network: self.network.clone() };
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
}

impl Interceptor for ShowMembership {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        show_membership(&self.network, request.metadata_mut());
        Ok(request)
    }
}
