//! A connection that a listener accepted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use p2p_identity::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Who calls: found in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The identity that the caller proved. `None` only on a plaintext connection that the listener allows.
    pub peer: Option<PeerId>,
}

/// An accepted connection, its handshake done.
pub struct PeerStream {
    caller: Caller,
    io: Io,
}

enum Io {
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
    Plain(TcpStream),
}

impl PeerStream {
    pub(super) fn tls(caller: Caller, stream: TlsStream<BufReader<TcpStream>>) -> Self {
        Self { caller, io: Io::Tls(Box::new(stream)) }
    }

    pub(super) fn plain(caller: Caller, stream: TcpStream) -> Self {
        Self { caller, io: Io::Plain(stream) }
    }

    /// Who calls.
    pub fn caller(&self) -> Caller {
        self.caller
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, bytes),
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    /// Both kinds take a frame's header and body in one call.
    fn is_write_vectored(&self) -> bool {
        true
    }
}
