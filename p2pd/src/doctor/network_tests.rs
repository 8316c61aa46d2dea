use std::path::Path;

use p2p_proto::control::{PeerName, Relation};
use p2p_proto::diagnosis::Verdict::{self, Ok as Well, Problem, Skipped, Warning};

use super::*;

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_000 * HOUR;

fn status(state: MaestroState) -> MaestroStatus {
    MaestroStatus {
        address: "aula:9010".to_owned(),
        maestro_id: Some("id".to_owned()),
        name: Some("aula".to_owned()),
        state,
        since_ms: NOW - HOUR,
        detail: Some("connection refused".to_owned()),
        changes_pending: 3,
        membership_until_ms: Some(NOW + 100 * HOUR),
    }
}

fn verdicts(status: &MaestroStatus) -> Vec<Verdict> {
    maestros(std::slice::from_ref(status), NOW).iter().map(|check| check.verdict).collect()
}

#[test]
fn each_state_of_the_maestro_has_its_verdict() {
    use MaestroState::{Connecting, InSync, Refused, Syncing, Unreachable};
    for (state, is_new, verdict) in [
        (InSync, false, Well),
        (Syncing, true, Well),
        (Syncing, false, Warning),
        (Connecting, true, Warning),
        (Connecting, false, Problem),
        (Unreachable, true, Problem),
        (Refused, true, Problem),
    ] {
        let since_ms = if is_new { NOW } else { NOW - HOUR };
        assert_eq!(verdicts(&MaestroStatus { since_ms, ..status(state) }), [verdict, Well], "{state:?}");
    }
    let alone = maestros(&[], NOW);
    assert!(alone.len() == 1 && alone[0].verdict == Warning && alone[0].advice[0].contains("p2pctl join"));
    let unreachable = maestros(&[status(Unreachable)], NOW);
    assert!(unreachable[0].found.contains("connection refused") && unreachable[0].advice[1].contains("9010"));
}

#[test]
fn a_maestro_that_is_away_is_no_problem_while_another_one_of_its_network_serves() {
    use MaestroState::{InSync, Reserve, Unreachable};
    let of = |address: &str, id: &str, state| MaestroStatus {
        address: address.to_owned(),
        maestro_id: Some(id.to_owned()),
        ..status(state)
    };
    let one = [of("a:1", "x", Unreachable), of("b:1", "x", InSync), of("c:1", "x", Reserve)];
    let told: Vec<_> = maestros(&one, NOW).iter().map(|check| (check.name.clone(), check.verdict)).collect();
    let expected = [("maestro", Warning), ("membership", Well), ("maestro", Well), ("maestro", Well)];
    assert_eq!(told, expected.map(|(name, verdict)| (name.into(), verdict)));
    let two = [of("a:1", "x", Unreachable), of("b:1", "y", InSync)];
    let told: Vec<_> = maestros(&two, NOW).iter().map(|check| check.verdict).collect();
    assert_eq!(told, [Problem, Well, Well, Well]);
}

#[test]
fn a_membership_is_judged_by_its_end() {
    let ends = |state, until: Option<i64>| {
        verdicts(&MaestroStatus { membership_until_ms: until, ..status(state) })[1]
    };
    use MaestroState::{InSync, Unreachable};
    assert_eq!(ends(InSync, Some(NOW + HOUR)), Well, "it is being renewed");
    assert_eq!(ends(Unreachable, Some(NOW + HOUR)), Warning);
    assert_eq!(ends(Unreachable, Some(NOW - HOUR)), Problem);
    assert_eq!(ends(Unreachable, None), Skipped);
    assert_eq!(ends(InSync, None), Problem);
}

#[test]
fn clocks_may_differ_a_little() {
    let verdict = |seconds: i64| clock(Some(seconds * 1000)).verdict;
    assert_eq!([verdict(0), verdict(-29), verdict(31), verdict(-7200)], [Well, Well, Warning, Problem]);
    assert!(clock(Some(-40_000)).found.contains("40 s behind"));
    assert_eq!(clock(None).verdict, Skipped);
}

fn address(address: &str, outcome: Outcome) -> AddressCheck {
    AddressCheck {
        address: address.to_owned(),
        outcome: outcome.into(),
        message: "so it is".to_owned(),
        took_ms: 7,
    }
}

/// All that was looked at is announced.
fn reached(listens: &str, seen: &str, checks: &[(&str, Outcome)]) -> Check {
    let announced: Vec<&str> = checks.iter().map(|(text, _)| *text).collect();
    announcing(&announced, listens, seen, checks)
}

fn announcing(announced: &[&str], listens: &str, seen: &str, checks: &[(&str, Outcome)]) -> Check {
    let reach = Reach {
        checks: checks.iter().map(|(text, outcome)| address(text, *outcome)).collect(),
        announced: announced.iter().map(|text| (*text).to_owned()).collect(),
        seen: seen.to_owned(),
        clock_ahead_ms: 0,
        version: "0.1.0".to_owned(),
    };
    let none = Firewalls::at(Path::new("/no/such/root"));
    reachable(Ok(&reach), listens.parse().unwrap(), none)
}

#[test]
fn who_can_be_reached_is_told_by_whom_and_where() {
    use Outcome::{NotTried, Reachable, Refused};
    let well =
        reached("[::]:9002", "192.0.2.1", &[("192.0.2.1:9002", Reachable), ("10.0.0.1:9002", NotTried)]);
    assert_eq!(well.verdict, Well);
    assert!(well.found.contains("in 7 ms; not tried, being other hosts: 10.0.0.1:9002"), "{well:?}");
    let local = reached("[::]:9002", "127.0.0.1", &[("127.0.0.1:9002", Reachable)]);
    assert!(local.verdict == Well && local.found.contains("from this machine"), "{local:?}");
    let half = reached("[::]:9002", "192.0.2.1", &[("192.0.2.1:9002", Reachable), ("192.0.2.1:1", Refused)]);
    assert!(half.verdict == Warning && half.advice[0].contains("announce"), "{half:?}");
    assert_eq!(reached("[::]:9002", "192.0.2.1", &[("192.0.2.1:9002", NotTried)]).verdict, Skipped);
    assert_eq!(
        reachable(Err(&"why".to_owned()), "[::]:1".parse().unwrap(), Firewalls::at(Path::new("/x"))).verdict,
        Skipped
    );
}

#[test]
fn an_address_that_the_maestro_adds_is_no_fault_where_another_port_is_announced() {
    use Outcome::{NotTried, OtherPeer, Reachable, Refused, Silent};
    let (added, forwarded) = ("192.0.2.1:9002", "192.0.2.1:19002");
    for outcome in [Refused, Silent, OtherPeer] {
        let looks = [(added, outcome), (forwarded, Reachable)];
        for own in [forwarded, "[::ffff:192.0.2.1]:19002"] {
            let well = announcing(&[own], "[::]:9002", "192.0.2.1", &looks);
            assert!(well.verdict == Well && well.advice.is_empty(), "{well:?}");
            assert!(well.found.contains(forwarded) && !well.found.contains(added), "{well:?}");
        }
        let both = announcing(&[forwarded, added], "[::]:9002", "192.0.2.1", &looks);
        assert!(
            both.verdict == Warning && both.found.contains("not at 192.0.2.1:9002"),
            "it is announced: {both:?}"
        );
    }
    // The maestro looks up no names: of the address that counts nobody knows.
    let name = "ada.example:19002";
    let unknown = announcing(&[name], "[::]:9002", "192.0.2.1", &[(added, Refused), (name, NotTried)]);
    assert!(unknown.verdict == Skipped && unknown.found.contains(name), "{unknown:?}");
    let name = "ada.example:9002";
    let closed = announcing(&[name], "[::]:9002", "192.0.2.1", &[(added, Refused), (name, NotTried)]);
    assert_eq!(closed.verdict, Problem, "the port is the announced one");
    assert_eq!(announcing(&[], "[::]:9002", "192.0.2.1", &[(added, Refused)]).verdict, Problem);
    let wrong = announcing(&[forwarded], "[::]:9002", "192.0.2.1", &[(added, Refused), (forwarded, Refused)]);
    assert_eq!(wrong.verdict, Problem);
}

#[test]
fn who_cannot_be_reached_is_told_what_to_open() {
    use Outcome::{OtherPeer, Refused, Silent};
    for outcome in [Refused, Silent] {
        let check = reached("[::]:9002", "192.0.2.1", &[("192.0.2.1:9002", outcome)]);
        assert_eq!(check.verdict, Problem);
        for words in ["ufw allow 9002/tcp", "--add-port=9002/tcp", "dport 9002", "forward TCP port 9002"] {
            assert!(check.advice.iter().any(|advice| advice.contains(words)), "{words}: {check:?}");
        }
    }
    let other = reached("[::]:9002", "192.0.2.1", &[("192.0.2.1:9002", OtherPeer)]);
    assert!(other.verdict == Problem && other.advice[0].contains("another program"), "{other:?}");
    let local = reached("127.0.0.1:9002", "192.0.2.1", &[("192.0.2.1:9002", Refused)]);
    assert!(local.verdict == Problem && local.advice[0].contains("[grpc] listen"), "{local:?}");
}

#[test]
fn other_releases_are_named() {
    let peer = |name: &str, version: Option<&str>| PeerRow {
        peer: PeerName { peer_id: None, name: name.to_owned() },
        relation: Relation::Member,
        online: None,
        addresses: Vec::new(),
        rest: None,
        files: None,
        bytes: None,
        version: version.map(str::to_owned),
    };
    let same = [peer("P1", Some("0.1.0")), peer("P2", Some("0.1.4")), peer("P3", None)];
    assert_eq!(versions("0.1.0", Some("0.1.9"), &same).verdict, Well);
    let check = versions("0.2.0", Some("0.2.0"), &same);
    assert!(check.verdict == Warning && check.found.ends_with("P1 has 0.1.0, P2 has 0.1.4"), "{check:?}");
    assert!(versions("0.1.0", Some("0.2.0"), &[]).found.contains("the maestro has 0.2.0"));
    let many: Vec<PeerRow> = (0..9).map(|at| peer(&format!("P{at}"), Some("9.0.0"))).collect();
    assert!(versions("0.1.0", None, &many).found.ends_with("and 4 more"));
}
