//! Answers to the questions of friends and members.
//!
//! The rules, after Gnutella's: a question has an ID, and is answered once; it is passed on to friends as long as it
//! has hops left, with less time each; it reveals only what the asker may see. What is passed on for somebody else is
//! answered with what the whole network may see.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_proto::v1::friend_query::Query as WireQuery;
use p2p_proto::v1::{self, FriendQuery, LocateResponse};
use tonic::Status;

use super::ask::ask_all;
use super::{Connections, Friends, Myself, Query, Teller};
use crate::catalog::{Catalog, Fact, Viewer};

/// How often a question may be passed on.
const MAX_HOPS: u32 = 3;
/// Taken off the asker's time at each hop, for the way back.
const HOP_MARGIN: Duration = Duration::from_millis(300);
/// Questions that are remembered, so that each is answered once.
const REMEMBERED: usize = 4096;

/// Answers what others ask. Clones are handles to the same.
#[derive(Clone)]
pub struct Answerer {
    myself: Arc<Myself>,
    catalog: Catalog,
    friends: Friends,
    connections: Connections,
    seen: Arc<Mutex<Seen>>,
}

impl Answerer {
    /// Answers from this catalog, and passes on to these friends.
    pub fn new(myself: Arc<Myself>, catalog: Catalog, friends: Friends, connections: Connections) -> Self {
        Self { myself, catalog, friends, connections, seen: Arc::default() }
    }

    /// Who has it, as far as `asker`, who is a `viewer` here, may know.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the question breaks the protocol.
    pub async fn answer(
        &self,
        question: FriendQuery,
        asker: PeerId,
        viewer: Viewer,
    ) -> Result<LocateResponse, Status> {
        let id = <[u8; 16]>::try_from(question.query_id.as_ref())
            .map_err(|_| Status::invalid_argument("a query_id has 16 bytes"))?;
        let query = read(question.query.clone())?;
        if !self.seen.lock().unwrap_or_else(PoisonError::into_inner).first((id, question.relayed)) {
            return Ok(LocateResponse::default());
        }
        let viewer = if question.relayed { Viewer::Network } else { viewer };
        let found = match &query {
            Query::Name(name) => self.catalog.find_name(name.as_str(), viewer).await,
            Query::Content(content) => self.catalog.find_content(*content, viewer).await,
        };
        let facts = found.map_err(|error| Status::internal(error.to_string()))?;
        let mut candidates: Vec<v1::Candidate> = facts.iter().map(|fact| self.own(fact)).collect();
        let wait = Duration::from_millis(question.deadline_ms.into()).saturating_sub(HOP_MARGIN);
        let hops = question.hops.min(MAX_HOPS);
        // Only for friends: a member can ask its maestro.
        if candidates.is_empty() && hops > 0 && !wait.is_zero() && self.friends.contains(asker) {
            let others: Vec<_> = self
                .friends
                .peers()
                .into_iter()
                .filter(|friend| friend.id() != Some(asker))
                .map(|friend| {
                    let teller = Teller::friend(&friend);
                    (friend, teller)
                })
                .collect();
            let passed = FriendQuery {
                hops: hops - 1,
                deadline_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
                relayed: true,
                ..question
            };
            let (found, _) = ask_all(&self.connections, &others, &passed, wait).await;
            candidates.extend(found.into_iter().map(to_wire));
        }
        Ok(LocateResponse { candidates })
    }

    fn own(&self, fact: &Fact) -> v1::Candidate {
        v1::Candidate { file: Some(entry(fact)), sources: vec![self.myself.to_wire()] }
    }
}

/// A fact as a message.
pub(crate) fn entry(fact: &Fact) -> v1::FileEntry {
    v1::FileEntry {
        share: fact.share.clone(),
        name: fact.name.to_string(),
        content: fact.content.as_bytes().to_vec().into(),
        size: fact.size,
        modified_ms: fact.modified_ms(),
    }
}

fn to_wire(candidate: super::Candidate) -> v1::Candidate {
    v1::Candidate {
        file: Some(v1::FileEntry {
            share: String::new(),
            name: candidate.name.to_string(),
            content: candidate.content.map(|content| content.as_bytes().to_vec().into()).unwrap_or_default(),
            size: candidate.size.unwrap_or_default(),
            modified_ms: candidate.modified_ms.unwrap_or_default(),
        }),
        sources: candidate.sources.into_iter().map(|source| source.peer.to_wire()).collect(),
    }
}

fn read(query: Option<WireQuery>) -> Result<Query, Status> {
    match query {
        Some(WireQuery::Name(name)) => FileName::parse(&name)
            .map(Query::Name)
            .map_err(|error| Status::invalid_argument(error.to_string())),
        Some(WireQuery::Content(content)) => ContentHash::try_from(content.as_ref())
            .map(Query::Content)
            .map_err(|error| Status::invalid_argument(error.to_string())),
        None => Err(Status::invalid_argument("the question asks for nothing")),
    }
}

/// A question, and whether it came by way of somebody else: those who ask themselves may see more.
type QueryKey = ([u8; 16], bool);

/// The questions that were answered, the latest of them.
#[derive(Debug, Default)]
struct Seen {
    known: HashSet<QueryKey>,
    order: VecDeque<QueryKey>,
}

impl Seen {
    /// Whether this question is new; remembers it.
    fn first(&mut self, id: QueryKey) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_new_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            (id, false)
        };
        assert!(seen.first(id(0)));
        assert!(!seen.first(id(0)));
        assert!(Seen::default().first((id(0).0, true)));
        for number in 1..=REMEMBERED {
            assert!(seen.first(id(number)));
        }
        assert_eq!((seen.known.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!seen.first(id(REMEMBERED)));
        assert!(seen.first(id(0)), "the oldest is forgotten");
    }

    #[test]
    fn questions_that_break_the_protocol_are_refused() {
        assert!(read(None).is_err());
        assert!(read(Some(WireQuery::Name("../x".to_owned()))).is_err());
        assert!(read(Some(WireQuery::Content(vec![0; 31].into()))).is_err());
        assert!(read(Some(WireQuery::Content(vec![0; 32].into()))).is_ok());
    }
}
