//! What proves the length of a content: its last chunk, and the values that join it to the last piece.
//!
//! BLAKE3 hashes a chunk together with its number and with how many bytes it has, and who stands at the right edge of the
//! tree is the last: so the way from the root down that edge to a chunk is the way to the end of the content, and to
//! nothing else. The upper part of it is in the manifest; the lower part, within the last piece, is an *ending*.

use crate::hasher::{chunk_value, hasher_at, left_count, parent_value, root_of, split_at_most};
use crate::{Manifest, ManifestError, Pieces};

/// Bytes of a chunk, which BLAKE3 fixes. Only a content's last chunk may be shorter.
const CHUNK_LEN: u64 = 1024;

/// The lengths, in bytes, of the subtrees of the last piece that its last chunk is joined to, in the order of their
/// bytes; where the last piece lies, and where its last chunk begins.
struct Edge {
    lefts: Vec<u64>,
    start: u64,
    chunk_start: u64,
    end: u64,
}

impl Edge {
    fn of(pieces: Pieces) -> Edge {
        let range = pieces.range(pieces.count() - 1);
        let mut chunks = usize::try_from((range.end - range.start).div_ceil(CHUNK_LEN)).unwrap_or(usize::MAX);
        let mut lefts = Vec::new();
        while chunks > 1 {
            let left = left_count(chunks);
            lefts.push(left as u64 * CHUNK_LEN);
            chunks -= left;
        }
        let chunk_start = range.start + lefts.iter().sum::<u64>();
        Edge { lefts, start: range.start, chunk_start, end: range.end }
    }
}

/// Makes a content's ending from the bytes of its last piece as they are read: at most 2 KiB, whatever the piece's length.
#[derive(Clone, Debug)]
pub struct EndHasher {
    /// What is to come of the subtrees, the next one last.
    lefts: Vec<u64>,
    hasher: blake3::Hasher,
    offset: u64,
    ending: Vec<u8>,
    /// Bytes of the last chunk that are to come.
    chunk_missing: u64,
    is_too_long: bool,
}

impl EndHasher {
    /// A hasher that has seen no byte of the last of these pieces.
    pub fn new(pieces: Pieces) -> EndHasher {
        let Edge { mut lefts, start, chunk_start, end } = Edge::of(pieces);
        lefts.reverse();
        let hasher = hasher_at(start);
        let chunk_missing = end - chunk_start;
        EndHasher { lefts, hasher, offset: start, ending: Vec::new(), chunk_missing, is_too_long: false }
    }

    /// Takes the last piece's next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while let Some(missing) = self.lefts.last_mut().filter(|_| !bytes.is_empty()) {
            let (now, later) = split_at_most(bytes, *missing);
            self.hasher.update(now);
            (self.offset, bytes) = (self.offset + now.len() as u64, later);
            *missing -= now.len() as u64;
            if *missing == 0 {
                self.lefts.pop();
                self.ending.extend(crate::hasher::value_so_far(&self.hasher));
                self.hasher = hasher_at(self.offset);
            }
        }
        let (now, more) = split_at_most(bytes, self.chunk_missing);
        self.ending.extend(now);
        self.chunk_missing -= now.len() as u64;
        self.is_too_long |= !more.is_empty();
    }

    /// The ending; `None` if the bytes weren't exactly as many as the piece has.
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.lefts.is_empty() && self.chunk_missing == 0 && !self.is_too_long).then_some(self.ending)
    }
}

impl Manifest {
    /// Proves that the content has the length that this manifest was made for. The ending may come from anybody.
    ///
    /// # Errors
    ///
    /// [`ManifestError::LengthNotProven`]: it's no ending of this content at this length. Who gave it was wrong, or who
    /// said that the content has this length.
    pub fn prove_len(&self, ending: &[u8]) -> Result<(), ManifestError> {
        let not_proven = ManifestError::LengthNotProven { len: self.pieces().len() };
        let Edge { lefts, chunk_start, end, .. } = Edge::of(self.pieces());
        let Some((values, chunk)) = ending.split_at_checked(lefts.len() * 32) else { return Err(not_proven) };
        if chunk.len() as u64 != end - chunk_start {
            return Err(not_proven);
        }
        let (values, _) = values.as_chunks::<32>();
        let last = self.pieces().count() - 1;
        let found = match (last, values) {
            // A single piece has the root's value.
            (0, []) => *crate::ContentHash::of(chunk).as_bytes(),
            (0, [first, lower @ ..]) => *root_of(&[*first, joined(lower, chunk_start, chunk)]).as_bytes(),
            (_, values) => joined(values, chunk_start, chunk),
        };
        if self.value(last) == Some(found) { Ok(()) } else { Err(not_proven) }
    }
}

/// The value of the subtree that ends with this chunk and has these on the left of the way to it, from above.
fn joined(lefts: &[[u8; 32]], chunk_start: u64, chunk: &[u8]) -> [u8; 32] {
    let last = chunk_value(chunk_start, chunk);
    lefts.iter().rev().fold(last, |right, left| parent_value(left, &right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::piece::Rules;
    use crate::{ContentHash, ContentHasher};

    const SMALL: Rules = Rules { min_piece_len: 4096, max_pieces: 4 };

    fn bytes_of(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn hashed(rules: Rules, bytes: &[u8]) -> (ContentHash, Manifest) {
        let mut hasher = ContentHasher::under(rules);
        hasher.update(bytes);
        hasher.finish()
    }

    fn ending(manifest: &Manifest, bytes: &[u8], step: usize) -> Option<Vec<u8>> {
        let range = manifest.pieces().range(manifest.pieces().count() - 1);
        let mut hasher = EndHasher::new(manifest.pieces());
        bytes[range.start as usize..range.end as usize].chunks(step).for_each(|part| hasher.update(part));
        hasher.finish()
    }

    /// A manifest that proves itself under another length: its values are those of subtrees of the true content.
    fn forged(rules: Rules, bytes: &[u8], len: u64) -> Option<Manifest> {
        let (content, _) = hashed(rules, bytes);
        let pieces = Pieces::under(rules, len);
        let values = |count: usize| {
            let mut all = Vec::new();
            let (mut at, mut left, mut chunks) = (0, count, bytes.len().div_ceil(1024));
            // Down the right edge, one piece of the false geometry for each subtree on its left.
            while left > 1 && chunks > 1 {
                let half = left_count(chunks);
                let subtree = &bytes[at..(at + half * 1024).min(bytes.len())];
                let mut hasher = hasher_at(at as u64);
                hasher.update(subtree);
                all.push(crate::hasher::value_so_far(&hasher));
                (at, left, chunks) = (at + half * 1024, left - 1, chunks - half);
            }
            let mut hasher = hasher_at(at as u64);
            hasher.update(&bytes[at..]);
            all.push(crate::hasher::value_so_far(&hasher));
            all
        };
        match pieces.count() {
            1 => Manifest::check(content, pieces, vec![*content.as_bytes()]).ok(),
            count => Manifest::check(content, pieces, values(count as usize)).ok(),
        }
    }

    #[test]
    fn an_ending_proves_the_length_at_every_edge() {
        let whole = bytes_of(40 * 1024);
        for chunks in 0..40usize {
            for len in (chunks * 1024).saturating_sub(1)..=chunks * 1024 + 1 {
                let bytes = &whole[..len];
                let (_, manifest) = hashed(SMALL, bytes);
                let ending = ending(&manifest, bytes, 700).unwrap();
                assert_eq!(manifest.prove_len(&ending), Ok(()), "{len} bytes");
                let mut false_one = ending.clone();
                if let Some(byte) = false_one.last_mut() {
                    *byte ^= 1;
                    assert!(manifest.prove_len(&false_one).is_err(), "{len} bytes");
                }
                assert!(manifest.prove_len(&[ending.as_slice(), &[0]].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_manifest_that_proves_itself_under_a_false_length_finds_no_ending() {
        let bytes = bytes_of(13 * 1024 + 5);
        let (_, honest) = hashed(SMALL, &bytes);
        let right = ending(&honest, &bytes, 4096).unwrap();
        let mut forged_ones = 0;
        for len in 0..20 * 1024u64 {
            let Some(manifest) = forged(SMALL, &bytes, len) else { continue };
            forged_ones += usize::from(len != bytes.len() as u64);
            assert_eq!(manifest.prove_len(&right).is_ok(), len == bytes.len() as u64, "{len} bytes");
            // What bytes of the content itself come to under that length is none either.
            let padded = [bytes.as_slice(), &[0; 8192]].concat();
            if let Some(ending) = ending(&manifest, &padded, 4096) {
                assert_eq!(manifest.prove_len(&ending).is_ok(), len == bytes.len() as u64, "{len} bytes");
            }
        }
        assert!(forged_ones > 4096, "{forged_ones} were made");
    }

    #[test]
    fn an_ending_is_short_and_made_of_exactly_the_last_piece() {
        let bytes = bytes_of(3 << 20);
        let (_, manifest) = hashed(Rules::NETWORK, &bytes);
        let whole = ending(&manifest, &bytes, 65536).unwrap();
        assert_eq!(whole.len(), 10 * 32 + 1024);
        let mut hasher = EndHasher::new(manifest.pieces());
        hasher.update(&bytes[..(1 << 20) - 1]);
        assert_eq!(hasher.clone().finish(), None);
        hasher.update(&[0, 0]);
        assert_eq!(hasher.finish(), None);
    }

    proptest! {
        #[test]
        fn no_other_bytes_are_an_ending(len in 0usize..30_000, junk in prop::collection::vec(any::<u8>(), 0..1500)) {
            let (_, manifest) = hashed(SMALL, &bytes_of(len));
            let is_it = ending(&manifest, &bytes_of(len), 512).unwrap() == junk;
            prop_assert_eq!(manifest.prove_len(&junk).is_ok(), is_it);
        }
    }
}
