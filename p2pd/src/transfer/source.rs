//! One source of a transfer: pieces are asked for, and their bytes come back, on one Pull stream; what it has, and who
//! else fetches it, comes on one Availability stream.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use p2p_content::{Bitmap, ContentHash, Pieces};
use p2p_proto::pull::Answer;
use p2p_proto::v1::availability_update::HeldBack;
use p2p_proto::v1::pull_refusal::Reason;
use p2p_proto::v1::{AvailabilityRequest, AvailabilityUpdate, PeerInfo, PullRequest};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use super::assembly::Assembly;
use super::gone::Gone;
use super::measure::{Doing, Stopwatch};
use super::patience::{Patience, SILENCE};
use super::plan::SourceKey;
use super::pull_call;
use crate::discovery::{Connections, PeerRef};
use crate::limits::Limits;

/// Other fetchers that one answer of a source may name.
const NAMED: usize = 64;

/// What a source has to tell.
pub(super) enum Event {
    /// It is connected.
    Ready {
        /// Who.
        source: SourceKey,
        /// How long it took to answer when there was nothing to do.
        round_trip: Duration,
    },
    /// What it has, and whom it knows.
    News {
        /// Who.
        source: SourceKey,
        /// What.
        news: News,
    },
    /// A piece arrived; nothing is proven yet.
    Piece {
        /// From whom.
        source: SourceKey,
        /// Which.
        piece: u32,
        /// Its bytes.
        chunks: Vec<Bytes>,
    },
    /// It was told to leave a piece, and has not given all of it.
    Withdrawn {
        /// Who.
        source: SourceKey,
        /// Which.
        piece: u32,
        /// Bytes of it that had come.
        len: u64,
    },
    /// It gives nothing more.
    Gone {
        /// Who.
        source: SourceKey,
        /// Why.
        why: Gone,
    },
}

/// What is new of a source.
#[derive(Default)]
pub(super) struct News {
    /// It has all pieces.
    pub(super) whole: bool,
    /// It has these pieces.
    pub(super) pieces: Option<Bitmap>,
    /// It has these few pieces too.
    pub(super) gained: Vec<u32>,
    /// Others asked it for these.
    pub(super) promised: Vec<u32>,
    /// Others that fetch the content, and give what they get.
    pub(super) fetchers: Vec<PeerRef>,
}

/// What the engine tells a source's task.
pub(super) enum Order {
    /// To ask for the piece.
    Ask(u32),
    /// That the piece has come from somebody else.
    Leave(u32),
}

/// A source's task.
pub(super) struct SourceTask {
    pub(super) key: SourceKey,
    pub(super) peer: PeerRef,
    pub(super) content: ContentHash,
    pub(super) pieces: Pieces,
    /// Whether somebody else than another fetcher said that it has the content: then it has all of it.
    pub(super) is_located: bool,
    /// This peer, where it gives to others what it gets.
    pub(super) fetcher: Option<PeerInfo>,
    pub(super) connections: Connections,
    pub(super) limits: Limits,
    /// What it is at.
    pub(super) watch: Stopwatch,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Sender<Event>,
}

impl SourceTask {
    /// Runs until nobody asks any more or the source gives nothing more.
    pub(super) async fn run(mut self) {
        let (key, events) = (self.key, self.events.clone());
        if let Err(why) = self.pull().await {
            // The engine has ended: nobody wants to know.
            let _ = events.send(Event::Gone { source: key, why }).await;
        }
    }

    async fn pull(&mut self) -> Result<(), Gone> {
        let connected =
            tokio::try_join!(self.connections.pieces(&self.peer), self.connections.peer(&self.peer));
        let (lent, mut teller) = connected.map_err(|error| Gone::Lost(error.to_string()))?;
        let (up, outgoing) = mpsc::channel(64);
        let request = AvailabilityRequest {
            content: self.content.as_bytes().to_vec().into(),
            fetcher: self.fetcher.take(),
        };
        let opening = async {
            tokio::join!(
                pull_call::open(lent.channel(), self.connections.metadata(), outgoing),
                teller.availability(request)
            )
        };
        let opened = timeout(SILENCE, opening).await.map_err(|_| self.silent(SILENCE))?;
        let mut down = opened.0.map_err(|status| self.gone(&status))?;
        let mut told = self.told(opened.1)?;
        let ready = Event::Ready { source: self.key, round_trip: down.round_trip() };
        if self.events.send(ready).await.is_err() {
            return Ok(());
        }
        if told.is_none() {
            let news = News { whole: true, ..News::default() };
            if self.events.send(Event::News { source: self.key, news }).await.is_err() {
                return Ok(());
            }
        }
        let mut parts: HashMap<u32, Assembly> = HashMap::new();
        let mut patience = Patience::new(Instant::now());
        // What this peer's own limit holds back.
        let mut way_in = self.limits.way_in(self.peer.id());
        let (mut wanted, mut ask_at) = (VecDeque::new(), Instant::now());
        // What that limit said no with last.
        let mut refused = None;
        loop {
            self.watch.turn(match (refused, wanted.is_empty(), parts.is_empty()) {
                (Some(held), false, _) => Doing::held(held),
                (_, true, true) => Doing::Idle,
                _ if patience.is_held_back() => Doing::TheirLimit,
                _ => Doing::Bytes,
            });
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Ask(piece)) => wanted.push_back(piece),
                    Some(Order::Leave(piece)) => {
                        if let Some(place) = wanted.iter().position(|other| *other == piece) {
                            wanted.remove(place);
                            let (event, before) =
                                (Event::Withdrawn { source: self.key, piece, len: 0 }, Instant::now());
                            if self.events.send(event).await.is_err() {
                                return Ok(());
                            }
                            patience.prolonged(before.elapsed());
                        } else if let Some(part) = parts.get_mut(&piece) {
                            part.is_left = true;
                            let request =
                                PullRequest { id: piece.into(), withdraw: true, ..PullRequest::default() };
                            say(&up, request).await?;
                        }
                    }
                },
                () = sleep_until(ask_at), if !wanted.is_empty() => {
                    let Some(request) = wanted.front().map(|piece| self.request(*piece)) else { continue };
                    let taken = way_in.take(request.length, Instant::now().into_std());
                    refused = taken.err();
                    match taken {
                        Err(held) => ask_at = Instant::now() + held.wait,
                        Ok(()) => {
                            if parts.is_empty() {
                                patience.heard(Instant::now());
                            }
                            let part = Assembly::of(request.length);
                            parts.extend(wanted.pop_front().map(|piece| (piece, part)));
                            say(&up, request).await?;
                        }
                    }
                }
                answer = down.next() => {
                    patience.heard(Instant::now());
                    let answer = answer.map_err(|status| self.gone(&status))?;
                    let answer = answer.ok_or_else(|| Gone::Lost("it closed the stream".to_owned()))?;
                    if let Some(event) = self.take(answer, &mut parts)? {
                        if !self.hand_on(event).await {
                            return Ok(());
                        }
                        // While the engine was busy nobody read: that is not the source's silence.
                        patience.heard(Instant::now());
                    }
                }
                update = next(&mut told), if told.is_some() => {
                    let update = update.map_err(|status| self.gone(&status))?;
                    let Some(update) = update else {
                        told = None;
                        continue;
                    };
                    if let Some(is_held_back) = said(&update) {
                        patience.held_back(is_held_back, Instant::now());
                    }
                    let news = self.news(update)?;
                    let before = Instant::now();
                    if self.events.send(Event::News { source: self.key, news }).await.is_err() {
                        return Ok(());
                    }
                    // Nor is it, while the engine took no news; news alone are no bytes either.
                    patience.prolonged(before.elapsed());
                }
                () = sleep_until(patience.ends_at()), if !parts.is_empty() => {
                    return Err(self.silent(patience.waited(Instant::now())));
                }
            }
        }
    }

    /// Gives the engine a piece; `false` where it has ended.
    async fn hand_on(&mut self, event: Event) -> bool {
        match self.events.try_send(event) {
            Err(TrySendError::Full(event)) => {
                self.watch.turn(Doing::Sink);
                self.events.send(event).await.is_ok()
            }
            sent => sent.is_ok(),
        }
    }

    fn silent(&self, waited: Duration) -> Gone {
        if let Some(id) = self.peer.id() {
            self.connections.forget(id);
        }
        Gone::Lost(format!("it sends nothing for {} s", waited.as_secs()))
    }

    /// The stream of what it has; `None` where it speaks a protocol without: it is asked because it has all.
    fn told(
        &self,
        opened: Result<tonic::Response<Streaming<AvailabilityUpdate>>, Status>,
    ) -> Result<Option<Streaming<AvailabilityUpdate>>, Gone> {
        match opened {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            // It has no room for one more of these streams; what it was said to have it gives all the same.
            Err(status) if status.code() == Code::ResourceExhausted && self.is_located => Ok(None),
            Err(status) if status.code() == Code::NotFound => {
                Err(Gone::Lost("it does not have it for this peer".to_owned()))
            }
            Err(status) => Err(self.gone(&status)),
        }
    }

    fn news(&self, update: AvailabilityUpdate) -> Result<News, Gone> {
        let count = self.pieces.count();
        let gained = update.gained;
        let pieces = match update.pieces.is_empty() {
            true => None,
            false => Some(
                Bitmap::from_bytes(count, &update.pieces)
                    .map_err(|error| Gone::Dropped(format!("it told nonsense of its pieces: {error}")))?,
            ),
        };
        if let Some(piece) = gained.iter().chain(&update.promised).find(|piece| **piece >= count) {
            return Err(Gone::Dropped(format!("it told of piece {piece}, and there are {count}")));
        }
        let fetchers = update.fetchers.into_iter().filter_map(PeerRef::from_wire);
        let fetchers = fetchers.filter(|peer| peer.id().is_some()).take(NAMED).collect();
        Ok(News { whole: update.whole, pieces, gained, promised: update.promised, fetchers })
    }

    fn request(&self, piece: u32) -> PullRequest {
        let range = self.pieces.range(piece);
        PullRequest {
            id: piece.into(),
            content: self.content.as_bytes().to_vec().into(),
            offset: range.start,
            length: range.end - range.start,
            withdraw: false,
        }
    }

    /// Adds an answer to its piece; what to say where that was the last one.
    fn take(&mut self, answer: Answer, parts: &mut HashMap<u32, Assembly>) -> Result<Option<Event>, Gone> {
        let unasked = || Gone::Dropped("it answered what was not asked".to_owned());
        let piece = u32::try_from(answer.id).map_err(|_| unasked())?;
        let source = self.key;
        if let Some(refusal) = answer.refusal {
            if refusal.reason() == Reason::Withdrawn
                && let Some(part) = parts.remove(&piece).filter(|part| part.is_left)
            {
                return Ok(Some(Event::Withdrawn { source, piece, len: part.len() }));
            }
            if refusal.reason() == Reason::BadRange {
                return Err(Gone::Dropped("it says that the content is not as long".to_owned()));
            }
            let why = match Reason::try_from(refusal.reason) {
                Ok(Reason::Changed) => "its file changed".to_owned(),
                Ok(Reason::NotFound) => "it does not have it for this peer".to_owned(),
                Ok(Reason::NotYet) => {
                    return Err(Gone::Unkept("it does not have the piece that it told of".to_owned()));
                }
                _ => format!("it refused: {}", refusal.message),
            };
            // A disk that is away comes back, and so does a membership that has ended: it may be asked again.
            return Err(Gone::Lost(why));
        }
        let part = parts.get_mut(&piece).ok_or_else(unasked)?;
        self.watch.received(part.add(answer.data)?);
        let whole = part.is_whole().then(|| parts.remove(&piece)).flatten();
        Ok(whole.map(|part| Event::Piece { source, piece, chunks: part.into_chunks() }))
    }

    fn gone(&self, status: &Status) -> Gone {
        if let Some(id) = self.peer.id() {
            self.connections.note(id, status);
        }
        status.into()
    }
}

/// Whether a limit of the source holds its bytes back; `None` where it says nothing new of that.
pub(super) fn said(update: &AvailabilityUpdate) -> Option<bool> {
    match update.held_back() {
        HeldBack::Unspecified => None,
        HeldBack::Nothing => Some(false),
        HeldBack::RateLimit | HeldBack::NoSlot => Some(true),
    }
}

/// Asks for something, or says that it is not wanted. Who takes no requests holds nobody up for longer than who gives no bytes.
async fn say(up: &mpsc::Sender<PullRequest>, request: PullRequest) -> Result<(), Gone> {
    let said = timeout(SILENCE, up.send(request)).await;
    let said =
        said.map_err(|_| Gone::Lost(format!("it has taken no request for {} s", SILENCE.as_secs())))?;
    said.map_err(|_| Gone::Lost("it closed the stream".to_owned()))
}

/// The next update of a stream that is there.
async fn next(
    told: &mut Option<Streaming<AvailabilityUpdate>>,
) -> Result<Option<AvailabilityUpdate>, Status> {
    match told {
        Some(told) => told.message().await,
        None => std::future::pending().await,
    }
}
