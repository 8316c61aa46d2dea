//! `fetch -r` and `fetch PATTERN`.

use serde_json::{Value, json};

use crate::command::run;
use crate::daemon::{Daemon, Reply};
use crate::listing::ID;
use crate::transfers::transfer;

fn tree(state: &str) -> Value {
    let mut tree = transfer(7, state);
    tree["name"] = json!("docs/");
    tree["content"] = Value::Null;
    tree["files"] = json!(3);
    tree["files_done"] = json!(if state == "done" { 3 } else { 1 });
    tree["path"] = if state == "done" { json!("/nowhere/docs") } else { Value::Null };
    tree
}

fn found(conflicts: u64) -> Value {
    let first: Vec<Value> = (0..conflicts.min(1))
        .map(|_| json!({"name": "docs/a.txt", "here": false, "contents": ["aa", "bb"]}))
        .collect();
    json!({"what": "docs/", "files": 3, "bytes": 2048, "here_files": 1, "here_bytes": 5, "unproven_files": 2,
           "conflicts": conflicts, "first_conflicts": first, "sources": [{"peer_id": ID, "name": "P2"}],
           "free_bytes": 4096, "incomplete": null,
           "list": [{"name": "docs/a.txt", "content": "aa", "size": 1024, "sources": 2},
                    {"name": "docs/b.txt", "content": "bb", "size": 1000, "sources": 1}]})
}

fn fetching() -> Daemon {
    let daemon = Daemon::start();
    daemon.on("POST /v1/trees", Reply::Body { status: 201, body: tree("queued").to_string().into() });
    daemon.events("GET /v1/transfers/7/events", vec![tree("running"), tree("done")]);
    daemon
}

#[test]
fn a_directory_ends_with_its_path_and_what_it_came_to() {
    for (args, what) in [
        (vec!["fetch", "-r", "docs"], "docs/"),
        (vec!["fetch", "--recursive", "docs/"], "docs/"),
        (vec!["fetch", "docs/**"], "docs/**"),
    ] {
        let daemon = fetching();
        run(&daemon, &args).exits(0).prints("/nowhere/docs\n").says("3 files, 1.0 KiB.");
        let asked: Value = serde_json::from_slice(&daemon.seen()[0].body).unwrap();
        assert_eq!(asked, json!({ "what": what }));
    }
}

#[test]
fn a_directory_is_asked_for_with_its_priority() {
    let daemon = fetching();
    run(&daemon, &["fetch", "-r", "docs", "--priority", "low", "--from", "P2"]).exits(0);
    let asked: Value = serde_json::from_slice(&daemon.seen()[0].body).unwrap();
    assert_eq!(asked, json!({"what": "docs/", "from": "P2", "priority": "low"}));
}

#[test]
fn a_dry_run_tells_what_would_be_fetched_and_asks_for_nothing() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/trees", found(0));
    // Files that are left out make it less than all.
    let ended = run(&daemon, &["fetch", "-r", "docs", "--dry-run", "--from", "P 2"]).exits(8).says_nothing();
    for part in ["3 files, 2.0 KiB", "1 file, 5 B", "2 files that only plain peers have", "P2", "4.0 KiB"] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {ended:#?}");
    }
    let seen = daemon.seen();
    assert_eq!((seen.len(), seen[0].query.as_str()), (1, "what=docs%2F&from=P%202&list=20"));
    let rows: Vec<String> =
        ended.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in ["SIZE SOURCES NAME", "1.0 KiB 2 docs/a.txt", "1000 B 1 docs/b.txt"] {
        assert!(rows.iter().any(|line| line == row), "no {row:?} in {}", ended.stdout);
    }
    assert_eq!(rows.last().unwrap(), "… and 1 more, which --json lists too");
}

#[test]
fn a_program_gets_the_whole_list_and_the_exit_code_of_what_comes_before_it() {
    for (conflicts, code) in [(0, 8), (4, 6)] {
        let mut head = found(conflicts);
        let list = head.as_object_mut().unwrap().remove("list").unwrap();
        // It comes last, however long it is.
        let head = head.to_string();
        let body = format!("{},\"list\":{list}}}", head.strip_suffix('}').unwrap());
        let daemon = Daemon::start();
        daemon.on("GET /v1/trees", Reply::Body { status: 200, body: body.clone().into() });
        run(&daemon, &["fetch", "-r", "docs", "--dry-run", "--json"])
            .exits(code)
            .says_nothing()
            .prints(&format!("{body}\n"));
        assert_eq!(daemon.seen()[0].query, "what=docs%2F");
    }
    // One that answers in another order is understood too.
    let daemon = Daemon::start();
    daemon.json("GET /v1/trees", found(4));
    run(&daemon, &["fetch", "docs/*", "--dry-run", "--json"]).exits(6);
}

#[test]
fn names_that_need_a_choice_are_told_by_the_exit_code_too() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/trees", found(4));
    let ended = run(&daemon, &["fetch", "docs/*", "--dry-run"]).exits(6).says("--from PEER");
    assert!(ended.stdout.contains("docs/a.txt: 2 different contents"), "{ended:#?}");
    assert!(ended.stdout.contains("3 more"), "{ended:#?}");
}

#[test]
fn a_directory_that_may_not_be_whole_is_no_success() {
    let with = |state: &str| {
        let mut tree = tree(state);
        tree["incomplete"] = json!("2 files are left out");
        tree
    };
    let daemon = Daemon::start();
    daemon.on("POST /v1/trees", Reply::Body { status: 201, body: with("queued").to_string().into() });
    daemon.events("GET /v1/transfers/7/events", vec![with("done")]);
    run(&daemon, &["fetch", "-r", "docs"])
        .exits(8)
        .prints("/nowhere/docs\n")
        .says("warning: this may not be all of docs/: 2 files are left out")
        .says("error: This may not be all of docs/: 2 files are left out");
    run(&daemon, &["fetch", "-r", "docs", "--json"]).exits(8).says("\"code\":\"incomplete\"");
    run(&daemon, &["fetch", "-r", "docs", "--detach"]).exits(0).says("warning: this may not be all");
    let daemon = Daemon::start();
    daemon.on("POST /v1/trees", Reply::Body { status: 201, body: with("done").to_string().into() });
    let ended =
        run(&daemon, &["fetch", "-r", "docs"]).exits(8).says("What is known of docs/ is here already");
    assert!(!ended.stderr.contains("All of"), "{ended:#?}");
}

#[test]
fn what_is_for_one_file_is_refused() {
    let daemon = Daemon::start();
    run(&daemon, &["fetch", "-r", "docs", "-o", "/tmp"]).exits(2);
    run(&daemon, &["fetch", "docs/*", "--as", "b"]).exits(2).says("one file");
    assert!(daemon.seen().is_empty());
}

#[test]
fn the_list_of_transfers_counts_its_files() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers", json!({ "transfers": [tree("running")] }));
    let ended = run(&daemon, &["transfers"]).exits(0);
    assert!(ended.stdout.contains("1 of 3 files"), "{ended:#?}");
}
