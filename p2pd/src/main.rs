//! The program: its command line, its life from the start to the last signal, and its exit codes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what this file prints is the program's answer to its caller"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory as _, Parser};
use p2p_manual::Pages;
use p2p_service::config::{self, ConfigError, Loaded, Sources};
use p2p_service::health::{PATIENCE, Watchdog};
use p2p_service::signals::{Signal, Signals};
use p2p_service::status::{STATUS_EVERY, StatusLine};
use p2p_service::tasks::Tasks;
use p2p_service::{files, log, memory, notify};
use p2pd::config::{Config, DEFAULT_PATH, MaestroList};
use p2pd::daemon::{Daemon, Running};
use p2pd::user_dirs::UserDirs;
use tokio::time::MissedTickBehavior;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the tasks may take to end: below the five seconds in which the whole program must.
const GRACE: Duration = Duration::from_secs(4);
/// How long a thread for disks and databases waits for more to do. It is less than between two lines of status, so that at
/// rest none stays: the memory that it has taken, and what was freed before, goes back to the system with it.
const THREADS_WAIT: Duration = Duration::from_secs(3);
/// Exit code of a usage or configuration that is not valid, clap's own.
const EXIT_CONFIG: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  p2pd                                       with /etc/p2pd/p2pd.toml, if it is there
  p2pd --config lab.toml --check-config      says all that is wrong with it
  p2pd --state-dir ~/peer --maestro maestro.lab

Exit codes: 0 after SIGTERM or SIGINT, 1 if it cannot start or go on, 2 if the usage or the configuration is not valid.
SIGHUP reads the configuration again. P2P_LOG replaces the configured log filter.";

/// The peer daemon of a peer-to-peer network: shares directories, and fetches what its user asks for.
#[derive(Debug, Parser)]
#[command(name = "p2pd", version, after_help = EXAMPLES)]
struct Args {
    /// Configuration file [default: /etc/p2pd/p2pd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the identity, the catalog and the transfers are
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// What this peer calls itself
    #[arg(long)]
    name: Option<String>,
    /// The maestro of the network; given several times, several
    #[arg(long, value_name = "HOST[:PORT]")]
    maestro: Vec<String>,
    /// The control socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Host and port of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    rest_listen: Option<String>,
    /// Host and port on which other peers connect
    #[arg(long, value_name = "HOST:PORT")]
    grpc_listen: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
    /// Run for the user who calls: configuration, state and socket are where XDG says, in the user's home
    #[arg(long)]
    user: bool,
    /// Write the manual page into this directory and exit
    #[arg(long, value_name = "DIR", hide = true)]
    manual: Option<PathBuf>,
    /// The user's own places, with `--user`.
    #[arg(skip)]
    own: Option<UserDirs>,
}

const PAGES: Pages<'_> = Pages {
    section: "8",
    files: &[
        ("/etc/p2pd/p2pd.toml", "The configuration; see p2pd.toml(5)."),
        ("/var/lib/p2pd", "The state: identity, catalog, transfers, and the default share, shared."),
        (
            "/run/p2pd/control.sock",
            "The control socket, for root and the group p2pd. Made by systemd, p2pd.socket.",
        ),
        ("~/.config/p2pd/p2pd.toml", "With --user: the configuration ($XDG_CONFIG_HOME)."),
        ("~/.local/state/p2pd", "With --user: the state ($XDG_STATE_HOME)."),
        ("$XDG_RUNTIME_DIR/p2pd/control.sock", "With --user: the control socket."),
    ],
    see_also: &["p2pctl(1)", "p2pd.toml(5)", "maestrod(8)", "systemctl(1)", "journalctl(1)"],
};

impl Args {
    /// The file's configuration with the flags over it, and where each value comes from.
    fn load(&self) -> Result<(Config, Sources), ConfigError> {
        let usual = self.own.as_ref().map_or(Path::new(DEFAULT_PATH), |own| &own.config_file);
        let file = match &self.config {
            Some(path) => Some(path.as_path()),
            None => Some(usual).filter(|path| path.exists()),
        };
        let (mut config, document, problems) = match file.map(config::read::<Config>).transpose()? {
            Some(Loaded { value, document, problems }) => (value, Some(document), problems),
            None => (Config::default(), None, Vec::new()),
        };
        let mut flags: Vec<_> = match &self.own {
            Some(own) => own.replace_defaults(&mut config).into_iter().map(|key| (key, "--user")).collect(),
            None => Vec::new(),
        };
        let maestros = (!self.maestro.is_empty()).then(|| MaestroList::given(self.maestro.clone()));
        let given = [
            replace(&mut config.name, &self.name, "name", "--name"),
            replace(&mut config.maestro, &maestros, "maestro", "--maestro"),
            replace(&mut config.control.socket, &self.socket, "control.socket", "--socket"),
            replace(&mut config.rest.listen, &self.rest_listen, "rest.listen", "--rest-listen"),
            replace(&mut config.grpc.listen, &self.grpc_listen, "grpc.listen", "--grpc-listen"),
        ];
        for (key, flag) in given.into_iter().flatten() {
            flags.retain(|(replaced, _)| *replaced != key);
            flags.push((key, flag));
        }
        if let Some(dir) = &self.state_dir {
            config.move_state(dir.clone());
            flags.retain(|(replaced, _)| *replaced != "state_dir");
            flags.push(("state_dir", "--state-dir"));
        }
        let sources = Sources { document, flags };
        sources.check(problems, config.problems())?;
        Ok((config, sources))
    }
}

/// Where the flag is given, puts it in the place of the value, and gives the key and the flag.
fn replace<T: Clone>(
    value: &mut T,
    flag: &Option<T>,
    key: &'static str,
    name: &'static str,
) -> Option<(&'static str, &'static str)> {
    value.clone_from(flag.as_ref()?);
    Some((key, name))
}

fn main() -> ExitCode {
    memory::take_small_pages();
    p2p_identity::use_fast_ciphers();
    let mut args = Args::parse();
    if let Some(directory) = &args.manual {
        return match PAGES.write(Args::command(), directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.into()),
        };
    }
    if args.user {
        args.own = match UserDirs::find(|name| std::env::var_os(name)) {
            Ok(own) => Some(own),
            Err(error) => return fail(EXIT_CONFIG, &error.into()),
        };
    }
    let (config, sources) = match args.load() {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    if args.check_config {
        println!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = log::init("p2pd", &config.log) {
        return fail(EXIT_CONFIG, &error.into());
    }
    // One thread for the network: on few cores measured 20 % faster than several. Hashing, disks and databases have
    // threads of their own.
    let runtime =
        tokio::runtime::Builder::new_current_thread().thread_keep_alive(THREADS_WAIT).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(&args, config, sources));
        // A file that is still read on a blocking thread is nobody's any more.
        runtime.shutdown_timeout(Duration::from_millis(200));
        notify::finish();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

async fn run(args: &Args, config: Config, sources: Sources) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("cannot take the signals over")?;
    files::raise_limit();
    let tasks = Tasks::new();
    let _watchdog = Watchdog::start(tasks.health()).context("cannot start the watchdog's thread")?;
    let daemon = Daemon::bind(config, sources).await?;
    let (rest, grpc) = (daemon.rest_addr()?.to_string(), daemon.grpc_addr()?.to_string());
    let id = daemon.id().to_string();
    let running = daemon.run(&tasks).await?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        version,
        peer_id = id,
        rest,
        grpc,
        "p2pd {version} is ready: peer {id}, REST on {rest}, gRPC on {grpc}"
    );
    let bound = [("X_P2P_REST", &*rest), ("X_P2P_GRPC", &*grpc), ("X_P2P_ID", &*id)];
    notify::ready(&running.status().await, &bound);

    let failure = serve_until_told(args, &mut signals, &tasks, &running, &bound).await;
    notify::stopping();
    tokio::select! {
        _ = tasks.shutdown(GRACE) => {}
        () = second_terminate(&mut signals) => tracing::warn!("told twice to end, ending at once"),
    }
    failure.map_or(Ok(()), Err)
}

/// Ends with `None` when a signal says so, or with the failure that ends the daemon.
async fn serve_until_told(
    args: &Args,
    signals: &mut Signals,
    tasks: &Tasks,
    running: &Running,
    bound: &[(&str, &str)],
) -> Option<anyhow::Error> {
    let heart = tasks.heartbeat("main", PATIENCE);
    let (mut line, mut status) = (StatusLine::default(), tokio::time::interval(STATUS_EVERY));
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        heart.beat();
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate => {
                    tracing::info!("ending");
                    return None;
                }
                Signal::Reload => {
                    notify::reloading();
                    reload(args, running).await;
                    notify::ready(&running.status().await, bound);
                }
            },
            failure = tasks.failed() => {
                tracing::error!(task = failure.name, "ending: {failure}; systemd starts it again, if it is told to");
                return Some(failure.into());
            }
            () = heart.due() => {}
            _ = status.tick() => {
                line.say(running.status().await);
                memory::give_back();
            }
        }
    }
}

async fn second_terminate(signals: &mut Signals) {
    while signals.next().await != Signal::Terminate {}
}

async fn reload(args: &Args, running: &Running) {
    match args.load() {
        Ok((config, sources)) => match running.reload(config, sources).await {
            Ok(reloaded) => reloaded.log("p2pd"),
            Err(error) => tracing::error!(
                %error,
                "the configuration is not taken and the old one stays: {error}; correct that and reload again"
            ),
        },
        Err(error) => config::log_refused(&error),
    }
}

/// A line for each thing that is wrong.
fn refuse(error: &ConfigError) -> ExitCode {
    for line in error.lines() {
        eprintln!("p2pd: {line}");
    }
    ExitCode::from(EXIT_CONFIG)
}

/// One line: errors here carry their causes in their own text.
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("p2pd: {error}");
    ExitCode::from(code)
}
