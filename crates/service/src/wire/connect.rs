//! A channel to whoever must answer, at whichever of their addresses does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use p2p_identity::{Identity, PeerId, TlsError, WrongPeer, client_config, peer_of, wrong_peer};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use super::{
    CONNECTION_WINDOW, FAR_STREAM_WINDOW, FRAME_LEN, HANDSHAKE_TIMEOUT, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, NEAR_STREAM_WINDOW, STREAM_WINDOW,
};

/// How long one address may take to answer before it counts as silent.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Head start of each address over the next (RFC 8305, section 5: "Connection Attempt Delay").
const HEAD_START: Duration = Duration::from_millis(250);
/// Who answers so soon is near: the window for those bounds no transfer below 6 Gbit/s.
const NEAR: Duration = Duration::from_millis(1);
/// Who takes so long is far: the window for everybody else would bound a transfer at 134 Mbit/s, and less the farther they are.
const FAR: Duration = Duration::from_millis(250);

/// An open channel. It does not reconnect by itself: who needs it again calls [`connect`] again.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The channel for tonic's clients.
    pub channel: Channel,
    /// Who answered, and proved it.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
    closed: CancellationToken,
}

impl Connection {
    /// Whether the connection is open, as far as this end knows.
    pub fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    /// Returns once the connection is closed, as far as this end knows. It does not keep it open.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.closed.clone().cancelled_owned()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Somebody else answers there.
    #[error("{address} is not who it should be: {wrong}")]
    WrongPeer {
        /// Where.
        address: String,
        /// Who was expected, and who answered.
        wrong: WrongPeer,
    },
    /// No address answered; each with its reason.
    #[error("cannot connect: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// There is no address to try.
    #[error("no address is known")]
    NoAddress,
    /// The own identity makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Connects to the first of these addresses (`host:port`, best first) where `expected` answers; with `None`, where
/// anyone does. Each address has a head start of 250 ms over the next one.
///
/// # Errors
/// [`ConnectError::WrongPeer`] where somebody else answered and the right one nowhere.
pub async fn connect(
    identity: &Identity,
    addresses: &[String],
    expected: Option<PeerId>,
) -> Result<Connection, ConnectError> {
    connect_with(identity, addresses, expected, window).await
}

/// Connects like [`connect`], for long data that is taken as it comes: of that, only little is on its way from somebody
/// near. Who takes it in fits and starts would have to wait for it.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_lean(
    identity: &Identity,
    addresses: &[String],
    expected: Option<PeerId>,
) -> Result<Connection, ConnectError> {
    connect_with(identity, addresses, expected, lean_window).await
}

/// Bytes that may be on their way in a stream from somebody who answers after this time.
fn window(round_trip: Duration) -> u32 {
    if round_trip < FAR { STREAM_WINDOW } else { FAR_STREAM_WINDOW }
}

/// The same of data that is taken as it comes.
fn lean_window(round_trip: Duration) -> u32 {
    if round_trip < NEAR { NEAR_STREAM_WINDOW } else { window(round_trip) }
}

async fn connect_with(
    identity: &Identity,
    addresses: &[String],
    expected: Option<PeerId>,
    stream_window: impl Fn(Duration) -> u32,
) -> Result<Connection, ConnectError> {
    let connector = TlsConnector::from(client_config(identity, expected)?);
    let mut attempts: FuturesUnordered<_> = (0u32..)
        .zip(addresses)
        .map(|(place, address)| {
            let connector = connector.clone();
            async move {
                sleep(HEAD_START * place).await;
                dial(&connector, address).await.map_err(|error| (address.clone(), error))
            }
        })
        .collect();
    let (mut silent, mut wrong) = (Vec::new(), None);
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(Dialled { stream, peer, address, round_trip }) => {
                let closed = CancellationToken::new();
                let guard = closed.clone().drop_guard();
                return match channel(stream, stream_window(round_trip), guard).await {
                    Ok(channel) => Ok(Connection { channel, peer, address, closed }),
                    Err(error) => Err(ConnectError::Unreachable(vec![format!("{address}: {error}")])),
                };
            }
            Err((address, error)) => {
                match error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(wrong_peer) {
                    Some(found) => wrong = Some(ConnectError::WrongPeer { address, wrong: found }),
                    None => silent.push(format!("{address}: {error}")),
                }
            }
        }
    }
    Err(match wrong {
        Some(wrong) => wrong,
        None if silent.is_empty() => ConnectError::NoAddress,
        None => ConnectError::Unreachable(silent),
    })
}

/// What came of an attempt to reach somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// The expected key answered.
    Reached,
    /// The connection was refused.
    Refused,
    /// No answer in time.
    Silent,
    /// This machine knows no way there.
    NoRoute,
    /// Something answered that does not speak TLS with a key of the right kind, or hung up.
    NotTls,
    /// Another key answered.
    OtherPeer,
}

/// Finds out whether `expected` answers at this address: connects, shakes hands, and hangs up.
///
/// # Errors
/// Where the own identity makes no TLS configuration.
pub async fn probe(
    identity: &Identity,
    address: SocketAddr,
    expected: PeerId,
    within: Duration,
) -> Result<Probed, TlsError> {
    let connector = TlsConnector::from(client_config(identity, Some(expected))?);
    Ok(match timeout(within, dial(&connector, &address.to_string())).await {
        Ok(Ok(_)) => Probed::Reached,
        Ok(Err(error)) => probed(&error),
        Err(_) => Probed::Silent,
    })
}

fn probed(error: &io::Error) -> Probed {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Probed::Refused,
        Kind::TimedOut => Probed::Silent,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable => Probed::NoRoute,
        // What a firewall makes of `reject with icmp admin-prohibited`.
        Kind::PermissionDenied => Probed::Refused,
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(wrong_peer) {
            Some(_) => Probed::OtherPeer,
            None => Probed::NotTls,
        },
    }
}

type Tls = TlsStream<BufReader<TcpStream>>;

/// A connection whose handshake is done.
struct Dialled {
    stream: Tls,
    peer: PeerId,
    address: SocketAddr,
    /// How long it took until the other machine answered; nothing where it is this one.
    round_trip: Duration,
}

async fn dial(connector: &TlsConnector, address: &str) -> io::Result<Dialled> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
    let began = Instant::now();
    let tcp = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| silent())??;
    let answered_after = began.elapsed();
    tcp.set_nodelay(true)?;
    let address = tcp.peer_addr()?;
    let round_trip = round_trip(tcp.local_addr()?.ip() == address.ip(), answered_after);
    let tcp = BufReader::with_capacity(FRAME_LEN as usize, tcp);
    // The name is not sent and proves nothing: the key does.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, tcp)).await.map_err(|_| silent())??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = certificate
        .ok_or_else(|| io::Error::other("it showed no certificate"))
        .and_then(|certificate| peer_of(certificate).map_err(io::Error::other))?;
    Ok(Dialled { stream, peer, address, round_trip })
}

/// On this machine it takes as long as others keep the processor busy until an answer is seen.
fn round_trip(is_here: bool, answered_after: Duration) -> Duration {
    if is_here { Duration::ZERO } else { answered_after }
}

/// Hands the one open stream to tonic. A second connect on this channel fails: the identity that was checked was that
/// of this stream, and callers decide when to try again.
async fn channel(
    stream: Tls,
    stream_window: u32,
    open: DropGuard,
) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(Held { stream, _open: open })));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection is closed")) }
    });
    Endpoint::from_static("http://peer")
        .max_frame_size(FRAME_LEN)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// A stream that shows by its end that the connection is over.
struct Held {
    stream: Tls,
    _open: DropGuard,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_on_its_way_from_who_is_here_or_answers_at_once() {
        let (at_once, later) = (Duration::from_micros(300), Duration::from_millis(2));
        let window = |is_here, after| lean_window(round_trip(is_here, after));
        assert_eq!([window(false, at_once), window(true, later)], [NEAR_STREAM_WINDOW; 2]);
        let why = "on a long way, a small window is all that is sent in a round trip";
        assert_eq!(window(false, later), STREAM_WINDOW, "{why}");
    }

    #[test]
    fn the_window_bounds_nobody_over_a_satellite_at_100_mbit_per_s() {
        let satellite = Duration::from_millis(600);
        for window in [window, lean_window] {
            assert!(f64::from(window(satellite)) * 8.0 / satellite.as_secs_f64() >= 100e6);
        }
    }
}
