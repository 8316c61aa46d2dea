//! The networks that this peer belongs to, and its proofs of it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p_identity::{Membership, PeerId};
use serde::{Deserialize, Serialize};

use crate::kept::Kept;

/// What is kept of a maestro that was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Joined {
    /// `host:port` of the maestro.
    pub address: String,
    /// Its identity, pinned at first contact.
    pub maestro_id: Option<String>,
    /// What it calls itself.
    #[serde(default)]
    pub name: Option<String>,
    /// Presented until the maestro has admitted this peer.
    #[serde(default)]
    pub token: Option<String>,
    /// This peer's membership, in hex.
    #[serde(default)]
    pub membership: Option<String>,
}

impl Joined {
    pub(super) fn new(address: String) -> Self {
        Self { address, maestro_id: None, name: None, token: None, membership: None }
    }

    pub(super) fn pinned(&self) -> Option<PeerId> {
        self.maestro_id.as_ref()?.parse().ok()
    }

    fn membership(&self) -> Option<Membership> {
        let bytes = data_encoding::HEXLOWER.decode(self.membership.as_ref()?.as_bytes()).ok()?;
        Membership::from_bytes(&bytes).ok()
    }
}

/// What this peer has joined: which maestros are pinned at which addresses, and its memberships. Maestros with one
/// identity are one network. Clones are handles to the same.
#[derive(Clone)]
pub struct Network {
    kept: Kept,
    joined: Arc<Mutex<Vec<Joined>>>,
}

/// What the file holds: a list, or, written by a release that knew one maestro only, one or none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Contents {
    Several(Vec<Joined>),
    One(Option<Joined>),
}

impl Default for Contents {
    fn default() -> Self {
        Self::One(None)
    }
}

impl Network {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let kept = Kept::at(path);
        let joined = match kept.read()? {
            Contents::Several(joined) => joined,
            Contents::One(joined) => joined.into_iter().collect(),
        };
        Ok(Self { kept, joined: Arc::new(Mutex::new(joined)) })
    }

    /// Whether this is the ID of a network that this peer belongs to: a maestro's identity. Known once there was contact.
    pub fn has(&self, network: PeerId) -> bool {
        self.lock().iter().any(|joined| joined.pinned() == Some(network))
    }

    /// Whether this peer belongs to any network.
    pub fn is_any(&self) -> bool {
        self.first().is_some()
    }

    /// The ID of the network that was joined first.
    pub fn first(&self) -> Option<PeerId> {
        self.lock().iter().find_map(Joined::pinned)
    }

    /// This peer's memberships: of each network the one that lasts longest, in the order in which they were joined.
    pub fn memberships(&self) -> Vec<Membership> {
        let mut memberships: Vec<Membership> = Vec::new();
        for membership in self.lock().iter().filter_map(Joined::membership) {
            match memberships.iter_mut().find(|known| known.network() == membership.network()) {
                Some(known) if known.not_after_unix_secs() < membership.not_after_unix_secs() => {
                    *known = membership;
                }
                Some(_) => {}
                None => memberships.push(membership),
            }
        }
        memberships
    }

    /// Until when the membership of this network is valid, in milliseconds since 1970-01-01 UTC.
    pub(super) fn member_until_ms(&self, network: PeerId) -> Option<i64> {
        let membership = self.memberships().into_iter().find(|membership| membership.network() == network)?;
        let until = i64::try_from(membership.not_after_unix_secs()).unwrap_or(i64::MAX);
        Some(until.saturating_mul(1000))
    }

    pub(super) fn list(&self) -> Vec<Joined> {
        self.lock().clone()
    }

    pub(super) fn at(&self, address: &str) -> Option<Joined> {
        self.lock().iter().find(|joined| joined.address == address).cloned()
    }

    /// Changes what was joined, as it is now. What it was before.
    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<Joined>)) -> io::Result<Vec<Joined>> {
        let mut all = self.lock();
        let mut changed = all.clone();
        change(&mut changed);
        if changed != *all {
            self.kept.write(&changed)?;
        }
        Ok(std::mem::replace(&mut *all, changed))
    }

    /// Changes what is kept of the maestro at this address, if it is still one of those that were joined.
    pub(super) fn update(&self, address: &str, change: impl FnOnce(&mut Joined)) -> io::Result<()> {
        let mut all = self.lock();
        let Some(joined) = all.iter_mut().find(|joined| joined.address == address) else { return Ok(()) };
        let before = joined.clone();
        change(joined);
        match *joined == before {
            true => Ok(()),
            false => self.kept.write_later(&*all),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Joined>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use p2p_identity::Identity;

    use super::*;

    fn joined(address: &str, maestro: &Identity, until: u64) -> Joined {
        let peer = PeerId::from_bytes([7; 32]);
        let membership = Membership::issue(maestro, peer, until);
        Joined {
            maestro_id: Some(maestro.id().to_string()),
            membership: Some(data_encoding::HEXLOWER.encode(&membership.to_bytes())),
            ..Joined::new(address.to_owned())
        }
    }

    #[test]
    fn each_network_counts_once_however_many_maestros_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(dir.path().join("network.json")).unwrap();
        assert!(!network.is_any() && network.memberships().is_empty());
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let list = vec![
            joined("a:1", &one, 1),
            joined("b:1", &other, 5),
            joined("c:1", &one, 3),
            Joined::new("d:1".to_owned()),
        ];
        network.change(|known| known.clone_from(&list)).unwrap();
        let told: Vec<_> =
            network.memberships().iter().map(|it| (it.network(), it.not_after_unix_secs())).collect();
        assert_eq!(told, [(one.id(), 3), (other.id(), 5)]);
        assert!(network.has(other.id()) && !network.has(PeerId::from_bytes([9; 32])));
        assert_eq!(Network::open(dir.path().join("network.json")).unwrap().list(), list);
    }

    #[test]
    fn what_an_older_release_kept_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("network.json");
        std::fs::write(&path, "null").unwrap();
        assert_eq!(Network::open(path.clone()).unwrap().list(), []);
        std::fs::write(&path, r#"{"address": "a:1", "maestro_id": null, "name": "aula"}"#).unwrap();
        let expected = Joined { name: Some("aula".to_owned()), ..Joined::new("a:1".to_owned()) };
        assert_eq!(Network::open(path).unwrap().list(), [expected]);
    }
}
