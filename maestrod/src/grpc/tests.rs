//! Who may ask, from addresses that no test of the whole program can call from; and the cut of large answers.

use tempfile::TempDir;
use tonic::Code;

use super::*;
use crate::config::Policy;
use crate::directory::Profile;
use crate::sync::tests::{caller, context};

#[tokio::test]
async fn only_who_may_come_in_may_ask() {
    let (dir, tasks) = (TempDir::new().unwrap(), Tasks::new());
    let context = context(&dir, Policy::Token, &tasks).await;
    let service = DirectoryService::new(context.clone(), tasks.clone());
    let elsewhere = caller(1, "192.0.2.7");
    let ask = async |caller: Caller| {
        let with = |mut request: Request<SearchRequest>| {
            request.extensions_mut().insert(caller);
            request
        };
        service.search(with(Request::new(SearchRequest::default()))).await.map(|_| ())
    };
    let status = ask(elsewhere).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("p2pctl join"), "{status}");
    assert!(ask(caller(1, "127.0.0.1")).await.is_ok());
    context.directory.admit(PeerId::from_bytes([1; 32]), 1).await.unwrap();
    assert!(ask(elsewhere).await.is_ok());
    assert_eq!(ask(Caller { peer: None, ..elsewhere }).await.unwrap_err().code(), Code::Unauthenticated);
    // The other questions ask the same.
    let other = caller(2, "192.0.2.7");
    let mut locate = Request::new(LocateRequest::default());
    locate.extensions_mut().insert(other);
    assert_eq!(service.locate(locate).await.unwrap_err().code(), Code::PermissionDenied);
    let mut list = Request::new(ListPeersRequest::default());
    list.extensions_mut().insert(other);
    assert_eq!(service.list_peers(list).await.unwrap_err().code(), Code::PermissionDenied);
}

#[test]
fn many_sources_are_cut_to_a_message_evenly() {
    let source = |number: u8| PeerRecord {
        key: PeerKey::Synced(PeerId::from_bytes([number; 32])),
        profile: Profile { addresses: vec!["x".repeat(250); 32], ..Profile::default() },
        visible: true,
        files: 0,
        bytes: 0,
        last_seen_ms: 0,
    };
    let file =
        FileRecord { share: String::new(), name: "a".to_owned(), content: None, size: 0, modified_ms: 0 };
    let found: Vec<_> =
        (0..10).map(|_| Candidate { file: file.clone(), sources: (0..100).map(source).collect() }).collect();
    let candidates = fit_candidates(found);
    let counts: Vec<_> = candidates.iter().map(|candidate| candidate.sources.len()).collect();
    assert!(
        counts.iter().all(|count| (40..100).contains(count) && count.abs_diff(counts[0]) <= 1),
        "{counts:?}"
    );
    let answer = LocateResponse { candidates };
    assert!(prost::Message::encoded_len(&answer) <= p2p_proto::MAX_MESSAGE_LEN);
}
