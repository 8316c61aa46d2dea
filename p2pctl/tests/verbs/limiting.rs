//! `limit`.

use serde_json::{Value, json};

use crate::command::run;
use crate::daemon::Daemon;
use crate::listing::ID;

fn limits() -> Value {
    json!({"up": {"bytes_per_sec": 5242880, "configured_bytes_per_sec": 5242880, "is_set": false,
                  "scheduled": "mon,tue 08:00-18:00"},
           "down": {"bytes_per_sec": 1024, "configured_bytes_per_sec": 0, "is_set": true},
           "peers": [{"peer_id": ID, "name": "P2", "up_bytes_per_sec": 2048, "down_bytes_per_sec": 0}]})
}

#[test]
fn what_is_in_force_is_shown_with_who_says_so() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/limits", limits());
    let shown = run(&daemon, &["limit"]).exits(0).stdout;
    let line = |at: usize| shown.lines().nth(at).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(line(1), "up 5.0 MiB/s the schedule, mon,tue 08:00-18:00");
    assert_eq!(line(2), "down 1.0 KiB/s p2pctl limit (configured: none)");
    assert_eq!(line(4), "PEER UP DOWN");
    assert_eq!(line(5), "P2 (y5tq3kzm) 2.0 KiB/s none");
}

#[test]
fn a_limit_of_one_peer_names_it_and_says_what_it_is() {
    let daemon = Daemon::start();
    daemon.json("POST /v1/limits", limits());
    run(&daemon, &["limit", "--peer", "P2", "--up", "2KiB"]).exits(0);
    run(&daemon, &["limit", "--peer", "P2", "--as-configured"]).exits(0);
    let sent: Vec<Value> =
        daemon.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    assert_eq!(
        sent,
        [
            json!({"up": 2048, "as_configured": false, "peer": "P2"}),
            json!({"as_configured": true, "peer": "P2"})
        ]
    );
    run(&daemon, &["limit", "--peer", "P2"]).exits(2).says("--up");
}

#[test]
fn a_daemon_of_before_says_nothing_of_peers_and_schedules() {
    let daemon = Daemon::start();
    let limit = json!({"bytes_per_sec": 0, "configured_bytes_per_sec": 0, "is_set": false});
    daemon.json("GET /v1/limits", json!({"up": limit, "down": limit}));
    let shown = run(&daemon, &["limit"]).exits(0).stdout;
    assert_eq!(shown.lines().count(), 3, "{shown}");
}
