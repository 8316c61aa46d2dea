//! An answer that is handed over piece by piece, and taken back where nobody reads it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use p2p_service::tasks::Tasks;
use tokio::time::Instant;

use super::Place;

/// Bytes that are handed to the connection at once.
const PIECE: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a long answer.
pub(crate) struct Outgoing<B> {
    held: Arc<Mutex<Option<Held<B>>>>,
}

struct Held<B> {
    body: B,
    /// What the body gave and is not handed over yet.
    rest: Bytes,
    /// When something of it was asked for last.
    moved: Instant,
    _place: Place,
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Outgoing<B> {
    /// The body, in its place for as long as it moves.
    pub(crate) fn new(body: B, place: Place, tasks: &Tasks) -> Outgoing<B> {
        let patience = place.patience;
        let held = Held { body, rest: Bytes::new(), moved: Instant::now(), _place: place };
        let held = Arc::new(Mutex::new(Some(held)));
        let unread = Arc::downgrade(&held);
        // Who does not read is not asked again: nobody else would find out.
        tasks.spawn_detached("unread-answer", async move {
            loop {
                tokio::time::sleep(patience).await;
                let Some(held) = unread.upgrade() else { return };
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                if held.as_ref().is_none_or(|held| held.moved.elapsed() >= patience) {
                    *held = None;
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
        let Some(held) = held.as_mut() else {
            return Poll::Ready(Some(Err("the answer was not read, and is taken back".into())));
        };
        held.moved = Instant::now();
        if held.rest.is_empty() {
            match ready!(Pin::new(&mut held.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => held.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        let piece = held.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(held.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|held| held.rest.is_empty() && held.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = held.as_ref() else { return SizeHint::default() };
        match held.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + held.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}
