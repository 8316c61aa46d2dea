//! What this peer remembers of the network's members, so that they find each other while the maestro is down.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_identity::PeerId;
use p2p_proto::v1;
use serde::{Deserialize, Serialize};

use super::{Network, PeerRef};
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

/// The members of the networks that are joined, as the maestros last listed them. Clones are handles to the same.
#[derive(Clone)]
pub struct Members {
    kept: Kept,
    network: Network,
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
    pub fn open(path: PathBuf, network: Network) -> io::Result<Self> {
        let kept = Kept::at(path);
        let members: Vec<Member> = kept.read()?;
        let list = members.into_iter().filter_map(Member::into_remembered).collect();
        Ok(Self { kept, network, list: Arc::new(Mutex::new(list)), written_ms: Arc::default() })
    }

    /// The members, this peer not among them; each once.
    pub fn list(&self) -> Vec<PeerRef> {
        self.remembered().into_iter().map(|member| member.peer).collect()
    }

    /// The same, with who listed them.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let mut known = HashSet::new();
        let list = self.lock();
        let members = list.iter().filter(|member| self.is_one(member));
        members.filter(|member| known.insert(member.peer.id())).cloned().collect()
    }

    /// The member with this identity.
    pub fn get(&self, id: PeerId) -> Option<PeerRef> {
        let list = self.lock();
        let member = list.iter().find(|member| member.peer.id() == Some(id) && self.is_one(member));
        member.map(|member| member.peer.clone())
    }

    /// Forgets those of networks that are not joined any more.
    pub(super) fn forget_left(&self) -> io::Result<()> {
        let mut list = self.lock();
        let before = list.len();
        list.retain(|member| self.is_one(member));
        match list.len() == before {
            true => Ok(()),
            false => self.keep(&list),
        }
    }

    /// Of those that an older release kept nobody knows of which network they are: they count while there is any.
    fn is_one(&self, member: &Remembered) -> bool {
        match &member.told {
            Some(told) => self.network.has(told.network),
            None => self.network.is_any(),
        }
    }

    /// Replaces what is known of one network by what its maestro says; `itself` is left out. What comes after the network
    /// was left is not taken.
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
        // Looked at while nobody else forgets: what comes late is not there again after it was forgotten.
        if !self.network.has(listing.network) {
            return Ok(());
        }
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
        self.keep(&list)
    }

    fn keep(&self, list: &[Remembered]) -> io::Result<()> {
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
    use super::super::network::Joined;
    use super::*;

    fn entry(number: u8) -> v1::PeerEntry {
        let peer = v1::PeerInfo { peer_id: vec![number; 32].into(), ..v1::PeerInfo::default() };
        v1::PeerEntry { peer: Some(peer), ..v1::PeerEntry::default() }
    }

    #[tokio::test]
    async fn what_one_network_lists_leaves_the_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(dir.path().join("network.json")).unwrap();
        let join = |networks: &[u8]| {
            let joined = networks.iter().map(|network| {
                let id = PeerId::from_bytes([*network; 32]).to_string();
                Joined { maestro_id: Some(id), ..Joined::new(format!("maestro-{network}:1")) }
            });
            network.change(|list| *list = joined.collect()).unwrap();
        };
        join(&[100, 101]);
        let members = Members::open(dir.path().join("members.json"), network.clone()).unwrap();
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

        join(&[101]);
        assert_eq!((ids(), members.get(PeerId::from_bytes([4; 32]))), (vec![2, 3], None), "one was left");
        members.forget_left().unwrap();
        members.replace(listing(100, 9), vec![entry(5)], itself).unwrap();
        join(&[100, 101]);
        assert_eq!(ids(), [2, 3], "it was forgotten, and what came late was not taken");
    }
}
