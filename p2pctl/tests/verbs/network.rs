//! What changes with whom this peer works: `join`, `leave`, `friends`, and `refresh`.

use serde_json::{Value, json};

use crate::command::{run, run_with_input};
use crate::daemon::{Daemon, Reply};
use crate::listing::ID;

fn joined(first: bool) -> Value {
    json!({"address": "aula:9010", "maestro_id": ID, "name": "aula", "first_contact": first,
           "membership_until_ms": 86_400_000})
}

fn body(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.seen().last().unwrap().body).unwrap()
}

#[test]
fn joining_shows_whose_fingerprint_is_pinned() {
    let daemon = Daemon::start();
    daemon.json("PUT /v1/network", joined(true));
    run(&daemon, &["join", "aula"]).exits(0).says("first contact").prints(&format!(
        "Joined the network of aula at aula:9010.\n  fingerprint  {ID}\n  member until 1970-01-02, and renewed by itself\n"
    ));
    assert_eq!(body(&daemon), json!({"address": "aula"}));
    let ended = run(&daemon, &["join", "aula", "--fingerprint", ID, "--token", "t", "--json"])
        .exits(0)
        .says_nothing();
    assert_eq!(ended.values(), [joined(true)]);
    assert_eq!(body(&daemon), json!({"address": "aula", "maestro_id": ID, "token": "t"}));
}

#[test]
fn several_are_joined_one_after_the_other() {
    let daemon = Daemon::start();
    let sibling = json!({"address": "otra:9010", "maestro_id": ID, "name": "aula", "first_contact": false,
                         "membership_until_ms": null, "same_as": "aula:9010"});
    for answer in [joined(true), sibling, joined(true)] {
        daemon.json("PUT /v1/network", answer);
    }
    run(&daemon, &["join", "aula", "otra"]).exits(0).says("one directory").says("aula:9010").prints(&format!(
        "Joined the network of aula at aula:9010.\n  fingerprint  {ID}\n  member until 1970-01-02, and renewed by \
         itself\nJoined the network of aula at otra:9010.\n  fingerprint  {ID}\n"
    ));
    run(&daemon, &["join", "--also", "tercera"]).exits(0);
    let bodies: Vec<Value> =
        daemon.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    let expected = [
        json!({"address": "aula"}),
        json!({"address": "otra", "add": true}),
        json!({"address": "tercera", "add": true}),
    ];
    assert_eq!(bodies, expected);
    run(&daemon, &["join"]).exits(2).says("HOST");
}

#[test]
fn joining_again_is_no_first_contact() {
    let daemon = Daemon::start();
    daemon.json("PUT /v1/network", joined(false));
    run(&daemon, &["join", "aula"]).exits(0).says("the same maestro as before");
}

#[test]
fn a_token_comes_from_a_file_or_from_standard_input() {
    let daemon = Daemon::start();
    daemon.json("PUT /v1/network", joined(true));
    let file = daemon.dir().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    run(&daemon, &["join", "aula", "--token-file", file.to_str().unwrap()]).exits(0);
    assert_eq!(body(&daemon)["token"], "from-file");
    run_with_input(&daemon, &["join", "aula", "--token-file", "-"], b"from-stdin\n").exits(0);
    assert_eq!(body(&daemon)["token"], "from-stdin");
    std::fs::write(&file, "\n").unwrap();
    run(&daemon, &["join", "aula", "--token-file", file.to_str().unwrap()])
        .exits(2)
        .says("There is no token in");
    run(&daemon, &["join", "aula", "--token-file", "/no/such"])
        .exits(2)
        .says("Cannot read the token from /no/such");
}

#[test]
fn leaving_says_what_stays() {
    let daemon = Daemon::start();
    daemon.on("DELETE /v1/network", Reply::Body { status: 204, body: Default::default() });
    run(&daemon, &["leave"]).exits(0).prints("").says("files and friends stay");
    run(&daemon, &["leave", "--json"]).exits(0).prints("").says_nothing();
    run(&daemon, &["leave", "otra:9010"]).exits(0).says("has left the maestro at otra:9010");
    assert_eq!(daemon.seen().last().unwrap().query, "address=otra%3A9010");
}

#[test]
fn friends_come_and_go() {
    let daemon = Daemon::start();
    let friend = json!({"peer_id": ID, "name": "ana", "addresses": ["h:9002", "h:9003"], "added_ms": 0});
    daemon.on("POST /v1/friends", Reply::Body { status: 201, body: friend.to_string().into() });
    daemon.json("GET /v1/friends", json!({"friends": []}));
    daemon.json("GET /v1/friends", json!({"friends": [friend]}));
    daemon.on("DELETE /v1/friends/ana%20b", Reply::Body { status: 204, body: Default::default() });
    run(&daemon, &["friends"]).exits(0).prints("").says("p2pctl friends add HOST:PORT");
    run(&daemon, &["friends", "add", "h:9002", "--name", "ana"])
        .exits(0)
        .says("Only this peer ID is trusted")
        .prints(&format!("ana is a friend of this peer now.\n  peer ID  {ID}\n"));
    assert_eq!(body(&daemon), json!({"peer": "h:9002", "name": "ana"}));
    run(&daemon, &["friends", "add", "h:9002", "--id", ID]).exits(0).says_nothing();
    run(&daemon, &["friends", "list"])
        .exits(0)
        .prints("NAME  ID        ADDED       ADDRESS\nana   y5tq3kzm  1970-01-01  h:9002 h:9003\n");
    assert_eq!(run(&daemon, &["friends", "--json"]).exits(0).values(), [json!({"friends": [friend]})]);
    run(&daemon, &["friends", "remove", "ana b"]).exits(0).prints("").says("ana b is no friend");
}

#[test]
fn refreshing_tells_what_changed_and_who_knows() {
    let daemon = Daemon::start();
    let answer =
        json!({"files": 3, "changed": 2, "removed": 1, "announced": false, "detail": "the maestro is down"});
    daemon.json("POST /v1/refresh", answer.clone());
    run(&daemon, &["refresh"])
        .exits(0)
        .says("warning: the maestro is down")
        .prints("3 files shared: 2 new or changed, 1 gone; the maestro does not know yet.\n");
    assert_eq!(run(&daemon, &["refresh", "--json"]).exits(0).says_nothing().values(), [answer]);
}
