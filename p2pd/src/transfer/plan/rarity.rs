//! How many sources have each piece, beside those that have all: a number for each piece, in binary, and each of its digits is
//! the set of the pieces that have a 1 there.
//!
//! A source that comes with thousands of pieces is counted by a carry from digit to digit, all pieces at once; and the
//! rarest pieces are found from the highest digit down, each time those that have a 0 there.

use super::bits::{Bits, Uncounted};

/// The numbers.
#[derive(Debug)]
pub(super) struct Rarity {
    /// The lowest first; as many as the highest number has.
    digits: Vec<Uncounted>,
    /// Pieces that were promised to somebody, and that nobody has been seen to have: the promise counts as a holder.
    promised: Bits,
}

impl Rarity {
    /// Nobody has any.
    pub(super) fn new(count: u32) -> Self {
        Self { digits: Vec::new(), promised: Bits::new(count) }
    }

    /// One source more has these.
    pub(super) fn gain(&mut self, pieces: &Bits) {
        // Whom the promise stood for, it is taken to be.
        let new = pieces.without(&self.promised);
        if !self.promised.is_empty() {
            self.promised = self.promised.without(pieces);
        }
        if new.is_empty() {
            return;
        }
        let mut carry = Uncounted::from(new);
        for digit in &mut self.digits {
            if !digit.add(&mut carry) {
                return;
            }
        }
        self.digits.push(carry);
    }

    /// One source less has these.
    pub(super) fn lose(&mut self, pieces: &Bits) {
        let mut borrow = Uncounted::from(pieces.clone());
        for digit in &mut self.digits {
            if !digit.subtract(&mut borrow) {
                return;
            }
        }
    }

    /// One source more has this one.
    pub(super) fn gain_one(&mut self, piece: u32) {
        if !self.promised.clear(piece) {
            self.count_one(piece);
        }
    }

    /// Somebody was promised this one.
    pub(super) fn promise(&mut self, piece: u32) {
        if self.digits.iter().all(|digit| !digit.get(piece)) && self.promised.set(piece) {
            self.count_one(piece);
        }
    }

    fn count_one(&mut self, piece: u32) {
        for digit in &mut self.digits {
            if digit.flip_one(piece) {
                return;
            }
        }
        let mut digit = Bits::new(self.promised.count());
        digit.set(piece);
        self.digits.push(digit.into());
    }

    /// One of the rarest of these, at random: all are equally likely. `pick` gives a random number below its argument.
    pub(super) fn rarest(&self, mut of: Uncounted, pick: impl FnMut(u32) -> u32) -> Option<u32> {
        let mut rarer = of.clone();
        for digit in self.digits.iter().rev() {
            if rarer.become_rest(&of, digit) {
                std::mem::swap(&mut of, &mut rarer);
            }
        }
        of.counted(self.promised.count()).random(pick)
    }

    /// How many sources have this piece, and whether one of them has it only by promise.
    #[cfg(test)]
    pub(super) fn of(&self, piece: u32) -> (usize, bool) {
        let digits = self.digits.iter().enumerate();
        let number = digits.map(|(place, digit)| usize::from(digit.get(piece)) << place).sum();
        (number, self.promised.get(piece))
    }
}
