//! Send: the file is put into the outbox and offered; the receiver fetches it, as it fetches everything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_proto::control::{PeerName, SendState, Sending};
use p2p_proto::v1::offer_update::State;
use p2p_proto::v1::{OfferRequest, OfferUpdate};
use p2p_service::status::size;
use p2p_service::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Streaming;

use super::intake::IntakeError;
use super::outbox::Outbox;
use super::plain::{self, Failure, MAX_UPLOAD_LEN};
use crate::discovery::{Connections, Myself, PeerRef};

/// How long the receiver may take to say whether it wants the file.
const OFFER_TIMEOUT: Duration = Duration::from_secs(15);
/// Sendings that are remembered once they have ended.
const REMEMBERED: usize = 200;

/// Files on their way to others. Clones are handles to the same.
#[derive(Clone)]
pub struct Sends {
    outbox: Outbox,
    connections: Connections,
    myself: Arc<Myself>,
    tasks: Tasks,
    known: Arc<Mutex<BTreeMap<u64, watch::Sender<Sending>>>>,
}

/// Why a file was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It could not be taken in.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The receiver does not answer.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// The receiver does not want it.
    #[error("{0} refused the file: {1}")]
    Refused(String, String),
    /// A plain peer takes small files only.
    #[error(
        "{0} is a plain peer of the first system, which takes files of up to {MAX_UPLOAD_LEN} bytes, and this one has {1}"
    )]
    TooLargeForPlain(String, u64),
}

impl Sends {
    /// None yet.
    pub fn new(outbox: Outbox, connections: Connections, myself: Arc<Myself>, tasks: Tasks) -> Self {
        Self { outbox, connections, myself, tasks, known: Arc::default() }
    }

    /// Offers a file to a peer. Returns once the peer has said that it wants it, or has it.
    pub async fn send<S, E>(&self, peer: PeerRef, name: FileName, body: S) -> Result<Sending, SendError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        // A plain peer has no identity to keep a file for: its copy is removed before this returns.
        let id = peer.id().unwrap_or(self.myself.id);
        let manifest = self.outbox.stage(id, body).await?;
        let (content, size) = (manifest.content(), manifest.pieces().len());
        let sending = Sending {
            id: 0,
            name: name.to_string(),
            peer: PeerName { peer_id: peer.id().map(|id| id.to_string()), name: peer.name().to_owned() },
            content: content.to_string(),
            size,
            done_bytes: 0,
            state: SendState::Offered,
            message: None,
        };
        let sent = match &peer {
            PeerRef::Plain { .. } => self.upload(&peer, &name, content, size, sending).await,
            PeerRef::Known { .. } => self.offer(&peer, id, content, sending).await,
        };
        if sent.is_err() || matches!(peer, PeerRef::Plain { .. }) {
            self.done_with(id, content).await;
        }
        sent
    }

    /// What becomes of the one of this number.
    pub fn watch(&self, id: u64) -> Option<watch::Receiver<Sending>> {
        self.lock().get(&id).map(watch::Sender::subscribe)
    }

    async fn upload(
        &self,
        peer: &PeerRef,
        name: &FileName,
        content: ContentHash,
        size: u64,
        sending: Sending,
    ) -> Result<Sending, SendError> {
        if size > MAX_UPLOAD_LEN {
            return Err(SendError::TooLargeForPlain(peer.to_string(), size));
        }
        let bytes = self.outbox.read(content).await?;
        match plain::upload(peer, name, bytes).await {
            Ok(message) => Ok(self.enter(Sending {
                state: SendState::Delivered,
                done_bytes: size,
                message: Some(message),
                ..sending
            })),
            Err(Failure::Lost(why)) => Err(SendError::Unreachable(peer.to_string(), why)),
            Err(Failure::Refused(why)) => Err(SendError::Refused(peer.to_string(), why)),
        }
    }

    async fn offer(
        &self,
        peer: &PeerRef,
        id: PeerId,
        content: ContentHash,
        sending: Sending,
    ) -> Result<Sending, SendError> {
        let unreachable = |why: String| SendError::Unreachable(peer.to_string(), why);
        let refused = |why: String| SendError::Refused(peer.to_string(), why);
        let mut client = self.connections.peer(peer).await.map_err(|error| unreachable(error.to_string()))?;
        let request = OfferRequest {
            content: content.as_bytes().to_vec().into(),
            size: sending.size,
            name: sending.name.clone(),
            sender: Some(self.myself.to_wire()),
        };
        let first = async {
            let mut updates = client.offer(request).await?.into_inner();
            let update = updates.message().await?;
            Ok::<_, tonic::Status>((update, updates))
        };
        let (update, updates) = match timeout(OFFER_TIMEOUT, first).await {
            Ok(Ok((Some(update), updates))) => (update, updates),
            Ok(Ok((None, _))) => return Err(unreachable("it gave no answer".to_owned())),
            Ok(Err(status)) => {
                self.connections.note(id, &status);
                return Err(match status.code() {
                    tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                        refused(status.message().to_owned())
                    }
                    _ => unreachable(status.message().to_owned()),
                });
            }
            Err(_) => return Err(unreachable("it does not answer".to_owned())),
        };
        let sending = merged(sending, update);
        if sending.state == SendState::Refused {
            return Err(refused(sending.message.unwrap_or_default()));
        }
        let sending = self.enter(sending);
        tell(&sending, "is offered to");
        self.tasks.spawn_detached("send", self.clone().follow(sending.id, id, content, updates));
        Ok(sending)
    }

    async fn follow(
        self,
        number: u64,
        id: PeerId,
        content: ContentHash,
        mut updates: Streaming<OfferUpdate>,
    ) {
        let token = self.tasks.token();
        loop {
            let update = tokio::select! {
                () = token.cancelled() => return,
                update = updates.message() => update,
            };
            let Some(known) = self.lock().get(&number).cloned() else { return };
            match update {
                Ok(Some(update)) => known.send_modify(|sending| *sending = merged(sending.clone(), update)),
                ended => {
                    let why = ended.err().map_or("it ended".to_owned(), |status| status.message().to_owned());
                    // The receiver has a transfer of its own, and goes on with it when it can.
                    known.send_modify(|sending| {
                        if sending.state == SendState::Accepted {
                            sending.message = Some(format!("the connection to the receiver was lost: {why}"));
                        }
                    });
                    return;
                }
            }
            let sending = known.borrow().clone();
            if matches!(sending.state, SendState::Delivered | SendState::Refused) {
                let is_there = sending.state == SendState::Delivered;
                tell(&sending, if is_there { "has arrived at" } else { "was refused by" });
                self.done_with(id, content).await;
                return;
            }
        }
    }

    async fn done_with(&self, id: PeerId, content: ContentHash) {
        let (peer, content_text) = (Some(id.to_string()), content.to_string());
        let is_wanted = self.lock().values().map(|known| known.borrow().clone()).any(|other| {
            matches!(other.state, SendState::Offered | SendState::Accepted)
                && other.peer.peer_id == peer
                && other.content == content_text
        });
        if is_wanted {
            // The same file is on its way to the same peer under another name.
            return;
        }
        if let Err(error) = self.outbox.remove(id, content).await {
            tracing::warn!(content_hash = %content, %error, "{content}, which was sent, stays in the outbox: {error}");
        }
    }

    fn enter(&self, sending: Sending) -> Sending {
        let mut known = self.lock();
        let id = known.last_key_value().map_or(1, |(last, _)| last + 1);
        let sending = Sending { id, ..sending };
        known.insert(id, watch::Sender::new(sending.clone()));
        if known.len() > REMEMBERED {
            known.pop_first();
        }
        sending
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, watch::Sender<Sending>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(sending: &Sending, how: &str) {
    let Sending { name, content, size: bytes, peer, .. } = sending;
    tracing::info!(
        file = name,
        content_hash = content,
        bytes,
        peer_id = peer.peer_id,
        peer = peer.name,
        "{name} ({}) {how} {}",
        size(*bytes),
        peer.name
    );
}

fn merged(sending: Sending, update: OfferUpdate) -> Sending {
    let state = match State::try_from(update.state) {
        Ok(State::Accepted) => SendState::Accepted,
        Ok(State::Delivered) => SendState::Delivered,
        Ok(State::Refused) => SendState::Refused,
        _ => sending.state,
    };
    let done_bytes = if state == SendState::Delivered { sending.size } else { update.done_bytes };
    Sending {
        state,
        done_bytes,
        name: if update.name.is_empty() { sending.name } else { update.name },
        message: Some(update.message).filter(|message| !message.is_empty()),
        ..sending
    }
}
