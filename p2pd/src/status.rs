//! The line that `systemctl status p2pd` shows: what the daemon does now.

use std::time::{Duration, Instant};

use p2p_proto::control::{MaestroState, MaestroStatus};
use p2p_service::status::{counted, size};

use crate::catalog::Catalog;
use crate::discovery::Maestros;
use crate::serve::Served;
use crate::shares::Shares;
use crate::transfer::Transfers;

/// Makes the line.
pub struct Summary {
    catalog: Catalog,
    shares: Shares,
    transfers: Transfers,
    maestros: Maestros,
    served: Served,
    /// When the line was last made, and what had been served then.
    last: (Instant, u64),
}

/// What the line says.
#[derive(Debug, Clone, Default, PartialEq)]
struct Facts {
    transfers: u64,
    down: u64,
    up: u64,
    files: Option<u64>,
    pending: u64,
    maestros: Vec<MaestroStatus>,
}

impl Summary {
    /// Of these.
    pub fn new(
        catalog: Catalog,
        shares: Shares,
        transfers: Transfers,
        maestros: Maestros,
        served: Served,
    ) -> Self {
        let last = (Instant::now(), 0);
        Self { catalog, shares, transfers, maestros, served, last }
    }

    /// The line as it is now; rates are those since it was last made.
    pub async fn line(&mut self) -> String {
        let (now, served) = (Instant::now(), self.served.total());
        let (then, before) = std::mem::replace(&mut self.last, (now, served));
        let (transfers, down) = self.transfers.under_way();
        let facts = Facts {
            transfers,
            down,
            up: rate(served - before, now - then),
            // Whoever asks the catalog for more than a number says in the log why it does not answer.
            files: self.catalog.totals().await.ok().map(|totals| totals.files),
            pending: self.shares.rows().iter().map(|share| share.pending).sum(),
            maestros: self.maestros.status(),
        };
        facts.line()
    }
}

impl Facts {
    fn line(&self) -> String {
        let mut line = counted(self.transfers, "transfer", "transfers");
        for (rate, way) in [(self.down, "down"), (self.up, "up")] {
            if rate > 0 {
                line.push_str(&format!(", {}/s {way}", size(rate)));
            }
        }
        if let Some(files) = self.files {
            line.push_str(&format!("; {} shared", counted(files, "file", "files")));
        }
        if self.pending > 0 {
            line.push_str(&format!(", {} to hash", counted(self.pending, "file", "files")));
        }
        if self.maestros.is_empty() {
            line.push_str("; no network joined");
        }
        for maestro in &self.maestros {
            let how = match maestro.state {
                MaestroState::Connecting => "being connected",
                MaestroState::Syncing => "being told of changes",
                MaestroState::InSync => "in sync",
                MaestroState::Reserve => "in reserve",
                MaestroState::Unreachable => "unreachable",
                MaestroState::Refused => "does not admit this peer",
            };
            line.push_str(&format!("; maestro {} {how}", maestro.address));
        }
        line
    }
}

fn rate(bytes: u64, over: Duration) -> u64 {
    (bytes as f64 / over.as_secs_f64().max(1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_matters_and_no_more() {
        let idle = Facts { files: Some(1204), ..Facts::default() };
        assert_eq!(idle.line(), "no transfers; 1,204 files shared; no network joined");
        let maestro = MaestroStatus {
            address: "lab:9010".to_owned(),
            maestro_id: None,
            name: None,
            state: MaestroState::InSync,
            since_ms: 0,
            detail: None,
            changes_pending: 0,
            membership_until_ms: None,
        };
        let other = MaestroStatus {
            address: "aula:9010".to_owned(),
            state: MaestroState::Reserve,
            ..maestro.clone()
        };
        let busy = Facts {
            transfers: 3,
            down: 41 << 20,
            up: 1536 << 10,
            files: Some(1),
            pending: 17,
            maestros: vec![maestro, other],
        };
        let line = "3 transfers, 41 MiB/s down, 1.5 MiB/s up; 1 file shared, 17 files to hash; maestro lab:9010 in sync; \
                    maestro aula:9010 in reserve";
        assert_eq!(busy.line(), line);
        assert_eq!(rate(100, Duration::from_secs(10)), 10);
    }
}
