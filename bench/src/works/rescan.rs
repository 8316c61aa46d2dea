//! Looking again at many files of which none has changed, beside `find` that prints what it finds of each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use p2p_proto::control::Status;
use p2p_tests::{Network, Peer};

use crate::contest::{Contestant, compete};
use crate::gauge::Side;
use crate::ours::{RUN, close, members};
use crate::product::Product;
use crate::rivals::ByCommand;
use crate::rows::Row;
use crate::table::{Measured, Outcome};
use crate::tools;
use crate::transfer::{Bench, Report};

/// Files in one directory.
const FILES_PER_DIR: u64 = 1000;
/// What a small file takes on a disk, with its entry: for the question whether there is room.
const ROOM_PER_FILE: u64 = 8 << 10;

/// The row.
pub(super) async fn run(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    if let Some(missing) = bench.tools.missing(&[tools::FIND]) {
        report.add(row, Outcome::Missing(missing));
        return Ok(());
    }
    bench.has_room(&bench.disk, bench.rescan_files * ROOM_PER_FILE)?;
    // Its files appear when it runs: hashing a million of them takes longer than a network may take to be ready.
    let network = Network::builder().peers(1).within(&bench.disk).start().await?;
    let peer = network.peer(1)?;
    let (making, tree) = (network.dir().join("making"), peer.shared("tree"));
    fill(&making, bench.rescan_files)?;
    fs::rename(&making, &tree).context("cannot move the files into the share")?;
    let mut ours = Refresh { network: &network, peer, files: bench.rescan_files };
    ours.run().await?;
    let mut rival = ByCommand {
        name: "find -printf".to_owned(),
        daemons: Vec::new(),
        command: Box::new(|| {
            let mut find = bench.tools.command(tools::FIND)?;
            find.arg(&tree).args(["-type", "f", "-fprintf", "/dev/null", "%p %s %T@ %C@ %i\\n"]);
            Ok(find)
        }),
        out: None,
        product: Product::Nothing,
    };
    let both = compete(&mut ours, &mut rival, bench.runs, 0).await?;
    let mut measured = Measured::of_contest(row.target.measure, 0, both);
    measured.notes.push(format!("{} files", bench.rescan_files));
    report.add(row, Outcome::Measured(measured));
    drop(rival);
    close(network).await
}

fn fill(root: &Path, count: u64) -> Result<()> {
    for number in 0..count {
        let dir = root.join(format!("{:04}", number / FILES_PER_DIR));
        if number % FILES_PER_DIR == 0 {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(dir.join(format!("{number:07}")), number.to_string())
            .context("cannot write a small file")?;
    }
    Ok(())
}

/// `p2pctl refresh`, which ends when everything was looked at.
struct Refresh<'a> {
    network: &'a Network,
    peer: &'a Peer,
    files: u64,
}

#[async_trait(?Send)]
impl Contestant for Refresh<'_> {
    fn name(&self) -> String {
        "p2pctl refresh".to_owned()
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        members(self.network)
    }

    async fn run(&mut self) -> Result<()> {
        self.peer.p2pctl().run_within(RUN, ["refresh"]).await?.ok()?;
        Ok(())
    }

    async fn check(&mut self, _: bool) -> Result<()> {
        let status: Status = self.peer.ctl_json(&["status"]).await?;
        let (files, pending) = (status.files, status.files_pending);
        ensure!(
            files == self.files && pending == 0,
            "{files} files are in the catalog, and {pending} are not yet"
        );
        Ok(())
    }
}
