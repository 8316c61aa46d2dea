//! A PostgreSQL of the bench's own, from the binaries of Debian's packages: made for the bench, gone with it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_tests::programs;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use super::Bench;
use super::maestro::own_dir;
use crate::child::{self, Daemon, free_address};

/// Where Debian's packages have the binaries of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Who it runs as where the bench is root, which PostgreSQL refuses.
const USER: &str = "postgres";
/// How long making it may take.
const MADE_WITHIN: Duration = Duration::from_secs(120);
/// What is not as Debian configures it: memory as its manual advises for a machine of 4 GiB or more, and fewer checkpoints.
const SETTINGS: [&str; 4] =
    ["shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=15min", "effective_cache_size=4GB"];

/// How long it may take to write what it has in memory and end.
const ENDED_WITHIN: Duration = Duration::from_secs(300);

/// A cluster that runs. Killed when it is dropped; the next start recovers what was committed.
#[derive(Debug)]
pub(crate) struct Cluster {
    daemon: Daemon,
    address: SocketAddr,
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts the cluster that is kept, or a new one.
    ///
    /// # Errors
    /// Where that does not work; with what it wrote.
    pub(crate) async fn start(bench: &Bench) -> Result<Cluster> {
        match &bench.filled {
            Some(kept) => {
                Cluster::start_in(kept.join(format!("postgres-{}-cluster", bench.big_files)), None).await
            }
            None => Cluster::anew(bench).await,
        }
    }

    /// Starts a new cluster, which is not kept.
    ///
    /// # Errors
    /// As [`start`](Cluster::start).
    pub(crate) async fn anew(bench: &Bench) -> Result<Cluster> {
        let made = own_dir(bench.disk.as_ref())?;
        Cluster::start_in(made.path().join("cluster"), Some(made)).await
    }

    async fn start_in(dir: PathBuf, temporary: Option<TempDir>) -> Result<Cluster> {
        let binaries = binaries().context("PostgreSQL is not installed")?;
        let data = dir.join("data");
        let is_new = !data.exists();
        if is_new {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            belongs_to_its_user(&dir)?;
            let mut initdb = as_its_user(&binaries.join("initdb"));
            initdb.arg("--pgdata").arg(&data);
            initdb.args(["--username=p2p", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
            child::run(&mut initdb, MADE_WITHIN).await?;
        }
        let address = free_address()?;
        let mut postgres = as_its_user(&binaries.join("postgres"));
        postgres.arg("-D").arg(&data).arg("-p").arg(address.port().to_string());
        postgres.arg("-c").arg("listen_addresses=127.0.0.1");
        postgres.arg("-c").arg("unix_socket_directories=");
        for setting in SETTINGS {
            postgres.arg("-c").arg(setting);
        }
        let mut daemon = Daemon::start("postgres", &mut postgres, &dir)?;
        daemon
            .until("PostgreSQL is ready", async |log| {
                ensure!(log.contains("ready to accept connections"), "it is not");
                Ok(())
            })
            .await?;
        if is_new {
            let mut createdb = as_its_user(&binaries.join("createdb"));
            createdb
                .args(["--host=127.0.0.1", "--username=p2p", "p2p"])
                .arg(format!("--port={}", address.port()));
            child::run(&mut createdb, MADE_WITHIN).await?;
        }
        Ok(Cluster { daemon, address, _temporary: temporary })
    }

    /// Ends it, so that it can be started again at once: of one that is killed, memory that its processes shared may be
    /// left for a while.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub(crate) async fn end(self) -> Result<()> {
        self.daemon.end(Signal::INT, ENDED_WITHIN).await
    }

    /// How a maestro is told of it.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://p2p@{}/p2p", self.address)
    }

    /// What a filled directory in it is called.
    pub(crate) fn name(&self, files: u64) -> String {
        format!("postgres-{files}")
    }
}

/// What keeps the rows of PostgreSQL from being measured, in words for the table.
pub(crate) fn missing() -> Option<String> {
    if binaries().is_none() {
        return Some("no PostgreSQL server here: apt install postgresql".to_owned());
    }
    if is_root() && uid_of(USER).is_none() {
        return Some(format!("PostgreSQL does not run as root, and there is no user {USER}"));
    }
    knows_the_store().err().map(|error| format!("this maestrod has no store in PostgreSQL: {error:#}"))
}

/// Fails where maestrod does not know the configuration's key.
fn knows_the_store() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("maestrod.toml");
    fs::write(&config, "store = \"postgresql://p2p@127.0.0.1:5432/p2p\"\n")?;
    let ended =
        Blocking::new(&programs()?.maestrod).arg("--config").arg(&config).arg("--check-config").output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr).trim());
    Ok(())
}

/// Where the binaries of the latest version are.
fn binaries() -> Option<PathBuf> {
    let mut all: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .ok()?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, binaries)| {
            ["initdb", "postgres", "createdb"].iter().all(|name| binaries.join(name).is_file())
        })
        .collect();
    all.sort_unstable();
    all.pop().map(|(_, binaries)| binaries)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn uid_of(user: &str) -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}

fn belongs_to_its_user(dir: &Path) -> Result<()> {
    match uid_of(USER).filter(|_| is_root()) {
        Some(uid) => Ok(std::os::unix::fs::chown(dir, Some(uid), None)?),
        None => Ok(()),
    }
}

fn as_its_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}
