//! Where the pieces of a content lie: a function of its length and of nothing else.

use std::ops::Range;

/// The shortest piece length, in bytes (1 MiB). Only a content's last piece may be shorter.
pub const MIN_PIECE_LEN: u64 = 1 << 20;

/// The most pieces that a content has (65 536): it bounds a manifest to 2 MiB and a bitmap to 8 KiB.
pub const MAX_PIECES: u64 = 1 << 16;

/// The piece length, in bytes, of a content of `content_len` bytes: the smallest power of two that is at least
/// [`MIN_PIECE_LEN`] and makes at most [`MAX_PIECES`] pieces.
///
/// It's derived, never negotiated: two peers that agree on a content's length agree on its pieces. Every `u64` is a
/// valid length; up to 64 GiB the pieces are 1 MiB.
pub fn piece_len(content_len: u64) -> u64 {
    Rules::NETWORK.piece_len(content_len)
}

/// The two numbers that fix the geometry. Values and not constants only so that the tests can reach the long pieces of
/// enormous contents with a few kilobytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A power of two, at least one BLAKE3 chunk (1024 bytes).
    pub(crate) min_piece_len: u64,
    /// A power of two, at least 2.
    pub(crate) max_pieces: u64,
}

impl Rules {
    pub(crate) const NETWORK: Rules = Rules { min_piece_len: MIN_PIECE_LEN, max_pieces: MAX_PIECES };

    pub(crate) fn piece_len(self, content_len: u64) -> u64 {
        content_len.div_ceil(self.max_pieces).next_power_of_two().max(self.min_piece_len)
    }
}

/// The geometry of a content: its pieces, numbered from 0 in the order of their bytes.
///
/// Every content has at least one piece: the empty content has one of length 0, so that "all pieces are held" is never
/// true before something was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    len: u64,
    piece_len: u64,
}

#[expect(clippy::len_without_is_empty, reason = "the length is the content's; there is always a piece")]
impl Pieces {
    /// The pieces of a content of `content_len` bytes.
    pub fn of(content_len: u64) -> Pieces {
        Pieces::under(Rules::NETWORK, content_len)
    }

    pub(crate) fn under(rules: Rules, content_len: u64) -> Pieces {
        Pieces { len: content_len, piece_len: rules.piece_len(content_len) }
    }

    /// The content's length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The length, in bytes, of every piece but the last, which may be shorter. See [`piece_len`].
    pub fn piece_len(&self) -> u64 {
        self.piece_len
    }

    /// How many pieces there are: from 1 to [`MAX_PIECES`].
    pub fn count(&self) -> u32 {
        u32::try_from(self.len.div_ceil(self.piece_len).max(1)).unwrap_or(u32::MAX)
    }

    /// The bytes of piece `index` within the content. An `index` that isn't below [`count`](Pieces::count) gives the
    /// empty range at the content's end.
    pub fn range(&self, index: u32) -> Range<u64> {
        let start = u64::from(index).saturating_mul(self.piece_len).min(self.len);
        let end = start.saturating_add(self.piece_len).min(self.len);
        start..end
    }

    /// The piece that has the byte at `offset`; `None` at the content's end and after it.
    pub fn index_of(&self, offset: u64) -> Option<u32> {
        if offset >= self.len {
            return None;
        }
        u32::try_from(offset / self.piece_len).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn piece_length_table() {
        let cases = [
            (0, MIB, 1),
            (1, MIB, 1),
            (MIB, MIB, 1),
            (MIB + 1, MIB, 2),
            (MIB << 16, MIB, 1 << 16),
            ((MIB << 16) + 1, 2 * MIB, (1 << 15) + 1),
            ((MIB << 17) - 1, 2 * MIB, 1 << 16),
            (u64::MAX, 1 << 48, 1 << 16),
        ];
        for (len, piece, count) in cases {
            let pieces = Pieces::of(len);
            assert_eq!(
                (piece_len(len), pieces.piece_len(), pieces.count()),
                (piece, piece, count),
                "length {len}"
            );
        }
    }

    #[test]
    fn an_empty_content_has_one_empty_piece() {
        let pieces = Pieces::of(0);
        assert_eq!((pieces.count(), pieces.range(0), pieces.index_of(0)), (1, 0..0, None));
    }

    proptest! {
        #[test]
        fn piece_length_is_the_smallest_that_fits(len: u64) {
            let piece = piece_len(len);
            prop_assert!(piece.is_power_of_two() && piece >= MIN_PIECE_LEN);
            prop_assert!(len.div_ceil(piece) <= MAX_PIECES);
            prop_assert!(piece == MIN_PIECE_LEN || len.div_ceil(piece / 2) > MAX_PIECES);
        }

        #[test]
        fn pieces_cover_the_content_without_overlap(len: u64, bits in 0u32..64) {
            let pieces = Pieces::of(len >> bits);
            let last = pieces.count() - 1;
            prop_assert_eq!(pieces.range(0).start, 0);
            prop_assert_eq!(pieces.range(last).end, pieces.len());
            prop_assert_eq!(pieces.range(last + 1), pieces.len()..pieces.len());
            prop_assert_eq!(pieces.range(u32::MAX), pieces.len()..pieces.len());
            for index in [0, last / 3, last / 2, last.saturating_sub(1)] {
                if index < last {
                    let range = pieces.range(index);
                    prop_assert_eq!(range.end - range.start, pieces.piece_len());
                    prop_assert_eq!(range.end, pieces.range(index + 1).start);
                    prop_assert_eq!(pieces.index_of(range.start), Some(index));
                    prop_assert_eq!(pieces.index_of(range.end - 1), Some(index));
                }
            }
            prop_assert_eq!(pieces.index_of(pieces.len()), None);
        }
    }
}
