//! Networks: one maestro and some peers, in a temporary directory.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tempfile::TempDir;
use toml::Table;

use crate::daemon::Launch;
use crate::lab::Lab;
use crate::peer::{Maestro, Peer};
use crate::programs;
use crate::settings::Settings;

/// Where set and not empty, the directories of networks are kept, and their paths printed.
const KEEP_VARIABLE: &str = "P2P_KEEP";

/// The gRPC port of a program that has a host of its own.
const LAB_PORT: u16 = 9010;

type EditPeer<'a> = Box<dyn Fn(usize, &mut Settings) + 'a>;
type EditMaestro<'a> = Box<dyn FnOnce(&mut Settings) + 'a>;
type Fill<'a> = Box<dyn Fn(usize, &Path) -> Result<()> + 'a>;

/// What a network shall be. Without more it is a maestro that admits everyone, and no peers.
#[derive(Default)]
pub struct NetworkBuilder<'a> {
    without_maestro: bool,
    within: Option<PathBuf>,
    peers: usize,
    edit_maestro: Option<EditMaestro<'a>>,
    edit_peers: Vec<EditPeer<'a>>,
    fill: Vec<Fill<'a>>,
    lab: Option<&'a Lab>,
}

impl<'a> NetworkBuilder<'a> {
    /// No maestro: peers stand alone, or know friends.
    #[must_use]
    pub fn without_maestro(mut self) -> Self {
        self.without_maestro = true;
        self
    }

    /// Its temporary directory is made in this one, not where the system makes them.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.within = Some(directory.to_owned());
        self
    }

    /// So many peers, `P1` and on.
    #[must_use]
    pub fn peers(mut self, count: usize) -> Self {
        self.peers = count;
        self
    }

    /// Changes the maestro's configuration.
    #[must_use]
    pub fn maestro_with(mut self, edit: impl FnOnce(&mut Settings) + 'a) -> Self {
        self.edit_maestro = Some(Box::new(edit));
        self
    }

    /// Changes the peers' configurations: `edit` gets each peer's number.
    #[must_use]
    pub fn peers_with(mut self, edit: impl Fn(usize, &mut Settings) + 'a) -> Self {
        self.edit_peers.push(Box::new(edit));
        self
    }

    /// Puts files into the shared directories before the peers start: `fill` gets each peer's number and directory.
    #[must_use]
    pub fn files(mut self, fill: impl Fn(usize, &Path) -> Result<()> + 'a) -> Self {
        self.fill.push(Box::new(fill));
        self
    }

    /// Each on a host of its own: the maestro on the first, `P1` on the second.
    #[must_use]
    pub fn on_hosts_of(mut self, lab: &'a Lab) -> Self {
        self.lab = Some(lab);
        self
    }

    /// Starts everyone, and waits until the maestro holds every catalog.
    ///
    /// # Errors
    /// Where a daemon does not start, or the peers do not settle.
    pub async fn start(self) -> Result<Network> {
        let within = self.within.unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("p2p-").tempdir_in(within)?;
        // Failing here, and not half-way, tells best what a build has broken.
        programs()?;
        let mut network =
            Network { maestro: None, more_maestros: Vec::new(), peers: Vec::new(), dir: Some(dir) };
        if !self.without_maestro {
            let mut settings = network.maestro_settings();
            if let Some(edit) = self.edit_maestro {
                edit(&mut settings);
            }
            if self.lab.is_some() {
                settings.set("grpc.listen", format!("{}:{LAB_PORT}", Lab::address(1)));
            }
            let mut launch = network.launch(&programs()?.maestrod, "maestro", &settings)?;
            launch.namespace = self.lab.map(|lab| lab.namespace(1));
            network.maestro = Some(Maestro::start(launch, settings).await?);
        }
        let mut starting = Vec::new();
        for number in 1..=self.peers {
            let mut settings = network.peer_settings(number)?;
            let host = u8::try_from(number + 1)?;
            if self.lab.is_some() {
                settings
                    .set("maestro", format!("{}:{LAB_PORT}", Lab::address(1)))
                    .set("grpc.listen", format!("{}:{LAB_PORT}", Lab::address(host)));
            }
            for edit in &self.edit_peers {
                edit(number, &mut settings);
            }
            let dir = network.peer_dir(number);
            for fill in &self.fill {
                fill(number, &dir.join("shared"))?;
            }
            let mut launch = network.launch(&programs()?.p2pd, &format!("P{number}"), &settings)?;
            launch.namespace = self.lab.map(|lab| lab.namespace(host));
            starting.push(Peer::start(dir, launch, settings));
        }
        network.peers = try_join_all(starting).await?;
        network.settled().await?;
        Ok(network)
    }
}

/// A running network.
#[derive(Debug)]
pub struct Network {
    maestro: Option<Maestro>,
    more_maestros: Vec<Maestro>,
    peers: Vec<Peer>,
    // After the processes that work in it.
    dir: Option<TempDir>,
}

impl Network {
    /// A network to be described.
    pub fn builder<'a>() -> NetworkBuilder<'a> {
        NetworkBuilder::default()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("."), TempDir::path)
    }

    /// Its maestro.
    ///
    /// # Errors
    /// Where it has none.
    pub fn maestro(&self) -> Result<&Maestro> {
        self.maestro.as_ref().context("this network has no maestro")
    }

    /// Its maestro, to be ended or started.
    ///
    /// # Errors
    /// Where it has none.
    pub fn maestro_mut(&mut self) -> Result<&mut Maestro> {
        self.maestro.as_mut().context("this network has no maestro")
    }

    /// Starts another maestro, which no peer knows yet; its state directory, which is there by then, is at `edit`'s
    /// disposal.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn add_maestro(
        &mut self,
        edit: impl FnOnce(&mut Settings, &Path) -> Result<()>,
    ) -> Result<&mut Maestro> {
        let name = format!("maestro-{}", self.more_maestros.len() + 2);
        let dir = self.dir().join(&name);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let mut settings = self.maestro_settings();
        settings.set("name", name.as_str()).set("state_dir", text(&dir));
        edit(&mut settings, &dir)?;
        let launch = self.launch(&programs()?.maestrod, &name, &settings)?;
        self.more_maestros.push(Maestro::start(launch, settings).await?);
        self.more_maestros.last_mut().context("there is none")
    }

    /// The maestros that were added.
    pub fn more_maestros(&self) -> &[Maestro] {
        &self.more_maestros
    }

    /// The same, to be ended or started.
    pub fn more_maestros_mut(&mut self) -> &mut [Maestro] {
        &mut self.more_maestros
    }

    /// Its peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Peer `number`, from 1: that of `P1` is 1.
    ///
    /// # Errors
    /// Where it has none of that number.
    pub fn peer(&self, number: usize) -> Result<&Peer> {
        let index = number.checked_sub(1).context("peers are numbered from 1")?;
        self.peers.get(index).with_context(|| format!("this network has no P{number}"))
    }

    /// Peer `number`, to be ended or started.
    ///
    /// # Errors
    /// Where it has none of that number.
    pub fn peer_mut(&mut self, number: usize) -> Result<&mut Peer> {
        let index = number.checked_sub(1).context("peers are numbered from 1")?;
        self.peers.get_mut(index).with_context(|| format!("this network has no P{number}"))
    }

    /// Waits until the maestro holds the catalogs of all running peers.
    ///
    /// # Errors
    /// Where that takes too long.
    pub async fn settled(&self) -> Result<()> {
        let running = self.peers.iter().filter(|peer| peer.daemon().is_running());
        try_join_all(running.map(Peer::settled)).await?;
        Ok(())
    }

    /// Starts another peer.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn add_peer(&mut self, edit: impl FnOnce(&mut Settings)) -> Result<&mut Peer> {
        let number = self.peers.len() + 1;
        let mut settings = self.peer_settings(number)?;
        edit(&mut settings);
        let launch = self.launch(&programs()?.p2pd, &format!("P{number}"), &settings)?;
        self.peers.push(Peer::start(self.peer_dir(number), launch, settings).await?);
        self.peer_mut(number)
    }

    /// What a maestro is configured with before a test changes it.
    pub fn maestro_settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings
            .set("name", "maestro")
            .set("state_dir", text(&self.dir().join("maestro")))
            .set("rest.listen", "127.0.0.1:0")
            .set("grpc.listen", "127.0.0.1:0")
            .set("admission.policy", "open");
        settings
    }

    /// What peer `number` is configured with before a test changes it. Makes its directories.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn peer_settings(&self, number: usize) -> Result<Settings> {
        let dir = self.peer_dir(number);
        let shared = dir.join("shared");
        fs::create_dir_all(&shared)?;
        let mut share = Table::new();
        share.insert("name".to_owned(), "shared".into());
        share.insert("path".to_owned(), text(&shared).into());
        share.insert("downloads".to_owned(), true.into());
        let mut settings = Settings::default();
        settings
            .set("name", format!("P{number}"))
            .set("state_dir", text(&dir.join("state")))
            .set("control.socket", text(&dir.join("control.sock")))
            .set("rest.listen", "127.0.0.1:0")
            .set("grpc.listen", "127.0.0.1:0")
            .add_share(share);
        if let Some(maestro) = &self.maestro {
            settings.set("maestro", maestro.address());
        }
        Ok(settings)
    }

    /// Writes a configuration, and gives how to start a daemon with it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn launch(&self, program: &Path, name: &str, settings: &Settings) -> Result<Launch> {
        let config = self.dir().join(format!("{name}.toml"));
        fs::write(&config, settings.to_toml()?)?;
        let dir = self.dir().to_owned();
        ensure!(dir.as_os_str().len() < 80, "{} is too long for the paths of sockets", dir.display());
        Ok(Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            config,
            dir,
            env: Vec::new(),
            namespace: None,
        })
    }

    /// The ends of all logs, for an error.
    pub fn log_ends(&self) -> String {
        let maestros = self.maestro.iter().chain(&self.more_maestros);
        let daemons = maestros.map(Maestro::daemon).chain(self.peers.iter().map(Peer::daemon));
        daemons.fold(String::new(), |mut all, daemon| {
            let _ = write!(all, "──── log of {} ────\n{}", daemon.name(), daemon.log_end());
            all
        })
    }

    fn peer_dir(&self, number: usize) -> PathBuf {
        self.dir().join(format!("P{number}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut stderr = std::io::stderr();
        if std::thread::panicking() {
            let _ = write!(stderr, "{}", self.log_ends());
        }
        if std::env::var_os(KEEP_VARIABLE).is_some_and(|keep| !keep.is_empty())
            && let Some(dir) = self.dir.take()
        {
            let _ = writeln!(stderr, "kept: {}", dir.keep().display());
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
