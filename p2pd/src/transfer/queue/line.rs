//! The line of transfers. Pure: who enters and leaves in, whose turn it is out.
//!
//! 1. Higher priority goes first, and among equals the older transfer, which is the one with the lower number.
//! 2. Where one waits that has a higher priority than one that runs, the last of those that run is asked to yield. What
//!    runs is never asked to yield to an equal.
//! 3. A turn that was asked back counts until it is given back: never do more run than may.
//! 4. Who got nothing from its last run waits without displacing anybody, until it is told to: a transfer of high priority
//!    that nobody has anything for would interrupt the others again and again.

//!
//! A change costs as much as the logarithm of how many stand in line, and tells whose turn it changed. Where all of them
//! stand is told in one go, and only then costs as much as they are many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use p2p_proto::control::Priority;

/// Who goes before whom: by priority, then age.
type Rank = (Reverse<Priority>, u64);

/// The line.
#[derive(Debug)]
pub(super) struct Line {
    running: usize,
    entries: BTreeMap<u64, Entry>,
    /// Those that have their turn, or are to give it back.
    having: BTreeSet<Rank>,
    waiting: BTreeSet<Rank>,
    /// Of those that wait, those for which others are asked to yield.
    displacing: BTreeSet<Rank>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    priority: Priority,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { displaces: bool },
    Running,
    Yielding { to: Option<u64> },
}

/// Where a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Standing {
    /// Others are before it.
    Waiting(Place),
    /// It is its turn.
    Running,
    /// It is to give its turn back.
    Yielding {
        /// To this transfer; `None` where fewer may run than did.
        to: Option<u64>,
    },
}

/// A place among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Place {
    /// 1 for the next one.
    pub(in super::super) place: u64,
    /// Who is right before it: the one that waits before it, or the last of those that run.
    pub(in super::super) behind: u64,
    /// Whether that one goes first because of its priority.
    pub(in super::super) by_priority: bool,
    /// How many may run at once.
    pub(in super::super) running: usize,
}

impl Line {
    /// One in which so many run at once, at least one.
    pub(super) fn of(running: usize) -> Self {
        Self {
            running: running.max(1),
            entries: BTreeMap::new(),
            having: BTreeSet::new(),
            waiting: BTreeSet::new(),
            displacing: BTreeSet::new(),
        }
    }

    /// A transfer wants its turn. Whose turn begins, or is asked back, by that; so it is with all changes.
    pub(super) fn enter(&mut self, id: u64, priority: Priority, displaces: bool) -> Vec<u64> {
        self.put(id, Entry { priority, state: State::Waiting { displaces } });
        self.settle()
    }

    /// It waits no more, or gives its turn back.
    pub(super) fn leave(&mut self, id: u64) -> Vec<u64> {
        self.take(id);
        self.settle()
    }

    /// Where it waits, one of lower priority is asked to yield for it from now on.
    pub(super) fn displace(&mut self, id: u64) -> Vec<u64> {
        if let Some(entry @ Entry { state: State::Waiting { .. }, .. }) = self.entries.get(&id).copied() {
            self.put(id, Entry { state: State::Waiting { displaces: true }, ..entry });
        }
        self.settle()
    }

    /// It has another priority.
    pub(super) fn prioritize(&mut self, id: u64, priority: Priority) -> Vec<u64> {
        if let Some(entry) = self.take(id) {
            self.put(id, Entry { priority, ..entry });
        }
        self.settle()
    }

    /// So many run at once now.
    pub(super) fn set_running(&mut self, running: usize) -> Vec<u64> {
        self.running = running.max(1);
        self.settle()
    }

    /// Where this one stands.
    pub(super) fn standing(&self, id: u64) -> Standing {
        let Some(entry) = self.entries.get(&id) else { return Standing::Running };
        let rank = (Reverse(entry.priority), id);
        match self.waiting.last() == Some(&rank) {
            true => self.stands(rank, self.waiting.len()),
            false => self.stands(rank, self.waiting.range(..=rank).count()),
        }
    }

    /// Where all of them stand, in the order of the line: those that have or had their turn before those that wait.
    pub(super) fn standings(&self) -> impl Iterator<Item = (u64, Standing)> {
        let having = self.having.iter().map(|rank| (rank, 0));
        let all = having.chain(self.waiting.iter().zip(1..));
        all.map(|(rank, place)| (rank.1, self.stands(*rank, place)))
    }

    fn stands(&self, rank: Rank, place: usize) -> Standing {
        let Some(Entry { priority, state }) = self.entries.get(&rank.1).copied() else {
            return Standing::Running;
        };
        match state {
            State::Running => Standing::Running,
            State::Yielding { to } => Standing::Yielding { to },
            State::Waiting { .. } => {
                let ahead = self.waiting.range(..rank).next_back().or_else(|| self.having.last());
                let (Reverse(its), behind) = ahead.copied().unwrap_or(rank);
                Standing::Waiting(Place {
                    place: place as u64,
                    behind,
                    by_priority: its > priority,
                    running: self.running,
                })
            }
        }
    }

    fn put(&mut self, id: u64, entry: Entry) {
        self.take(id);
        let rank = (Reverse(entry.priority), id);
        match entry.state {
            State::Waiting { displaces } => {
                self.waiting.insert(rank);
                if displaces {
                    self.displacing.insert(rank);
                }
            }
            State::Running | State::Yielding { .. } => {
                self.having.insert(rank);
            }
        }
        self.entries.insert(id, entry);
    }

    fn take(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let rank = (Reverse(entry.priority), id);
        for set in [&mut self.having, &mut self.waiting, &mut self.displacing] {
            set.remove(&rank);
        }
        Some(entry)
    }

    fn set(&mut self, id: u64, state: State) {
        if let Some(entry) = self.entries.get(&id).copied() {
            self.put(id, Entry { state, ..entry });
        }
    }

    /// Gives turns out, and asks them back. Whose.
    fn settle(&mut self) -> Vec<u64> {
        let mut changed = Vec::new();
        while self.having.len() < self.running
            && let Some((_, id)) = self.waiting.first().copied()
        {
            self.set(id, State::Running);
            changed.push(id);
        }
        // Who yields is on its way out: its turn is one that somebody gets. More than may run never displace anybody.
        let is_running = |id: &u64| self.entries.get(id).is_some_and(|entry| entry.state == State::Running);
        let runs = self.having.iter().filter(|(_, id)| is_running(id)).map(|(rank, id)| (*rank, false, *id));
        let displaces = self.displacing.iter().take(self.running).map(|(rank, id)| (*rank, true, *id));
        let mut wanted: Vec<_> = runs.chain(displaces).collect();
        wanted.sort_unstable();
        let first = self.displacing.first().copied();
        for (Reverse(priority), displaces, id) in wanted.into_iter().skip(self.running) {
            if !displaces {
                let to = first.filter(|(Reverse(other), _)| *other > priority).map(|(_, to)| to);
                self.set(id, State::Yielding { to });
                changed.push(id);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use p2p_proto::control::Priority::{High, Low, Normal};
    use proptest::prelude::*;

    use super::*;

    fn running(line: &Line) -> Vec<u64> {
        let runs = |(id, standing)| (standing == Standing::Running).then_some(id);
        line.standings().filter_map(runs).collect()
    }

    fn waiting(line: &Line) -> Vec<(u64, u64)> {
        let waits = |(id, standing)| match standing {
            Standing::Waiting(place) => Some((id, place.place)),
            _ => None,
        };
        line.standings().filter_map(waits).collect()
    }

    #[test]
    fn higher_priority_goes_first_and_then_age() {
        let mut line = Line::of(1);
        line.enter(1, High, true);
        for (id, priority) in [(5, Normal), (2, Low), (4, Normal), (3, High)] {
            line.enter(id, priority, true);
        }
        assert_eq!(waiting(&line), [(3, 1), (4, 2), (5, 3), (2, 4)]);
        for next in [3, 4, 5, 2] {
            line.leave(running(&line)[0]);
            assert_eq!(running(&line), [next]);
        }
    }

    #[test]
    fn the_last_of_those_that_run_yields_and_no_more_run_meanwhile() {
        let mut line = Line::of(2);
        line.enter(1, Normal, true);
        line.enter(2, Low, true);
        line.enter(3, Normal, true);
        assert_eq!(line.standing(2), Standing::Yielding { to: Some(3) });
        assert_eq!(running(&line), [1]);
        assert!(
            matches!(line.standing(3), Standing::Waiting(Place { place: 1, .. })),
            "until it is given back"
        );
        line.enter(4, Normal, true);
        assert_eq!(running(&line), [1], "an equal is not displaced");
        let mut equals = Line::of(1);
        equals.enter(2, Normal, true);
        equals.enter(1, Normal, true);
        assert_eq!(running(&equals), [2], "nor is it by an older one");
        line.leave(2);
        assert_eq!(running(&line), [1, 3]);
        line.enter(2, Low, true);
        assert_eq!(waiting(&line), [(4, 1), (2, 2)]);
    }

    #[test]
    fn each_that_waits_displaces_one() {
        let mut line = Line::of(3);
        (1..=3).for_each(|id| drop(line.enter(id, Low, true)));
        line.enter(4, High, true);
        assert_eq!(running(&line), [1, 2], "the youngest yields");
        line.enter(5, High, true);
        assert_eq!(running(&line), [1]);
        line.enter(6, High, true);
        line.enter(7, High, true);
        assert_eq!(running(&line), [0; 0]);
    }

    #[test]
    fn who_got_nothing_displaces_nobody_until_it_is_told_to() {
        let mut line = Line::of(1);
        line.enter(1, Low, true);
        line.enter(2, High, false);
        assert_eq!(running(&line), [1]);
        line.displace(2);
        assert_eq!(line.standing(1), Standing::Yielding { to: Some(2) });
    }

    #[test]
    fn a_priority_that_changes_counts_at_once() {
        let mut line = Line::of(1);
        assert_eq!(line.enter(1, Normal, true), [1]);
        assert_eq!(line.enter(2, Normal, true), [0; 0]);
        assert_eq!(line.prioritize(2, High), [1], "whose turn it changes is told");
        assert_eq!(line.standing(1), Standing::Yielding { to: Some(2) });
        let mut line = Line::of(1);
        line.enter(1, Normal, true);
        line.enter(2, Normal, true);
        line.prioritize(1, Low);
        assert_eq!(line.standing(1), Standing::Yielding { to: Some(2) });
    }

    #[test]
    fn a_lower_limit_makes_the_last_yield_and_a_higher_one_lets_the_next_run() {
        let mut line = Line::of(3);
        (1..=4).for_each(|id| drop(line.enter(id, Normal, true)));
        line.set_running(1);
        assert_eq!(running(&line), [1]);
        assert_eq!(line.standing(3), Standing::Yielding { to: None });
        line.leave(2);
        line.leave(3);
        assert_eq!(running(&line), [1]);
        line.set_running(2);
        assert_eq!(running(&line), [1, 4]);
    }

    #[test]
    fn who_waits_is_told_behind_whom() {
        let mut line = Line::of(1);
        line.enter(1, High, true);
        line.enter(2, Normal, true);
        line.enter(3, Normal, true);
        let place = |id| match line.standing(id) {
            Standing::Waiting(Place { behind, by_priority, .. }) => (behind, by_priority),
            other => panic!("{other:?}"),
        };
        assert_eq!((place(2), place(3)), ((1, true), (2, false)));
    }

    proptest! {
        #[test]
        fn never_more_run_than_may_and_never_one_that_waits_goes_behind_a_lesser_one(
            limit in 1usize..5,
            steps in proptest::collection::vec((0u8..4, 0u64..12, 0u8..3, any::<bool>()), 1..80),
        ) {
            let mut line = Line::of(limit);
            for (what, id, priority, displaces) in steps {
                let priority = [Low, Normal, High][usize::from(priority)];
                let before: BTreeMap<u64, State> = line.entries.iter().map(|(id, entry)| (*id, entry.state)).collect();
                let changed = match what {
                    0 | 1 if !line.entries.contains_key(&id) => line.enter(id, priority, displaces),
                    2 => line.leave(id),
                    3 => line.prioritize(id, priority),
                    _ => line.displace(id),
                };
                for (id, entry) in &line.entries {
                    let was = before.get(id).copied();
                    let is_turn = |state: State| !matches!(state, State::Waiting { .. });
                    let is_changed = is_turn(entry.state) && was != Some(entry.state);
                    prop_assert_eq!(is_changed, changed.contains(id), "{:?}", line);
                }
                for (other, standing) in line.standings() {
                    prop_assert_eq!(standing, line.standing(other));
                }
                let of = |state: fn(&State) -> bool| {
                    let mut found: Vec<_> = line.entries.values().filter(|entry| state(&entry.state)).collect();
                    found.sort_by_key(|entry| entry.priority);
                    found
                };
                let runs = of(|state| *state == State::Running);
                let yields = of(|state| matches!(state, State::Yielding { .. }));
                let waits = of(|state| matches!(state, State::Waiting { .. }));
                let displaces = of(|state| *state == State::Waiting { displaces: true });
                prop_assert!(runs.len() + yields.len() <= limit);
                prop_assert!(waits.is_empty() || runs.len() + yields.len() == limit, "nobody waits beside a free turn");
                if let (Some(least), Some(most)) = (runs.first(), displaces.last()) {
                    let better = displaces.iter().filter(|entry| entry.priority > least.priority).count();
                    prop_assert!(most.priority <= least.priority || better <= yields.len(), "{:?}", line);
                }
            }
        }
    }
}
