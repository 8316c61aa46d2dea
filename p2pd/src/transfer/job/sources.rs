//! What a transfer knows of its sources. What becomes of a source of one long file of a directory is told of the
//! directory's transfer: to its user it is one transfer.

use std::sync::PoisonError;

use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::control::{PeerName, SourceState, TransferSource};

use super::Job;
use crate::discovery::PeerRef;
use crate::transfer::gauge::Gauge;
use crate::transfer::story;

/// Times that a source may not have what it told of, with nothing given in between: its user may have paused the transfer
/// that it gave from, or its disk has failed.
const UNKEPT: u32 = 3;
/// Sources of which something is remembered, beside those that gave something.
const REMEMBERED: usize = 1024;
/// Characters that are remembered of what one of them said, or is called.
const SAID: usize = 300;

impl Job {
    /// The transfer that its user knows: of a part of a directory's, that one.
    pub(super) fn whole(&self) -> &Job {
        self.part_of.as_deref().unwrap_or(self)
    }

    /// Where it is told what sources do: what its user looks at.
    pub(in crate::transfer) fn meter(&self) -> &Gauge {
        &self.whole().gauge
    }

    /// Bytes that came for nothing.
    pub(in crate::transfer) fn wasted(&self, bytes: u64) {
        self.whole().change(|transfer| transfer.wasted_bytes += bytes);
    }

    /// Whether its user has been told of this source.
    pub(in crate::transfer) fn is_source(&self, peer: &PeerRef) -> bool {
        let id = peer.id().map(|id| id.to_string());
        self.whole().known.borrow().sources.iter().any(|source| source.peer.peer_id == id)
    }

    /// Whether bytes came from this source.
    pub(in crate::transfer) fn gave(&self, peer: &PeerRef) -> bool {
        let id = peer.id().map(|id| id.to_string());
        let known = self.whole().known.borrow();
        known.sources.iter().any(|source| source.bytes > 0 && source.peer.peer_id == id)
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

    /// A source does not have what it told of. Whether it has done nothing else for too many times.
    pub(in crate::transfer) fn is_unkept_again(&self, peer: &PeerRef) -> bool {
        let mut unkept = self.whole().unkept.lock().unwrap_or_else(PoisonError::into_inner);
        let times = unkept.entry(key(peer)).or_default();
        *times += 1;
        *times >= UNKEPT
    }

    pub(in crate::transfer) fn source_gave(&self, peer: &PeerRef, bytes: u64) {
        self.whole().unkept.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(peer));
        self.change_source(peer, |source| source.bytes += bytes);
    }

    pub(in crate::transfer) fn source_lost(&self, peer: &PeerRef, why: &str) {
        story::source_lost(self.whole().id, peer, why, self.say_of(peer, Some(why)));
        let why = shortened(why);
        self.change_source(peer, |source| (source.state, source.reason) = (SourceState::Lost, Some(why)));
    }

    pub(in crate::transfer) fn source_dropped(&self, peer: &PeerRef, why: &str, content: ContentHash) {
        story::source_dropped(self.whole().id, peer, why, content);
        let why = shortened(why);
        self.change_source(peer, |source| (source.state, source.reason) = (SourceState::Dropped, Some(why)));
    }

    /// Whether the log was not told this of the source yet: one that comes and goes all night fills no journal.
    fn say_of(&self, peer: &PeerRef, why: Option<&str>) -> bool {
        let key = key(peer);
        let mut said = self.whole().said.lock().unwrap_or_else(PoisonError::into_inner);
        match (said.get(&key), why) {
            (Some(_), None) => false,
            (Some(last), Some(why)) if last == why => false,
            _ => {
                if said.len() >= REMEMBERED {
                    said.clear();
                }
                said.insert(key, why.unwrap_or_default().to_owned());
                true
            }
        }
    }

    fn change_source(&self, peer: &PeerRef, change: impl FnOnce(&mut TransferSource)) {
        let name = PeerName::from(peer);
        self.whole().change(|transfer| {
            let is_it = |source: &TransferSource| match &name.peer_id {
                Some(id) => source.peer.peer_id.as_ref() == Some(id),
                None => source.peer.name == name.name,
            };
            let at = transfer.sources.iter().position(is_it).unwrap_or_else(|| {
                let (bytes, state) = (0, SourceState::Active);
                make_room(&mut transfer.sources);
                transfer.sources.push(TransferSource { peer: name.clone(), bytes, state, reason: None });
                transfer.sources.len() - 1
            });
            change(&mut transfer.sources[at]);
        });
    }
}

/// Forgets one that gave nothing and is gone, where many are remembered: of who can be told of there is no end. One that was
/// dropped is asked again if it is, so it is forgotten only where all are such.
fn make_room(sources: &mut Vec<TransferSource>) {
    if sources.len() < REMEMBERED {
        return;
    }
    let first = |state| sources.iter().position(|source| source.state == state && source.bytes == 0);
    if let Some(at) = first(SourceState::Lost).or_else(|| first(SourceState::Dropped)) {
        sources.remove(at);
    }
}

fn shortened(why: &str) -> String {
    why.chars().take(SAID).collect()
}

/// What tells a source from the others: its ID, or the name of a plain peer.
fn key(peer: &PeerRef) -> String {
    peer.id().map_or_else(|| peer.name().to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_nothing_and_is_gone_makes_room() {
        let source = |number: usize, state, bytes| TransferSource {
            peer: PeerName { peer_id: None, name: number.to_string() },
            bytes,
            state,
            reason: None,
        };
        let mut sources = vec![source(0, SourceState::Lost, 5), source(1, SourceState::Dropped, 0)];
        sources.extend((2..REMEMBERED).map(|number| source(number, SourceState::Lost, 0)));
        make_room(&mut sources);
        assert_eq!(sources.len(), REMEMBERED - 1);
        assert_eq!(sources[2].peer.name, "3");
        make_room(&mut sources);
        assert_eq!(sources.len(), REMEMBERED - 1, "there is room");

        let mut dropped = vec![source(0, SourceState::Active, 0), source(1, SourceState::Dropped, 5)];
        dropped.extend((2..REMEMBERED).map(|number| source(number, SourceState::Dropped, 0)));
        make_room(&mut dropped);
        assert_eq!(dropped.len(), REMEMBERED - 1);
        assert_eq!(dropped[2].peer.name, "3");
    }
}
