//! From a listener to connections whose caller is known.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p_identity::{Identity, TlsError, peer_of, server_config};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConnection;
use tokio_stream::wrappers::ReceiverStream;

use super::refuse::refuse_plaintext;
use super::stream::{Caller, PeerStream};
use super::{FRAME_LEN, HANDSHAKE_TIMEOUT};
use crate::tasks::Tasks;

/// First byte of a TLS handshake record (RFC 8446, section 5.1). HTTP/2 in plaintext begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;
/// Handshakes under way at once; more wait for their turn, no longer than a handshake may take.
const HANDSHAKES: usize = 256;
/// Connections that have said nothing yet; more wait in the kernel's queue.
const SILENT: usize = 4096;
/// How long a connection may say nothing while many do so: whoever wants something says it at once.
const SILENCE_AMONG_MANY: Duration = Duration::from_secs(2);
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
    let acceptor = TlsAcceptor::from(server_config(identity)?);
    let (ready, connections) = mpsc::channel(16);
    let door = Arc::new(Door { acceptor, accept, ready });
    let spawner = tasks.clone();
    tasks.spawn("grpc-accept", async move {
        let (silent, handshakes) = (Arc::new(Semaphore::new(SILENT)), Arc::new(Semaphore::new(HANDSHAKES)));
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
            let (door, handshakes) = (Arc::clone(&door), Arc::clone(&handshakes));
            spawner.spawn_detached("grpc-handshake", async move {
                // Those who say nothing take no turns of those who do.
                if !matches!(timeout(silence, tcp.peek(&mut [0])).await, Ok(Ok(1..))) {
                    tracing::debug!(%address, "the connection from {address} to the gRPC port said nothing");
                    return;
                }
                let Ok(Ok(_turn)) = timeout(HANDSHAKE_TIMEOUT, handshakes.acquire_owned()).await else {
                    tracing::debug!(%address, "too many handshakes for the connection from {address}");
                    return;
                };
                drop(place);
                door.admit(tcp, address).await;
            });
        }
    });
    Ok(ReceiverStream::new(connections))
}

struct Door {
    acceptor: TlsAcceptor,
    accept: Accept,
    ready: mpsc::Sender<io::Result<PeerStream>>,
}

impl Door {
    async fn admit(&self, tcp: TcpStream, address: SocketAddr) {
        match timeout(HANDSHAKE_TIMEOUT, self.handshake(tcp, address)).await {
            Ok(Ok(Some(stream))) => {
                // Nobody takes connections any more: the server has stopped.
                let _ = self.ready.send(Ok(stream)).await;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%address, %error, "refused a connection to the gRPC port from {address}: {error}")
            }
            Err(_) => {
                tracing::debug!(%address, "the connection from {address} to the gRPC port did not finish its handshake")
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> io::Result<Option<PeerStream>> {
        tcp.set_nodelay(true)?;
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            // A port check: connected and left.
            return Ok(None);
        }
        if first[0] != TLS_HANDSHAKE {
            if self.accept.plaintext.admits(address) {
                return Ok(Some(PeerStream::plain(Caller { address, peer: None }, tcp)));
            }
            refuse_plaintext(tcp).await;
            return Err(io::Error::other("it spoke plaintext, and this port speaks TLS"));
        }
        let tcp = BufReader::with_capacity(self.accept.read_buffer_len, tcp);
        let write_buffer_len = self.accept.write_buffer_len;
        // The more the kernel is given at once, the less often it is asked, and the less often it wakes the other end.
        let limit = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(write_buffer_len));
        let stream = self.acceptor.accept_with(tcp, limit).await.map_err(explain)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate
            .ok_or_else(|| io::Error::other("it showed no certificate"))
            .and_then(|certificate| peer_of(certificate).map_err(io::Error::other))?;
        Ok(Some(PeerStream::tls(Caller { address, peer: Some(peer) }, stream)))
    }
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
