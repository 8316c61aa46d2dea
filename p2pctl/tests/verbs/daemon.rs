//! A daemon that gives prepared answers, and remembers what it was asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// A prepared answer.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A whole body.
    Body { status: u16, body: Bytes },
    /// Events, some time apart; then the stream ends, or stays open.
    Events { events: Vec<Value>, apart: Duration, stays_open: bool },
    /// Some bytes of a longer body, then the connection breaks.
    Torn(Bytes),
}

/// What the daemon was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) len: Option<u64>,
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct Script {
    replies: HashMap<String, Vec<Reply>>,
    seen: Vec<Seen>,
}

/// The daemon; it stops with its value.
pub(crate) struct Daemon {
    dir: TempDir,
    script: Arc<Mutex<Script>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Starts one that knows nothing yet.
    pub(crate) fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let mut daemon = Daemon { dir, script: Arc::default(), stop: None, thread: None };
        daemon.serve();
        daemon
    }

    /// Stops it and removes its socket, as at a restart.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// Serves again.
    pub(crate) fn serve(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::os::unix::net::UnixListener::bind(self.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = self.script.clone();
        self.stop = Some(stop);
        self.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                let app = axum::Router::new().fallback(answer).with_state(script);
                tokio::select! {
                    served = axum::serve(listener, app) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        }));
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// A directory of this test's own.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Answers this call so; the last answer that was prepared for a call is given again and again.
    pub(crate) fn on(&self, what: &str, reply: Reply) {
        self.script.lock().unwrap().replies.entry(what.to_owned()).or_default().push(reply);
    }

    /// Answers this call with JSON.
    pub(crate) fn json(&self, what: &str, value: Value) {
        self.on(what, Reply::Body { status: 200, body: value.to_string().into() });
    }

    /// Answers this call with a problem.
    pub(crate) fn problem(&self, what: &str, status: u16, code: &str, detail: &str) {
        let body = json!({"type": format!("urn:p2p:problem:{code}"), "title": "No", "status": status, "detail": detail,
                          "code": code});
        self.on(what, Reply::Body { status, body: body.to_string().into() });
    }

    /// Answers this call with events, and ends the stream after them.
    pub(crate) fn events(&self, what: &str, events: Vec<Value>) {
        self.on(what, Reply::Events { events, apart: Duration::ZERO, stays_open: false });
    }

    /// What it was asked, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    /// Waits until it was asked this so many times.
    pub(crate) fn wait_for(&self, what: &str, times: usize) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while self.seen().iter().filter(|seen| seen.what == what).count() < times {
            assert!(std::time::Instant::now() < deadline, "never asked {what}: {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let len = request.headers().get("content-length").and_then(|len| len.to_str().ok()?.parse().ok());
    let reply = {
        let mut script = script.lock().unwrap();
        let replies = script.replies.get_mut(&what);
        replies.and_then(
            |replies| if replies.len() > 1 { Some(replies.remove(0)) } else { replies.first().cloned() },
        )
    };
    // A refusal does not wait for the body, as with a real daemon.
    let refused = matches!(&reply, Some(Reply::Body { status: 400.., .. }));
    let body = if refused { Bytes::new() } else { to_bytes(request.into_body(), usize::MAX).await.unwrap() };
    script.lock().unwrap().seen.push(Seen { what: what.clone(), query, len, body });
    match reply {
        None => Response::builder().status(404).body(Body::from(format!("no reply for {what}"))).unwrap(),
        Some(Reply::Body { status, body }) => Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap(),
        Some(Reply::Events { events, apart, stays_open }) => {
            let events = futures::stream::iter(events).then(move |event| async move {
                tokio::time::sleep(apart).await;
                Ok::<_, std::io::Error>(Bytes::from(format!("data: {event}\n\n")))
            });
            let body = match stays_open {
                true => Body::from_stream(events.chain(futures::stream::pending())),
                false => Body::from_stream(events),
            };
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
        Some(Reply::Torn(bytes)) => {
            let torn = futures::stream::iter([Ok(bytes), Err(std::io::Error::other("torn"))]);
            Response::builder().body(Body::from_stream(torn)).unwrap()
        }
    }
}
