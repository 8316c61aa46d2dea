//! Who says that they are somebody else, and texts that were never given out: refused with a reason, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::process::Process;
use harness::{Maestro, Peer, SyncStream, delta, file, upserts};
use maestrod::directory::cursor::{encode_content, encode_name, encode_peer};
use maestrod::directory::{NamePosition, PeerKey, Through};
use p2p_content::ContentHash;
use p2p_identity::client_config;
use p2p_proto::v1::{CatalogDelta, Hello, ListPeersRequest, SearchRequest};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

/// Shows one and the same certificate, whatever the key is.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What a peer proves itself with.
fn proof_of(peer: &Peer) -> Arc<CertifiedKey> {
    let config = client_config(&peer.identity, None).unwrap();
    config.client_auth_cert_resolver.resolve(&[], &[SignatureScheme::ED25519]).unwrap()
}

/// A certificate can be had by whoever connects with its peer. It proves nothing without the key.
#[tokio::test]
async fn nobody_passes_for_another_by_its_certificate() {
    let maestro = Maestro::start().await;
    let (ada, mallory) = (Peer::new("ada"), Peer::new("mallory"));
    let mut stream = ada.announce(&maestro, &[file("a", "1")]).await;
    let (hers, mine) = (proof_of(&ada), proof_of(&mallory));
    for (cert, key, is_let_in) in [(&mine, &mine, true), (&hers, &mine, false)] {
        let mut config: ClientConfig = (*client_config(&mallory.identity, Some(maestro.id)).unwrap()).clone();
        let shown = CertifiedKey { cert: cert.cert.clone(), key: Arc::clone(&key.key), ocsp: None };
        config.client_auth_cert_resolver = Arc::new(Shown(Arc::new(shown)));
        let tcp = TcpStream::connect(&maestro.grpc).await.unwrap();
        let name = ServerName::try_from("maestro").unwrap();
        // Its own side is done before the other has looked: what comes first tells.
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let _ = tls.write_all(preface).await;
        let heard = tokio::time::timeout(Duration::from_secs(20), tls.read(&mut [0; 64])).await.unwrap();
        match heard {
            Ok(1..) => assert!(is_let_in, "who shows ada's certificate is let in"),
            Ok(0) => panic!("hung up on without a reason"),
            Err(error) => assert!(!is_let_in && error.to_string().contains("alert"), "{error}"),
        }
    }
    let next = CatalogDelta { through_sequence: 2, ..delta(1, upserts(2, &[file("b", "2")])) };
    assert!(!stream.apply(next).await.resync);
}

/// A Hello names no ID: whose it is the key says, and everything else in it may be copied from another.
#[tokio::test]
async fn who_says_all_that_another_says_is_somebody_else() {
    let maestro = Maestro::start().await;
    let (ada, mallory) = (Peer::new("ada"), Peer::new("mallory"));
    let mut stream = ada.announce(&maestro, &[file("a", "1")]).await;
    let hello = Hello { name: "ada".to_owned(), ..ada.hello(1, 9) };
    let mut impostor = SyncStream::welcomed(mallory.open(&maestro, hello).await).await;
    // Nothing is held of whoever this is, though ada's catalog of this epoch is.
    assert_eq!((impostor.welcome.epoch, impostor.welcome.applied_sequence), (0, 0));
    let refused = impostor.refused(delta(1, upserts(2, &[file("evil", "2")]))).await;
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let mut impostor = mallory.sync(&maestro, 1, 9).await;
    impostor.apply(CatalogDelta { reset: true, ..delta(1, upserts(1, &[file("evil", "2")])) }).await;
    let of_ada = maestro.get(&format!("/files?peer={}", ada.id())).await;
    assert_eq!(of_ada["files"], serde_json::json!(["a"]));
    let located = maestro.get("/locate?file=evil").await;
    assert_eq!(located["peers"][0]["peer_id"], mallory.id().to_string());
    // Ada's stream is hers.
    let next = CatalogDelta { through_sequence: 2, ..delta(1, upserts(2, &[file("b", "2")])) };
    assert!(!stream.apply(next).await.resync);
    assert_eq!(maestro.who_has("b").await, ["ada"]);
}

/// Cursors that were cut, changed, mixed up, made up, and made as the maestro makes them, for every list that has any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_cursors_are_refused_or_lead_nowhere_new() {
    let maestro = Process::start();
    let ada = Peer::new("ada");
    let mut client = maestro.connect(&ada).await;
    let files: Vec<_> =
        (0..20).map(|number| file(&format!("docs/{number:02}"), &number.to_string())).collect();
    let _stream = ada.announce_by(&mut client, &files).await;
    let http = reqwest::Client::new();
    let lists = [
        "/peers?all=true&limit=1",
        "/directory?limit=1",
        "/search?q=docs&limit=1",
        "/search?q=d*&limit=1",
        "/files?prefix=docs/&limit=1",
        "/contents?limit=1",
    ];
    let get = async |url: String| http.get(url).send().await.unwrap();
    let mut given = Vec::new();
    for list in lists {
        let page: serde_json::Value =
            get(format!("http://{}{list}", maestro.rest)).await.json().await.unwrap();
        given.extend(page["next"].as_str().map(str::to_owned));
    }
    assert!(given.len() >= 4, "{given:?}");
    let position = |name: String| encode_name(&NamePosition { name, through: Through::Name });
    let mut forged = vec![
        "A".repeat(7000),
        "%00%ff".to_owned(),
        "../../etc/passwd".to_owned(),
        position("\u{10ffff}".repeat(250)),
        position("x".repeat(1024)),
        position("docs/07\0".to_owned()),
        encode_content(&ContentHash::from_bytes([0xff; 32])),
        encode_peer(&PeerKey::Plain("x".repeat(3000))),
        encode_peer(&PeerKey::Synced(Peer::new("nobody").id())),
    ];
    for cursor in &given {
        forged.extend((1..cursor.len()).step_by(7).map(|length| cursor[..length].to_owned()));
        forged.push(format!("{cursor}{cursor}"));
        forged.extend((0..cursor.len()).step_by(3).map(|at| {
            let other = if &cursor[at..=at] == "B" { "C" } else { "B" };
            format!("{}{other}{}", &cursor[..at], &cursor[at + 1..])
        }));
    }
    let before = maestro.private_mib();
    let (mut refused, mut taken) = (0, 0);
    for list in lists {
        for cursor in &forged {
            let answer = get(format!("http://{}{list}&cursor={cursor}", maestro.rest)).await;
            let (status, said) = (answer.status().as_u16(), answer.text().await.unwrap());
            match status {
                400 => {
                    let problem: serde_json::Value = serde_json::from_str(&said).unwrap();
                    assert!(
                        ["invalid-cursor", "invalid-query"].contains(&problem["code"].as_str().unwrap()),
                        "{said}"
                    );
                    refused += 1;
                }
                // One that the maestro could have made leads to a place in the list, and shows no more than is there.
                200 => {
                    assert!(said.len() < 4096, "{said}");
                    taken += 1;
                }
                _ => panic!("{list} {cursor}: {status} {said}"),
            }
        }
    }
    assert!(refused > 500 && taken > 0, "{refused} refused, {taken} taken");
    for cursor in &forged {
        let search = SearchRequest { cursor: cursor.clone(), limit: 1, ..SearchRequest::default() };
        let peers = ListPeersRequest { cursor: cursor.clone(), limit: 1, ..ListPeersRequest::default() };
        for said in [client.search(search).await.err(), client.list_peers(peers).await.err()] {
            assert!(said.is_none_or(|status| status.code() == Code::InvalidArgument), "{cursor}");
        }
    }
    assert!(maestro.answers_in().await < Duration::from_secs(5));
    let now = maestro.private_mib();
    assert!(now < before + 50, "{before} MiB before, {now} MiB now");
}
