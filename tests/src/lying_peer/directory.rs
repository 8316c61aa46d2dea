//! Its stream to the maestro: Hello, Welcome, the whole catalog in one batch, and then nothing but presence.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use p2p_identity::Identity;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::{
    CatalogDelta, Change, Hello, SyncRequest, SyncResponse, change, sync_request, sync_response,
};
use p2p_service::tasks::Tasks;
use p2p_service::wire::connect;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Shelf;

/// Names the life of its catalog, which never changes.
const EPOCH: u64 = 1;

/// Joins, announces everything, and gives the membership. The stream stays open until the tasks end.
pub(super) async fn join(identity: &Identity, shelf: &Shelf, address: &str, tasks: &Tasks) -> Result<Bytes> {
    let connection = connect(identity, &[address.to_owned()], None).await?;
    let (requests, sent) = mpsc::channel(4);
    let mut service = DirectoryClient::new(connection.channel);
    let last_sequence = shelf.files.len() as u64;
    let info = &shelf.info;
    let hello = Hello {
        name: info.name.clone(),
        addresses: info.addresses.clone(),
        rest_url: info.rest_url.clone(),
        grpc_port: info.grpc_port,
        version: info.version.clone(),
        epoch: EPOCH,
        last_sequence,
        join_token: String::new(),
        compares_buckets: false,
    };
    send(&requests, sync_request::Message::Hello(hello)).await?;
    let mut answers = service.sync(ReceiverStream::new(sent)).await?.into_inner();
    let membership = welcome(&mut answers).await?;
    send(&requests, sync_request::Message::Delta(whole_catalog(shelf, last_sequence))).await?;
    acknowledged(&mut answers, last_sequence).await?;
    let token = tasks.token();
    tasks.spawn_detached("lying-peer-sync", async move {
        tokio::select! {
            () = token.cancelled() => {}
            // Renewed memberships are of no use to it; that the stream ends is all that it could learn.
            () = async { while let Ok(Some(_)) = answers.message().await {} } => {}
        }
        drop(requests);
    });
    Ok(membership)
}

async fn send(requests: &mpsc::Sender<SyncRequest>, message: sync_request::Message) -> Result<()> {
    requests.send(SyncRequest { message: Some(message) }).await.context("the maestro hung up")
}

async fn welcome(answers: &mut Streaming<SyncResponse>) -> Result<Bytes> {
    match answers.message().await?.and_then(|answer| answer.message) {
        Some(sync_response::Message::Welcome(welcome)) => {
            Ok(welcome.membership.context("a Welcome without a membership")?.membership)
        }
        other => bail!("the maestro says {other:?} instead of Welcome"),
    }
}

async fn acknowledged(answers: &mut Streaming<SyncResponse>, through: u64) -> Result<()> {
    while let Some(answer) = answers.message().await? {
        if let Some(sync_response::Message::Ack(ack)) = answer.message {
            ensure!(!ack.resync, "the maestro holds another catalog than the one that was sent");
            if ack.applied_sequence >= through {
                return Ok(());
            }
        }
    }
    bail!("the maestro hung up before it had the catalog")
}

fn whole_catalog(shelf: &Shelf, last_sequence: u64) -> CatalogDelta {
    let entries = shelf.files.values().map(|held| held.entry.clone());
    let changes = (1..)
        .zip(entries)
        .map(|(sequence, entry)| Change { sequence, change: Some(change::Change::Upsert(entry)) });
    CatalogDelta {
        epoch: EPOCH,
        reset: true,
        changes: changes.collect(),
        through_sequence: last_sequence,
        complete: true,
        digest: Bytes::copy_from_slice(&digest(shelf)),
        files: last_sequence,
    }
}

/// As `directory.proto` says it: XOR of the first 16 bytes of BLAKE3(share 00 name 00 content size).
fn digest(shelf: &Shelf) -> [u8; 16] {
    let mut all = [0; 16];
    for held in shelf.files.values() {
        let entry = &held.entry;
        let mut hasher = blake3::Hasher::new();
        hasher.update(entry.share.as_bytes()).update(&[0]).update(entry.name.as_bytes()).update(&[0]);
        hasher.update(&entry.content).update(&entry.size.to_le_bytes());
        for (sum, byte) in all.iter_mut().zip(hasher.finalize().as_bytes()) {
            *sum ^= byte;
        }
    }
    all
}
