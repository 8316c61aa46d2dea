use std::time::Duration;

use p2p_content::ContentHasher;
use tokio::time::timeout;

use super::*;

const PIECE: u64 = 1 << 20;
/// Three pieces.
const LEN: usize = (2 << 20) + 5;

fn part() -> (Arc<File>, Arc<Manifest>) {
    let mut hasher = ContentHasher::new();
    hasher.update(&vec![7; LEN]);
    (Arc::new(tempfile::tempfile().unwrap()), Arc::new(hasher.finish().1))
}

fn peer() -> (PeerId, PeerInfo) {
    let id = p2p_identity::Identity::generate().unwrap().id();
    (id, PeerInfo { peer_id: id.as_bytes().to_vec().into(), ..PeerInfo::default() })
}

fn begin(swarms: &Swarms, here: &[u32]) -> (Serving, Arc<Swarm>) {
    let (file, manifest) = part();
    let mut pieces = Bitmap::new(3);
    here.iter().for_each(|piece| assert!(pieces.set(*piece)));
    let serving = Serving::begin(swarms, None, file, Arc::clone(&manifest), &pieces, "shared");
    (serving, swarms.find(manifest.content()).unwrap())
}

async fn told(follower: &mut Follower) -> AvailabilityUpdate {
    timeout(Duration::from_secs(5), follower.next()).await.unwrap().unwrap()
}

/// A member of these networks.
fn introduced(info: &PeerInfo, networks: &[u8]) -> Option<Introduced> {
    let networks = networks.iter().map(|number| PeerId::from_bytes([*number; 32])).collect();
    Some(Introduced { info: info.clone(), networks })
}

async fn nothing_told(follower: &mut Follower) {
    assert!(timeout(Duration::from_millis(20), follower.next()).await.is_err());
}

#[tokio::test]
async fn a_follower_hears_all_at_first_and_then_what_is_new() {
    let swarms = Swarms::default();
    let (serving, swarm) = begin(&swarms, &[1]);
    let (id, _) = peer();
    let mut follower = swarm.follow(id, None, None);
    let first = told(&mut follower).await;
    assert_eq!((first.whole, first.pieces.as_ref(), first.gained.len()), (false, &[0b0000_0010][..], 0));
    nothing_told(&mut follower).await;
    serving.gained(2);
    serving.gained(2);
    assert_eq!(told(&mut follower).await.gained, [2]);
    nothing_told(&mut follower).await;
    serving.done();
    assert!(told(&mut follower).await.whole);
    nothing_told(&mut follower).await;
}

#[tokio::test]
async fn a_transfer_that_stops_is_over_for_its_followers() {
    let swarms = Swarms::default();
    let (serving, swarm) = begin(&swarms, &[]);
    let content = swarm.content;
    let mut follower = swarm.follow(peer().0, None, None);
    told(&mut follower).await;
    drop(serving);
    assert!(timeout(Duration::from_secs(5), follower.next()).await.unwrap().is_none());
    drop(follower);
    assert!(swarms.find(content).is_none(), "nobody holds it");
}

#[tokio::test]
async fn fetchers_hear_of_each_other_and_of_what_others_were_promised() {
    let swarms = Swarms::default();
    let swarm = swarms.of(ContentHash::of(b"x"));
    let ((one, one_info), (two, two_info)) = (peer(), peer());
    let mut first = Arc::clone(&swarm).follow(one, introduced(&one_info, &[1]), Some(7 * PIECE));
    assert!(told(&mut first).await.whole);
    let mut second = Arc::clone(&swarm).follow(two, introduced(&two_info, &[1, 2]), Some(7 * PIECE));
    let mut silent = Arc::clone(&swarm).follow(peer().0, None, Some(7 * PIECE));
    assert_eq!(told(&mut first).await.fetchers, [two_info]);
    let heard = told(&mut second).await;
    assert_eq!((heard.whole, heard.fetchers), (true, vec![one_info]));
    assert!(told(&mut silent).await.fetchers.is_empty(), "who gives nothing is told of nobody");
    swarm.promised(4 * PIECE..5 * PIECE, peer().0);
    nothing_told(&mut second).await;
    swarm.promised(4 * PIECE..5 * PIECE - 1, one);
    nothing_told(&mut second).await;
    swarm.promised(5 * PIECE..6 * PIECE, one);
    swarm.promised(5 * PIECE..6 * PIECE, two);
    assert_eq!(told(&mut second).await.promised, [5]);
    nothing_told(&mut first).await;
    drop(first);
    let mut third = Arc::clone(&swarm).follow(peer().0, introduced(&peer().1, &[1]), Some(7 * PIECE));
    assert_eq!(told(&mut third).await.fetchers.len(), 1, "who has gone is not named");
}

#[test]
fn who_comes_and_goes_adds_nothing() {
    let swarm = Swarms::default().of(ContentHash::of(b"x"));
    for _ in 0..10 {
        let (id, info) = peer();
        let _follower = Arc::clone(&swarm).follow(id, introduced(&info, &[1]), Some(2 * PIECE));
        swarm.promised(0..PIECE, id);
    }
    let state = swarm.lock();
    assert_eq!((state.promised.len(), state.fetchers.len()), (1, 0));
}

#[tokio::test]
async fn members_of_different_networks_do_not_hear_of_each_other() {
    let swarm = Swarms::default().of(ContentHash::of(b"x"));
    let [one, other, both] = [peer(), peer(), peer()];
    let follow = |(id, info): &(PeerId, PeerInfo), networks: &[u8]| {
        Arc::clone(&swarm).follow(*id, introduced(info, networks), Some(PIECE))
    };
    let (mut first, mut second) = (follow(&one, &[1]), follow(&other, &[2]));
    assert_eq!(told(&mut first).await.fetchers, []);
    assert_eq!(told(&mut second).await.fetchers, []);
    let mut third = follow(&both, &[2, 1]);
    assert_eq!(told(&mut third).await.fetchers, [other.1, one.1]);
    assert_eq!(told(&mut first).await.fetchers, std::slice::from_ref(&both.1));
    assert_eq!(told(&mut second).await.fetchers, [both.1]);
}

#[test]
fn only_proven_pieces_are_there() {
    let (serving, swarm) = begin(&Swarms::default(), &[1]);
    let (piece, file) = (1 << 20, swarm.part().unwrap().file);
    assert!(swarm.has(&file, &(piece..2 * piece)) && swarm.has(&file, &(piece + 5..piece + 6)));
    assert!(!swarm.has(&file, &(piece - 1..piece + 1)) && !swarm.has(&file, &(2 * piece - 1..2 * piece + 1)));
    serving.gained(2);
    assert!(swarm.has(&file, &(piece..LEN as u64)));
    let other = Arc::new(tempfile::tempfile().unwrap());
    assert!(!swarm.has(&other, &(piece..2 * piece)), "another file's pieces are not this one's");
    serving.done();
    assert!(swarm.has(&file, &(0..LEN as u64)) && !swarm.has(&other, &(0..1)));
    file.set_len(7).unwrap();
    assert!(!swarm.has(&file, &(0..1)), "its user has written in it");
}

#[test]
fn what_an_earlier_run_gave_is_given_on() {
    let swarms = Swarms::default();
    let (first, swarm) = begin(&swarms, &[0]);
    let (file, manifest) = part();
    let mut pieces = Bitmap::new(3);
    pieces.set(0);
    pieces.set(2);
    let _again = Serving::begin(&swarms, Some(first), Arc::clone(&file), manifest, &pieces, "shared");
    assert!(swarm.has(&file, &(0..1)) && swarm.has(&file, &(2 << 20..(2 << 20) + 1)));
    assert_eq!(swarm.lock().gained, [2]);
}

#[test]
fn a_second_transfer_of_the_same_content_leaves_the_first_alone() {
    let swarms = Swarms::default();
    let (first, swarm) = begin(&swarms, &[0]);
    let (second, _) = begin(&swarms, &[]);
    let file = swarm.part().unwrap().file;
    second.gained(1);
    assert!(!swarm.has(&file, &(1 << 20..(1 << 20) + 1)), "it is in another file");
    drop(second);
    assert!(swarm.has(&file, &(0..1)) && swarm.part().is_some());
    drop(first);
    assert!(swarm.part().is_none());
}
