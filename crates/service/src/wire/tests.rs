//! Real sockets, real handshakes; the service behind them is the least one that tells who called.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use p2p_identity::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;

use super::*;
use crate::tasks::Tasks;

/// Answers every call with the caller's identity in a header.
async fn serve(identity: &Identity, plaintext: Plaintext) -> (SocketAddr, Tasks) {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = incoming(listener, identity, Accept::bulk(plaintext), &tasks).unwrap();
    let tell = tower::service_fn(|request: http::Request<Body>| async move {
        let caller = request.extensions().get::<Caller>().unwrap();
        let who = caller.peer.map_or("nobody".to_owned(), |peer| peer.to_string());
        Ok::<_, Infallible>(
            http::Response::builder()
                .header("grpc-status", "0")
                .header("caller", who)
                .body(Body::empty())
                .unwrap(),
        )
    });
    let token = tasks.token();
    tasks.spawn("serve", async move {
        server().serve_with_incoming_shutdown(tell, connections, token.cancelled_owned()).await?;
        Ok(())
    });
    (address, tasks)
}

async fn call(mut channel: tonic::transport::Channel) -> http::Response<Body> {
    use tower::{Service, ServiceExt};
    let request = http::Request::post("http://peer/x.Y/Z").body(Body::new(Empty::new())).unwrap();
    channel.ready().await.unwrap().call(request).await.unwrap()
}

#[tokio::test]
async fn each_end_knows_who_the_other_is() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, tasks) = serve(&server, Plaintext::Off).await;
    let connection = connect(&client, &[address.to_string()], Some(server.id())).await.unwrap();
    assert_eq!((connection.peer, connection.address), (server.id(), address));
    let answer = call(connection.channel).await;
    assert_eq!(answer.headers()["caller"], client.id().to_string());
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_dead_address_does_not_hide_a_living_one() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mute, impostor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Identity::generate().unwrap());
    let (imposing, _others) = serve(&impostor, Plaintext::Off).await;
    let addresses = [dead, mute.local_addr().unwrap(), imposing, address].map(|address| address.to_string());
    let connection = connect(&client, &addresses, Some(server.id())).await.unwrap();
    assert_eq!(connection.address, address);
}

#[tokio::test]
async fn somebody_else_is_refused_by_name() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let error = connect(&client, &[address.to_string()], Some(client.id())).await.unwrap_err();
    let ConnectError::WrongPeer { wrong, .. } = &error else { panic!("{error}") };
    assert_eq!((wrong.expected, wrong.found), (client.id(), server.id()));
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let client = Identity::generate().unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = connect(&client, &[dead.to_string()], None).await.unwrap_err();
    assert!(error.to_string().contains(&dead.to_string()), "{error}");
    assert!(matches!(connect(&client, &[], None).await, Err(ConnectError::NoAddress)));
}

async fn plain_channel(address: SocketAddr) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn plaintext_is_nobody_where_it_is_allowed() {
    let server = Identity::generate().unwrap();
    let (address, _tasks) = serve(&server, Plaintext::Loopback).await;
    assert_eq!(call(plain_channel(address).await).await.headers()["caller"], "nobody");
}

#[tokio::test]
async fn plaintext_is_told_why_where_it_is_not_allowed() {
    let server = Identity::generate().unwrap();
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let answer = call(plain_channel(address).await).await;
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("TLS"));
}

#[tokio::test]
async fn a_handshake_that_never_comes_holds_up_nobody() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let mut idle = Vec::new();
    for _ in 0..32 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    connect(&client, &[address.to_string()], Some(server.id())).await.unwrap();
}

/// Those who begin with a byte and do not go on are no handshakes yet: nobody waits for them.
#[tokio::test]
async fn a_handshake_that_does_not_go_on_holds_up_nobody() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&[0x16]).await.unwrap();
        stalled.push(tcp);
    }
    let began = std::time::Instant::now();
    connect(&client, &[address.to_string()], Some(server.id())).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Who goes on bit by bit is answered all the same.
    let mut slow = stalled.pop().unwrap();
    for bit in first_message(&client).await[1..].chunks(50) {
        slow.write_all(bit).await.unwrap();
        slow.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.read_u8().await.unwrap(), 0x16);
}

/// Those who send all of a first message and do not go on give way to those who do, from the same address as well.
#[tokio::test]
async fn a_handshake_that_stops_in_the_middle_gives_way() {
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (address, _tasks) = serve(&server, Plaintext::Off).await;
    let hello = first_message(&client).await;
    let mut stalled = Vec::new();
    for _ in 0..128 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&hello).await.unwrap();
        stalled.push(tcp);
    }
    let began = std::time::Instant::now();
    connect(&client, &[address.to_string()], Some(server.id())).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

/// What a caller says before it is answered.
async fn first_message(client: &Identity) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 5];
        tcp.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        tcp.read_exact(&mut hello).await.unwrap();
        [head.to_vec(), hello].concat()
    };
    let addresses = [address];
    tokio::select! {
        hello = accepted => hello,
        _ = connect(client, &addresses, None) => unreachable!("nobody answers"),
    }
}

#[test]
fn loopback_is_loopback_in_every_spelling() {
    for (address, is) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
    {
        assert_eq!(Plaintext::Loopback.admits(address.parse().unwrap()), is, "{address}");
        assert!(Plaintext::Anyone.admits(address.parse().unwrap()));
        assert!(!Plaintext::Off.admits(address.parse().unwrap()));
    }
}

/// Bytes that a caller on this machine lets be on their way, as its settings say (RFC 9113, section 6.5).
async fn window_of_a_caller(is_lean: bool) -> u32 {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    let (server, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(p2p_identity::server_config(&server).unwrap());
    let accepted = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        // The preface, and a frame: three bytes of its length, and six that are not looked at.
        let mut begin = [0; 24 + 9];
        stream.read_exact(&mut begin).await.unwrap();
        let mut settings = vec![0; usize::from(u16::from_be_bytes([begin[25], begin[26]]))];
        stream.read_exact(&mut settings).await.unwrap();
        settings
    };
    let connected = async {
        match is_lean {
            true => connect_lean(&client, &[address], Some(server.id())).await,
            false => connect(&client, &[address], Some(server.id())).await,
        }
    };
    let (_connection, settings) = tokio::join!(connected, accepted);
    let window = settings.chunks_exact(6).find(|setting| setting[..2] == INITIAL_WINDOW_SIZE);
    u32::from_be_bytes(window.unwrap()[2..].try_into().unwrap())
}

#[tokio::test]
async fn little_is_on_its_way_from_somebody_near_where_it_is_taken_as_it_comes() {
    assert_eq!(window_of_a_caller(true).await, NEAR_STREAM_WINDOW);
    assert_eq!(window_of_a_caller(false).await, STREAM_WINDOW);
}
