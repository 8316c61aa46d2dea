//! The `Pull` call from the asking side: requests go out as the generated client would send them, and the answers are
//! taken from the network's own buffers, none of them copied.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use p2p_proto::pull::{Answer, Reader};
use p2p_proto::v1::PullRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::EncodeBody;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;
use tower::{Service, ServiceExt};

/// The call.
const PULL: &str = "/p2p.v1.Peer/Pull";

/// The answers of an open call.
pub(super) struct Answers {
    body: Body,
    reader: Reader,
    ready: VecDeque<Answer>,
    round_trip: Duration,
}

/// Opens the call on this channel. What is sent into `requests`' other end goes out.
///
/// # Errors
/// What the other side answers, or that it answers nothing.
pub(super) async fn open(
    mut channel: Channel,
    metadata: MetadataMap,
    requests: mpsc::Receiver<PullRequest>,
) -> Result<Answers, Status> {
    let requests = tokio_stream::StreamExt::map(ReceiverStream::new(requests), Ok);
    let body = Body::new(EncodeBody::new_client(ProstEncoder::default(), requests, None, None));
    let mut request = Request::post(PULL).body(body).map_err(|error| Status::internal(error.to_string()))?;
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let lost = |error: tonic::transport::Error| Status::from_error(Box::new(error));
    let channel = channel.ready().await.map_err(lost)?;
    let began = Instant::now();
    let response = channel.call(request).await.map_err(lost)?;
    let round_trip = began.elapsed();
    let (head, body) = response.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ if head.status != http::StatusCode::OK => {
            Err(Status::unavailable(format!("it answered with HTTP status {}", head.status)))
        }
        _ => Ok(Answers { body, reader: Reader::default(), ready: VecDeque::new(), round_trip }),
    }
}

impl Answers {
    /// How long it took until the other side took the call, for which it has nothing to do: the way there and back.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// An answer that has come with the last one.
    pub(super) fn another(&mut self) -> Option<Answer> {
        self.ready.pop_front()
    }

    /// The next answer, or a part of it; `None` where the other side ended the call well.
    ///
    /// # Errors
    /// How the call failed. What is no answer is `DATA_LOSS`.
    pub(super) async fn next(&mut self) -> Result<Option<Answer>, Status> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Ok(Some(answer));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| Status::from_error(Box::new(error)))?;
            match frame.into_data() {
                Ok(bytes) => {
                    self.reader.push(bytes);
                    while let Some(answer) =
                        self.reader.take().map_err(|error| Status::data_loss(error.to_string()))?
                    {
                        self.ready.push_back(answer);
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != Code::Ok => return Err(status),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }
}
