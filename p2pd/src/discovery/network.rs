//! The network that this peer belongs to, and its proof of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use p2p_identity::{Membership, PeerId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::kept::Kept;

/// What is kept of a joined network.
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
}

/// The network that this peer belongs to: which maestro is pinned, and this peer's membership. Clones are handles to
/// the same.
#[derive(Clone)]
pub struct Network {
    kept: Kept,
    joined: Arc<watch::Sender<Option<Joined>>>,
}

impl Network {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let kept = Kept::at(path);
        let joined = kept.read()?;
        Ok(Self { kept, joined: Arc::new(watch::Sender::new(joined)) })
    }

    /// The network's ID: its maestro's identity. Known once there was contact.
    pub fn id(&self) -> Option<PeerId> {
        self.joined.borrow().as_ref()?.pinned()
    }

    /// This peer's membership.
    pub fn membership(&self) -> Option<Membership> {
        let joined = self.joined.borrow();
        let bytes = data_encoding::HEXLOWER.decode(joined.as_ref()?.membership.as_ref()?.as_bytes()).ok()?;
        Membership::from_bytes(&bytes).ok()
    }

    pub(super) fn current(&self) -> Option<Joined> {
        self.joined.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Joined>> {
        self.joined.subscribe()
    }

    /// Keeps this; whoever watches is woken.
    pub(super) fn set(&self, joined: Option<Joined>) -> io::Result<()> {
        self.kept.write(&joined)?;
        self.joined.send_replace(joined);
        Ok(())
    }

    /// Changes what is kept of the current network, if it is still the one at this address. Whoever watches for
    /// another network is not woken.
    pub(super) fn update(&self, address: &str, change: impl FnOnce(&mut Joined)) -> io::Result<()> {
        let Some(mut joined) = self.current().filter(|joined| joined.address == address) else {
            return Ok(());
        };
        let before = joined.clone();
        change(&mut joined);
        if joined != before {
            self.kept.write_later(&Some(&joined))?;
            self.joined.send_if_modified(|current| {
                *current = Some(joined);
                false
            });
        }
        Ok(())
    }
}
