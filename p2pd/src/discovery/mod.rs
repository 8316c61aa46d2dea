//! Who has it: the maestros, friends, and one [`Locator`] in front of them.
//!
//! Owns the connections with the maestros, the list of friends, what is remembered of the network's members, and the
//! channels to other peers. Other rooms ask the [`Locator`] who has something, and [`Connections`] for a client of a
//! peer; only `daemon.rs` starts anything here.

mod answer;
mod ask;
mod connections;
mod draws;
mod friends;
mod join;
mod locator;
mod maestro;
mod maestros;
mod members;
mod merge;
mod network;
mod paging;
mod reach;
mod session;
mod telling;
mod words;

pub use answer::Answerer;
pub(crate) use answer::entry;
pub use connections::{Connections, PeerRpc, ReachError};
pub use friends::{FriendError, Friends};
pub use join::JoinError;
pub use locator::{AskError, Locator};
pub use maestros::Maestros;
pub use members::Members;
pub use merge::FindPeerError;
pub use network::Network;
pub use reach::Reach;
pub use telling::Telling;
pub use words::{Candidate, FoundFile, Located, Page, PageQuery, PeerRef, Query, Source, Teller};

use p2p_identity::PeerId;
use p2p_proto::v1;

/// This peer, as it introduces itself.
#[derive(Debug, Clone)]
pub struct Myself {
    /// Its identity.
    pub id: PeerId,
    /// What its user calls it.
    pub name: String,
    /// `host:port` at which others can reach it, best first.
    pub addresses: Vec<String>,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// Port of its gRPC interface.
    pub grpc_port: u16,
}

impl Myself {
    /// Version of this program.
    pub const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// As a message.
    pub fn to_wire(&self) -> v1::PeerInfo {
        v1::PeerInfo {
            peer_id: self.id.as_bytes().to_vec().into(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            rest_url: self.rest_url.clone(),
            grpc_port: self.grpc_port.into(),
            version: Self::VERSION.to_owned(),
        }
    }

    /// As one of the peers.
    pub fn to_ref(&self) -> PeerRef {
        PeerRef::Known {
            id: self.id,
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            rest_url: self.rest_url.clone(),
            grpc_port: self.grpc_port,
        }
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
