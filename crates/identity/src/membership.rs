//! Memberships: short statements, signed by a maestro, that a peer belongs to its network until a certain time.
//!
//! Peers check each other's offline, so that admission works while the maestro is down.
//!
//! Layout, 136 bytes: network ID (32) ‖ peer ID (32) ‖ end, seconds since 1970-01-01 UTC (8, big-endian) ‖ Ed25519
//! signature (64) by the network's key over `p2p membership v1` ‖ 00 ‖ the first 72 bytes.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::{Identity, PeerId};

/// Bytes of a written membership.
pub const MEMBERSHIP_LEN: usize = 136;

const STATEMENT_LEN: usize = 72;
const PURPOSE: &[u8] = b"p2p membership v1\0";

/// "This peer belongs to this network until then", signed. Holding one proves nothing until [`Membership::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    network: PeerId,
    peer: PeerId,
    not_after: u64,
    signature: [u8; 64],
}

/// Why a membership does not admit a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Not 136 bytes.
    #[error("a membership has {MEMBERSHIP_LEN} bytes, not {0}")]
    Length(usize),
    /// It is somebody else's.
    #[error("the membership is of peer {}, shown by {}", .0.short(), .1.short())]
    OtherPeer(PeerId, PeerId),
    /// It is of another network.
    #[error("the membership is of network {}, not of {}", .0.short(), .1.short())]
    OtherNetwork(PeerId, PeerId),
    /// Its time is over.
    #[error("the membership ended {0} s ago; the peer gets a new one when it next reaches its maestro")]
    Ended(u64),
    /// The maestro did not sign it.
    #[error("the membership's signature is false")]
    Forged,
}

impl Membership {
    /// Signs a membership of the maestro's network.
    pub fn issue(maestro: &Identity, peer: PeerId, not_after_unix_secs: u64) -> Self {
        let mut membership =
            Self { network: maestro.id(), peer, not_after: not_after_unix_secs, signature: [0; 64] };
        membership.signature = maestro.sign(&membership.signed_bytes());
        membership
    }

    /// The network's ID: its maestro's public key.
    pub fn network(&self) -> PeerId {
        self.network
    }

    /// The member.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Until when it is valid, in seconds since 1970-01-01 UTC.
    pub fn not_after_unix_secs(&self) -> u64 {
        self.not_after
    }

    /// Whether this admits `peer` to `network` at `now` (seconds since 1970-01-01 UTC).
    pub fn verify(&self, network: PeerId, peer: PeerId, now_unix_secs: u64) -> Result<(), MembershipError> {
        if self.network != network {
            return Err(MembershipError::OtherNetwork(self.network, network));
        }
        if self.peer != peer {
            return Err(MembershipError::OtherPeer(self.peer, peer));
        }
        if now_unix_secs > self.not_after {
            return Err(MembershipError::Ended(now_unix_secs - self.not_after));
        }
        let key = VerifyingKey::from_bytes(network.as_bytes()).map_err(|_| MembershipError::Forged)?;
        key.verify_strict(&self.signed_bytes(), &Signature::from_bytes(&self.signature))
            .map_err(|_| MembershipError::Forged)
    }

    fn statement(&self) -> [u8; STATEMENT_LEN] {
        let mut bytes = [0; STATEMENT_LEN];
        bytes[..32].copy_from_slice(self.network.as_bytes());
        bytes[32..64].copy_from_slice(self.peer.as_bytes());
        bytes[64..].copy_from_slice(&self.not_after.to_be_bytes());
        bytes
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [PURPOSE, &self.statement()].concat()
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.statement().as_slice(), &self.signature].concat()
    }

    /// Reads what [`Membership::to_bytes`] wrote; proves nothing yet.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        let wrong = || MembershipError::Length(bytes.len());
        let bytes: &[u8; MEMBERSHIP_LEN] = bytes.try_into().map_err(|_| wrong())?;
        let (network, rest) = bytes.split_first_chunk::<32>().ok_or_else(wrong)?;
        let (peer, rest) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
        let (not_after, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        Ok(Self {
            network: PeerId::from_bytes(*network),
            peer: PeerId::from_bytes(*peer),
            not_after: u64::from_be_bytes(*not_after),
            signature: rest.try_into().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_whom_it_names_until_its_end() {
        let maestro = Identity::generate().unwrap();
        let (network, peer) = (maestro.id(), Identity::generate().unwrap().id());
        let issued = Membership::issue(&maestro, peer, 1000);
        let read = Membership::from_bytes(&issued.to_bytes()).unwrap();
        assert_eq!(read, issued);
        assert_eq!(read.verify(network, peer, 1000), Ok(()));
        assert_eq!(read.verify(network, peer, 1003), Err(MembershipError::Ended(3)));
        let other = Identity::generate().unwrap().id();
        assert_eq!(read.verify(network, other, 0), Err(MembershipError::OtherPeer(peer, other)));
        assert_eq!(read.verify(other, peer, 0), Err(MembershipError::OtherNetwork(network, other)));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let maestro = Identity::generate().unwrap();
        let peer = Identity::generate().unwrap().id();
        let bytes = Membership::issue(&maestro, peer, 1000).to_bytes();
        for at in 0..MEMBERSHIP_LEN {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Membership::from_bytes(&changed).unwrap();
            assert!(changed.verify(maestro.id(), peer, 500).is_err(), "byte {at}");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for len in [0, 1, MEMBERSHIP_LEN - 1, MEMBERSHIP_LEN + 1] {
            assert_eq!(Membership::from_bytes(&vec![0; len]), Err(MembershipError::Length(len)));
        }
    }
}
