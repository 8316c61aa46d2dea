//! The connections to the server: a pool of each kind, what an error means, and what is tried again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::OpenError;
use super::lent::{Client, Lent};
use super::settings::Settings;
use crate::directory::DirectoryError;

/// Connections that write catalogs.
const WRITERS: usize = 4;
/// What the one for the text index is told: to take many names at once, which costs less for each. Until then a question looks
/// through them, 16 MiB of them in some 7 ms. Only PostgreSQL knows these.
const FOR_INDEXER: &str = "SET gin_pending_list_limit = '16MB'; SET work_mem = '32MB'";
/// Connections that read.
const READERS: usize = 8;
/// Connections that let peers in, and those that show who is here: neither waits for all that is announced. The first may wait
/// for what one peer announces, if it comes back meanwhile.
const GREETERS: usize = 2;
const SHOWERS: usize = 2;
/// How long a question waits for a connection that others use. A change waits for as long as it takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long each host may take to be connected with, where the address says nothing else (`connect_timeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a connection takes beside that until it can be used.
const SETUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a question or a change may take. The server is told to give up before that.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);
/// How long the server may work on one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a machine may be silent before its connections count as lost.
const SILENCE: Duration = Duration::from_secs(15);
/// What a server is told of a maestro that is silent for as long: in milliseconds, but for the three of the keepalives.
const LET_GO: [(&str, u32); 5] = [
    ("idle_in_transaction_session_timeout", SILENCE.as_secs() as u32 * 1000),
    ("tcp_user_timeout", SILENCE.as_secs() as u32 * 1000),
    ("tcp_keepalives_idle", 5),
    ("tcp_keepalives_interval", 5),
    ("tcp_keepalives_count", 2),
];
/// How often a change is tried that others were in the way of.
const TRIES: u32 = 8;
/// The first pause before the next try; each is twice as long, up to a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Others were in its way; it is worth trying again.
    Conflict(String),
    /// The connection ended, or none could be had.
    Lost(String),
    /// The server lets this maestro not in, or is not who it should be; with what to look at.
    Barred(String),
    /// All connections are in use, which says nothing of the server.
    Busy(String),
    /// Anything else.
    Final(DirectoryError),
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Failure {
        Failure::Final(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let Some(server) = error.as_db_error() else {
            let text = with_causes(&error);
            // What the server did not say happened on the way to it.
            return match error.is_closed() || is_io(&error) {
                true => Failure::Lost(text),
                false => Failure::Final(DirectoryError::Failed(text)),
            };
        };
        let (code, text) = (server.code(), server.message().to_owned());
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        let lost = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            // After a failover the one that was first may answer, and takes no changes.
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ];
        match code {
            code if conflicts.contains(code) => Failure::Conflict(text),
            code if lost.contains(code) || code.code().starts_with("08") => Failure::Lost(text),
            code if *code == SqlState::DISK_FULL => Failure::Final(DirectoryError::Full(text)),
            code if *code == SqlState::QUERY_CANCELED => Failure::Final(DirectoryError::Failed(format!(
                "the database gave up after {} s: {text}",
                STATEMENT_TIMEOUT.as_secs()
            ))),
            code => Failure::Final(DirectoryError::Failed(format!("{text} (SQLSTATE {})", code.code()))),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Failure {
        match error {
            PoolError::Backend(error) => {
                let text =
                    error.as_db_error().map_or_else(|| with_causes(&error), |said| said.message().to_owned());
                match remedy(&error) {
                    Some(remedy) => Failure::Barred(format!("{text}; {remedy}")),
                    None => Failure::Lost(text),
                }
            }
            PoolError::Timeout(TimeoutType::Wait) => {
                Failure::Busy(format!("all connections are in use for {} s", WAIT_TIMEOUT.as_secs()))
            }
            PoolError::Timeout(_) => Failure::Lost("no connection could be made in time".to_owned()),
            error => Failure::Lost(with_causes(&error)),
        }
    }
}

impl From<Failure> for DirectoryError {
    fn from(failure: Failure) -> DirectoryError {
        match failure {
            // The database is well, and has more to do at once than it can.
            Failure::Conflict(text) => {
                DirectoryError::Busy(format!("{text}, {TRIES} times; others change the same rows"))
            }
            Failure::Lost(text) | Failure::Barred(text) => DirectoryError::Unavailable(text),
            Failure::Busy(text) => DirectoryError::Busy(text),
            Failure::Final(error) => error,
        }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> OpenError {
        match failure {
            Failure::Lost(text) | Failure::Conflict(text) | Failure::Busy(text) => {
                OpenError::Unreachable(text)
            }
            Failure::Barred(text) => OpenError::Refused(text),
            Failure::Final(error) => OpenError::Refused(error.to_string()),
        }
    }
}

/// What to look at where a server that answers lets this maestro not in, which waiting does not change.
fn remedy(error: &tokio_postgres::Error) -> Option<&'static str> {
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => {
            return Some("look at the user in store, and at store_password_file");
        }
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            return Some("look at the user and at sslmode in store, and at pg_hba.conf on the server");
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            return Some(
                "look at the database in store; postgresql.md in /usr/share/doc/maestrod says how one is made",
            );
        }
        _ => {}
    }
    let text = with_causes(error);
    if text.contains("invalid peer certificate") {
        return Some(
            "store must name the host as its certificate does, and store_ca_file have what that comes from",
        );
    }
    if text.contains("password missing") {
        return Some(
            "the server asks for a password: put it into a file, and name that with store_password_file",
        );
    }
    text.contains("server does not support TLS")
        .then_some("turn TLS on at the server (ssl = on), or leave sslmode=require out of store")
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<std::io::Error>())
}

/// The error and what caused it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Connections of one kind.
#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool,
    tls: MakeRustlsConnect,
    lost: Arc<Reach>,
}

/// All connections, by what they are for: none waits for those of another kind.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) readers: Connections,
    pub(super) writers: Connections,
    /// Those that tell who comes.
    pub(super) greeters: Connections,
    /// Those that tell who is here.
    pub(super) showers: Connections,
    /// The one that brings names to the text index.
    pub(super) indexer: Connections,
    /// The one that tells the other maestros that this one is alive.
    pub(super) pulse: Connections,
}

/// Whether the server was reached when it was last tried, and where it is.
#[derive(Debug)]
struct Reach {
    place: String,
    is_lost: AtomicBool,
}

impl Kinds {
    /// None is made before one is needed.
    pub(super) fn new(settings: &Settings) -> Result<Kinds, OpenError> {
        let lost = Arc::new(Reach { place: settings.place(), is_lost: AtomicBool::new(false) });
        let tls = MakeRustlsConnect::new(settings.tls()?);
        let make = |most, wait, told| Connections::new(settings, most, wait, told, &tls, &lost);
        Ok(Kinds {
            readers: make(READERS, Some(WAIT_TIMEOUT), "")?,
            writers: make(WRITERS, None, "")?,
            indexer: make(1, None, FOR_INDEXER)?,
            greeters: make(GREETERS, None, "")?,
            showers: make(SHOWERS, None, "")?,
            pulse: make(1, None, "")?,
        })
    }
}

impl Connections {
    /// At most so many, each waited for so long; `told` is SQL that it is well to be without.
    fn new(
        settings: &Settings,
        most: usize,
        wait: Option<Duration>,
        told: &'static str,
        tls: &MakeRustlsConnect,
        lost: &Arc<Reach>,
    ) -> Result<Connections, OpenError> {
        let mut server = settings.server.clone();
        let each = server.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let hosts = u32::try_from(server.get_hosts().len()).unwrap_or(u32::MAX);
        let create = each.saturating_mul(hosts).saturating_add(SETUP_TIMEOUT);
        server
            .application_name("maestrod")
            .connect_timeout(each)
            .keepalives_idle(SILENCE)
            .tcp_user_timeout(SILENCE);
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(server, tls.clone(), config))
            .max_size(most)
            .runtime(Runtime::Tokio1)
            .wait_timeout(wait)
            .create_timeout(Some(create))
            .recycle_timeout(Some(SETUP_TIMEOUT))
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move {
                    let sql = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
                    client.batch_execute(&sql).await.map_err(HookError::Backend)?;
                    // Rows that a maestro holds which is frozen, or cut off, are let go of: its peers are elsewhere by then, and
                    // wait for them. Not every engine has all of it.
                    for (name, value) in LET_GO {
                        let _ = client.batch_execute(&format!("SET {name} = {value}")).await;
                    }
                    // Compiling a question takes longer than answering it. Only PostgreSQL does so.
                    let _ = client.batch_execute("SET jit = off").await;
                    let _ = client.batch_execute(told).await;
                    Ok(())
                })
            }))
            .build()
            .map_err(|error| OpenError::Refused(error.to_string()))?;
        Ok(Connections { pool, tls: tls.clone(), lost: Arc::clone(lost) })
    }

    /// A connection.
    pub(super) async fn one(&self) -> Result<Object, Failure> {
        Ok(self.pool.get().await?)
    }

    /// Runs `work` on a connection. Where others were in its way it is run again, up to some times; where the connection
    /// had ended, once more on another one. So it must be something that may be done twice. Where nobody waits for the
    /// answer any more, the server is told to give up.
    pub(super) async fn run<T, F>(&self, work: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (mut tries, mut losses) = (1, 0);
        loop {
            let done = match self.one().await {
                Ok(connection) => {
                    let (lent, client) = Lent::new(connection, &self.tls).await;
                    match tokio::time::timeout(CALL_TIMEOUT, work(client)).await {
                        Ok(done) => {
                            lent.end();
                            done
                        }
                        Err(_) => {
                            // They may be as silent, all of them.
                            self.pool.retain(|_, _| false);
                            losses += 1;
                            Err(Failure::Lost(format!("no answer for {} s", CALL_TIMEOUT.as_secs())))
                        }
                    }
                }
                Err(failure) => Err(failure),
            };
            match done {
                Ok(answer) => {
                    self.reached();
                    return Ok(answer);
                }
                Err(Failure::Conflict(_)) if tries < TRIES => {
                    let pause = (PAUSE * (1 << tries)).min(Duration::from_secs(1));
                    tries += 1;
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                Err(Failure::Lost(_)) if losses == 0 => {
                    losses += 1;
                    // One that was lost with the server may look alive still.
                    self.pool.retain(|client, _| !client.is_closed());
                }
                Err(failure) => {
                    if let Failure::Lost(why) | Failure::Barred(why) = &failure {
                        self.lost(why);
                    }
                    return Err(failure.into());
                }
            }
        }
    }

    /// Says once that the server is lost.
    fn lost(&self, why: &str) {
        let Reach { place, is_lost } = &*self.lost;
        if !is_lost.swap(true, Ordering::Relaxed) {
            tracing::error!(error = %why, "the database {place} cannot be reached: {why}; it is tried again with every question");
        }
    }

    /// Says once that it is back.
    fn reached(&self) {
        let Reach { place, is_lost } = &*self.lost;
        if is_lost.load(Ordering::Relaxed) && is_lost.swap(false, Ordering::Relaxed) {
            tracing::info!("the database {place} is reached again");
        }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("lost", &self.lost).finish_non_exhaustive()
    }
}
