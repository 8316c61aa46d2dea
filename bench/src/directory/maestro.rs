//! The maestrod that is measured: started on a state directory, asked, looked at.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_tests::{Daemon, Launch, Rest, Settings, programs};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::peers::Address;

/// How long it may take to end.
const END: Duration = Duration::from_secs(30);

/// A maestrod that runs. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Maestro {
    daemon: Daemon,
}

impl Maestro {
    /// Starts it on the state directory `dir/state`; its log and its configuration are in `dir`. With `store`, that is where
    /// its directory is.
    ///
    /// # Errors
    /// Where it does not start; with what it wrote.
    pub(crate) async fn start(dir: &Path, store: Option<&str>) -> Result<Maestro> {
        let mut settings = Settings::default();
        settings
            .set("state_dir", dir.join("state").display().to_string())
            .set("rest.listen", "127.0.0.1:0")
            .set("grpc.listen", "127.0.0.1:0")
            // One address asks for all.
            .set("rest.requests_per_sec", 0);
        if let Some(store) = store {
            settings.set("store", store);
        }
        let config = dir.join("maestrod.toml");
        fs::write(&config, settings.to_toml()?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let launch = Launch {
            name: "maestro".to_owned(),
            program: programs()?.maestrod.clone(),
            config,
            dir: dir.to_owned(),
            env: Vec::new(),
            namespace: None,
        };
        Ok(Maestro { daemon: Daemon::start(launch).await? })
    }

    /// Where peers connect.
    ///
    /// # Errors
    /// Where it says an ID that is none.
    pub(crate) fn address(&self) -> Result<Address> {
        let ready = self.daemon.ready();
        Ok(Address { grpc: ready.grpc, id: ready.id.parse().context("the maestro's ID is none")? })
    }

    /// Where its REST interface listens.
    pub(crate) fn rest(&self) -> SocketAddr {
        self.daemon.ready().rest
    }

    /// Its process ID.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.daemon.pid()
    }

    /// What a path of its REST interface answers.
    ///
    /// # Errors
    /// Where that is no success.
    pub(crate) async fn get(&self, path: &str) -> Result<serde_json::Value> {
        Rest::new(format!("http://{}", self.rest()))?.get(path).await?.ok()
    }

    /// The names of the peers that it says have this file.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn who_has(&self, name: &str) -> Result<Vec<String>> {
        names_in(&self.get(&by_name(name)).await?)
    }

    /// The names of the peers that it says have this content, 32 bytes.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn who_has_content(&self, content: &[u8]) -> Result<Vec<String>> {
        let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
        names_in(&self.get(&format!("/locate?content={hex}")).await?)
    }

    /// The value of a metric that has no labels.
    ///
    /// # Errors
    /// Where it does not answer, or there is no such metric.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let text = Rest::new(format!("http://{}", self.rest()))?.get("/metrics").await?.text;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("there is no metric {name}"))
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// Where it does not in time, or not well.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let ended = self.daemon.terminate(END).await?;
        ensure!(ended.status.success(), "maestrod ended with {}", ended.status);
        Ok(())
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.daemon.kill_9().await
    }

    /// Starts it again.
    ///
    /// # Errors
    /// Where it runs, or does not start.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.daemon.restart().await
    }
}

/// The path that locates a name.
pub(crate) fn by_name(name: &str) -> String {
    format!("/locate?file={}", encoded(name))
}

/// The path that searches for a part of a name, for so many results.
pub(crate) fn by_part(part: &str, limit: u32) -> String {
    format!("/search?q={}&limit={limit}", encoded(part))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn names_in(answer: &serde_json::Value) -> Result<Vec<String>> {
    let peers = answer["peers"].as_array().context("the answer has no peers")?;
    Ok(peers.iter().filter_map(|peer| peer["name"].as_str().map(str::to_owned)).collect())
}

/// Lets this process and those it starts have as many files open as the system allows, which must be enough for so many
/// peers.
///
/// # Errors
/// Where it is not.
pub(crate) fn room_for_peers(peers: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let needed = peers + 500;
    ensure!(
        limit.maximum.is_none_or(|most| most >= needed),
        "{peers} peers need {needed} open files, and the system allows {}: `ulimit -Hn {needed}` as root",
        limit.maximum.unwrap_or_default()
    );
    Ok(())
}

/// A directory of its own, within `within` or where temporary files go.
///
/// # Errors
/// Where it cannot be made.
pub(crate) fn own_dir(within: Option<&PathBuf>) -> Result<tempfile::TempDir> {
    let within = within.cloned().unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new().prefix("p2p-").tempdir_in(&within);
    made.with_context(|| format!("cannot make a directory in {}", within.display()))
}
