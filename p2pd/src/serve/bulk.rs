//! Stands before the generated service and answers `Pull` itself: the same bytes on the wire, none of them copied.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use p2p_proto::v1::PullRequest;
use p2p_proto::v1::peer_server::PeerServer;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstDecoder;
use tower::Service;

use super::peer::PeerService;

/// The call that is answered here.
pub(super) const PULL: &str = "/p2p.v1.Peer/Pull";

/// The `p2p.v1.Peer` service, as it is served.
#[derive(Clone)]
pub struct Bulk {
    service: Arc<PeerService>,
    generated: PeerServer<PeerService>,
    max_request_len: usize,
}

impl Bulk {
    /// Before this service; requests of its calls have at most so many bytes, and so many their answers.
    pub fn new(service: PeerService, max_request_len: usize, max_answer_len: usize) -> Self {
        let service = Arc::new(service);
        let generated = PeerServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(max_request_len)
            .max_encoding_message_size(max_answer_len);
        Self { service, generated, max_request_len }
    }

    fn pull(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (head, body) = request.into_parts();
        let decoder = ProstDecoder::<PullRequest>::default();
        let requests = Streaming::new_request(decoder, body, None, Some(self.max_request_len));
        let metadata = MetadataMap::from_headers(head.headers);
        match self.service.answer_pull(Request::from_parts(metadata, head.extensions, requests)) {
            Ok(answers) => {
                let mut response = http::Response::new(Body::new(StreamBody::new(framed(answers))));
                let grpc = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(header::CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        }
    }
}

/// The answers as an HTTP body that ends with how the call went.
fn framed(
    answers: impl Stream<Item = Result<Bytes, Status>>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    // What comes after an error would be read as part of the call.
    answers.map(Some).chain(stream::once(ready(None))).scan(false, |over, answer| {
        let item = match answer {
            _ if *over => None,
            Some(Ok(bytes)) => Some(Frame::data(bytes)),
            Some(Err(status)) => {
                *over = true;
                Some(Frame::trailers(trailers(&status)))
            }
            None => Some(Frame::trailers(trailers(&Status::ok("")))),
        };
        ready(item.map(Ok))
    })
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It fails only where the message cannot stand in a header; these are ours.
    let _ = status.add_header(&mut trailers);
    trailers
}

impl NamedService for Bulk {
    const NAME: &'static str = <PeerServer<PeerService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Bulk {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.generated, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == PULL {
            return Box::pin(ready(Ok(self.pull(request))));
        }
        self.generated.call(request)
    }
}
