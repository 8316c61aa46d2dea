//! Calls by hand, of those who begin and do not go on: what a generated client does not let anybody say.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

/// The beginning of a gRPC message that says to be so many bytes long, of which this much is sent. None can say to be longer than
/// [`u32::MAX`].
pub fn begun(length: usize, sent: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + sent.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(sent);
    bytes.freeze()
}

/// A body that is these parts, and then nothing; it does not end.
pub fn unended(parts: Vec<Bytes>) -> Body {
    let parts = futures::stream::iter(parts).map(|part| Ok::<_, Status>(http_body::Frame::data(part)));
    Body::new(StreamBody::new(parts.chain(futures::stream::pending())))
}

/// A call of the method with this path.
///
/// # Errors
/// If it is no path.
pub fn grpc_call(path: &str, body: Body) -> anyhow::Result<http::Request<Body>> {
    let call = http::Request::post(format!("http://server{path}"));
    let call = call.header("content-type", "application/grpc").header("te", "trailers");
    Ok(call.body(body)?)
}
