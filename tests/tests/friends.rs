//! Friends: who is asked when the maestro cannot be, and what those get who are no friends.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_proto::control::{FriendList, LocateAnswer, Origin, PeerList, Relation, Transfer};
use p2p_proto::v1::{
    BrowseRequest, DescribeRequest, FriendQuery, LocateResponse, ManifestRequest, PullRequest, friend_query,
    pull_refusal,
};
use p2p_tests::{
    Conduct, LyingPeer, MemberClient, Network, Settings, eventually, random_bytes, random_file, write_file,
};
use serde_json::json;

const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Makes two peers trust each other.
async fn befriend(network: &Network, one: usize, other: usize) {
    for (here, there) in [(one, other), (other, one)] {
        let there = network.peer(there).unwrap();
        let added = ["friends", "add", &there.address(), "--id", there.id()];
        network.peer(here).unwrap().ctl(added).await.unwrap().ok().unwrap();
    }
}

/// Gives a peer a share that only friends may see, with this file.
fn share_with_friends(settings: &mut Settings, name: &str, bytes: &[u8]) {
    let path = settings.text("state_dir").unwrap().replace("/state", "/private");
    write_file(&Path::new(&path).join(name), bytes).unwrap();
    let share = [("name", "private"), ("path", &path), ("visible", "friends")];
    settings.add_share(share.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect());
}

async fn origins(network: &Network, number: usize, what: &str) -> Vec<(String, Origin)> {
    let said = network.peer(number).unwrap().ctl(["--json", "locate", what]).await.unwrap();
    let answer: LocateAnswer = said.json().unwrap();
    let sources = answer.candidates.into_iter().flat_map(|candidate| candidate.sources);
    sources.map(|source| (source.peer.name, source.origin)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_answer_while_the_maestro_is_away() {
    let network = Network::builder().peers(3).files(|number, shared| {
        random_file(&shared.join(format!("archivo{number}.bin")), 3 << 20, number as u64).map(drop)
    });
    let mut network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    let ended = network.maestro_mut().unwrap().daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    assert!(ended.status.success(), "{}", ended.log);

    let peer = network.peer(2).unwrap();
    assert_eq!(origins(&network, 2, "archivo1.bin").await, [("P1".to_owned(), Origin::Friend)]);
    peer.ctl(["fetch", "archivo1.bin"]).await.unwrap().ok().unwrap();
    assert_eq!(
        peer.hash_of("archivo1.bin").unwrap(),
        network.peer(1).unwrap().hash_of("archivo1.bin").unwrap()
    );
    // The first system's clients get the same answer.
    let located = peer.rest().unwrap().locate("archivo1.bin").await.unwrap();
    let port = network.peer(2).unwrap().daemon().ready().grpc.port();
    assert_eq!(located[0]["grpc_port"], json!(port), "itself first, since it has it now");
    let located = network.peer(1).unwrap().rest().unwrap().locate("archivo2.bin").await.unwrap();
    assert_eq!(located[0]["grpc_port"], json!(port));
    // P3 has no friends, and says why it finds nothing.
    let said = network.peer(3).unwrap().ctl(["locate", "archivo1.bin"]).await.unwrap();
    assert!(said.code != 0 || said.stderr.contains("maestro"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_who_said_so_and_when() {
    let network = Network::builder()
        .peers(3)
        .files(|number, shared| write_file(&shared.join(format!("{number}.txt")), format!("de P{number}")));
    let mut network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    let said = async |network: &Network, what: &str| {
        let answer: LocateAnswer = network.peer(2).unwrap().ctl_json(&["locate", what]).await.unwrap();
        answer.candidates.into_iter().next().unwrap().sources.remove(0)
    };
    let own = said(&network, "2.txt").await;
    assert_eq!((own.origin, own.told_by), (Origin::Own, None));
    let listed = said(&network, "3.txt").await;
    assert_eq!((listed.origin, listed.told_by.as_deref()), (Origin::Maestro, Some("maestro")));
    let rest = network.peer(2).unwrap().rest().unwrap();
    let located = rest.locate("3.txt").await.unwrap();
    assert_eq!((&located[0]["origin"], &located[0]["told_by"]), (&json!("maestro"), &json!("maestro")));

    // It is remembered what the maestro last said, which a session does when it begins.
    network.peer_mut(2).unwrap().daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    network.peer_mut(2).unwrap().daemon_mut().restart().await.unwrap();
    let members = network.peer(2).unwrap().state("members.json");
    eventually(Duration::from_secs(20), "P2 remembers P3", async || {
        let known = std::fs::read_to_string(&members)?;
        ensure!(known.contains("\"P3\""), "{known}");
        Ok(())
    })
    .await
    .unwrap();
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    let friend = said(&network, "1.txt").await;
    assert_eq!((friend.origin, friend.told_by.as_deref()), (Origin::Friend, Some("P1")));
    let remembered = said(&network, "3.txt").await;
    assert_eq!((remembered.origin, remembered.told_by.as_deref()), (Origin::Cache, Some("maestro")));
    assert!(remembered.told_ms < friend.told_ms, "{remembered:?} is older than {friend:?}");
    let shown = network.peer(2).unwrap().ctl(["locate", "3.txt"]).await.unwrap().text();
    assert!(shown.contains("memory of maestro"), "{shown}");
    let unknown = network.peer(2).unwrap().ctl(["fetch", "3.txt", "--from", "P9"]).await.unwrap();
    let said = unknown.exited(3).unwrap().stderr;
    assert!(said.contains("P9") && said.contains("not all could be asked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_of_a_friend_is_found_and_fetched_from() {
    let network = Network::builder().peers(3).files(|number, shared| match number {
        1 => random_file(&shared.join("lejos.bin"), 3 << 20, 1).map(drop),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    befriend(&network, 2, 3).await;
    network.maestro_mut().unwrap().daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    // Through P2, or from what P3 remembers of the network: who answers first tells.
    let [(name, origin)] = &origins(&network, 3, "lejos.bin").await[..] else { panic!("P1 alone has it") };
    assert!(name == "P1" && matches!(origin, Origin::Friend | Origin::Cache), "{name} {origin:?}");
    // P1 does not know P3; that both are members of one network, each can prove without its maestro.
    let peer = network.peer(3).unwrap();
    peer.ctl(["fetch", "lejos.bin"]).await.unwrap().ok().unwrap();
    assert_eq!(peer.hash_of("lejos.bin").unwrap(), network.peer(1).unwrap().hash_of("lejos.bin").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_of_a_friend_is_no_friend() {
    let network = Network::builder().without_maestro().peers(3);
    let network = network
        .files(|number, shared| write_file(&shared.join(format!("{number}.txt")), format!("de P{number}")));
    let network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    befriend(&network, 2, 3).await;
    assert_eq!(origins(&network, 3, "2.txt").await, [("P2".to_owned(), Origin::Friend)]);
    // Whatever P3 is told of P1's file, P1 gives it nothing: they share neither trust nor a network.
    let transfer = network.peer(3).unwrap().ctl(["fetch", "1.txt", "--detach"]).await.unwrap();
    if transfer.code == 0 {
        let id = transfer.text().trim().parse().unwrap();
        let waits = |transfer: &Transfer| transfer.reason.is_some();
        let within = Duration::from_secs(20);
        network.peer(3).unwrap().transfer_until(id, within, "it says what it lacks", waits).await.unwrap();
    }
    assert!(!network.peer(3).unwrap().shared("1.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_need_no_network() {
    let network = Network::builder().without_maestro().peers(2);
    let network = network.files(|number, shared| write_file(&shared.join(format!("{number}.txt")), "amigos"));
    let network = network.start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    one.ctl(["fetch", "2.txt"]).await.unwrap().exited(3).unwrap();

    // One side alone is no friendship: P2 has not said that it trusts P1.
    one.ctl(["friends", "add", &other.address(), "--name", "vecino"]).await.unwrap().ok().unwrap();
    assert_ne!(one.ctl(["fetch", "2.txt"]).await.unwrap().code, 0);
    other.ctl(["friends", "add", &one.address()]).await.unwrap().ok().unwrap();
    one.ctl(["fetch", "2.txt"]).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(one.shared("2.txt")).unwrap(), "amigos");

    let friends: FriendList = one.ctl_json(&["friends", "list"]).await.unwrap();
    let [friend] = &friends.friends[..] else { panic!("{friends:?}") };
    assert_eq!((friend.name.as_str(), friend.peer_id.as_str()), ("vecino", other.id()));
    let peers: PeerList = one.ctl_json(&["peers"]).await.unwrap();
    assert!(peers.peers.iter().any(|row| row.relation == Relation::Friend), "{peers:?}");
    one.ctl(["friends", "remove", "vecino"]).await.unwrap().ok().unwrap();
    one.ctl(["friends", "remove", "vecino"]).await.unwrap().exited(3).unwrap();
    assert_ne!(other.ctl(["fetch", "1.txt"]).await.unwrap().code, 0, "P1 trusts P2 no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_is_pinned() {
    let network = Network::builder().without_maestro().peers(2).start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let said = one.ctl(["friends", "add", &other.address(), "--id", one.id()]).await.unwrap();
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains(other.id()), "it names who answered: {}", said.stderr);
    let friends: FriendList = one.ctl_json(&["friends"]).await.unwrap();
    assert!(friends.friends.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_survive_a_restart() {
    let network = Network::builder().without_maestro().peers(2);
    let network = network.files(|number, shared| write_file(&shared.join(format!("{number}.txt")), "amigos"));
    let mut network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    for number in 1..=2 {
        let daemon = network.peer_mut(number).unwrap().daemon_mut();
        daemon.kill_9().await.unwrap();
        daemon.restart().await.unwrap();
    }
    network.peer(1).unwrap().ctl(["fetch", "2.txt"]).await.unwrap().ok().unwrap();
}

fn asked_for(name: &str) -> FriendQuery {
    FriendQuery {
        query_id: Bytes::copy_from_slice(&ContentHash::of(name.as_bytes()).as_bytes()[..16]),
        query: Some(friend_query::Query::Name(name.to_owned())),
        hops: 1,
        deadline_ms: 2000,
        relayed: false,
    }
}

/// What `client` gets of a content: its manifest, and its first byte. What is refused with a status is nothing.
async fn gets(client: &mut MemberClient, content: ContentHash) -> (bool, bool) {
    let content = Bytes::copy_from_slice(content.as_bytes());
    let manifest = client.get_manifest(ManifestRequest { content: content.clone() }).await.is_ok();
    let request = PullRequest { id: 7, content, offset: 0, length: 1, ..PullRequest::default() };
    let Ok(answers) = client.pull(tokio_stream::once(request)).await else { return (manifest, false) };
    let bytes = match answers.into_inner().message().await {
        Ok(Some(answer)) => {
            assert_eq!(answer.id, 7);
            let reason = answer.refusal.map(|refusal| refusal.reason());
            assert!(reason.is_none_or(|reason| reason == pull_refusal::Reason::NotFound), "{reason:?}");
            reason.is_none()
        }
        _ => false,
    };
    (manifest, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing() {
    let network = Network::builder().peers(1);
    let network = network.files(|_, shared| write_file(&shared.join("a.txt"), "de la red"));
    let network = network.start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let there = ContentHash::of(b"de la red");
    let nobodys = ContentHash::of(b"nobody has it");

    let nothing: [(&str, Bytes); 0] = [];
    let stranger = LyingPeer::start("extraño", Conduct::Honest, nothing).await.unwrap();
    let mut client = stranger.call(&peer.address(), Some(peer.id().parse().unwrap())).await.unwrap();
    let located = client.locate(asked_for("a.txt")).await.map(tonic::Response::into_inner);
    assert!(located.is_err() || located.unwrap() == LocateResponse::default());
    let browsed = client.browse(BrowseRequest::default()).await.map(tonic::Response::into_inner);
    assert!(browsed.is_err() || browsed.unwrap().files.is_empty());
    assert_eq!(gets(&mut client, there).await, (false, false));
    // What is there and not for them, and what is not there, look the same.
    let content = |hash: ContentHash| ManifestRequest { content: Bytes::copy_from_slice(hash.as_bytes()) };
    let hidden = client.get_manifest(content(there)).await.unwrap_err();
    let absent = client.get_manifest(content(nobodys)).await.unwrap_err();
    assert_eq!((hidden.code(), hidden.message()), (absent.code(), absent.message()));

    // Once it is a member, it sees what the network may see.
    stranger.join(&network.maestro().unwrap().address()).await.unwrap();
    let mut client = stranger.call(&peer.address(), Some(peer.id().parse().unwrap())).await.unwrap();
    assert_eq!(gets(&mut client, there).await, (true, true));
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(described.peer.unwrap().name, "P1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_friends_is_for_friends() {
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 1 {
            share_with_friends(settings, "diario.txt", b"para amigos");
        }
    });
    let network = network.start().await.unwrap();
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let hash = ContentHash::of(b"para amigos");
    let maestro = network.maestro().unwrap().rest().unwrap();
    assert!(maestro.locate("diario.txt").await.unwrap().is_empty(), "the maestro does not learn of it");
    let member = LyingPeer::start("miembro", Conduct::Honest, [("x", "x")]).await.unwrap();
    member.join(&network.maestro().unwrap().address()).await.unwrap();
    let mut client = member.call(&one.address(), None).await.unwrap();
    assert_eq!(gets(&mut client, hash).await, (false, false), "a member is no friend");
    other.ctl(["fetch", "diario.txt"]).await.unwrap().exited(3).unwrap();

    befriend(&network, 1, 2).await;
    other.ctl(["fetch", "diario.txt"]).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(other.shared("diario.txt")).unwrap(), "para amigos");
    assert_eq!(gets(&mut client, hash).await, (false, false), "from P1 it is still for friends only");
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_are_asked_where_the_directory_knows_only_liars() {
    const SIZE: usize = 8 << 20;
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 1 {
            share_with_friends(settings, "datos.bin", &random_bytes(SIZE, 7));
        }
    });
    let network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    let files = [("datos.bin", random_bytes(SIZE, 7))];
    let liar = LyingPeer::start("mentiroso", Conduct::false_pieces(1), files).await.unwrap();
    liar.join(&network.maestro().unwrap().address()).await.unwrap();

    let peer = network.peer(2).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "datos.bin", "--detach"]).await.unwrap();
    let done = peer.transfer_done(begun.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(peer.hash_of("datos.bin").unwrap(), ContentHash::of(&random_bytes(SIZE, 7)));
    let friend = done.sources.iter().find(|source| source.peer.name == "P1").unwrap();
    assert_eq!(friend.bytes, SIZE as u64, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_what_its_friends_share_among_themselves() {
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 1 {
            share_with_friends(settings, "fotos/privada.txt", b"para amigos");
        }
    });
    let network = network.files(|number, shared| match number {
        1 => write_file(&shared.join("fotos/publica.txt"), "para todos"),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    befriend(&network, 1, 2).await;
    let peer = network.peer(2).unwrap();
    peer.ctl(["fetch", "-r", "fotos"]).await.unwrap().ok().unwrap();
    for (name, text) in [("fotos/publica.txt", "para todos"), ("fotos/privada.txt", "para amigos")] {
        assert_eq!(std::fs::read_to_string(peer.shared(name)).unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_friends_alone_is_all_of_it_where_all_answer() {
    let network = Network::builder().without_maestro().peers(3).files(|number, shared| match number {
        1 | 2 => write_file(&shared.join(format!("fotos/{number}.txt")), format!("de P{number}")),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let peer = network.peer(3).unwrap();
    let alone = peer.ctl(["fetch", "-r", "fotos"]).await.unwrap();
    assert!(alone.code != 0 && alone.stderr.contains("no network"), "{}", alone.stderr);
    befriend(&network, 1, 3).await;
    befriend(&network, 2, 3).await;
    network.peer(3).unwrap().ctl(["fetch", "-r", "fotos"]).await.unwrap().ok().unwrap();
    network.peer_mut(2).unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(3).unwrap();
    std::fs::remove_file(peer.shared("fotos/1.txt")).unwrap();
    peer.ctl(["refresh"]).await.unwrap().ok().unwrap();
    let said = peer.ctl(["fetch", "-r", "fotos"]).await.unwrap();
    assert_eq!(said.code, 8, "it may not be all: {}", said.stderr);
    assert!(said.stderr.contains("1 friend does not answer"), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(peer.shared("fotos/1.txt")).unwrap(), "de P1");
}
