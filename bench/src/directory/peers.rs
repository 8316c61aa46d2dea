//! Peers as the maestro sees them: a real identity, a real connection and a real Sync stream each, without the rest of a peer.
//!
//! They speak as p2pd does: batches of as many changes, as many of them unacknowledged, digests at the end of a catalog.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use p2p_identity::{Identity, PeerId};
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::sync_request::Message as Up;
use p2p_proto::v1::sync_response::Message as Down;
use p2p_proto::v1::{
    Ack, CatalogDelta, Change, FileEntry, Goodbye, Hello, ListPeersRequest, SyncRequest, SyncResponse,
    Welcome, change,
};
use p2p_service::wire::{self, Connection};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Changes in one batch, as p2pd sends them.
const BATCH: usize = 1000;
/// Batches that may be unacknowledged, as p2pd has them.
const IN_FLIGHT: usize = 4;
/// Members that are drawn at once, as p2pd has them drawn…
const DRAWN: u32 = 32;
/// … and how often each peer has so, in the long run.
pub(crate) const DRAW_EVERY: Duration = Duration::from_secs(600);
/// The epoch of every catalog.
const EPOCH: u64 = 1;
/// How long an answer may take. A maestro that is filled makes everybody wait in line.
const ANSWER: Duration = Duration::from_secs(300);

/// Where a maestro is, and who it must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    /// Its gRPC interface.
    pub(crate) grpc: SocketAddr,
    /// Its identity.
    pub(crate) id: PeerId,
}

/// How far a catalog is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The sequence number of the last change.
    pub(crate) sequence: u64,
    /// How many files there are.
    pub(crate) files: u64,
    /// XOR of the files' digests.
    pub(crate) digest: [u8; 16],
}

impl Told {
    fn put(&mut self, file: &FileEntry) {
        self.files += 1;
        self.flip(file);
    }

    /// Puts a file in or takes it out: XOR is its own inverse.
    fn flip(&mut self, file: &FileEntry) {
        for (byte, other) in self.digest.iter_mut().zip(digest_of(file)) {
            *byte ^= other;
        }
    }
}

/// As docs/protocol.md has it, and not with the maestro's code.
fn digest_of(file: &FileEntry) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.share.as_bytes()).update(&[0]).update(file.name.as_bytes()).update(&[0]);
    hasher.update(&file.content).update(&file.size.to_le_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    first
}

/// A connected peer. It is gone when this is dropped, as one that crashes.
#[derive(Debug)]
pub(crate) struct Stream {
    requests: mpsc::Sender<SyncRequest>,
    answers: Streaming<SyncResponse>,
    welcome: Welcome,
    told: Told,
    connection: Connection,
}

impl Stream {
    /// Connects, says Hello, and is welcomed. `told` is what it told before; the default tells nothing yet.
    ///
    /// # Errors
    /// Where the maestro is not there, or does not admit it.
    pub(crate) async fn open(
        identity: &Identity,
        name: &str,
        maestro: Address,
        told: Told,
    ) -> Result<Stream> {
        let connection = wire::connect(identity, &[maestro.grpc.to_string()], Some(maestro.id)).await?;
        let (requests, queue) = mpsc::channel(IN_FLIGHT + 2);
        let hello = Hello {
            name: name.to_owned(),
            addresses: vec![format!("{name}.lab.example:9002")],
            rest_url: format!("http://{name}.lab.example:9001"),
            grpc_port: 9002,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: EPOCH,
            last_sequence: told.sequence,
            join_token: String::new(),
            compares_buckets: false,
        };
        send(&requests, Up::Hello(hello)).await?;
        let mut client = DirectoryClient::new(connection.channel.clone());
        let answers = timeout(ANSWER, client.sync(ReceiverStream::new(queue))).await;
        let answers = answers.context("the maestro does not answer")??.into_inner();
        let mut stream = Stream { requests, answers, welcome: Welcome::default(), told, connection };
        match stream.next().await? {
            Down::Welcome(welcome) => stream.welcome = welcome,
            other => bail!("the maestro does not say Welcome but {other:?}"),
        }
        Ok(stream)
    }

    /// Whether the maestro holds all that was told before, so that nothing is to be sent again.
    pub(crate) fn is_known(&self) -> bool {
        (self.welcome.epoch, self.welcome.applied_sequence) == (EPOCH, self.told.sequence)
    }

    /// Tells a whole catalog, and waits until the maestro has it and agrees.
    ///
    /// # Errors
    /// Where it does not agree, or the stream breaks.
    pub(crate) async fn announce(&mut self, mut catalog: impl Iterator<Item = FileEntry>) -> Result<Told> {
        self.told = Told::default();
        let mut in_flight = 0;
        let mut next = catalog.next();
        let mut reset = true;
        while next.is_some() || in_flight > 0 {
            while in_flight < IN_FLIGHT && next.is_some() {
                let mut changes = Vec::with_capacity(BATCH);
                while let Some(file) = next.take() {
                    self.told.put(&file);
                    self.told.sequence += 1;
                    changes.push(upsert(self.told.sequence, file));
                    next = catalog.next();
                    if changes.len() == BATCH {
                        break;
                    }
                }
                let delta = CatalogDelta { reset, ..self.delta(changes, next.is_none()) };
                self.say(Up::Delta(delta)).await?;
                (reset, in_flight) = (false, in_flight + 1);
            }
            let ack = self.acknowledgement().await?;
            ensure!(!ack.resync, "the maestro holds another catalog than was told");
            in_flight -= 1;
        }
        Ok(self.told)
    }

    /// Tells that one file is another now, and waits until the maestro has it and agrees.
    ///
    /// # Errors
    /// Where it does not agree, or the stream breaks.
    pub(crate) async fn change(&mut self, old: &FileEntry, new: FileEntry) -> Result<()> {
        self.told.flip(old);
        self.told.flip(&new);
        self.told.sequence += 1;
        let change = upsert(self.told.sequence, new);
        let delta = self.delta(vec![change], true);
        self.say(Up::Delta(delta)).await?;
        let ack = self.acknowledgement().await?;
        ensure!(!ack.resync, "the maestro holds another catalog than was told");
        Ok(())
    }

    /// Compares what it has told with what the maestro holds, as p2pd does when it comes back.
    ///
    /// # Errors
    /// Where they differ, or the stream breaks.
    pub(crate) async fn compare(&mut self) -> Result<()> {
        let delta = self.delta(Vec::new(), true);
        self.say(Up::Delta(delta)).await?;
        let ack = self.acknowledgement().await?;
        ensure!(!ack.resync, "the maestro holds another catalog than was told");
        Ok(())
    }

    /// A question for some of the members that are here. It is asked beside the stream.
    pub(crate) fn draw(&self) -> impl Future<Output = Result<usize>> + Send + 'static {
        let mut client = DirectoryClient::new(self.connection.channel.clone());
        let request = ListPeersRequest { limit: DRAWN, drawn: true, ..ListPeersRequest::default() };
        async move {
            let answer = timeout(ANSWER, client.list_peers(request)).await;
            Ok(answer.context("the maestro lists nobody")??.into_inner().peers.len())
        }
    }

    /// Leaves on purpose, and waits until the maestro has closed its side.
    ///
    /// # Errors
    /// Where the stream broke.
    pub(crate) async fn leave(mut self) -> Result<()> {
        self.say(Up::Goodbye(Goodbye {})).await?;
        while let Ok(Some(_)) = timeout(ANSWER, self.answers.message()).await? {}
        Ok(())
    }

    fn delta(&self, changes: Vec<Change>, complete: bool) -> CatalogDelta {
        CatalogDelta {
            epoch: EPOCH,
            reset: false,
            changes,
            through_sequence: self.told.sequence,
            complete,
            digest: if complete { self.told.digest.to_vec().into() } else { Vec::new().into() },
            files: if complete { self.told.files } else { 0 },
        }
    }

    async fn say(&self, message: Up) -> Result<()> {
        send(&self.requests, message).await
    }

    async fn acknowledgement(&mut self) -> Result<Ack> {
        loop {
            match self.next().await? {
                Down::Ack(ack) => return Ok(ack),
                Down::Membership(_) => {}
                Down::Welcome(_) => bail!("the maestro says Welcome twice"),
                Down::Compare(_) | Down::Tell(_) => {
                    bail!("the maestro asks for buckets of a peer that does not compare them")
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Down> {
        let answer =
            timeout(ANSWER, self.answers.message()).await.context("the maestro does not answer")??;
        answer.and_then(|answer| answer.message).context("the maestro closed the stream")
    }
}

async fn send(requests: &mpsc::Sender<SyncRequest>, message: Up) -> Result<()> {
    requests.send(SyncRequest { message: Some(message) }).await.context("the stream is closed")
}

fn upsert(sequence: u64, file: FileEntry) -> Change {
    Change { sequence, change: Some(change::Change::Upsert(file)) }
}
