//! The dial-back: CheckReachable over real TLS.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Maestro, Peer};
use p2p_proto::v1::address_check::Outcome;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::{CheckReachableRequest, CheckReachableResponse};
use p2p_service::tasks::Tasks;
use p2p_service::wire;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn ask(
    client: &mut DirectoryClient<Channel>,
    addresses: &[String],
    grpc_port: u16,
) -> Result<CheckReachableResponse, Status> {
    let request = CheckReachableRequest { addresses: addresses.to_vec(), grpc_port: u32::from(grpc_port) };
    Ok(client.check_reachable(request).await?.into_inner())
}

fn outcomes(answer: &CheckReachableResponse) -> Vec<Outcome> {
    answer.checks.iter().map(p2p_proto::v1::AddressCheck::outcome).collect()
}

/// A port on which this peer answers, as long as the tasks run.
async fn answers(peer: &Peer, tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = wire::incoming(listener, &peer.identity, wire::Accept::signalling(), tasks).unwrap();
    // Nobody needs them: that the handshake was done is all that counts.
    drop(connections);
    port
}

/// A port on which nobody listens: it was free a moment ago, and ports are given in turn.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_maestro_says_who_answers_where() {
    let maestro = Maestro::start().await;
    let (ada, bob, tasks) = (Peer::new("ada"), Peer::new("bob"), Tasks::new());
    let mut stream = ada.announce(&maestro, &[]).await;
    let (own, others, closed) = (answers(&ada, &tasks).await, answers(&bob, &tasks).await, free_port().await);
    // What is no TLS listener either: it takes the connection and says nothing of the kind.
    let babbler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let babbling = babbler.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = babbler.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"220 not what you look for\r\n").await;
        }
    });
    let announced = [
        format!("127.0.0.1:{others}"),
        format!("127.0.0.1:{closed}"),
        format!("127.0.0.1:{babbling}"),
        "192.0.2.1:22".to_owned(),
        format!("localhost:{own}"),
    ];
    let answer = ask(&mut stream.client, &announced, own).await.unwrap();
    use Outcome::{NotTls, NotTried, OtherPeer, Reachable, Refused};
    assert_eq!(outcomes(&answer), [Reachable, OtherPeer, Refused, NotTls, NotTried, NotTried], "{answer:?}");
    assert_eq!(answer.checks[0].address, format!("127.0.0.1:{own}"));
    assert!(!answer.checks[1].message.contains(&bob.id().to_string()), "it does not say who else is there");
    assert_eq!((answer.seen.as_str(), answer.version.is_empty()), ("127.0.0.1", false));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now_ms - answer.now_ms).abs() < 5000, "{answer:?}");
}

#[tokio::test]
async fn who_listens_and_says_nothing_is_given_up() {
    let maestro = Maestro::start().await;
    let ada = Peer::new("ada");
    let mut stream = ada.announce(&maestro, &[]).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = ask(&mut stream.client, &[], mute.local_addr().unwrap().port());
    let answer = tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Silent]);
}

#[tokio::test]
async fn only_connected_peers_may_ask_and_not_too_often() {
    let maestro = Maestro::start().await;
    let ada = Peer::new("ada");
    let closed = free_port().await;
    let mut alone = ada.connect(&maestro).await;
    assert_eq!(ask(&mut alone, &[], closed).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut stream = ada.announce(&maestro, &[]).await;
    assert_eq!(ask(&mut stream.client, &[], 0).await.unwrap_err().code(), Code::InvalidArgument);
    for _ in 0..6 {
        assert_eq!(outcomes(&ask(&mut stream.client, &[], closed).await.unwrap()), [Outcome::Refused]);
    }
    let answer = ask(&mut stream.client, &[], closed).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::NotTried]);
    assert!(answer.now_ms > 0, "clock and version are told all the same");
}
