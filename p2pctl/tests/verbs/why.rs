//! `why`, and its `--watch`.

use serde_json::{Value, json};

use crate::command::run;
use crate::daemon::Daemon;
use crate::listing::ID;

fn shares(bytes: f64, disk: f64) -> Value {
    json!({"bytes": bytes, "their_limit": 0.0, "our_limit": 0.0, "disk": disk, "proofs": 0.02, "connecting": 0.0,
           "idle": 0.01})
}

fn why(state: &str, bound_by: &str) -> Value {
    json!({"id": 7, "name": "docs/a.txt", "state": state, "bound_by": bound_by, "was_bound_by": null,
           "says": "transfer 7 (docs/a.txt) is bound by the network: P2 has 3 requests open",
           "waits_since_ms": null, "tries": 0, "next_try_ms": null, "measured_ms": 10_040, "bytes_per_sec": 11_744_051,
           "shares": shares(0.93, 0.04),
           "sources": [{"peer_id": ID, "name": "P2", "bytes_per_sec": 11_744_051, "open_requests": 3,
                        "waits_for": "bytes", "waits_ms": 1200, "shares": shares(0.93, 0.04),
                        "limit_bytes_per_sec": 0}],
           "disk": {"written_bytes": 1024, "writing_ms": 3, "bytes_per_sec": 503_316_480, "flushing_ms": 1},
           "cpu": {"proved_bytes": 1024, "proving_ms": 1, "bytes_per_sec": null, "network_thread": 0.4,
                   "busy_cores": 0.62, "cores": 2},
           "limit_bytes_per_sec": 20_971_520, "missing_pieces": 40, "rare_pieces": 0,
           "resumed": {"remembered_pieces": 60, "hashed_pieces": 1, "hashed_bytes": 1_048_576, "proven_pieces": 1}})
}

#[test]
fn the_sentence_comes_first_and_the_figures_below() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers/7/why", why("running", "network"));
    let ended = run(&daemon, &["why", "7"]).exits(0).says_nothing();
    let rows: Vec<String> =
        ended.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows[0], "transfer 7 (docs/a.txt) is bound by the network: P2 has 3 requests open");
    for row in [
        "SHARE TIME OF THE SOURCES FIGURES",
        "93 % waiting for bytes 11.2 MiB/s in 10.0 s",
        "0 % held back by our limit limit: 20.0 MiB/s",
        "4 % waiting for the disk writes 480.0 MiB/s a thread",
        "2 % waiting for proofs 0.6 of 2 cores busy",
        "11.2 MiB/s 3 bytes 1.2 s P2 (y5tq3kzm)",
    ] {
        assert!(rows.iter().any(|line| line == row), "no {row:?} in {}", ended.stdout);
    }
    let resumed = "60 pieces that were remembered; 1 piece was not remembered";
    assert!(ended.stdout.contains(resumed), "{ended:#?}");
    let ended = run(&daemon, &["why", "7", "--json"]).exits(0);
    assert_eq!(ended.values(), [why("running", "network")]);
}

#[test]
fn the_limit_of_a_single_source_is_told_beside_that_of_all() {
    let mut why = why("running", "our-limit");
    why["sources"][0]["waits_for"] = json!("our-limit-for-it");
    why["sources"][0]["limit_bytes_per_sec"] = json!(1_048_576);
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers/7/why", why);
    let ended = run(&daemon, &["why", "7"]).exits(0);
    for part in ["limit: 20.0 MiB/s, of P2: 1.0 MiB/s", "our limit for it"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
}

#[test]
fn watching_ends_with_the_transfer() {
    let daemon = Daemon::start();
    daemon.json("GET /v1/transfers/7/why", why("running", "network"));
    daemon.json("GET /v1/transfers/7/why", why("done", "ended"));
    let ended = run(&daemon, &["why", "7", "--watch", "--json"]).exits(0).says_nothing();
    assert_eq!(ended.values(), [why("running", "network"), why("done", "ended")]);
}
