//! What the protocol says of messages, written from `docs/protocol.md` and not with the programs' code.

use std::collections::{BTreeSet, VecDeque};

use maestrod::directory::FileRecord;
use p2p_content::ContentHash;
use p2p_proto::v1::sync_request::Message as Up;

use super::Garbling;

/// Whether a peer may say this on a stream of this epoch, after what came through this change, which is the end of its catalog
/// or not.
pub(super) fn is_right(said: &Up, epoch: u64, (through, is_end): (u64, bool)) -> bool {
    match said {
        Up::Delta(delta) => {
            let mut last = if delta.reset { 0 } else { through };
            let mut ascends = true;
            for change in &delta.changes {
                ascends &= last < change.sequence;
                last = change.sequence;
            }
            delta.epoch == epoch && ascends && delta.through_sequence >= last
        }
        Up::Digests(said) => is_end && (said.epoch, said.sequence) == (epoch, through),
        Up::Files(said) => is_end && (said.epoch, said.sequence) == (epoch, through),
        Up::Hello(_) | Up::Goodbye(_) => true,
    }
}

/// Makes something else of the messages that come next. Whether there was something to make it of.
pub(super) fn garble(comes: &mut VecDeque<Up>, garbling: Garbling) -> bool {
    if let Garbling::Swapped = garbling {
        let are_two = comes.len() >= 2;
        if are_two {
            comes.swap(0, 1);
        }
        return are_two;
    }
    match (garbling, comes.front_mut()) {
        (Garbling::Swapped, _) | (_, None) => return false,
        (Garbling::Twice, Some(next)) => {
            let again = next.clone();
            comes.push_front(again);
        }
        (Garbling::Reversed, Some(Up::Delta(delta))) => delta.changes.reverse(),
        (Garbling::Epoch, Some(Up::Delta(delta))) => delta.epoch ^= 1,
        (Garbling::Through, Some(Up::Delta(delta))) => match delta.changes.last() {
            Some(last) => delta.through_sequence = last.sequence - 1,
            None => return false,
        },
        (Garbling::Reversed | Garbling::Epoch | Garbling::Through, Some(_)) => return false,
    }
    true
}

/// The buckets in which two catalogs differ, as far as their digest tells.
pub(super) fn differing(has: &[FileRecord], held: &[FileRecord], bits: u32) -> BTreeSet<u32> {
    let place = |file: &FileRecord| {
        let hash = ContentHash::of(format!("{}\0{}", file.share, file.name).as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_be_bytes([a, b, c, d]) >> (32 - bits)
    };
    let is_same = |a: &FileRecord, b: &FileRecord| {
        (&a.share, &a.name, a.content, a.size) == (&b.share, &b.name, b.content, b.size)
    };
    let lacks = |these: &'_ [FileRecord], file: &FileRecord| !these.iter().any(|other| is_same(other, file));
    let missing = has.iter().filter(|file| lacks(held, file));
    missing.chain(held.iter().filter(|file| lacks(has, file))).map(place).collect()
}

/// By share and name.
pub(super) fn in_order(mut files: Vec<FileRecord>) -> Vec<FileRecord> {
    files.sort_by(|a, b| (&a.share, &a.name).cmp(&(&b.share, &b.name)));
    files
}
