//! A source at the other end of a long way, which could give as much as anybody near: a satellite is between them. Time is
//! simulated: what is asked for takes half of the round trip to get there, one piece after the other goes out at the link's
//! rate, and each takes the other half.

use std::collections::VecDeque;

use super::*;

/// Time that the link needs for a piece: 1 MiB at 100 Mbit/s.
const EACH: Duration = Duration::from_millis(84);
/// How long after the first request its rate is looked at, and for how long.
const AFTER: Duration = Duration::from_secs(8);
const LOOKED_AT: Duration = Duration::from_secs(20);

/// The share of the link's rate that comes of a source that is so far away.
fn share(round_trip: Duration) -> f64 {
    let mut plan = Plan::new(&Bitmap::new(1000));
    plan.join(1);
    plan.has_all(1);
    plan.is_away(1, round_trip);
    let began = Instant::now();
    let (mut now, mut is_free_at, mut came) = (began, began, 0);
    let mut coming = VecDeque::new();
    loop {
        for piece in plan.requests(1, now, |_| 0) {
            is_free_at = is_free_at.max(now + round_trip / 2) + EACH;
            coming.push_back((piece, is_free_at + round_trip / 2));
        }
        let Some((piece, then)) = coming.pop_front() else { panic!("nothing is asked for") };
        now = then;
        if now > began + AFTER + LOOKED_AT {
            return (EACH * came).div_duration_f64(LOOKED_AT);
        }
        came += u32::from(now > began + AFTER);
        assert_eq!(plan.arrived(1, piece, now), Arrival::Wanted);
    }
}

#[test]
fn a_long_way_is_filled_as_a_short_one_is() {
    for ms in [1, 40, 150, 350, 600, 1200] {
        let share = share(Duration::from_millis(ms));
        println!("round trip of {ms} ms: {share:.2} of the link's rate");
        assert!(share >= 0.95, "round trip of {ms} ms: {share:.2} of the link's rate");
    }
}

#[test]
fn whoever_only_seemed_far_is_asked_for_no_more_than_others() {
    let (mut plan, mut now) = (Plan::new(&Bitmap::new(100)), Instant::now());
    plan.join(1);
    plan.has_all(1);
    // It was busy when it was connected with.
    plan.is_away(1, Duration::from_secs(4));
    for _ in 0..40 {
        let asked = plan.requests(1, now, |_| 0);
        now += EACH;
        plan.arrived(1, asked[0], now);
    }
    assert_eq!(plan.open(1) + plan.requests(1, now, |_| 0).len(), 4, "as many as take 300 ms");
}
