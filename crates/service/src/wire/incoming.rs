//! From a listener to connections whose caller is known.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p_identity::{Identity, TlsError, peer_of, server_config};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_stream::wrappers::ReceiverStream;

use super::refuse::refuse_plaintext;
use super::stream::{Caller, PeerStream};
use super::turns::{TooSlow, Turns};
use super::{FRAME_LEN, HANDSHAKE_TIMEOUT};
use crate::tasks::Tasks;

/// First byte of a TLS handshake record (RFC 8446, section 5.1). HTTP/2 in plaintext begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;
/// Connections that have not begun a handshake yet; more wait in the kernel's queue.
const SILENT: usize = 4096;
/// How long a connection may take to begin one while many do so: whoever wants something says it at once.
const SILENCE_AMONG_MANY: Duration = Duration::from_secs(2);
/// How often it is said that there is no turn for all.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Pause after the system could not give a connection (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may connect in plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Nobody.
    Off,
    /// Callers on this machine.
    Loopback,
    /// Anyone.
    Anyone,
}

impl Plaintext {
    pub(super) fn admits(self, address: SocketAddr) -> bool {
        match self {
            Self::Off => false,
            Self::Loopback => address.ip().to_canonical().is_loopback(),
            Self::Anyone => true,
        }
    }
}

/// How connections are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Accept {
    plaintext: Plaintext,
    read_buffer_len: usize,
    write_buffer_len: usize,
}

impl Accept {
    /// For connections that carry file data: a buffer of 256 KiB each to read into, and twice that of encrypted data that
    /// waits to go out.
    pub fn bulk(plaintext: Plaintext) -> Self {
        let read_buffer_len = FRAME_LEN as usize;
        Self { plaintext, read_buffer_len, write_buffer_len: 2 * read_buffer_len }
    }

    /// For thousands of connections that carry messages: a small buffer each, which what is longer is read past; TLS only.
    pub fn signalling() -> Self {
        Self { plaintext: Plaintext::Off, read_buffer_len: 1024, write_buffer_len: 64 * 1024 }
    }
}

/// The connections of a listener, handshake done, until the tasks' token is cancelled. A handshake that fails is
/// logged with its reason, and the caller is told.
///
/// # Errors
/// Where no TLS configuration can be made of the identity.
pub fn incoming(
    listener: TcpListener,
    identity: &Identity,
    accept: Accept,
    tasks: &Tasks,
) -> Result<ReceiverStream<io::Result<PeerStream>>, TlsError> {
    let config = server_config(identity)?;
    let (ready, connections) = mpsc::channel(16);
    let turned_away = Mutex::default();
    let door = Arc::new(Door { config, accept, turns: Turns::new(), turned_away, ready });
    let spawner = tasks.clone();
    tasks.spawn("grpc-accept", async move {
        let silent = Arc::new(Semaphore::new(SILENT));
        let token = spawner.token();
        loop {
            let place = tokio::select! {
                () = token.cancelled() => return Ok(()),
                place = Arc::clone(&silent).acquire_owned() => place?,
            };
            let are_many = silent.available_permits() < SILENT * 3 / 4;
            let silence = if are_many { SILENCE_AMONG_MANY } else { HANDSHAKE_TIMEOUT };
            let (tcp, address) = tokio::select! {
                () = token.cancelled() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection on the gRPC port, trying again: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let door = Arc::clone(&door);
            spawner.spawn_detached("grpc-handshake", async move {
                // Those who do not say what they want take no turns of those who do.
                match timeout(silence, begun(tcp)).await {
                    Ok(Ok(Some(begun))) => door.admit(begun, place, address).await,
                    // A port check: connected and left.
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => refused(address, &error),
                    Err(_) => {
                        tracing::debug!(%address, "the connection from {address} to the gRPC port began no handshake");
                    }
                }
            });
        }
    });
    Ok(ReceiverStream::new(connections))
}

/// How a connection began.
enum Begun {
    /// With a handshake, of which all is there that the caller says before it is answered.
    Tls(Box<StartHandshake<TcpStream>>),
    /// With something else.
    Plain(TcpStream),
}

/// Waits until a caller has begun; `None` if it left.
async fn begun(tcp: TcpStream) -> io::Result<Option<Begun>> {
    tcp.set_nodelay(true)?;
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != TLS_HANDSHAKE {
        return Ok(Some(Begun::Plain(tcp)));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.map_err(explain)?;
    Ok(Some(Begun::Tls(Box::new(start))))
}

struct Door {
    config: Arc<ServerConfig>,
    accept: Accept,
    turns: Turns,
    /// When it was said last that somebody had no turn, and how many had none since.
    turned_away: Mutex<(Option<Instant>, u64)>,
    ready: mpsc::Sender<io::Result<PeerStream>>,
}

impl Door {
    /// Lets a caller in when it has its turn. `place` is among those who have not begun.
    async fn admit(&self, begun: Begun, place: OwnedSemaphorePermit, address: SocketAddr) {
        let Some(turn) = self.turns.take(address.ip(), HANDSHAKE_TIMEOUT).await else {
            self.turn_away(address);
            return;
        };
        drop(place);
        match turn.run(self.handshake(begun, address), HANDSHAKE_TIMEOUT).await {
            Ok(Ok(stream)) => {
                // Nobody takes connections any more: the server has stopped.
                let _ = self.ready.send(Ok(stream)).await;
            }
            Ok(Err(error)) => refused(address, &error),
            Err(TooSlow) => {
                tracing::debug!(%address, "the connection from {address} to the gRPC port did not finish its handshake")
            }
        }
    }

    fn turn_away(&self, address: SocketAddr) {
        tracing::debug!(%address, "too many handshakes for the connection from {address}");
        let mut turned_away = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        turned_away.1 += 1;
        if turned_away.0.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            let (count, secs) = (turned_away.1, HANDSHAKE_TIMEOUT.as_secs());
            tracing::warn!(
                %address,
                "too many begin a TLS handshake on the gRPC port at once: {count} connections had no turn within {secs} s, \
                 the last one from {address}"
            );
            *turned_away = (Some(Instant::now()), 0);
        }
    }

    async fn handshake(&self, begun: Begun, address: SocketAddr) -> io::Result<PeerStream> {
        let start = match begun {
            Begun::Tls(start) => *start,
            Begun::Plain(tcp) if self.accept.plaintext.admits(address) => {
                return Ok(PeerStream::plain(Caller { address, peer: None }, tcp));
            }
            Begun::Plain(tcp) => {
                refuse_plaintext(tcp).await;
                return Err(io::Error::other("it spoke plaintext, and this port speaks TLS"));
            }
        };
        let tcp = BufReader::with_capacity(self.accept.read_buffer_len, start.io);
        let write_buffer_len = self.accept.write_buffer_len;
        // The more the kernel is given at once, the less often it is asked, and the less often it wakes the other end.
        let limit = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(write_buffer_len));
        let start = StartHandshake::from_parts(start.accepted, tcp);
        let stream = start.into_stream_with(Arc::clone(&self.config), limit).await.map_err(explain)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate
            .ok_or_else(|| io::Error::other("it showed no certificate"))
            .and_then(|certificate| peer_of(certificate).map_err(io::Error::other))?;
        Ok(PeerStream::tls(Caller { address, peer: Some(peer) }, stream))
    }
}

fn refused(address: SocketAddr, error: &io::Error) {
    tracing::warn!(%address, %error, "refused a connection to the gRPC port from {address}: {error}");
}

/// What an administrator can make sense of.
fn explain(error: io::Error) -> io::Error {
    use tokio_rustls::rustls::{AlertDescription, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => {
            io::Error::other("it showed no certificate; peers prove their identity with one")
        }
        Some(Error::AlertReceived(
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown,
        )) => io::Error::other("it hung up: this is not the identity that it expected here"),
        _ => error,
    }
}
