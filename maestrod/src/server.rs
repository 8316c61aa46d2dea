//! The composition: the one place that knows all the rooms, and one path for the program and its tests.
//!
//! [`Server::bind`] takes what must be had (the state directory, the database, the ports), [`Server::run`] starts the
//! tasks, and [`Running`] is what is left to talk to while they run.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_identity::{Identity, IdentityError, PeerId, TlsError};
use p2p_service::config::Reloaded;
use p2p_service::health::PATIENCE;
use p2p_service::http::LocalOnly;
use p2p_service::listen::ListenError;
use p2p_service::passage::{MessageRoom, held_out};
use p2p_service::state_dir::{StateDir, StateDirError};
use p2p_service::status::{STATUS_EVERY, StatusLine, counted};
use p2p_service::tasks::Tasks;
use p2p_service::{bearer, http, listen, memory, notify, wire};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tower::util::{MapRequestLayer, MapResponseLayer};

use crate::admission::JoinToken;
use crate::census::Census;
use crate::config::Config;
use crate::directory::postgres::{self, PostgresDirectory};
use crate::directory::sqlite::{OpenError, SqliteDirectory};
use crate::directory::{Directory, DirectoryError, Totals};
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::rest::RestState;
use crate::sync::SyncContext;
use crate::{grpc, rest, retention};

/// File of the join token, in the state directory.
pub const TOKEN_FILE: &str = "join-token";
/// Bytes of long messages of peers that are held at once.
const MESSAGES: usize = 96 << 20;
/// Bytes of one call of a peer that may come in before they are read: each connection can have so much lie here.
const STREAM_WINDOW: u32 = 256 * 1024;
/// File of the identity.
pub(crate) const KEY_FILE: &str = "identity.key";
/// File of the index.
pub(crate) const DATABASE_FILE: &str = "directory.sqlite";

/// Why the maestro cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The join token cannot be read or made.
    #[error(transparent)]
    Token(io::Error),
    /// The index cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The index's database cannot be used.
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
    /// The index does not answer.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A port does not say which it is.
    #[error("cannot find out which port was bound: {0}")]
    Address(io::Error),
}

/// How often a database that cannot be reached at the start is tried.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// So often systemd is asked for more time until the database is ready, and for as much again.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// Where the index is.
enum Store {
    Embedded(Arc<SqliteDirectory>),
    Shared(Arc<PostgresDirectory>),
}

/// A maestro that has all it needs and does not serve yet.
pub struct Server {
    config: Config,
    state_dir: StateDir,
    identity: Arc<Identity>,
    join_token: JoinToken,
    store: Store,
    rest: (TcpListener, SocketAddr),
    grpc: (TcpListener, SocketAddr),
}

impl Server {
    /// Takes the state directory, opens what is in it (made if it is missing) and binds the ports.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the first thing that cannot be had. What was taken before is given back.
    pub async fn bind(config: Config) -> Result<Server, StartError> {
        let state_dir = StateDir::open(&config.state_dir)?;
        let identity = Arc::new(Identity::load_or_create(&state_dir.join(KEY_FILE))?);
        let token_path = state_dir.join(TOKEN_FILE);
        let token = bearer::load_or_create_token(&token_path).map_err(StartError::Token)?;
        let rest = bind("REST", "[rest] listen", &config.rest.listen).await?;
        let grpc = bind("gRPC", "[grpc] listen", &config.grpc.listen).await?;
        let store = match config.database()? {
            None => Store::Embedded(Arc::new(open(state_dir.private(DATABASE_FILE)?).await?)),
            Some(settings) => Store::Shared(Arc::new(PostgresDirectory::new(&settings)?)),
        };
        let path = token_path.display();
        tracing::info!(%path, "the join token is in {path}; `maestrod token` prints it");
        let join_token = JoinToken::new(&token);
        Ok(Server { config, state_dir, identity, join_token, store, rest, grpc })
    }

    /// Where the REST interface listens.
    pub fn rest_addr(&self) -> SocketAddr {
        self.rest.1
    }

    /// Where peers connect.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.1
    }

    /// The identity that peers pin.
    pub fn maestro_id(&self) -> PeerId {
        self.identity.id()
    }

    /// Starts to serve. The tasks run until their token is cancelled; keep the [`Running`] until they have ended.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the index does not answer, or the identity makes no TLS configuration. A database that cannot be
    /// reached is waited for; the REST interface says so meanwhile.
    pub async fn run(self, tasks: &Tasks) -> Result<Running, StartError> {
        let (metrics, local) = (Arc::new(Metrics::new()), allowed_hosts(&self.config, self.rest.1));
        let directory: Arc<dyn Directory> = match self.store {
            Store::Embedded(directory) => {
                directory.report_to(&tasks.health());
                directory
            }
            Store::Shared(directory) => {
                let rest = Meanwhile { rest: &self.rest.0, local: &local, metrics: &metrics };
                wait_for_database(&directory, self.identity.id(), rest).await?;
                let (heart, token) = (tasks.heartbeat("text-index", PATIENCE), tasks.token());
                let indexing = Arc::clone(&directory);
                tasks.spawn("text-index", async move { indexing.keep_text_index(heart, token).await });
                directory
            }
        };
        let maestro_id = self.identity.id();
        let (settings, settings_seen) = watch::channel(Arc::new(self.config.clone()));
        let presence = Presence::start(Arc::clone(&directory), settings_seen.clone(), tasks).await?;

        let census = Census::start(Arc::clone(&directory), presence.clone(), tasks);

        let rest_state = RestState {
            directory: Arc::clone(&directory),
            presence: presence.clone(),
            settings: settings_seen.clone(),
            maestro_id,
            census,
            metrics: Arc::clone(&metrics),
            started: Instant::now(),
        };
        let (rest, token) =
            (http::serve(self.rest.0, rest::router(rest_state, local, tasks), tasks.token()), tasks.token());
        tasks.spawn("rest", async move {
            rest.await;
            if token.is_cancelled() { Ok(()) } else { Err("the listener is gone".into()) }
        });

        let incoming = wire::incoming(self.grpc.0, &self.identity, wire::Accept::signalling(), tasks)?;
        let forgetting = retention::keep_forgetting(
            Arc::clone(&directory),
            settings_seen.clone(),
            Arc::clone(&metrics),
            tasks.clone(),
        );
        tasks.spawn("retention", forgetting);
        let context = SyncContext {
            metrics,
            directory: Arc::clone(&directory),
            presence,
            join_token: self.join_token,
            identity: self.identity,
            settings: settings_seen,
            token: tasks.token(),
        };
        let service = grpc::server(grpc::DirectoryService::new(context, tasks.clone()));
        let keepalive = self.config.lease() / 3;
        let (token, messages, answering) = (tasks.token(), MessageRoom::new(MESSAGES), tasks.clone());
        tasks.spawn("grpc", async move {
            // Question and patience together are less than the lease: a peer that is silent is found out within it.
            wire::server()
                .http2_keepalive_interval(Some(keepalive))
                .http2_keepalive_timeout(Some(keepalive))
                .initial_stream_window_size(STREAM_WINDOW)
                .layer(MapRequestLayer::new(move |request: ::http::Request<Body>| {
                    grpc::held_in(&messages, request)
                }))
                .layer(MapResponseLayer::new(move |response: ::http::Response<Body>| {
                    held_out(&answering, response)
                }))
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, token.cancelled_owned())
                .await?;
            Ok(())
        });

        tasks.spawn("status", keep_status(Arc::clone(&directory), tasks.clone()));
        Ok(Running { settings, directory, _state_dir: self.state_dir })
    }
}

/// A maestro that serves. Holds the lock of the state directory.
pub struct Running {
    settings: watch::Sender<Arc<Config>>,
    directory: Arc<dyn Directory>,
    // The last to go: who gets the directory next finds the database closed.
    _state_dir: StateDir,
}

impl Running {
    /// Takes over what can change without a restart.
    pub fn reload(&self, new: Config) -> Reloaded {
        let (config, reloaded) = self.settings.borrow().reloaded(new);
        self.settings.send_replace(Arc::new(config));
        reloaded
    }

    /// What is visible now, in one line.
    ///
    /// # Errors
    ///
    /// If the index does not answer.
    pub async fn status(&self) -> Result<String, DirectoryError> {
        match self.directory.totals().await {
            Ok(totals) => Ok(status_line(totals)),
            Err(DirectoryError::Unavailable(why)) => Ok(format!("the database cannot be reached: {why}")),
            Err(DirectoryError::Busy(why)) => Ok(format!("the database has too much to do: {why}")),
            Err(error) => Err(error),
        }
    }
}

/// Where the index of a state directory is.
pub fn database_path(state_dir: &Path) -> PathBuf {
    state_dir.join(DATABASE_FILE)
}

/// The join token of the state directory, for whoever is to join.
///
/// # Errors
///
/// If the file cannot be read; of kind `NotFound` before the first start.
pub fn read_join_token(state_dir: &Path) -> Result<String, (PathBuf, io::Error)> {
    let path = state_dir.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(token.trim().to_owned()),
        Err(error) => Err((path, error)),
    }
}

async fn bind(what: &str, key: &str, address: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = listen::tcp(what, key, address).await?;
    let address = listener.local_addr().map_err(StartError::Address)?;
    Ok((listener, address))
}

/// An address names this machine and no web page's, so the one that the interface listens on may be called by.
fn allowed_hosts(config: &Config, listens: SocketAddr) -> LocalOnly {
    let ip = listens.ip();
    let own = (!ip.is_unspecified()).then(|| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
    LocalOnly::new(config.rest.allowed_hosts.iter().cloned().chain(own))
}

/// What is served while the database is waited for.
struct Meanwhile<'a> {
    rest: &'a TcpListener,
    local: &'a LocalOnly,
    metrics: &'a Arc<Metrics>,
}

/// Waits until the database lets this maestro in, and brings it to this release's schema.
async fn wait_for_database(
    directory: &PostgresDirectory,
    maestro: PeerId,
    Meanwhile { rest, local, metrics }: Meanwhile<'_>,
) -> Result<(), StartError> {
    let place = directory.place();
    let mut waiting = None;
    let mut asked: Option<Instant> = None;
    loop {
        let ready = async {
            directory.prepare().await?;
            directory.claim(maestro).await
        };
        match patiently("connects to the database, or brings it to this release", ready).await {
            Ok(()) => break,
            Err(postgres::OpenError::Unreachable(why)) => {
                if waiting.is_none() {
                    tracing::error!(error = %why, "the database {place} cannot be reached: {why}; it is waited for");
                    notify::status(&format!("waiting for the database {place}: {why}"));
                    let said = rest::say_unavailable(rest, local.clone(), Arc::clone(metrics), &why);
                    waiting = Some(said.map_err(StartError::Address)?);
                }
                if asked.is_none_or(|asked| asked.elapsed() >= DATABASE_PATIENCE) {
                    notify::still_starting(DATABASE_PATIENCE * 2);
                    asked = Some(Instant::now());
                }
                tokio::time::sleep(DATABASE_RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(waiting) = waiting {
        waiting.end().await;
        tracing::info!("the database {place} is reached");
    }
    Ok(())
}

/// Opens the index in a file.
async fn open(path: PathBuf) -> Result<SqliteDirectory, StartError> {
    let opening = tokio::task::spawn_blocking(move || SqliteDirectory::open(&path));
    let opened = patiently("brings the database to this release", opening).await;
    Ok(opened.map_err(|error| DirectoryError::Failed(error.to_string()))??)
}

/// Asks systemd for more time for as long as this takes, and tells it what is done: a database of an older release may take
/// minutes to be brought to this one.
async fn patiently<T>(status: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(DATABASE_PATIENCE, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                notify::status(status);
                notify::still_starting(DATABASE_PATIENCE * 2);
            }
        }
    }
}

async fn keep_status(directory: Arc<dyn Directory>, tasks: Tasks) -> p2p_service::tasks::TaskResult {
    let (token, heart) = (tasks.token(), tasks.heartbeat("status", PATIENCE));
    let mut line = StatusLine::default();
    let mut ticks = tokio::time::interval(STATUS_EVERY);
    loop {
        heart.beat();
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = ticks.tick() => memory::give_back(),
        }
        match directory.totals().await {
            Ok(totals) => {
                line.say(status_line(totals));
            }
            // The store tells the journal once, and again when it is over.
            Err(DirectoryError::Unavailable(why)) => {
                line.say(format!("the database cannot be reached: {why}"));
            }
            Err(error) => tracing::warn!(%error, "cannot count what is in the directory: {error}"),
        }
    }
}

fn status_line(totals: Totals) -> String {
    let Totals { peers, files } = totals;
    format!(
        "{} online; {} in the directory",
        counted(peers, "peer", "peers"),
        counted(files, "file", "files")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_for_people() {
        let said = |peers, files| status_line(Totals { peers, files });
        assert_eq!(said(3, 1204), "3 peers online; 1,204 files in the directory");
        assert_eq!(said(1, 0), "1 peer online; no files in the directory");
    }
}
