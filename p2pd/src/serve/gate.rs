//! Stands before a service: who may not call is refused before anything of the call's body is read, and what others send and
//! are sent has its room.

use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use p2p_service::passage::{Incoming, MessagePlace, MessageRoom, held_out};
use p2p_service::tasks::Tasks;
use p2p_service::wire::Caller;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use super::admission::Admission;
use super::bulk::PULL;

/// Lets those in who may call.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    admission: Admission,
    room: MessageRoom,
    tasks: Tasks,
    lets_plaintext_in: bool,
}

impl<S> Gate<S> {
    /// Before this service; its calls have one message each, which takes its place in this room, but for Pull, whose are
    /// short.
    pub fn new(inner: S, admission: Admission, room: MessageRoom, tasks: Tasks) -> Self {
        Self { inner, admission, room, tasks, lets_plaintext_in: false }
    }

    /// The same for a service that callers without an identity may call, where the listener lets them in at all.
    pub fn with_plaintext(self) -> Self {
        Self { lets_plaintext_in: true, ..self }
    }

    /// The call as the service gets it: with the [`Guest`](super::admission::Guest) that calls, and with the
    /// [`MessagePlace`] of its message.
    fn let_in(&self, request: Request<Body>) -> Result<Request<Body>, Status> {
        let (mut head, body) = request.into_parts();
        let is_plaintext = head.extensions.get::<Caller>().is_some_and(|caller| caller.peer.is_none());
        if !(is_plaintext && self.lets_plaintext_in) {
            let shown = MetadataMap::from_headers(take(&mut head.headers));
            let guest = self.admission.admit(&head.extensions, &shown)?;
            head.headers = shown.into_headers();
            head.extensions.insert(guest);
        }
        // A stream of short requests, which is bounded and ended by what serves it.
        if head.uri.path() == PULL {
            return Ok(Request::from_parts(head, body));
        }
        let place = MessagePlace::default();
        head.extensions.insert(place.clone());
        Ok(Request::from_parts(head, Body::new(Incoming::single(body, place, &self.room))))
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.let_in(request) {
            Ok(request) => {
                let (answer, tasks) = (self.inner.call(request), self.tasks.clone());
                Box::pin(async move { answer.await.map(|response| held_out(&tasks, response)) })
            }
            Err(refused) => Box::pin(async move { Ok(refused.into_http()) }),
        }
    }
}
