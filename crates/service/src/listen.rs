//! The sockets on which a daemon waits: TCP, Unix, and those that systemd passes.
//!
//! Owns nothing after the listener is returned, except that a [`SocketFile`] removes the name of a Unix socket. Called
//! by a daemon's composition file.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener, lookup_host};

mod unix;

pub use unix::{SocketFile, unix};

/// Why a daemon cannot listen where it should.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not `host:port`.
    #[error(
        "cannot listen on '{addr}' for {what}: that is not an address and a port; \
         write {key} like 127.0.0.1:9000, localhost:9000 or [::]:9000"
    )]
    Syntax {
        /// The address as it was given.
        addr: String,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
    },
    /// The host has no address.
    #[error("cannot listen on {addr} for {what}: the name has no address ({source}); correct {key}")]
    Resolve {
        /// The address as it was given.
        addr: String,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Somebody else has the port.
    #[error(
        "cannot listen on {addr} for {what}: the port is in use by another program \
         (see it with: ss -ltnp 'sport = :{port}'); stop it or change {key}"
    )]
    InUse {
        /// The address as it was given.
        addr: String,
        /// Its port.
        port: u16,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
    },
    /// The port is reserved for the system.
    #[error(
        "cannot listen on {addr} for {what}: this user may not use that port (those below 1024 are the system's); \
         change {key} to a higher one, or give the service CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The address as it was given.
        addr: String,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
    },
    /// The address is another machine's, or of a protocol that this machine has not.
    #[error(
        "cannot listen on {addr} for {what}: this machine has no such address (see those it has with: ip address); \
         change {key}"
    )]
    NotAvailable {
        /// The address as it was given.
        addr: String,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
    },
    /// Anything else that the system refuses.
    #[error("cannot listen on {addr} for {what}: {source}; change {key}")]
    Tcp {
        /// The address as it was given.
        addr: String,
        /// What it is for.
        what: String,
        /// The key in the configuration.
        key: String,
        /// What the system says.
        source: io::Error,
    },
    /// A daemon answers on the Unix socket.
    #[error(
        "cannot listen on {}: another daemon answers there (see it with: ss -xlp); \
         stop it or choose another socket",
        path.display()
    )]
    UnixInUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// There is something by that name which is not a socket, and may be precious.
    #[error("cannot listen on {}: it exists and is not a socket; move it away or choose another path", path.display())]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The system has room for fewer bytes in a socket's path.
    #[error(
        "cannot listen on {}: the path is {} bytes too long for a Unix socket; choose a shorter one",
        path.display(),
        excess_bytes
    )]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// By how much.
        excess_bytes: usize,
    },
    /// Anything else that the system refuses.
    #[error("cannot listen on {}: cannot {action}: {source}; correct that or choose another path", path.display())]
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// What is wrong with an address to listen on, if anything can be told without trying.
pub fn check_address(address: &str) -> Option<String> {
    let is_one = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host =
            !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
        is_host && port.parse::<u16>().is_ok()
    });
    (!is_one).then(|| {
        format!("must be HOST:PORT, such as \"127.0.0.1:9001\" or \"[::]:9002\", and is {address:?}")
    })
}

/// Listens on `addr`, such as `127.0.0.1:9000`, `localhost:9000` or `[::]:9000` (which is also for IPv4).
///
/// `what` and `key` are for the error's message: what is served (`REST`) and where the administrator wrote the
/// address (`[rest] listen`).
pub async fn tcp(what: &str, key: &str, addr: &str) -> Result<TcpListener, ListenError> {
    let (owned_addr, owned_what, owned_key) = (addr.to_owned(), what.to_owned(), key.to_owned());
    let Some(port) = port_of(addr) else {
        return Err(ListenError::Syntax { addr: owned_addr, what: owned_what, key: owned_key });
    };
    let resolved = match lookup_host(addr).await {
        Ok(resolved) => resolved,
        Err(source) => {
            return Err(ListenError::Resolve { addr: owned_addr, what: owned_what, key: owned_key, source });
        }
    };
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    // Whoever says localhost in a script more often than not means 127.0.0.1.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
        // To take the name's other address would hide from the administrator that two programs want one port.
        if last.kind() == io::ErrorKind::AddrInUse {
            break;
        }
    }
    let (addr, what, key) = (owned_addr, owned_what, owned_key);
    Err(match Errno::from_io_error(&last) {
        Some(Errno::ADDRINUSE) => ListenError::InUse { addr, port, what, key },
        Some(Errno::ACCESS | Errno::PERM) => ListenError::Denied { addr, what, key },
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) | None => {
            ListenError::NotAvailable { addr, what, key }
        }
        Some(_) => ListenError::Tcp { addr, what, key, source: last },
    })
}

/// The port, if `addr` has the form of a host and a port.
fn port_of(addr: &str) -> Option<u16> {
    let (host, port) = addr.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let named = !host.is_empty() && !host.contains([':', '[', ']', ' ', '/']);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if (bracketed || named) && digits { port.parse().ok() } else { None }
}

/// The first Unix socket that systemd passed to this process, if any.
///
/// Only the first call gets it, and it is to be made early: the call removes systemd's variables from the
/// environment, so that no child believes that the socket is its own.
pub fn passed_unix() -> Option<UnixListener> {
    let mut passed = listenfd::ListenFd::from_env();
    for index in 0..passed.len() {
        let listener = match passed.take_unix_listener(index) {
            Ok(Some(listener)) => listener,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, "ignoring descriptor {index} that systemd passed: {error}");
                continue;
            }
        };
        match listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)) {
            Ok(listener) => return Some(listener),
            Err(error) => tracing::warn!(%error, "cannot use socket {index} that systemd passed: {error}"),
        }
    }
    None
}
