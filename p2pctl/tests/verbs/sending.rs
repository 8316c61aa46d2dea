//! `send`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{interrupt, p2pctl, run, run_with_input};
use crate::daemon::{Daemon, Reply};
use crate::listing::{HASH, ID};

fn sending(state: &str, message: Option<&str>) -> Value {
    json!({"id": 4, "name": "x.txt", "peer": {"peer_id": ID, "name": "P2"}, "content": HASH, "size": 5,
           "done_bytes": 0, "state": state, "message": message})
}

fn accepting() -> Daemon {
    let daemon = Daemon::start();
    daemon
        .on("POST /v1/sends", Reply::Body { status: 201, body: sending("offered", None).to_string().into() });
    daemon
}

fn file(daemon: &Daemon) -> String {
    let file = daemon.dir().join("x.txt");
    std::fs::write(&file, "hello").unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_file_is_sent_under_its_own_name_and_its_arrival_is_told() {
    let daemon = accepting();
    daemon.events("GET /v1/sends/4/events", vec![sending("accepted", None), sending("delivered", None)]);
    let file = file(&daemon);
    run(&daemon, &["send", &file, "P2"])
        .exits(0)
        .says_nothing()
        .prints(&format!("P2 (y5tq3kzm) has x.txt (5 B).\n  hash  {HASH}\n"));
    let seen = &daemon.seen()[0];
    assert_eq!(
        (seen.query.as_str(), seen.len, &seen.body[..]),
        ("peer=P2&name=x.txt", Some(5), &b"hello"[..])
    );
    let ended = run(&daemon, &["send", &file, "P2", "--json"]).exits(0).says_nothing();
    let states: Vec<Value> = ended.values().iter().map(|value| value["state"].clone()).collect();
    assert_eq!(states, ["offered", "accepted", "delivered"]);
}

#[test]
fn standard_input_needs_a_name() {
    let daemon = accepting();
    daemon.events("GET /v1/sends/4/events", vec![sending("delivered", None)]);
    run(&daemon, &["send", "-", "P2"]).exits(2).says("--as NAME");
    run_with_input(&daemon, &["send", "-", "P2", "--as", "docs/x y.txt"], b"from a pipe").exits(0);
    let seen = &daemon.seen()[0];
    assert_eq!((seen.query.as_str(), &seen.body[..]), ("peer=P2&name=docs%2Fx%20y.txt", &b"from a pipe"[..]));
}

#[test]
fn a_refusal_gives_the_reason() {
    let daemon = accepting();
    daemon.events("GET /v1/sends/4/events", vec![sending("refused", Some("it has no room"))]);
    run(&daemon, &["send", &file(&daemon), "P2"])
        .exits(5)
        .prints("")
        .says("did not take x.txt: it has no room");
}

#[test]
fn a_refusal_before_the_last_byte_is_heard() {
    let daemon = Daemon::start();
    daemon.problem("POST /v1/sends", 404, "peer-unknown", "No peer is called P9");
    let big = daemon.dir().join("big");
    std::fs::File::create(&big).unwrap().set_len(64 << 20).unwrap();
    for _ in 0..10 {
        run(&daemon, &["send", big.to_str().unwrap(), "P9"]).exits(3).says("No peer is called P9");
    }
}

#[test]
fn what_cannot_be_read_is_not_sent() {
    let daemon = Daemon::start();
    run(&daemon, &["send", "/no/such", "P2"]).exits(3).says("There is no file /no/such");
    run(&daemon, &["send", daemon.dir().to_str().unwrap(), "P2", "--as", "x"])
        .exits(2)
        .says("is a directory");
    assert!(daemon.seen().is_empty());
}

#[test]
fn a_daemon_that_forgets_the_sending_is_told_about() {
    let daemon = accepting();
    daemon.events("GET /v1/sends/4/events", vec![sending("accepted", None)]);
    run(&daemon, &["send", &file(&daemon), "P2"])
        .exits(4)
        .says("before it could say whether P2 (y5tq3kzm) has x.txt");
}

#[test]
fn ctrl_c_leaves_the_offer_standing() {
    let daemon = accepting();
    let open = Reply::Events { events: vec![], apart: Duration::ZERO, stays_open: true };
    daemon.on("GET /v1/sends/4/events", open);
    let child = p2pctl(&daemon.socket(), &["send", &file(&daemon), "P2"]).spawn().unwrap();
    daemon.wait_for("GET /v1/sends/4/events", 1);
    interrupt(child).exits(130).says("goes on offering it");
}
