//! The messages of a call as they come in: a long one needs a place before it is read, and each must come to its end.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;

use super::{Room, SHORT, kib};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// The body of a gRPC call.
pub(crate) struct Incoming<B> {
    body: B,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    message: Message,
    wait: Wait,
}

/// How long the rest of a message was waited for. What passes while nobody asks for it is not counted: it is not the
/// caller's.
struct Wait {
    most: Duration,
    so_far: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
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

impl Message {
    /// Takes what has come; whether a message came to its end in it.
    fn pass(&mut self, mut data: &[u8]) -> bool {
        let mut ended = false;
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
                    ended |= self.left == 0;
                }
            } else {
                let taken = data.len().min(self.left);
                self.left -= taken;
                data.advance(taken);
                ended |= self.left == 0;
            }
        }
        ended
    }

    /// Whether one has begun and not ended.
    fn has_begun(&self) -> bool {
        self.left > 0 || self.has > 0
    }

    fn is_long(&self) -> bool {
        self.left > 0 && self.length > SHORT
    }
}

impl Wait {
    /// Somebody asks again.
    fn pause(&mut self) {
        self.so_far += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Goes on waiting; ready when it was long enough.
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.so_far >= self.most {
            return Poll::Ready(());
        }
        self.since = Some(Instant::now());
        let alarm = self.alarm.insert(Box::pin(tokio::time::sleep(self.most - self.so_far)));
        alarm.as_mut().poll(context)
    }

    fn end(&mut self) {
        (self.so_far, self.since, self.alarm) = (Duration::ZERO, None, None);
    }
}

impl<B> Incoming<B> {
    pub(crate) fn new(body: B, room: &Room) -> Incoming<B> {
        let places = PollSemaphore::new(room.places.clone());
        let wait = Wait { most: room.patience, so_far: Duration::ZERO, since: None, alarm: None };
        Incoming { body, places, place: None, message: Message::default(), wait }
    }

    /// Nothing more is there yet.
    fn pending<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, BoxError>>> {
        if !self.message.has_begun() || self.wait.go_on(context).is_pending() {
            return Poll::Pending;
        }
        let why = match self.lacks_place() {
            true => "long messages of others are being read; try again later".to_owned(),
            false => format!("a message did not come to its end within {:?}", self.wait.most),
        };
        Poll::Ready(Some(Err(Status::resource_exhausted(why).into())))
    }

    /// More than the transport allows is refused by it at once, and needs no place.
    fn lacks_place(&self) -> bool {
        self.place.is_none() && self.message.is_long() && self.message.length <= p2p_proto::MAX_MESSAGE_LEN
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
        if this.lacks_place() {
            match this.places.poll_acquire_many(context, kib(this.message.length)) {
                Poll::Ready(place) => this.place = place,
                Poll::Pending => return this.pending(context),
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            return this.pending(context);
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && this.message.pass(data)
        {
            this.place = None;
            this.wait.end();
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
