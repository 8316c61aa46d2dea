//! Who may call: members of the network, and friends.

use std::time::{SystemTime, UNIX_EPOCH};

use p2p_identity::{Membership, MembershipError, PeerId};
use p2p_proto::MEMBERSHIP_METADATA;
use p2p_service::wire::Caller;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guest {
    /// Who.
    pub(super) id: PeerId,
    /// What they may see.
    pub(super) viewer: Viewer,
    /// Whether they are a member of this peer's network, friend or not.
    pub(super) is_member: bool,
    /// Until when their membership admits them, in seconds since 1970-01-01 UTC; friends need none.
    until_unix_secs: u64,
}

impl Admission {
    /// Admits these friends, and the members of this network.
    pub fn new(friends: Friends, network: Network) -> Self {
        Self { friends, network }
    }

    /// Who calls.
    ///
    /// # Errors
    /// UNAUTHENTICATED in plaintext; PERMISSION_DENIED for strangers, with what they can do about it.
    pub(super) fn admit<T>(&self, request: &Request<T>) -> Result<Guest, Status> {
        let caller = request.extensions().get::<Caller>();
        let id = caller
            .and_then(|caller| caller.peer)
            .ok_or_else(|| Status::unauthenticated("this call needs TLS with a certificate on both sides"))?;
        let membership = self.membership(request, id);
        if self.friends.contains(id) {
            let is_member = membership.is_ok();
            return Ok(Guest { id, viewer: Viewer::Friend, is_member, until_unix_secs: u64::MAX });
        }
        let membership = membership.map_err(|why| {
            tracing::debug!(peer_id = %id, reason = why, "peer {} was not admitted: {why}", id.short());
            Status::permission_denied(format!(
                "{why}; this peer serves members of its network and friends (its user can run: p2pctl friends add \
                 HOST:PORT --id {id})"
            ))
        })?;
        let until_unix_secs = membership.not_after_unix_secs();
        Ok(Guest { id, viewer: Viewer::Network, is_member: true, until_unix_secs })
    }

    /// The membership that a caller shows, or why it counts for nothing.
    fn membership<T>(&self, request: &Request<T>, id: PeerId) -> Result<Membership, String> {
        if !self.network.is_any() {
            return Err("it has joined no network".to_owned());
        }
        let mut why = "you showed no membership".to_owned();
        // Of each network that the caller belongs to one.
        for shown in request.metadata().get_all_bin(MEMBERSHIP_METADATA).iter().take(MAX_SHOWN) {
            let Ok(shown) = shown.to_bytes() else { continue };
            match Membership::from_bytes(&shown).and_then(|membership| self.check(membership, id)) {
                Ok(membership) => return Ok(membership),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn check(&self, membership: Membership, id: PeerId) -> Result<Membership, MembershipError> {
        let network = match self.network.has(membership.network()) {
            true => membership.network(),
            false => self.network.first().unwrap_or(id),
        };
        membership.verify(network, id, now()).map(|()| membership)
    }

    /// Whether a guest who was admitted before still is: for streams, which outlive what admitted their caller.
    pub(super) fn still_admits(&self, guest: Guest) -> bool {
        match guest.viewer {
            Viewer::Network => self.network.is_any() && now() <= guest.until_unix_secs,
            _ => self.friends.contains(guest.id),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
