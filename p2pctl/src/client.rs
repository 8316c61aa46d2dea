//! The daemon, as this program sees it: calls over its Unix socket, their answers, and streams of events.
//!
//! Every call has a deadline, except streams, which last as long as what they tell of. Each call has its own connection:
//! a daemon that was restarted between two calls is then no failure.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use p2p_proto::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::socket;
use crate::upload::ReadFailed;

mod stream;

pub(crate) use stream::{ByteStream, Events};

/// How long an ordinary call may take. The daemon asks friends and the maestro with shorter deadlines of its own.
pub(crate) const CALL: Duration = Duration::from_secs(60);

/// How long a call may take that looks at every shared file, or greets a maestro far away.
pub(crate) const LONG_CALL: Duration = Duration::from_secs(15 * 60);

/// How long to wait for the daemon to ask for the bytes of an upload; one that never asks gets them all the same.
const UNASKED: Duration = Duration::from_secs(2);

/// How often a question is asked whose answers are all cut off.
const ASKED: usize = 3;

/// Code of a daemon that went away before it had answered.
const GONE: &str = "daemon-gone";

/// No answer that is read whole is larger than this.
const MAX_ANSWER_LEN: usize = 64 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The daemon behind one socket.
pub(crate) struct Client {
    socket: PathBuf,
    http: Http<UnixConnector, Body>,
}

/// An answer: what it means, and its own bytes for `--json`.
pub(crate) struct Answer<T> {
    /// What it means.
    pub(crate) value: T,
    /// As the daemon wrote it.
    pub(crate) raw: Bytes,
}

impl Client {
    /// The daemon behind this socket. Nothing is asked of it yet.
    pub(crate) fn new(socket: PathBuf) -> Client {
        let http = Http::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(UnixConnector);
        Client { socket, http }
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`, answered in JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.json(Method::GET, path, None::<&()>, CALL).await
    }

    /// A call with a JSON body or none, answered in JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        deadline: Duration,
    ) -> Result<Answer<T>, Failure> {
        let ask = async || self.read(self.call(method.clone(), path, body).await?).await;
        // A question changes nothing, and a restart that cuts its answer off need not concern who asks: the socket of a
        // unit stays, and the next daemon answers. Where there is no other daemon, connecting says so.
        let whole = async {
            for _ in 1..ASKED {
                match ask().await {
                    Err(failure) if method == Method::GET && failure.code() == GONE => {}
                    answered => return answered,
                }
            }
            ask().await
        };
        decode(self.within(deadline, whole).await?)
    }

    /// A call that is answered with nothing.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        let whole = async { self.read(self.call(Method::DELETE, path, None::<&()>).await?).await };
        self.within(CALL, whole).await.map(drop)
    }

    /// Sends bytes as they come, and waits for the answer as long as they flow.
    ///
    /// No byte is sent before the daemon asks for it: a refusal would otherwise be lost among writes that fail.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: BoxStream<'static, io::Result<Bytes>>,
        len: Option<u64>,
    ) -> Result<Answer<T>, Failure> {
        let wanted = Arc::new(Notify::new());
        let told = wanted.clone();
        let bytes = futures::stream::once(async move {
            let _ = tokio::time::timeout(UNASKED, wanted.notified()).await;
            bytes
        });
        let body = StreamBody::new(bytes.flatten().map_ok(Frame::data)).boxed_unsync();
        let request = self
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::EXPECT, "100-continue");
        let request = match len {
            Some(len) => request.header(header::CONTENT_LENGTH, len),
            None => request,
        };
        let request = request.body(body).map(|mut request| {
            hyper::ext::on_informational(&mut request, move |_| told.notify_one());
            request
        });
        let response = self.send(request).await?;
        decode(self.read(response).await?)
    }

    /// A body of bytes, read as it comes.
    pub(crate) async fn bytes(&self, path: &str) -> Result<ByteStream<'_>, Failure> {
        self.bytes_after(path, CALL).await
    }

    /// The same, where it may take so long until it begins.
    pub(crate) async fn bytes_after(
        &self,
        path: &str,
        deadline: Duration,
    ) -> Result<ByteStream<'_>, Failure> {
        let response = self.within(deadline, self.call(Method::GET, path, None::<&()>)).await?;
        Ok(ByteStream::new(self, response.into_body()))
    }

    /// A stream of server-sent events.
    pub(crate) async fn events<T: DeserializeOwned>(&self, path: &str) -> Result<Events<'_, T>, Failure> {
        Ok(Events::new(self.bytes(path).await?))
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        // Without a Host of its own, the request would carry the socket's path in hex.
        Request::builder()
            .method(method)
            .uri(hyperlocal::Uri::new(&self.socket, path))
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, concat!("p2pctl/", env!("CARGO_PKG_VERSION")))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => {
                let bytes = serde_json::to_vec(body).map_err(|err| not_understood(&err.to_string()))?;
                request.header(header::CONTENT_TYPE, "application/json").body(Full::new(bytes.into()))
            }
            None => request.body(Full::default()),
        };
        self.send(
            request.map(|request| request.map(|body| body.map_err(|never| match never {}).boxed_unsync())),
        )
        .await
    }

    async fn send(&self, request: hyper::http::Result<Request<Body>>) -> Result<Response<Incoming>, Failure> {
        let request = request
            .map_err(|err| Failure::new(Exit::Usage, "not-a-request", format!("Cannot be asked: {err}")))?;
        let response = self.http.request(request).await.map_err(|err| self.explain(&err))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.read(response).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Failure::from_problem(problem),
            Err(_) => not_understood(&format!("it answers {status} without saying why")),
        })
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        match Limited::new(response.into_body(), MAX_ANSWER_LEN).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(err) if err.is::<hyper::Error>() => Err(self.broken_off()),
            Err(err) => Err(not_understood(&err.to_string())),
        }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            let message = format!("p2pd did not answer within {} s", deadline.as_secs());
            Err(Failure::new(Exit::Unreachable, "daemon-silent", message)
                .hint("`journalctl -u p2pd` shows what it is doing"))
        })
    }

    fn explain(&self, err: &hyper_util::client::legacy::Error) -> Failure {
        if let Some(read) = cause::<ReadFailed>(err) {
            return read.failure();
        }
        match err.is_connect().then(|| cause::<io::Error>(err)).flatten() {
            Some(io) => socket::explain(&self.socket, io),
            None => self.broken_off(),
        }
    }

    fn broken_off(&self) -> Failure {
        let message = format!("p2pd broke off before its answer was complete ({})", self.socket.display());
        Failure::new(Exit::Unreachable, GONE, message)
            .hint("it may have been stopped or restarted: `systemctl status p2pd`, `journalctl -u p2pd`")
    }
}

pub(crate) fn decode<T: DeserializeOwned>(raw: Bytes) -> Result<Answer<T>, Failure> {
    match serde_json::from_slice(&raw) {
        Ok(value) => Ok(Answer { value, raw }),
        Err(err) => Err(not_understood(&err.to_string())),
    }
}

fn not_understood(why: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "not-understood",
        format!("p2pd and p2pctl do not understand each other: {why}"),
    )
    .hint("they may be of different versions: `p2pctl version` shows both")
}

/// Finds an error of one kind among the causes of another.
fn cause<'a, T: Error + 'static>(err: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref::<T>() {
            return Some(found);
        }
        // What an I/O error was made from is not among its sources.
        let inner = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<T>()) {
            return Some(found);
        }
        next = err.source();
    }
    None
}
