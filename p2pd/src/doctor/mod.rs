//! What is wrong with this peer, if anything: each thing that it needs is looked at now, from where the daemon stands,
//! and comes out as a line with a verdict and with what to do.
//!
//! **Owns** nothing. **Called by** `api`. It asks the other rooms and the system, and changes nothing; every look has a
//! deadline. What each finding means is decided by pure functions beside the looks.

mod disk;
mod firewall;
mod network;

use std::net::SocketAddr;
use std::path::PathBuf;

use p2p_identity::PeerId;
use p2p_proto::control::{Doctor as Body, UnfitShare};
use p2p_proto::diagnosis::Check;
use p2p_service::state_dir::Room;
use tokio::sync::watch;

use crate::discovery::{Locator, Maestros, now_ms};
use crate::shares::Shares;
use crate::transfer::TransferSettings;

/// Looks at everything. Clones look at the same.
#[derive(Clone)]
pub struct Doctor {
    /// This peer.
    pub identity: PeerId,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its key file.
    pub key_file: PathBuf,
    /// Where its gRPC interface listens.
    pub grpc_addr: SocketAddr,
    /// Its shares.
    pub shares: Shares,
    /// Its maestros.
    pub maestros: Maestros,
    /// Whom it knows.
    pub locator: Locator,
    /// What its transfers follow.
    pub settings: watch::Receiver<TransferSettings>,
}

impl Doctor {
    /// Looks at everything now.
    pub async fn examine(&self) -> Body {
        let (network, (mut checks, unfit), watches) =
            tokio::join!(self.network(), self.disks(), self.shares.watches());
        // In the order in which to read them: this machine's own affairs, then those with others.
        checks.extend(network);
        Body { checks, watches, unfit }
    }

    async fn network(&self) -> Vec<Check> {
        let maestros = self.maestros.status();
        let mut checks = network::maestros(&maestros, now_ms());
        if maestros.is_empty() {
            return checks;
        }
        let (reach, (peers, _)) = tokio::join!(self.maestros.check_reachable(), self.locator.peers());
        let maestro_version = reach.as_ref().ok().map(|reach| reach.version.clone());
        let firewalls = firewall::Firewalls::at(std::path::Path::new("/"));
        checks.push(network::clock(reach.as_ref().ok().map(|reach| reach.clock_ahead_ms)));
        checks.push(network::reachable(reach.as_ref(), self.grpc_addr, firewalls));
        checks.push(network::versions(crate::discovery::Myself::VERSION, maestro_version.as_deref(), &peers));
        checks
    }

    async fn disks(&self) -> (Vec<Check>, Vec<UnfitShare>) {
        let reserve = self.settings.borrow().reserve_bytes;
        let (state_dir, key_file, id) = (self.state_dir.clone(), self.key_file.clone(), self.identity);
        // The daemon itself stands on this disk: where it does not answer, nothing does.
        let looked = tokio::task::spawn_blocking(move || {
            vec![disk::identity(&key_file, id), disk::state(&state_dir, Room::of(&state_dir))]
        });
        let (looked, (share, free), examined) =
            tokio::join!(looked, self.shares.room_for_downloads(), self.shares.examine());
        let mut checks = looked.unwrap_or_else(|error| vec![Check::problem("state", error.to_string())]);
        checks.push(disk::space(&share, free, reserve));
        let mut unfit = Vec::new();
        for (row, tried) in examined {
            if let Err(why) = &tried {
                unfit.push(UnfitShare {
                    name: row.name.clone(),
                    path: row.path.display().to_string(),
                    downloads: row.downloads,
                    code: why.code().to_owned(),
                });
            }
            checks.push(disk::share(&row, tried.as_ref()));
        }
        checks.extend(self.shares.set_aside().iter().map(disk::set_aside));
        (checks, unfit)
    }
}
