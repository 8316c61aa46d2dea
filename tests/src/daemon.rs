//! One daemon, as a process: started, waited for, killed, stopped, started again.
//!
//! A daemon tells that it is ready as it tells systemd: by a datagram to `NOTIFY_SOCKET`, which also carries the addresses
//! that it bound. So the tests give every daemon port 0 and learn the ports, and no test waits for a fixed time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long a daemon may take until it is ready. Long, since a loaded machine is no defect of the daemon.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a daemon that shall refuse to start may take for that.
const REFUSE_WITHIN: Duration = Duration::from_secs(20);
/// How long what was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How much of a log an error shows.
const LOG_SHOWN: usize = 6000;

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What messages call it; unique in `dir`.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Where its log and its notification socket go. A short path: sockets have at most 108 bytes.
    pub dir: PathBuf,
    /// Environment beside the harness's own.
    pub env: Vec<(String, OsString)>,
    /// The network namespace in which it runs, where it is not the harness's own.
    pub namespace: Option<String>,
}

impl Launch {
    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn log_from(&self, offset: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log())?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

/// What a daemon says when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where its REST interface listens.
    pub rest: SocketAddr,
    /// Where its gRPC interface listens.
    pub grpc: SocketAddr,
    /// Its peer ID.
    pub id: String,
}

/// How a daemon ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// How long it took, from the signal or the start.
    pub after: Duration,
    /// What it wrote to stderr in that run.
    pub log: String,
}

/// A daemon that was started, running or not. Killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    launch: Launch,
    ready: Ready,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    child: Child,
    pid: Pid,
    log_from: u64,
    notices: AbortHandle,
}

impl Drop for Run {
    /// Waits until it is gone, which takes some milliseconds: whoever is started next finds its directory free.
    fn drop(&mut self) {
        self.notices.abort();
        let until = Instant::now() + GONE_WITHIN;
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Daemon {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Where it ends instead, with its stderr.
    pub async fn start(launch: Launch) -> Result<Daemon> {
        let (run, ready) = begin(&launch).await?;
        Ok(Daemon { launch, ready, run: Some(run) })
    }

    /// Starts what shall refuse to run, and gives its end.
    ///
    /// # Errors
    /// Where it becomes ready, or does not end.
    pub async fn start_refused(launch: Launch) -> Result<Ended> {
        let began = Instant::now();
        let (mut run, socket) = spawn(&launch)?;
        tokio::select! {
            ended = timeout(REFUSE_WITHIN, run.child.wait()) => {
                let late = || failure(&launch, &run, "neither ends nor becomes ready");
                let status = ended.map_err(|_| late())??;
                Ok(Ended { status, after: began.elapsed(), log: launch.log_from(run.log_from) })
            }
            said = wait_for_ready(&socket) => {
                said?;
                bail!("{} started, and should have refused to", launch.name)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// How it is started; a change counts from the next start on.
    pub fn launch_mut(&mut self) -> &mut Launch {
        &mut self.launch
    }

    /// What it said when it was last ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its process ID.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.run()?.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Whether it was started and not ended by this harness.
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// What it wrote to stderr, in all its runs.
    pub fn log(&self) -> String {
        self.launch.log_from(0)
    }

    /// What it wrote to stderr in its present run.
    pub fn log_of_this_run(&self) -> String {
        self.launch.log_from(self.run.as_ref().map_or(0, |run| run.log_from))
    }

    /// The end of its log, for an error.
    pub fn log_end(&self) -> String {
        shortened(&self.log())
    }

    /// The most memory that it ever had, in bytes (VmHWM).
    ///
    /// # Errors
    /// Where it does not run any more.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// The memory that it has for itself alone now, in bytes (RssAnon).
    ///
    /// # Errors
    /// Where it does not run any more.
    pub fn private_memory(&self) -> Result<u64> {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, key: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let value = line.with_context(|| format!("no {key} in {path}"))?;
        let kib: u64 = value.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// How many file descriptors it has open.
    ///
    /// # Errors
    /// Where it does not run any more.
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid()?);
        Ok(fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
    }

    /// Ends it at once, as the kernel or a power cut would.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn kill_9(&mut self) -> Result<()> {
        kill_process(self.run()?.pid, Signal::KILL)?;
        let mut run = self.run.take().context("it does not run")?;
        run.child.wait().await?;
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.run()?.pid, signal)?)
    }

    /// Asks it to end (SIGTERM), and gives how it did.
    ///
    /// # Errors
    /// Where it does not end within that time.
    pub async fn terminate(&mut self, within: Duration) -> Result<Ended> {
        let began = Instant::now();
        self.signal(Signal::TERM)?;
        let mut run = self.run.take().context("it does not run")?;
        let Ok(status) = timeout(within, run.child.wait()).await else {
            let error = failure(&self.launch, &run, &format!("does not end within {within:?} of SIGTERM"));
            run.child.kill().await?;
            return Err(error);
        };
        Ok(Ended { status: status?, after: began.elapsed(), log: self.launch.log_from(run.log_from) })
    }

    /// Starts it again, with the configuration that its file has now.
    ///
    /// # Errors
    /// Where it still runs, or does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.run.is_none(), "{} still runs", self.launch.name);
        let (run, ready) = begin(&self.launch).await?;
        self.run = Some(run);
        self.ready = ready;
        Ok(())
    }

    fn run(&self) -> Result<&Run> {
        self.run.as_ref().with_context(|| format!("{} does not run", self.launch.name))
    }
}

async fn begin(launch: &Launch) -> Result<(Run, Ready)> {
    let (mut run, socket) = spawn(launch)?;
    let ready = tokio::select! {
        ready = timeout(READY_WITHIN, wait_for_ready(&socket)) => match ready {
            Ok(ready) => ready.with_context(|| format!("{} is ready and does not say how to reach it", launch.name))?,
            Err(_) => return Err(failure(launch, &run, &format!("is not ready within {READY_WITHIN:?}"))),
        },
        status = run.child.wait() => {
            let end = format!("ended before it was ready ({})", status?);
            return Err(failure(launch, &run, &end));
        }
    };
    // What it says later is thrown away, but taken: a full queue would hold its end up.
    let notices = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while socket.recv(&mut buffer).await.is_ok() {}
    });
    run.notices = notices.abort_handle();
    Ok((run, ready))
}

fn spawn(launch: &Launch) -> Result<(Run, UnixDatagram)> {
    let path = launch.dir.join(format!("{}.notify", launch.name));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
    let log = OpenOptions::new().create(true).append(true).open(launch.log())?;
    let log_from = log.metadata()?.len();
    let mut command = match &launch.namespace {
        None => Command::new(&launch.program),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(&launch.program);
            command
        }
    };
    let child = command
        .arg("--config")
        .arg(&launch.config)
        .current_dir(&launch.dir)
        .env("NOTIFY_SOCKET", &path)
        .env_remove("JOURNAL_STREAM")
        .env_remove("P2PD_SOCKET")
        .env("NO_COLOR", "1")
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in a terminal is for the demonstration, which then ends its daemons in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", launch.program.display()))?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it has no process ID")?;
    let notices = tokio::spawn(async {}).abort_handle();
    Ok((Run { child, pid, log_from, notices }, socket))
}

async fn wait_for_ready(socket: &UnixDatagram) -> Result<Ready> {
    let mut buffer = [0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        let said: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        if said.get("READY") != Some(&"1") {
            continue;
        }
        let of = |name: &str| said.get(name).copied().with_context(|| format!("no {name} in {text:?}"));
        return Ok(Ready {
            rest: of("X_P2P_REST")?.parse()?,
            grpc: of("X_P2P_GRPC")?.parse()?,
            id: of("X_P2P_ID")?.to_owned(),
        });
    }
}

fn failure(launch: &Launch, run: &Run, what: &str) -> anyhow::Error {
    let log = launch.log_from(run.log_from);
    anyhow!("{} {what}. It wrote:\n{}", launch.name, shortened(&log))
}

fn shortened(log: &str) -> String {
    let from = log.len().saturating_sub(LOG_SHOWN);
    let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
    match from {
        0 => log.to_owned(),
        _ => format!("[…]{}", &log[from..]),
    }
}
