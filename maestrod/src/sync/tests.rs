//! Who comes in, from addresses that no test of the whole program can call from.

use std::net::SocketAddr;

use p2p_service::tasks::Tasks;
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::config::Policy;
use crate::directory::sqlite::SqliteDirectory;

const TOKEN: &str = "the join token";

/// What a stream needs, on a database of its own.
pub(crate) async fn context(dir: &TempDir, policy: Policy, tasks: &Tasks) -> SyncContext {
    let directory: Arc<dyn Directory> =
        Arc::new(SqliteDirectory::open(&dir.path().join("directory.sqlite")).unwrap());
    let mut config = Config::default();
    config.admission.policy = policy;
    // The sender is not needed: settings that nobody changes stay readable.
    let (_, settings) = watch::channel(Arc::new(config));
    let presence = Presence::start(Arc::clone(&directory), settings.clone(), tasks).await.unwrap();
    SyncContext {
        metrics: Arc::new(Metrics::new()),
        directory,
        presence,
        join_token: JoinToken::new(TOKEN),
        identity: Arc::new(Identity::generate().unwrap()),
        settings,
        token: tasks.token(),
    }
}

pub(crate) fn caller(number: u8, address: &str) -> Caller {
    let address: SocketAddr = format!("{address}:40000").parse().unwrap();
    Caller { address, peer: Some(PeerId::from_bytes([number; 32])) }
}

/// What a peer is first told that says a Hello with this token, and then nothing.
async fn first_answer(
    context: &SyncContext,
    caller: Caller,
    join_token: &str,
) -> Result<sync_response::Message, Status> {
    let hello = Hello { epoch: 1, grpc_port: 9002, join_token: join_token.to_owned(), ..Hello::default() };
    let (requests, queue) = mpsc::channel(1);
    let hello = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
    requests.send(Ok(hello)).await.unwrap();
    drop(requests);
    let (answers, mut answered) = mpsc::channel(ANSWERS);
    serve(context.clone(), caller, Known::default(), ReceiverStream::new(queue), answers).await;
    answered.recv().await.unwrap().map(|answer| answer.message.unwrap())
}

#[tokio::test]
async fn a_new_peer_from_elsewhere_shows_the_token_once() {
    let (dir, tasks) = (TempDir::new().unwrap(), Tasks::new());
    let context = context(&dir, Policy::Token, &tasks).await;
    let elsewhere = caller(1, "192.0.2.7");
    for wrong in ["", "another"] {
        let status = first_answer(&context, elsewhere, wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("p2pctl join HOST --token TOKEN"), "{status}");
    }
    // Nothing of a peer that was refused is kept.
    assert_eq!(context.directory.visible_peers().await.unwrap(), []);
    for token in [TOKEN, "", "another"] {
        let welcome = first_answer(&context, elsewhere, token).await.unwrap();
        assert!(matches!(welcome, sync_response::Message::Welcome(_)), "{welcome:?}");
    }
    // The token admits the peer that showed it, not the place that it came from.
    assert!(first_answer(&context, caller(2, "192.0.2.7"), "").await.is_err());
}

#[tokio::test]
async fn who_is_here_or_welcomes_all_needs_none() {
    let (dir, tasks) = (TempDir::new().unwrap(), Tasks::new());
    let by_token = context(&dir, Policy::Token, &tasks).await;
    assert!(first_answer(&by_token, caller(1, "127.0.0.1"), "").await.is_ok());
    // Having been here does not admit it from elsewhere.
    assert!(first_answer(&by_token, caller(1, "192.0.2.7"), "").await.is_err());
    let dir = TempDir::new().unwrap();
    let open = context(&dir, Policy::Open, &tasks).await;
    assert!(first_answer(&open, caller(1, "192.0.2.7"), "").await.is_ok());
}

#[tokio::test]
async fn who_proves_no_identity_is_no_peer() {
    let (dir, tasks) = (TempDir::new().unwrap(), Tasks::new());
    let context = context(&dir, Policy::Open, &tasks).await;
    let nobody = Caller { peer: None, ..caller(1, "127.0.0.1") };
    let status = first_answer(&context, nobody, TOKEN).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
