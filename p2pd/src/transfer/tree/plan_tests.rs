//! Who is asked for which file, by sources of all manners.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn many_are_asked_for_at_once_and_none_twice() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    (0..100).for_each(|key| plan.add(key, 4096));
    plan.join(1);
    plan.join(2);
    let (one, other) = (plan.requests(1, now), plan.requests(2, now));
    assert_eq!((one.len(), other.len()), (32, 32));
    assert!(one.iter().all(|key| !other.contains(key)));
    assert!(plan.requests(1, now).is_empty(), "its window is full");
    assert_eq!(plan.arrived(1, one[0], 4096, now + ms(1)), Arrival::Wanted);
    assert_eq!(plan.arrived(1, one[0], 4096, now + ms(1)), Arrival::Extra);
    assert!(!plan.requests(1, now + ms(1)).is_empty());
}

/// The share of a link of 100 Mbit/s that comes of a source that is so far away. What it is asked for takes half of the
/// round trip to get there, and its bytes the other half; looked at over 20 s, after 8 s.
fn share(round_trip: Duration) -> f64 {
    const SIZE: u64 = 64 << 10;
    let each = Duration::from_micros(5243);
    let (mut plan, began) = (Plan::default(), Instant::now());
    (0..8000).for_each(|key| plan.add(key, SIZE));
    plan.join(1);
    plan.is_away(1, round_trip);
    let (mut now, mut is_free_at, mut coming, mut came) = (began, began, VecDeque::new(), 0);
    loop {
        for key in plan.requests(1, now) {
            is_free_at = is_free_at.max(now + round_trip / 2) + each;
            coming.push_back((key, is_free_at + round_trip / 2));
        }
        let (key, then) = coming.pop_front().unwrap();
        now = then;
        if now > began + ms(28_000) {
            return (each * came).div_duration_f64(ms(20_000));
        }
        came += u32::from(now > began + ms(8000));
        assert_eq!(plan.arrived(1, key, SIZE, now), Arrival::Wanted);
    }
}

#[test]
fn a_long_way_is_filled_as_a_short_one_is() {
    for trip in [1, 40, 150, 350, 600] {
        let share = share(ms(trip));
        println!("round trip of {trip} ms: {share:.2} of the link's rate");
        assert!(share >= 0.8, "round trip of {trip} ms: {share:.2} of the link's rate");
    }
}

#[test]
fn a_large_file_is_asked_for_alone() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    (0..4).for_each(|key| plan.add(key, 4 << 20));
    plan.join(1);
    assert_eq!(plan.requests(1, now), [0]);
}

#[test]
fn what_a_source_refuses_others_are_asked_for_and_at_last_nobody() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.add(7, 1);
    plan.join(1);
    plan.join(2);
    assert_eq!(plan.requests(1, now), [7]);
    plan.refused(1, 7);
    assert!(plan.requests(1, now).is_empty());
    assert_eq!(plan.requests(2, now), [7]);
    plan.refused(2, 7);
    assert_eq!(plan.orphans(), [7]);
    plan.join(3);
    assert!(plan.orphans().is_empty());
    assert_eq!(plan.requests(3, now), [7]);
}

#[test]
fn what_waited_for_a_source_that_left_is_an_orphan_where_the_others_refused_it() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.add(1, 1);
    plan.join(1);
    assert_eq!(plan.requests(1, now), [1]);
    plan.join(2);
    plan.refused(1, 1);
    assert!(plan.orphans().is_empty(), "it waits for the other");
    plan.leave(2);
    assert_eq!((plan.orphans(), plan.waiting()), ([1].as_slice(), 0));
}

/// A source alone has very many files and gives them slowly: the other one is asked for all that it can have.
#[test]
fn what_only_a_slow_source_has_keeps_nobody_from_giving_the_rest() {
    const ITS_OWN: FileKey = 3 * LOOKED_AT as FileKey;
    let (mut plan, now) = (Plan::default(), Instant::now());
    (0..ITS_OWN + 20).for_each(|key| plan.add(key, 1000));
    plan.join(1);
    plan.join(2);
    plan.requests(1, now);
    let mut given = Vec::new();
    loop {
        let asked = plan.requests(2, now);
        if asked.is_empty() {
            break;
        }
        for key in asked {
            match key < ITS_OWN {
                true => plan.refused(2, key),
                false => given.push(key),
            }
        }
        given.iter().for_each(|key| plan.remove(*key));
    }
    assert_eq!(given.len(), 20);
    assert_eq!(
        (plan.waiting(), plan.turned_down()),
        (0, ITS_OWN as usize - 32),
        "the rest waits for the first"
    );
}

#[test]
fn what_others_turned_down_is_found_behind_what_a_source_has_refused_itself() {
    const REFUSED: FileKey = LOOKED_AT as FileKey + 100;
    let (mut plan, now) = (Plan::default(), Instant::now());
    (1..=3).for_each(|source| plan.join(source));
    let refuse_all = |plan: &mut Plan, source, from: FileKey| loop {
        let asked = plan.requests(source, now);
        let refused: Vec<FileKey> = asked.into_iter().filter(|key| *key >= from).collect();
        if refused.is_empty() {
            break;
        }
        refused.into_iter().for_each(|key| plan.refused(source, key));
    };
    (0..REFUSED).for_each(|key| plan.add(key, 1000));
    refuse_all(&mut plan, 1, 0);
    (REFUSED..REFUSED + 20).for_each(|key| plan.add(key, 1000));
    refuse_all(&mut plan, 2, REFUSED);
    let asked: Vec<FileKey> = (0..2).flat_map(|_| plan.requests(1, now)).collect();
    assert_eq!(asked, (REFUSED..REFUSED + 20).collect::<Vec<_>>());
}

#[test]
fn the_last_source_is_the_one_that_will_have_given_last() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    assert_eq!(plan.last(now), None);
    (0..96).for_each(|key| plan.add(key, 1000));
    (1..=3).for_each(|source| plan.join(source));
    for (source, later) in [(1, ms(10)), (2, ms(500)), (3, ms(20))] {
        let asked = plan.requests(source, now);
        plan.arrived(source, asked[0], 1000, now + later);
    }
    assert_eq!((plan.last(now + ms(500)), plan.idle()), (Some(2), None));
    plan.join(4);
    assert_eq!(plan.idle(), Some(4));
}

#[test]
fn the_last_words_of_one_that_left_change_nothing() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.add(1, 10);
    plan.join(1);
    assert_eq!(plan.requests(1, now), [1]);
    plan.leave(1);
    assert!(!plan.doubted(1, 1), "others are asked");
    plan.join(2);
    assert_eq!(plan.requests(2, now), [1]);
    plan.remove(1);
    assert!(plan.requests(2, now).is_empty() && plan.is_empty());
}

#[test]
fn what_two_slow_sources_owe_a_fast_one_takes_over() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    (0..40).for_each(|key| plan.add(key, 1000));
    (1..=3).for_each(|source| plan.join(source));
    let first = plan.requests(1, now);
    let rest = plan.requests(3, now);
    assert_eq!((first.len(), rest.len()), (32, 8));
    let later = now + ms(2000);
    // Nothing is known of the second: it is tried with all that the first owes.
    let second = plan.requests(2, later);
    assert_eq!(second.len(), 32);
    // The third has given something fast.
    for (key, at) in rest.iter().zip(1..) {
        assert_eq!(plan.arrived(3, *key, 1000, now + ms(at)), Arrival::Wanted);
        plan.remove(*key);
    }
    let third = plan.requests(3, later + ms(2000));
    assert_eq!(third.len(), 32, "{third:?}");
    // A fourth shows first whether it is faster.
    plan.join(4);
    assert_eq!(plan.requests(4, later + ms(9000)).len(), 1);
}

#[test]
fn a_silent_source_loses_what_it_owes_to_others() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    (0..32).for_each(|key| plan.add(key, 1000));
    plan.join(1);
    assert_eq!(plan.requests(1, now).len(), 32);
    plan.join(2);
    assert!(plan.requests(2, now).is_empty(), "it may come any moment");
    let later = now + ms(500);
    let taken = plan.requests(2, later);
    assert_eq!(taken[0], 31, "what would come last");
    assert!((2..32).contains(&taken.len()), "no more than it can give sooner: {taken:?}");
    assert_eq!(plan.arrived(2, 31, 1000, later + ms(1)), Arrival::Wanted);
    assert_eq!(plan.others(31), [1]);
    plan.withdrawn(1, 31);
    plan.remove(31);
    plan.leave(1);
    assert!(!plan.requests(2, later + ms(3)).is_empty(), "all of it is free again");
}

#[test]
fn a_false_file_comes_again_from_another() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.add(1, 10);
    plan.join(1);
    assert_eq!(plan.requests(1, now), [1]);
    assert_eq!(plan.arrived(1, 1, 10, now), Arrival::Wanted);
    plan.leave(1);
    plan.lacks(1);
    plan.join(2);
    assert_eq!(plan.requests(2, now), [1]);
}

#[test]
fn what_is_in_doubt_is_asked_of_nobody_until_it_is_settled() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.add(1, 10);
    plan.join(1);
    plan.join(2);
    assert_eq!(plan.requests(1, now), [1]);
    assert!(plan.doubted(1, 1));
    assert!(!plan.doubted(2, 1), "once is enough");
    assert!(plan.requests(2, now).is_empty() && plan.waiting() == 0 && !plan.is_empty());
    plan.refused(1, 1);
    plan.lacks(1);
    assert!(plan.requests(1, now).is_empty());
    assert_eq!(plan.requests(2, now), [1]);
}

proptest! {
    /// Sources of all manners: whatever they do, every file that an honest one has comes once.
    #[test]
    fn everything_comes_once(
        sizes in prop::collection::vec(0u64..3_000_000, 1..120),
        manners in prop::collection::vec((1u64..50, 0u8..100, prop::bool::ANY), 1..5),
        seed: u64,
    ) {
        let start = Instant::now();
        let mut plan = Plan::default();
        for (key, size) in sizes.iter().enumerate() {
            plan.add(key as u32, *size);
        }
        // The last one has everything and stays.
        let honest = manners.len() as SourceKey;
        (0..=honest).for_each(|source| plan.join(source));
        let mut owed: BTreeMap<SourceKey, VecDeque<FileKey>> = BTreeMap::new();
        let mut kept = HashSet::new();
        for step in 0..20_000u64 {
            let now = start + ms(step);
            for source in plan.sources() {
                for key in plan.requests(source, now) {
                    let is_refused = source != honest && (u64::from(key) ^ seed) % 100 < u64::from(manners[source as usize].1);
                    prop_assert!(!kept.contains(&key), "what is here is asked for");
                    match is_refused {
                        true => plan.refused(source, key),
                        false => owed.entry(source).or_default().push_back(key),
                    }
                }
            }
            for source in plan.sources() {
                let (every, _, leaves) = manners.get(source as usize).copied().unwrap_or((1, 0, false));
                if step % every != 0 {
                    continue;
                }
                if leaves && step > 200 {
                    plan.leave(source);
                    owed.remove(&source);
                    continue;
                }
                let Some(key) = owed.entry(source).or_default().pop_front() else { continue };
                if plan.arrived(source, key, sizes[key as usize], now) == Arrival::Wanted {
                    prop_assert!(kept.insert(key), "it came twice");
                    for other in plan.others(key) {
                        owed.entry(other).or_default().retain(|owed| *owed != key);
                        plan.withdrawn(other, key);
                    }
                    plan.remove(key);
                }
            }
            prop_assert!(plan.orphans().is_empty());
            if plan.is_empty() {
                break;
            }
        }
        prop_assert_eq!(kept.len(), sizes.len());
    }
}
