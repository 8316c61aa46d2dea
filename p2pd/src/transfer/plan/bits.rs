//! Sets of pieces that are cut with each other, word by word.

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
        self.words.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, index: u32) {
        if index < self.count && !self.get(index) {
            self.words[(index / 64) as usize] |= 1 << (index % 64);
            self.ones += 1;
        }
    }

    pub(super) fn clear(&mut self, index: u32) {
        if self.get(index) {
            self.words[(index / 64) as usize] &= !(1 << (index % 64));
            self.ones -= 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(nth, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(nth as u32 * 64 + bit)
            })
        })
    }

    /// What both have.
    pub(super) fn and(&self, other: &Self) -> Self {
        let words: Vec<u64> = self.words.iter().zip(&other.words).map(|(one, other)| one & other).collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Self { count: self.count, ones, words }
    }

    /// What this one has and the other lacks.
    pub(super) fn without(&self, other: &Self) -> Self {
        let words: Vec<u64> = self.words.iter().zip(&other.words).map(|(one, other)| one & !other).collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Self { count: self.count, ones, words }
    }

    /// One of what both have, at random: all are equally likely. `pick` gives a random number below its argument.
    pub(super) fn random_common(&self, other: &Self, mut pick: impl FnMut(u32) -> u32) -> Option<u32> {
        if self.is_empty() || other.is_empty() {
            return None;
        }
        let common = || self.words.iter().zip(&other.words).map(|(one, other)| one & other);
        let ones: u32 = common().map(|word| word.count_ones()).sum();
        let mut nth = if ones == 0 { return None } else { pick(ones) };
        for (index, mut word) in common().enumerate() {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_common_one_is_picked_by_its_place(
            count in 1u32..300,
            ones in proptest::collection::vec(0u32..300, 0..200),
            others in proptest::collection::vec(0u32..300, 0..200),
        ) {
            let fill = |numbers: &[u32]| {
                let mut bits = Bits::new(count);
                numbers.iter().for_each(|number| bits.set(*number));
                bits
            };
            let (one, other) = (fill(&ones), fill(&others));
            let common: Vec<u32> = (0..count).filter(|index| one.get(*index) && other.get(*index)).collect();
            prop_assert_eq!(one.and(&other).iter().collect::<Vec<_>>(), common.clone());
            for (nth, index) in common.iter().enumerate() {
                prop_assert_eq!(one.random_common(&other, |below| {
                    assert_eq!(below as usize, common.len());
                    nth as u32
                }), Some(*index));
            }
            if common.is_empty() {
                prop_assert_eq!(one.random_common(&other, |_| 0), None);
            }
        }
    }
}
