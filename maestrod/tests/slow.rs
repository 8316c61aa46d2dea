//! Those who begin and do not go on: messages and requests that never end, answers that nobody reads. Each costs the maestro
//! little, and everybody else is answered.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::process::Process;
use harness::{Peer, file, message};
use http_body_util::Full;
use p2p_proto::v1::{ListPeersRequest, SearchRequest, sync_request};
use p2p_service::wire;
use p2p_tests::{begun, grpc_call, unended};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

/// Connections of those who begin and do not go on.
const CONNECTIONS: usize = 4;
/// Calls on each of them.
const CALLS: usize = 100;
/// Answers that nobody reads, of 4 to 10 MiB each.
const UNREAD: usize = 100;
/// How long others may wait while all of these are made: it is the same work, whether they are read or not.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same where they do no work at all.
const SHORTLY: Duration = Duration::from_secs(3);
/// What many short beginnings may cost the maestro, in MiB: what is in their first frame is held before it can say no.
const MOST_OF_BEGINNINGS_MIB: u64 = 60;
/// What all of it may cost the maestro, in MiB, what it does meanwhile for others included; without a limit the answers alone would
/// be 500 and more.
const MOST_MIB: u64 = 250;

/// A connection as a peer has it, for calls that are not as they should be.
async fn channel(maestro: &Process, peer: &Peer) -> Channel {
    let addresses = [maestro.grpc.clone()];
    wire::connect(&peer.identity, &addresses, Some(maestro.id)).await.unwrap().channel
}

/// A call whose body is these parts, and then nothing; it does not end.
fn call(path: &str, parts: Vec<Bytes>) -> http::Request<Body> {
    grpc_call(path, unended(parts)).unwrap()
}

/// A call with all of this message.
fn question(path: &str, message: &[u8]) -> http::Request<Body> {
    grpc_call(path, Body::new(Full::new(begun(message.len(), message)))).unwrap()
}

/// Everybody else is answered, on both ports; what is long as well as what is short.
async fn others_are_answered(maestro: &Process) {
    let (began, ada) = (Instant::now(), Peer::new("ada"));
    let mut client = maestro.connect(&ada).await;
    let asked = tokio::time::timeout(PATIENCE, client.list_peers(ListPeersRequest::default()));
    asked.await.expect("a peer waits").unwrap();
    assert!(maestro.answers_in().await < PATIENCE);
    // Its catalog is more than what is short, in one message and in one answer.
    let long = "a".repeat(240);
    let files: Vec<_> = (0..200).map(|number| file(&format!("ada/{number}/{long}"), "x")).collect();
    let stream = tokio::time::timeout(PATIENCE, ada.announce_by(&mut client, &files));
    let _stream = stream.await.expect("a long message waits");
    let own = ada.id().as_bytes().to_vec().into();
    let asked = client.search(SearchRequest { peer_id: own, limit: 10_000, ..SearchRequest::default() });
    let found = tokio::time::timeout(PATIENCE, asked).await.expect("a long answer waits");
    assert_eq!(found.unwrap().into_inner().files.len(), files.len());
    let listed = maestro.names_of(&ada).await;
    assert_eq!(listed, files.len());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// The most that the maestro held while `looks` looks were taken, in MiB; meanwhile others are answered.
async fn most_meanwhile(maestro: &Process, looks: usize) -> u64 {
    let mut most = 0;
    for _ in 0..looks {
        others_are_answered(maestro).await;
        most = most.max(maestro.private_mib());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    most
}

/// Messages as long as may be, of which all but the last byte comes: before a Hello, and as questions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_never_end_are_not_kept_for_long() {
    let maestro = Process::start();
    let before = maestro.private_mib();
    let length = p2p_proto::MAX_MESSAGE_LEN - 1;
    let most_of_it = begun(length, &vec![0; length - 1]);
    let mut calls = Vec::new();
    for path in ["/p2p.v1.Directory/Sync", "/p2p.v1.Directory/Search"] {
        for _ in 0..CONNECTIONS / 2 {
            let mut channel = channel(&maestro, &Peer::new("mallory")).await;
            for _ in 0..CALLS {
                let answer = channel.ready().await.unwrap().call(call(path, vec![most_of_it.clone()]));
                calls.push(tokio::spawn(answer));
            }
        }
    }
    let most = most_meanwhile(&maestro, 20).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
    for call in calls {
        call.abort();
    }
}

/// The beginnings of messages, each as long as one frame can be that the maestro lets come: more of a message than is short has no
/// place, and what comes before it is asked for one must be little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beginnings_of_messages_take_no_more_than_a_short_one_does() {
    let maestro = Process::start();
    let before = maestro.private_mib();
    // In such pieces the caller would send it, if the maestro let it.
    let beginning = begun(p2p_proto::MAX_MESSAGE_LEN - 1, &vec![0; 240 * 1024]);
    let mut calls = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut channel = channel(&maestro, &Peer::new("mallory")).await;
        for _ in 0..CALLS {
            let request = call("/p2p.v1.Directory/Sync", vec![beginning.clone()]);
            calls.push(tokio::spawn(channel.ready().await.unwrap().call(request)));
        }
    }
    let most = most_meanwhile(&maestro, 5).await;
    assert!(most < before + MOST_OF_BEGINNINGS_MIB, "{before} MiB before, {most} MiB meanwhile");
    for call in calls {
        call.abort();
    }
}

/// Messages that are announced to be long, of which nothing comes: of a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_only_announced_take_nobodys_place() {
    let maestro = Process::start();
    let head = begun(p2p_proto::MAX_MESSAGE_LEN - 1, &[]);
    let mut channel = channel(&maestro, &Peer::new("mallory")).await;
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let answer = channel.ready().await.unwrap().call(call("/p2p.v1.Directory/Sync", vec![head.clone()]));
        calls.push(tokio::spawn(answer));
    }
    let began = Instant::now();
    others_are_answered(&maestro).await;
    assert!(began.elapsed() < SHORTLY, "{:?}", began.elapsed());
    for call in calls {
        call.abort();
    }
}

/// Peers that are in, and stop in the middle of a delta.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_that_never_end_are_not_kept_for_long() {
    let maestro = Process::start();
    let before = maestro.private_mib();
    let length = p2p_proto::MAX_MESSAGE_LEN - 1;
    let most_of_it = begun(length, &vec![0; length - 1]);
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let peer = Peer::new("mallory");
        let hello = message(sync_request::Message::Hello(peer.hello(1, 0))).encode_to_vec();
        let hello = begun(hello.len(), &hello);
        let mut channel = channel(&maestro, &peer).await;
        let request = call("/p2p.v1.Directory/Sync", vec![hello, most_of_it.clone()]);
        let answer = channel.ready().await.unwrap().call(request);
        calls.push(tokio::spawn(async move { (answer.await, channel) }));
    }
    let most = most_meanwhile(&maestro, 20).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
    for call in calls {
        call.abort();
    }
}

/// A maestro with a catalog whose pages are as large as may be.
async fn with_long_names() -> (Process, harness::SyncStream) {
    let maestro = Process::start();
    let ada = Peer::new("ada");
    let long = "n".repeat(240);
    let files: Vec<_> =
        (0..6000).map(|number| file(&format!("{number:04}/{long}/{long}/{long}"), "x")).collect();
    let mut client = maestro.connect(&ada).await;
    let stream = ada.announce_by(&mut client, &files).await;
    (maestro, stream)
}

/// Large answers over gRPC that nobody reads: of some peers that ask for many, and of many that ask for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_peers_that_are_not_read_are_not_kept() {
    let (maestro, _stream) = with_long_names().await;
    let before = maestro.private_mib();
    let search = SearchRequest { limit: 10_000, ..SearchRequest::default() }.encode_to_vec();
    let mut calls = Vec::new();
    for number in 0..CONNECTIONS + UNREAD {
        let mut channel = channel(&maestro, &Peer::new("mallory")).await;
        let unread = if number < CONNECTIONS { UNREAD / CONNECTIONS } else { 1 };
        for _ in 0..unread {
            let answer = channel.ready().await.unwrap().call(question("/p2p.v1.Directory/Search", &search));
            // What comes is held, and not read.
            calls.push(tokio::spawn(async move {
                let held = answer.await;
                futures::future::pending::<()>().await;
                drop(held);
            }));
        }
    }
    let most = most_meanwhile(&maestro, 20).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
    for call in calls {
        call.abort();
    }
}

/// The same over REST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_over_rest_that_are_not_read_are_not_kept() {
    let (maestro, _stream) = with_long_names().await;
    let before = maestro.private_mib();
    let mut readers = Vec::new();
    for _ in 0..UNREAD {
        let mut tcp = TcpStream::connect(&maestro.rest).await.unwrap();
        tcp.write_all(b"GET /directory?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        readers.push(tcp);
    }
    let most = most_meanwhile(&maestro, 20).await;
    assert!(most < before + MOST_MIB, "{before} MiB before, {most} MiB meanwhile");
    drop(readers);
}
