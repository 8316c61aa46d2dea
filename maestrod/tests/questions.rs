//! The gRPC questions over real TLS: Locate, Search, ListPeers.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::collections::BTreeSet;

use harness::{Maestro, Peer, eventually, file};
use p2p_content::ContentHash;
use p2p_proto::v1::{ListPeersRequest, LocateRequest, SearchRequest, locate_request};
use tonic::Code;

fn by_name(name: &str) -> LocateRequest {
    LocateRequest { query: Some(locate_request::Query::Name(name.to_owned())), limit: 0 }
}

async fn register(maestro: &Maestro, peer: &str, files: &[&str]) {
    let body = serde_json::json!({ "peer": peer, "files": files, "grpc_port": 9002 });
    let client = reqwest::Client::new();
    let response = client.post(format!("{}/register", maestro.rest)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn locate_gives_candidates_with_their_sources() {
    let maestro = Maestro::start().await;
    let (ada, bob, cyd) = (Peer::new("ada"), Peer::new("bob"), Peer::new("cyd"));
    let mut stream = ada.announce(&maestro, &[file("a", "same")]).await;
    let _bob = bob.announce(&maestro, &[file("a", "same")]).await;
    let _cyd = cyd.announce(&maestro, &[file("a", "other"), file("copy", "same")]).await;
    register(&maestro, "http://localhost:9001", &["a"]).await;
    let client = &mut stream.client;
    let candidates = client.locate(by_name("a")).await.unwrap().into_inner().candidates;
    assert_eq!(candidates.iter().map(|candidate| candidate.sources.len()).collect::<Vec<_>>(), [2, 1, 1]);
    let source = candidates[0].sources.iter().find(|source| source.name == "ada").unwrap();
    assert_eq!(source.peer_id, ada.id().as_bytes()[..]);
    // What it announced, then where it was seen.
    assert_eq!(source.addresses, ["10.9.8.7:9002", "127.0.0.1:9002"]);
    assert_eq!((source.rest_url.as_str(), source.grpc_port), ("http://ada.lab:9001", 9002));
    assert_eq!(candidates[0].file, Some(file("a", "same")));
    let plain = &candidates[2];
    assert!(plain.file.as_ref().unwrap().content.is_empty() && plain.sources[0].peer_id.is_empty());
    assert_eq!(plain.sources[0].addresses, ["localhost:9002"]);

    let limited = LocateRequest { limit: 1, ..by_name("a") };
    let candidates = client.locate(limited).await.unwrap().into_inner().candidates;
    assert_eq!(candidates[0].sources.len(), 1);
    let hash = ContentHash::of(b"same").as_bytes().to_vec();
    let by_content = |content: Vec<u8>| LocateRequest {
        query: Some(locate_request::Query::Content(content.into())),
        limit: 0,
    };
    let candidates = client.locate(by_content(hash)).await.unwrap().into_inner().candidates;
    assert_eq!((candidates.len(), candidates[0].sources.len()), (1, 3));
    assert!(client.locate(by_name("nobody")).await.unwrap().into_inner().candidates.is_empty());
    for bad in [by_content(vec![1; 31]), LocateRequest::default()] {
        assert_eq!(client.locate(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn search_pages_through_everything() {
    let maestro = Maestro::start().await;
    let (ada, bob) = (Peer::new("ada"), Peer::new("bob"));
    let files: Vec<_> = (0..25).map(|number| file(&format!("docs/{number:02}.txt"), "x")).collect();
    let mut stream = ada.announce(&maestro, &files).await;
    let _bob = bob.announce(&maestro, &files[..5]).await;
    register(&maestro, "http://localhost:9001", &["plain.txt"]).await;
    let client = &mut stream.client;
    let mut request = SearchRequest { text: "DOCS/".to_owned(), limit: 10, ..SearchRequest::default() };
    let mut found = Vec::new();
    loop {
        let page = client.search(request.clone()).await.unwrap().into_inner();
        found.extend(page.files.into_iter().map(|found| (found.file.unwrap().name, found.sources)));
        if page.next.is_empty() {
            break;
        }
        request.cursor = page.next;
    }
    let expected: Vec<_> =
        (0..25).map(|number| (format!("docs/{number:02}.txt"), 1 + u32::from(number < 5))).collect();
    assert_eq!(found, expected);
    let of = |request: SearchRequest| {
        let mut client = client.clone();
        async move {
            let page = client.search(request).await.unwrap().into_inner();
            page.files.into_iter().map(|found| found.file.unwrap().name).collect::<Vec<_>>()
        }
    };
    let of_bob = SearchRequest { peer_id: bob.id().as_bytes().to_vec().into(), ..SearchRequest::default() };
    assert_eq!(of(of_bob).await.len(), 5);
    let plain = SearchRequest { peer_url: "http://localhost:9001".to_owned(), ..SearchRequest::default() };
    assert_eq!(of(plain).await, ["plain.txt"]);
    let prefix = SearchRequest { prefix: "docs/1".to_owned(), ..SearchRequest::default() };
    assert_eq!(of(prefix).await.len(), 10);
    for bad in [
        SearchRequest { cursor: "forged".to_owned(), ..SearchRequest::default() },
        SearchRequest { peer_id: vec![1].into(), ..SearchRequest::default() },
    ] {
        let status = client.search(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

/// Pages of long names end where the message limit is, not where the caller's is.
#[tokio::test]
async fn an_answer_stays_below_the_message_limit() {
    let maestro = Maestro::start().await;
    let files: Vec<_> = (0..6000)
        .map(|number| file(&format!("{number:04}/{}", vec!["x".repeat(240); 4].join("/")), "x"))
        .collect();
    let ada = Peer::new("ada");
    let mut stream = ada.sync(&maestro, 1, 6000).await;
    for (index, batch) in files.chunks(1000).enumerate() {
        let changes = harness::upserts(index as u64 * 1000 + 1, batch);
        stream.apply(p2p_proto::v1::CatalogDelta { reset: index == 0, ..harness::delta(1, changes) }).await;
    }
    let (mut seen, mut pages) = (0, 0);
    let mut request = SearchRequest { limit: 10_000, ..SearchRequest::default() };
    loop {
        let page = stream.client.search(request.clone()).await.unwrap().into_inner();
        (seen, pages) = (seen + page.files.len(), pages + 1);
        if page.next.is_empty() {
            break;
        }
        request.cursor = page.next;
    }
    assert_eq!((seen, pages), (6000, 2));
}

#[tokio::test]
async fn peers_are_listed_whether_online_or_not() {
    let maestro = Maestro::start().await;
    let (ada, bob) = (Peer::new("ada"), Peer::new("bob"));
    let mut stream = ada.announce(&maestro, &[file("a", "123")]).await;
    bob.announce(&maestro, &[file("b", "1")]).await.goodbye().await;
    register(&maestro, "http://localhost:9001", &["c"]).await;
    eventually(Vec::<String>::new(), async || maestro.who_has("b").await).await;
    let mut entries = Vec::new();
    let mut request = ListPeersRequest { limit: 1, ..ListPeersRequest::default() };
    loop {
        let page = stream.client.list_peers(request.clone()).await.unwrap().into_inner();
        entries.extend(page.peers);
        if page.next.is_empty() {
            break;
        }
        request.cursor = page.next;
    }
    let entry = |name: &str| entries.iter().find(|entry| entry.peer.as_ref().unwrap().name == name).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((entry("ada").online, entry("ada").files, entry("ada").bytes), (true, 1, 3));
    assert!(!entry("bob").online && entry("").online);
    assert!(entry("ada").last_seen_ms >= entry("bob").last_seen_ms && entry("bob").last_seen_ms > 0);
    request.cursor = "forged".to_owned();
    assert_eq!(stream.client.list_peers(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn peers_that_are_drawn_are_here_and_in_time_all_of_them_are() {
    let maestro = Maestro::start().await;
    let mut streams = Vec::new();
    for name in ["ada", "bob", "cyd", "dan", "eve", "fay"] {
        streams.push(Peer::new(name).announce(&maestro, &[file(name, name)]).await);
    }
    Peer::new("gus").announce(&maestro, &[file("g", "g")]).await.goodbye().await;
    register(&maestro, "http://localhost:9001", &["a"]).await;
    let client = &mut streams[0].client;
    let mut draw = async |limit| {
        let request = ListPeersRequest { limit, drawn: true, ..ListPeersRequest::default() };
        let answer = client.list_peers(request).await.unwrap().into_inner();
        assert_eq!(answer.next, "");
        assert!(answer.peers.iter().all(|entry| entry.online));
        answer.peers.into_iter().map(|entry| entry.peer.unwrap().name).collect::<Vec<_>>()
    };
    let all = draw(100).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each once");
    assert_eq!(all.len(), 6, "{all:?}");
    let mut known = BTreeSet::new();
    for _ in 0..200 {
        let drawn = draw(2).await;
        assert_eq!(drawn.len(), 2);
        known.extend(drawn);
    }
    assert_eq!(known, all.into_iter().collect());
}
