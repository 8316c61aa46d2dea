//! Friends: whom this peer's user trusts by ID, with or without a maestro.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p_identity::{PeerId, WrongPeer};
use p2p_proto::control::{AddFriend, Friend};
use p2p_proto::v1::DescribeRequest;
use p2p_service::wire::{self, ConnectError};

use super::merge::{FindPeerError, pick};
use super::{Connections, Members, PeerRef, now_ms};
use crate::kept::Kept;

/// How long the one who is befriended may take to say its name.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The list of friends. Clones are handles to the same.
#[derive(Clone)]
pub struct Friends {
    kept: Kept,
    connections: Connections,
    members: Members,
    list: Arc<Mutex<Vec<Friend>>>,
}

/// Why the list of friends is not changed.
#[derive(Debug, thiserror::Error)]
pub enum FriendError {
    /// Nobody answers at that address.
    #[error("{0}")]
    Unreachable(ConnectError),
    /// Somebody else answers there.
    #[error("at {address}, {wrong}")]
    WrongPeer {
        /// Where.
        address: String,
        /// Who was expected, and who answers.
        wrong: WrongPeer,
    },
    /// No such peer is known.
    #[error(transparent)]
    Find(#[from] FindPeerError),
    /// No such friend, or more than one.
    #[error(transparent)]
    Pick(FindPeerError),
    /// Not a peer ID.
    #[error("{0:?} is {1}")]
    BadId(String, p2p_identity::ParsePeerIdError),
    /// A peer is not its own friend.
    #[error("{0} is this peer itself")]
    Itself(String),
    /// The list could not be kept.
    #[error("cannot keep the list of friends: {0}")]
    Io(#[from] io::Error),
}

impl Friends {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf, connections: Connections, members: Members) -> io::Result<Self> {
        let kept = Kept::at(path);
        let list = Arc::new(Mutex::new(kept.read()?));
        Ok(Self { kept, connections, members, list })
    }

    /// The friends, in the order in which they were added.
    pub fn list(&self) -> Vec<Friend> {
        self.lock().clone()
    }

    /// Whether this peer is a friend.
    pub fn contains(&self, id: PeerId) -> bool {
        let id = id.to_string();
        self.lock().iter().any(|friend| friend.peer_id == id)
    }

    /// The friends, as peers to ask.
    pub fn peers(&self) -> Vec<PeerRef> {
        self.list().into_iter().filter_map(to_ref).collect()
    }

    /// Adds a friend, or replaces what was known of it. At an address, whoever answers there is pinned, unless the
    /// request says who must.
    ///
    /// # Errors
    /// Where nobody answers there, or somebody else does.
    pub async fn add(&self, request: AddFriend) -> Result<Friend, FriendError> {
        let expected = match &request.peer_id {
            Some(text) => {
                Some(text.parse::<PeerId>().map_err(|error| FriendError::BadId(text.clone(), error))?)
            }
            None => None,
        };
        let (id, told_name, addresses) = match request.peer.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => self.meet(&request.peer, expected).await?,
            _ => {
                let peer = pick(&request.peer, self.members.list())?;
                let id = peer.id().ok_or_else(|| FindPeerError::Unknown(request.peer.clone()))?;
                if let Some(expected) = expected.filter(|expected| *expected != id) {
                    let wrong = WrongPeer { expected, found: id };
                    return Err(FriendError::WrongPeer { address: request.peer, wrong });
                }
                (id, Some(peer.name().to_owned()), peer.addresses())
            }
        };
        if id == self.connections.identity().id() {
            return Err(FriendError::Itself(request.peer));
        }
        let name = request.name.or(told_name).unwrap_or_else(|| id.short());
        let friend = Friend { peer_id: id.to_string(), name, addresses, added_ms: now_ms() };
        self.change(|list| {
            list.retain(|known| known.peer_id != friend.peer_id);
            list.push(friend.clone());
        })?;
        Ok(friend)
    }

    /// Removes the friend of this name or ID (or its beginning).
    pub fn remove(&self, text: &str) -> Result<(), FriendError> {
        let friend = pick(text, self.peers()).map_err(FriendError::Pick)?;
        let id = friend.id().map(|id| id.to_string());
        self.change(|list| list.retain(|known| Some(&known.peer_id) != id.as_ref()))?;
        Ok(())
    }

    async fn meet(
        &self,
        address: &str,
        expected: Option<PeerId>,
    ) -> Result<(PeerId, Option<String>, Vec<String>), FriendError> {
        let addresses = [address.to_owned()];
        let met = wire::connect(self.connections.identity(), &addresses, expected).await;
        let connection = met.map_err(|error| match error {
            ConnectError::WrongPeer { address, wrong } => FriendError::WrongPeer { address, wrong },
            other => FriendError::Unreachable(other),
        })?;
        // Who does not know us yet need not tell its name: the user can give one.
        let mut client = self.connections.client(connection.channel);
        let told = tokio::time::timeout(DESCRIBE_TIMEOUT, client.describe(DescribeRequest {})).await;
        let name = match told {
            Ok(Ok(answer)) => answer.into_inner().peer.map(|peer| peer.name).filter(|name| !name.is_empty()),
            _ => None,
        };
        Ok((connection.peer, name, addresses.to_vec()))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Friend>)) -> io::Result<()> {
        let mut list = self.lock();
        let mut changed = list.clone();
        change(&mut changed);
        self.kept.write(&changed)?;
        *list = changed;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Friend>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_ref(friend: Friend) -> Option<PeerRef> {
    Some(PeerRef::Known {
        id: friend.peer_id.parse().ok()?,
        name: friend.name,
        addresses: friend.addresses,
        rest_url: String::new(),
        grpc_port: 0,
    })
}
