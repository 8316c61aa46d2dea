//! Who can be asked for a transfer's content: those that the locator finds, and others that fetch it too.

use std::sync::PoisonError;

use p2p_content::ContentHash;

use super::Job;
use crate::discovery::{PeerRef, Query};
use crate::transfer::jobs::Shared;

/// Other fetchers that are remembered.
const FETCHERS: usize = 64;

impl Job {
    /// Those who can be asked for the content now.
    pub(in crate::transfer) async fn find_sources(&self, shared: &Shared, query: &Query) -> Vec<PeerRef> {
        let mut found = match &self.terms.only_from {
            Some(peer) => vec![peer.clone()],
            None => {
                let is_of_use = |peer: &PeerRef| !self.is_dropped(peer.id());
                sources_of(shared.locator.locate_of_use(query, is_of_use).await, query)
            }
        };
        found.retain(|peer| !self.is_dropped(peer.id()));
        found
    }

    /// Looks for more sources, beside a run: friends may have it too.
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
                None => sources_of(locator.locate_more(&query).await, &query),
            }
        }
    }

    /// Others that fetch the same, as far as sources spoke of them.
    pub(in crate::transfer) fn fetchers(&self) -> Vec<PeerRef> {
        let known = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|peer| !self.is_dropped(peer.id())).cloned().collect()
    }

    /// Remembers those that a source spoke of, in place of others where there is no room: nobody can fill it with names for good.
    /// Those that it now speaks of.
    pub(in crate::transfer) fn remember_fetchers(&self, peers: Vec<PeerRef>) -> Vec<PeerRef> {
        let mut known = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for peer in peers {
            match known.iter().position(|other| other.id() == peer.id()) {
                // It may be elsewhere by now.
                Some(at) => known[at] = peer.clone(),
                None if known.len() < FETCHERS => known.push(peer.clone()),
                None => known[rand::random_range(0..FETCHERS)] = peer.clone(),
            }
            taken.push(peer);
        }
        taken
    }
}

/// Who answers with another content than was asked for is none.
fn sources_of(located: crate::discovery::Located, query: &Query) -> Vec<PeerRef> {
    let is_asked = |content: Option<ContentHash>| match query {
        Query::Content(asked) => content == Some(*asked),
        Query::Name(_) => true,
    };
    let candidates = located.candidates.into_iter().filter(|candidate| is_asked(candidate.content));
    let sources = candidates.flat_map(|candidate| candidate.sources);
    let others = sources.filter(|source| !source.is_own());
    others.map(|source| source.peer).collect()
}
