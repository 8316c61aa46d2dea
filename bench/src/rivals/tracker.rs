//! A tracker (BEP 3, compact answers of BEP 23) that tells everyone of one and the same peer.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A request that is longer is none.
const MAX_REQUEST: usize = 16 << 10;

/// A running tracker. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Tracker {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Tracker {
    /// Tells everyone of `peer`.
    pub(super) async fn start(peer: SocketAddr) -> Result<Tracker> {
        let SocketAddr::V4(peer) = peer else { bail!("{peer} is no IPv4 address") };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on the loopback")?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            // One after another: there are two that ask, rarely. Who does not ask in the right way gets nothing.
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = answer(&mut stream, peer).await;
            }
        });
        Ok(Tracker { address, serving: serving.abort_handle() })
    }

    /// What torrent files call it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(stream: &mut TcpStream, peer: SocketAddrV4) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = body(peer);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

fn body(peer: SocketAddrV4) -> Vec<u8> {
    let mut body = b"d8:intervali1800e5:peers6:".to_vec();
    body.extend_from_slice(&peer.ip().octets());
    body.extend_from_slice(&peer.port().to_be_bytes());
    body.push(b'e');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_tells_of_the_peer() {
        let tracker = Tracker::start("127.0.0.1:258".parse().unwrap()).await.unwrap();
        let answer = reqwest::get(format!("{}?info_hash=x", tracker.url())).await.unwrap();
        assert_eq!(
            answer.bytes().await.unwrap(),
            &b"d8:intervali1800e5:peers6:\x7f\x00\x00\x01\x01\x02e"[..]
        );
        let other = reqwest::get(tracker.url()).await.unwrap();
        assert!(other.status().is_success());
    }
}
