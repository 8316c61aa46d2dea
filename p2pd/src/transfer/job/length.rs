//! How long a content is, where that was told falsely: who is suspected until it is known, and what is said of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::Origin;

use super::Job;
use crate::discovery::{PeerRef, Query, Teller};
use crate::transfer::jobs::Shared;
use crate::transfer::store::{StoreError, TreeFile};
use crate::transfer::story;

/// Sources that are suspected at once.
const SUSPECTS: usize = 1024;

/// Who gave what does not prove itself under a length that is not proven.
pub(super) struct Suspect {
    content: ContentHash,
    peer: PeerRef,
    why: String,
}

impl Job {
    /// This source gave what does not prove itself, and how long the content is was only told.
    pub(in crate::transfer) fn suspect(&self, content: ContentHash, peer: &PeerRef, why: &str) {
        let mut suspects = self.whole().suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &Suspect| known.content == content && known.peer.id() == peer.id();
        if suspects.len() < SUSPECTS && !suspects.iter().any(is_it) {
            suspects.push(Suspect { content, peer: peer.clone(), why: why.to_owned() });
        }
    }

    /// The content has the length that was told: those that were suspected gave false bytes.
    pub(in crate::transfer) fn told_rightly(&self, content: ContentHash) {
        for Suspect { peer, why, .. } in self.take_suspects(content) {
            self.source_dropped(&peer, &why, content);
        }
    }

    /// The content has another length than was told, as this source proves: nobody else has done anything wrong but who told
    /// it. From now on the transfer goes by the right one.
    pub(in crate::transfer) async fn told_falsely(
        &self,
        shared: &Shared,
        content: ContentHash,
        told: u64,
        len: u64,
        by: &PeerRef,
    ) -> Result<(), StoreError> {
        let name = self.snapshot().name;
        self.change(|transfer| transfer.size = Some(len));
        match (&self.part_of, FileName::parse(&name)) {
            (Some(whole), Ok(name)) => {
                // Before it is listed with that length: else it would be fetched twice.
                whole.shorter().insert((name.clone(), content));
                whole.listed_falsely(shared, &name, content, told, len, by).await
            }
            _ => {
                self.say_who_told(shared, &name, content, told, len, by).await;
                Ok(())
            }
        }
    }

    /// Whether a file of a directory is being fetched as a long one, whatever its length is by now.
    pub(in crate::transfer) fn is_shorter_than_told(&self, file: &TreeFile) -> bool {
        let shorter = self.shorter();
        !shorter.is_empty() && shorter.contains(&(file.name.clone(), file.content))
    }

    /// A run of a directory begins: what is short now is fetched as such.
    pub(in crate::transfer) fn forget_shorter(&self) {
        self.shorter().clear();
    }

    fn shorter(&self) -> MutexGuard<'_, HashSet<(FileName, ContentHash)>> {
        self.shorter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same of a file of a directory: it is listed with the right length from now on.
    pub(in crate::transfer) async fn listed_falsely(
        &self,
        shared: &Shared,
        name: &FileName,
        content: ContentHash,
        told: u64,
        len: u64,
        by: &PeerRef,
    ) -> Result<(), StoreError> {
        shared.store.resize_file(self.id, name.clone(), content, len).await?;
        self.resized(told, len);
        self.say_who_told(shared, name.as_str(), content, told, len, by).await;
        Ok(())
    }

    /// A file of a directory has so many bytes, and not those that were told.
    pub(in crate::transfer) fn resized(&self, told: u64, len: u64) {
        self.change(|transfer| {
            transfer.size = transfer.size.map(|size| size.saturating_sub(told).saturating_add(len));
        });
    }

    async fn say_who_told(
        &self,
        shared: &Shared,
        name: &str,
        content: ContentHash,
        told: u64,
        len: u64,
        by: &PeerRef,
    ) {
        // None of them is to blame.
        drop(self.take_suspects(content));
        let (id, asked) = (self.whole().id, &self.terms.only_from);
        let located = match asked {
            Some(peer) => shared.locator.locate_at(peer, &Query::Content(content)).await,
            None => shared.locator.locate(&Query::Content(content)).await,
        };
        let false_ones = located.candidates.into_iter();
        let false_ones = false_ones.filter(|it| it.content == Some(content) && it.size == Some(told));
        // A maestro tells one length of all who have the content: which of them it has it from nobody can see.
        let tellers: BTreeSet<_> =
            false_ones.flat_map(|candidate| candidate.sources).map(|source| teller(source.teller)).collect();
        let tellers: Vec<_> = tellers.into_iter().collect();
        story::length_false(id, name, content, (told, len), by, &tellers);
    }

    /// Those of this content; they are suspected no more.
    fn take_suspects(&self, content: ContentHash) -> Vec<Suspect> {
        let mut suspects = self.whole().suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.extract_if(.., |suspect| suspect.content == content).collect()
    }
}

fn teller(Teller { origin, name, .. }: Teller) -> String {
    let what = match origin {
        Origin::Own => "this peer's own catalog",
        Origin::Maestro => "the maestro",
        Origin::Friend => "the peer",
        Origin::Cache => "what is remembered of the maestro",
    };
    name.map_or_else(|| what.to_owned(), |name| format!("{what} {name}"))
}
