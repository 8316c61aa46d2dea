//! An answer that is handed over piece by piece, and taken back where nobody reads it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use p2p_identity::PeerId;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::body::Body as GrpcBody;
use tonic::{Response, Status};

use super::{PATIENCE, SHORT};
use crate::tasks::Tasks;

/// Bytes that are handed to the connection at once…
const PIECE: usize = 16 * 1024;
/// … and how many such pieces it may have before it has sent one: what it has cannot be taken back, and takes no more room
/// than a short answer.
const PIECES: usize = 2;
/// Bytes of one peer's answers, at the most: two of the longest, each as it is and as it is written down.
const SHARE: usize = 4 * p2p_proto::MAX_MESSAGE_LEN;
/// An answer of which nothing was asked for in so long gives way where the room is full. What waits for longest goes first,
/// so that whoever reads, however slowly, is the last.
const HASTE: Duration = Duration::from_millis(100);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The room for the long answers of an edge. Clones are the same room.
#[derive(Clone)]
pub struct AnswerRoom {
    taken: Arc<Mutex<Taken>>,
    /// In bytes, all of it.
    size: usize,
    freed: Arc<Notify>,
    patience: Duration,
    haste: Duration,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    /// What of it each peer has.
    by: HashMap<PeerId, usize>,
    /// Answers that are on their way.
    answers: Vec<Weak<dyn Held>>,
}

/// The place of one answer; free again when the last clone of it is dropped.
#[derive(Clone)]
pub struct Place(Arc<Kept>);

struct Kept {
    room: AnswerRoom,
    peer: Option<PeerId>,
    bytes: usize,
}

/// There is no room for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Others have it.
    #[error("answers that others asked for and do not read fill the room for them; try again later")]
    Others,
    /// The peer has its part of it.
    #[error(
        "answers that you asked for and do not read fill your part of the room for them; read them first"
    )]
    Own,
}

impl AnswerRoom {
    /// For so many bytes of long answers at once. The buffer that one was written into may be half as large again.
    pub fn new(bytes: usize) -> AnswerRoom {
        AnswerRoom::hasty_after(bytes, HASTE)
    }

    /// The same where an answer gives way that nobody has read on for so long.
    pub fn hasty_after(bytes: usize, haste: Duration) -> AnswerRoom {
        AnswerRoom::with_patience(bytes, PATIENCE, haste)
    }

    pub(super) fn with_patience(size: usize, patience: Duration, haste: Duration) -> AnswerRoom {
        AnswerRoom { taken: Arc::default(), size, freed: Arc::default(), patience, haste }
    }

    /// A place for an answer of so many bytes to this peer, of whom there may be many where it is not said; `None`: it
    /// needs none. Where the room is full, the answer that was not read for longest gives way.
    ///
    /// # Errors
    /// Where there is no room; it may well be there soon.
    pub fn place(&self, peer: Option<PeerId>, bytes: usize) -> Result<Option<Place>, NoRoom> {
        if bytes <= SHORT {
            return Ok(None);
        }
        // No answer is larger than all of the room, and one that is must still find a place.
        let bytes = bytes.min(self.size);
        loop {
            match self.take(peer, bytes) {
                Ok(()) => return Ok(Some(Place(Arc::new(Kept { room: self.clone(), peer, bytes })))),
                Err(NoRoom::Others) if self.take_back() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The same for an answer of which nothing is there yet: its place is waited for.
    ///
    /// # Errors
    /// Where there was no room for 20 s.
    pub async fn wait_for_place(&self, peer: Option<PeerId>, bytes: usize) -> Result<Option<Place>, NoRoom> {
        let began = Instant::now();
        loop {
            let freed = self.freed.notified();
            match self.place(peer, bytes) {
                Err(error) if began.elapsed() >= self.patience => return Err(error),
                // An answer that is not read gives way after a while, and nobody tells.
                Err(_) => drop(timeout(self.haste, freed).await),
                place => return place,
            }
        }
    }

    /// An answer that is made, to this peer, with its place until it is read.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where there is no room.
    pub fn answer<T: Message>(&self, peer: PeerId, answer: T) -> Result<Response<T>, Status> {
        // Until it is written out it is as it was put together, which takes about as much again.
        let place = self.place(Some(peer), 2 * answer.encoded_len());
        Ok(placed(answer, place.map_err(|error| Status::resource_exhausted(error.to_string()))?))
    }

    fn take(&self, peer: Option<PeerId>, bytes: usize) -> Result<(), NoRoom> {
        let mut taken = self.lock();
        let own = peer.and_then(|peer| taken.by.get(&peer)).copied().unwrap_or(0);
        if own > 0 && own + bytes > SHARE {
            return Err(NoRoom::Own);
        }
        if taken.bytes + bytes > self.size {
            return Err(NoRoom::Others);
        }
        taken.bytes += bytes;
        if let Some(peer) = peer {
            taken.by.insert(peer, own + bytes);
        }
        Ok(())
    }

    /// Takes back the answer that nobody read for longest, if it is long enough; whether there was one.
    fn take_back(&self) -> bool {
        let answers: Vec<_> = self.lock().answers.iter().filter_map(Weak::upgrade).collect();
        let unread = answers.iter().filter_map(|answer| Some((answer.moved()?, answer)));
        match unread.min_by_key(|(moved, _)| *moved) {
            Some((moved, answer)) if moved.elapsed() >= self.haste => {
                answer.take_back();
                true
            }
            _ => false,
        }
    }

    fn note(&self, answer: Weak<dyn Held>) {
        let mut taken = self.lock();
        taken.answers.retain(|answer| answer.strong_count() > 0);
        taken.answers.push(answer);
    }

    /// Never held while an answer is looked at, which gives its place back here.
    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.size - self.lock().bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.bytes -= self.bytes;
        if let Some(peer) = self.peer
            && let Some(own) = taken.by.get_mut(&peer)
        {
            *own -= self.bytes;
            if *own == 0 {
                taken.by.remove(&peer);
            }
        }
        drop(taken);
        self.room.freed.notify_waiters();
    }
}

/// An answer that has this place until it is read.
pub fn placed<T>(answer: T, place: Option<Place>) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(place) = place {
        response.extensions_mut().insert(place);
    }
    response
}

/// An answer of a gRPC service, which goes out piece by piece where it was given a place.
pub fn held_out(tasks: &Tasks, mut response: ::http::Response<GrpcBody>) -> ::http::Response<GrpcBody> {
    match response.extensions_mut().remove::<Place>() {
        None => response,
        Some(place) => response.map(|body| GrpcBody::new(Outgoing::new(body, place, tasks))),
    }
}

/// The body of a long answer.
pub struct Outgoing<B> {
    held: Arc<Mutex<Option<Answer<B>>>>,
}

struct Answer<B> {
    body: B,
    /// What the body gave and is not handed over yet.
    rest: Bytes,
    /// When something of it was asked for last, and the connection had sent what it had.
    moved: Instant,
    given: Arc<Given>,
    _place: Place,
}

/// The pieces that a connection has and has not sent.
#[derive(Default)]
struct Given(Mutex<(usize, Option<Waker>)>);

/// One of them, a copy: a part of the answer itself would keep all of it.
struct Piece {
    bytes: Vec<u8>,
    given: Arc<Given>,
}

impl Given {
    /// Ready when the connection may have one more.
    fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.0 < PIECES {
            return Poll::Ready(());
        }
        given.1 = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Piece {
    fn of(bytes: &[u8], given: &Arc<Given>) -> Bytes {
        given.0.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        Bytes::from_owner(Piece { bytes: bytes.to_vec(), given: Arc::clone(given) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut given = self.given.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.0 -= 1;
        if let Some(waker) = given.1.take() {
            waker.wake();
        }
    }
}

/// An answer, whatever its body.
trait Held: Send + Sync {
    /// When something of it was asked for last; `None`: it is not there any more.
    fn moved(&self) -> Option<Instant>;

    fn take_back(&self);
}

impl<B: Send> Held for Mutex<Option<Answer<B>>> {
    fn moved(&self) -> Option<Instant> {
        self.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|answer| answer.moved)
    }

    fn take_back(&self) {
        *self.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Outgoing<B> {
    /// The body, in its place for as long as it moves.
    pub fn new(body: B, place: Place, tasks: &Tasks) -> Outgoing<B> {
        let room = place.0.room.clone();
        let patience = room.patience;
        let (rest, given) = (Bytes::new(), Arc::default());
        let answer = Answer { body, rest, moved: Instant::now(), given, _place: place };
        let held = Arc::new(Mutex::new(Some(answer)));
        let unread: Weak<dyn Held> = Arc::<Mutex<Option<Answer<B>>>>::downgrade(&held);
        room.note(Weak::clone(&unread));
        // Who does not read is not asked again: nobody else would find out.
        tasks.spawn_detached("unread-answer", async move {
            loop {
                tokio::time::sleep(patience).await;
                let Some(held) = unread.upgrade() else { return };
                if held.moved().is_none_or(|moved| moved.elapsed() >= patience) {
                    held.take_back();
                    return;
                }
            }
        });
        Outgoing { held }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answer) = held.as_mut() else {
            return Poll::Ready(Some(Err("the answer was not read, and is taken back".into())));
        };
        ready!(answer.given.poll_room(context));
        answer.moved = Instant::now();
        if answer.rest.is_empty() {
            match ready!(Pin::new(&mut answer.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => answer.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        let piece = answer.rest.len().min(PIECE);
        let piece = answer.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(Piece::of(&piece, &answer.given)))))
    }

    fn is_end_stream(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|answer| answer.rest.is_empty() && answer.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answer) = held.as_ref() else { return SizeHint::default() };
        match answer.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + answer.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}
