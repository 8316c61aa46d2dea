//! One source of a directory: many whole files are asked for on one Pull stream, and come back in the order in which they
//! were asked for. Called by the run, which proves what comes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_proto::pull::Answer;
use p2p_proto::v1::PullRequest;
use p2p_proto::v1::pull_refusal::Reason;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::super::assembly::Assembly;
use super::super::ear::{self, Ear};
use super::super::gone::Gone;
use super::super::measure::{Doing, Stopwatch};
use super::super::patience::{Patience, SILENCE};
use super::super::plan::SourceKey;
use super::super::pull_call;
use super::plan::FileKey;
use crate::discovery::{Connections, PeerRef};
use crate::limits::Limits;

/// When a source is first asked whether a limit of its own holds it back: most directories are here before anybody wants to
/// know. And how long after that it is asked again, where it says nothing more.
const LISTEN_AFTER: Duration = Duration::from_secs(1);
const LISTEN_AGAIN: Duration = Duration::from_secs(10);
/// Requests that are on their way to the connection.
const REQUESTS: usize = 256;

/// What a source has to tell.
pub(super) enum Event {
    /// It is connected; so long it took to answer when there was nothing to do.
    Ready { source: SourceKey, round_trip: Duration },
    /// Whole files have come; nothing is proven yet.
    Files { source: SourceKey, files: Vec<(FileKey, Vec<Bytes>)> },
    /// It does not give this file; `is_range`: since it is not as long.
    Refused { source: SourceKey, key: FileKey, is_range: bool },
    /// It was told to leave a file, and has not given all of it; so many bytes had come.
    Withdrawn { source: SourceKey, key: FileKey, len: u64 },
    /// It gives nothing more.
    Gone { source: SourceKey, why: Gone },
}

/// What the run tells a source's task.
pub(super) enum Order {
    /// To ask for these files.
    Ask(Vec<Wanted>),
    /// That the file has come from somebody else.
    Leave(FileKey),
}

/// A file that is to be asked for.
pub(super) struct Wanted {
    pub(super) key: FileKey,
    pub(super) content: ContentHash,
    pub(super) size: u64,
}

/// A source's task.
pub(super) struct StreamTask {
    pub(super) key: SourceKey,
    pub(super) peer: PeerRef,
    pub(super) connections: Connections,
    pub(super) limits: Limits,
    /// What it is at.
    pub(super) watch: Stopwatch,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What came of an answer.
enum Took {
    /// There is more of its file to come.
    Part,
    /// A file is whole.
    Whole(FileKey, Vec<Bytes>),
    /// There is no more of its file to come.
    Refusal(Event),
}

/// The run has ended: nobody wants to know more.
struct Over;

impl StreamTask {
    /// Runs until nobody asks any more or the source gives nothing more.
    pub(super) async fn run(mut self) {
        let (source, events) = (self.key, self.events.clone());
        if let Err(why) = self.pull().await {
            let _ = events.send(Event::Gone { source, why }).await;
        }
    }

    async fn pull(&mut self) -> Result<(), Gone> {
        let connected = self.connections.files(&self.peer).await;
        let lent = connected.map_err(|error| Gone::Lost(error.to_string()))?;
        let (up, outgoing) = mpsc::channel(REQUESTS);
        let opening = pull_call::open(lent.channel(), self.connections.metadata(), outgoing);
        let opened = timeout(SILENCE, opening).await.map_err(|_| self.silent(SILENCE))?;
        let mut down = opened.map_err(|status| self.gone(&status))?;
        let ready = Event::Ready { source: self.key, round_trip: down.round_trip() };
        if self.tell(ready).await.is_err() {
            return Ok(());
        }
        let mut open: HashMap<FileKey, Assembly> = HashMap::new();
        let mut patience = Patience::new(Instant::now());
        // What this peer's own limit holds back.
        let (mut wanted, mut ask_at) = (VecDeque::<PullRequest>::new(), Instant::now());
        let mut way_in = self.limits.way_in(self.peer.id());
        let mut refused = None;
        // What it was last asked for, and who hears what it says of its own limits.
        let (mut asked, mut ear, mut listen_at) = (None, None, Instant::now() + LISTEN_AFTER);
        loop {
            self.watch.turn(match (refused, wanted.is_empty(), open.is_empty()) {
                (Some(held), false, _) => Doing::held(held),
                (_, true, true) => Doing::Idle,
                _ if patience.is_held_back() => Doing::TheirLimit,
                _ => Doing::Bytes,
            });
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Ask(files)) => wanted.extend(files.into_iter().map(request)),
                    Some(Order::Leave(key)) => {
                        if let Some(at) = wanted.iter().position(|request| request.id == u64::from(key)) {
                            wanted.remove(at);
                            let (event, before) =
                                (Event::Withdrawn { source: self.key, key, len: 0 }, Instant::now());
                            if self.tell(event).await.is_err() {
                                return Ok(());
                            }
                            // Nobody read meanwhile.
                            patience.prolonged(before.elapsed());
                        } else if let Some(file) = open.get_mut(&key) {
                            file.is_left = true;
                            let leave = PullRequest { id: key.into(), withdraw: true, ..PullRequest::default() };
                            if !self.ask(&up, leave).await? {
                                return Err(self.last_words(&mut down, &mut open).await);
                            }
                        }
                    }
                },
                () = sleep_until(ask_at), if !wanted.is_empty() => {
                    refused = None;
                    while let Some(length) = wanted.front().map(|request| request.length) {
                        if let Err(held) = way_in.take(length, Instant::now().into_std()) {
                            refused = Some(held);
                            ask_at = Instant::now() + held.wait;
                            break;
                        }
                        let Some(request) = wanted.pop_front() else { break };
                        if open.is_empty() {
                            patience.heard(Instant::now());
                        }
                        let key = FileKey::try_from(request.id).unwrap_or_default();
                        open.insert(key, Assembly::of(request.length));
                        asked = Some(request.content.clone());
                        if !self.ask(&up, request).await? {
                            return Err(self.last_words(&mut down, &mut open).await);
                        }
                    }
                }
                answer = down.next() => {
                    let answer = answer.map_err(|status| self.gone(&status))?.ok_or_else(closed)?;
                    if self.take_all(answer, &mut down, &mut open).await?.is_err() {
                        return Ok(());
                    }
                    // While the run was busy nobody read: that is not the source's silence.
                    patience.heard(Instant::now());
                }
                () = sleep_until(listen_at), if ear.is_none() && !open.is_empty() => {
                    let listen = |content| Ear::to(self.connections.clone(), self.peer.clone(), content);
                    ear = asked.clone().map(listen);
                    listen_at = Instant::now() + LISTEN_AGAIN;
                }
                hears = ear::hears(&mut ear), if ear.is_some() => {
                    if !hears {
                        // What it was asked for then may be gone there.
                        ear = None;
                    }
                    patience.held_back(ear.as_ref().is_some_and(Ear::is_held_back), Instant::now());
                }
                () = sleep_until(patience.ends_at()), if !open.is_empty() => {
                    return Err(self.silent(patience.waited(Instant::now())));
                }
            }
        }
    }

    /// Sends a request; whether the source still takes any. One that takes none for so long is as silent as one that answers
    /// none.
    async fn ask(&self, up: &mpsc::Sender<PullRequest>, request: PullRequest) -> Result<bool, Gone> {
        let sent = timeout(SILENCE, up.send(request)).await.map_err(|_| self.silent(SILENCE))?;
        Ok(sent.is_ok())
    }

    /// Tells what a source had sent before it closed, be it true or false, and then why it is gone.
    async fn last_words(
        &mut self,
        down: &mut pull_call::Answers,
        open: &mut HashMap<FileKey, Assembly>,
    ) -> Gone {
        loop {
            let answer = match timeout(SILENCE, down.next()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return closed(),
                Ok(Err(status)) => return self.gone(&status),
                Err(_) => return self.silent(SILENCE),
            };
            match self.take_all(answer, down, open).await {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => return closed(),
                Err(gone) => return gone,
            }
        }
    }

    async fn tell(&mut self, event: Event) -> Result<(), Over> {
        match self.events.try_send(event) {
            Err(TrySendError::Full(event)) => {
                self.watch.turn(Doing::Sink);
                self.events.send(event).await.map_err(|_| Over)
            }
            sent => sent.map_err(|_| Over),
        }
    }

    /// Takes an answer, and those that came with it, and tells what they come to.
    async fn take_all(
        &mut self,
        answer: Answer,
        down: &mut pull_call::Answers,
        open: &mut HashMap<FileKey, Assembly>,
    ) -> Result<Result<(), Over>, Gone> {
        let (mut files, mut others, mut answer) = (Vec::new(), Vec::new(), Some(answer));
        let mut taken = Ok(());
        while let Some(next) = answer {
            match self.take(next, open) {
                Ok(Took::Part) => {}
                Ok(Took::Whole(key, chunks)) => files.push((key, chunks)),
                Ok(Took::Refusal(event)) => others.push(event),
                Err(gone) => {
                    taken = Err(gone);
                    break;
                }
            }
            answer = down.another();
        }
        if !files.is_empty() {
            others.push(Event::Files { source: self.key, files });
        }
        for event in others {
            if self.tell(event).await.is_err() {
                return Ok(Err(Over));
            }
        }
        taken.map(Ok)
    }

    /// Adds an answer to its file.
    fn take(&mut self, answer: Answer, open: &mut HashMap<FileKey, Assembly>) -> Result<Took, Gone> {
        let unasked = || Gone::Dropped("it answered what was not asked".to_owned());
        let key = FileKey::try_from(answer.id).map_err(|_| unasked())?;
        let source = self.key;
        if let Some(refusal) = answer.refusal {
            let file = open.remove(&key).ok_or_else(unasked)?;
            return match refusal.reason() {
                Reason::Withdrawn if file.is_left => {
                    Ok(Took::Refusal(Event::Withdrawn { source, key, len: file.len() }))
                }
                // A disk that is away says nothing of the other files; whoever has it gives it.
                reason @ (Reason::NotFound
                | Reason::Changed
                | Reason::NotYet
                | Reason::Unreadable
                | Reason::BadRange) => {
                    let is_range = reason == Reason::BadRange;
                    Ok(Took::Refusal(Event::Refused { source, key, is_range }))
                }
                _ => Err(Gone::Lost(format!("it refused: {}", refusal.message))),
            };
        }
        let file = open.get_mut(&key).ok_or_else(unasked)?;
        self.watch.received(file.add(answer.data)?);
        let file = file.is_whole().then(|| open.remove(&key)).flatten();
        Ok(file.map_or(Took::Part, |file| Took::Whole(key, file.into_chunks())))
    }

    fn silent(&self, waited: Duration) -> Gone {
        if let Some(id) = self.peer.id() {
            self.connections.forget(id);
        }
        Gone::Lost(format!("it sends nothing for {} s", waited.as_secs()))
    }

    fn gone(&self, status: &Status) -> Gone {
        if let Some(id) = self.peer.id() {
            self.connections.note(id, status);
        }
        status.into()
    }
}

fn closed() -> Gone {
    Gone::Lost("it closed the stream".to_owned())
}

fn request(Wanted { key, content, size }: Wanted) -> PullRequest {
    let content = content.as_bytes().to_vec().into();
    PullRequest { id: key.into(), content, offset: 0, length: size, withdraw: false }
}
