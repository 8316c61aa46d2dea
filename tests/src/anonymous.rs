//! A caller that proves nothing: TLS without a certificate of its own.

use std::io;
use std::sync::Arc;

use anyhow::{Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connects to the gRPC port at `address` without a certificate, and gives the error with which it is refused.
///
/// # Errors
/// Where it is not refused.
pub async fn call_without_certificate(address: &str) -> Result<io::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
    let mut stream = match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        Ok(stream) => stream,
        Err(refusal) => return Ok(refusal),
    };
    // In TLS 1.3 a client's handshake is over before the server has seen what the client did not show.
    loop {
        let mut settings = [0; 1024];
        match stream.read(&mut settings).await {
            Ok(0) => bail!("{address} hung up without saying why"),
            Ok(_) => {}
            Err(refusal) => return Ok(refusal),
        }
    }
}

/// Believes everyone.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
