//! `transfers`, its `--watch` and its `cancel`.

use serde_json::{Value, json};

use crate::command::{interrupt, p2pctl, run};
use crate::daemon::Daemon;
use crate::listing::{HASH, ID};

pub(crate) fn transfer(id: u64, state: &str) -> Value {
    let done = state == "done";
    json!({"id": id, "name": "docs/a.txt", "content": HASH, "size": 1024, "done_bytes": if done { 1024 } else { 512 },
           "wasted_bytes": 0, "state": state, "reason": null, "priority": "normal", "held": false, "proven": true,
           "sources": [{"peer_id": ID, "name": "P2", "bytes": 512, "state": "active", "reason": null}],
           "rate": 256, "eta_secs": 2, "created_ms": 0, "ended_ms": null,
           "path": if done { json!("/nowhere/docs/a.txt") } else { Value::Null }})
}

#[test]
fn open_transfers_and_the_last_ten_that_ended_are_shown() {
    let daemon = Daemon::start();
    let mut transfers: Vec<Value> = (3..15).rev().map(|id| transfer(id, "done")).collect();
    transfers.push(transfer(2, "running"));
    daemon.json("GET /v1/transfers", json!({ "transfers": transfers }));
    let ended = run(&daemon, &["transfers"]).exits(0).says("2 more ended before");
    let ids: Vec<&str> =
        ended.stdout.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(ids, ["14", "13", "12", "11", "10", "9", "8", "7", "6", "5", "2"]);
    let running = ended.stdout.lines().last().unwrap();
    let words: Vec<&str> = running.split_whitespace().collect();
    assert_eq!(words, ["2", "running", "50%", "1.0", "KiB", "256", "B/s", "2", "s", "1", "docs/a.txt"]);
    let all = run(&daemon, &["transfers", "--all", "--json"]).exits(0);
    assert_eq!(all.values(), [json!({ "transfers": transfers })]);
}

#[test]
fn a_source_that_was_dropped_is_named() {
    let daemon = Daemon::start();
    let mut bad = transfer(1, "running");
    bad["sources"][0]["state"] = json!("dropped");
    bad["sources"][0]["reason"] = json!("it sent false bytes");
    daemon.json("GET /v1/transfers", json!({ "transfers": [bad] }));
    let ended = run(&daemon, &["transfers"]).exits(0);
    assert!(ended.stdout.contains("dropped P2 (y5tq3kzm): it sent false bytes"), "{ended:#?}");
}

#[test]
fn no_transfers_say_how_to_start_one() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers", json!({"transfers": []}));
    run(&daemon, &["transfers"]).exits(0).prints("").says("p2pctl fetch NAME");
}

#[test]
fn watching_prints_what_changes_until_ctrl_c() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers", json!({"transfers": [transfer(1, "running")]}));
    daemon.json("GET /v1/transfers", json!({"transfers": [transfer(1, "done")]}));
    let child = p2pctl(&daemon.socket(), &["transfers", "--watch", "--json"]).spawn().unwrap();
    daemon.wait_for("GET /v1/transfers", 4);
    let ended = interrupt(child).exits(0).says_nothing();
    let states: Vec<Value> =
        ended.values().iter().map(|list| list["transfers"][0]["state"].clone()).collect();
    assert_eq!(states, ["running", "done"]);
}

#[test]
fn the_line_and_priorities_are_shown() {
    let daemon = Daemon::start();
    let mut queued = transfer(2, "queued");
    queued["priority"] = json!("high");
    queued["queue_place"] = json!(3);
    queued["reason"] = json!("queued behind transfer 1 (b.txt), which waits too");
    daemon.json("GET /v1/transfers", json!({ "transfers": [queued] }));
    let ended = run(&daemon, &["transfers"]).exits(0);
    for shown in ["queued 3", "high priority", "queued behind transfer 1 (b.txt), which waits too"] {
        assert!(ended.stdout.contains(shown), "{shown}: {ended:#?}");
    }
}

#[test]
fn a_priority_is_set_and_wrong_words_are_not_sent() {
    let daemon = Daemon::start();
    let mut hurried = transfer(7, "queued");
    hurried["priority"] = json!("high");
    daemon.json("POST /v1/transfers/7/priority", hurried);
    run(&daemon, &["transfers", "priority", "7", "high"])
        .exits(0)
        .prints("Transfer 7 (docs/a.txt) has high priority.\n");
    let body: Value = serde_json::from_slice(&daemon.seen()[0].body).unwrap();
    assert_eq!(body, json!({"priority": "high"}));
    let refused = run(&daemon, &["transfers", "priority", "7", "urgent"]);
    assert!(refused.stderr.contains("low") && daemon.seen().len() == 1, "{refused:#?}");
}

#[test]
fn cancelling_ends_one_transfer() {
    let daemon = Daemon::start();
    daemon.json("DELETE /v1/transfers/7", transfer(7, "cancelled"));
    run(&daemon, &["transfers", "cancel", "7"]).exits(0).prints("Transfer 7 (docs/a.txt) is cancelled.\n");
    let ended = run(&daemon, &["transfers", "cancel", "7", "--json"]).exits(0);
    assert_eq!(ended.values(), [transfer(7, "cancelled")]);
}
