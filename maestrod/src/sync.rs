//! The Sync stream: a peer comes in, its catalog follows, and it stays for as long as the stream lives.
//!
//! One task per stream, from the Hello to the end. What is done with what it says is in `conversation` (with `session`,
//! which delta may follow which, and `repair`, where the two sides differ), who may come in is decided in `admission`, and what a stream's life means for its peer's files is the presence loop's matter.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use p2p_identity::{Identity, Membership, PeerId};
use p2p_proto::v1::{
    Hello, MembershipGrant, SyncRequest, SyncResponse, Welcome, sync_request, sync_response,
};
use p2p_service::passage::Known;
use p2p_service::wire::Caller;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::admission::{self, JoinToken};
use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
use crate::metrics::Metrics;
use crate::presence::{Attendance, Presence, now_ms};
use crate::profile;
use conversation::{Conversation, Failure};

pub mod conversation;
mod repair;
mod session;
#[cfg(test)]
pub(crate) mod tests;

/// How long a peer may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may wait for a peer that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the files that are held of a peer are compared with those that it has, about.
const EXAMINE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Answers that may wait to be sent.
pub(crate) const ANSWERS: usize = 4;

/// What a peer is sent. Boxed, since a channel has room for 32 of them however few may wait, and there is one for each peer.
pub(crate) type Answer = Box<Result<SyncResponse, Status>>;

/// What every stream needs.
#[derive(Clone)]
pub(crate) struct SyncContext {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) presence: Presence,
    pub(crate) join_token: JoinToken,
    pub(crate) identity: Arc<Identity>,
    pub(crate) settings: watch::Receiver<Arc<Config>>,
    pub(crate) token: CancellationToken,
}

/// Serves one stream until it ends. What ends it on this side is told to the peer as its status. That the peer is let in,
/// whoever reads its messages is told by `known`.
pub(crate) async fn serve(
    context: SyncContext,
    caller: Caller,
    known: Known,
    mut requests: impl Stream<Item = Result<SyncRequest, Status>> + Unpin,
    answers: mpsc::Sender<Answer>,
) {
    let Some(peer) = caller.peer else {
        tell(&answers, Status::unauthenticated("a peer must prove its identity: connect with TLS")).await;
        return;
    };
    let mut stream = match enter(&context, caller, peer, &mut requests, &answers).await {
        Ok(stream) => stream,
        Err(status) => {
            let (short, address, reason) = (peer.short(), caller.address, status.message());
            tracing::warn!(peer_id = %peer, %address, reason, "refused peer {short} at {address}: {reason}");
            context.metrics.streams_refused.inc();
            tell(&answers, status).await;
            return;
        }
    };
    known.let_in();
    context.metrics.streams.inc();
    let goodbye = stream.follow(&mut requests).await;
    context.metrics.streams.dec();
    let short = peer.short();
    match goodbye {
        Ok(true) => {
            tracing::info!(peer_id = %peer, "peer {short} left");
            stream.attendance.goodbye();
        }
        Ok(false) => tracing::info!(peer_id = %peer, "the stream of peer {short} broke"),
        Err(status) => {
            let reason = status.message();
            tracing::info!(peer_id = %peer, reason, "the stream of peer {short} ended: {reason}");
            if status.code() == tonic::Code::InvalidArgument {
                context.metrics.streams_refused.inc();
            }
            tell(&answers, status).await;
        }
    }
}

/// Why one that has waited for too long is not let in: it may have a stream at another maestro by now, which is not to be
/// replaced.
fn left() -> Status {
    Status::cancelled("it has left before it was let in")
}

/// Hello, admission, Welcome.
async fn enter(
    context: &SyncContext,
    caller: Caller,
    peer: PeerId,
    requests: &mut (impl Stream<Item = Result<SyncRequest, Status>> + Unpin),
    answers: &mpsc::Sender<Answer>,
) -> Result<SyncStream, Status> {
    let first = timeout(HELLO_TIMEOUT, requests.next()).await;
    let message = match first {
        Ok(Some(Ok(SyncRequest { message }))) => message,
        Ok(Some(Err(status))) => return Err(unreadable(status)),
        Ok(None) => return Err(Status::invalid_argument("the stream ended before a Hello")),
        Err(_) => return Err(Status::deadline_exceeded("no Hello came")),
    };
    let Some(sync_request::Message::Hello(hello)) = message else {
        return Err(Status::invalid_argument("the first message of a stream must be a Hello"));
    };
    Conversation::check(&hello).map_err(failed)?;
    admit(context, caller, peer, &hello).await?;
    let profile = profile::from_hello(&hello, caller.address).map_err(invalid)?;
    let name = profile.name.clone();
    let held = tokio::select! {
        held = context.directory.begin(peer, profile, now_ms()) => held.map_err(status_of)?,
        () = answers.closed() => return Err(left()),
    };
    if answers.is_closed() {
        return Err(left());
    }
    let (conversation, resume) = Conversation::begin(peer, &hello, held).map_err(failed)?;
    let stopping = |_| Status::unavailable("the maestro is stopping");
    let attendance = context.presence.connect(peer, held.session).await.map_err(stopping)?;
    let stream =
        SyncStream { context: context.clone(), peer, conversation, attendance, answers: answers.clone() };
    let settings = stream.settings();
    stream
        .send(sync_response::Message::Welcome(Welcome {
            name: settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: resume.epoch,
            applied_sequence: resume.applied,
            lease_secs: settings.directory.lease_secs,
            membership: Some(stream.grant()),
        }))
        .await?;
    let (short, address) = (peer.short(), caller.address);
    let goes_on =
        if resume.epoch == hello.epoch { "goes on where it was" } else { "tells its whole catalog" };
    tracing::info!(
        peer_id = %peer,
        peer = name,
        %address,
        "peer {name} ({short}) connected from {address}, and {goes_on}"
    );
    Ok(stream)
}

async fn admit(context: &SyncContext, caller: Caller, peer: PeerId, hello: &Hello) -> Result<(), Status> {
    let known = context.directory.is_admitted(peer).await.map_err(status_of)?;
    let policy = context.settings.borrow().admission.policy;
    let shown = context.join_token.judge(&hello.join_token);
    let admitted = admission::decide(policy, caller.address.ip(), known, shown)
        .map_err(|refusal| Status::permission_denied(refusal.to_string()))?;
    if admitted.remember {
        context.directory.admit(peer, now_ms()).await.map_err(status_of)?;
        let (short, address) = (peer.short(), caller.address);
        tracing::info!(peer_id = %peer, %address, "peer {short} at {address} was admitted by the join token");
    }
    Ok(())
}

/// A stream whose peer is in.
struct SyncStream {
    context: SyncContext,
    peer: PeerId,
    conversation: Conversation,
    attendance: Attendance,
    answers: mpsc::Sender<Answer>,
}

impl SyncStream {
    /// Takes what comes until the end; `true` if the peer said goodbye.
    async fn follow(
        &mut self,
        requests: &mut (impl Stream<Item = Result<SyncRequest, Status>> + Unpin),
    ) -> Result<bool, Status> {
        let renew_every = self.settings().renew_every;
        let mut renewal = tokio::time::interval_at(Instant::now() + renew_every, renew_every);
        // Not all peers of a restarted maestro at once.
        let first = EXAMINE_EVERY.mul_f64(rand::random_range(0.1..1.0));
        let mut examination = tokio::time::interval_at(Instant::now() + first, EXAMINE_EVERY);
        loop {
            let request = tokio::select! {
                () = self.context.token.cancelled() => {
                    return Err(Status::unavailable("the maestro is stopping"));
                }
                () = self.attendance.replaced().cancelled() => {
                    return Err(Status::aborted("a newer stream of this peer has taken this one's place"));
                }
                () = self.answers.closed() => return Ok(false),
                _ = renewal.tick() => {
                    self.send(sync_response::Message::Membership(self.grant())).await?;
                    continue;
                }
                _ = examination.tick() => {
                    if let Some(question) = self.conversation.examine() {
                        self.send(question).await?;
                    }
                    continue;
                }
                request = requests.next() => request,
            };
            match request {
                None => return Ok(false),
                Some(Err(status)) => {
                    let (peer, short, reason) = (self.peer, self.peer.short(), status.message());
                    tracing::debug!(peer_id = %peer, reason, "cannot read the stream of peer {short}: {reason}");
                    // What the peer sent and cannot be read, it is told of; of a connection that broke it knows.
                    return match status.code() {
                        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::Internal => {
                            Err(unreadable(status))
                        }
                        _ => Ok(false),
                    };
                }
                Some(Ok(SyncRequest { message })) => match message {
                    Some(sync_request::Message::Goodbye(_)) => return Ok(true),
                    Some(sync_request::Message::Hello(_)) => {
                        return Err(Status::invalid_argument("a stream has one Hello, and this is another"));
                    }
                    Some(message) => self.take(message).await?,
                    // A message of a later release.
                    None => {}
                },
            }
        }
    }

    async fn take(&mut self, message: sync_request::Message) -> Result<(), Status> {
        let directory = &*self.context.directory;
        let taken = self.conversation.take(directory, message, now_ms()).await.map_err(failed)?;
        let metrics = &self.context.metrics;
        metrics.batches.inc_by(u64::from(taken.changes.is_some()));
        metrics.changes.inc_by(taken.changes.unwrap_or(0));
        metrics.resyncs.inc_by(u64::from(taken.resync));
        metrics.repairs.inc_by(u64::from(taken.repaired.is_some()));
        metrics.files_repaired.inc_by(taken.repaired.unwrap_or(0));
        for answer in taken.answers {
            self.send(answer).await?;
        }
        if taken.is_hopeless {
            // Both sides would go on like this for ever.
            return Err(Status::failed_precondition(
                "the catalog was sent whole and its digest still differs: peer and maestro compute it differently",
            ));
        }
        Ok(())
    }

    async fn send(&self, message: sync_response::Message) -> Result<(), Status> {
        let answer = SyncResponse { message: Some(message) };
        match timeout(SEND_TIMEOUT, self.answers.send(Box::new(Ok(answer)))).await {
            // A stream that is gone shows in what is read from it next.
            Ok(_) => Ok(()),
            Err(_) => Err(Status::deadline_exceeded("the peer does not read its answers")),
        }
    }

    fn settings(&self) -> Arc<Config> {
        Arc::clone(&self.context.settings.borrow())
    }

    fn grant(&self) -> MembershipGrant {
        let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let life_secs = u64::from(self.settings().admission.membership_days) * 24 * 3600;
        let membership = Membership::issue(&self.context.identity, self.peer, now_secs + life_secs);
        MembershipGrant { membership: membership.to_bytes().into() }
    }
}

/// The stream's last word. Nobody waits for a peer that does not read it.
async fn tell(answers: &mpsc::Sender<Answer>, status: Status) {
    let _ = timeout(Duration::from_secs(1), answers.send(Box::new(Err(status)))).await;
}

/// What a peer is told of a message that is none: the library takes it for a failure of its own.
fn unreadable(status: Status) -> Status {
    match status.code() {
        tonic::Code::Internal => invalid(format!("a message cannot be read: {}", status.message())),
        _ => status,
    }
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn failed(failure: Failure) -> Status {
    match failure {
        Failure::Violation(message) => invalid(message),
        Failure::Directory(error) => status_of(error),
    }
}

/// What a peer is told of a failure of the directory.
pub(crate) fn status_of(error: DirectoryError) -> Status {
    match &error {
        DirectoryError::Superseded => Status::aborted(error.to_string()),
        DirectoryError::Position => Status::invalid_argument(error.to_string()),
        DirectoryError::Full(_) => {
            tracing::error!(%error, "the disk is full: {error}; free some space on the disk of the state directory");
            Status::resource_exhausted(error.to_string())
        }
        // The store tells of it once.
        DirectoryError::Unavailable(_) | DirectoryError::Busy(_) => Status::unavailable(error.to_string()),
        DirectoryError::Failed(_) => {
            tracing::error!(%error, "the directory failed: {error}; look at the disk of the state directory");
            Status::internal(error.to_string())
        }
    }
}
