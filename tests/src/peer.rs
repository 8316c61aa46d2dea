//! A maestro and a peer of a [`Network`](crate::Network): the process, its configuration, and how to ask it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::{MaestroState, Status, Transfer, TransferList, TransferState};
use serde::de::DeserializeOwned;

use crate::control::{Ctl, Said};
use crate::daemon::{Daemon, Launch};
use crate::files::{hash_of_file, write_file};
use crate::rest::Rest;
use crate::settings::Settings;
use crate::{eventually, programs};

/// How long a peer may take until the maestro holds its catalog.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A running maestro.
#[derive(Debug)]
pub struct Maestro {
    installed: Installed,
}

/// A running peer, with a directory of its own.
#[derive(Debug)]
pub struct Peer {
    dir: PathBuf,
    installed: Installed,
    ctl: Ctl,
}

/// A daemon with its configuration file.
#[derive(Debug)]
struct Installed {
    settings: Settings,
    config: PathBuf,
    daemon: Daemon,
}

impl Installed {
    /// Starts it, and keeps the ports that it got for its later runs.
    async fn start(launch: Launch, mut settings: Settings) -> Result<Installed> {
        let config = launch.config.clone();
        let daemon = Daemon::start(launch).await?;
        for (path, bound) in [("rest.listen", daemon.ready().rest), ("grpc.listen", daemon.ready().grpc)] {
            settings.set(path, bound.to_string());
        }
        fs::write(&config, settings.to_toml()?)?;
        Ok(Installed { settings, config, daemon })
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Settings)) -> Result<()> {
        edit(&mut self.settings);
        fs::write(&self.config, self.settings.to_toml()?)?;
        Ok(())
    }
}

impl Maestro {
    pub(crate) async fn start(launch: Launch, settings: Settings) -> Result<Maestro> {
        Ok(Maestro { installed: Installed::start(launch, settings).await? })
    }

    /// Its process.
    pub fn daemon(&self) -> &Daemon {
        &self.installed.daemon
    }

    /// Its process, to be ended or started.
    pub fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.installed.daemon
    }

    /// Changes its configuration file; it counts from its next start on.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Settings)) -> Result<()> {
        self.installed.edit(edit)
    }

    /// `host:port` of its gRPC interface.
    pub fn address(&self) -> String {
        self.daemon().ready().grpc.to_string()
    }

    /// Its REST interface.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn rest(&self) -> Result<Rest> {
        Rest::new(format!("http://localhost:{}", self.daemon().ready().rest.port()))
    }
}

impl Peer {
    pub(crate) async fn start(dir: PathBuf, launch: Launch, settings: Settings) -> Result<Peer> {
        let socket = settings.text("control.socket").context("no control.socket is set")?;
        let ctl = Ctl::new(&programs()?.p2pctl, Path::new(socket), &dir);
        let installed = Installed::start(launch, settings).await?;
        Ok(Peer { dir, installed, ctl })
    }

    /// Its name: `P1`.
    pub fn name(&self) -> &str {
        self.daemon().name()
    }

    /// Its peer ID.
    pub fn id(&self) -> &str {
        &self.daemon().ready().id
    }

    /// Its own directory: `state/`, `shared/`, and whatever a test puts there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in its shared directory.
    pub fn shared(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join("shared").join(name)
    }

    /// A path in its state directory.
    pub fn state(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join("state").join(name)
    }

    /// Puts a file into its shared directory.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<ContentHash> {
        let hash = ContentHash::of(bytes.as_ref());
        write_file(&self.shared(name), bytes)?;
        Ok(hash)
    }

    /// The hash of a file in its shared directory.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn hash_of(&self, name: &str) -> Result<ContentHash> {
        hash_of_file(&self.shared(name))
    }

    /// Its process.
    pub fn daemon(&self) -> &Daemon {
        &self.installed.daemon
    }

    /// Its process, to be ended or started.
    pub fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.installed.daemon
    }

    /// Its configuration.
    pub fn settings(&self) -> &Settings {
        &self.installed.settings
    }

    /// Changes its configuration file; it counts from its next start on.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Settings)) -> Result<()> {
        self.installed.edit(edit)
    }

    /// `host:port` of its gRPC interface.
    pub fn address(&self) -> String {
        self.daemon().ready().grpc.to_string()
    }

    /// Its control socket.
    pub fn socket(&self) -> &str {
        self.settings().text("control.socket").unwrap_or_default()
    }

    /// Its REST interface, without the API token.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn rest(&self) -> Result<Rest> {
        Rest::new(format!("http://localhost:{}", self.daemon().ready().rest.port()))
    }

    /// Its REST interface, with the API token.
    ///
    /// # Errors
    /// Where there is no token.
    pub fn rest_with_token(&self) -> Result<Rest> {
        let path = self.state("api-token");
        let token = fs::read_to_string(&path).with_context(|| format!("no token in {}", path.display()))?;
        Ok(self.rest()?.with_token(token.trim()))
    }

    /// `p2pctl` for it.
    pub fn p2pctl(&self) -> &Ctl {
        &self.ctl
    }

    /// Runs `p2pctl` to its end.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn ctl<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Result<Said> {
        self.ctl.run(args).await
    }

    /// Runs `p2pctl --json`, and reads what it prints.
    ///
    /// # Errors
    /// Where it fails, or prints something else.
    pub async fn ctl_json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        self.ctl.json(args).await
    }

    /// Its transfers, the newest first.
    ///
    /// # Errors
    /// Where `p2pctl` fails.
    pub async fn transfers(&self) -> Result<Vec<Transfer>> {
        Ok(self.ctl_json::<TransferList>(&["transfers", "--all"]).await?.transfers)
    }

    /// One of its transfers.
    ///
    /// # Errors
    /// Where `p2pctl` fails, or there is none of that number.
    pub async fn transfer(&self, id: u64) -> Result<Transfer> {
        let all = self.transfers().await?;
        all.into_iter().find(|transfer| transfer.id == id).with_context(|| format!("no transfer {id}"))
    }

    /// Waits until one of its transfers is as `is` wants it.
    ///
    /// # Errors
    /// Where that takes too long.
    pub async fn transfer_until(
        &self,
        id: u64,
        within: Duration,
        what: &str,
        is: impl Fn(&Transfer) -> bool,
    ) -> Result<Transfer> {
        eventually(within, what, async || {
            let transfer = self.transfer(id).await?;
            ensure!(is(&transfer), "{transfer:?}");
            Ok(transfer)
        })
        .await
    }

    /// Waits until one of its transfers is done.
    ///
    /// # Errors
    /// Where that takes too long, or it ends otherwise.
    pub async fn transfer_done(&self, id: u64, within: Duration) -> Result<Transfer> {
        let ended = self
            .transfer_until(id, within, "the transfer ends", |transfer| transfer.state.is_ended())
            .await?;
        ensure!(ended.state == TransferState::Done, "it ended otherwise: {ended:?}");
        Ok(ended)
    }

    /// How many files of unfinished transfers are in its shared directory.
    pub fn partial_files(&self) -> usize {
        let dir = self.shared(p2p_content::PARTIAL_DIR);
        fs::read_dir(dir).map_or(0, |entries| entries.count())
    }

    /// Waits until everything that it shares is hashed, and the maestro, where it has one, holds it.
    ///
    /// # Errors
    /// Where that takes too long.
    pub async fn settled(&self) -> Result<Status> {
        let what = format!("{} is settled", self.name());
        eventually(SETTLED_WITHIN, &what, async || {
            let status: Status = self.ctl_json(&["status"]).await?;
            ensure!(status.files_pending == 0, "{} files are not hashed yet", status.files_pending);
            if let Some(maestro) = &status.maestro {
                let state = maestro.state;
                ensure!(
                    state == MaestroState::InSync,
                    "{state:?}: {}",
                    maestro.detail.as_deref().unwrap_or("-")
                );
                ensure!(
                    maestro.changes_pending == 0,
                    "{} changes are not announced",
                    maestro.changes_pending
                );
            }
            Ok(status)
        })
        .await
    }
}
