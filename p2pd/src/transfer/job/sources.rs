//! What a transfer knows of its sources, and how new ones are found. What becomes of a source of one long file of a
//! directory is told of the directory's transfer: to its user it is one transfer.

use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::control::{Origin, PeerName, SourceState, TransferSource};

use std::sync::PoisonError;

use super::{FETCHERS, Job};
use crate::discovery::{Located, PeerRef, Query};
use crate::transfer::jobs::Shared;
use crate::transfer::story;

impl Job {
    /// Those who can be asked for the content now.
    pub(in crate::transfer) async fn find_sources(&self, shared: &Shared, query: &Query) -> Vec<PeerRef> {
        let mut found = match &self.terms.only_from {
            Some(peer) => vec![peer.clone()],
            None => sources_of(shared.locator.locate(query).await, query),
        };
        found.retain(|peer| !self.is_dropped(peer.id()));
        found
    }

    /// The transfer that its user knows: of a part of a directory's, that one.
    fn whole(&self) -> &Job {
        self.part_of.as_deref().unwrap_or(self)
    }

    /// Bytes that came for nothing.
    pub(in crate::transfer) fn wasted(&self, bytes: u64) {
        self.whole().change(|transfer| transfer.wasted_bytes += bytes);
    }

    /// Looks for more sources, beside a run.
    pub(in crate::transfer) fn look(
        &self,
        shared: &Shared,
        content: ContentHash,
    ) -> impl Future<Output = Vec<PeerRef>> + Send + 'static {
        let (locator, only_from) = (shared.locator.clone(), self.terms.only_from.clone());
        async move {
            let query = Query::Content(content);
            match only_from {
                Some(peer) => vec![peer],
                None => sources_of(locator.locate(&query).await, &query),
            }
        }
    }

    /// Others that fetch the same, as far as sources spoke of them.
    pub(in crate::transfer) fn fetchers(&self) -> Vec<PeerRef> {
        let known = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|peer| !self.is_dropped(peer.id())).cloned().collect()
    }

    /// Remembers those that a source spoke of, as far as there is room. Those that it now speaks of.
    pub(in crate::transfer) fn remember_fetchers(&self, peers: Vec<PeerRef>) -> Vec<PeerRef> {
        let mut known = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for peer in peers {
            match known.iter().position(|other| other.id() == peer.id()) {
                // It may be elsewhere by now.
                Some(at) => known[at] = peer.clone(),
                None if known.len() < FETCHERS => known.push(peer.clone()),
                None => continue,
            }
            taken.push(peer);
        }
        taken
    }

    /// Whether its user has been told of this source.
    pub(in crate::transfer) fn is_source(&self, peer: &PeerRef) -> bool {
        let id = peer.id().map(|id| id.to_string());
        self.whole().known.borrow().sources.iter().any(|source| source.peer.peer_id == id)
    }

    pub(in crate::transfer) fn is_dropped(&self, id: Option<PeerId>) -> bool {
        // A plain peer has none, and what one of them did is not held against the others.
        let Some(id) = id.map(|id| id.to_string()) else { return false };
        let known = self.whole().known.borrow();
        known.sources.iter().any(|source| {
            source.state == SourceState::Dropped && source.peer.peer_id.as_deref() == Some(id.as_str())
        })
    }

    pub(in crate::transfer) fn source_joined(&self, peer: &PeerRef) {
        let is_news = self.say_of(peer, None);
        story::source_joined(self.whole().id, peer, is_news);
        self.change_source(peer, |source| (source.state, source.reason) = (SourceState::Active, None));
    }

    pub(in crate::transfer) fn source_gave(&self, peer: &PeerRef, bytes: u64) {
        self.change_source(peer, |source| source.bytes += bytes);
    }

    pub(in crate::transfer) fn source_lost(&self, peer: &PeerRef, why: &str) {
        story::source_lost(self.whole().id, peer, why, self.say_of(peer, Some(why)));
        let why = why.to_owned();
        self.change_source(peer, |source| (source.state, source.reason) = (SourceState::Lost, Some(why)));
    }

    pub(in crate::transfer) fn source_dropped(&self, peer: &PeerRef, why: &str, content: ContentHash) {
        story::source_dropped(self.whole().id, peer, why, content);
        let why = why.to_owned();
        self.change_source(peer, |source| (source.state, source.reason) = (SourceState::Dropped, Some(why)));
    }

    /// Whether the log was not told this of the source yet: one that comes and goes all night fills no journal.
    fn say_of(&self, peer: &PeerRef, why: Option<&str>) -> bool {
        let key = peer.id().map_or_else(|| peer.name().to_owned(), |id| id.to_string());
        let mut said = self.whole().said.lock().unwrap_or_else(PoisonError::into_inner);
        match (said.get(&key), why) {
            (Some(_), None) => false,
            (Some(last), Some(why)) if last == why => false,
            _ => {
                said.insert(key, why.unwrap_or_default().to_owned());
                true
            }
        }
    }

    fn change_source(&self, peer: &PeerRef, change: impl FnOnce(&mut TransferSource)) {
        let name = PeerName { peer_id: peer.id().map(|id| id.to_string()), name: peer.name().to_owned() };
        self.whole().change(|transfer| {
            let is_it = |source: &TransferSource| match &name.peer_id {
                Some(id) => source.peer.peer_id.as_ref() == Some(id),
                None => source.peer.name == name.name,
            };
            let at = transfer.sources.iter().position(is_it).unwrap_or_else(|| {
                let (bytes, state) = (0, SourceState::Active);
                transfer.sources.push(TransferSource { peer: name.clone(), bytes, state, reason: None });
                transfer.sources.len() - 1
            });
            change(&mut transfer.sources[at]);
        });
    }
}

/// Who answers with another content than was asked for is none.
fn sources_of(located: Located, query: &Query) -> Vec<PeerRef> {
    let is_asked = |content: Option<ContentHash>| match query {
        Query::Content(asked) => content == Some(*asked),
        Query::Name(_) => true,
    };
    let candidates = located.candidates.into_iter().filter(|candidate| is_asked(candidate.content));
    let sources = candidates.flat_map(|candidate| candidate.sources);
    let others = sources.filter(|source| source.origin != Origin::Own);
    others.map(|source| source.peer).collect()
}
