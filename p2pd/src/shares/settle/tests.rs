//! Waiting, against tables and against a model of what a file's writers do.

use proptest::prelude::*;

use super::*;

const WAITS: Waits =
    Waits { debounce: Duration::from_millis(100), open_grace: Duration::from_millis(10_000) };

/// A pending list with a clock in milliseconds.
struct Clocked {
    start: Instant,
    pending: Pending,
}

impl Clocked {
    fn new() -> Clocked {
        Clocked { start: Instant::now(), pending: Pending::new(WAITS) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// The milliseconds at which the only name is due, and why.
    fn due(&mut self) -> Option<(u64, Cause)> {
        let at = self.pending.next_at()?;
        assert_eq!(self.pending.take(at - Duration::from_nanos(1), 9), []);
        let due = self.pending.take(at, 9).pop().unwrap();
        Some(((at - self.start).as_millis() as u64, due.cause))
    }
}

type Event = (u64, fn(&mut Pending, Instant));

fn due_after(events: &[Event]) -> Option<(u64, Cause)> {
    let mut clocked = Clocked::new();
    for (ms, event) in events {
        let now = clocked.at(*ms);
        event(&mut clocked.pending, now);
    }
    clocked.due()
}

#[test]
fn each_story_is_looked_at_when_it_should_be() {
    let created: fn(&mut Pending, Instant) = |p, now| p.created("a", now);
    let written: fn(&mut Pending, Instant) = |p, now| p.written("a", now);
    let closed: fn(&mut Pending, Instant) = |p, now| p.closed("a", now);
    let touched: fn(&mut Pending, Instant) = |p, now| p.touched("a", now);
    let sighted: fn(&mut Pending, Instant) = |p, now| p.sighted("a", now);
    let left: fn(&mut Pending, Instant) = |p, now| p.left("a", now);
    let arrived: fn(&mut Pending, Instant) = |p, now| p.arrived("a", now);
    let lost: fn(&mut Pending, Instant) = |p, now| p.signs_lost(now, Duration::from_secs(2));
    let renamed = || Cause::Renamed { from: None };
    let table: &[(&str, &[Event], (u64, Cause))] = &[
        ("a link", &[(0, created)], (100, Cause::Created)),
        ("copied in", &[(0, created), (1, written), (5, closed)], (105, Cause::Closed)),
        ("copied in with its times", &[(0, written), (5, closed), (6, touched)], (106, Cause::Closed)),
        ("slowly written", &[(0, written), (3000, written)], (13_000, Cause::Sighted)),
        ("opened again", &[(0, closed), (50, written)], (10_050, Cause::Sighted)),
        ("touched while open", &[(0, written), (50, touched)], (10_000, Cause::Sighted)),
        ("scanned while open", &[(0, written), (50, sighted)], (10_000, Cause::Sighted)),
        ("created while open", &[(0, written), (50, created)], (10_000, Cause::Sighted)),
        ("scanned", &[(7, sighted)], (7, Cause::Sighted)),
        ("scanned after its closing", &[(0, closed), (50, sighted)], (100, Cause::Closed)),
        ("touched", &[(0, touched), (50, touched)], (150, Cause::Sighted)),
        ("renamed into place", &[(0, arrived), (1, touched)], (101, renamed())),
        ("deleted while open", &[(0, written), (50, left)], (150, Cause::Sighted)),
        ("closing unseen", &[(0, written), (50, lost)], (2050, Cause::Sighted)),
        ("closing unseen, soon due", &[(0, written), (9000, lost)], (10_000, Cause::Sighted)),
    ];
    for (story, events, expected) in table {
        assert_eq!(due_after(events), Some(expected.clone()), "{story}");
    }
}

#[test]
fn a_rename_takes_its_writer_along() {
    let mut clocked = Clocked::new();
    let now = clocked.at(0);
    clocked.pending.written("a", now);
    clocked.pending.left("a", now);
    clocked.pending.arrived("b", now);
    clocked.pending.renamed("a", "b", now);
    assert!(clocked.pending.is_open("b"));
    let due = clocked.pending.take(clocked.at(200), 9);
    assert_eq!(due.iter().map(|due| &*due.name).collect::<Vec<_>>(), ["a"]);
    let mut clocked = Clocked::new();
    clocked.pending.left("a", now);
    clocked.pending.renamed("a", "b", now);
    let due = clocked.pending.take(clocked.at(200), 9);
    assert_eq!(due[1].cause, Cause::Renamed { from: Some("a".into()) });
}

#[test]
fn what_happens_during_a_look_leads_to_another() {
    let mut clocked = Clocked::new();
    clocked.pending.sighted("a", clocked.at(0));
    let due = clocked.pending.take(clocked.at(0), 9).pop().unwrap();
    clocked.pending.closed("a", clocked.at(10));
    assert_eq!(clocked.pending.take(clocked.at(500), 9), [], "not while it is looked at");
    clocked.pending.again(&due, Cause::Sighted, clocked.at(20), Duration::from_secs(9));
    assert_eq!(clocked.due(), Some((110, Cause::Closed)), "what happened counts before what was found");
}

#[test]
fn a_claim_supersedes_a_look() {
    let mut clocked = Clocked::new();
    clocked.pending.sighted("a", clocked.at(0));
    let look = clocked.pending.take(clocked.at(0), 9).pop().unwrap();
    let claim = clocked.pending.claim("a");
    assert!(!clocked.pending.is_current("a", look.ticket));
    clocked.pending.finish("a", look.ticket);
    assert!(clocked.pending.is_current("a", claim.ticket), "the look that was superseded ends nothing");
    clocked.pending.finish("a", claim.ticket);
    assert_eq!((clocked.pending.len(), clocked.pending.next_at()), (0, None));
    // A claim takes a name that waits out of its turn, and what it waited for still comes.
    clocked.pending.closed("b", clocked.at(0));
    let claim = clocked.pending.claim("b");
    assert_eq!(clocked.pending.next_at(), None);
    clocked.pending.finish("b", claim.ticket);
    assert_eq!(clocked.due(), Some((100, Cause::Closed)));
}

/// What is due after these events, each at its time: its cause, and whether somebody may be writing it unseen.
fn unsure_after(events: &[Event]) -> (Cause, bool) {
    let mut clocked = Clocked::new();
    for (ms, event) in events {
        let now = clocked.at(*ms);
        event(&mut clocked.pending, now);
    }
    let due = clocked.pending.take(clocked.at(60_000), 9).pop().unwrap();
    assert_eq!(&*due.name, "b");
    (due.cause, due.is_unsure)
}

#[test]
fn what_nobody_vouches_for_is_not_taken_for_closed_after_signs_were_passed_over() {
    let passed: fn(&mut Pending, Instant) = |p, now| assert!(p.passed_over(now));
    let sighted: fn(&mut Pending, Instant) = |p, now| p.sighted("b", now);
    let written: fn(&mut Pending, Instant) = |p, now| p.written("b", now);
    let closed: fn(&mut Pending, Instant) = |p, now| p.closed("b", now);
    let touched: fn(&mut Pending, Instant) = |p, now| p.touched("b", now);
    let left: fn(&mut Pending, Instant) = |p, now| p.left("b", now);
    let again: fn(&mut Pending, Instant) = |p, now| {
        let due = p.take(now, 9).pop().unwrap();
        p.again(&due, Cause::Sighted, now, Duration::from_millis(10));
    };
    // What is renamed to `b` comes before it in the order of names, and in time.
    let closed_a: fn(&mut Pending, Instant) = |p, now| p.closed("a", now);
    let written_a: fn(&mut Pending, Instant) = |p, now| p.written("a", now);
    let sighted_a: fn(&mut Pending, Instant) = |p, now| p.sighted("a", now);
    let left_a: fn(&mut Pending, Instant) = |p, now| p.left("a", now);
    let renamed: fn(&mut Pending, Instant) = |p, now| {
        p.arrived("b", now);
        p.renamed("a", "b", now + Duration::from_millis(1));
    };
    let was_renamed = || Cause::Renamed { from: Some("a".into()) };
    let table: &[(&str, &[Event], (Cause, bool))] = &[
        ("scanned", &[(0, passed), (1, sighted)], (Cause::Sighted, true)),
        ("scanned before", &[(0, sighted), (1, passed)], (Cause::Sighted, false)),
        (
            "scanned when even an open file is believed",
            &[(0, passed), (10_000, sighted)],
            (Cause::Sighted, false),
        ),
        ("closed in time", &[(0, passed), (1, sighted), (2, closed)], (Cause::Closed, false)),
        ("known to be open", &[(0, passed), (1, sighted), (2, written)], (Cause::Sighted, false)),
        ("touched", &[(0, passed), (1, touched)], (Cause::Sighted, true)),
        ("touched when scanned", &[(0, passed), (1, sighted), (20_000, touched)], (Cause::Sighted, true)),
        ("replaced", &[(0, passed), (1, left)], (Cause::Sighted, true)),
        ("looked at too early", &[(0, passed), (1, sighted), (20_000, again)], (Cause::Sighted, true)),
        ("renamed, and nothing known", &[(0, passed), (1, renamed)], (was_renamed(), true)),
        (
            "renamed, and scanned before",
            &[(0, passed), (1, sighted_a), (2, left_a), (3, renamed)],
            (was_renamed(), true),
        ),
        (
            "renamed, and closed before",
            &[(0, passed), (1, closed_a), (2, left_a), (3, renamed)],
            (was_renamed(), false),
        ),
        (
            "renamed while open",
            &[(0, passed), (1, written_a), (2, left_a), (3, renamed)],
            (Cause::Sighted, false),
        ),
        ("renamed, nothing passed over", &[(1, left_a), (3, renamed)], (was_renamed(), false)),
    ];
    for (story, events, expected) in table {
        assert_eq!(unsure_after(events), *expected, "{story}");
    }
    let mut clocked = Clocked::new();
    let news: Vec<bool> = [0, 9999, 19_998, 29_998]
        .map(|ms| clocked.pending.passed_over(clocked.start + Duration::from_millis(ms)))
        .into();
    assert_eq!(news, [true, false, false, true]);
}

#[derive(Debug, Clone, Copy)]
enum Do {
    Created,
    Written,
    Closed,
    Touched,
    Sighted,
    Left,
    Arrived,
    Renamed,
    Lost,
    PassedOver,
    Claim,
    Take,
    Finish,
    Again,
    StillOpen,
}

const ALL: [Do; 15] = [
    Do::Created,
    Do::Written,
    Do::Closed,
    Do::Touched,
    Do::Sighted,
    Do::Left,
    Do::Arrived,
    Do::Renamed,
    Do::Lost,
    Do::PassedOver,
    Do::Claim,
    Do::Take,
    Do::Finish,
    Do::Again,
    Do::StillOpen,
];

proptest! {
    /// Whatever happens, in whatever order: nothing is forgotten, nothing is looked at twice at once, and the last
    /// event of a file is followed by a look.
    #[test]
    fn nothing_is_forgotten(story in prop::collection::vec((prop::sample::select(&ALL[..]), 0usize..3, 0u64..300), 0..80)) {
        let mut clocked = Clocked::new();
        let names = ["a", "b", "c"];
        let mut busy: Vec<Due> = Vec::new();
        // Names of which something happened that no look has begun after.
        let mut owed: BTreeSet<&str> = BTreeSet::new();
        let mut ms = 0;
        for (what, at, pause) in story {
            ms += pause;
            let (now, name) = (clocked.at(ms), names[at]);
            let pending = &mut clocked.pending;
            match what {
                Do::Created => pending.created(name, now),
                Do::Written => pending.written(name, now),
                Do::Closed => pending.closed(name, now),
                Do::Touched => pending.touched(name, now),
                Do::Sighted => pending.sighted(name, now),
                Do::Left => pending.left(name, now),
                Do::Arrived => pending.arrived(name, now),
                Do::Renamed => pending.renamed(names[(at + 1) % 3], name, now),
                Do::Lost => pending.signs_lost(now, Duration::from_secs(2)),
                Do::PassedOver => drop(pending.passed_over(now)),
                Do::Claim => {
                    busy.retain(|due| &*due.name != name);
                    busy.push(pending.claim(name));
                }
                Do::Take => {
                    for due in pending.take(now, 2) {
                        prop_assert!(busy.iter().all(|other| other.name != due.name), "{due:?}");
                        owed.remove(&*due.name);
                        busy.push(due);
                    }
                }
                Do::Finish | Do::Again | Do::StillOpen => {
                    if let Some(at) = busy.iter().position(|due| &*due.name == name) {
                        let due = busy.swap_remove(at);
                        match what {
                            Do::Finish => pending.finish(name, due.ticket),
                            Do::Again => {
                                pending.again(&due, due.cause.clone(), now, Duration::from_millis(50));
                                owed.insert(name);
                            }
                            _ => {
                                pending.still_open(name, due.ticket, now);
                                owed.insert(name);
                            }
                        }
                    }
                }
            }
            let is_sign = !matches!(
                what,
                Do::Lost | Do::PassedOver | Do::Claim | Do::Take | Do::Finish | Do::Again | Do::StillOpen
            );
            if is_sign {
                owed.insert(name);
            }
        }
        for due in busy {
            clocked.pending.finish(&due.name, due.ticket);
        }
        let last = clocked.at(ms) + WAITS.open_grace;
        let looked: BTreeSet<Arc<str>> = clocked.pending.take(last, 9).into_iter().map(|due| due.name).collect();
        let owed: BTreeSet<Arc<str>> = owed.into_iter().map(Arc::from).collect();
        prop_assert_eq!(looked, owed);
        prop_assert_eq!(clocked.pending.next_at(), None);
    }
}
