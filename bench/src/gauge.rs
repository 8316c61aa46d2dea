//! One run, measured: how long it took, the processor time of all that took part, and the most memory on each side.
//!
//! The gauge is told which daemons take part and on which side. What else this process starts while it measures is taken for
//! the client, which receives. Daemons are asked before and after; what a client cost is known once it has been waited for,
//! and its memory is looked at while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};

use crate::processes::{children, cpu_of_ended_children, cpu_of_tree, forget_peak, peak_memory, tree};

/// Between two looks at memory: rare enough to cost nothing that counts (each takes less than 0.1 ms).
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// On which side of a transfer a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// It has the bytes.
    Sends,
    /// It wants them.
    Receives,
    /// It helps them to find each other: what it costs counts, its memory does not.
    Helps,
}

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// From the start of the command to its end.
    pub(crate) took: Duration,
    /// User and system, of all that took part.
    pub(crate) cpu: Duration,
    /// Bytes: the sum of the peaks of the sending processes; 0 where none was seen.
    pub(crate) peak_sending: u64,
    /// Bytes: the same of the receiving ones.
    pub(crate) peak_receiving: u64,
}

/// A run that is about to begin.
#[derive(Debug)]
pub(crate) struct Gauge {
    members: Vec<(Side, u32)>,
    others: BTreeSet<u32>,
    peaks: BTreeMap<u32, (Side, u64)>,
    cpu_before: Duration,
}

impl Gauge {
    /// Sets the marks. `members` are the daemons that take part.
    ///
    /// # Errors
    /// Where one of them does not run.
    pub(crate) fn new(members: &[(Side, u32)]) -> Result<Gauge> {
        for pid in members.iter().flat_map(|(_, pid)| tree(*pid)) {
            forget_peak(pid)?;
        }
        let mut gauge = Gauge {
            members: members.to_vec(),
            others: children(std::process::id()),
            peaks: BTreeMap::new(),
            cpu_before: Duration::ZERO,
        };
        gauge.cpu_before = gauge.cpu()?;
        Ok(gauge)
    }

    /// Measures a run.
    ///
    /// # Errors
    /// Those of the run.
    pub(crate) async fn measure(mut self, run: impl Future<Output = Result<()>>) -> Result<Sample> {
        let mut run = std::pin::pin!(run);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        loop {
            tokio::select! {
                biased;
                ended = &mut run => break ended?,
                _ = looks.tick() => self.look(),
            }
        }
        let took = began.elapsed();
        self.look();
        let peak =
            |of: Side| self.peaks.values().filter(|(side, _)| *side == of).map(|(_, bytes)| bytes).sum();
        Ok(Sample {
            took,
            cpu: self.cpu()?.saturating_sub(self.cpu_before),
            peak_sending: peak(Side::Sends),
            peak_receiving: peak(Side::Receives),
        })
    }

    fn cpu(&self) -> Result<Duration> {
        let daemons: Duration = self.members.iter().map(|(_, pid)| cpu_of_tree(*pid)).sum();
        Ok(daemons + cpu_of_ended_children()?)
    }

    fn look(&mut self) {
        let clients = children(std::process::id()).difference(&self.others).copied().collect::<Vec<_>>();
        let roots = self.members.iter().copied().chain(clients.into_iter().map(|pid| (Side::Receives, pid)));
        for (side, root) in roots.collect::<Vec<_>>() {
            for pid in tree(root) {
                if let Some(bytes) = peak_memory(pid) {
                    let seen = self.peaks.entry(pid).or_insert((side, 0));
                    seen.1 = seen.1.max(bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_client_and_a_daemon_are_told_apart() {
        let mut daemon = Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
        let gauge = Gauge::new(&[(Side::Sends, daemon.id().unwrap())]).unwrap();
        let sample = gauge
            .measure(async {
                let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
                let status = Command::new("sh").args(["-c", work]).kill_on_drop(true).status().await?;
                ensure!(status.success());
                Ok(())
            })
            .await
            .unwrap();
        assert!(sample.took > Duration::ZERO && sample.cpu > Duration::ZERO, "{sample:?}");
        assert!(sample.peak_sending > 0 && sample.peak_receiving > 0, "{sample:?}");
        daemon.kill().await.unwrap();
        assert!(Gauge::new(&[(Side::Sends, u32::MAX)]).is_err());
    }
}
