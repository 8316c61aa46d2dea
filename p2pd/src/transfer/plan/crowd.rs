//! Sources of all manners at once, few and many: whoever else is there, everything comes as long as of each piece one
//! honest source stays.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::check_books;
use super::*;

/// Time from one round to the next. In each, a source gives one piece at the most.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds beside one for each piece that the most burdened source has: what two silent sources were asked for is asked of
/// a third one only after [`PATIENCE`].
const SPARE_ROUNDS: usize = 2000;
/// Rounds in which honest sources tell what they have.
const TOLD_IN: u32 = 8;

/// How a source behaves.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// It gives what it has, and stays.
    Honest,
    /// It has everything, and never answers.
    Silent,
    /// It has everything, and gives a false piece after so many true ones.
    False(u32),
    /// It has everything, and is gone after so many rounds.
    Leaves(u32),
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![Just(Manner::Silent), (0u32..6).prop_map(Manner::False), (0u32..40).prop_map(Manner::Leaves)]
}

struct Member {
    manner: Manner,
    owes: VecDeque<u32>,
    gave: u32,
}

/// A transfer, and those whom it asks.
struct Crowd {
    plan: Plan,
    now: Instant,
    random: StdRng,
    members: BTreeMap<SourceKey, Member>,
    /// Of each piece, the one honest source that has it, and the round in which that is told.
    honest: Vec<(SourceKey, u32)>,
    here: Vec<bool>,
}

impl Crowd {
    fn new(count: u32, honest: u32, others: &[Manner], seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let holders = (0..count).map(|_| (random.random_range(0..honest), random.random_range(0..TOLD_IN)));
        let holders = holders.collect();
        let mut crowd = Self {
            plan: Plan::new(&Bitmap::new(count)),
            now: Instant::now(),
            random,
            members: BTreeMap::new(),
            honest: holders,
            here: vec![false; count as usize],
        };
        let manners = std::iter::repeat_n(Manner::Honest, honest as usize).chain(others.iter().copied());
        for (key, manner) in (0..).zip(manners) {
            crowd.plan.join(key);
            if !matches!(manner, Manner::Honest) {
                crowd.plan.has_all(key);
            }
            crowd.members.insert(key, Member { manner, owes: VecDeque::new(), gave: 0 });
        }
        crowd
    }

    /// Runs it to its end. The books are looked at after so many rounds each time.
    fn run(mut self, looked_at_every: u32) {
        let mut burdens: HashMap<SourceKey, usize> = HashMap::new();
        self.honest.iter().for_each(|(key, _)| *burdens.entry(*key).or_default() += 1);
        let most = SPARE_ROUNDS + burdens.into_values().max().unwrap_or_default();
        for round in (0..).take(most) {
            if self.here.iter().all(|here| *here) {
                return check_books(&self.plan);
            }
            if round < TOLD_IN {
                for (piece, (source, _)) in (0..).zip(&self.honest).filter(|(_, (_, told))| *told == round) {
                    self.plan.gained(*source, [piece]);
                }
            }
            for source in self.plan.sources() {
                self.ask(source);
            }
            for source in self.plan.sources() {
                self.answer(source, round);
            }
            if round % looked_at_every == 0 {
                check_books(&self.plan);
            }
            self.now += ROUND;
        }
        let missing = self.here.iter().filter(|here| !**here).count();
        panic!("{missing} of {} pieces have not come in {most} rounds", self.here.len());
    }

    fn ask(&mut self, source: SourceKey) {
        let Self { plan, now, random, members, honest, here, .. } = self;
        let Some(member) = members.get_mut(&source) else { return };
        for piece in plan.requests(source, *now, |below| random.random_range(0..below)) {
            let at = piece as usize;
            let lacks = matches!(member.manner, Manner::Honest) && honest[at].0 != source;
            assert!(!lacks, "piece {piece} is asked of {source}, which lacks it");
            assert!(!here[at], "piece {piece} is here, and asked of {source}");
            assert!(!member.owes.contains(&piece), "piece {piece} is asked twice of {source}");
            member.owes.push_back(piece);
        }
        assert!(member.owes.len() <= *WINDOW.end());
    }

    fn answer(&mut self, source: SourceKey, round: u32) {
        let Some(member) = self.members.get_mut(&source) else { return };
        let is_true = match member.manner {
            Manner::Leaves(after) if after <= round => return self.lose(source),
            Manner::Silent => return,
            Manner::False(after) => member.gave < after,
            Manner::Honest | Manner::Leaves(_) => true,
        };
        let Some(piece) = member.owes.pop_front() else { return };
        member.gave += 1;
        let here = &mut self.here[piece as usize];
        match self.plan.arrived(source, piece, self.now) {
            Arrival::Unwanted => assert!(*here, "piece {piece} is lacking, and not wanted"),
            Arrival::Wanted => {
                assert!(!*here, "piece {piece} is accepted twice");
                *here = is_true;
                if !is_true {
                    self.lose(source);
                    self.plan.lacks(piece);
                }
            }
        }
        self.ask(source);
    }

    fn lose(&mut self, source: SourceKey) {
        self.plan.leave(source);
        self.members.remove(&source);
    }
}

proptest! {
    #[test]
    fn everything_comes_when_of_each_piece_one_honest_source_stays(
        count in 1u32..60,
        honest in 1u32..5,
        others in prop::collection::vec(manner(), 0..8),
        seed in any::<u64>(),
    ) {
        Crowd::new(count, honest, &others, seed).run(1);
    }
}

#[test]
fn ten_thousand_pieces_come_from_a_hundred_sources() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let others: Vec<Manner> = (0..60)
            .map(|_| match random.random_range(0..3) {
                0 => Manner::Silent,
                1 => Manner::False(random.random_range(0..200)),
                _ => Manner::Leaves(random.random_range(0..200)),
            })
            .collect();
        Crowd::new(10_000, 40, &others, seed).run(50);
    }
}
