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
use p2p_service::signals::{Signal, Signals};
use p2p_service::tasks::Tasks;
use p2p_service::{log, memory, notify};
use p2pd::config::{Config, DEFAULT_PATH};
use p2pd::daemon::{Daemon, Running};
use p2pd::user_dirs::UserDirs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the tasks may take to end: below the five seconds in which the whole program must.
const GRACE: Duration = Duration::from_secs(4);
/// How often systemd is told how things stand.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Exit code of a usage or configuration that is not valid, clap's own.
const EXIT_CONFIG: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  p2pd                                       with /etc/p2pd/p2pd.toml, if it is there
  p2pd --config lab.toml --check-config      says what is wrong with it
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
    /// The maestro of the network
    #[arg(long, value_name = "HOST[:PORT]")]
    maestro: Option<String>,
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
    /// The file's configuration with the flags over it.
    fn load(&self) -> anyhow::Result<Config> {
        let own = self.user.then(|| UserDirs::find(|name| std::env::var_os(name))).transpose()?;
        let usual = own.as_ref().map_or(Path::new(DEFAULT_PATH), |own| &own.config_file);
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None if usual.exists() => Config::load(usual)?,
            None => Config::default(),
        };
        if let Some(own) = own {
            own.replace_defaults(&mut config);
        }
        replace(&mut config.name, &self.name);
        replace(&mut config.maestro, &self.maestro);
        replace(&mut config.control.socket, &self.socket);
        replace(&mut config.rest.listen, &self.rest_listen);
        replace(&mut config.grpc.listen, &self.grpc_listen);
        if let Some(dir) = &self.state_dir {
            config.move_state(dir.clone());
        }
        config.check()?;
        Ok(config)
    }
}

fn replace<T: Clone>(value: &mut T, flag: &Option<T>) {
    if let Some(flag) = flag {
        value.clone_from(flag);
    }
}

fn main() -> ExitCode {
    memory::take_small_pages();
    let args = Args::parse();
    if let Some(directory) = &args.manual {
        return match PAGES.write(Args::command(), directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.into()),
        };
    }
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error),
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(run(&args, config));
        // A file that is still read on a blocking thread is nobody's any more.
        runtime.shutdown_timeout(Duration::from_millis(200));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

async fn run(args: &Args, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("cannot take the signals over")?;
    let tasks = Tasks::new();
    let daemon = Daemon::bind(config).await?;
    let (rest, grpc) = (daemon.rest_addr()?.to_string(), daemon.grpc_addr()?.to_string());
    let id = daemon.id().to_string();
    let running = daemon.run(&tasks).await?;
    tracing::info!("p2pd {} is ready: peer {id}, REST on {rest}, gRPC on {grpc}", env!("CARGO_PKG_VERSION"));
    let bound = [("X_P2P_REST", &*rest), ("X_P2P_GRPC", &*grpc), ("X_P2P_ID", &*id)];
    notify::ready(&running.status(), &bound);

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
    let interval = notify::watchdog_interval();
    let mut watchdog = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3600)));
    let mut status = tokio::time::interval(STATUS_EVERY);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate => {
                    tracing::info!("ending");
                    return None;
                }
                Signal::Reload => {
                    notify::reloading();
                    reload(args, running).await;
                    notify::ready(&running.status(), bound);
                }
            },
            failure = tasks.failed() => {
                tracing::error!("ending: {failure}");
                return Some(failure.into());
            }
            _ = watchdog.tick(), if interval.is_some() => notify::watchdog(),
            _ = status.tick() => notify::status(&running.status()),
        }
    }
}

async fn second_terminate(signals: &mut Signals) {
    while signals.next().await != Signal::Terminate {}
}

async fn reload(args: &Args, running: &Running) {
    let reloaded = match args.load() {
        Ok(config) => running.reload(config).await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match reloaded {
        Err(error) => tracing::error!("the configuration is not valid and the old one stays: {error:#}"),
        Ok(reloaded) => {
            for key in &reloaded.changed {
                tracing::info!("configuration changed: {key}");
            }
            if !reloaded.needs_restart.is_empty() {
                let keys = reloaded.needs_restart.join(", ");
                tracing::warn!("these keys keep their old values until p2pd is restarted: {keys}");
            }
            if reloaded == Default::default() {
                tracing::info!("the configuration was read again and is the same");
            }
        }
    }
}

/// One line: errors here carry their causes in their own text.
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("p2pd: {error}");
    ExitCode::from(code)
}
