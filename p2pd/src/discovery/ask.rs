//! One question to many peers at once.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use p2p_proto::v1::friend_query::Query as WireQuery;
use p2p_proto::v1::{FriendQuery, LocateResponse};
use tokio::time::timeout;

use super::{Candidate, Connections, PeerRef, Query, Teller};

/// How long friends may take to answer.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How many peers are asked at once, at most.
pub(super) const ASKED: usize = 64;

pub(super) fn to_wire(query: &Query) -> WireQuery {
    match query {
        Query::Name(name) => WireQuery::Name(name.to_string()),
        Query::Content(content) => WireQuery::Content(content.as_bytes().to_vec().into()),
    }
}

/// A new question, which may be passed on `hops` times.
pub(super) fn question(query: &Query, hops: u32) -> FriendQuery {
    FriendQuery {
        query_id: rand::random::<[u8; 16]>().to_vec().into(),
        query: Some(to_wire(query)),
        hops,
        deadline_ms: ASK_TIMEOUT.as_millis() as u32,
        relayed: false,
    }
}

/// What the peers answer within `wait`, and how many did not.
pub(super) async fn ask_all(
    connections: &Connections,
    peers: &[(PeerRef, Teller)],
    question: &FriendQuery,
    wait: Duration,
) -> (Vec<Candidate>, usize) {
    let mut answers: FuturesUnordered<_> = peers
        .iter()
        .take(ASKED)
        .map(|(peer, teller)| async move {
            let answer = timeout(wait, ask(connections, peer, question.clone())).await.ok().flatten();
            answer.map(|answer| (answer, teller))
        })
        .collect();
    let (mut found, mut silent) = (Vec::new(), peers.len().saturating_sub(ASKED));
    while let Some(answer) = answers.next().await {
        match answer {
            Some((answer, teller)) => found.extend(
                answer.candidates.into_iter().filter_map(|candidate| Candidate::from_wire(candidate, teller)),
            ),
            None => silent += 1,
        }
    }
    (found, silent)
}

async fn ask(connections: &Connections, peer: &PeerRef, question: FriendQuery) -> Option<LocateResponse> {
    let mut client = connections.peer(peer).await.ok()?;
    match client.locate(question).await {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) => {
            let (name, id) = (peer.name(), peer.id().map(|id| id.to_string()));
            tracing::debug!(
                peer = name,
                peer_id = id,
                "{peer} does not answer a question: {}",
                status.message()
            );
            if let Some(id) = peer.id() {
                connections.note(id, &status);
            }
            None
        }
    }
}
