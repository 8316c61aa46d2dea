//! Bytes in, hashes out: of a whole content while it's read, and of one piece while it arrives.
//!
//! The only file that calls `blake3::hazmat`. The rules of the tree are those of the BLAKE3 paper, section 2.1: a left
//! subtree is the largest power of two of chunks that leaves something on its right, and only the topmost node is
//! hashed as a root.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::piece::Rules;
use crate::{ContentHash, Manifest, Pieces};

/// What [`PieceHasher::finish`] gives for bytes that can't be the piece, because there are too few or too many.
///
/// No [`Manifest`] holds this value, so it never compares equal to one of theirs.
pub const NO_VALUE: [u8; 32] = [0; 32];

/// Makes the hash and the manifest of a content in one pass over its bytes, whose number needn't be known before.
///
/// It needs memory for the manifest only: 32 bytes per piece, so 32 bytes per MiB of content, and never more than
/// 2 MiB. Updates of 64 KiB and more let BLAKE3 use the processor's vector units; any split gives the same result.
///
/// How it works: the piece length grows with the content and only doubles. So the content is hashed in the pieces that
/// the bytes seen so far call for, and when one more byte calls for longer ones, the values so far are merged in pairs:
/// aligned neighbours are the two halves of the longer piece's subtree.
#[derive(Clone, Debug)]
pub struct ContentHasher {
    rules: Rules,
    piece_len: u64,
    /// The values of the pieces that are followed by more bytes.
    values: Vec<ChainingValue>,
    /// The piece that ends where the bytes seen so far end. It's closed only when another byte follows, because until
    /// then it may be the only piece, and that one is hashed as a root.
    last: Hasher,
    last_len: u64,
}

impl ContentHasher {
    /// A hasher that has seen no bytes.
    pub fn new() -> ContentHasher {
        ContentHasher::under(Rules::NETWORK)
    }

    pub(crate) fn under(rules: Rules) -> ContentHasher {
        ContentHasher {
            rules,
            piece_len: rules.min_piece_len,
            values: Vec::new(),
            last: Hasher::new(),
            last_len: 0,
        }
    }

    /// Takes the content's next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last_len == self.piece_len {
                self.open_next_piece();
            }
            let (now, later) = split_at_most(bytes, self.piece_len - self.last_len);
            self.last.update(now);
            self.last_len += now.len() as u64;
            bytes = later;
        }
    }

    /// How many bytes were taken so far.
    pub fn len(&self) -> u64 {
        self.values.len() as u64 * self.piece_len + self.last_len
    }

    /// Whether no bytes were taken so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of all the bytes, which is [`ContentHash::of`] them, and the manifest that goes with it.
    pub fn finish(mut self) -> (ContentHash, Manifest) {
        let pieces = Pieces::under(self.rules, self.len());
        debug_assert_eq!(pieces.piece_len(), self.piece_len);
        let last = if self.values.is_empty() {
            *self.last.finalize().as_bytes()
        } else {
            self.last.finalize_non_root()
        };
        self.values.push(last);
        let content = root_of(&self.values);
        (content, Manifest::proven(content, pieces, self.values))
    }

    fn open_next_piece(&mut self) {
        let offset = self.len();
        self.values.push(self.last.finalize_non_root());
        if self.values.len() as u64 == self.rules.max_pieces {
            // The count is even (a power of two), so no value is left without its pair.
            self.values = self.values.chunks_exact(2).map(value_of).collect();
            self.piece_len *= 2;
        }
        self.last = hasher_at(offset);
        self.last_len = 0;
    }
}

impl Default for ContentHasher {
    fn default() -> ContentHasher {
        ContentHasher::new()
    }
}

/// Makes the value of one piece from its bytes as they arrive, to compare with [`Manifest::value`].
///
/// It has a small fixed size (about 2 KiB) whatever the piece's length, and takes any bytes without panicking: those
/// past the piece's end are counted and not hashed.
#[derive(Clone, Debug)]
pub struct PieceHasher {
    hasher: Hasher,
    is_root: bool,
    /// `None` if there is no such piece: then nothing is ever right.
    expected_len: Option<u64>,
    received_len: u64,
}

impl PieceHasher {
    /// A hasher for piece `index` of a content with these `pieces`. If there is no such piece, it finishes with
    /// [`NO_VALUE`].
    pub fn new(pieces: Pieces, index: u32) -> PieceHasher {
        let range = pieces.range(index);
        let exists = index < pieces.count();
        PieceHasher {
            hasher: if exists { hasher_at(range.start) } else { Hasher::new() },
            is_root: pieces.count() == 1,
            expected_len: exists.then_some(range.end - range.start),
            received_len: 0,
        }
    }

    /// Takes the piece's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // Not past the end, where the hasher would panic: it refuses to leave its subtree.
        let (fitting, _) = split_at_most(bytes, self.missing());
        self.hasher.update(fitting);
        self.received_len = self.received_len.saturating_add(bytes.len() as u64);
    }

    /// How many bytes the piece still lacks: 0 also when there were too many.
    pub fn missing(&self) -> u64 {
        self.expected_len.unwrap_or(0).saturating_sub(self.received_len)
    }

    /// The piece's chaining value; of a content's only piece, the content's hash; [`NO_VALUE`] if the bytes weren't
    /// exactly as many as the piece has.
    pub fn finish(self) -> [u8; 32] {
        if self.expected_len != Some(self.received_len) {
            NO_VALUE
        } else if self.is_root {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        }
    }
}

/// The hash of the content whose pieces have these values, of which there is at least one. A single piece's value is
/// the hash itself.
pub(crate) fn root_of(values: &[ChainingValue]) -> ContentHash {
    match values {
        [] => ContentHash::EMPTY,
        [only] => ContentHash::from_bytes(*only),
        _ => {
            let (left, right) = values.split_at(left_count(values.len()));
            let root = merge_subtrees_root(&value_of(left), &value_of(right), Mode::Hash);
            ContentHash::from_bytes(*root.as_bytes())
        }
    }
}

/// The chaining value of the subtree over these values, which isn't the whole tree. Recursion ends after 16 levels:
/// there are at most [`MAX_PIECES`](crate::MAX_PIECES).
fn value_of(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [] => NO_VALUE,
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left_count(values.len()));
            merge_subtrees_non_root(&value_of(left), &value_of(right), Mode::Hash)
        }
    }
}

/// BLAKE3's rule for the left subtree, counted in pieces: it holds there too because pieces are powers of two.
pub(crate) fn left_count(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

pub(crate) fn hasher_at(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The value of the subtree over the bytes that this hasher took, which isn't the whole tree.
pub(crate) fn value_so_far(hasher: &Hasher) -> ChainingValue {
    hasher.finalize_non_root()
}

/// The value of the chunk of these bytes, which begins at this offset and isn't the whole content.
pub(crate) fn chunk_value(offset: u64, chunk: &[u8]) -> ChainingValue {
    hasher_at(offset).update(chunk).finalize_non_root()
}

/// The value of two subtrees side by side, which aren't the whole tree.
pub(crate) fn parent_value(left: &ChainingValue, right: &ChainingValue) -> ChainingValue {
    merge_subtrees_non_root(left, right, Mode::Hash)
}

pub(crate) fn split_at_most(bytes: &[u8], most: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len())))
}
