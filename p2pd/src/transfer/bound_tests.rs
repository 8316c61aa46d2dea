//! Each verdict from what must lead to it, and what is said then.

use p2p_proto::control::PeerName;

use super::super::fetch::fresh;
use super::super::gauge::{Missing, Waits};
use super::super::measure::Cpu;
use super::*;

const MIB: u64 = 1 << 20;
const SEC: Duration = Duration::from_secs(1);

fn transfer(state: TransferState) -> Transfer {
    let name = p2p_content::FileName::parse("isos/grande.bin").unwrap();
    Transfer { id: 7, state, ..fresh(name, None, Some(100 * MIB)) }
}

fn source(name: &str, doing: Doing, spent: &[(Doing, Duration)], mib: u64, open: usize) -> SourceWindow {
    let peer = PeerName { peer_id: None, name: name.to_owned() };
    SourceWindow { peer, doing, since: SEC, spent: Spent::of(spent, mib * MIB), open }
}

/// Ten seconds of these sources.
fn pulling(sources: Vec<SourceWindow>) -> Window {
    let spent = sources.iter().fold(Spent::default(), |sum, source| sum + source.spent);
    let missing = Missing { pieces: 40, rare: 0 };
    Window { over: 10 * SEC, phase: Phase::Pulls, spent, sources, missing, ..Window::default() }
}

fn seen<'a>(transfer: &'a Transfer, window: &'a Window) -> Seen<'a> {
    Seen { transfer, window, cores: 2, limit: 0, peer_limits: &[], running: 0, now_ms: 1_000_000 }
}

/// The verdict on a transfer that runs, and the sentence.
fn of(window: &Window) -> (Bound, String) {
    let transfer = transfer(TransferState::Running);
    let seen = seen(&transfer, window);
    let verdict = judge(&seen);
    assert_eq!(verdict.1, None, "it has not ended");
    (verdict.0, say(&seen, verdict))
}

fn assert_says(window: &Window, bound: Bound, words: &[&str]) {
    let (verdict, text) = of(window);
    assert_eq!(verdict, bound, "{text}");
    for word in ["transfer 7 (isos/grande.bin)"].iter().chain(words) {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

#[test]
fn sources_that_owe_bytes_are_bound_by_the_network() {
    let waits = [(Doing::Bytes, 9 * SEC), (Doing::Sink, SEC)];
    let mut window = pulling(vec![
        source("ana", Doing::Bytes, &waits, 60, 20),
        source("bea", Doing::Bytes, &waits, 52, 11),
    ]);
    window.worked = Worked { written: 112 * MIB, writing: SEC / 4, ..Worked::default() };
    assert_says(
        &window,
        Bound::Network,
        &[
            "2 sources have 31 requests open and give 11 MiB/s together",
            "the disk takes 448 MiB/s when it is asked",
        ],
    );
    window.sources.pop();
    assert_says(&window, Bound::Network, &["ana has 20 requests open and gives 11 MiB/s"]);
}

#[test]
fn a_thread_without_rest_is_why_bytes_are_waited_for() {
    let mut window = pulling(vec![source("ana", Doing::Bytes, &[(Doing::Bytes, 10 * SEC)], 100, 2)]);
    window.cpu = Cpu { network: Duration::from_millis(8900), daemon: 10 * SEC };
    assert_eq!(of(&window).0, Bound::Network);
    window.cpu.network = Duration::from_millis(9700);
    assert_says(&window, Bound::Cpu, &["busy 97 % of the time", "1.0 of 2 cores busy", "10 MiB/s"]);
    window.cpu = Cpu { network: SEC, daemon: 19 * SEC };
    assert_eq!(of(&window).0, Bound::Cpu, "all processors are busy with it");
}

#[test]
fn what_waits_for_the_sink_waits_for_what_the_sink_does() {
    let waits = [(Doing::Sink, 8 * SEC), (Doing::Bytes, 2 * SEC)];
    let mut window = pulling(vec![source("ana", Doing::Sink, &waits, 200, 4)]);
    window.worked =
        Worked { proved: 200 * MIB, proving: SEC, written: 200 * MIB, writing: 10 * SEC, flushing: 2 * SEC };
    assert_says(
        &window,
        Bound::Disk,
        &["takes 20 MiB/s when it is asked", "73 % of the time", "2.0 s of flushing"],
    );
    (window.worked.proving, window.worked.writing) = (10 * SEC, SEC);
    assert_says(&window, Bound::Cpu, &["a thread proves 20 MiB/s"]);
    window.worked = Worked::default();
    assert_eq!(of(&window).0, Bound::Disk, "a disk that does not answer at all");
}

#[test]
fn a_limit_is_named_with_whose_it_is() {
    let ours = pulling(vec![source("ana", Doing::OurLimit, &[(Doing::OurLimit, 10 * SEC)], 10, 1)]);
    let transfer = transfer(TransferState::Running);
    let seen = Seen { limit: MIB, ..seen(&transfer, &ours) };
    let verdict = judge(&seen);
    assert_eq!(verdict.0, Bound::OurLimit);
    let text = say(&seen, verdict);
    let said = "own limit of 1.0 MiB/s for all that it fetches";
    assert!(text.contains(said) && text.contains("p2pctl limit --down"), "{text}");
    let theirs = pulling(vec![
        source("ana", Doing::TheirLimit, &[(Doing::TheirLimit, 9 * SEC)], 10, 2),
        source("bea", Doing::Bytes, &[(Doing::Bytes, 8 * SEC)], 10, 2),
    ]);
    assert_says(&theirs, Bound::TheirLimit, &["1 of 2 say", "2.0 MiB/s together"]);
}

#[test]
fn the_limit_of_a_single_peer_is_not_taken_for_that_of_all() {
    let held = |name: &str, time| {
        let mut source = source(name, Doing::OurLimitForIt, &[(Doing::OurLimitForIt, time)], 10, 1);
        source.peer.peer_id = Some(format!("id of {name}"));
        source
    };
    let of = |name: &str, down_bytes_per_sec| PeerLimit {
        peer: PeerName { peer_id: Some(format!("id of {name}")), name: "as it was called then".to_owned() },
        up_bytes_per_sec: 7,
        down_bytes_per_sec,
    };
    let limits = [of("ana", MIB), of("bea b", 2 * MIB)];
    let transfer = transfer(TransferState::Running);
    let mut window = pulling(vec![held("ana", 9 * SEC)]);
    let say = |window: &Window| {
        let seen = Seen { limit: 20 * MIB, peer_limits: &limits, ..seen(&transfer, window) };
        let verdict = judge(&seen);
        assert_eq!(verdict.0, Bound::OurLimit);
        (seen.limit_of(&window.sources[0]), say(&seen, verdict))
    };
    let (limit, text) = say(&window);
    assert_eq!(limit, MIB);
    assert!(text.contains("bound by this peer's own limit of 1.0 MiB/s for what comes from ana: "), "{text}");
    assert!(text.contains("`p2pctl limit --peer ana --down RATE`") && !text.contains("20 MiB"), "{text}");
    window = pulling(vec![held("ana", 4 * SEC), held("bea b", 9 * SEC)]);
    let (_, text) = say(&window);
    assert!(text.contains("for what comes from bea b of 2.0 MiB/s, ana of 1.0 MiB/s: "), "{text}");
    assert!(text.contains("`p2pctl limit --peer id of bea b --down RATE`"), "by its ID: {text}");
    // That of all holds longer.
    let both = [(Doing::OurLimitForIt, 4 * SEC), (Doing::OurLimit, 5 * SEC)];
    window = pulling(vec![source("ana", Doing::OurLimit, &both, 10, 1)]);
    let (_, text) = say(&window);
    assert!(text.contains("own limit of 20 MiB/s") && !text.contains("--peer"), "{text}");
}

#[test]
fn who_has_lost_nobody_has_just_begun() {
    let connecting = source("ana", Doing::Connecting, &[(Doing::Connecting, SEC)], 0, 0);
    assert_says(&pulling(vec![connecting]), Bound::Starting, &["has just begun"]);
    assert_says(&pulling(Vec::new()), Bound::Starting, &[]);
    let mut window = pulling(Vec::new());
    window.spent.received = 1;
    assert_eq!(of(&window).0, Bound::NoSources, "somebody was there");
}

#[test]
fn pieces_that_nobody_has_bind_when_nothing_else_is_asked() {
    let idle = source("ana", Doing::Idle, &[(Doing::Bytes, 6 * SEC), (Doing::Idle, 4 * SEC)], 9, 0);
    let mut window = pulling(vec![idle.clone()]);
    assert_eq!(of(&window).0, Bound::Network, "what is left is asked of others");
    window.missing.rare = 12;
    assert_says(&window, Bound::RarePieces, &["12 pieces of 40 that are missing", "1 source is asked"]);
    window.sources.push(source("bea", Doing::Bytes, &[(Doing::Bytes, SEC)], 1, 1));
    assert_eq!(of(&window).0, Bound::Network, "there is something to get yet");
}

#[test]
fn who_has_no_source_hears_what_was_tried() {
    let mut transfer = transfer(TransferState::Waiting);
    transfer.reason = Some("nobody who can be reached has it now".to_owned());
    let waits = Waits { since_ms: 280_000, tries: 14, next_ms: 1_008_000, is_full: false };
    let mut window = Window { waits: Some(waits), ..Window::default() };
    let verdict = judge(&seen(&transfer, &window));
    assert_eq!(verdict.0, Bound::NoSources);
    let text = say(&seen(&transfer, &window), verdict);
    assert!(text.contains("has no source for 12 min: 14 tries, the next in 8.0 s; nobody who can"), "{text}");
    // The same while the next try is under way.
    transfer.state = TransferState::Running;
    window.phase = Phase::Looks;
    assert_eq!(judge(&seen(&transfer, &window)).0, Bound::NoSources);
    window.phase = Phase::Pulls;
    window.sources.push(source("ana", Doing::Connecting, &[(Doing::Connecting, SEC)], 0, 0));
    assert_eq!(judge(&seen(&transfer, &window)).0, Bound::NoSources);
    window.missing.rare = 3;
    (transfer.state, window.phase) = (TransferState::Waiting, Phase::Rests);
    assert_eq!(judge(&seen(&transfer, &window)).0, Bound::RarePieces, "somebody was there, without these");
}

#[test]
fn what_does_not_run_says_why() {
    let waits = Waits { since_ms: 0, tries: 1, next_ms: 0, is_full: true };
    let full = Window { waits: Some(waits), ..Window::default() };
    let rests = Window::default();
    let mut paused = transfer(TransferState::Paused);
    paused.reason = Some("it needs 9 bytes, and 8 are free".to_owned());
    assert_eq!(judge(&seen(&paused, &full)).0, Bound::DiskFull);
    assert!(say(&seen(&paused, &full), (Bound::DiskFull, None)).contains("8 are free"));
    assert_eq!(judge(&seen(&paused, &rests)).0, Bound::Failure);
    let running = transfer(TransferState::Running);
    let again = Window { phase: Phase::Prepares, ..full.clone() };
    assert_eq!(judge(&seen(&running, &again)).0, Bound::DiskFull, "it is tried again");
    let held = Transfer { held: true, ..paused };
    assert_eq!(judge(&seen(&held, &full)).0, Bound::Paused);
    let queued = transfer(TransferState::Queued);
    let seen_queued = Seen { running: 3, ..seen(&queued, &rests) };
    assert_eq!(judge(&seen_queued).0, Bound::Queued);
    assert!(say(&seen_queued, (Bound::Queued, None)).contains("3 other transfers run now"));
}

#[test]
fn before_and_after_the_pieces_it_is_the_disk() {
    for (phase, bound) in [
        (Phase::Rests, Bound::Starting),
        (Phase::Looks, Bound::Starting),
        (Phase::Prepares, Bound::Disk),
        (Phase::Publishes, Bound::Disk),
        (Phase::Plain, Bound::Network),
    ] {
        assert_says(&Window { phase, ..Window::default() }, bound, &[]);
    }
}

#[test]
fn what_has_ended_says_what_bounded_it() {
    let done = transfer(TransferState::Done);
    let mut window = pulling(vec![source("ana", Doing::Idle, &[(Doing::OurLimit, 9 * SEC)], 90, 0)]);
    (window.sources, window.phase) = (Vec::new(), Phase::Rests);
    let verdict = judge(&seen(&done, &window));
    assert_eq!(verdict, (Bound::Ended, Some(Bound::OurLimit)));
    let text = say(&seen(&done, &window), verdict);
    assert!(
        text.contains("is done; it was bound by this peer's own limit, 100 % of 10.0 s, and got 9.0 MiB/s"),
        "{text}"
    );
    let nothing = Window::default();
    let verdict = judge(&seen(&done, &nothing));
    assert_eq!(verdict, (Bound::Ended, None));
    assert!(say(&seen(&done, &nothing), verdict).contains("not known any more"));
}

#[test]
fn the_shares_are_parts_of_one() {
    let spent = Spent::of(
        &[
            (Doing::Connecting, SEC),
            (Doing::Bytes, 2 * SEC),
            (Doing::TheirLimit, SEC),
            (Doing::OurLimit, SEC),
            (Doing::Sink, 4 * SEC),
            (Doing::Idle, SEC),
        ],
        0,
    );
    let worked = Worked { proving: SEC, writing: 3 * SEC, ..Worked::default() };
    let shares = shares(&spent, &worked);
    let TimeShares { bytes, their_limit, our_limit, disk, proofs, connecting, idle } = shares;
    assert_eq!((bytes, their_limit, our_limit, connecting, idle), (0.2, 0.1, 0.1, 0.1, 0.1));
    assert!((disk - 0.3).abs() < 1e-9 && (proofs - 0.1).abs() < 1e-9, "{shares:?}");
}
