//! Sets of pieces that are cut with each other, word by word.

use p2p_content::Bitmap;

/// A set of the numbers below a count.
#[derive(Debug, Clone)]
pub(super) struct Bits {
    count: u32,
    ones: u32,
    words: Vec<u64>,
}

impl Bits {
    /// None of them.
    pub(super) fn new(count: u32) -> Self {
        Self { count, ones: 0, words: vec![0; count.div_ceil(64) as usize] }
    }

    /// How many numbers there are, in the set or not.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How many are in the set.
    pub(super) fn len(&self) -> u32 {
        self.ones
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ones == 0
    }

    pub(super) fn get(&self, index: u32) -> bool {
        is_set(&self.words, index)
    }

    /// Puts it in; whether it was not in before. What is no number of the set is left out.
    pub(super) fn set(&mut self, index: u32) -> bool {
        let is_new = index < self.count && !self.get(index);
        if is_new {
            self.words[(index / 64) as usize] |= 1 << (index % 64);
            self.ones += 1;
        }
        is_new
    }

    /// Takes it out; whether it was in.
    pub(super) fn clear(&mut self, index: u32) -> bool {
        let is_in = self.get(index);
        if is_in {
            self.words[(index / 64) as usize] &= !(1 << (index % 64));
            self.ones -= 1;
        }
        is_in
    }

    /// Takes out those of the other that are in, and puts in the rest.
    pub(super) fn flip(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word ^= other);
        self.ones = ones(&self.words);
    }

    /// What both have.
    pub(super) fn and(&self, other: &Self) -> Uncounted {
        Uncounted(self.words.iter().zip(&other.words).map(|(one, other)| one & other).collect())
    }

    /// What this one has and the other lacks.
    pub(super) fn without(&self, other: &Self) -> Self {
        let words: Vec<u64> = self.words.iter().zip(&other.words).map(|(one, other)| one & !other).collect();
        Self { count: self.count, ones: ones(&words), words }
    }

    /// One of them at random: all are equally likely. `pick` gives a random number below its argument.
    pub(super) fn random(&self, mut pick: impl FnMut(u32) -> u32) -> Option<u32> {
        let mut nth = if self.is_empty() { return None } else { pick(self.ones) };
        for (index, mut word) in self.words.iter().copied().enumerate() {
            if nth >= word.count_ones() {
                nth -= word.count_ones();
                continue;
            }
            for _ in 0..nth {
                word &= word - 1;
            }
            return Some(index as u32 * 64 + word.trailing_zeros());
        }
        None
    }
}

/// A set of which is not known how many are in it, so that it is cut and changed without counting.
#[derive(Debug, Clone)]
pub(super) struct Uncounted(Vec<u64>);

impl Uncounted {
    pub(super) fn get(&self, index: u32) -> bool {
        is_set(&self.0, index)
    }

    /// Takes it out where it is in, and puts it in where it is not; whether it is in now.
    pub(super) fn flip_one(&mut self, index: u32) -> bool {
        if let Some(word) = self.0.get_mut((index / 64) as usize) {
            *word ^= 1 << (index % 64);
        }
        self.get(index)
    }

    /// Takes out those of `carry` that are in, and puts in the rest. `carry` becomes what was taken out; whether that is anything.
    pub(super) fn add(&mut self, carry: &mut Self) -> bool {
        let mut left = 0;
        for (word, carry) in self.0.iter_mut().zip(&mut carry.0) {
            let both = *word & *carry;
            *word ^= *carry;
            *carry = both;
            left |= both;
        }
        left != 0
    }

    /// Takes out those of `borrow` that are in, and puts in the rest. `borrow` becomes what was put in; whether that is anything.
    pub(super) fn subtract(&mut self, borrow: &mut Self) -> bool {
        let mut left = 0;
        for (word, borrow) in self.0.iter_mut().zip(&mut borrow.0) {
            *word ^= *borrow;
            *borrow &= *word;
            left |= *borrow;
        }
        left != 0
    }

    /// Becomes what the one has and the other lacks; whether that is anything.
    pub(super) fn become_rest(&mut self, one: &Self, other: &Self) -> bool {
        let mut left = 0;
        for (word, (one, other)) in self.0.iter_mut().zip(one.0.iter().zip(&other.0)) {
            *word = one & !other;
            left |= *word;
        }
        left != 0
    }

    /// Of numbers below a count.
    pub(super) fn counted(self, count: u32) -> Bits {
        Bits { count, ones: ones(&self.0), words: self.0 }
    }
}

impl From<Bits> for Uncounted {
    fn from(bits: Bits) -> Self {
        Self(bits.words)
    }
}

fn is_set(words: &[u64], index: u32) -> bool {
    words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
}

fn ones(words: &[u64]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

impl From<&Bitmap> for Bits {
    fn from(pieces: &Bitmap) -> Self {
        Self { count: pieces.count(), ones: pieces.count_ones(), words: pieces.words().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_are_cut_and_flipped_and_each_one_is_picked_by_its_place(
            count in 1u32..300,
            ones in proptest::collection::vec(0u32..300, 0..200),
            others in proptest::collection::vec(0u32..300, 0..200),
        ) {
            let fill = |numbers: &[u32]| {
                let mut bits = Bits::new(count);
                for number in numbers {
                    let is_new = *number < count && !bits.get(*number);
                    assert_eq!(bits.set(*number), is_new);
                }
                bits
            };
            let (one, other) = (fill(&ones), fill(&others));
            let mut flipped = one.clone();
            flipped.flip(&other);
            let (common, rest) = (one.and(&other).counted(count), one.without(&other));
            let uncounted = |bits: &Bits| Uncounted::from(bits.clone());
            let (mut added, mut carry) = (uncounted(&one), uncounted(&other));
            prop_assert_eq!(added.add(&mut carry), !common.is_empty());
            let (mut less, mut borrow) = (uncounted(&one), uncounted(&other));
            prop_assert_eq!(less.subtract(&mut borrow), !other.without(&one).is_empty());
            let mut left = uncounted(&other);
            prop_assert_eq!(left.become_rest(&uncounted(&one), &uncounted(&other)), !rest.is_empty());
            let [added, carry, less, borrow, left] =
                [added, carry, less, borrow, left].map(|bits| bits.counted(count));
            let those = |is_so: fn(bool, bool) -> bool| -> Vec<u32> {
                (0..count).filter(|index| is_so(one.get(*index), other.get(*index))).collect()
            };
            for (bits, members) in [
                (&common, those(|one, other| one && other)),
                (&rest, those(|one, other| one && !other)),
                (&flipped, those(|one, other| one != other)),
                (&added, those(|one, other| one != other)),
                (&carry, those(|one, other| one && other)),
                (&less, those(|one, other| one != other)),
                (&borrow, those(|one, other| !one && other)),
                (&left, those(|one, other| one && !other)),
            ] {
                let found = (0..count).filter(|index| bits.get(*index));
                prop_assert_eq!(found.collect::<Vec<_>>(), members.clone());
                prop_assert_eq!(bits.len() as usize, members.len());
                for (nth, index) in members.iter().enumerate() {
                    prop_assert_eq!(bits.random(|below| {
                        assert_eq!(below as usize, members.len());
                        nth as u32
                    }), Some(*index));
                }
                if members.is_empty() {
                    prop_assert_eq!(bits.random(|_| 0), None);
                }
            }
        }
    }
}
