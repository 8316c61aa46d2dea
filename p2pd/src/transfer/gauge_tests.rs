//! What is collected of a run, with a clock in the hand.

use super::*;

const SEC: Duration = Duration::from_secs(1);

fn peer() -> PeerRef {
    PeerRef::Plain { rest_url: "http://127.0.0.1:1".to_owned(), grpc_port: 1 }
}

fn nothing() -> Missing {
    Missing::default()
}

#[test]
fn a_window_reaches_back_ten_seconds_and_no_further() {
    let (gauge, work) = (Gauge::default(), Arc::new(Work::default()));
    let pulling = gauge.pulls(Arc::clone(&work));
    let mut watch = pulling.joined(1, &peer());
    let start = Instant::now();
    let at = |secs: u32| start + secs * SEC;
    watch.turn(Doing::Bytes);
    for secs in 1..=20 {
        watch.received(5);
        work.wrote(5, SEC / 100);
        pulling.look(at(secs), nothing, |key| key as usize);
        // Of this second there is a sample.
        pulling.look(at(secs) + SEC / 2, nothing, |key| key as usize);
    }
    let window = gauge.window(at(21), Cpu::default());
    assert_eq!(window.over, 11 * SEC, "from the last sample that is ten seconds before the newest");
    assert_eq!((window.spent.received, window.worked.written), (50, 50));
    let [source] = window.sources.as_slice() else { panic!("{window:?}") };
    assert_eq!((source.doing, source.open, source.spent.received), (Doing::Bytes, 1, 50));
    let waited = source.spent.with(Doing::Bytes);
    assert!(waited == 11 * SEC && waited == window.spent.all(), "{waited:?}");
    assert!(source.since > 20 * SEC, "{:?}", source.since);
}

#[test]
fn who_left_counts_for_the_whole_and_is_no_longer_shown() {
    let gauge = Gauge::default();
    let pulling = gauge.pulls(Arc::default());
    pulling.joined(1, &peer()).received(7);
    pulling.joined(2, &peer()).received(8);
    pulling.left(1);
    let window = gauge.window(Instant::now(), Cpu::now());
    assert_eq!((window.spent.received, window.sources.len()), (15, 1));
}

/// A directory's short files and each of its long ones come by runs of their own.
#[test]
fn a_peer_that_several_runs_ask_is_one_source() {
    let gauge = Gauge::default();
    let (short, long) = (gauge.pulls(Arc::default()), gauge.pulls(Arc::default()));
    let (mut one, mut other) = (short.joined(1, &peer()), long.joined(1, &peer()));
    one.turn(Doing::Idle);
    other.turn(Doing::Bytes);
    one.received(1);
    other.received(8);
    let now = Instant::now() + SEC;
    short.look(now, nothing, |_| 2);
    long.look(now, nothing, |_| 3);
    let window = gauge.window(now, Cpu::now());
    let [source] = window.sources.as_slice() else { panic!("{window:?}") };
    assert_eq!((source.doing, source.open, source.spent.received), (Doing::Bytes, 5, 9));
}

#[test]
fn what_was_measured_in_all_runs_is_known_at_the_end() {
    let gauge = Gauge::default();
    for _ in 0..2 {
        let work = Arc::new(Work::default());
        let pulling = gauge.pulls(Arc::clone(&work));
        pulling.joined(1, &peer()).received(10);
        work.proved(10, SEC);
        work.flushed(SEC);
        let rare = || Missing { pieces: 9, rare: 4 };
        pulling.look(Instant::now() + SEC, rare, |_| 0);
        drop(pulling);
        let between = gauge.window(Instant::now(), Cpu::now());
        assert_eq!((between.over, between.phase, between.missing.rare), (Duration::ZERO, Phase::Rests, 4));
    }
    let overall = gauge.overall();
    assert_eq!((overall.spent.received, overall.worked.proved, overall.worked.flushing), (20, 20, 2 * SEC));
    assert!(overall.over >= 2 * SEC && overall.spent.all() > Duration::ZERO, "{overall:?}");
}

#[test]
fn a_run_whose_sources_are_all_gone_lacks_more_than_rare_pieces() {
    let gauge = Gauge::default();
    let pulling = gauge.pulls(Arc::default());
    pulling.joined(1, &peer());
    pulling.look(Instant::now() + SEC, || Missing { pieces: 9, rare: 4 }, |_| 0);
    pulling.left(1);
    drop(pulling);
    let lacks = || gauge.window(Instant::now(), Cpu::now()).missing;
    assert_eq!(lacks(), Missing { pieces: 9, rare: 0 });
    let pulling = gauge.pulls(Arc::default());
    pulling.joined(2, &peer());
    pulling.look(Instant::now() + SEC, || Missing { pieces: 9, rare: 4 }, |_| 0);
    drop(pulling);
    assert_eq!(lacks().rare, 4);
    gauge.found_nobody();
    assert_eq!(lacks().rare, 0);
}

#[test]
fn a_wait_lasts_until_bytes_come_or_it_is_for_something_else() {
    let gauge = Gauge::default();
    let waits = || gauge.overall().waits;
    gauge.waits(1000, 2 * SEC, false);
    gauge.waits(3000, 4 * SEC, false);
    assert_eq!(waits(), Some(Waits { since_ms: 1000, tries: 2, next_ms: 7000, is_full: false }));
    gauge.waits(9000, SEC, true);
    assert_eq!(waits(), Some(Waits { since_ms: 9000, tries: 1, next_ms: 10_000, is_full: true }));
    gauge.pulls(Arc::default()).got();
    assert_eq!(waits(), None);
}

#[test]
fn what_was_hashed_again_adds_up_and_is_news_once() {
    let gauge = Gauge::default();
    let first = Resumed { remembered: 5, hashed: 2, hashed_bytes: 200, proven: 1 };
    assert!(gauge.resumed(first));
    assert!(!gauge.resumed(Resumed { remembered: 8, ..Resumed::default() }));
    assert!(!gauge.resumed(Resumed { remembered: 9, ..first }));
    let sum = Resumed { remembered: 5, hashed: 4, hashed_bytes: 400, proven: 2 };
    assert_eq!(gauge.overall().resumed, Some(sum));
}

#[test]
fn the_rate_is_of_the_last_seconds() {
    let (gauge, start) = (Gauge::default(), Instant::now());
    assert_eq!(gauge.progressed(100, start), 0.0);
    assert_eq!(gauge.progressed(300, start + SEC), 200.0);
    for secs in 2..10_u32 {
        gauge.progressed(300, start + secs * SEC);
    }
    assert_eq!(gauge.progressed(300, start + 10 * SEC), 0.0);
    gauge.paused();
    assert_eq!(gauge.progressed(900, start + 11 * SEC), 0.0, "what came before says nothing");
}
