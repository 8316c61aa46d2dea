//! Who is asked for which piece. Pure: events in, requests out; clock and randomness are arguments.
//!
//! The rules, and what each is for:
//!
//! 1. **Rarest first**, at random among equals. When many fetch at once, everybody wants other pieces from the seed, and
//!    everybody soon has something to give. A piece that the seed has *promised* to another fetcher counts as if that one
//!    had it already: so the seed sends no piece twice before all have gone out once.
//! 2. **A window per source**, of as much as it gives in [`HORIZON`], or in [`TRIPS`] round trips where those are longer:
//!    enough to keep a long link full, and no more than can be waited for when it turns slow.
//! 3. **Work is stolen** from slow and silent sources: a source that has nothing else to do is given the piece that will
//!    take longest elsewhere, if it would be [much faster](SOONER): of what is asked of two, most of one copy comes for
//!    nothing, and takes the link of those that do not. This is the end game too; a piece is asked of two at the most,
//!    and whoever comes second is told to leave it.
//! 4. **Near sources are asked first**, before those whose bytes take links that others need: they come first in
//!    [`Plan::sources`], and take the last pieces from those that are farther.
//! 5. What a lost source was asked for is free again. A piece that came out false is asked of somebody else.
//!
//! An event costs a few walks over bitmaps: 10,000 pieces are 157 words.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use p2p_content::Bitmap;

mod bits;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod distance;
mod pace;
mod rarity;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use bits::Bits;
use pace::Pace;
use rarity::Rarity;

/// A source, as the plan knows it.
pub(super) type SourceKey = u32;

/// How much a source is asked for ahead: as much as it gives in this time, and in no fewer round trips. One alone would be as
/// much as it gives already; with two, whoever could give more is asked for it, up to twice as much each time.
const HORIZON: Duration = Duration::from_millis(300);
const TRIPS: u32 = 2;
/// Requests that a source has open at the least, so that it never waits for the next one; and at the most, as the
/// serving side queues no more.
const WINDOW: std::ops::RangeInclusive<usize> = 2..=64;
/// How many times as long a piece must take where it was asked for as where it is to be taken over: at the end, when nothing
/// else is left to ask for, and before. Among equals, who are each other's sources, everybody is short of new pieces now
/// and then; what they would take from each other is about to come.
const SOONER: u32 = 2;
const SOONER_BEFORE_THE_END: u32 = 4;
/// Sources that one piece may be asked of at once; one more for each time that this has passed since the last was.
const COPIES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);

/// The state of the plan.
#[derive(Debug)]
pub(super) struct Plan {
    /// Pieces that are not here, not arriving, and asked of nobody.
    free: Bits,
    /// Pieces that are here, or being proven and written.
    here: Bits,
    /// Pieces that somebody was asked for.
    open: BTreeMap<u32, Vec<Asked>>,
    sources: BTreeMap<SourceKey, Source>,
    rarity: Rarity,
    /// The longest that anybody needs now for a piece that one more may be asked for, until something changes: at the end most
    /// sources look for work, and there is none.
    longest: Option<(Instant, Option<Duration>)>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    source: SourceKey,
    since: Instant,
}

#[derive(Debug)]
struct Source {
    has: Has,
    /// Those of a lower rank are preferred.
    rank: u8,
    /// What it was asked for and has not given, in the order in which it was asked.
    queue: Vec<u32>,
    pace: Pace,
}

/// What a source can give.
#[derive(Debug)]
enum Has {
    All,
    Some(Bits),
}

impl Has {
    fn get(&self, piece: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits.get(piece),
        }
    }
}

/// What became of a piece that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was lacking.
    Wanted,
    /// It is a second copy.
    Unwanted,
}

impl Plan {
    /// A plan for the pieces that `here` lacks.
    pub(super) fn new(here: &Bitmap) -> Self {
        let (count, here) = (here.count(), Bits::from(here));
        let free = Bits::from(&Bitmap::full(count)).without(&here);
        let (open, sources, rarity) = (BTreeMap::new(), BTreeMap::new(), Rarity::new(count));
        Self { free, here, open, sources, rarity, longest: None }
    }

    /// A source of which nothing else is known yet.
    pub(super) fn join(&mut self, source: SourceKey) {
        let has = Has::Some(Bits::new(self.free.count()));
        self.sources.insert(source, Source { has, rank: u8::MAX, queue: Vec::new(), pace: Pace::default() });
    }

    /// The source is preferred to those of a higher rank.
    pub(super) fn prefer(&mut self, source: SourceKey, rank: u8) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.rank = rank;
        }
    }

    /// It takes so long until something can come of the source that it is asked for: there and back.
    pub(super) fn is_away(&mut self, source: SourceKey, round_trip: Duration) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.pace.is_away(round_trip);
        }
    }

    /// The source has every piece.
    pub(super) fn has_all(&mut self, source: SourceKey) {
        if let Some(state) = self.sources.get_mut(&source)
            && let Has::Some(bits) = std::mem::replace(&mut state.has, Has::All)
        {
            self.rarity.lose(&bits);
        }
    }

    /// The source has these pieces too, however many they are.
    pub(super) fn has(&mut self, source: SourceKey, pieces: &Bitmap) {
        if let Some(Source { has: Has::Some(bits), .. }) = self.sources.get_mut(&source) {
            let new = Bits::from(pieces).without(bits);
            bits.flip(&new);
            self.rarity.gain(&new);
        }
    }

    /// The source has these few pieces too.
    pub(super) fn gained(&mut self, source: SourceKey, pieces: impl IntoIterator<Item = u32>) {
        if let Some(Source { has: Has::Some(bits), .. }) = self.sources.get_mut(&source) {
            for piece in pieces {
                if bits.set(piece) {
                    self.rarity.gain_one(piece);
                }
            }
        }
    }

    /// Somebody who serves others was promised this piece, and will have it soon.
    pub(super) fn promised(&mut self, piece: u32) {
        self.rarity.promise(piece);
    }

    /// The source is gone; what only it was asked for is free again.
    pub(super) fn leave(&mut self, source: SourceKey) {
        self.longest = None;
        let Some(state) = self.sources.remove(&source) else { return };
        if let Has::Some(bits) = &state.has {
            self.rarity.lose(bits);
        }
        for piece in state.queue {
            self.closed(source, piece);
            if !self.here.get(piece) && !self.open.contains_key(&piece) {
                self.free.set(piece);
            }
        }
    }

    /// The pieces to ask of this source now. `pick` gives a random number below its argument.
    pub(super) fn requests(
        &mut self,
        source: SourceKey,
        now: Instant,
        mut pick: impl FnMut(u32) -> u32,
    ) -> Vec<u32> {
        let mut pieces = Vec::new();
        while let Some(state) = self.sources.get(&source)
            && state.queue.len() < state.pace.window()
        {
            let next = match self.rarest(&state.has, &mut pick) {
                // More than one at a time would only be taken from each other.
                None if state.queue.is_empty() => self.taken_over(source, now),
                found => found,
            };
            let Some(piece) = next else { break };
            self.longest = None;
            self.free.clear(piece);
            self.open.entry(piece).or_default().push(Asked { source, since: now });
            if let Some(state) = self.sources.get_mut(&source) {
                state.queue.push(piece);
                state.pace.asked(now);
            }
            pieces.push(piece);
        }
        pieces
    }

    fn rarest(&self, has: &Has, pick: impl FnMut(u32) -> u32) -> Option<u32> {
        if self.free.is_empty() {
            return None;
        }
        match has {
            Has::All => self.rarity.rarest(self.free.clone().into(), pick),
            Has::Some(bits) => self.rarity.rarest(self.free.and(bits), pick),
        }
    }

    /// The piece that will take longest where it was asked for, if this source would be much faster.
    fn taken_over(&mut self, thief: SourceKey, now: Instant) -> Option<u32> {
        let longest = match self.longest {
            Some((then, longest)) if then == now => longest,
            _ => self.late(now, Duration::ZERO, |_| true).map(|(left, _)| left),
        };
        self.longest = Some((now, longest));
        let state = self.sources.get(&thief)?;
        let own = state.pace.alone() * if self.is_end_game() { SOONER } else { SOONER_BEFORE_THE_END };
        if longest? <= own {
            return None;
        }
        let is_new = |piece| {
            let asked = self.open.get(&piece).map(Vec::as_slice).unwrap_or_default();
            state.has.get(piece) && asked.iter().all(|asked| asked.source != thief)
        };
        self.late(now, own, is_new).map(|(_, piece)| piece)
    }

    /// Of the pieces that one more may be asked for, and that take longer than this, the one that takes longest, and how long.
    fn late(&self, now: Instant, than: Duration, is_one: impl Fn(u32) -> bool) -> Option<(Duration, u32)> {
        let mut latest: Option<(Duration, u32)> = None;
        for owner in self.sources.values() {
            // Who comes earlier in a queue takes less long.
            for (before, piece) in owner.queue.iter().enumerate().rev() {
                let place = u32::try_from(before + 1).unwrap_or(u32::MAX);
                let late = (owner.pace.left(place, now), *piece);
                if late.0 <= than || latest.is_some_and(|latest| late <= latest) {
                    break;
                }
                if self.may_copy(*piece, now) && is_one(*piece) {
                    latest = Some(late);
                    break;
                }
            }
        }
        latest
    }

    /// Whether one more may be asked for a piece that others were asked for.
    fn may_copy(&self, piece: u32, now: Instant) -> bool {
        let asked = self.open.get(&piece).map(Vec::as_slice).unwrap_or_default();
        let last = asked.iter().map(|asked| asked.since).max();
        let is_overdue = last.is_some_and(|last| now.saturating_duration_since(last) >= PATIENCE);
        !self.here.get(piece) && (asked.len() < COPIES || is_overdue)
    }

    /// The source gave the piece.
    pub(super) fn arrived(&mut self, source: SourceKey, piece: u32, now: Instant) -> Arrival {
        self.longest = None;
        if let Some(asked) = self.closed(source, piece)
            && let Some(state) = self.sources.get_mut(&source)
            && let Some(place) = state.queue.iter().position(|asked| *asked == piece)
        {
            state.queue.remove(place);
            state.pace.arrived(asked, now);
        }
        self.free.clear(piece);
        if piece >= self.here.count() || self.here.get(piece) {
            return Arrival::Unwanted;
        }
        self.here.set(piece);
        Arrival::Wanted
    }

    /// Those who were asked for the piece too, and need not give it any more.
    pub(super) fn others(&self, piece: u32) -> Vec<SourceKey> {
        let asked = self.open.get(&piece).map(Vec::as_slice).unwrap_or_default();
        asked.iter().map(|asked| asked.source).collect()
    }

    /// The source was told to leave the piece, and has not given it.
    pub(super) fn withdrawn(&mut self, source: SourceKey, piece: u32) {
        self.longest = None;
        if let Some(state) = self.sources.get_mut(&source)
            && let Some(place) = state.queue.iter().position(|asked| *asked == piece)
        {
            state.queue.remove(place);
            state.pace.withdrawn();
        }
        self.closed(source, piece);
        // What had come of somebody else may have been false meanwhile.
        if piece < self.here.count() && !self.here.get(piece) && !self.open.contains_key(&piece) {
            self.free.set(piece);
        }
    }

    /// Nothing more is expected of the source for this piece. Since when it was, where it was.
    fn closed(&mut self, source: SourceKey, piece: u32) -> Option<Instant> {
        let asked = self.open.get_mut(&piece)?;
        let place = asked.iter().position(|asked| asked.source == source)?;
        let Asked { since, .. } = asked.remove(place);
        if asked.is_empty() {
            self.open.remove(&piece);
        }
        Some(since)
    }

    /// The piece that had arrived is not kept after all: it is false, or could not be written.
    pub(super) fn lacks(&mut self, piece: u32) {
        self.longest = None;
        self.here.clear(piece);
        if piece < self.here.count() && !self.open.contains_key(&piece) {
            self.free.set(piece);
        }
    }

    /// The keys of all sources, those that are preferred first: what is left, and what can be taken from others, is
    /// asked of them before the rest.
    pub(super) fn sources(&self) -> Vec<SourceKey> {
        let mut ranked: Vec<(u8, SourceKey)> =
            self.sources.iter().map(|(key, source)| (source.rank, *key)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, key)| key).collect()
    }

    /// The source that will take longest for its next piece.
    pub(super) fn last(&self, now: Instant) -> Option<SourceKey> {
        let left = |(key, source): (&SourceKey, &Source)| (source.pace.left(1, now), *key);
        self.sources.iter().map(left).max().map(|(_, key)| key)
    }

    /// Whether everything that is missing is asked for: what is left to do is to take work from each other.
    pub(super) fn is_end_game(&self) -> bool {
        self.free.is_empty()
    }

    /// Pieces that are missing, asked of nobody, and had by no source.
    pub(super) fn rare(&self) -> u32 {
        let mut nobodys = self.free.clone();
        for source in self.sources.values() {
            match &source.has {
                Has::All => return 0,
                Has::Some(bits) => nobodys = nobodys.without(bits),
            }
        }
        nobodys.len()
    }

    /// Requests that the source has open.
    pub(super) fn open(&self, source: SourceKey) -> usize {
        self.sources.get(&source).map_or(0, |source| source.queue.len())
    }

    /// Whether nobody is asked for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}
