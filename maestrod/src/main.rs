//! The program: its command line, its life from the start to the last signal, and its exit codes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what this file prints is the program's answer to its caller"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};
use maestrod::config::{Config, DEFAULT_PATH, EMBEDDED, Policy};
use maestrod::directory::sqlite::{Copied, backup};
use maestrod::server::{Running, Server, StartError, database_path, read_join_token};
use maestrod::{doctor, status};
use p2p_manual::Pages;
use p2p_proto::control::ConfigAnswer;
use p2p_proto::diagnosis::{Check, Diagnosis};
use p2p_service::config::{self, ConfigError, Loaded, Sources};
use p2p_service::health::{PATIENCE, Watchdog};
use p2p_service::signals::{Signal, Signals};
use p2p_service::status::{counted, size};
use p2p_service::tasks::Tasks;
use p2p_service::{files, log, memory, notify};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the tasks may take to end: below the five seconds in which the whole program must.
const GRACE: Duration = Duration::from_secs(4);
/// How long the database may take to be closed after that, which flushes it: the rest of the five seconds.
const CLOSES: Duration = Duration::from_millis(900);
/// Exit code of a usage or configuration that is not valid, clap's own.
const EXIT_CONFIG: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  maestrod                                   with /etc/maestrod/maestrod.toml, if it is there
  maestrod --state-dir ~/maestro --admission open
  maestrod --config lab.toml --check-config  says all that is wrong with it
  maestrod --print-config                    what would be in force: file, flags and defaults
  maestrod status                            says what the one that runs holds
  maestrod backup /var/backups/maestrod.db   copies the directory while it runs
  maestrod doctor                            says what is wrong with the one that runs, if anything
  maestrod token                             prints the join token, for `p2pctl join HOST --token TOKEN`

The directory is a file in the state directory, or a PostgreSQL database (store in the configuration), which several maestros
with the same identity can share: then peers that have all of them in their list need none of them in particular. How is in
postgresql.md and operations.md, in /usr/share/doc/maestrod.

Exit codes: 0 after SIGTERM or SIGINT, 1 if it cannot start or go on, 2 if the usage or the configuration is not valid.
SIGHUP reads the configuration again. P2P_LOG replaces the configured log filter.";

const DOCTOR_HELP: &str = "\
Examples:
  sudo maestrod doctor
  maestrod doctor --state-dir ~/maestro
  maestrod doctor --json | jq -r .verdict

It looks at: configuration, state directory, identity, join token, database, clock, ports, peers, and who may join. Flags
with which maestrod runs go before the word: maestrod --rest-listen 127.0.0.1:9100 doctor.

Exit codes: 0 all is well, 1 there are warnings, 2 there are problems.";

const STATUS_HELP: &str = "\
Examples:
  maestrod status
  maestrod --rest-listen 127.0.0.1:9100 status
  maestrod status --json | jq .peers.here

It asks the maestrod that runs, over its REST interface: peers, files, contents, size of the database, since when it runs.

Exit codes: 0 it answered, 1 it did not.";

const BACKUP_HELP: &str = "\
Examples:
  sudo maestrod backup /var/backups/maestrod.sqlite
  maestrod --state-dir ~/maestro backup ~/maestro-$(date +%F).sqlite

The copy is of one moment; maestrod may run meanwhile, and waits for nothing. A file of that name is replaced when the copy
is whole. It has the directory alone: copy identity.key, which is the network, and join-token as well. How to restore it is
in operations.md, in /usr/share/doc/maestrod. A directory in a PostgreSQL database is backed up with pg_dump instead: see
postgresql.md there.

Exit codes: 0 it is copied, 1 it is not.";

/// The directory server of a peer-to-peer network: who is here, and who has which content.
#[derive(Debug, Parser)]
#[command(name = "maestrod", version, after_help = EXAMPLES)]
struct Args {
    /// Configuration file [default: /etc/maestrod/maestrod.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the identity, the join token and the database are
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// What this maestro calls itself
    #[arg(long)]
    name: Option<String>,
    /// Host and port of the REST interface
    #[arg(long, value_name = "HOST:PORT")]
    rest_listen: Option<String>,
    /// Host and port on which peers connect
    #[arg(long, value_name = "HOST:PORT")]
    grpc_listen: Option<String>,
    /// What a new peer must show
    #[arg(long, value_name = "POLICY")]
    admission: Option<Policy>,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
    /// Print the configuration as it would be in force, with where each value comes from, and exit
    #[arg(long)]
    print_config: bool,
    /// Write the manual pages into this directory and exit
    #[arg(long, value_name = "DIR", hide = true)]
    manual: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

const PAGES: Pages<'_> = Pages {
    section: "8",
    files: &[
        ("/etc/maestrod/maestrod.toml", "The configuration; see maestrod.toml(5)."),
        ("/var/lib/maestrod", "The state: the network's identity, the join token, and the directory."),
    ],
    see_also: &["maestrod(8)", "maestrod.toml(5)", "p2pd(8)", "p2pctl(1)", "systemctl(1)", "journalctl(1)"],
};

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the join token that a new peer shows
    Token,
    /// Say what the maestrod that runs holds
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Copy the directory's database to a file, while maestrod runs or not
    #[command(after_help = BACKUP_HELP)]
    Backup {
        /// Where the copy goes
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Examine everything that maestrod needs, and say what is wrong and what to do
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

impl Args {
    /// The file's configuration with the flags over it, and where each value comes from.
    fn load(&self) -> Result<(Config, Sources), ConfigError> {
        let file = match &self.config {
            Some(path) => Some(path.as_path()),
            None => Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists()),
        };
        let (mut config, document, problems) = match file.map(config::read).transpose()? {
            Some(Loaded { value, document, problems }) => (value, Some(document), problems),
            None => (Config::default(), None, Vec::new()),
        };
        let mut flags = Vec::new();
        let mut replace = |value: &mut String, flag: &Option<String>, key, name| {
            if let Some(flag) = flag {
                value.clone_from(flag);
                flags.push((key, name));
            }
        };
        replace(&mut config.name, &self.name, "name", "--name");
        replace(&mut config.rest.listen, &self.rest_listen, "rest.listen", "--rest-listen");
        replace(&mut config.grpc.listen, &self.grpc_listen, "grpc.listen", "--grpc-listen");
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
            flags.push(("state_dir", "--state-dir"));
        }
        if let Some(policy) = self.admission {
            config.admission.policy = policy;
            flags.push(("admission.policy", "--admission"));
        }
        let sources = Sources { document, flags };
        sources.check(problems, config.problems())?;
        Ok((config, sources))
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
    let (config, sources) = match (args.load(), &args.command) {
        (Ok(loaded), _) => loaded,
        (Err(error), Some(Command::Doctor { json })) => {
            return show(&Diagnosis::of(vec![Check::problem("configuration", error.to_string())]), *json);
        }
        (Err(error), _) => return refuse(&error),
    };
    if let Some(Command::Doctor { json }) = args.command {
        return examine(&config, json);
    }
    if args.check_config {
        println!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    if args.print_config {
        let file = sources.document.as_ref().map(|document| document.path().display().to_string());
        let entries = config::entries(&config, None, &sources, Config::is_live);
        print!("{}", ConfigAnswer { file, entries }.to_toml());
        return ExitCode::SUCCESS;
    }
    match &args.command {
        Some(Command::Token) => return print_token(&config),
        Some(Command::Status { json }) => return print_status(&config, *json),
        Some(Command::Backup { file }) => return copy_directory(&config, file),
        Some(Command::Doctor { .. }) | None => {}
    }
    if let Err(error) = log::init("maestrod", &config.log) {
        return fail(EXIT_CONFIG, &error.into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("cannot start the runtime: {error}"));
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(run(&args, config));
        // Who was still asking goes with its task, and the last of them closes the database.
        runtime.shutdown_timeout(CLOSES);
        notify::finish();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

async fn run(args: &Args, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::install().map_err(|error| anyhow!("cannot take the signals over: {error}"))?;
    files::raise_limit();
    let tasks = Tasks::new();
    let _watchdog = Watchdog::start(tasks.health()).context("cannot start the watchdog's thread")?;
    // It may wait for its database, or bring it to this release, for as long as that takes.
    let start = async {
        let server = Server::bind(config).await?;
        let (rest, grpc) = (server.rest_addr().to_string(), server.grpc_addr().to_string());
        let id = server.maestro_id().to_string();
        Ok::<_, StartError>((server.run(&tasks).await?, rest, grpc, id))
    };
    let (running, rest, grpc, id) = tokio::select! {
        started = start => started?,
        () = told_to_end(&mut signals) => {
            notify::stopping();
            tracing::info!("ending");
            tasks.shutdown(GRACE).await;
            return Ok(());
        }
    };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        version,
        maestro_id = id,
        rest,
        grpc,
        "maestrod {version} is ready: maestro {id}, REST on {rest}, gRPC on {grpc}"
    );
    let bound = [("X_P2P_REST", &*rest), ("X_P2P_GRPC", &*grpc), ("X_P2P_ID", &*id)];
    notify::ready(&running.status().await?, &bound);

    let failure = serve_until_told(args, &mut signals, &tasks, &running, &bound).await;
    notify::stopping();
    tokio::select! {
        _ = tasks.shutdown(GRACE) => {}
        () = told_to_end(&mut signals) => tracing::warn!("told twice to end, ending at once"),
    }
    match failure {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

/// Ends with `None` when a signal says so, or with the failure that ends the maestro.
async fn serve_until_told(
    args: &Args,
    signals: &mut Signals,
    tasks: &Tasks,
    running: &Running,
    bound: &[(&str, &str)],
) -> Option<anyhow::Error> {
    let heart = tasks.heartbeat("main", PATIENCE);
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
                    reload(args, running);
                    match running.status().await {
                        Ok(status) => notify::ready(&status, bound),
                        Err(error) => return Some(error.into()),
                    }
                }
            },
            failure = tasks.failed() => {
                tracing::error!(task = failure.name, "ending: {failure}; systemd starts it again, if it is told to");
                return Some(failure.into());
            }
            () = heart.due() => {}
        }
    }
}

async fn told_to_end(signals: &mut Signals) {
    while signals.next().await != Signal::Terminate {}
}

fn reload(args: &Args, running: &Running) {
    match args.load() {
        Ok((config, _)) => running.reload(config).log("maestrod"),
        Err(error) => config::log_refused(&error),
    }
}

fn examine(config: &Config, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => show(&runtime.block_on(doctor::examine(config)), json),
        Err(error) => fail(EXIT_CONFIG, &anyhow!("cannot start the runtime: {error}")),
    }
}

fn print_status(config: &Config, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(status::ask_running(config)).map_err(|error| anyhow!(error)),
        Err(error) => Err(anyhow!("cannot start the runtime: {error}")),
    };
    match asked
        .and_then(|status| if json { Ok(serde_json::to_string(&status)?) } else { Ok(status.to_text()) })
    {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

fn copy_directory(config: &Config, file: &Path) -> ExitCode {
    if config.store != EMBEDDED {
        return fail(
            1,
            &anyhow!(
                "this maestro's directory is in a PostgreSQL database, which is backed up with pg_dump: see \
                 postgresql.md in /usr/share/doc/maestrod"
            ),
        );
    }
    match backup(&database_path(&config.state_dir), file) {
        Ok(Copied { bytes, peers }) => {
            let (peers, size) = (counted(peers, "peer", "peers"), size(bytes));
            println!("the directory with {peers} is in {}, {size}", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error.into()),
    }
}

fn show(diagnosis: &Diagnosis, json: bool) -> ExitCode {
    match json {
        true => match serde_json::to_string(diagnosis) {
            Ok(text) => println!("{text}"),
            Err(error) => return fail(EXIT_CONFIG, &error.into()),
        },
        false => println!("{}", doctor::table(diagnosis)),
    }
    ExitCode::from(diagnosis.verdict.exit_code())
}

fn print_token(config: &Config) -> ExitCode {
    match read_join_token(&config.state_dir) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err((path, error)) => {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "it is made when maestrod first starts; if that was with another --state-dir, name it here too"
                }
                std::io::ErrorKind::PermissionDenied => "run this as the user of maestrod, or with sudo",
                _ => "correct that",
            };
            fail(1, &anyhow!("cannot read the join token {}: {error}; {hint}", path.display()))
        }
    }
}

/// A line for each thing that is wrong.
fn refuse(error: &ConfigError) -> ExitCode {
    for line in error.lines() {
        eprintln!("maestrod: {line}");
    }
    ExitCode::from(EXIT_CONFIG)
}

/// One line: errors here carry their causes in their own text.
fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("maestrod: {error}");
    ExitCode::from(code)
}
