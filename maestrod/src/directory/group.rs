//! Who has a name or a content, put together by content. Pure; for the stores.

use std::collections::BTreeMap;

use p2p_content::ContentHash;

use super::{FileRecord, Found, MAX_CANDIDATES, NamePosition, Through};

/// Holders of one name or content that are looked at, at the most: as many copies are counted.
pub(super) const HOLDERS: usize = super::MAX_COPIES as usize;

/// What one peer has under a name, or of a content.
pub(super) struct Holding {
    /// Its row.
    pub(super) peer: i64,
    /// The file.
    pub(super) file: FileRecord,
}

/// The candidates among these, the best first: those that somebody vouches for, by how many have them.
pub(super) fn best(holdings: Vec<Holding>) -> Vec<Group> {
    let mut groups: Vec<Group> = by_content(holdings).into_values().collect();
    groups.sort_by(|a, b| {
        let unproven = |group: &Group| group.file.content.is_none();
        unproven(a)
            .cmp(&unproven(b))
            .then(b.peers.len().cmp(&a.peers.len()))
            .then(a.file.content.cmp(&b.file.content))
    });
    groups.truncate(MAX_CANDIDATES);
    groups
}

/// At most `most` of these, at random, in the order in which they are.
pub(super) fn drawn(mut holdings: Vec<Holding>, most: usize) -> Vec<Holding> {
    if holdings.len() > most {
        let mut drawn = rand::seq::index::sample(&mut rand::rng(), holdings.len(), most).into_vec();
        drawn.sort_unstable_by(|a, b| b.cmp(a));
        let mut kept: Vec<Holding> = drawn.into_iter().map(|index| holdings.swap_remove(index)).collect();
        kept.reverse();
        return kept;
    }
    holdings
}

/// One content, and who has it.
pub(super) struct Group {
    /// The file, as one of them has it.
    pub(super) file: FileRecord,
    /// Their rows.
    pub(super) peers: Vec<i64>,
}

impl Group {
    /// At most `most` of them, at random, so that many who ask do not all get the same few.
    pub(super) fn draw(&self, most: usize) -> Vec<i64> {
        let drawn = rand::seq::index::sample(&mut rand::rng(), self.peers.len(), most.min(self.peers.len()));
        drawn.into_iter().map(|index| self.peers[index]).collect()
    }
}

impl From<Group> for Found {
    fn from(group: Group) -> Found {
        Found { sources: u32::try_from(group.peers.len()).unwrap_or(u32::MAX), file: group.file }
    }
}

/// The contents of a name that are after the position.
pub(super) fn unseen(
    groups: BTreeMap<Option<ContentHash>, Group>,
    name: &str,
    after: Option<&NamePosition>,
) -> impl Iterator<Item = Group> {
    let seen = after.filter(|after| after.name == name).map(|after| after.through);
    let is_new = move |content| seen.is_none_or(|through| !is_seen(through, content));
    groups.into_iter().filter(move |(content, _)| is_new(*content)).map(|(_, group)| group)
}

/// What is held, by content. The rows of a peer must be next to each other.
pub(super) fn by_content(holdings: Vec<Holding>) -> BTreeMap<Option<ContentHash>, Group> {
    let mut groups: BTreeMap<Option<ContentHash>, Group> = BTreeMap::new();
    for Holding { peer, file } in holdings {
        let group = groups.entry(file.content).or_insert_with(|| Group { file, peers: Vec::new() });
        // A peer's rows are next to each other.
        if group.peers.last() != Some(&peer) {
            group.peers.push(peer);
        }
    }
    groups
}

fn is_seen(through: Through, content: Option<ContentHash>) -> bool {
    match through {
        Through::Name => true,
        Through::Content(last) => content <= last,
    }
}
