//! Bad input from peers and clients: it is refused with a reason, takes little memory, and disturbs nobody else.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use harness::process::Process;
use harness::{Maestro, Peer, complete, delta, eventually, file, message, upserts};
use p2p_proto::v1::{CatalogDelta, SyncRequest, sync_request};
use p2p_service::wire;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Messages as bytes, whatever they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[tokio::test]
async fn what_is_no_message_ends_its_stream_with_a_reason() {
    let maestro = Maestro::start().await;
    let mut bystander = Peer::new("ada").announce(&maestro, &[file("a", "1")]).await;
    let mallory = Peer::new("mallory");
    let hello = prost::Message::encode_to_vec(&message(sync_request::Message::Hello(mallory.hello(1, 0))));
    for (first, garbage) in
        [(false, &[0xff; 64][..]), (true, &[0x0a, 0xff, 0xff, 0xff, 0x7f, 1]), (true, &[0xff; 9])]
    {
        let addresses = [maestro.grpc.clone()];
        let connection = wire::connect(&mallory.identity, &addresses, Some(maestro.id)).await.unwrap();
        let mut raw = tonic::client::Grpc::new(connection.channel);
        raw.ready().await.unwrap();
        let (requests, queue) = mpsc::channel(4);
        if first {
            requests.send(Bytes::from(hello.clone())).await.unwrap();
        }
        requests.send(Bytes::copy_from_slice(garbage)).await.unwrap();
        let path = "/p2p.v1.Directory/Sync".parse().unwrap();
        let answers = raw.streaming(Request::new(ReceiverStream::new(queue)), path, Raw).await.unwrap();
        let mut answers = answers.into_inner();
        let refusal = loop {
            match tokio::time::timeout(Duration::from_secs(20), answers.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => break status,
            }
        };
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert!(refusal.message().contains("cannot be read"), "{refusal}");
    }
    let next = CatalogDelta { through_sequence: 2, ..delta(1, upserts(2, &[file("b", "2")])) };
    assert!(!bystander.apply(next).await.resync);
    assert_eq!(maestro.who_has("b").await, ["ada"]);
}

#[tokio::test]
async fn numbers_that_jump_to_the_end_leave_a_way_back() {
    let maestro = Maestro::start().await;
    let ada = Peer::new("ada");
    let mut stream = ada.announce(&maestro, &[file("a", "1")]).await;
    let jump =
        CatalogDelta { through_sequence: u64::MAX, ..delta(1, upserts(u64::MAX - 1, &[file("b", "2")])) };
    assert_eq!(stream.apply(jump).await.applied_sequence, u64::MAX);
    let wrapped = stream.refused(delta(1, upserts(1, &[file("c", "3")]))).await;
    assert_eq!(wrapped.code(), Code::InvalidArgument, "{wrapped}");
    // The peer's own numbers are behind what is held: it is told to begin again, and all is well.
    let mut stream = ada.sync(&maestro, 1, 3).await;
    assert_eq!((stream.welcome.epoch, stream.welcome.applied_sequence), (0, 0));
    let files = [file("a", "1"), file("c", "3")];
    let all = CatalogDelta { reset: true, ..complete(delta(1, upserts(1, &files)), &files) };
    assert!(!stream.apply(all).await.resync);
    let listed = maestro.get(&format!("/files?peer={}", ada.id())).await;
    assert_eq!(listed["files"], serde_json::json!(["a", "c"]));
}

/// A peer that pours out long names and reads none of the answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_names_from_one_who_does_not_read_is_held_back() {
    let maestro = Process::start();
    let mallory = Peer::new("mallory");
    let mut client = maestro.connect(&mallory).await;
    let (requests, queue) = mpsc::channel::<SyncRequest>(1);
    let mut hello = mallory.hello(1, 0);
    hello.last_sequence = u64::MAX;
    requests.send(message(sync_request::Message::Hello(hello))).await.unwrap();
    let answers = client.sync(ReceiverStream::new(queue)).await.unwrap();
    let long = "n".repeat(240);
    let mut most = 0;
    for batch in 0..60u64 {
        let files: Vec<_> =
            (0..1000).map(|number| file(&format!("{batch}-{number}/{long}/{long}/{long}"), "x")).collect();
        let next = CatalogDelta { reset: batch == 0, ..delta(1, upserts(batch * 1000 + 1, &files)) };
        let sent = requests.send(message(sync_request::Message::Delta(next)));
        // Held back for good is as well as held back for a while.
        if tokio::time::timeout(Duration::from_secs(5), sent).await.is_err() {
            break;
        }
        most = most.max(maestro.private_mib());
        assert!(maestro.answers_in().await < Duration::from_secs(5));
    }
    assert!(most < 300, "{most} MiB");
    let ada = Peer::new("ada");
    let mut other = maestro.connect(&ada).await;
    assert!(other.list_peers(p2p_proto::v1::ListPeersRequest::default()).await.is_ok());
    drop(answers);
}

/// Registrations as large as may be: one whose names are all empty, several at once, and one that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_slow_registrations_take_turns() {
    let maestro = Process::start();
    let before = maestro.private_mib();
    let slow = async |length: usize| {
        let mut tcp = TcpStream::connect(&maestro.rest).await.unwrap();
        let head = format!(
            "POST /register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        tcp
    };
    // Two who send a byte of much and then nothing; many who send a byte of little.
    let mut idle = vec![slow(10_000_000).await, slow(10_000_000).await];
    for _ in 0..50 {
        idle.push(slow(1000).await);
    }
    let names = vec!["\"\""; 5_000_000].join(",");
    let body = format!("{{\"peer\":\"http://localhost:1\",\"grpc_port\":2,\"files\":[{names}]}}");
    assert!(body.len() < 16 << 20);
    let register = async |body: String| {
        let client = reqwest::Client::new();
        let request = client
            .post(format!("http://{}/register", maestro.rest))
            .header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    };
    let large = || register(body.clone());
    let answers = tokio::join!(large(), large(), large(), large());
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["code"], "too-many-files");
    }
    // Meanwhile whoever has little to say is heard.
    let began = Instant::now();
    let small = "{\"peer\":\"http://localhost:1\",\"grpc_port\":2,\"files\":[\"a\"]}";
    assert_eq!(register(small.to_owned()).await.status(), 200);
    assert!(began.elapsed() < Duration::from_secs(5) && maestro.answers_in().await < Duration::from_secs(5));
    let now = maestro.private_mib();
    assert!(now < before + 200, "{before} MiB before, {now} MiB now");
    // A body that never ends is given up with a reason.
    let mut answer = Vec::with_capacity(4096);
    let tcp = idle.first_mut().unwrap();
    tokio::time::timeout(Duration::from_secs(40), tcp.read_buf(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
}

/// Connections that say nothing, on both ports, and readers that do not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_disturb_nobody() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    // As many as the machine allows, of the 10,000 that must be.
    let count = limit.maximum.map_or(5000, |most| usize::try_from(most / 3).unwrap().min(5000));
    let maestro = Process::start();
    let before = maestro.private_mib();
    let mut idle = Vec::new();
    for port in [&maestro.rest, &maestro.grpc] {
        for _ in 0..count {
            idle.push(TcpStream::connect(port).await.unwrap());
        }
    }
    // Readers that ask for much, again and again, and read nothing of it.
    for _ in 0..20 {
        let mut tcp = TcpStream::connect(&maestro.rest).await.unwrap();
        let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
        let _ = tokio::time::timeout(Duration::from_millis(100), tcp.write_all(request.as_bytes())).await;
        idle.push(tcp);
    }
    let began = Instant::now();
    let ada = Peer::new("ada");
    let mut client = maestro.connect(&ada).await;
    assert!(client.list_peers(p2p_proto::v1::ListPeersRequest::default()).await.is_ok());
    let took = began.elapsed() + maestro.answers_in().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let now = maestro.private_mib();
    assert!(now < before + 200, "{before} MiB before, {now} MiB now");
    // Whoever says nothing to the port of the peers is sent away.
    let last = &mut idle[2 * count - 1];
    let closed = async || {
        matches!(
            tokio::time::timeout(Duration::from_millis(50), last.read(&mut [0])).await,
            Ok(Ok(0) | Err(_))
        )
    };
    eventually(true, closed).await;
}
