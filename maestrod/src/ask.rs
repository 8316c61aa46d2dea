//! Asking the maestro that runs, over its REST interface: for `maestrod doctor` and `maestrod status`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer, at most.
const MAX_ANSWER_LEN: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unasked {
    /// Only the system knows where it listens.
    #[error("the configuration leaves the port to the system")]
    NoPort,
    /// It does not answer, and why.
    #[error("{0}")]
    Silent(String),
}

/// What the maestro that listens there answers to a GET of this path.
pub(crate) async fn ask<T: DeserializeOwned>(listen: &str, path: &str) -> Result<T, Unasked> {
    let address = near(listen).ok_or(Unasked::NoPort)?;
    let asked = async {
        let mut tcp = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        tcp.take(MAX_ANSWER_LEN).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let silent = || Unasked::Silent(format!("no answer within {} s", PATIENCE.as_secs()));
    let answer = timeout(PATIENCE, asked).await.map_err(|_| silent())?;
    let answer = answer.map_err(|error| Unasked::Silent(error.to_string()))?;
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).map_err(|_| Unasked::Silent("another program answers there".to_owned()))
}

/// Where the maestro of this configuration is reached from this machine; nothing where only the system knows the port.
pub(crate) fn near(listen: &str) -> Option<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = listen.to_socket_addrs().ok()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut address = addresses.into_iter().next().filter(|address| address.port() != 0)?;
    if address.ip().is_unspecified() {
        // What listens on [::] takes IPv4 as well.
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maestro_is_looked_for_where_it_listens() {
        assert_eq!(near("[::]:9010").unwrap().to_string(), "127.0.0.1:9010");
        assert_eq!(near("[::1]:9010").unwrap().to_string(), "[::1]:9010");
        assert_eq!(near("127.0.0.1:0"), None);
    }
}
