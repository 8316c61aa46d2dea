//! Hashing a tree for the catalog, beside b3sum with as many threads. What is read is in the page cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use p2p_content::ContentHash;
use p2p_proto::control::Status;
use p2p_tests::{Network, Peer, hash_of_file, random_file};

use crate::child;
use crate::contest::{Contestant, compete};
use crate::gauge::Side;
use crate::ours::{RUN, close, members};
use crate::rows::Row;
use crate::table::{Measured, Outcome};
use crate::tools;
use crate::transfer::{Bench, Report};

/// Bytes of a file of the tree.
const FILE_LEN: u64 = 64 << 20;
/// How many files p2pd hashes at a time, each in one thread.
const THREADS: usize = 2;

/// How long ago the files were changed when they appear, as far as their times tell.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// The row.
pub(super) async fn run(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    if let Some(missing) = bench.tools.missing(&[tools::B3SUM]) {
        report.add(row, Outcome::Missing(missing));
        return Ok(());
    }
    bench.has_room(&bench.disk, bench.big_len + bench.big_len / 4)?;
    let network = Network::builder().peers(1).within(&bench.disk).start().await?;
    let tree = network.dir().join("tree");
    let mut hashes = Vec::new();
    let mut left = bench.big_len;
    while left > 0 {
        let len = left.min(FILE_LEN);
        let path = tree.join(format!("{:05}.bin", hashes.len()));
        let hash = random_file(&path, len, hashes.len() as u64)?;
        hashes.push((path, hash));
        left -= len;
    }
    let peer = network.peer(1)?;
    let mut ours =
        Catalog { network: &network, peer, tree: tree.clone(), shared: peer.shared("tree"), hashes: &hashes };
    let mut rival = B3sum { bench, hashes: &hashes, printed: String::new() };
    let both = compete(&mut ours, &mut rival, bench.runs, 0).await?;
    report.add(row, Outcome::Measured(Measured::of_contest(row.target.measure, bench.big_len, both)));
    close(network).await
}

/// Each file with its content.
type Hashes = [(PathBuf, ContentHash)];

/// A tree that appears in a share, until all of it is in the catalog.
struct Catalog<'a> {
    network: &'a Network,
    peer: &'a Peer,
    tree: PathBuf,
    shared: PathBuf,
    hashes: &'a Hashes,
}

impl Catalog<'_> {
    async fn look(&self) -> Result<()> {
        self.peer.p2pctl().run_within(RUN, ["refresh"]).await?.ok()?;
        Ok(())
    }
}

#[async_trait(?Send)]
impl Contestant for Catalog<'_> {
    fn name(&self) -> String {
        "p2pd, for its catalog".to_owned()
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        members(self.network)
    }

    async fn prepare(&mut self) -> Result<()> {
        // A file that only moved is known by its inode and times, and not hashed again; one that was changed just now is left
        // alone for a while.
        let modified = SystemTime::now() - LONG_AGO;
        for (path, _) in self.hashes {
            let file = File::options().write(true).open(path)?;
            file.set_modified(modified).with_context(|| format!("cannot touch {}", path.display()))?;
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        move_dir(&self.tree, &self.shared)?;
        self.look().await
    }

    async fn check(&mut self, thoroughly: bool) -> Result<()> {
        let status: Status = self.peer.ctl_json(&["status"]).await?;
        ensure!(
            status.files_pending == 0 && status.files == self.hashes.len() as u64,
            "after the refresh {} files are not hashed yet, and {} are",
            status.files_pending,
            status.files
        );
        if thoroughly {
            for (path, hash) in self.hashes {
                let located = self.peer.ctl(["locate", &hash.to_string()]).await?.ok()?.text();
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                ensure!(located.contains(&name), "the catalog does not know {name} by its hash: {located}");
            }
        }
        move_dir(&self.shared, &self.tree)?;
        self.look().await
    }
}

fn move_dir(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// `b3sum` of all the files.
struct B3sum<'a> {
    bench: &'a Bench,
    hashes: &'a Hashes,
    printed: String,
}

#[async_trait(?Send)]
impl Contestant for B3sum<'_> {
    fn name(&self) -> String {
        format!("b3sum, {THREADS} threads")
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        Ok(Vec::new())
    }

    async fn run(&mut self) -> Result<()> {
        let mut command = self.bench.tools.command(tools::B3SUM)?;
        command.args(["--num-threads", &THREADS.to_string(), "--no-names"]);
        command.args(self.hashes.iter().map(|(path, _)| path));
        self.printed = child::run(&mut command, RUN).await?;
        Ok(())
    }

    async fn check(&mut self, thoroughly: bool) -> Result<()> {
        let expected: Vec<String> = self.hashes.iter().map(|(_, hash)| hash.to_string()).collect();
        ensure!(self.printed.lines().eq(expected.iter()), "b3sum prints other hashes");
        if thoroughly && let Some((path, hash)) = self.hashes.first() {
            ensure!(hash_of_file(path)? == *hash, "{} has changed", path.display());
        }
        Ok(())
    }
}
