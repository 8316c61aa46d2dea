//! The peer's side of the Sync stream and the maestro's, with their real databases and everything that may happen between
//! and to them, in every order; in the end both hold the same.
//!
//! Changes come at any moment; a stream is cut at any point, and what was on its way is delivered, in part or whole, when
//! a newer one has begun; both programs are restarted, and both databases replaced by older copies of themselves, or by new
//! ones; what the maestro holds is spoiled on its disk; the maestro forgets the peer. Each step is one message or one
//! event, taken by the code that runs in the programs, so that a case is always the same for its seed.
//!
//! A failure names the seed of its cases and prints the smallest steps that still fail: `P2P_SEED=N` runs the cases of
//! that seed, `P2P_RUNS=N` so many cases.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod agreement_world;

use std::sync::atomic::{AtomicU64, Ordering};

use agreement_world::{Counts, Garbling, Lab, Step};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// Cases of every test run.
const CASES: u64 = 10_000;
/// Cases of one seed.
const CASES_OF_SEED: u64 = 250;
/// Labs at the same time. Each step is handed from thread to thread, so that a lab waits more than it works.
const LABS_PER_CORE: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (share, name) = (|| 0..2usize, || 0u8..7);
    let step = prop_oneof![
        8 => (share(), name(), 0u8..3).prop_map(|(share, name, bytes)| Step::Put { share, name, bytes }),
        5 => (share(), name()).prop_map(|(share, name)| Step::Remove { share, name }),
        2 => (share(), any::<bool>(), any::<bool>())
            .prop_map(|(share, friends, available)| Step::Show { share, friends, available }),
        4 => (0u8..4).prop_map(|number| Step::Connect { is_older: number == 0 }),
        8 => Just(Step::Say),
        8 => any::<prop::sample::Index>().prop_map(Step::Take),
        6 => Just(Step::Hear),
        8 => (1u8..9).prop_map(Step::Talk),
        3 => (0u8..6).prop_map(|delivered| Step::Cut { delivered }),
        1 => Just(Step::RestartPeer),
        1 => Just(Step::RestartMaestro),
        2 => Just(Step::BackUpPeer),
        2 => any::<prop::sample::Index>().prop_map(Step::RestorePeer),
        1 => Just(Step::BackUpMaestro),
        1 => any::<prop::sample::Index>().prop_map(Step::RestoreMaestro),
        1 => Just(Step::LosePeer),
        3 => (0usize..agreement_world::SPOILS.len()).prop_map(Step::Spoil),
        1 => (0usize..agreement_world::LEDGER_SPOILS.len()).prop_map(Step::SpoilLedger),
        3 => garbling().prop_map(Step::Garble),
        1 => Just(Step::Examine),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 10..60)
}

fn garbling() -> impl Strategy<Value = Garbling> {
    use Garbling::{Epoch, Reversed, Swapped, Through, Twice};
    prop_oneof![Just(Twice), Just(Swapped), Just(Reversed), Just(Epoch), Just(Through)]
}

/// Runs the cases of one seed.
fn run(lab: &mut Lab, seed: u64, cases: u64, counts: &mut Counts) {
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 5000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (lab, counts) = (std::cell::RefCell::new(lab), std::cell::RefCell::new(counts));
    let outcome = runner.run(&steps(), |steps| {
        let (mut lab, mut counts) = (lab.borrow_mut(), counts.borrow_mut());
        lab.play(&steps, &mut counts).map_err(|error| {
            // What a case that failed left is not for the next one.
            **lab = Lab::new();
            TestCaseError::fail(error)
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => panic!("P2P_SEED={seed}: {reason}\nsteps: {steps:#?}"),
        Err(TestError::Abort(reason)) => panic!("P2P_SEED={seed}: {reason}"),
    }
}

#[test]
fn in_the_end_both_hold_the_same() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("P2P_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("P2P_RUNS").unwrap_or(CASES).div_ceil(CASES_OF_SEED)).collect(),
    };
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = (cores * LABS_PER_CORE).min(seeds.len());
    let worker = || {
        let (mut lab, mut counts) = (Lab::new(), Counts::default());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = usize::try_from(index).ok().and_then(|index| seeds.get(index)) else {
                return counts;
            };
            run(&mut lab, *seed, CASES_OF_SEED, &mut counts);
        }
    };
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in running {
            match worker.join() {
                Ok(more) => counts.add(&more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!("{counts:?}");
    // Whatever is not seen is not tested.
    if seeds.len() as u64 * CASES_OF_SEED >= 1000 {
        assert!(counts.saw_everything(), "{counts:?}");
    }
}
