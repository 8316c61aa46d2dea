//! Who may call: members of the network, and friends.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Extensions;
use p2p_identity::{Membership, MembershipError, PeerId};
use p2p_proto::MEMBERSHIP_METADATA;
use p2p_service::wire::Caller;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::catalog::Viewer;
use crate::discovery::{Friends, Network};

/// Memberships of one caller that are looked at.
const MAX_SHOWN: usize = 16;

/// Says who asks, and what they may see. Clones are handles to the same.
#[derive(Clone)]
pub struct Admission {
    friends: Friends,
    network: Network,
}

/// Someone who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    /// Who.
    pub(super) id: PeerId,
    /// What they may see.
    pub(super) viewer: Viewer,
    /// This peer's networks that they are a member of, friend or not, and until when, in seconds since 1970-01-01 UTC.
    pub(super) memberships: Arc<[(PeerId, u64)]>,
}

impl Guest {
    /// The guest that [`Gate`](super::Gate) let in with this call.
    ///
    /// # Errors
    /// Where it did not stand before the service.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let guest = request.extensions().get::<Self>().cloned();
        guest.ok_or_else(|| Status::internal("the call was not admitted where it should be"))
    }

    /// Whether they are a member of a network of this peer at this time, in seconds since 1970-01-01 UTC.
    fn is_member_of(&self, network: &Network, now_unix_secs: u64) -> bool {
        self.memberships.iter().any(|(id, until)| now_unix_secs <= *until && network.has(*id))
    }
}

impl Admission {
    /// Admits these friends, and the members of this network.
    pub fn new(friends: Friends, network: Network) -> Self {
        Self { friends, network }
    }

    /// Who calls, of whom this is the connection and what they show with the call.
    ///
    /// # Errors
    /// UNAUTHENTICATED in plaintext; PERMISSION_DENIED for strangers, with what they can do about it.
    pub(super) fn admit(&self, connection: &Extensions, shown: &MetadataMap) -> Result<Guest, Status> {
        let caller = connection.get::<Caller>();
        let id = caller
            .and_then(|caller| caller.peer)
            .ok_or_else(|| Status::unauthenticated("this call needs TLS with a certificate on both sides"))?;
        let memberships = self.memberships(shown, id);
        if self.friends.contains(id) {
            let memberships = memberships.unwrap_or_default().into();
            return Ok(Guest { id, viewer: Viewer::Friend, memberships });
        }
        let memberships = memberships.map_err(|why| {
            tracing::debug!(peer_id = %id, reason = why, "peer {} was not admitted: {why}", id.short());
            Status::permission_denied(format!(
                "{why}; this peer serves members of its network and friends (its user can run: p2pctl friends add \
                 HOST:PORT --id {id})"
            ))
        })?;
        Ok(Guest { id, viewer: Viewer::Network, memberships: memberships.into() })
    }

    /// The networks that a caller proves to be a member of, and until when; or why nothing that it shows counts.
    fn memberships(&self, metadata: &MetadataMap, id: PeerId) -> Result<Vec<(PeerId, u64)>, String> {
        if !self.network.is_any() {
            return Err("it has joined no network".to_owned());
        }
        let (mut memberships, mut why) = (Vec::new(), "you showed no membership".to_owned());
        // Of each network that the caller belongs to one.
        for shown in metadata.get_all_bin(MEMBERSHIP_METADATA).iter().take(MAX_SHOWN) {
            let Ok(shown) = shown.to_bytes() else { continue };
            match Membership::from_bytes(&shown).and_then(|membership| self.check(membership, id)) {
                Ok(membership) => memberships.push((membership.network(), membership.not_after_unix_secs())),
                Err(error) => why = error.to_string(),
            }
        }
        if memberships.is_empty() { Err(why) } else { Ok(memberships) }
    }

    fn check(&self, membership: Membership, id: PeerId) -> Result<Membership, MembershipError> {
        let network = match self.network.has(membership.network()) {
            true => membership.network(),
            false => self.network.first().unwrap_or(id),
        };
        membership.verify(network, id, now()).map(|()| membership)
    }

    /// Whether a guest who was admitted before still is: for streams, which outlive what admitted their caller.
    pub(super) fn still_admits(&self, guest: &Guest) -> bool {
        match guest.viewer {
            Viewer::Network => guest.is_member_of(&self.network, now()),
            _ => self.friends.contains(guest.id),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This peer, having joined the networks of these maestros.
    fn joined(maestros: &[PeerId]) -> (tempfile::TempDir, Network) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.json");
        let entries = maestros.iter().map(|id| format!(r#"{{"address": "a:1", "maestro_id": "{id}"}}"#));
        std::fs::write(&path, format!("[{}]", entries.collect::<Vec<_>>().join(","))).unwrap();
        (dir, Network::open(path).unwrap())
    }

    #[test]
    fn who_was_admitted_by_a_network_that_was_left_is_a_stranger() {
        let [one, other, third] = [1, 2, 3].map(|number| PeerId::from_bytes([number; 32]));
        let memberships = Arc::from([(one, 10), (other, 20)]);
        let guest = Guest { id: third, viewer: Viewer::Network, memberships };
        let (_dir, both) = joined(&[one, other]);
        assert!(guest.is_member_of(&both, 20) && !guest.is_member_of(&both, 21));
        let (_dir, one_left) = joined(&[other, third]);
        assert!(guest.is_member_of(&one_left, 5));
        let (_dir, both_left) = joined(&[third]);
        assert!(!guest.is_member_of(&both_left, 5));
    }
}
