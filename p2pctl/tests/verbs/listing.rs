//! What only asks and shows: `status`, `list`, `search`, `locate`, `peers`, `shares`, `version`, `completions`.

use serde_json::{Value, json};

use crate::command::{Ended, p2pctl, run};
use crate::daemon::Daemon;

pub(crate) const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
pub(crate) const ID: &str = "y5tq3kzmabcdefghijklmnopqrstuvwxyz234567abcdefghijkl";

fn file(name: &str) -> Value {
    json!({"name": name, "size": 1_288_490_189u64, "content": HASH, "modified_ms": 0, "share": "shared", "sources": 2,
           "here": true})
}

fn page(files: Vec<Value>, next: Option<&str>) -> Value {
    json!({"files": files, "next": next, "incomplete": null})
}

fn status() -> Value {
    json!({
        "peer_id": ID, "name": "P1", "version": "0.1.0", "pid": 42, "started_ms": 0, "state_dir": "/var/lib/p2pd",
        "rest": "127.0.0.1:9001", "grpc": "0.0.0.0:9002",
        "maestro": {"address": "localhost:9010", "maestro_id": ID, "name": "aula", "state": "unreachable",
                    "since_ms": 0, "detail": "connection refused; is maestrod running?", "changes_pending": 1,
                    "membership_until_ms": 86_400_000},
        "files": 1, "bytes": 23, "files_pending": 2, "friends": 0, "transfers_open": 1,
        "loops": [{"name": "rescan", "last_ms": null, "result": "not run yet"}]
    })
}

#[test]
fn status_tells_how_the_peer_is() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/status", status());
    let ended = run(&daemon, &["status"]).exits(0).says_nothing();
    for (label, value) in [
        ("peer", "P1"),
        ("ID", ID),
        ("maestro", "aula at localhost:9010"),
        ("", " days, 1 change not acknowledged"),
        ("", "connection refused; is maestrod running?"),
        ("", "member until 1970-01-02"),
        ("shares", "1 file, 23 B; 2 more still to be hashed"),
        ("transfers", "1 open"),
        ("rescan", " - "),
    ] {
        let found = ended.stdout.lines().any(|line| line.starts_with(label) && line.contains(value));
        assert!(found, "no line {label:?} with {value:?} in {ended:#?}");
    }
    assert_eq!(run(&daemon, &["status", "--json"]).exits(0).values(), [status()]);
}

#[test]
fn status_shows_every_maestro() {
    let daemon = Daemon::start();
    let mut status = status();
    let mut other = status["maestro"].clone();
    other["address"] = json!("otra:9010");
    other["state"] = json!("reserve");
    status["maestros"] = json!([status["maestro"], other]);
    daemon.json("GET /v1/status", status);
    let ended = run(&daemon, &["status"]).exits(0).says_nothing();
    for expected in ["aula at localhost:9010", "unreachable for", "aula at otra:9010", "in reserve for"] {
        assert_eq!(ended.stdout.matches(expected).count(), 1, "{expected} in {ended:#?}");
    }
}

#[test]
fn list_asks_page_after_page_and_prints_one_table() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/files", page(vec![file("a.txt")], Some("a.txt")));
    daemon.json("GET /v1/files", page(vec![file("b/ñ.txt")], None));
    run(&daemon, &["list"]).exits(0).says_nothing().prints(&format!(
        "      SIZE  MODIFIED     {:64}  NAME\n   1.2 GiB  1970-01-01   {HASH}  a.txt\n   1.2 GiB  1970-01-01   \
         {HASH}  b/ñ.txt\n",
        "HASH"
    ));
    let queries: Vec<String> = daemon.seen().into_iter().map(|seen| seen.query).collect();
    assert_eq!(queries, ["limit=1000", "limit=1000&cursor=a.txt"]);
}

#[test]
fn list_in_json_is_one_body_however_many_pages_there_were() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/files", page(vec![file("a"), file("b")], Some("b")));
    daemon.json("GET /v1/files", page(vec![file("c")], None));
    let ended = run(&daemon, &["list", "--all", "--json"]).exits(0);
    assert_eq!(ended.values(), [page(vec![file("a"), file("b"), file("c")], None)]);
    assert_eq!(daemon.seen()[0].query, "all=true&limit=1000");
}

#[test]
fn an_empty_list_says_what_to_do_next() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/files", page(vec![], None));
    run(&daemon, &["list"]).exits(0).prints("").says("p2pctl shares");
    run(&daemon, &["list", "docs/"]).exits(0).prints("").says("starts with docs/");
    assert_eq!(run(&daemon, &["list", "--json"]).exits(0).says_nothing().values(), [page(vec![], None)]);
    assert_eq!(daemon.seen()[1].query, "prefix=docs%2F&limit=1000");
}

#[test]
fn a_limit_is_kept_and_told() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/files", page(vec![file("a"), file("b")], Some("b")));
    run(&daemon, &["list", "--limit", "2", "--peer", "P 2"]).exits(0).says("The first 2 files only");
    let seen = daemon.seen();
    assert_eq!((seen.len(), seen[0].query.as_str()), (1, "peer=P%202&limit=2"));
    let ended = run(&daemon, &["list", "--limit", "2", "--json"]).exits(0);
    assert_eq!(ended.values()[0]["next"], "b");
}

#[test]
fn search_asks_the_whole_network_and_shows_what_is_unknown() {
    let daemon = Daemon::start();
    let plain = json!({"name": "archivo9.txt", "size": null, "content": null, "modified_ms": null, "share": null,
                       "sources": 1, "here": false});
    let mut answer = page(vec![plain], None);
    answer["incomplete"] = json!("the maestro does not answer");
    daemon.json("GET /v1/files", answer);
    let ended =
        run(&daemon, &["search", "archivo"]).exits(0).says("warning: this may not be all: the maestro does");
    let words: Vec<&str> = ended.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words, ["?", "-", "1", "-", "unproven", "archivo9.txt"]);
    assert_eq!(daemon.seen()[0].query, "text=archivo&all=true&limit=1000");
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[test]
fn locate_shows_every_candidate_with_its_whole_hash() {
    let daemon = Daemon::start();
    let source = json!({"peer_id": ID, "name": "P1", "origin": "maestro", "told_by": "aula",
                        "told_ms": now_ms(), "addresses": ["127.0.0.1:9002"]});
    let memory = json!({"peer_id": ID, "name": "P2", "origin": "cache", "told_by": "aula",
                        "told_ms": now_ms() - 3 * 3_600_000, "addresses": ["h:1"]});
    let plain = json!({"peer_id": null, "name": "http://localhost:9007", "origin": "cache", "addresses": []});
    let answer = json!({"what": "a.txt", "incomplete": null, "candidates": [
        {"name": "a.txt", "size": 23, "content": HASH, "sources": [source, memory]},
        {"name": "a.txt", "size": null, "content": null, "sources": [plain]}]});
    daemon.json("GET /v1/locate", answer.clone());
    let ended = run(&daemon, &["locate", "a.txt"]).exits(0).says("2 different contents").prints(&format!(
        "a.txt  23 B  2 sources\n  {HASH}\n  PEER  ID        KNOWN FROM      SAID      ADDRESS\n  \
         P1    y5tq3kzm  maestro aula    just now  127.0.0.1:9002\n  \
         P2    y5tq3kzm  memory of aula  3 h ago   h:1\na.txt  ?  1 source\n  unproven: nobody vouches for its bytes\n  \
         PEER                   ID  KNOWN FROM  SAID  ADDRESS\n  http://localhost:9007  -   memory      -\n"
    ));
    drop(ended);
    assert_eq!(run(&daemon, &["locate", "a.txt", "--json"]).exits(0).values(), [answer]);
}

#[test]
fn a_file_that_nobody_has_is_not_found() {
    let daemon = Daemon::start();
    let answer = json!({"what": "x", "candidates": [], "incomplete": "the maestro is down"});
    daemon.json("GET /v1/locate", answer.clone());
    run(&daemon, &["locate", "x"]).exits(3).prints("").says("Nobody has x").says("the maestro is down");
    assert_eq!(run(&daemon, &["locate", "x", "--json"]).exits(3).says_nothing().values(), [answer]);
}

#[test]
fn peers_are_listed_with_short_ids_and_whole_ones_in_json() {
    let daemon = Daemon::start();
    let peer = |name: &str, relation: &str, online: Option<bool>| {
        json!({"peer_id": ID, "name": name, "relation": relation, "online": online, "addresses": ["h:9002"],
               "rest": null, "files": 1, "bytes": 23, "version": "0.1.0"})
    };
    let answer = json!({"peers": [peer("P1", "own", Some(true)), peer("ana", "friend", None)],
                        "incomplete": "the maestro is down"});
    daemon.json("GET /v1/peers", answer.clone());
    run(&daemon, &["peers"]).exits(0).says("the maestro is down").prints(
        "NAME  ID        IS         ONLINE  FILES  SIZE  VERSION  ADDRESS\n\
         P1    y5tq3kzm  this peer  yes         1  23 B  0.1.0    h:9002\n\
         ana   y5tq3kzm  friend     ?           1  23 B  0.1.0    h:9002\n",
    );
    assert_eq!(run(&daemon, &["peers", "--json"]).exits(0).values(), [answer]);
    let nobody = Daemon::start();
    nobody.json("GET /v1/peers", json!({"peers": [], "incomplete": null}));
    run(&nobody, &["peers"]).exits(0).prints("").says("p2pctl join");
}

#[test]
fn shares_warn_about_what_is_not_shared() {
    let daemon = Daemon::start();
    let answer = json!({"shares": [{"name": "usb", "path": "/mnt/usb", "visible": "friends", "downloads": true,
        "files": 3, "bytes": 2048, "unavailable": "its disk is not mounted", "skipped": ["a: not UTF-8"]}]});
    daemon.json("GET /v1/shares", answer.clone());
    run(&daemon, &["shares"])
        .exits(0)
        .says("usb is not available, so its files are hidden: its disk is not mounted")
        .says("not shared from usb: a: not UTF-8")
        .prints(
            "NAME  FOR      STATE        FILES     SIZE  FETCHED FILES  DIRECTORY\n\
             usb   friends  unavailable      3  2.0 KiB  land here      /mnt/usb\n",
        );
    assert_eq!(run(&daemon, &["shares", "--json"]).exits(0).values(), [answer]);
}

#[test]
fn version_tells_both_and_needs_no_daemon() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/status", status());
    let ours = env!("CARGO_PKG_VERSION");
    run(&daemon, &["version"]).exits(0).says_nothing().prints(&format!("p2pctl {ours}\np2pd   0.1.0\n"));
    let nowhere = daemon.dir().join("nowhere.sock");
    let ended = Ended::of(p2pctl(&nowhere, &["version"]).output().unwrap());
    ended.exits(0).prints(&format!("p2pctl {ours}\n")).says("p2pd does not answer");
    let ended = Ended::of(p2pctl(&nowhere, &["version", "--json"]).output().unwrap());
    assert_eq!(ended.values(), [json!({"p2pctl": ours, "p2pd": null})]);
}

#[test]
fn every_shell_gets_its_completions() {
    let daemon = Daemon::start();
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&daemon, &["completions", shell]).exits(0).says_nothing();
        assert!(ended.stdout.contains("transfers") && ended.stdout.contains("detach"), "{shell}");
    }
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/status", status());
    let piped = run(&daemon, &["status"]).exits(0);
    assert!(!piped.stdout.contains('\x1b'), "{piped:#?}");
    assert!(run(&daemon, &["status", "--color", "always"]).stdout.contains("\x1b["));
    daemon.problem("GET /v1/peers", 500, "broken", "It broke");
    let piped = run(&daemon, &["peers"]).exits(1).says("error: It broke");
    assert!(!piped.stderr.contains('\x1b'), "{piped:#?}");
    assert!(run(&daemon, &["peers", "--color", "always"]).stderr.contains("\x1b["));
}

#[test]
fn a_name_from_the_network_cannot_drive_the_terminal() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/files", page(vec![file("a\u{1b}[2Jb")], None));
    let ended = run(&daemon, &["list", "--all", "--color", "always"]).exits(0);
    assert!(ended.stdout.contains("a\\u{1b}[2Jb"), "{ended:#?}");
}
