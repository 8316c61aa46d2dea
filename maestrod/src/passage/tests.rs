//! Bodies by hand: what of them passes, what waits, and what is taken back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use p2p_service::tasks::Tasks;
use tonic::{Code, Status};

use super::*;

/// How long a test waits.
const SHORTLY: Duration = Duration::from_millis(200);

/// A gRPC message of so many bytes, as it is on the wire.
fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.resize(5 + length, 7);
    bytes
}

/// These parts, and then nothing.
fn never_ending(parts: Vec<Bytes>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static {
    use futures::StreamExt as _;
    let parts = futures::stream::iter(parts).map(|part| Ok(Frame::data(part)));
    StreamBody::new(parts.chain(futures::stream::pending()))
}

async fn next(
    body: &mut (impl Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Unpin),
) -> Result<usize, Status> {
    match body.frame().await.unwrap() {
        Ok(frame) => Ok(frame.into_data().unwrap().len()),
        Err(error) => Err(*error.downcast::<Status>().unwrap()),
    }
}

fn free(room: &Room) -> usize {
    room.places.available_permits() * 1024
}

#[tokio::test]
async fn messages_pass_however_they_are_cut() {
    let room = Room::with_patience(SHORTLY);
    let all = [message(3), message(0), message(200_000), message(1), message(SHORT)].concat();
    for cut in [1, 4, 7, 1000, 65_536, all.len()] {
        let parts = all.chunks(cut).map(Bytes::copy_from_slice).collect();
        let (mut body, mut came) = (Incoming::new(never_ending(parts), &room), 0);
        while came < all.len() {
            came += next(&mut body).await.unwrap();
        }
        assert_eq!(free(&room), ROOM, "in parts of {cut}");
        // Between two messages a call may be silent for ever.
        assert!(tokio::time::timeout(2 * SHORTLY, body.frame()).await.is_err());
    }
}

#[tokio::test]
async fn a_long_message_has_a_place_until_its_end_and_no_longer_than_patience() {
    let room = Room::with_patience(SHORTLY);
    let long = message(1 << 20);
    let parts =
        vec![Bytes::copy_from_slice(&long[..100_000]), Bytes::copy_from_slice(&long[100_000..200_000])];
    let mut body = Incoming::new(never_ending(parts), &room);
    next(&mut body).await.unwrap();
    next(&mut body).await.unwrap();
    assert_eq!(free(&room), ROOM - (1 << 20));
    let ended = next(&mut body).await.unwrap_err();
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.message().contains("did not come to its end"), "{ended}");
    drop(body);
    assert_eq!(free(&room), ROOM);
    // A short one that does not end holds little, but a call.
    let mut body = Incoming::new(never_ending(vec![Bytes::from_static(&[0, 0])]), &room);
    next(&mut body).await.unwrap();
    assert_eq!(next(&mut body).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn where_there_is_no_room_nothing_more_is_read() {
    let room = Room::with_patience(SHORTLY);
    let taken = room.place(ROOM).unwrap();
    let parts = vec![Bytes::from(message(1 << 20)[..50].to_vec()), Bytes::from_static(&[7; 50])];
    let mut body = Incoming::new(never_ending(parts), &room);
    assert_eq!(next(&mut body).await.unwrap(), 50);
    let refused = next(&mut body).await.unwrap_err();
    assert!(refused.message().contains("of others"), "{refused}");
    // With room it goes on.
    let parts = vec![Bytes::from(message(1 << 20)[..50].to_vec()), Bytes::from_static(&[7; 50])];
    let mut body = Incoming::new(never_ending(parts), &room);
    assert_eq!(next(&mut body).await.unwrap(), 50);
    drop(taken);
    assert_eq!(next(&mut body).await.unwrap(), 50);
}

#[tokio::test]
async fn an_answer_is_handed_over_piece_by_piece() {
    let (room, tasks) = (Room::with_patience(SHORTLY), Tasks::new());
    assert!(room.place(SHORT).unwrap().is_none());
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
    let place = room.place(bytes.len()).unwrap().unwrap();
    assert!(free(&room) < ROOM && room.place(ROOM).is_err());
    let body = Outgoing::new(Full::new(Bytes::from(bytes.clone())), place, &tasks);
    assert_eq!(body.size_hint().exact(), Some(1_000_000));
    assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
    assert_eq!(free(&room), ROOM);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_taken_back() {
    let (room, tasks) = (Room::with_patience(SHORTLY), Tasks::new());
    let place = room.place(1 << 20).unwrap().unwrap();
    let mut body = Outgoing::new(Full::new(Bytes::from(vec![7; 1 << 20])), place, &tasks);
    assert!(body.frame().await.unwrap().is_ok());
    tokio::time::timeout(SHORTLY * 50, async {
        while free(&room) < ROOM {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is kept");
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut body).poll_frame(&mut context), Poll::Ready(Some(Err(_)))));
}
