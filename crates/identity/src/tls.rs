//! TLS 1.3 in which both ends are their keys, and certificates carry nothing else.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use rustls::crypto::aws_lc_rs::cipher_suite as fast;
use rustls::crypto::ring::cipher_suite as small;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use rustls::crypto::ring::cipher_suite as fast;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme, SupportedCipherSuite, version,
};

use crate::{Identity, PeerId};

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a TLS configuration of the identity: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The one who answers is not the one who was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the identity {expected}, but the one who answers is {found}")]
pub struct WrongPeer {
    /// Who should answer.
    pub expected: PeerId,
    /// Who does.
    pub found: PeerId,
}

/// What a listener needs: it proves this identity, and asks every caller for theirs.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let (chain, key) = certificate(identity)?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::of)?
        .with_client_cert_verifier(Arc::new(AnyPeer { provider, expected: None }))
        .with_single_cert(chain, key)
        .map_err(TlsError::of)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What a caller needs: it proves this identity, and speaks with nobody but `expected`. Without `expected` anyone may
/// answer, and [`peer_of`] tells who did: for the first contact only.
pub fn client_config(identity: &Identity, expected: Option<PeerId>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let (chain, key) = certificate(identity)?;
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::of)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyPeer { provider, expected }))
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::of)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Addresses and names prove nothing here, so there is nothing to tell the server of them.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Whose certificate this is. The handshake proved that they hold the key.
pub fn peer_of(certificate: &CertificateDer<'_>) -> Result<PeerId, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let info = parsed.subject_public_key_info();
    info.strip_prefix(ED25519_SPKI_PREFIX.as_slice())
        .and_then(|key| PeerId::try_from(key).ok())
        .ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// The [`WrongPeer`] that a handshake failed with, where it did.
pub fn wrong_peer(error: &rustls::Error) -> Option<WrongPeer> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref::<WrongPeer>().cloned()
        }
        _ => None,
    }
}

/// Has this process use the fastest ciphers there are for this machine from now on: AWS-LC's, whose AES-GCM is twice as
/// fast as *ring*'s on processors with wide vectors. For a program that moves much data, at its start; they take half a
/// MiB of memory more.
pub fn use_fast_ciphers() {
    // Where there is a provider already, this was said before.
    let _ = with(&[
        fast::TLS13_AES_128_GCM_SHA256,
        fast::TLS13_AES_256_GCM_SHA384,
        fast::TLS13_CHACHA20_POLY1305_SHA256,
    ])
    .install_default();
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| {
        Arc::new(with(&[
            small::TLS13_AES_128_GCM_SHA256,
            small::TLS13_AES_256_GCM_SHA384,
            small::TLS13_CHACHA20_POLY1305_SHA256,
        ]))
    })
}

/// *ring*, with these ciphers. AES-128-GCM comes first: the fastest with hardware help, and as strong as the keys.
fn with(ciphers: &[SupportedCipherSuite]) -> CryptoProvider {
    CryptoProvider { cipher_suites: ciphers.to_vec(), ..ring::default_provider() }
}

fn certificate(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let der = identity.to_pkcs8_der().map_err(TlsError::of)?;
    let key = PrivateKeyDer::Pkcs8(der.into());
    let pair = rcgen::KeyPair::try_from(&key).map_err(TlsError::of)?;
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).map_err(TlsError::of)?;
    Ok((vec![certificate.der().clone()], key))
}

/// Accepts whoever proves an Ed25519 key, or only the one who is expected.
#[derive(Debug)]
struct AnyPeer {
    provider: Arc<CryptoProvider>,
    expected: Option<PeerId>,
}

impl AnyPeer {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let found = peer_of(certificate)?;
        match self.expected {
            Some(expected) if expected != found => Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(OtherError(Arc::new(WrongPeer { expected, found }))),
            )),
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

/// TLS 1.2 is never negotiated: the configurations above leave it out.
fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for AnyPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// Runs a whole handshake in memory.
    fn handshake(
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
    ) -> Result<(PeerId, PeerId), rustls::Error> {
        let mut server = ServerConnection::new(server)?;
        let mut client = ClientConnection::new(client, ServerName::try_from("peer").unwrap())?;
        while server.is_handshaking()
            || client.is_handshaking()
            || client.wants_write()
            || server.wants_write()
        {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut io::Cursor::new(&wire)).unwrap();
            server.process_new_packets()?;
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut io::Cursor::new(&wire)).unwrap();
            client.process_new_packets()?;
        }
        let seen = |certificates: Option<&[CertificateDer<'static>]>| peer_of(&certificates.unwrap()[0]);
        Ok((seen(client.peer_certificates())?, seen(server.peer_certificates())?))
    }

    #[test]
    fn both_ends_learn_who_the_other_is() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let seen = handshake(server_config(&a).unwrap(), client_config(&b, Some(a.id())).unwrap()).unwrap();
        assert_eq!(seen, (a.id(), b.id()));
        let seen = handshake(server_config(&a).unwrap(), client_config(&b, None).unwrap()).unwrap();
        assert_eq!(seen.0, a.id());
    }

    #[test]
    fn who_has_the_fast_ciphers_speaks_with_who_has_the_small_ones() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (small_server, small_client) =
            (server_config(&a).unwrap(), client_config(&b, Some(a.id())).unwrap());
        use_fast_ciphers();
        let (server, client) = (server_config(&a).unwrap(), client_config(&b, Some(a.id())).unwrap());
        for (server, client) in
            [(small_server, client.clone()), (server.clone(), small_client), (server, client)]
        {
            assert_eq!(handshake(server, client).unwrap(), (a.id(), b.id()));
        }
    }

    #[test]
    fn the_wrong_one_is_refused_and_both_identities_are_named() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let error =
            handshake(server_config(&a).unwrap(), client_config(&b, Some(b.id())).unwrap()).unwrap_err();
        let wrong = wrong_peer(&error).unwrap();
        assert_eq!(wrong, WrongPeer { expected: b.id(), found: a.id() });
        let text = wrong.to_string();
        assert!(text.contains(&a.id().to_string()) && text.contains(&b.id().to_string()), "{text}");
    }

    #[test]
    fn a_caller_without_a_certificate_is_refused() {
        let a = Identity::generate().unwrap();
        let provider = provider();
        let nobody = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyPeer { provider, expected: None }))
            .with_no_client_auth();
        let error = handshake(server_config(&a).unwrap(), Arc::new(nobody)).unwrap_err();
        assert_eq!(error, rustls::Error::NoCertificatesPresented);
    }

    #[test]
    fn other_kinds_of_keys_are_nobody() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        assert!(peer_of(certificate.der()).is_err());
    }
}
