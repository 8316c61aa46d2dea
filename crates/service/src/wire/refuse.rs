//! An answer in their own language for callers who speak plaintext to a port that speaks TLS.

use std::convert::Infallible;
use std::time::Duration;

use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::body::Body;

const MESSAGE: &str = "this port speaks TLS with certificates on both sides; plaintext is off in this program's \
                       configuration ([grpc] plaintext)";

/// Answers every gRPC call on this connection with UNAUTHENTICATED and the reason, for a short while.
pub(super) async fn refuse_plaintext(tcp: TcpStream) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<Response<Body>, Infallible>(tonic::Status::unauthenticated(MESSAGE).into_http())
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(1)
        .serve_connection(TokioIo::new(tcp), service);
    // Whatever the caller does with the answer, the connection is over.
    let _ = timeout(Duration::from_secs(2), connection).await;
}
