//! Files of plain peers of the first system: whole, in one message, and with nobody to vouch for the bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use p2p_content::FileName;
use p2p_proto::MAX_WHOLE_FILE_LEN;
use p2p_proto::files::file_service_client::FileServiceClient;
use p2p_proto::files::{DownloadRequest, UploadRequest};
use std::sync::Arc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::intake::{IntakeError, write_hashed};
use super::job::Job;
use super::jobs::Shared;
use super::outcome::Outcome;
use super::sink::{self, SinkError, blocking};
use crate::discovery::PeerRef;

/// Largest whole-file message that is taken from a plain peer: it has to fit in memory.
const MAX_PLAIN_LEN: usize = 16 << 20;
/// How long a plain peer may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches the file from the plain peer that the transfer names.
pub(super) async fn run(shared: &Shared, job: &Job, name: FileName, stop: &CancellationToken) -> Outcome {
    let Some(peer) = job.terms.only_from.clone() else {
        return Outcome::Failed("no plain peer is named".to_owned());
    };
    let there = job.terms.name_there.clone().unwrap_or_else(|| name.to_string());
    job.source_joined(&peer);
    let bytes = tokio::select! {
        () = stop.cancelled() => return Outcome::Stopped,
        answer = download(&peer, there) => match answer {
            Ok(bytes) => bytes,
            Err(Failure::Lost(why)) => {
                job.source_lost(&peer, &why);
                return Outcome::NoSources { why: format!("{peer}: {why}"), serving: None };
            }
            Err(Failure::Refused(why)) => return Outcome::Failed(format!("{peer}: {why}")),
        },
    };
    let len = bytes.len() as u64;
    let dir = shared.shares.downloads();
    let key = part_key(job.id);
    let (at, part) = (dir.clone(), key.clone());
    let file = match blocking(move || {
        let file = at.part(&part)?;
        // An earlier try may have left more bytes than the peer has now.
        file.set_len(0).map_err(|error| SinkError::of_io(error, "preparing the file"))?;
        Ok(file)
    })
    .await
    {
        Ok(file) => file,
        Err(error) => return error.into(),
    };
    let body = stream::iter([Ok::<Bytes, std::convert::Infallible>(bytes)]);
    let reserve = shared.settings.borrow().reserve_bytes;
    let (at, part) = (dir.clone(), key.clone());
    let written = match write_hashed(file, body, reserve).await {
        Ok((_, manifest)) => {
            blocking(move || Ok(at.publish(&part, &name, false)?)).await.map(|path| (path, manifest))
        }
        Err(IntakeError::DiskFull(why)) => Err(SinkError::Full(why)),
        Err(error) => Err(SinkError::Io(error.to_string())),
    };
    match written {
        Ok((path, manifest)) => {
            job.source_gave(&peer, len);
            job.progressed(len);
            Outcome::Whole { path, manifest: Arc::new(manifest), serving: None }
        }
        Err(error) => {
            // The next try begins anew: what there is of it takes room from others, and is of use to nobody.
            if let Err(error) = sink::discard(dir, key).await {
                let id = job.id;
                tracing::warn!(transfer_id = id, %error, "the unfinished file of transfer {id} stays for now: {error}");
            }
            error.into()
        }
    }
}

/// The name of the part file of a transfer from a plain peer.
pub(super) fn part_key(id: u64) -> String {
    format!("plain-{id}")
}

/// Gives a plain peer a file. What it answered.
///
/// # Errors
/// Where it cannot be reached or does not take it.
pub(super) async fn upload(peer: &PeerRef, name: &FileName, content: Bytes) -> Result<String, Failure> {
    let mut client = FileServiceClient::new(connect(peer).await?);
    let request = UploadRequest { filename: name.to_string(), content };
    match timeout(CALL_TIMEOUT, client.upload(request)).await {
        Ok(Ok(answer)) => match answer.into_inner() {
            answer if answer.ok => Ok(answer.message),
            answer => Err(Failure::Refused(answer.message)),
        },
        Ok(Err(status)) => Err(Failure::Lost(status.message().to_owned())),
        Err(_) => Err(Failure::Lost("it does not answer".to_owned())),
    }
}

/// Largest file that [`upload`] can carry.
pub(super) const MAX_UPLOAD_LEN: u64 = MAX_WHOLE_FILE_LEN;

/// Why a plain peer did not do what it was asked.
pub(super) enum Failure {
    /// No connection, or it broke.
    Lost(String),
    /// It said no.
    Refused(String),
}

async fn download(peer: &PeerRef, filename: String) -> Result<Bytes, Failure> {
    let mut client = FileServiceClient::new(connect(peer).await?).max_decoding_message_size(MAX_PLAIN_LEN);
    match timeout(CALL_TIMEOUT, client.download(DownloadRequest { filename })).await {
        Ok(Ok(answer)) => match answer.into_inner() {
            answer if answer.ok => Ok(answer.content),
            answer => Err(Failure::Refused(format!("it said: {}", answer.message))),
        },
        Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => Err(Failure::Refused(format!(
            "the file is too large for a whole-file message (limit {MAX_PLAIN_LEN} bytes); a peer of this system \
             streams files of any size"
        ))),
        Ok(Err(status)) => Err(Failure::Lost(status.message().to_owned())),
        Err(_) => Err(Failure::Lost("it does not answer".to_owned())),
    }
}

async fn connect(peer: &PeerRef) -> Result<Channel, Failure> {
    let address = peer.addresses().into_iter().next().unwrap_or_default();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Failure::Refused(format!("{address} is no address: {error}")))?;
    let connected = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
    connected.map_err(|error| Failure::Lost(format!("no connection to {address}: {error}")))
}
