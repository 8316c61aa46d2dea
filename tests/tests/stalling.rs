//! Those who call a peer and do not go on: strangers, messages that never end, answers that nobody reads. Each costs it little,
//! and others are served.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use p2p_identity::Identity;
use p2p_proto::files::DownloadRequest;
use p2p_service::wire;
use p2p_tests::{Network, Peer, SeedClient, begun, grpc_call, random_bytes, unended};
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

/// Connections of those who begin and do not go on.
const CONNECTIONS: usize = 4;
/// Calls on each of them.
const CALLS: usize = 16;
/// How long others may wait meanwhile for what is long…
const PATIENCE: Duration = Duration::from_secs(40);
/// … and for what takes no room.
const SHORTLY: Duration = Duration::from_secs(3);
/// What all of it may cost the peer, in MiB; without a limit it would be 256 and more.
const MOST_MIB: u64 = 100;
const MIB: usize = 1 << 20;
/// The longest message of an upload.
const LONGEST: usize = p2p_proto::MAX_MESSAGE_LEN;
const UPLOAD: &str = "/files.FileService/Upload";

/// A peer that takes files of anyone on this machine, and gives them one.
async fn network() -> Network {
    let network = Network::builder().without_maestro().peers(1).peers_with(|_, settings| {
        settings.set("grpc.plaintext", "loopback").set("transfers.accept_offers", "network");
    });
    let network = network.files(|_, shared| {
        p2p_tests::write_file(&shared.join("largo.bin"), random_bytes(LONGEST - 64 * 1024, 1))
    });
    let network = network.start().await.unwrap();
    network.peer(1).unwrap().settled().await.unwrap();
    network
}

/// A connection of somebody without an identity.
async fn plaintext(peer: &Peer) -> Channel {
    Endpoint::from_shared(format!("http://{}", peer.address())).unwrap().connect().await.unwrap()
}

/// A connection of somebody whom nobody knows.
async fn stranger(peer: &Peer) -> Channel {
    let (identity, id) = (Identity::generate().unwrap(), peer.id().parse().unwrap());
    wire::connect(&identity, &[peer.address()], Some(id)).await.unwrap().channel
}

/// A call whose body is these parts, and then nothing; it does not end.
fn call(path: &str, parts: Vec<Bytes>) -> http::Request<Body> {
    grpc_call(path, unended(parts)).unwrap()
}

/// A call with all of this message.
fn question(path: &str, message: &[u8]) -> http::Request<Body> {
    grpc_call(path, Body::new(Full::new(begun(message.len(), message)))).unwrap()
}

async fn answer(channel: &mut Channel, call: http::Request<Body>) -> http::Response<Body> {
    channel.ready().await.unwrap().call(call).await.unwrap()
}

/// The calls of those who do not go on, all on their way.
async fn stalled(peer: &Peer, parts: &[Bytes]) -> JoinSet<http::Response<Body>> {
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = plaintext(peer).await;
        for _ in 0..CALLS {
            let (mut channel, call) = (channel.clone(), call(UPLOAD, parts.to_vec()));
            calls.spawn(async move { answer(&mut channel, call).await });
        }
    }
    calls
}

/// What the peer holds in memory, in MiB.
fn private_mib(peer: &Peer) -> u64 {
    peer.daemon().private_memory().unwrap() >> 20
}

/// What it held at the most while this was under way.
async fn most_meanwhile<T>(peer: &Peer, work: impl Future<Output = T>) -> (T, u64) {
    let mut work = std::pin::pin!(work);
    let mut most = private_mib(peer);
    loop {
        match timeout(Duration::from_millis(50), work.as_mut()).await {
            Ok(done) => return (done, most.max(private_mib(peer))),
            Err(_) => most = most.max(private_mib(peer)),
        }
    }
}

/// Somebody else uploads a file in one long message.
async fn others_upload(peer: &Peer) {
    let client = SeedClient::connect(&peer.address()).await.unwrap();
    let (bytes, began) = (random_bytes(2 * MIB, 2), Instant::now());
    let uploaded = async {
        // Whoever finds no room in time tries again, as it is told.
        loop {
            match client.upload("de otro.bin", bytes.clone()).await {
                Ok(answer) => break answer,
                Err(status) => assert!(began.elapsed() < PATIENCE, "{status}"),
            }
        }
    };
    let uploaded = timeout(PATIENCE, uploaded).await.expect("a long upload waits");
    assert!(uploaded.ok, "{}", uploaded.message);
    let named = timeout(SHORTLY, client.download("no such file")).await.expect("a short call waits").unwrap();
    assert_eq!(named.message, "Not found");
}

/// Who may not call is told so before anything of a message is there.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_before_they_have_said_anything() {
    let network = network().await;
    let peer = network.peer(1).unwrap();
    let mut channel = stranger(peer).await;
    let of_peer = ["Describe", "Locate", "Browse", "GetManifest", "Availability", "Offer", "Pull"];
    let of_peer = of_peer.map(|name| format!("/p2p.v1.Peer/{name}"));
    let of_files = ["Upload", "Download"].map(|name| format!("/files.FileService/{name}"));
    for path in of_peer.iter().chain(&of_files) {
        let answered = timeout(SHORTLY, answer(&mut channel, call(path, Vec::new()))).await;
        let answered = answered.unwrap_or_else(|_| panic!("{path} waits for what a stranger may say"));
        let status = Status::from_header_map(answered.headers()).expect("it is refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status}");
    }
    // Without an identity there is nobody who could be let in.
    let mut channel = plaintext(peer).await;
    for path in &of_peer {
        let answered = timeout(SHORTLY, answer(&mut channel, call(path, Vec::new()))).await.unwrap();
        let status = Status::from_header_map(answered.headers()).expect("it is refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
    }
}

/// All but the last byte of uploads as long as may be, of callers who may upload.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_never_end_are_not_kept_for_long() {
    let network = network().await;
    let peer = network.peer(1).unwrap();
    let before = private_mib(peer);
    let mut calls = stalled(peer, &[begun(LONGEST, &vec![0; LONGEST - 1])]).await;
    let ((), most) = most_meanwhile(peer, others_upload(peer)).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
    let given_up = timeout(PATIENCE, calls.join_next()).await.expect("some gave way").unwrap().unwrap();
    let status = Status::from_header_map(given_up.headers()).expect("it was given up");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

/// All of the message comes, and the call does not end: it is as if the last byte were missing.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_never_end_are_not_kept_for_long() {
    let network = network().await;
    let peer = network.peer(1).unwrap();
    let before = private_mib(peer);
    let _calls = stalled(peer, &[begun(LONGEST, &vec![0; LONGEST])]).await;
    let ((), most) = most_meanwhile(peer, others_upload(peer)).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
}

/// Whole files that are asked for, and not read.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_nobody_reads_are_not_kept() {
    let network = network().await;
    let peer = network.peer(1).unwrap();
    let before = private_mib(peer);
    let request = DownloadRequest { filename: "largo.bin".to_owned() }.encode_to_vec();
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = plaintext(peer).await;
        for _ in 0..CALLS {
            let (mut channel, call) = (channel.clone(), question("/files.FileService/Download", &request));
            // What comes is held, and not read.
            calls.spawn(async move {
                let held = answer(&mut channel, call).await;
                futures::future::pending::<()>().await;
                drop(held);
            });
        }
    }
    let client = SeedClient::connect(&peer.address()).await.unwrap();
    let reading = async {
        let began = Instant::now();
        loop {
            let read = client.download("largo.bin").await;
            match read {
                Ok(read) if read.ok => break assert_eq!(read.content.len(), LONGEST - 64 * 1024),
                read => assert!(began.elapsed() < PATIENCE, "{read:?}"),
            }
        }
    };
    let (read, most) = most_meanwhile(peer, timeout(PATIENCE, reading)).await;
    read.expect("who reads waits for who does not");
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
}
