//! A maestro of its own for each test, on free ports and a fresh state directory, and peers that speak with it.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod process;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use maestrod::config::Config;
use maestrod::server::{Running, Server};
use p2p_content::ContentHash;
use p2p_identity::{Identity, PeerId};
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::{
    CatalogDelta, Change, FileEntry, Goodbye, Hello, RemovedFile, SyncRequest, SyncResponse, Welcome, change,
    sync_request, sync_response,
};
use p2p_service::tasks::Tasks;
use p2p_service::wire;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// A maestro that serves.
pub(crate) struct Maestro {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) id: PeerId,
    pub(crate) config: Config,
    pub(crate) running: Running,
    pub(crate) rest: String,
    pub(crate) grpc: String,
    tasks: Tasks,
}

/// What the tests change nothing of.
pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config { state_dir: dir.join("state"), ..Config::default() };
    config.rest.listen = "127.0.0.1:0".to_owned();
    config.grpc.listen = "127.0.0.1:0".to_owned();
    config
}

impl Maestro {
    pub(crate) async fn start() -> Maestro {
        Maestro::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(edit: impl FnOnce(&mut Config)) -> Maestro {
        let dir = Arc::new(TempDir::new().unwrap());
        let mut config = config(dir.path());
        edit(&mut config);
        Maestro::start_in(dir, config).await
    }

    pub(crate) async fn start_in(dir: Arc<TempDir>, config: Config) -> Maestro {
        let tasks = Tasks::new();
        let server = Server::bind(config.clone()).await.unwrap();
        let (rest, grpc) = (format!("http://{}", server.rest_addr()), server.grpc_addr().to_string());
        let id = server.maestro_id();
        let running = server.run(&tasks).await.unwrap();
        Maestro { dir, id, config, running, rest, grpc, tasks }
    }

    /// Ends it, and gives back what the next one starts with.
    pub(crate) async fn stop(self) -> (Arc<TempDir>, Config) {
        assert!(self.tasks.shutdown(Duration::from_secs(5)).await, "tasks had to be aborted");
        (self.dir, self.config)
    }

    /// Ends it and starts another on the same state directory.
    pub(crate) async fn restart(self) -> Maestro {
        let (dir, config) = self.stop().await;
        Maestro::start_in(dir, config).await
    }

    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let response = reqwest::get(format!("{}{path}", self.rest)).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// URLs or names of the peers that `/locate` answers with.
    pub(crate) async fn who_has(&self, file: &str) -> Vec<String> {
        let located = self.get(&format!("/locate?file={file}")).await;
        let peers = located["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["name"].as_str().unwrap_or(peer["rest"].as_str().unwrap()).to_owned()).collect()
    }
}

/// A peer with its identity.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) identity: Identity,
}

impl Peer {
    pub(crate) fn new(name: &'static str) -> Peer {
        Peer { name, identity: Identity::generate().unwrap() }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.identity.id()
    }

    pub(crate) async fn connect(&self, maestro: &Maestro) -> DirectoryClient<Channel> {
        self.connect_at(maestro, &maestro.grpc).await
    }

    async fn connect_at(&self, maestro: &Maestro, address: &str) -> DirectoryClient<Channel> {
        let addresses = [address.to_owned()];
        let connection = wire::connect(&self.identity, &addresses, Some(maestro.id)).await.unwrap();
        DirectoryClient::new(connection.channel)
    }

    pub(crate) fn hello(&self, epoch: u64, last_sequence: u64) -> Hello {
        Hello {
            name: self.name.to_owned(),
            addresses: vec!["10.9.8.7:9002".to_owned()],
            rest_url: format!("http://{}.lab:9001", self.name),
            grpc_port: 9002,
            version: "0.1.0".to_owned(),
            epoch,
            last_sequence,
            join_token: String::new(),
            compares_buckets: false,
        }
    }

    /// A stream that is welcomed.
    pub(crate) async fn sync(&self, maestro: &Maestro, epoch: u64, last_sequence: u64) -> SyncStream {
        SyncStream::welcomed(self.open(maestro, self.hello(epoch, last_sequence)).await).await
    }

    pub(crate) async fn open(&self, maestro: &Maestro, hello: Hello) -> SyncStream {
        SyncStream::open(self.connect(maestro).await, hello).await
    }

    /// A stream with these files announced, in epoch 1.
    pub(crate) async fn announce(&self, maestro: &Maestro, files: &[FileEntry]) -> SyncStream {
        self.announce_at(maestro, &maestro.grpc, files).await
    }

    /// The same, by another way to the maestro.
    pub(crate) async fn announce_at(
        &self,
        maestro: &Maestro,
        address: &str,
        files: &[FileEntry],
    ) -> SyncStream {
        self.announce_by(&mut self.connect_at(maestro, address).await, files).await
    }

    /// The same, on a connection.
    pub(crate) async fn announce_by(
        &self,
        client: &mut DirectoryClient<Channel>,
        files: &[FileEntry],
    ) -> SyncStream {
        let stream = self.open_by(client.clone(), 1, files.len() as u64).await;
        let mut stream = SyncStream::welcomed(stream).await;
        let mut batches = files.chunks(1000).peekable();
        let (mut first, mut reset) = (1, true);
        loop {
            let batch = batches.next().unwrap_or_default();
            let mut delta = CatalogDelta { reset, ..delta(1, upserts(first, batch)) };
            let is_last = batches.peek().is_none();
            if is_last {
                delta = complete(delta, files);
            }
            assert!(!stream.apply(delta).await.resync);
            if is_last {
                return stream;
            }
            (first, reset) = (first + batch.len() as u64, false);
        }
    }

    pub(crate) async fn open_by(
        &self,
        client: DirectoryClient<Channel>,
        epoch: u64,
        last_sequence: u64,
    ) -> SyncStream {
        SyncStream::open(client, self.hello(epoch, last_sequence)).await
    }
}

/// A stream as its peer has it. Dropping it is a crash of the peer.
pub(crate) struct SyncStream {
    pub(crate) client: DirectoryClient<Channel>,
    pub(crate) requests: mpsc::Sender<SyncRequest>,
    pub(crate) answers: Streaming<SyncResponse>,
    pub(crate) welcome: Welcome,
}

impl SyncStream {
    async fn open(mut client: DirectoryClient<Channel>, hello: Hello) -> SyncStream {
        let (requests, queue) = mpsc::channel(16);
        requests.send(message(sync_request::Message::Hello(hello))).await.unwrap();
        let answers = client.sync(ReceiverStream::new(queue)).await.unwrap().into_inner();
        SyncStream { client, requests, answers, welcome: Welcome::default() }
    }

    pub(crate) async fn welcomed(mut stream: SyncStream) -> SyncStream {
        match stream.next().await {
            Ok(sync_response::Message::Welcome(welcome)) => SyncStream { welcome, ..stream },
            other => panic!("no welcome but {other:?}"),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<sync_response::Message, Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.answers.message());
        match next.await.expect("no answer came") {
            Ok(Some(answer)) => Ok(answer.message.unwrap()),
            Ok(None) => Err(Status::ok("the end")),
            Err(status) => Err(status),
        }
    }

    pub(crate) async fn send(&self, delta: CatalogDelta) {
        self.requests.send(message(sync_request::Message::Delta(delta))).await.unwrap();
    }

    pub(crate) async fn apply(&mut self, delta: CatalogDelta) -> p2p_proto::v1::Ack {
        self.ask(sync_request::Message::Delta(delta)).await
    }

    /// Sends something that is acknowledged.
    pub(crate) async fn ask(&mut self, sent: sync_request::Message) -> p2p_proto::v1::Ack {
        self.requests.send(message(sent)).await.unwrap();
        match self.next().await {
            Ok(sync_response::Message::Ack(ack)) => ack,
            other => panic!("no acknowledgement but {other:?}"),
        }
    }

    /// Sends what the maestro must refuse; its refusal.
    pub(crate) async fn refused(&mut self, delta: CatalogDelta) -> Status {
        self.send(delta).await;
        self.next().await.expect_err("it was not refused")
    }

    pub(crate) async fn goodbye(self) {
        self.requests.send(message(sync_request::Message::Goodbye(Goodbye {}))).await.unwrap();
        let mut answers = self.answers;
        while let Ok(Some(_)) = answers.message().await {}
    }
}

pub(crate) fn message(message: sync_request::Message) -> SyncRequest {
    SyncRequest { message: Some(message) }
}

pub(crate) fn file(name: &str, bytes: &str) -> FileEntry {
    FileEntry {
        share: "s".to_owned(),
        name: name.to_owned(),
        content: ContentHash::of(bytes.as_bytes()).as_bytes().to_vec().into(),
        size: bytes.len() as u64,
        modified_ms: 1000,
    }
}

/// One change per file, from sequence number `first` on.
pub(crate) fn upserts(first: u64, files: &[FileEntry]) -> Vec<Change> {
    let changes = (first..).zip(files);
    changes
        .map(|(sequence, file)| Change { sequence, change: Some(change::Change::Upsert(file.clone())) })
        .collect()
}

pub(crate) fn removal(sequence: u64, name: &str) -> Change {
    let removed = RemovedFile { share: "s".to_owned(), name: name.to_owned() };
    Change { sequence, change: Some(change::Change::Removed(removed)) }
}

/// A batch through the last of the changes.
pub(crate) fn delta(epoch: u64, changes: Vec<Change>) -> CatalogDelta {
    let through_sequence = changes.last().map_or(0, |change| change.sequence);
    CatalogDelta { epoch, changes, through_sequence, ..CatalogDelta::default() }
}

/// The batch as the end of a catalog that holds these files: written from the protocol, not with the maestro's code.
pub(crate) fn complete(delta: CatalogDelta, catalog: &[FileEntry]) -> CatalogDelta {
    let mut digest = [0; 16];
    for file in catalog {
        let mut said = file.share.clone().into_bytes();
        said.push(0);
        said.extend(file.name.as_bytes());
        said.push(0);
        said.extend(&file.content);
        said.extend(file.size.to_le_bytes());
        for (byte, other) in digest.iter_mut().zip(blake3::hash(&said).as_bytes()) {
            *byte ^= other;
        }
    }
    CatalogDelta { complete: true, digest: digest.to_vec().into(), files: catalog.len() as u64, ..delta }
}

/// Asks again and again until the answer is as expected.
pub(crate) async fn eventually<T: PartialEq + std::fmt::Debug>(expected: T, mut ask: impl AsyncFnMut() -> T) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        let answer = ask().await;
        if answer == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {answer:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A way to the maestro that can fall silent without closing.
pub(crate) struct Proxy {
    pub(crate) address: String,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (frozen, seen) = watch::channel(false);
        let target = target.to_owned();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near_in, far_out, seen.clone()));
                tokio::spawn(carry(far_in, near_out, seen.clone()));
            }
        });
        Proxy { address, frozen }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(len @ 1..) = from.read(&mut buffer).await else { return };
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
