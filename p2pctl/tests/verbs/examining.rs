//! `doctor`: what the daemon finds and what is seen from outside, in one table, with an exit code.

use serde_json::{Value, json};

use crate::command::{Ended, p2pctl, run};
use crate::daemon::Daemon;
use crate::listing::ID;

fn status(pid: u32) -> Value {
    json!({
        "peer_id": ID, "name": "P1", "version": env!("CARGO_PKG_VERSION"), "pid": pid, "started_ms": 0,
        "state_dir": "/var/lib/p2pd", "rest": "127.0.0.1:9001", "grpc": "0.0.0.0:9002", "maestro": null, "files": 1,
        "bytes": 23, "files_pending": 0, "friends": 0, "transfers_open": 0, "loops": []
    })
}

fn check(name: &str, verdict: &str, found: &str) -> Value {
    json!({"name": name, "verdict": verdict, "found": found, "advice": []})
}

fn found(checks: &[Value], unfit: &[Value]) -> Value {
    json!({"checks": checks, "watches": {"needed": 3, "held": 3, "short": false}, "unfit": unfit})
}

/// The daemon's process: one that is there, and was given no configuration.
fn pid() -> u32 {
    std::process::id()
}

fn line<'a>(ended: &'a Ended, check: &str) -> &'a str {
    let found = ended.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(check));
    found.unwrap_or_else(|| panic!("no line of {check} in {ended:#?}"))
}

#[test]
fn the_worst_finding_is_the_exit_code() {
    for (verdict, code, summary) in [
        ("ok", 0, "All is well."),
        ("warning", 1, "1 warning."),
        ("problem", 2, "1 problem."),
        ("skipped", 0, "All"),
    ] {
        let daemon = Daemon::start();
        std::fs::set_permissions(daemon.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o660))
            .unwrap();
        daemon.json("GET /v1/status", status(pid()));
        daemon.json("GET /v1/doctor", found(&[check("maestro", verdict, "so it is")], &[]));
        let ended = run(&daemon, &["doctor"]).exits(code).says_nothing();
        assert!(line(&ended, "maestro").starts_with(verdict), "{ended:#?}");
        assert!(ended.stdout.lines().last().unwrap().starts_with(summary), "{ended:#?}");
        assert!(line(&ended, "inotify").contains("need 3 watches"), "{ended:#?}");
        let told = &run(&daemon, &["doctor", "--json"]).exits(code).says_nothing().values()[0];
        let worst = if verdict == "skipped" { "ok" } else { verdict };
        assert_eq!(told["verdict"], worst);
        let names: Vec<_> =
            told["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
        assert_eq!(names, ["daemon", "socket", "program", "configuration", "inotify", "maestro"]);
    }
}

#[test]
fn a_stopped_daemon_is_examined_from_outside() {
    let mut daemon = Daemon::start();
    daemon.stop();
    let ended = run(&daemon, &["doctor"]).exits(2).says_nothing();
    assert!(line(&ended, "daemon").contains("p2pd is not running"), "{ended:#?}");
    assert!(ended.stdout.contains("→ start it with `systemctl start p2pd`"), "{ended:#?}");
    assert!(line(&ended, "socket").starts_with("problem"), "{ended:#?}");
    for check in ["configuration", "inotify"] {
        line(&ended, check);
    }
    daemon.serve();
}

#[test]
fn a_users_own_daemon_is_known_by_its_socket() {
    let mut daemon = Daemon::start();
    daemon.json("GET /v1/status", status(pid()));
    daemon.json("GET /v1/doctor", found(&[], &[]));
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(daemon.dir(), home.path().join("p2pd")).unwrap();
    let socket = home.path().join("p2pd/control.sock");
    let examine = || {
        let mut command = p2pctl(&socket, &["doctor", "--json"]);
        let output = command.env("XDG_RUNTIME_DIR", home.path()).env("HOME", home.path()).output().unwrap();
        Ended::of(output).says_nothing().values().remove(0)
    };
    let of = |told: &Value, name: &str| {
        told["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap().to_string()
    };
    let own = home.path().join(".config/p2pd/p2pd.toml");
    let running = of(&examine(), "configuration");
    assert!(running.contains(own.to_str().unwrap()), "{running}");
    daemon.stop();
    let stopped = examine();
    assert!(of(&stopped, "configuration").contains(own.to_str().unwrap()), "{stopped}");
    assert!(of(&stopped, "socket").contains("systemctl --user start p2pd.socket"), "{stopped}");
    assert!(of(&stopped, "daemon").contains("systemctl --user start p2pd"), "{stopped}");
    daemon.serve();
}

#[test]
fn what_the_sandbox_hides_gets_its_commands() {
    let daemon = Daemon::start();
    let path = daemon.dir().join("in");
    std::fs::create_dir(&path).unwrap();
    daemon.json("GET /v1/status", status(pid()));
    let unfit = json!({"name": "in", "path": path, "downloads": true, "code": "share-not-writable"});
    daemon.json("GET /v1/doctor", found(&[check("share in", "problem", "it cannot be written")], &[unfit]));
    let told = &run(&daemon, &["doctor", "--json"]).exits(2).values()[0];
    let share = told["checks"].as_array().unwrap().iter().find(|check| check["name"] == "share in").unwrap();
    let advice = share["advice"].to_string();
    assert!(advice.contains("setfacl -R -m u:") && advice.contains(path.to_str().unwrap()), "{advice}");
}

#[test]
fn an_older_daemon_is_named_as_such() {
    let daemon = Daemon::start();
    let mut older = status(pid());
    older["version"] = "0.0.1".into();
    daemon.json("GET /v1/status", older);
    daemon.problem("GET /v1/doctor", 404, "not-found", "no such path");
    let ended = run(&daemon, &["doctor"]);
    assert!(line(&ended, "program").starts_with("warning"), "{ended:#?}");
    assert!(line(&ended, "examination").starts_with("skipped"), "{ended:#?}");
}
