//! How failures are told, and their exit codes.

use serde_json::json;

use crate::command::{Ended, p2pctl, run};
use crate::daemon::{Daemon, Reply};

#[test]
fn every_problem_has_its_exit_code() {
    for (code, status, exit) in [
        ("not-found", 404, 3),
        ("peer-unknown", 404, 3),
        ("several-contents", 409, 6),
        ("peer-ambiguous", 409, 6),
        ("name-taken", 409, 6),
        ("unproven-refused", 403, 5),
        ("disk-full", 507, 7),
        ("invalid-name", 400, 2),
        ("internal", 500, 1),
    ] {
        let daemon = Daemon::start();
        daemon.problem("POST /v1/transfers", status, code, "What happened");
        run(&daemon, &["fetch", "x"]).exits(exit).prints("").says("error: What happened");
        let ended = run(&daemon, &["fetch", "x", "--json"]).exits(exit).prints("");
        let body: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!((&body["code"], &body["exit"]), (&json!(code), &json!(exit)));
    }
    for (verb, what, code, status, exit) in [
        (&["join", "h"][..], "PUT /v1/network", "maestro-changed", 409, 5),
        (&["join", "h"], "PUT /v1/network", "not-admitted", 403, 5),
        (&["join", "h"], "PUT /v1/network", "maestro-unreachable", 503, 1),
        (&["join", "h"], "PUT /v1/network", "configured", 409, 1),
        (&["transfers", "cancel", "1"], "DELETE /v1/transfers/1", "transfer-ended", 409, 1),
        (&["transfers", "cancel", "1"], "DELETE /v1/transfers/1", "not-found", 404, 3),
        (&["friends", "remove", "x"], "DELETE /v1/friends/x", "not-found", 404, 3),
    ] {
        let daemon = Daemon::start();
        daemon.problem(what, status, code, "What happened");
        run(&daemon, verb).exits(exit).prints("").says("error: What happened");
    }
}

#[test]
fn a_choice_says_how_to_choose() {
    let daemon = Daemon::start();
    daemon.problem("POST /v1/transfers", 409, "several-contents", "a.txt is two contents");
    run(&daemon, &["fetch", "my a.txt"]).exits(6).says("p2pctl locate 'my a.txt'").says("--from PEER");
}

#[test]
fn the_daemons_own_hint_is_shown() {
    let daemon = Daemon::start();
    let problem = json!({"type": "t", "title": "T", "status": 403, "detail": "D", "code": "not-admitted",
                         "hint": "ask for a token"});
    daemon.on("PUT /v1/network", Reply::Body { status: 403, body: problem.to_string().into() });
    run(&daemon, &["join", "h"]).exits(5).says("error: D\n hint: ask for a token\n");
}

#[test]
fn a_daemon_that_is_not_there_is_told_apart_from_one_that_died() {
    let mut daemon = Daemon::start();
    daemon.stop();
    run(&daemon, &["status"]).exits(4).says("there is no socket").says("systemctl start p2pd");
    // A socket that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(daemon.socket()).unwrap());
    run(&daemon, &["status"]).exits(4).says("nobody listens").says("systemctl start p2pd");
}

#[test]
fn a_socket_of_another_group_says_which() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        return; // Root may open every socket.
    }
    let daemon = Daemon::start();
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o000)).unwrap();
    run(&daemon, &["status"]).exits(5).says("it is for the group").says("usermod -aG");
}

#[test]
fn an_answer_that_is_not_understood_points_at_the_versions() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/peers", json!({"people": []}));
    run(&daemon, &["peers"]).exits(1).says("p2pctl version");
    run(&daemon, &["shares"]).exits(1).says("404 Not Found");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let daemon = Daemon::start();
    daemon.on("GET /v1/peers", Reply::Torn("{\"peers\": [".into()));
    run(&daemon, &["peers"]).exits(4).prints("").says("broke off");
}

#[test]
fn a_question_that_a_restart_cuts_off_is_asked_again() {
    let daemon = Daemon::start();
    daemon.on("GET /v1/peers", Reply::Torn("{\"peers\": [".into()));
    daemon.json("GET /v1/peers", json!({"peers": []}));
    run(&daemon, &["peers"]).exits(0);
    assert_eq!(daemon.seen().len(), 2);
}

#[test]
fn a_change_that_is_cut_off_is_not_made_twice() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/refresh", Reply::Torn("{\"files\": ".into()));
    run(&daemon, &["refresh"]).exits(4).says("broke off");
    assert_eq!(daemon.seen().len(), 1);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let daemon = Daemon::start();
    for args in [
        &["fetsh"][..],
        &["list", "--all", "--peer", "x"],
        &["fetch", "x", "--force"],
        &["list", "--limit", "0"],
    ] {
        run(&daemon, args).exits(2).prints("");
    }
    assert!(daemon.seen().is_empty());
}

#[test]
fn help_documents_the_exit_codes() {
    let daemon = Daemon::start();
    let ended = run(&daemon, &["--help"]).exits(0);
    assert!(ended.stdout.contains("Exit codes:\n    0  done\n    1  failed\n"), "{ended:#?}");
    let ended = run(&daemon, &["friends", "add", "--help"]).exits(0);
    assert!(ended.stdout.contains("Examples:\n  p2pctl friends add"), "{ended:#?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let daemon = Daemon::start();
    let file = json!({"name": "n".repeat(200), "size": 1, "content": null, "modified_ms": 0, "share": null,
                      "sources": 1, "here": false});
    let files = vec![file; 5000];
    daemon.json("GET /v1/files", json!({"files": files, "next": null, "incomplete": null}));
    for args in [&["list"][..], &["list", "--json"]] {
        let mut child = p2pctl(&daemon.socket(), args).spawn().unwrap();
        drop(child.stdout.take());
        Ended::of(child.wait_with_output().unwrap()).exits(0).says_nothing();
    }
}
