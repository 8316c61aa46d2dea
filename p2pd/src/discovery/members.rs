//! What this peer remembers of the network's members, so that they find each other while the maestro is down.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_identity::PeerId;
use p2p_proto::v1;
use serde::{Deserialize, Serialize};

use super::PeerRef;
use crate::kept::Kept;

/// Members of one network that are remembered, at most.
pub(super) const MEMBERS: usize = 1000;
/// How often, in milliseconds, a list that stays the same is written: how much older it may seem after a restart.
const WRITE_EVERY_MS: i64 = 600_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    peer_id: String,
    name: String,
    addresses: Vec<String>,
    rest_url: String,
    grpc_port: u16,
    #[serde(default)]
    told: Option<Listing>,
}

/// Who listed a member, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The network whose member it is.
    #[serde(with = "super::words::id_text")]
    pub(super) network: PeerId,
    /// The maestro's name.
    pub(super) told_by: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) told_ms: i64,
}

/// The members as the maestros last listed them. Clones are handles to the same.
#[derive(Clone)]
pub struct Members {
    kept: Kept,
    list: Arc<Mutex<Vec<Remembered>>>,
    /// When it was last written, in milliseconds since 1970-01-01 UTC; 0 before the first time.
    written_ms: Arc<AtomicI64>,
}

/// A member, and who listed it; nobody knows of those that an older release kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) peer: PeerRef,
    pub(super) told: Option<Listing>,
}

impl Members {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let kept = Kept::at(path);
        let members: Vec<Member> = kept.read()?;
        let list = members.into_iter().filter_map(Member::into_remembered).collect();
        Ok(Self { kept, list: Arc::new(Mutex::new(list)), written_ms: Arc::default() })
    }

    /// The members, this peer not among them; each once.
    pub fn list(&self) -> Vec<PeerRef> {
        self.remembered().into_iter().map(|member| member.peer).collect()
    }

    /// The same, with who listed them.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let mut known = HashSet::new();
        self.lock().iter().filter(|member| known.insert(member.peer.id())).cloned().collect()
    }

    /// The member with this identity.
    pub fn get(&self, id: PeerId) -> Option<PeerRef> {
        self.lock().iter().find(|member| member.peer.id() == Some(id)).map(|member| member.peer.clone())
    }

    /// Replaces what is known of one network by what its maestro says; `itself` is left out.
    pub(super) fn replace(
        &self,
        listing: Listing,
        listed: Vec<v1::PeerEntry>,
        itself: PeerId,
    ) -> io::Result<()> {
        let fresh: Vec<Remembered> = listed
            .into_iter()
            .filter_map(|entry| PeerRef::from_wire(entry.peer?))
            .filter(|peer| peer.id().is_some_and(|id| id != itself))
            .take(MEMBERS)
            .map(|peer| Remembered { peer, told: Some(listing.clone()) })
            .collect();
        let mut list = self.lock();
        let is_of_it = |told: &Listing| told.network == listing.network;
        let (old, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *list)
            .into_iter()
            .partition(|member| member.told.as_ref().is_none_or(is_of_it));
        let is_same = old.iter().map(|member| &member.peer).eq(fresh.iter().map(|member| &member.peer));
        *list = rest.into_iter().chain(fresh).collect();
        let written_ms = self.written_ms.load(Ordering::Relaxed);
        if is_same && listing.told_ms - written_ms < WRITE_EVERY_MS {
            return Ok(());
        }
        self.written_ms.store(listing.told_ms, Ordering::Relaxed);
        self.kept.write_later(&list.iter().filter_map(Member::of).collect::<Vec<_>>())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Remembered>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn of(member: &Remembered) -> Option<Self> {
        match member.peer.clone() {
            PeerRef::Known { id, name, addresses, rest_url, grpc_port } => Some(Self {
                peer_id: id.to_string(),
                name,
                addresses,
                rest_url,
                grpc_port,
                told: member.told.clone(),
            }),
            PeerRef::Plain { .. } => None,
        }
    }

    fn into_remembered(self) -> Option<Remembered> {
        let Self { peer_id, name, addresses, rest_url, grpc_port, told } = self;
        let peer = PeerRef::Known { id: peer_id.parse().ok()?, name, addresses, rest_url, grpc_port };
        Some(Remembered { peer, told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8) -> v1::PeerEntry {
        let peer = v1::PeerInfo { peer_id: vec![number; 32].into(), ..v1::PeerInfo::default() };
        v1::PeerEntry { peer: Some(peer), ..v1::PeerEntry::default() }
    }

    #[tokio::test]
    async fn what_one_network_lists_leaves_the_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let members = Members::open(dir.path().join("members.json")).unwrap();
        let listing = |network: u8, told_ms: i64| Listing {
            network: PeerId::from_bytes([network; 32]),
            told_by: format!("maestro {network}"),
            told_ms,
        };
        let itself = PeerId::from_bytes([9; 32]);
        let ids = || {
            let ids = members.list().into_iter().filter_map(|peer| peer.id());
            ids.map(|id| id.as_bytes()[0]).collect::<Vec<_>>()
        };
        members.replace(listing(100, 0), vec![entry(1), entry(2), entry(9)], itself).unwrap();
        members.replace(listing(101, 0), vec![entry(2), entry(3)], itself).unwrap();
        assert_eq!(ids(), [1, 2, 3], "each once, and this peer not");
        members.replace(listing(100, 1), vec![entry(4)], itself).unwrap();
        assert_eq!(ids(), [2, 3, 4]);
        members.replace(listing(100, 5), vec![entry(4)], itself).unwrap();
        let told = members.remembered().pop().unwrap().told.unwrap();
        assert_eq!((told.told_by.as_str(), told.told_ms), ("maestro 100", 5));
    }
}
