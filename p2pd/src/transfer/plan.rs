//! Who is asked for which piece. Pure: events in, requests out; the clock is an argument.
//!
//! The rules. Every source has a window of requests that it may have open; it gets the next pieces in order as its
//! window opens, so that faster sources take more. When nothing is left that nobody was asked for, a source with
//! nothing to do is given what another has had for longest (the end game), so that one slow source does not hold up
//! the end. What a lost source had is given to others. A piece that came out false is asked of somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use p2p_content::Bitmap;

/// A source, as the plan knows it.
pub(super) type SourceKey = u32;

/// Sources that one piece may be asked of at once, in the end game.
const END_GAME: usize = 2;

/// The state of the plan.
#[derive(Debug)]
pub(super) struct Plan {
    /// Pieces that are not here and asked of nobody.
    free: BTreeSet<u32>,
    /// Pieces that somebody was asked for, with whom and since when.
    open: BTreeMap<u32, Vec<(SourceKey, Instant)>>,
    sources: BTreeMap<SourceKey, SourceState>,
    /// By piece: whether it is here, or being proven and written.
    here: Vec<bool>,
}

#[derive(Debug)]
struct SourceState {
    window: usize,
    open: usize,
}

impl Plan {
    /// A plan for the pieces that `here` lacks.
    pub(super) fn new(here: &Bitmap) -> Self {
        let free = here.iter_missing().collect();
        let here = (0..here.count()).map(|piece| here.get(piece)).collect();
        Self { free, open: BTreeMap::new(), sources: BTreeMap::new(), here }
    }

    /// A source that has every piece, and may have `window` requests open.
    pub(super) fn join(&mut self, source: SourceKey, window: usize) {
        self.sources.insert(source, SourceState { window, open: 0 });
    }

    /// The source is gone; what only it was asked for is free again.
    pub(super) fn leave(&mut self, source: SourceKey) {
        self.sources.remove(&source);
        let mut freed = Vec::new();
        self.open.retain(|piece, asked| {
            asked.retain(|(other, _)| *other != source);
            if asked.is_empty() {
                freed.push(*piece);
            }
            !asked.is_empty()
        });
        let here = &self.here;
        self.free.extend(freed.into_iter().filter(|piece| !is_here(here, *piece)));
    }

    /// The pieces to ask of this source now.
    pub(super) fn requests(&mut self, source: SourceKey, now: Instant) -> Vec<u32> {
        let mut pieces = Vec::new();
        while let Some(state) = self.sources.get_mut(&source)
            && state.open < state.window
        {
            let idle = state.open == 0;
            let Some(piece) = self.free.pop_first().or_else(|| self.steal(source, idle)) else { break };
            self.open.entry(piece).or_default().push((source, now));
            if let Some(state) = self.sources.get_mut(&source) {
                state.open += 1;
            }
            pieces.push(piece);
        }
        pieces
    }

    /// The piece that others have had for longest, for a source that has nothing else to do.
    fn steal(&self, source: SourceKey, idle: bool) -> Option<u32> {
        if !idle {
            return None;
        }
        let candidates =
            self.open.iter().filter(|(piece, _)| !is_here(&self.here, **piece)).filter(|(_, asked)| {
                asked.len() < END_GAME && asked.iter().all(|(other, _)| *other != source)
            });
        candidates.min_by_key(|(_, asked)| asked.first().map(|(_, since)| *since)).map(|(piece, _)| *piece)
    }

    /// The source gave the piece. Whether it is still wanted: a second copy is not.
    pub(super) fn arrived(&mut self, source: SourceKey, piece: u32) -> bool {
        if let Some(state) = self.sources.get_mut(&source) {
            state.open = state.open.saturating_sub(1);
        }
        if let Some(asked) = self.open.get_mut(&piece) {
            asked.retain(|(other, _)| *other != source);
            if asked.is_empty() {
                self.open.remove(&piece);
            }
        }
        self.free.remove(&piece);
        self.here.get_mut(piece as usize).is_some_and(|here| !std::mem::replace(here, true))
    }

    /// The piece that had arrived is not kept after all: it is false, or could not be written.
    pub(super) fn lacks(&mut self, piece: u32) {
        if let Some(here) = self.here.get_mut(piece as usize) {
            *here = false;
        }
        if !self.open.contains_key(&piece) {
            self.free.insert(piece);
        }
    }

    /// The keys of all sources.
    pub(super) fn sources(&self) -> Vec<SourceKey> {
        self.sources.keys().copied().collect()
    }
}

fn is_here(here: &[bool], piece: u32) -> bool {
    here.get(piece as usize).is_some_and(|here| *here)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faster_sources_take_more() {
        let (mut plan, now) = (Plan::new(&Bitmap::new(100)), Instant::now());
        plan.join(1, 2);
        plan.join(2, 2);
        let slow = plan.requests(2, now);
        let mut fast = 0;
        let mut asked = plan.requests(1, now);
        while let Some(piece) = asked.pop() {
            fast += usize::from(plan.arrived(1, piece));
            asked.extend(plan.requests(1, now));
        }
        assert_eq!((slow.len(), fast), (2, 100), "the end game takes over what the slow one has");
        assert!(!plan.arrived(2, slow[0]), "the second copy is not wanted");
    }

    #[test]
    fn what_a_lost_source_had_is_given_to_others() {
        let (mut plan, now) = (Plan::new(&Bitmap::new(4)), Instant::now());
        plan.join(1, 4);
        assert_eq!(plan.requests(1, now), [0, 1, 2, 3]);
        plan.leave(1);
        plan.join(2, 2);
        assert_eq!(plan.requests(2, now), [0, 1]);
    }

    #[test]
    fn the_end_game_asks_two_at_the_most_and_the_longest_standing_first() {
        let (mut plan, now) = (Plan::new(&Bitmap::new(2)), Instant::now());
        plan.join(1, 1);
        plan.join(2, 1);
        assert_eq!(plan.requests(1, now), [0]);
        assert_eq!(plan.requests(2, now + Duration::from_secs(1)), [1]);
        plan.join(3, 2);
        assert_eq!(plan.requests(3, now), [0]);
        plan.join(4, 2);
        assert_eq!(plan.requests(4, now), [1]);
        plan.join(5, 2);
        assert!(plan.requests(5, now).is_empty());
    }

    proptest! {
        /// Whatever comes in whatever order, every piece is here in the end, none is asked twice of one source at
        /// once, no window is exceeded, and what is here is not asked again.
        #[test]
        fn ends_whole(
            count in 1u32..40,
            had in proptest::collection::vec(any::<bool>(), 40),
            events in proptest::collection::vec((0u32..4, 0u8..10, any::<proptest::sample::Index>()), 0..400),
        ) {
            let mut held = Bitmap::new(count);
            for piece in (0..count).filter(|piece| had[*piece as usize]) {
                held.set(piece);
            }
            let mut plan = Plan::new(&held);
            let mut open: HashMap<SourceKey, Vec<u32>> = HashMap::new();
            let now = Instant::now();
            // The last source answers everything and never leaves.
            let events = events.into_iter().map(|(source, event, index)| (source, event, Some(index)));
            plan.join(9, 3);
            for (source, event, index) in events.chain((0..count * 4).map(|_| (9, 5, None))) {
                match event {
                    0 if source != 9 && !open.contains_key(&source) => {
                        plan.join(source, 3);
                        open.insert(source, Vec::new());
                    }
                    1 if source != 9 => {
                        plan.leave(source);
                        open.remove(&source);
                    }
                    _ if source == 9 || open.contains_key(&source) => {
                        let asked = open.entry(source).or_default();
                        for piece in plan.requests(source, now) {
                            prop_assert!(!held.get(piece), "piece {piece} is here");
                            prop_assert!(!asked.contains(&piece), "piece {piece} is asked twice of {source}");
                            asked.push(piece);
                        }
                        prop_assert!(asked.len() <= 3);
                        if asked.is_empty() {
                            continue;
                        }
                        let at = index.map_or(0, |index| index.index(asked.len()));
                        let piece = asked.remove(at);
                        if plan.arrived(source, piece) {
                            if event == 2 {
                                plan.lacks(piece);
                            } else {
                                prop_assert!(held.set(piece), "piece {piece} is wanted twice");
                            }
                        }
                    }
                    _ => {}
                }
            }
            prop_assert!(held.is_full());
        }
    }
}
