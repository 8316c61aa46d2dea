//! Directories that are filled already: their peers' keys, what each of them told, and the state that came of it.
//!
//! A directory is filled by real peers over real streams, once; a later run finds it, starts a maestro on it and lets the
//! peers come back, who have nothing to send. Where no place was named to keep it, or how fast it is filled is the question,
//! it is made anew and taken away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use p2p_identity::Identity;
use p2p_tests::eventually;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::Bench;
use super::catalogs::{Catalogs, peer_name};
use super::maestro::{Maestro, own_dir};
use super::peers::{Address, Stream, Told};

/// Peers that tell their catalogs at the same time.
const TELLING: usize = 8;
/// Peers that connect at the same time.
const CONNECTING: usize = 64;
/// How long the text index may take when everything is told.
const INDEXED_WITHIN: Duration = Duration::from_secs(3600);
/// What is known of a filled directory.
const RECORD: &str = "filled.json";

/// A filled directory.
#[derive(Debug)]
pub(crate) struct Filled {
    dir: PathBuf,
    record: Record,
    is_new: bool,
    _temporary: Option<TempDir>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    seed: u64,
    peers: u64,
    files: u64,
    /// How long it took until all was acknowledged, in seconds.
    told_secs: f64,
    /// How much longer until the text index had all.
    indexed_secs: f64,
    told: Vec<Told>,
}

impl Filled {
    /// A directory with so many files, in the embedded store: the one that is kept, or a new one.
    ///
    /// # Errors
    /// Where it cannot be filled, or the one that is kept has other files.
    pub(crate) async fn embedded(bench: &Bench, files: u64) -> Result<Filled> {
        Filled::with(bench, &format!("embedded-{files}"), files, None).await
    }

    /// The same, in another store than the embedded one; `name` is what the kept one is called.
    ///
    /// # Errors
    /// As [`embedded`](Filled::embedded).
    pub(crate) async fn with(bench: &Bench, name: &str, files: u64, store: Option<&str>) -> Result<Filled> {
        let (dir, temporary) = match &bench.filled {
            Some(kept) => (kept.join(name), None),
            None => {
                let made = own_dir(bench.disk.as_ref())?;
                (made.path().to_owned(), Some(made))
            }
        };
        let catalogs = Catalogs::new(bench.seed, bench.peers, files);
        let path = dir.join(RECORD);
        if let Ok(text) = fs::read_to_string(&path) {
            let record: Record =
                serde_json::from_str(&text).with_context(|| format!("{} is none", path.display()))?;
            ensure!(
                record.catalogs() == catalogs,
                "{} has other files than are asked for: name another directory, or remove it",
                dir.display()
            );
            return Ok(Filled { dir, record, is_new: false, _temporary: temporary });
        }
        Filled::make(dir, temporary, catalogs, bench.seed, store).await
    }

    /// The same, made anew and not kept.
    ///
    /// # Errors
    /// Where it cannot be filled.
    pub(crate) async fn anew(bench: &Bench, files: u64, store: Option<&str>) -> Result<Filled> {
        let made = own_dir(bench.disk.as_ref())?;
        let catalogs = Catalogs::new(bench.seed, bench.peers, files);
        Filled::make(made.path().to_owned(), Some(made), catalogs, bench.seed, store).await
    }

    async fn make(
        dir: PathBuf,
        temporary: Option<TempDir>,
        catalogs: Catalogs,
        seed: u64,
        store: Option<&str>,
    ) -> Result<Filled> {
        fs::create_dir_all(dir.join("keys")).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut maestro = Maestro::start(&dir, store).await?;
        let record = fill(&maestro, &dir, catalogs, seed).await?;
        maestro.stop().await?;
        fs::write(dir.join(RECORD), serde_json::to_string(&record)?)?;
        Ok(Filled { dir, record, is_new: true, _temporary: temporary })
    }

    /// Its peers and their files.
    pub(crate) fn catalogs(&self) -> Catalogs {
        self.record.catalogs()
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads it once, so that it is in memory as far as it fits: what a question costs is to be seen, not what the disk does.
    pub(crate) fn read_once(&self) -> Result<()> {
        for entry in fs::read_dir(self.dir.join("state"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                io::copy(&mut fs::File::open(entry.path())?, &mut io::sink())?;
            }
        }
        Ok(())
    }

    /// How it was filled, for the table.
    pub(crate) fn how(&self) -> String {
        let Record { peers, files, told_secs, indexed_secs, .. } = &self.record;
        let when = if self.is_new { "in this run" } else { "in an earlier run" };
        format!(
            "{} files of {peers} peers, told over their Sync streams {when} in {told_secs:.0} s ({:.0} a second), and {indexed_secs:.0} s \
             more for the text index",
            thousands(*files),
            *files as f64 / told_secs,
        )
    }

    /// Files told in a second, when it was filled.
    pub(crate) fn told_per_sec(&self) -> f64 {
        self.record.files as f64 / self.record.told_secs
    }

    /// Seconds from then until the text index had all.
    pub(crate) fn indexed_secs(&self) -> f64 {
        self.record.indexed_secs
    }

    /// Lets all peers come back. They must have nothing to send.
    ///
    /// # Errors
    /// Where one does not get in, or the maestro holds something else.
    pub(crate) async fn come_back(&self, maestro: Address) -> Result<Vec<Stream>> {
        let coming = (0..).zip(&self.record.told).map(|(peer, told)| async move {
            let identity = key_of(&self.dir, peer)?;
            let mut stream = Stream::open(&identity, &peer_name(peer), maestro, *told).await?;
            ensure!(stream.is_known(), "the maestro does not know what {} told before", peer_name(peer));
            stream.compare().await?;
            Ok(stream)
        });
        iter(coming).buffered(CONNECTING).try_collect().await
    }
}

impl Record {
    fn catalogs(&self) -> Catalogs {
        Catalogs::new(self.seed, self.peers, self.files)
    }
}

async fn fill(maestro: &Maestro, dir: &Path, catalogs: Catalogs, seed: u64) -> Result<Record> {
    let address = maestro.address()?;
    let began = Instant::now();
    let telling = (0..catalogs.peers()).map(|peer| async move {
        let identity = key_of(dir, peer)?;
        let mut stream = Stream::open(&identity, &peer_name(peer), address, Told::default()).await?;
        let told = stream.announce(catalogs.of(peer)).await?;
        // It stays, as peers do.
        anyhow::Ok((stream, told))
    });
    let all: Vec<(Stream, Told)> = iter(telling).buffered(TELLING).try_collect().await?;
    let told_secs = began.elapsed().as_secs_f64();
    let began = Instant::now();
    is_indexed(maestro, INDEXED_WITHIN).await?;
    Ok(Record {
        seed,
        peers: catalogs.peers(),
        files: catalogs.files(),
        told_secs,
        indexed_secs: began.elapsed().as_secs_f64(),
        told: all.into_iter().map(|(_, told)| told).collect(),
    })
}

/// Waits until every name is found by its parts.
///
/// # Errors
/// Where that takes too long.
pub(crate) async fn is_indexed(maestro: &Maestro, within: Duration) -> Result<()> {
    eventually(within, "the text index has all names", async || {
        let behind = maestro.metric("maestrod_names_unindexed").await?;
        ensure!(behind == 0.0, "{behind} names are not in it");
        Ok(())
    })
    .await
}

fn key_of(dir: &Path, peer: u64) -> Result<Identity> {
    Ok(Identity::load_or_create(&dir.join(format!("keys/{peer}.key")))?)
}

/// `1,000,000`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut written = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_in_groups_of_three() {
        let written = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(written, ["0", "999", "1,000", "1,234,567"]);
    }
}
