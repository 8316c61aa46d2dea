//! Bodies by hand: what of them passes, what waits, and what is taken back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use p2p_identity::PeerId;
use tonic::{Code, Status};

use super::*;
use crate::tasks::Tasks;

/// Bytes of the rooms.
const MESSAGES: usize = 96 << 20;
const ANSWERS: usize = 48 << 20;
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

fn messages() -> MessageRoom {
    MessageRoom::with_patience(MESSAGES, SHORTLY, SHORTLY / 4)
}

fn answers() -> AnswerRoom {
    AnswerRoom::with_patience(ANSWERS, SHORTLY, SHORTLY / 4)
}

/// A call of somebody who was let in.
fn of_known<B>(body: B, room: &MessageRoom) -> Incoming<B> {
    let known = Known::default();
    known.let_in();
    Incoming::of_known(body, known, room)
}

/// A message of so many bytes of which so many come.
fn begun(length: usize, come: usize) -> Bytes {
    Bytes::from(message(length)[..come].to_vec())
}

fn free(room: &MessageRoom) -> usize {
    room.places.available_permits() * 1024
}

/// Takes all of the room; it is free again when this is dropped.
fn take_all(room: &MessageRoom) -> tokio::sync::OwnedSemaphorePermit {
    let all = u32::try_from(room.places.available_permits()).unwrap();
    std::sync::Arc::clone(&room.places).try_acquire_many_owned(all).unwrap()
}

#[tokio::test]
async fn messages_pass_however_they_are_cut() {
    let room = messages();
    let all = [message(3), message(0), message(200_000), message(1), message(SHORT)].concat();
    for cut in [1, 4, 7, 1000, 65_536, all.len()] {
        let parts = all.chunks(cut).map(Bytes::copy_from_slice).collect();
        let (mut body, mut came) = (of_known(never_ending(parts), &room), 0);
        while came < all.len() {
            came += next(&mut body).await.unwrap();
        }
        assert_eq!(free(&room), MESSAGES, "in parts of {cut}");
        // Between two messages a call may be silent for ever.
        assert!(tokio::time::timeout(2 * SHORTLY, body.frame()).await.is_err());
    }
}

#[tokio::test]
async fn a_long_message_has_a_place_until_its_end_and_no_longer_than_patience() {
    let room = messages();
    let long = message(1 << 20);
    let parts = [0..100, 100..100_000, 100_000..200_000, 200_000..200_001];
    let parts = parts.into_iter().map(|part| Bytes::copy_from_slice(&long[part])).collect();
    let mut body = of_known(never_ending(parts), &room);
    for expected in [100, 99_900] {
        assert_eq!(next(&mut body).await.unwrap(), expected);
        assert_eq!(free(&room), MESSAGES, "as little as a short one");
    }
    for _ in 0..2 {
        next(&mut body).await.unwrap();
        assert_eq!(free(&room), MESSAGES - (1 << 20));
    }
    let ended = next(&mut body).await.unwrap_err();
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.message().contains("did not come to its end"), "{ended}");
    drop(body);
    assert_eq!(free(&room), MESSAGES);
    // A short one that does not end holds little, but a call.
    let mut body = of_known(never_ending(vec![Bytes::from_static(&[0, 0])]), &room);
    next(&mut body).await.unwrap();
    assert_eq!(next(&mut body).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_long_message_of_a_stranger_is_not_read_on() {
    let room = messages();
    let parts = || vec![begun(1 << 20, 50_000), Bytes::from_static(&[7; 50])];
    let mut body = Incoming::of_known(never_ending(parts()), Known::default(), &room);
    assert_eq!(next(&mut body).await.unwrap(), 50_000);
    let ended = next(&mut body).await.unwrap_err();
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.message().contains("did not come to its end"), "{ended}");
    assert_eq!(free(&room), MESSAGES);
    // It goes on when the stranger is none any more.
    let known = Known::default();
    let mut body = Incoming::of_known(never_ending(parts()), known.clone(), &room);
    assert_eq!(next(&mut body).await.unwrap(), 50_000);
    assert!(tokio::time::timeout(SHORTLY / 4, body.frame()).await.is_err());
    known.let_in();
    assert_eq!(next(&mut body).await.unwrap(), 50);
    assert!(free(&room) < MESSAGES);
    // A question is never so long.
    let mut body = Incoming::short(never_ending(parts()), &room);
    assert_eq!(next(&mut body).await.unwrap(), 50_000);
    let refused = next(&mut body).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("1048576"), "{refused}");
}

/// A call of one message.
fn single<B>(body: B, room: &MessageRoom) -> (Incoming<B>, MessagePlace) {
    let kept = MessagePlace::default();
    (Incoming::single(body, kept.clone(), room), kept)
}

#[tokio::test]
async fn the_place_of_a_single_message_goes_to_who_has_the_message() {
    let room = messages();
    let parts = [Bytes::from(message(100_000)), Bytes::from(message(1 << 20))];
    for (whole, held) in parts.into_iter().zip([100_000, 1 << 20]) {
        let mut parts = vec![whole.slice(..50_000), whole.slice(50_000..)];
        let ending = StreamBody::new(futures::stream::iter(
            std::mem::take(&mut parts).into_iter().map(|part| Ok::<_, Infallible>(Frame::data(part))),
        ));
        let (mut body, kept) = single(ending, &room);
        for _ in 0..2 {
            next(&mut body).await.unwrap();
        }
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(free(&room), MESSAGES - held / 1024 * 1024, "the message is still there");
        drop(kept);
        assert_eq!(free(&room), MESSAGES);
    }
}

#[tokio::test]
async fn a_single_message_is_the_end_of_its_call() {
    let room = messages();
    let whole = Bytes::from(message(1 << 20));
    // All of it comes, and not the end.
    let (mut body, kept) = single(never_ending(vec![whole.slice(..50_000), whole.slice(50_000..)]), &room);
    for _ in 0..2 {
        next(&mut body).await.unwrap();
    }
    assert_eq!(free(&room), MESSAGES - (1 << 20));
    let ended = next(&mut body).await.unwrap_err();
    assert_eq!(ended.code(), Code::ResourceExhausted);
    assert!(ended.message().contains("did not come to its end"), "{ended}");
    drop((body, kept));
    assert_eq!(free(&room), MESSAGES);
    // Nothing comes at all.
    let (mut body, _kept) = single(never_ending(Vec::new()), &room);
    assert_eq!(next(&mut body).await.unwrap_err().code(), Code::ResourceExhausted);
    // Another one comes, at once or later.
    let two = Bytes::from([message(3), message(4)].concat());
    for parts in [vec![two.clone()], vec![two.slice(..8), two.slice(8..)]] {
        let (mut body, _kept) = single(never_ending(parts.clone()), &room);
        for _ in 1..parts.len() {
            next(&mut body).await.unwrap();
        }
        assert_eq!(next(&mut body).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_made_yet_waits_for_its_place() {
    let (room, tasks) = (AnswerRoom::with_patience(ANSWERS, 50 * SHORTLY, SHORTLY / 4), Tasks::new());
    let taken = room.place(None, ANSWERS).unwrap().unwrap();
    let waiting = tokio::spawn({
        let room = room.clone();
        async move { room.wait_for_place(None, 1 << 20).await.map(|place| place.is_some()) }
    });
    tokio::time::sleep(SHORTLY).await;
    assert!(!waiting.is_finished());
    drop(taken);
    assert_eq!(waiting.await.unwrap(), Ok(true));
    // What nobody reads gives way to it.
    let place = room.place(None, ANSWERS).unwrap().unwrap();
    let mut unread = Outgoing::new(Full::new(Bytes::from(vec![7; 1 << 20])), place, &tasks);
    assert!(room.wait_for_place(None, 1 << 20).await.unwrap().is_some());
    assert!(unread.frame().await.unwrap().is_err());
    // Not for ever.
    let room = answers();
    let _taken = room.place(None, ANSWERS).unwrap();
    assert_eq!(room.wait_for_place(None, 1 << 20).await.err(), Some(NoRoom::Others));
}

#[tokio::test]
async fn where_there_is_no_room_nothing_more_is_read() {
    let room = messages();
    let taken = take_all(&room);
    let parts = || vec![begun(1 << 20, 40_000), Bytes::from_static(&[7; 50])];
    let mut body = of_known(never_ending(parts()), &room);
    assert_eq!(next(&mut body).await.unwrap(), 40_000);
    let refused = next(&mut body).await.unwrap_err();
    assert!(refused.message().contains("of others"), "{refused}");
    // With room it goes on.
    let mut body = of_known(never_ending(parts()), &room);
    assert_eq!(next(&mut body).await.unwrap(), 40_000);
    drop(taken);
    assert_eq!(next(&mut body).await.unwrap(), 50);
}

#[tokio::test]
async fn who_does_not_go_on_gives_way_and_who_does_keeps_its_place() {
    let room = MessageRoom::with_patience(MESSAGES, 100 * SHORTLY, SHORTLY);
    let parts = |more: usize| {
        use futures::StreamExt as _;
        let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(begun(4 << 20, 60_000)))]);
        // 320 KiB a second.
        let rest = futures::stream::iter((0..more).map(|_| Ok(Frame::data(Bytes::from(vec![7; 32 * 1024])))));
        let rest = rest.then(async |part| {
            tokio::time::sleep(SHORTLY / 2).await;
            part
        });
        Box::pin(StreamBody::new(first.chain(rest).chain(futures::stream::pending())))
    };
    let mut stalled = of_known(parts(1), &room);
    let mut slow = of_known(parts(20), &room);
    for body in [&mut stalled, &mut slow] {
        next(body).await.unwrap();
        next(body).await.unwrap();
    }
    assert_eq!(free(&room), MESSAGES - (8 << 20));
    let taken = take_all(&room);
    // Nobody is in need of its room.
    assert!(tokio::time::timeout(4 * SHORTLY, next(&mut stalled)).await.is_err());
    let mut other = of_known(never_ending(vec![begun(1 << 20, 60_000), Bytes::from_static(&[7; 50])]), &room);
    next(&mut other).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut other).await });
    let ended = next(&mut stalled).await.unwrap_err();
    assert!(ended.message().contains("slowly"), "{ended}");
    drop(stalled);
    assert_eq!(waiting.await.unwrap().unwrap(), 50);
    let mut another = of_known(never_ending(vec![begun(4 << 20, 60_000), Bytes::new()]), &room);
    next(&mut another).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut another).await });
    for _ in 0..19 {
        assert_eq!(next(&mut slow).await.unwrap(), 32 * 1024);
    }
    waiting.abort();
    drop(taken);
}

#[tokio::test]
async fn an_answer_is_handed_over_piece_by_piece() {
    let (room, tasks) = (answers(), Tasks::new());
    assert!(room.place(None, SHORT).unwrap().is_none());
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
    let place = room.place(None, bytes.len()).unwrap().unwrap();
    assert!(room.free() < ANSWERS && room.place(None, ANSWERS).is_err());
    let mut body = Outgoing::new(Full::new(Bytes::from(bytes.clone())), place, &tasks);
    assert_eq!(body.size_hint().exact(), Some(1_000_000));
    let mut came = Vec::new();
    while let Some(piece) = body.frame().await {
        came.extend_from_slice(&piece.unwrap().into_data().unwrap());
    }
    assert_eq!(came, bytes);
    drop(body);
    assert_eq!(room.free(), ANSWERS);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_taken_back() {
    let (room, tasks) = (answers(), Tasks::new());
    let place = room.place(None, 1 << 20).unwrap().unwrap();
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let mut body = Outgoing::new(Full::new(bytes.clone()), place, &tasks);
    // What the connection has of it, and cannot send: it gets no more.
    let _pieces = [body.frame().await.unwrap().unwrap(), body.frame().await.unwrap().unwrap()];
    assert!(tokio::time::timeout(SHORTLY / 4, body.frame()).await.is_err());
    tokio::time::timeout(SHORTLY * 50, async {
        while room.free() < ANSWERS {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is kept");
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut body).poll_frame(&mut context), Poll::Ready(Some(Err(_)))));
    assert!(bytes.is_unique(), "all of it is kept for a piece");
}

#[test]
fn one_peer_takes_its_part_of_the_room_and_no_more() {
    let room = answers();
    let [mallory, ada] = [1, 2].map(|number| Some(PeerId::from_bytes([number; 32])));
    let longest = 2 * p2p_proto::MAX_MESSAGE_LEN;
    let held: Vec<_> = (0..2).map(|_| room.place(mallory, longest).unwrap()).collect();
    assert_eq!(room.place(mallory, SHORT + 1).err(), Some(NoRoom::Own));
    assert!(room.place(mallory, SHORT).unwrap().is_none());
    assert!(room.place(ada, longest).unwrap().is_some());
    drop(held);
    assert!(room.place(mallory, longest).unwrap().is_some());
    assert_eq!(room.free(), ANSWERS);
}

#[tokio::test]
async fn where_the_room_is_full_what_was_not_read_for_longest_gives_way() {
    let (room, tasks) = (AnswerRoom::with_patience(ANSWERS, 100 * SHORTLY, SHORTLY), Tasks::new());
    let mut bodies: Vec<_> = (0..2)
        .map(|_| {
            let place = room.place(None, ANSWERS / 2).unwrap().unwrap();
            Outgoing::new(Full::new(Bytes::from(vec![7; 1 << 20])), place, &tasks)
        })
        .collect();
    assert_eq!(room.place(None, 1 << 20).err(), Some(NoRoom::Others), "both may well be read yet");
    tokio::time::sleep(SHORTLY).await;
    // The second one moves.
    assert!(bodies[1].frame().await.unwrap().is_ok());
    let place = room.place(None, 1 << 20).unwrap().unwrap();
    assert!(bodies[0].frame().await.unwrap().is_err());
    assert!(bodies[1].frame().await.unwrap().is_ok());
    drop((place, bodies));
    assert_eq!(room.free(), ANSWERS);
}
