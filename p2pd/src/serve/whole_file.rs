//! An upload that does not fit into one message is answered as the contract wants it, with `ok=false` and the limit,
//! and not with a gRPC error. gRPC tells a message's length before the message: 5 bytes are read, and no more.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use p2p_proto::MAX_WHOLE_FILE_LEN;
use p2p_proto::files::UploadResponse;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::files::too_large;

/// Path of the call that carries a whole file in.
const UPLOAD: &str = "/files.FileService/Upload";
/// A message's head: one byte of flags, four of length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEAD_LEN: usize = 5;
/// Room for the name and the tags beside the file.
const FIELDS_LEN: u64 = 4096;

/// Puts the limit before a service.
#[derive(Clone)]
pub struct WholeFileLimit<S> {
    inner: S,
}

impl<S> WholeFileLimit<S> {
    /// Before this service.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for WholeFileLimit<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WholeFileLimit<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != UPLOAD {
            return Box::pin(self.inner.call(request));
        }
        // The one that is ready is used; a fresh clone takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            match check(body).await {
                Ok(body) => inner.call(Request::from_parts(parts, body)).await,
                Err(len) => Ok(refuse(len)),
            }
        })
    }
}

/// The body as it was, or the length of a message that is too long.
async fn check(mut body: Body) -> Result<Body, u64> {
    let mut read: Vec<Bytes> = Vec::new();
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    while head.len() < HEAD_LEN {
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { break };
                head.extend_from_slice(&data[..data.len().min(HEAD_LEN - head.len())]);
                read.push(data);
            }
            // The service finds out for itself what is wrong with it.
            _ => break,
        }
    }
    if head.len() == HEAD_LEN {
        head.advance(1);
        let len = u64::from(head.get_u32());
        if len > MAX_WHOLE_FILE_LEN + FIELDS_LEN {
            return Err(len);
        }
    }
    let first = futures::stream::iter(read.into_iter().map(|data| Ok::<_, Status>(Frame::data(data))));
    let frames = futures::StreamExt::chain(first, http_body_util::BodyStream::new(body));
    Ok(Body::new(StreamBody::new(frames)))
}

fn refuse(len: u64) -> Response<Body> {
    let answer = UploadResponse { ok: false, message: too_large(len) }.encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(answer.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&answer);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [Ok::<_, Status>(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    let grpc = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}
