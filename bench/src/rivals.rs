//! The rivals: programs that people use today for the same work, started and run as their manuals say.
//!
//! Nearly all of them are some daemons and a client that is run to its end ([`ByCommand`]); each file tells how one family is
//! set up. All of them listen on the loopback alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use async_trait::async_trait;
use p2p_content::ContentHash;
use tokio::process::Command;

use crate::child::{self, Daemon};
use crate::contest::Contestant;
use crate::gauge::Side;
use crate::ours::RUN;
use crate::product::Product;
use crate::tools::{self, Tool, Tools};

mod aria2;
mod grpcio;
mod nginx;
mod rqbit;
mod rsync;
mod sendme;
mod syncthing;
mod torrent;
mod tracker;

/// Where a rival does its work, and on what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// Where its programs are.
    pub(crate) tools: &'a Tools,
    /// A directory of its own, on the file system that everyone uses; the only one that it writes to.
    pub(crate) dir: &'a Path,
    /// What it has to bring: a file, or a tree.
    pub(crate) source: &'a Path,
    /// The name of the source.
    pub(crate) name: &'a str,
    /// The content of the file.
    pub(crate) hash: ContentHash,
    /// The bytes of the file.
    pub(crate) len: u64,
}

impl Site<'_> {
    /// Where the client puts what it gets: emptied before each run.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The file in [`out`](Site::out), as it must be after a run.
    fn file(&self) -> Product {
        Product::File { path: self.out().join(self.name), hash: self.hash, len: self.len }
    }

    /// A directory beside the source that holds the same file, for programs that write beside what they share.
    fn seed_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("seed");
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::hard_link(self.source, dir.join(self.name))
            .with_context(|| format!("cannot link {} into {}", self.source.display(), dir.display()))?;
        Ok(dir)
    }
}

/// A rival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// curl from nginx over https.
    Curl,
    /// rsync from an rsync daemon.
    Rsync,
    /// rsync of a whole tree from an rsync daemon.
    RsyncTree,
    /// cp.
    Cp,
    /// rqbit from rqbit.
    Rqbit,
    /// sendme from sendme.
    Sendme,
    /// syncthing from syncthing.
    Syncthing,
    /// aria2 from aria2, over BitTorrent.
    Aria2,
    /// A stream of Python's grpcio.
    Grpcio,
}

impl Rival {
    /// The programs that it needs.
    pub(crate) fn tools(self) -> &'static [Tool] {
        match self {
            Rival::Curl => &[tools::NGINX, tools::CURL, tools::OPENSSL],
            Rival::Rsync | Rival::RsyncTree => &[tools::RSYNC],
            Rival::Cp => &[tools::CP],
            Rival::Rqbit => &[tools::RQBIT],
            Rival::Sendme => &[tools::SENDME],
            Rival::Syncthing => &[tools::SYNCTHING],
            Rival::Aria2 => &[tools::ARIA2],
            Rival::Grpcio => &[tools::PYTHON],
        }
    }

    /// Starts what has to run before the first run.
    ///
    /// # Errors
    /// Where that does not work; with what its programs wrote.
    pub(crate) async fn start<'a>(self, site: Site<'a>) -> Result<Box<dyn Contestant + 'a>> {
        Ok(match self {
            Rival::Curl => Box::new(nginx::start(site).await?),
            Rival::Rsync => Box::new(rsync::start(site).await?),
            Rival::RsyncTree => Box::new(rsync::start_tree(site).await?),
            Rival::Cp => Box::new(copy(site)),
            Rival::Rqbit => Box::new(rqbit::start(site).await?),
            Rival::Sendme => Box::new(sendme::start(site).await?),
            Rival::Syncthing => Box::new(syncthing::start(site).await?),
            Rival::Aria2 => Box::new(aria2::start(site).await?),
            Rival::Grpcio => Box::new(grpcio::start(site).await?),
        })
    }
}

/// A rival whose run is one command.
pub(crate) struct ByCommand<'a> {
    /// What it is called in the table.
    pub(crate) name: String,
    /// What runs beside the command.
    pub(crate) daemons: Vec<(Side, Daemon)>,
    /// The command of a run.
    pub(crate) command: Box<dyn Fn() -> Result<Command> + 'a>,
    /// A directory that is made anew for each run.
    pub(crate) out: Option<PathBuf>,
    /// What a run leaves behind.
    pub(crate) product: Product,
}

#[async_trait(?Send)]
impl Contestant for ByCommand<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        Ok(self.daemons.iter().map(|(side, daemon)| (*side, daemon.pid())).collect())
    }

    async fn prepare(&mut self) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        clear(out)?;
        fs::create_dir(out).with_context(|| format!("cannot make {}", out.display()))
    }

    async fn run(&mut self) -> Result<()> {
        child::run(&mut (self.command)()?, RUN).await.map(drop)
    }

    async fn check(&mut self, thoroughly: bool) -> Result<()> {
        self.product.check(thoroughly)?;
        self.out.as_deref().map_or(Ok(()), clear)
    }
}

fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn copy(site: Site<'_>) -> ByCommand<'_> {
    let to = site.out().join(site.name);
    ByCommand {
        name: "cp".to_owned(),
        daemons: Vec::new(),
        command: Box::new(move || {
            let mut command = site.tools.command(tools::CP)?;
            command.arg(site.source).arg(&to);
            Ok(command)
        }),
        out: Some(site.out()),
        product: site.file(),
    }
}
