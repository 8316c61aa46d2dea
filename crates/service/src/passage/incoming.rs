//! The messages of a call as they come in: a long one needs a place before it is read, and each must come to its end.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, PollSemaphore, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{PATIENCE, SHORT};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Bytes a second that a message must bring while others wait for the room that it takes…
const LEAST_RATE: u32 = 64 * 1024;
/// … and how far it may stay behind that.
const HASTE: Duration = Duration::from_secs(1);

/// The room for the long messages of all calls. Clones are the same room.
#[derive(Debug, Clone)]
pub struct MessageRoom {
    /// In KiB.
    pub(super) places: Arc<Semaphore>,
    /// How many wait for a place.
    waiting: Arc<AtomicUsize>,
    patience: Duration,
    haste: Duration,
}

/// Whether the one who calls has been let in. Clones are about the same call.
#[derive(Debug, Clone, Default)]
pub struct Known(CancellationToken);

/// The place of the one message of a call, once all of it has come: whoever has the message keeps this beside it. Clones are
/// about the same call.
#[derive(Debug, Clone, Default)]
pub struct MessagePlace(Arc<OnceLock<OwnedSemaphorePermit>>);

/// The body of a gRPC call.
pub struct Incoming<B> {
    body: B,
    room: MessageRoom,
    calls: Calls,
    seeking: Seeking,
    place: Option<OwnedSemaphorePermit>,
    message: Message,
    wait: Wait,
}

/// What messages a call has.
enum Calls {
    /// Any number of short ones.
    Short,
    /// Any number, which may be long once it is known who calls.
    OfKnown(Known),
    /// One, of somebody who is known, and nothing after it.
    Single { kept: MessagePlace, is_whole: bool },
}

/// A message on its way to its place.
enum Seeking {
    No,
    /// Nobody knows yet who calls.
    Unknown(Pin<Box<WaitForCancellationFutureOwned>>),
    InLine {
        places: PollSemaphore,
        _counted: InLine,
    },
}

/// Somebody who waits for a place, for as long as this lives.
struct InLine(Arc<AtomicUsize>);

/// How long the rest of a message was waited for. What passes while nobody asks for it is not counted: it is not the
/// caller's.
struct Wait {
    most: Duration,
    so_far: Duration,
    /// How long it may go on where others need the room: less with the time, more with each byte.
    credit: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Why a message is not waited for any longer.
enum Over {
    Patience,
    Haste,
}

/// The message that is coming.
#[derive(Debug, Default)]
struct Message {
    /// What has come of its head.
    head: [u8; HEAD],
    has: usize,
    /// Its length, and what of it is still to come.
    length: usize,
    left: usize,
}

impl MessageRoom {
    /// For so many bytes of long messages at once; a message may take 20 s.
    pub fn new(bytes: usize) -> MessageRoom {
        MessageRoom::with_patience(bytes, PATIENCE, HASTE)
    }

    /// The same for callers whose messages may take so long.
    pub fn patient(bytes: usize, patience: Duration) -> MessageRoom {
        MessageRoom::with_patience(bytes, patience, HASTE)
    }

    pub(super) fn with_patience(bytes: usize, patience: Duration, haste: Duration) -> MessageRoom {
        let places = Arc::new(Semaphore::new(bytes / 1024));
        MessageRoom { places, waiting: Arc::default(), patience, haste }
    }
}

impl Known {
    /// The one who calls was let in: long messages may come.
    pub fn let_in(&self) {
        self.0.cancel();
    }
}

impl Seeking {
    fn in_line(room: &MessageRoom) -> Seeking {
        Seeking::InLine { places: PollSemaphore::new(Arc::clone(&room.places)), _counted: InLine::of(room) }
    }
}

impl InLine {
    fn of(room: &MessageRoom) -> InLine {
        room.waiting.fetch_add(1, Ordering::Relaxed);
        InLine(Arc::clone(&room.waiting))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Message {
    /// Takes what has come; how many messages came to their end in it.
    fn pass(&mut self, mut data: &[u8]) -> usize {
        let mut ended = 0;
        while !data.is_empty() {
            if self.left == 0 {
                let taken = data.len().min(HEAD - self.has);
                self.head[self.has..self.has + taken].copy_from_slice(&data[..taken]);
                self.has += taken;
                data.advance(taken);
                if self.has == HEAD {
                    let [_, length @ ..] = self.head;
                    self.length = u32::from_be_bytes(length) as usize;
                    (self.has, self.left) = (0, self.length);
                    ended += usize::from(self.left == 0);
                }
            } else {
                let taken = data.len().min(self.left);
                self.left -= taken;
                data.advance(taken);
                ended += usize::from(self.left == 0);
            }
        }
        ended
    }

    /// Whether one has begun and not ended.
    fn has_begun(&self) -> bool {
        self.left > 0 || self.has > 0
    }

    /// More than the transport allows is refused by it at once, and needs no place.
    fn is_long(&self) -> bool {
        self.left > 0 && self.length > SHORT && self.length <= p2p_proto::MAX_MESSAGE_LEN
    }

    /// As long as no more of it came than is short, it takes no more room than a short one.
    fn has_come_far(&self) -> bool {
        self.length - self.left >= SHORT
    }
}

impl Wait {
    /// Somebody asks again.
    fn pause(&mut self) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.so_far += waited;
        self.credit = self.credit.saturating_sub(waited);
    }

    /// Goes on waiting; ready when it was long enough.
    fn go_on(&mut self, room: &MessageRoom, has_place: bool, context: &mut Context<'_>) -> Poll<Over> {
        let rest = self.most.saturating_sub(self.so_far);
        if rest.is_zero() {
            return Poll::Ready(Over::Patience);
        }
        let look = match has_place {
            true if !self.credit.is_zero() => self.credit,
            true if room.waiting.load(Ordering::Relaxed) > 0 => return Poll::Ready(Over::Haste),
            true => room.haste,
            false => rest,
        };
        self.since = Some(Instant::now());
        let alarm = self.alarm.insert(Box::pin(tokio::time::sleep(rest.min(look))));
        if alarm.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn came(&mut self, bytes: usize, room: &MessageRoom) {
        let earned = Duration::from_secs(1).mul_f64(bytes as f64 / f64::from(LEAST_RATE));
        self.credit = (self.credit + earned).min(room.haste);
    }

    fn end(&mut self) {
        (self.so_far, self.since, self.alarm) = (Duration::ZERO, None, None);
    }
}

impl<B> Incoming<B> {
    /// A call whose messages may be long once it is known who calls.
    pub fn of_known(body: B, known: Known, room: &MessageRoom) -> Incoming<B> {
        Incoming::new(body, Calls::OfKnown(known), room)
    }

    /// A call of one message, of somebody who may call. It must come to its end with all of its body, for which its end is
    /// waited too; its place then goes to `kept`.
    pub fn single(body: B, kept: MessagePlace, room: &MessageRoom) -> Incoming<B> {
        Incoming::new(body, Calls::Single { kept, is_whole: false }, room)
    }

    /// A call whose messages are short.
    pub fn short(body: B, room: &MessageRoom) -> Incoming<B> {
        Incoming::new(body, Calls::Short, room)
    }

    fn new(body: B, calls: Calls, room: &MessageRoom) -> Incoming<B> {
        let wait = Wait {
            most: room.patience,
            so_far: Duration::ZERO,
            credit: Duration::ZERO,
            since: None,
            alarm: None,
        };
        let (room, message) = (room.clone(), Message::default());
        Incoming { body, room, calls, seeking: Seeking::No, place: None, message, wait }
    }

    /// Nothing more is there yet.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, BoxError>>> {
        // A call of one message owes it from the beginning, and then the end of its body.
        if !self.message.has_begun() && !matches!(self.calls, Calls::Single { .. }) {
            return Poll::Pending;
        }
        let why = match ready!(self.wait.go_on(&self.room, self.place.is_some(), context)) {
            Over::Haste => "a message came slowly, and others wait for its room; try again later".to_owned(),
            Over::Patience if matches!(self.seeking, Seeking::InLine { .. }) => {
                "long messages of others are being read; try again later".to_owned()
            }
            Over::Patience => format!("a message did not come to its end within {:?}", self.wait.most),
        };
        Poll::Ready(Some(Err(Status::resource_exhausted(why).into())))
    }

    /// Whether more of the message may be read.
    fn poll_place(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.seeking {
                Seeking::No => match &self.calls {
                    Calls::OfKnown(known) => {
                        self.seeking = Seeking::Unknown(Box::pin(known.0.clone().cancelled_owned()));
                    }
                    _ if !self.message.has_come_far() => return Poll::Ready(()),
                    _ => self.seeking = Seeking::in_line(&self.room),
                },
                Seeking::Unknown(let_in) => {
                    ready!(let_in.as_mut().poll(context));
                    if !self.message.has_come_far() {
                        return Poll::Ready(());
                    }
                    self.seeking = Seeking::in_line(&self.room);
                }
                Seeking::InLine { places, .. } => {
                    // It is never closed; if it were, nobody would have to wait.
                    let kib = u32::try_from(self.message.length / 1024).unwrap_or(u32::MAX);
                    self.place = ready!(places.poll_acquire_many(context, kib));
                    self.wait.credit = self.room.haste;
                    self.seeking = Seeking::No;
                    return Poll::Ready(());
                }
            }
        }
    }

    fn refused<T>(&self) -> Poll<Option<Result<T, BoxError>>> {
        let why = format!("a question has {SHORT} bytes at the most, and this one {}", self.message.length);
        Poll::Ready(Some(Err(Status::out_of_range(why).into())))
    }

    /// Takes note of what has come.
    fn came(&mut self, data: &[u8]) -> Result<(), Status> {
        self.wait.came(data.len(), &self.room);
        let ended = self.message.pass(data);
        match &mut self.calls {
            Calls::Single { is_whole, .. } => {
                let goes_on = match *is_whole {
                    true => !data.is_empty(),
                    false => ended > 1 || ended == 1 && self.message.has_begun(),
                };
                if goes_on {
                    return Err(Status::invalid_argument("this call has one message, and nothing after it"));
                }
                *is_whole |= ended > 0;
            }
            _ if ended > 0 => {
                (self.place, self.seeking) = (None, Seeking::No);
                self.wait.end();
            }
            _ => {}
        }
        Ok(())
    }

    /// All has come: whoever has the message takes over its place.
    fn hand_over(&mut self) {
        if let (Calls::Single { kept, .. }, Some(place)) = (&self.calls, self.place.take()) {
            // It is handed over once.
            let _ = kept.0.set(place);
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Incoming<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.wait.pause();
        if this.place.is_none() && this.message.is_long() {
            if matches!(this.calls, Calls::Short) {
                return this.refused();
            }
            if this.poll_place(context).is_pending() {
                return this.pending(context);
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            return this.pending(context);
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(refused) = this.came(data)
        {
            return Poll::Ready(Some(Err(refused.into())));
        }
        if frame.is_none() || this.body.is_end_stream() {
            this.hand_over();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
