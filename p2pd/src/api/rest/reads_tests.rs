use axum::extract::FromRequestParts as _;
use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::control::Origin;

use super::*;
use crate::discovery::{Candidate, Source, Teller};

fn facts() -> ApiFacts {
    ApiFacts {
        name: "P1".to_owned(),
        rest_url: "http://localhost:9001".to_owned(),
        grpc_port: 9002,
        rest_addr: ([127, 0, 0, 1], 9001).into(),
        grpc_addr: ([0, 0, 0, 0], 9002).into(),
        state_dir: "/var/lib/p2pd".into(),
        started_ms: 0,
        version: "0".to_owned(),
    }
}

fn known(id: u8, port: u16, origin: Origin) -> Source {
    let peer = discovery::PeerRef::Known {
        id: PeerId::from_bytes([id; 32]),
        name: format!("P{id}"),
        addresses: Vec::new(),
        rest_url: format!("http://localhost:{port}"),
        grpc_port: port + 1,
    };
    Source { peer, teller: teller(origin) }
}

fn teller(origin: Origin) -> Teller {
    Teller { origin, name: Some("m".to_owned()), told_ms: Some(7) }
}

fn found(candidates: Vec<(Option<ContentHash>, Vec<Source>)>) -> discovery::Located {
    let name = FileName::parse("archivo1.txt").unwrap();
    let candidate = |(content, sources)| Candidate {
        name: name.clone(),
        content,
        size: Some(3),
        modified_ms: None,
        sources,
    };
    discovery::Located { candidates: candidates.into_iter().map(candidate).collect(), incomplete: None }
}

async fn file_of(query: &str) -> Result<String, (u16, String)> {
    let (mut parts, ()) = http::Request::get(format!("/search{query}")).body(()).unwrap().into_parts();
    let parsed = ApiQuery::<OneFile>::from_request_parts(&mut parts, &()).await;
    let name = parsed.and_then(|ApiQuery(query)| query.name());
    name.map_err(|problem| (problem.body().status, problem.body().code.clone()))
}

#[tokio::test]
async fn the_file_must_be_given_and_other_parameters_are_ignored() {
    assert_eq!(file_of("?file=docs%2Fa.txt&unknown=1").await, Ok("docs/a.txt".to_owned()));
    assert_eq!(file_of("?unknown=1").await, Err((400, "missing-parameter".to_owned())));
    assert_eq!(file_of("").await, Err((400, "missing-parameter".to_owned())));
}

#[test]
fn located_peers_have_the_keys_of_the_first_system() {
    let content = ContentHash::of(b"abc");
    let plain = discovery::PeerRef::Plain { rest_url: "http://localhost:9005".to_owned(), grpc_port: 9006 };
    let plain = Source { peer: plain, teller: teller(Origin::Maestro) };
    let found = found(vec![(Some(content), vec![known(2, 9003, Origin::Maestro)]), (None, vec![plain])]);
    let peers = serde_json::to_value(peers_of(found, false, &facts())).unwrap();
    let proven = serde_json::json!({
        "rest": "http://localhost:9003",
        "grpc_port": 9004,
        "peer_id": PeerId::from_bytes([2; 32]).to_string(),
        "name": "P2",
        "content": content.to_string(),
        "size": 3,
        "origin": "maestro",
        "told_by": "m",
        "told_ms": 7,
    });
    let unproven = serde_json::json!({
        "rest": "http://localhost:9005",
        "grpc_port": 9006,
        "size": 3,
        "origin": "maestro",
        "told_by": "m",
        "told_ms": 7,
    });
    assert_eq!(peers, serde_json::json!([proven, unproven]));
}

#[test]
fn a_peer_is_named_once_however_many_contents_it_has() {
    let contents = [ContentHash::of(b"a"), ContentHash::of(b"b")];
    let found = found(contents.map(|content| (Some(content), vec![known(2, 9003, Origin::Friend)])).into());
    let peers = peers_of(found, false, &facts());
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].content, Some(contents[0].to_string()));
}

#[test]
fn this_peer_is_told_of_only_where_the_network_may_see_its_file() {
    let own = || found(vec![(Some(ContentHash::EMPTY), vec![known(1, 1, Origin::Own)])]);
    assert_eq!(peers_of(own(), false, &facts()), []);
    let peers = peers_of(own(), true, &facts());
    assert_eq!((peers[0].rest.as_str(), peers[0].grpc_port), ("http://localhost:9001", 9002));
}
