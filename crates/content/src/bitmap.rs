//! Which pieces of a content are held.

use std::fmt;

/// A set of pieces of one content, numbered from 0 up to a fixed count.
///
/// On the wire and on disk it's one bit per piece: piece `i` is bit `i % 8` of byte `i / 8`, counted from the least
/// significant, and the bits after the last piece are 0. With at most [`MAX_PIECES`](crate::MAX_PIECES) pieces that is
/// 8 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    count: u32,
    ones: u32,
    /// Bits at and after `count` are always 0, so that equality and `to_bytes` need no masks.
    words: Vec<u64>,
}

impl Bitmap {
    /// None of `count` pieces. It allocates `count` bits: take `count` from [`Pieces`](crate::Pieces), which bounds it.
    pub fn new(count: u32) -> Bitmap {
        Bitmap { count, ones: 0, words: vec![0; count.div_ceil(64) as usize] }
    }

    /// All of `count` pieces: what a whole source has.
    pub fn full(count: u32) -> Bitmap {
        let mut words = vec![u64::MAX; count.div_ceil(64) as usize];
        if let (Some(last), used @ 1..) = (words.last_mut(), count % 64) {
            *last = (1 << used) - 1;
        }
        Bitmap { count, ones: count, words }
    }

    /// Reads what [`to_bytes`](Bitmap::to_bytes) wrote for `count` pieces. It allocates no more than `bytes` is long.
    ///
    /// # Errors
    ///
    /// [`BitmapError::WrongSize`] if `bytes` has another length than `count` calls for, [`BitmapError::StrayBit`] if a
    /// bit after the last piece is set.
    pub fn from_bytes(count: u32, bytes: &[u8]) -> Result<Bitmap, BitmapError> {
        let expected = count.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitmapError::WrongSize { expected, found: bytes.len() });
        }
        if let (Some(last), used @ 1..) = (bytes.last(), count % 8)
            && last >> used != 0
        {
            return Err(BitmapError::StrayBit { count });
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
            .collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Ok(Bitmap { count, ones, words })
    }

    /// One bit per piece, as the type's documentation lays them out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.count.div_ceil(8) as usize);
        bytes
    }

    /// One bit per piece: piece `i` is bit `i % 64` of word `i / 64`, counted from the least significant. The bits after the
    /// last piece are 0.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many pieces there are, held or not.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many pieces are held. It's kept, not counted.
    pub fn count_ones(&self) -> u32 {
        self.ones
    }

    /// Whether all pieces are held.
    pub fn is_full(&self) -> bool {
        self.ones == self.count
    }

    /// Whether piece `index` is held. `false` if there is no such piece.
    pub fn get(&self, index: u32) -> bool {
        self.words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Marks piece `index` as held, and says whether it's new. If there is no such piece, nothing changes and the answer
    /// is `false`.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.count || self.get(index) {
            return false;
        }
        self.words[(index / 64) as usize] |= 1 << (index % 64);
        self.ones += 1;
        true
    }

    /// The pieces that are held, in ascending order.
    pub fn iter_ones(&self) -> impl Iterator<Item = u32> + '_ {
        ones_of(self.words.iter().copied())
    }

    /// The pieces that are not held, in ascending order.
    pub fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        ones_of(self.words.iter().map(|word| !word)).take_while(|index| *index < self.count)
    }
}

/// Word by word, so that a walk costs what it yields: the planner does one per decision.
fn ones_of(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.enumerate().flat_map(|(nth, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(nth as u32 * 64 + bit)
        })
    })
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counts, since 65 536 bits would drown a log line.
        write!(f, "Bitmap({}/{})", self.ones, self.count)
    }
}

/// Why bytes aren't a [`Bitmap`] of so many pieces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitmapError {
    /// The bytes are too few or too many.
    #[error("the bitmap of this content is {expected} bytes long and this is {found}")]
    WrongSize {
        /// The bytes that this many pieces need.
        expected: usize,
        /// The bytes that were given.
        found: usize,
    },
    /// A bit after the last piece is set: it was made for another content, or it's damaged.
    #[error("the bitmap has pieces after the last of {count}")]
    StrayBit {
        /// How many pieces there are.
        count: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_against(model: &[bool], bitmap: &Bitmap) -> Result<(), TestCaseError> {
        let indices =
            |held| (0..model.len() as u32).filter(move |i| model[*i as usize] == held).collect::<Vec<_>>();
        prop_assert_eq!(bitmap.count() as usize, model.len());
        prop_assert_eq!(bitmap.count_ones() as usize, indices(true).len());
        prop_assert_eq!(bitmap.is_full(), indices(false).is_empty());
        prop_assert_eq!(bitmap.iter_ones().collect::<Vec<_>>(), indices(true));
        prop_assert_eq!(bitmap.iter_missing().collect::<Vec<_>>(), indices(false));
        for index in 0..model.len() as u32 + 70 {
            prop_assert_eq!(bitmap.get(index), model.get(index as usize).copied().unwrap_or(false));
            let word = bitmap.words().get((index / 64) as usize).copied().unwrap_or_default();
            prop_assert_eq!(word >> (index % 64) & 1 == 1, bitmap.get(index));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_a_vec_of_bool(count in 0u32..300, sets in prop::collection::vec(0u32..400, 0..300)) {
            let mut model = vec![false; count as usize];
            let mut bitmap = Bitmap::new(count);
            for index in sets {
                let new = model.get_mut(index as usize).is_some_and(|held| !std::mem::replace(held, true));
                prop_assert_eq!(bitmap.set(index), new);
            }
            check_against(&model, &bitmap)?;
            let bytes = bitmap.to_bytes();
            for (index, held) in model.iter().enumerate() {
                prop_assert_eq!(bytes[index / 8] >> (index % 8) & 1 == 1, *held);
            }
            let read = Bitmap::from_bytes(count, &bytes).unwrap();
            check_against(&model, &read)?;
            prop_assert_eq!(read, bitmap);
        }

        #[test]
        fn full_is_every_piece_set(count in 0u32..300) {
            let full = Bitmap::full(count);
            check_against(&vec![true; count as usize], &full)?;
            let mut filled = Bitmap::new(count);
            for index in 0..count {
                filled.set(index);
            }
            prop_assert_eq!(filled, full);
        }

        #[test]
        fn every_stray_bit_is_refused(count in 1u32..300, past in 0u32..7) {
            let bytes_len = count.div_ceil(8);
            let stray = count + past;
            prop_assume!(stray < bytes_len * 8);
            let mut bytes = Bitmap::new(count).to_bytes();
            bytes[(stray / 8) as usize] |= 1 << (stray % 8);
            prop_assert_eq!(Bitmap::from_bytes(count, &bytes), Err(BitmapError::StrayBit { count }));
        }
    }

    #[test]
    fn a_wrong_size_is_refused() {
        for (count, len, expected) in [(0, 1, 0), (1, 0, 1), (8, 2, 1), (9, 1, 2), (65536, 8191, 8192)] {
            let error = BitmapError::WrongSize { expected, found: len };
            assert_eq!(Bitmap::from_bytes(count, &vec![0; len]), Err(error));
        }
    }

    #[test]
    fn shows_counts_and_not_bits() {
        let mut bitmap = Bitmap::new(10);
        bitmap.set(3);
        assert_eq!(format!("{bitmap:?}"), "Bitmap(1/10)");
    }
}
