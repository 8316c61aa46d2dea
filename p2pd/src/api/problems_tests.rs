use std::collections::HashSet;

use p2p_content::FileName;
use p2p_identity::{PeerId, WrongPeer};

use super::*;
use crate::discovery::{PeerRef, Source, Teller};

fn text() -> String {
    "the cause".to_owned()
}

fn id(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn candidate(bytes: &[u8], sources: u8) -> Candidate {
    let source = |byte: u8| Source {
        peer: PeerRef::Known {
            id: id(byte),
            name: format!("P{byte}"),
            addresses: Vec::new(),
            rest_url: String::new(),
            grpc_port: 1,
        },
        teller: Teller::maestro("m".to_owned()),
    };
    Candidate {
        name: FileName::parse("a.txt").unwrap(),
        content: Some(ContentHash::of(bytes)),
        size: Some(bytes.len() as u64),
        modified_ms: None,
        sources: (1..=sources).map(source).collect(),
    }
}

fn several(candidates: Vec<Candidate>) -> Problem {
    FetchError::SeveralContents { name: FileName::parse("a.txt").unwrap(), candidates }.into()
}

fn io(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, text())
}

fn unusable(why: Unfit) -> Problem {
    AddError::Unfit { path: "/data".into(), why }.into()
}

#[test]
fn every_refusal_has_its_code_and_status() {
    let name = || FileName::parse("a.txt").unwrap();
    let changed = JoinError::Changed { address: text(), wrong: WrongPeer { expected: id(1), found: id(2) } };
    let wrong = WrongPeer { expected: id(1), found: id(2) };
    let wrong_friend = FriendError::WrongPeer { address: text(), wrong };
    let ambiguous = FindPeerError::Ambiguous { text: text(), candidates: vec!["P1".into(), "P2".into()] };
    let table: Vec<(Problem, u16, &str)> = vec![
        (FetchError::NotFound { what: text(), incomplete: None }.into(), 404, "not-found"),
        (several(vec![candidate(b"a", 1)]), 409, "several-contents"),
        (FetchError::NameTaken { name: name(), here: None }.into(), 409, "name-taken"),
        (FetchError::OnlyHere { what: text(), path: text() }.into(), 409, "only-here"),
        (FetchError::UnprovenRefused { what: text() }.into(), 403, "unproven-refused"),
        (invalid_name(&NameError::Empty), 422, "invalid-name"),
        (FetchError::Catalog(CatalogError::Closed).into(), 500, "internal"),
        (FindPeerError::Unknown(text()).into(), 404, "peer-unknown"),
        (FindPeerError::Unasked { text: text(), why: text() }.into(), 404, "peer-unknown"),
        (ambiguous.into(), 409, "peer-ambiguous"),
        (ChangeError::Unknown(7).into(), 404, "transfer-unknown"),
        (ChangeError::Ended(7).into(), 409, "transfer-ended"),
        (AskError::Unreachable(text(), text()).into(), 502, "peer-unreachable"),
        (of_network_listing(AskError::Unreachable(text(), text())), 503, "maestro-unreachable"),
        (AskError::Refused(text(), text()).into(), 403, "refused-by-peer"),
        (of_network_listing(AskError::Refused(text(), text())), 403, "not-admitted"),
        (AskError::BadCursor(text()).into(), 400, "invalid-cursor"),
        (of_network_listing(AskError::NoMaestro), 409, "no-maestro"),
        (IntakeError::DiskFull(text()).into(), 507, "disk-full"),
        (IntakeError::NameTaken(text()).into(), 409, "name-taken"),
        (IntakeError::Unavailable(text()).into(), 503, "share-unavailable"),
        (IntakeError::Body(text()).into(), 400, "body-incomplete"),
        (IntakeError::Internal(text()).into(), 500, "internal"),
        (SendError::Intake(IntakeError::DiskFull(text())).into(), 507, "disk-full"),
        (SendError::Unreachable(text(), text()).into(), 502, "peer-unreachable"),
        (SendError::Refused(text(), text()).into(), 403, "refused-by-peer"),
        (SendError::TooLargeForPlain(text(), 7).into(), 413, "too-large-for-plain"),
        (JoinError::Configured(text()).into(), 409, "configured"),
        (changed.into(), 409, "maestro-changed"),
        (JoinError::Syntax(text()).into(), 422, "invalid-address"),
        (JoinError::NotAdmitted(text()).into(), 403, "not-admitted"),
        (JoinError::Unreachable(text()).into(), 503, "maestro-unreachable"),
        (JoinError::Io(io(io::ErrorKind::Other)).into(), 500, "internal"),
        (JoinError::Io(io(io::ErrorKind::StorageFull)).into(), 507, "disk-full"),
        (FriendError::Io(io(io::ErrorKind::ReadOnlyFilesystem)).into(), 500, "disk-not-writable"),
        (FriendError::Find(FindPeerError::Unknown(text())).into(), 404, "peer-unknown"),
        (FriendError::Pick(FindPeerError::Unknown(text())).into(), 404, "friend-unknown"),
        (wrong_friend.into(), 409, "identity-changed"),
        (FriendError::Itself(text()).into(), 422, "friend-is-itself"),
        (FriendError::BadId(text(), p2p_identity::ParsePeerIdError).into(), 422, "invalid-peer-id"),
        (CatalogError::Closed.into(), 500, "internal"),
        (AskError::Catalog(CatalogError::Closed).into(), 500, "internal"),
        (ShareError::Closed.into(), 500, "internal"),
        (AddError::NotAbsolute { path: text() }.into(), 422, "invalid-path"),
        (AddError::BadName { name: text(), why: "it is long" }.into(), 422, "invalid-share-name"),
        (AddError::Forbidden { path: "/".into(), why: text() }.into(), 422, "share-forbidden"),
        (AddError::NameTaken { name: text() }.into(), 409, "share-name-taken"),
        (AddError::Overlaps { path: "/a".into(), reason: text() }.into(), 409, "share-overlaps"),
        (unusable(Unfit::NotThere), 404, "share-not-there"),
        (unusable(Unfit::NotADirectory), 422, "share-not-a-directory"),
        (unusable(Unfit::Unreadable), 403, "share-unreadable"),
        (unusable(Unfit::ReadOnly), 403, "share-read-only"),
        (unusable(Unfit::NotWritable), 403, "share-not-writable"),
        (unusable(Unfit::Other(io(io::ErrorKind::StorageFull))), 507, "disk-full"),
        (unusable(Unfit::Other(io(io::ErrorKind::TimedOut))), 503, "share-unusable"),
        (AddError::Keep(io(io::ErrorKind::StorageFull)).into(), 507, "disk-full"),
        (RemoveError::Unknown { name: text() }.into(), 404, "share-unknown"),
        (RemoveError::Configured { name: text() }.into(), 409, "share-configured"),
        (not_here(&ContentHash::EMPTY), 404, "not-here"),
        (send_unknown(1), 404, "send-unknown"),
    ];
    for (problem, status, code) in table {
        let body = problem.body();
        assert_eq!((body.status, body.code.as_str()), (status, code));
        assert!(!body.detail.is_empty(), "{code} does not say what happened");
        // These say what to do in their detail, or leave nothing to do.
        let without = HashSet::from(["invalid-name", "transfer-ended"]);
        assert_eq!(body.hint.is_none(), without.contains(code), "{code}");
    }
}

#[test]
fn a_changed_maestro_is_told_with_both_fingerprints() {
    let changed = JoinError::Changed {
        address: "m:9010".to_owned(),
        wrong: WrongPeer { expected: id(1), found: id(2) },
    };
    let detail = Problem::from(changed).body().detail.clone();
    assert!(detail.contains(&id(1).to_string()) && detail.contains(&id(2).to_string()), "{detail}");
}

#[test]
fn several_contents_are_each_told_with_hash_size_and_who() {
    let problem = several(vec![candidate(b"one", 2), candidate(b"other", 1)]);
    let body = problem.body();
    let lines: Vec<&str> = body.detail.lines().collect();
    let [p1, p2] = [1, 2].map(|byte| format!("P{byte} ({})", id(byte).short()));
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[1], format!("  {}  3 bytes  {p1}, {p2}", ContentHash::of(b"one")));
    assert_eq!(lines[2], format!("  {}  5 bytes  {p1}", ContentHash::of(b"other")));
    assert!(body.hint.as_ref().unwrap().contains("--from PEER"));
}

#[test]
fn a_thousand_contents_make_no_endless_answer() {
    let candidates = (0..1000u32).map(|at| candidate(&at.to_le_bytes(), 200)).collect();
    let detail = several(candidates).body().detail.clone();
    assert!(detail.ends_with("\n  and 990 more"), "{detail}");
    assert!(detail.len() < 10_000);
}

#[test]
fn what_could_not_be_asked_is_told_where_nothing_was_found() {
    let error =
        FetchError::NotFound { what: "a".to_owned(), incomplete: Some("the maestro is silent".to_owned()) };
    assert!(Problem::from(error).body().detail.contains("the maestro is silent"));
}
