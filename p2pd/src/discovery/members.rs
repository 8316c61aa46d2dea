//! What this peer remembers of the network's members, so that they find each other while the maestro is down.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use p2p_identity::PeerId;
use p2p_proto::v1;
use serde::{Deserialize, Serialize};

use super::PeerRef;
use crate::kept::Kept;

/// Members that are remembered, at most.
pub(super) const MEMBERS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    peer_id: String,
    name: String,
    addresses: Vec<String>,
    rest_url: String,
    grpc_port: u16,
}

/// The members as the maestro last listed them. Clones are handles to the same.
#[derive(Clone)]
pub struct Members {
    kept: Kept,
    list: Arc<Mutex<Vec<PeerRef>>>,
}

impl Members {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let kept = Kept::at(path);
        let members: Vec<Member> = kept.read()?;
        let list = members.into_iter().filter_map(Member::into_ref).collect();
        Ok(Self { kept, list: Arc::new(Mutex::new(list)) })
    }

    /// The members, this peer not among them.
    pub fn list(&self) -> Vec<PeerRef> {
        self.lock().clone()
    }

    /// The member with this identity.
    pub fn get(&self, id: PeerId) -> Option<PeerRef> {
        self.lock().iter().find(|member| member.id() == Some(id)).cloned()
    }

    /// Replaces the list by what the maestro says; `itself` is left out.
    pub(super) fn replace(&self, listed: Vec<v1::PeerEntry>, itself: PeerId) -> io::Result<()> {
        let fresh: Vec<PeerRef> = listed
            .into_iter()
            .filter_map(|entry| PeerRef::from_wire(entry.peer?))
            .filter(|peer| peer.id().is_some_and(|id| id != itself))
            .take(MEMBERS)
            .collect();
        if fresh == *self.lock() {
            return Ok(());
        }
        self.kept.write_later(&fresh.iter().filter_map(Member::of).collect::<Vec<_>>())?;
        *self.lock() = fresh;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PeerRef>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn of(peer: &PeerRef) -> Option<Self> {
        match peer.clone() {
            PeerRef::Known { id, name, addresses, rest_url, grpc_port } => {
                Some(Self { peer_id: id.to_string(), name, addresses, rest_url, grpc_port })
            }
            PeerRef::Plain { .. } => None,
        }
    }

    fn into_ref(self) -> Option<PeerRef> {
        let Self { peer_id, name, addresses, rest_url, grpc_port } = self;
        Some(PeerRef::Known { id: peer_id.parse().ok()?, name, addresses, rest_url, grpc_port })
    }
}
