//! Processes of others: daemons that run beside the measured runs, and clients that are run to their end.
//!
//! Owns each process and all that it starts: they are one process group, which is killed when its handle is dropped, be it
//! after the last run, on an error or on Ctrl-C. Called by the rivals.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use p2p_tests::eventually;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::processes::{peak_memory, tree};

/// How long a daemon may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take until what was killed is gone. It only has to be waited for.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How much of what a program wrote an error shows.
const SHOWN: usize = 2000;

/// A process and what it starts. All of it is killed when this is dropped.
#[derive(Debug)]
struct Group {
    child: Child,
    pid: Pid,
}

impl Group {
    fn start(command: &mut Command) -> Result<Group> {
        let program = command.as_std().get_program().to_owned();
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let pid =
            child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it has no process ID")?;
        Ok(Group { child, pid })
    }

    /// Whether it has ended and was waited for.
    fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A daemon may have put what it started into groups of their own, and may have ended before what it started: whom this
        // does not reach, the other does. Of those who are gone it is an error, and no harm.
        let all = if self.is_over() { Vec::new() } else { tree(pid_of(self.pid)) };
        let _ = kill_process_group(self.pid, Signal::KILL);
        for pid in all.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        // Waited for here, since what it cost would else be counted in whatever run is measured next.
        let until = Instant::now() + GONE_WITHIN;
        let runs = |pid: &u32| peak_memory(*pid).is_some();
        while (!self.is_over() || all.iter().any(runs)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A rival's daemon. Killed when it is dropped, with all that it started.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    log: PathBuf,
    group: Group,
}

impl Daemon {
    /// Starts it. What it writes goes to `NAME.log` in `dir`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Daemon> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Daemon { name: name.to_owned(), log, group: Group::start(command)? })
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        pid_of(self.group.pid)
    }

    /// Asks it to end in its own way, with this signal, and waits for that.
    ///
    /// # Errors
    /// Where it does not in time; it is killed then.
    pub(crate) async fn end(mut self, signal: Signal, within: Duration) -> Result<()> {
        kill_process(self.group.pid, signal).with_context(|| format!("cannot end {}", self.name))?;
        let ended = timeout(within, self.group.child.wait()).await;
        ended.with_context(|| format!("{} does not end within {} s", self.name, within.as_secs()))??;
        Ok(())
    }

    /// Waits until it takes connections at `address`.
    ///
    /// # Errors
    /// Where it ends instead, or that takes too long; with what it wrote.
    pub(crate) async fn listens(&mut self, address: SocketAddr) -> Result<()> {
        let what = format!("{} listens on {address}", self.name);
        self.until(&what, async |_| {
            TcpStream::connect(address).await?;
            Ok(())
        })
        .await
    }

    /// Waits until `probe`, which is given what it has written so far, has what it looks for.
    ///
    /// # Errors
    /// Where it ends instead, or that takes too long; with what it wrote.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut probe: impl AsyncFnMut(&str) -> Result<T>,
    ) -> Result<T> {
        let Daemon { name, log, group } = self;
        let read = || String::from_utf8_lossy(&fs::read(&*log).unwrap_or_default()).into_owned();
        let waited = eventually(READY_WITHIN, what, async || {
            if group.is_over() {
                return Ok(None);
            }
            probe(&read()).await.map(Some)
        });
        match waited.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{name} has ended. It wrote:\n{}", end_of(&read())),
            Err(error) => Err(error.context(format!("{name} wrote:\n{}", end_of(&read())))),
        }
    }
}

/// Runs a client to its end, and gives what it printed.
///
/// # Errors
/// Where it fails, or does not end in time; with what it wrote.
pub(crate) async fn run(command: &mut Command, within: Duration) -> Result<String> {
    let shown = shown(command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::start(command)?;
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let ended = async { tokio::try_join!(group.child.wait(), read(stdout), read(stderr)) };
    let Ok(ended) = timeout(within, ended).await else {
        bail!("`{shown}` does not end within {} s", within.as_secs());
    };
    let (status, stdout, stderr) = ended?;
    ensure!(status.success(), "`{shown}` failed ({status}):\n{}\n{}", end_of(&stdout), end_of(&stderr));
    Ok(stdout)
}

fn pid_of(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy();
    command.get_args().fold(program.into_owned(), |all, arg| format!("{all} {}", arg.to_string_lossy()))
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(SHOWN);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[from..].trim()
}

/// A loopback address that nobody listens on, over TCP and UDP.
///
/// # Errors
/// Where there is none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    // It is free now, and nobody else on this machine asks for a port that it was not given.
    for _ in 0..100 {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("there is no free port on the loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn runs(pid: u32) -> bool {
        // What was killed and is not waited for by whoever inherited it is no process any more.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start(
            "daemon",
            &mut sh("sleep 600 & setsid sh -c 'echo up; exec sleep 600' & wait"),
            dir.path(),
        )
        .unwrap();
        daemon
            .until("it is up", async |log| {
                ensure!(log.contains("up"));
                Ok(())
            })
            .await
            .unwrap();
        let all = tree(daemon.pid());
        assert_eq!(all.len(), 3);
        drop(daemon);
        eventually(GONE_WITHIN, "all are gone", async || {
            ensure!(!all.iter().any(|pid| runs(*pid)), "{all:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_daemon_ends_in_its_own_way() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo all is written > end; exit 0' TERM; echo up; while :; do sleep 0.01; done";
        let mut daemon = Daemon::start("daemon", sh(script).current_dir(dir.path()), dir.path()).unwrap();
        daemon
            .until("it is up", async |log| {
                ensure!(log.contains("up"));
                Ok(())
            })
            .await
            .unwrap();
        daemon.end(Signal::TERM, READY_WITHIN).await.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("end")).unwrap(), "all is written\n");
    }

    #[tokio::test]
    async fn a_daemon_that_ends_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut daemon =
            Daemon::start("daemon", &mut sh("echo no such port >&2; exit 3"), dir.path()).unwrap();
        let error = daemon.listens(free_address().unwrap()).await.unwrap_err();
        assert!(format!("{error:#}").contains("no such port"), "{error:#}");
    }

    #[tokio::test]
    async fn a_client_is_run_to_its_end() {
        assert_eq!(run(&mut sh("echo hola"), READY_WITHIN).await.unwrap(), "hola\n");
        let error = run(&mut sh("echo why >&2; exit 7"), READY_WITHIN).await.unwrap_err();
        assert!(error.to_string().contains("why"), "{error:#}");
        let began = Instant::now();
        let error = run(&mut sh("sleep 600 & wait"), Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("does not end"), "{error:#}");
        assert!(began.elapsed() < READY_WITHIN);
    }
}
