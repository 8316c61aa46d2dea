//! One seed and eight receivers that all begin at once, every link of the same rate both ways: the case that decides how
//! far a network carries. Time is simulated: a link sends one piece at a time, to its askers in turn.

use std::collections::{HashMap, HashSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const PIECES: u32 = 256;
const RECEIVERS: u32 = 8;
const SEED: SourceKey = 0;
/// Time that a link needs for a piece: 1 MiB at 100 Mbit/s.
const EACH: Duration = Duration::from_millis(84);

struct Host {
    /// Of each asker, what it waits for here, in its order.
    queues: HashMap<u32, VecDeque<u32>>,
    /// Whose turn it is.
    turns: VecDeque<u32>,
    /// What it sends now, to whom, and when that will be there.
    sending: Option<(u32, u32, Instant)>,
    has: HashSet<u32>,
}

/// What came of a run.
struct Run {
    /// Time until the last receiver had all, in units of what one copy takes over one link.
    took: f64,
    /// Copies that the seed sent.
    copies: f64,
    whole: usize,
}

/// Runs it with these random numbers; the seed goes away once it has sent so many pieces.
fn run(random: u64, seed_sends: u32) -> Run {
    let mut random = StdRng::seed_from_u64(random);
    let began = Instant::now();
    let mut now = began;
    let mut hosts: Vec<Host> = (0..=RECEIVERS)
        .map(|host| Host {
            queues: HashMap::new(),
            turns: VecDeque::new(),
            sending: None,
            has: if host == SEED { (0..PIECES).collect() } else { HashSet::new() },
        })
        .collect();
    let mut plans: Vec<Plan> = (0..=RECEIVERS).map(|_| Plan::new(&Bitmap::new(PIECES))).collect();
    for (me, plan) in (1..).zip(plans.iter_mut().skip(1)) {
        for other in (0..=RECEIVERS).filter(|other| *other != me) {
            plan.join(other);
        }
        plan.has_all(SEED);
    }
    let mut sent = 0;
    loop {
        // Everybody asks; what the seed promises is known to all before the next one asks.
        for me in 1..=RECEIVERS {
            for other in (0..=RECEIVERS).filter(|other| *other != me) {
                if other == SEED && sent >= seed_sends {
                    continue;
                }
                let asked = plans[me as usize].requests(other, now, |below| random.random_range(0..below));
                for piece in asked {
                    let host = &mut hosts[other as usize];
                    host.queues.entry(me).or_default().push_back(piece);
                    if !host.turns.contains(&me) {
                        host.turns.push_back(me);
                    }
                    if other == SEED {
                        for third in (1..=RECEIVERS).filter(|third| *third != me) {
                            plans[third as usize].promised(piece);
                        }
                    }
                }
            }
        }
        for (at, host) in hosts.iter_mut().enumerate() {
            if host.sending.is_some() || (at == SEED as usize && sent >= seed_sends) {
                continue;
            }
            let Some(asker) = host.turns.pop_front() else { continue };
            let Some(queue) = host.queues.get_mut(&asker) else { continue };
            if let Some(piece) = queue.pop_front() {
                host.sending = Some((asker, piece, now + EACH));
            }
            if !queue.is_empty() {
                host.turns.push_back(asker);
            }
        }
        let next = hosts.iter().enumerate().filter_map(|(at, host)| Some((host.sending?.2, at))).min();
        let Some((at, from)) = next else { break };
        now = at;
        let Some((to, piece, _)) = hosts[from].sending.take() else { break };
        if from == SEED as usize {
            sent += 1;
            if sent == seed_sends {
                plans.iter_mut().skip(1).for_each(|plan| plan.leave(SEED));
            }
        }
        let wanted = plans[to as usize].arrived(from as u32, piece, now) == Arrival::Wanted;
        if wanted && hosts[to as usize].has.insert(piece) {
            for third in (1..=RECEIVERS).filter(|third| *third != to) {
                plans[third as usize].gained(to, [piece]);
            }
        }
    }
    let whole = hosts.iter().skip(1).filter(|host| host.has.len() == PIECES as usize).count();
    Run {
        took: (now - began).as_secs_f64() / (EACH * PIECES).as_secs_f64(),
        copies: f64::from(sent) / f64::from(PIECES),
        whole,
    }
}

#[test]
fn eight_receivers_are_done_hardly_later_than_one_would_be() {
    for random in 0..5 {
        let Run { took, copies, whole } = run(random, u32::MAX);
        println!("random {random}: {took:.2} of the time for one copy, the seed sent {copies:.2} copies");
        assert_eq!(whole, RECEIVERS as usize);
        assert!(took <= 1.15, "{took}");
        assert!(copies <= 1.15, "{copies}");
    }
}

#[test]
fn the_seed_may_go_when_everything_is_out() {
    for random in 0..5 {
        let run = run(random, PIECES + PIECES / 20);
        assert_eq!(run.whole, RECEIVERS as usize, "random {random}");
    }
}
