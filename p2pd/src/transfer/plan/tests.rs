//! The rules one by one, and what holds whatever happens.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The first of what may be picked.
fn first(_below: u32) -> u32 {
    0
}

fn plan(count: u32) -> (Plan, Instant) {
    (Plan::new(&Bitmap::new(count)), Instant::now())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Each piece has one state, and whatever is counted comes out the same where it is counted anew.
pub(super) fn check_books(plan: &Plan) {
    for piece in 0..plan.here.count() {
        let (here, asked) = (plan.here.get(piece), plan.open.contains_key(&piece));
        // A second copy may be on its way when it is here.
        let states = [plan.free.get(piece), asked && !here, here];
        let count = states.into_iter().filter(|is_in| *is_in).count();
        assert_eq!(count, 1, "piece {piece} is free, asked for, here: {states:?}");
        let holds = |source: &&Source| matches!(&source.has, Has::Some(bits) if bits.get(piece));
        let holders = plan.sources.values().filter(holds).count();
        let (rarity, is_promised) = plan.rarity.of(piece);
        assert_eq!(rarity, holders + usize::from(is_promised), "piece {piece}");
        assert!(!is_promised || holders == 0, "piece {piece} is promised, and somebody has it");
    }
    assert_eq!(plan.free.is_empty(), (0..plan.free.count()).all(|piece| !plan.free.get(piece)));
    let mut open: HashMap<SourceKey, Vec<u32>> = HashMap::new();
    for (piece, asked) in &plan.open {
        assert!(!asked.is_empty(), "piece {piece} is asked of nobody");
        for (nth, Asked { source, .. }) in asked.iter().enumerate() {
            let is_twice = asked[..nth].iter().any(|other| other.source == *source);
            assert!(!is_twice, "piece {piece} is asked twice of {source}");
            open.entry(*source).or_default().push(*piece);
        }
    }
    for (key, source) in &plan.sources {
        let mut queue = source.queue.clone();
        queue.sort_unstable();
        assert_eq!(queue, open.remove(key).unwrap_or_default(), "asked of {key}");
    }
    assert!(open.is_empty(), "{open:?} are asked of sources that are gone");
}

/// Lets a source show that it gives a piece in this time.
fn at_pace(plan: &mut Plan, source: SourceKey, each: Duration, now: &mut Instant) {
    for piece in plan.requests(source, *now, first) {
        *now += each;
        assert_eq!(plan.arrived(source, piece, *now), Arrival::Wanted);
    }
}

#[test]
fn the_rarest_goes_first_and_a_promise_counts_as_a_holder() {
    let (mut plan, now) = plan(4);
    for (source, pieces) in [(1, vec![0, 1]), (2, vec![0])] {
        plan.join(source);
        plan.gained(source, pieces);
    }
    plan.promised(2);
    plan.join(9);
    plan.has_all(9);
    assert_eq!(plan.requests(9, now, first), [3, 1], "3 is nobody else's; 1 and 2 are one other's");
    plan.leave(1);
    plan.join(8);
    plan.has_all(8);
    assert_eq!(plan.requests(8, now, first), [0, 2], "0 and 2 have one holder now, and 1 is asked for");
}

#[test]
fn nobody_is_asked_for_what_it_lacks() {
    let (mut plan, now) = plan(3);
    plan.join(1);
    assert!(plan.requests(1, now, first).is_empty());
    plan.gained(1, [2, 7]);
    assert_eq!(plan.requests(1, now, first), [2]);
    assert!(plan.requests(1, now, first).is_empty());
}

#[test]
fn rare_is_what_is_free_and_nobody_has() {
    let (mut plan, now) = plan(4);
    plan.join(1);
    plan.join(2);
    assert_eq!(plan.rare(), 4);
    plan.gained(1, [0, 1]);
    plan.gained(2, [1, 2]);
    assert_eq!(plan.rare(), 1);
    // What is asked for is somebody's.
    let asked = plan.requests(1, now, first).len();
    assert_eq!((plan.open(1), plan.open(2), plan.rare()), (asked, 0, 1));
    plan.leave(2);
    assert_eq!(plan.rare(), 2);
    plan.has_all(1);
    assert_eq!(plan.rare(), 0);
}

#[test]
fn the_window_grows_with_what_a_source_gives() {
    let (mut plan, mut now) = plan(1000);
    plan.join(1);
    plan.has_all(1);
    at_pace(&mut plan, 1, ms(10), &mut now);
    let asked = plan.requests(1, now, first);
    assert_eq!(asked.len(), 30, "as many as take 300 ms");
    for piece in asked {
        now += ms(1);
        plan.arrived(1, piece, now);
    }
    assert_eq!(plan.requests(1, now, first).len(), 64, "and never more than the other side queues");
    plan.join(2);
    plan.has_all(2);
    at_pace(&mut plan, 2, ms(900), &mut now);
    assert_eq!(plan.requests(2, now, first).len(), 2, "a slow one has two");
}

#[test]
fn what_a_lost_source_had_is_given_to_others() {
    let (mut plan, now) = plan(2);
    plan.join(1);
    plan.has_all(1);
    assert_eq!(plan.requests(1, now, first), [0, 1]);
    plan.leave(1);
    plan.join(2);
    plan.has_all(2);
    assert_eq!(plan.requests(2, now, first), [0, 1]);
}

#[test]
fn an_idle_source_takes_what_would_come_last_and_only_if_it_is_faster() {
    let (mut plan, mut now) = plan(10);
    for source in [1, 2, 3] {
        plan.join(source);
        plan.has_all(source);
    }
    at_pace(&mut plan, 1, ms(400), &mut now);
    at_pace(&mut plan, 2, ms(100), &mut now);
    at_pace(&mut plan, 3, ms(700), &mut now);
    assert_eq!(plan.requests(1, now, first), [6, 7]);
    assert_eq!(plan.requests(2, now, first), [8, 9]);
    plan.arrived(2, 8, now + ms(100));
    plan.arrived(2, 9, now + ms(200));
    assert!(plan.requests(3, now + ms(200), first).is_empty(), "600 ms are left, and it needs 700");
    assert_eq!(plan.requests(2, now + ms(200), first), [7], "the one at the end of the slow one's queue");
    assert_eq!(plan.arrived(2, 7, now + ms(300)), Arrival::Wanted);
    assert_eq!(plan.others(7), [1], "who was asked for it too, and need not give it");
    assert!(plan.requests(2, now + ms(300), first).is_empty(), "100 ms are left, as many as it needs");
    assert_eq!(plan.requests(2, now + ms(500), first), [6], "overdue by 100 ms");
    assert_eq!(plan.arrived(1, 6, now + ms(501)), Arrival::Wanted);
    assert_eq!(plan.arrived(2, 6, now + ms(600)), Arrival::Unwanted);
    assert_eq!(plan.arrived(1, 7, now + ms(600)), Arrival::Unwanted);
}

#[test]
fn near_sources_are_asked_first_and_take_the_last_piece() {
    let (mut plan, mut now) = plan(5);
    for source in [1, 2, 3] {
        plan.join(source);
        plan.has_all(source);
    }
    assert_eq!(plan.sources(), [1, 2, 3]);
    plan.prefer(2, 2);
    plan.prefer(3, 0);
    assert_eq!(plan.sources(), [3, 2, 1]);
    at_pace(&mut plan, 2, ms(10), &mut now);
    at_pace(&mut plan, 3, ms(10), &mut now);
    assert_eq!(plan.requests(1, now, first).len(), 1, "the last one");
    now += ms(5000);
    let asked: Vec<(SourceKey, usize)> =
        plan.sources().into_iter().map(|source| (source, plan.requests(source, now, first).len())).collect();
    assert_eq!(asked, [(3, 1), (2, 0), (1, 0)]);
    check_books(&plan);
}

#[test]
fn a_silent_source_holds_nothing_up() {
    let (mut plan, mut now) = plan(4);
    plan.join(1);
    plan.has_all(1);
    assert_eq!(plan.requests(1, now, first), [0, 1], "and it never answers");
    plan.join(2);
    plan.has_all(2);
    at_pace(&mut plan, 2, ms(10), &mut now);
    now += ms(2000);
    for _ in 0..2 {
        let stolen = plan.requests(2, now, first);
        assert_eq!(stolen.len(), 1);
        now += ms(10);
        assert_eq!(plan.arrived(2, stolen[0], now), Arrival::Wanted);
    }
}

#[test]
fn a_false_piece_is_asked_of_somebody_else() {
    let (mut plan, now) = plan(1);
    plan.join(1);
    plan.has_all(1);
    assert_eq!(plan.requests(1, now, first), [0]);
    assert_eq!(plan.arrived(1, 0, now), Arrival::Wanted);
    plan.leave(1);
    plan.lacks(0);
    plan.join(2);
    plan.has_all(2);
    assert_eq!(plan.requests(2, now, first), [0]);
}

#[derive(Debug, Clone)]
enum Step {
    Join,
    HasAll,
    Gain(Vec<u32>),
    Promise(u32),
    Leave,
    /// The one in this place of what is open.
    Answer(usize),
    AnswerFalsely(usize),
    Withdraw(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Join),
        Just(Step::HasAll),
        prop::collection::vec(0u32..50, 0..20).prop_map(Step::Gain),
        (0u32..50).prop_map(Step::Promise),
        Just(Step::Leave),
        any::<usize>().prop_map(Step::Answer),
        any::<usize>().prop_map(Step::Answer),
        any::<usize>().prop_map(Step::AnswerFalsely),
        any::<usize>().prop_map(Step::Withdraw),
    ]
}

proptest! {
    /// Nobody is asked for what it lacks, nor twice at once for one piece; no piece is asked of more than two, or
    /// accepted twice, or asked for when it is here; and whatever happened, one honest source that stays ends it.
    #[test]
    fn ends_whole_whatever_happens(
        count in 1u32..50,
        had in prop::collection::vec(any::<bool>(), 50),
        steps in prop::collection::vec((0u32..5, 0u64..400, step()), 0..300),
        picks in prop::collection::vec(any::<u32>(), 64),
    ) {
        let mut held = Bitmap::new(count);
        for piece in (0..count).filter(|piece| had[*piece as usize]) {
            held.set(piece);
        }
        let mut plan = Plan::new(&held);
        let mut now = Instant::now();
        let mut picked = picks.into_iter().cycle();
        let mut has: HashMap<SourceKey, Vec<bool>> = HashMap::new();
        let mut open: HashMap<SourceKey, Vec<u32>> = HashMap::new();
        let last = (0..count * 4 + 8).map(|_| (9, 1, Step::Answer(0)));
        // Who owes and stays silent is lost after a while.
        let silent = (0..5).map(|source| (source, 0, Step::Leave));
        let steps = steps.into_iter().chain([(9, 0, Step::Join), (9, 0, Step::HasAll)]).chain(silent).chain(last);
        for (source, passed, step) in steps {
            now += ms(passed);
            let known = has.contains_key(&source);
            match step {
                Step::Join if !known => {
                    plan.join(source);
                    has.insert(source, vec![false; count as usize]);
                    open.insert(source, Vec::new());
                }
                Step::HasAll if known => {
                    plan.has_all(source);
                    has.insert(source, vec![true; count as usize]);
                }
                Step::Gain(pieces) if known => {
                    plan.gained(source, pieces.iter().copied());
                    for piece in pieces.into_iter().filter(|piece| *piece < count) {
                        has.get_mut(&source).unwrap()[piece as usize] = true;
                    }
                }
                Step::Promise(piece) => plan.promised(piece),
                Step::Leave => {
                    plan.leave(source);
                    has.remove(&source);
                    open.remove(&source);
                }
                Step::Answer(index) | Step::AnswerFalsely(index) if known && !open[&source].is_empty() => {
                    let asked = open.get_mut(&source).unwrap();
                    let piece = asked.remove(index % asked.len());
                    let honest = matches!(step, Step::Answer(_));
                    if plan.arrived(source, piece, now) == Arrival::Wanted {
                        prop_assert!(!held.get(piece), "piece {piece} is accepted twice");
                        if honest {
                            held.set(piece);
                        } else {
                            plan.leave(source);
                            plan.lacks(piece);
                            has.remove(&source);
                            open.remove(&source);
                        }
                    } else {
                        prop_assert!(held.get(piece));
                    }
                }
                Step::Withdraw(index) if known && !open[&source].is_empty() => {
                    let asked = open.get_mut(&source).unwrap();
                    let piece = asked.remove(index % asked.len());
                    plan.withdrawn(source, piece);
                }
                _ => {}
            }
            if let Some(has) = has.get(&source) {
                for piece in plan.requests(source, now, |below| picked.next().unwrap() % below) {
                    prop_assert!(!held.get(piece), "piece {piece} is here");
                    prop_assert!(has[piece as usize], "piece {piece} is asked of {source}, which lacks it");
                    prop_assert!(!open[&source].contains(&piece), "piece {piece} is asked twice of {source}");
                    open.get_mut(&source).unwrap().push(piece);
                    let copies = open.values().filter(|asked| asked.contains(&piece)).count();
                    prop_assert!(copies <= COPIES, "piece {piece} is asked of {copies}");
                }
                prop_assert!(open[&source].len() <= *WINDOW.end());
            }
            check_books(&plan);
        }
        prop_assert!(held.is_full(), "{} of {count} are here", held.count_ones());
    }
}
