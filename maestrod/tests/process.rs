//! The program itself: started, asked, told to end, and refused a start.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A maestrod that is ready, and what it told its supervisor.
struct Daemon {
    child: Child,
    notify: UnixDatagram,
    ready: String,
}

fn maestrod(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
    command.args(["--rest-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(dir.join("state")).args(arguments).env_remove("NOTIFY_SOCKET").env_remove("P2P_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(dir: &Path, arguments: &[&str]) -> Daemon {
    let socket = dir.join("notify");
    // Left by an earlier daemon of this test, if at all.
    let _ = std::fs::remove_file(&socket);
    let notify = UnixDatagram::bind(&socket).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = maestrod(dir, arguments).env("NOTIFY_SOCKET", &socket).spawn().unwrap();
    let Ok(ready) = wait_for(&notify, "READY=1") else {
        let _ = child.kill();
        panic!("not ready: {}", text(child.stderr.take().unwrap()));
    };
    Daemon { child, notify, ready }
}

fn wait_for(notify: &UnixDatagram, line: &str) -> std::io::Result<String> {
    let mut buffer = [0; 4096];
    loop {
        let len = notify.recv(&mut buffer)?;
        let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if message.lines().any(|found| found == line) {
            return Ok(message);
        }
    }
}

impl Daemon {
    fn assignment(&self, key: &str) -> &str {
        let value = self.ready.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{key} is not in: {}", self.ready))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit status and its log, if it ends in time.
    fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, text(self.child.stderr.take().unwrap()));
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("did not end within {limit:?}: {}", text(self.child.stderr.take().unwrap()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn text(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// A line for each thing that is wrong, no backtrace, these words in them.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    // Where it began to run, its log stands before.
    assert!(stderr.lines().last().unwrap().starts_with("maestrod: "), "{stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| line.starts_with("maestrod: ")).collect();
    assert!(code == 2 || said.len() == 1, "{stderr}");
    let said = said.join("\n");
    assert!(!stderr.contains("backtrace") && !stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[tokio::test]
async fn lives_from_ready_to_sigterm() {
    let dir = TempDir::new().unwrap();
    let daemon = start(dir.path(), &["--name", "central"]);
    assert_eq!(daemon.assignment("STATUS"), "no peers online; no files in the directory");
    let rest = daemon.assignment("X_P2P_REST").to_owned();
    let root: serde_json::Value =
        reqwest::get(format!("http://{rest}/")).await.unwrap().json().await.unwrap();
    assert_eq!(root["maestro_id"], daemon.assignment("X_P2P_ID"));
    assert!(daemon.assignment("X_P2P_GRPC").parse::<std::net::SocketAddr>().is_ok());
    let state = dir.path().join("state");
    for file in ["identity.key", "join-token"] {
        let mode = std::fs::metadata(state.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let id = daemon.assignment("X_P2P_ID").to_owned();
    // A connection that is kept open does not keep the daemon.
    let idle = std::net::TcpStream::connect(daemon.assignment("X_P2P_GRPC")).unwrap();
    let told = Instant::now();
    daemon.signal(Signal::TERM);
    wait_for(&daemon.notify, "STOPPING=1").unwrap();
    let (status, log) = daemon.wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(told.elapsed() < Duration::from_secs(5));
    drop(idle);
    let token = std::fs::read_to_string(state.join("join-token")).unwrap();
    assert!(log.contains("join-token") && !log.contains(token.trim()), "{log}");
    // The same maestro the next time.
    let daemon = start(dir.path(), &[]);
    assert_eq!(daemon.assignment("X_P2P_ID"), id);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait(Duration::from_secs(5)).0.code(), Some(0));
}

#[test]
fn the_token_is_printed_by_its_command_and_nowhere_else() {
    let dir = TempDir::new().unwrap();
    let token = |dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
        command.args(["token", "--state-dir"]).arg(dir.join("state")).output().unwrap()
    };
    assert_refused(&token(dir.path()), 1, &["join-token", "first starts"]);
    let daemon = start(dir.path(), &[]);
    // While the daemon runs: that is when somebody wants to join.
    let output = token(dir.path());
    assert!(output.status.success());
    let kept = std::fs::read_to_string(dir.path().join("state/join-token")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), kept.trim());
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(5)).0.success());
}

#[tokio::test]
async fn a_killed_maestro_loses_nothing_that_it_acknowledged() {
    let dir = TempDir::new().unwrap();
    let daemon = start(dir.path(), &[]);
    let rest = daemon.assignment("X_P2P_REST").to_owned();
    let body = serde_json::json!({ "peer": "http://localhost:9001", "files": ["a.txt"], "grpc_port": 9002 });
    let answer =
        reqwest::Client::new().post(format!("http://{rest}/register")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    daemon.signal(Signal::KILL);
    assert!(!daemon.wait(Duration::from_secs(5)).0.success());
    let daemon = start(dir.path(), &[]);
    let rest = daemon.assignment("X_P2P_REST").to_owned();
    let located = reqwest::get(format!("http://{rest}/locate?file=a.txt")).await.unwrap();
    let located: serde_json::Value = located.json().await.unwrap();
    assert_eq!(located["peers"][0]["rest"], "http://localhost:9001");
    assert_eq!(daemon.assignment("STATUS"), "1 peer online; 1 file in the directory");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(5)).0.success());
}

#[test]
fn a_port_in_use_is_named() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
    command.args(["--rest-listen", "127.0.0.1:0", "--grpc-listen", &address, "--state-dir"]);
    let output = command.arg(dir.path().join("state")).output().unwrap();
    assert_refused(&output, 1, &[&address, "in use", "[grpc] listen"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
    command.args(["--grpc-listen", "127.0.0.1:0", "--rest-listen", &address, "--state-dir"]);
    let output = command.arg(dir.path().join("state")).output().unwrap();
    assert_refused(&output, 1, &[&address, "in use", "[rest] listen"]);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut first = start(dir.path(), &[]);
    let output = maestrod(dir.path(), &[]).output().unwrap();
    let pid = first.child.id().to_string();
    assert_refused(&output, 1, &["in use by another daemon", &pid, "--state-dir"]);
    assert_eq!(first.child.try_wait().unwrap(), None);
    first.signal(Signal::TERM);
    assert!(first.wait(Duration::from_secs(5)).0.success());
}

#[test]
fn a_configuration_that_is_not_valid_says_where() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("maestrod.toml");
    let run = |text: &str, arguments: &[&str]| {
        std::fs::write(&config, text).unwrap();
        maestrod(dir.path(), &["--config", config.to_str().unwrap()]).args(arguments).output().unwrap()
    };
    let at = format!("{}:3:", config.display());
    assert_refused(&run("name = 'x'\n[rest]\nlisten_on = '127.0.0.1:1'\n", &[]), 2, &[&at, "listen_on"]);
    let zero = "[directory]\nlease_secs = 0\n[admission]\nmembership_days = 0\n";
    assert_refused(&run(zero, &[]), 2, &["directory.lease_secs", "admission.membership_days"]);
    assert_refused(&run("log = 'loud=very'\n", &[]), 2, &["loud=very"]);
    // All at once, each with its line: a key that is none, a type, a value.
    let several =
        run("nmae = 'x'\n[rest]\nlisten = 9000\n[directory]\nlease_secs = 0\n", &["--check-config"]);
    let lines =
        ["toml:1:1: ", "did you mean 'name'?", "toml:3:10: ", "(in rest.listen)", "toml:5:14: must be 1 to"];
    assert_refused(&several, 2, &lines);
    let flag = run("name = 'x'\n", &["--name", ""]);
    assert_refused(&flag, 2, &["maestrod: --name: must be 1 to 255 bytes"]);
    let printed = run("name = 'x'\n", &["--print-config", "--admission", "open"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    for line in ["name = \"x\"  # file", "policy = \"open\"  # flag", "lease_secs = 15  # default"] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    let output = run("name = 'x'\n", &["--check-config"]);
    assert!(output.status.success());
    // Nothing was made by looking.
    assert!(!dir.path().join("state").exists());
    let missing = maestrod(dir.path(), &["--config", "/nonexistent/maestrod.toml"]).output().unwrap();
    assert_refused(&missing, 2, &["/nonexistent/maestrod.toml"]);
    let usage = maestrod(dir.path(), &["--admission", "perhaps"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn sighup_reads_the_configuration_again_and_flags_stay() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("maestrod.toml");
    std::fs::write(&config, "name = 'one'\n").unwrap();
    let daemon = start(dir.path(), &["--config", config.to_str().unwrap(), "--admission", "open"]);
    let change = "name = 'two'\n[admission]\npolicy = 'token'\n[rest]\nallowed_hosts = ['x']\n";
    for text in [change, "name = 3\n"] {
        std::fs::write(&config, text).unwrap();
        daemon.signal(Signal::HUP);
        wait_for(&daemon.notify, "RELOADING=1").unwrap();
        wait_for(&daemon.notify, "READY=1").unwrap();
    }
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.wait(Duration::from_secs(5));
    assert!(status.success(), "{log}");
    assert!(log.contains("configuration changed: name: \"one\" → \"two\""), "{log}");
    let refused = "WARN not changed without a restart: rest.allowed_hosts: [] → [\"x\"]; the old value stays";
    assert!(log.contains(refused), "{log}");
    // The flag is over the file, then and now.
    assert!(!log.contains("admission.policy"), "{log}");
    assert!(log.contains("the old one stays") && log.contains("maestrod.toml:1:"), "{log}");
}

/// What `maestrod doctor --json` says of the daemon that listens there, and how it exits.
fn examine(dir: &Path, daemon: Option<&Daemon>, arguments: &[&str]) -> (serde_json::Value, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
    command.arg("--state-dir").arg(dir.join("state"));
    if let Some(daemon) = daemon {
        let [rest, grpc] = ["X_P2P_REST", "X_P2P_GRPC"].map(|key| daemon.assignment(key));
        command.args(["--rest-listen", rest, "--grpc-listen", grpc]);
    }
    let output = command.args(arguments).args(["doctor", "--json"]).output().unwrap();
    let told = serde_json::from_slice(&output.stdout);
    (told.unwrap_or_else(|error| panic!("{error}: {output:?}")), output.status.code())
}

fn verdict<'a>(told: &'a serde_json::Value, name: &str) -> &'a str {
    let check = told["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check of {name}: {told:#}"))["verdict"].as_str().unwrap()
}

#[test]
fn doctor_finds_what_is_wrong_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (told, code) = examine(dir.path(), None, &[]);
    assert_eq!((verdict(&told, "state"), code), ("problem", Some(2)), "{told:#}");
    assert!(!dir.path().join("state").exists());

    let daemon = start(dir.path(), &[]);
    let (told, code) = examine(dir.path(), Some(&daemon), &[]);
    assert_eq!((told["verdict"].as_str(), code), (Some("ok"), Some(0)), "{told:#}");
    for name in
        ["daemon", "identity", "join-token", "database", "clock", "rest", "grpc", "program", "admission"]
    {
        assert_eq!(verdict(&told, name), "ok", "{name}: {told:#}");
    }
    let elsewhere = TempDir::new().unwrap();
    let other = start(elsewhere.path(), &[]);
    let (told, code) = examine(dir.path(), Some(&other), &[]);
    other.signal(Signal::TERM);
    assert!(other.wait(Duration::from_secs(5)).0.success());
    assert_eq!(
        (verdict(&told, "grpc"), verdict(&told, "running-identity"), code),
        ("problem", "problem", Some(2))
    );
    let (told, _) = examine(dir.path(), None, &["--grpc-listen", "[::]:1", "--admission", "open"]);
    assert_eq!((verdict(&told, "admission"), verdict(&told, "grpc")), ("warning", "problem"));

    let rest = daemon.assignment("X_P2P_REST").to_owned();
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(5)).0.success());
    let state = dir.path().join("state");
    let (told, code) = examine(dir.path(), None, &["--rest-listen", &rest]);
    assert_eq!((verdict(&told, "daemon"), verdict(&told, "database"), code), ("problem", "ok", Some(2)));
    std::fs::write(state.join("directory.sqlite"), "no database at all, and never was one").unwrap();
    std::fs::remove_file(state.join("identity.key")).unwrap();
    let (told, _) = examine(dir.path(), None, &[]);
    assert_eq!((verdict(&told, "database"), verdict(&told, "identity")), ("problem", "problem"));
    assert!(!state.join("identity.key").exists());

    let config = dir.path().join("bad.toml");
    std::fs::write(&config, "nmae = 'x'").unwrap();
    let (told, code) = examine(dir.path(), None, &["--config", config.to_str().unwrap()]);
    assert_eq!((verdict(&told, "configuration"), code), ("problem", Some(2)));
}

#[test]
fn status_and_backup_are_for_people_and_scripts() {
    let dir = TempDir::new().unwrap();
    let run = |rest: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maestrod"));
        command.args(["--rest-listen", rest, "--state-dir"]).arg(dir.path().join("state"));
        command.args(arguments).output().unwrap()
    };
    let copy = dir.path().join("copy.sqlite");
    let copy = copy.to_str().unwrap();
    assert_refused(&run("127.0.0.1:1", &["status"]), 1, &["does not answer on 127.0.0.1:1", "doctor"]);
    assert_refused(&run("127.0.0.1:1", &["backup", copy]), 1, &["directory.sqlite", "--state-dir"]);
    let daemon = start(dir.path(), &[]);
    let rest = daemon.assignment("X_P2P_REST").to_owned();
    let told = run(&rest, &["status", "--json"]);
    assert!(told.status.success(), "{told:?}");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["peers"]["known"], &told["files"]), (&serde_json::json!(0), &serde_json::json!(0)));
    assert_eq!(told["maestro_id"], daemon.assignment("X_P2P_ID"));
    let text = String::from_utf8(run(&rest, &["status"]).stdout).unwrap();
    assert!(text.contains("0 connected, 0 here, 0 known"), "{text}");
    let copied = run(&rest, &["backup", copy]);
    assert!(copied.status.success(), "{copied:?}");
    assert!(String::from_utf8(copied.stdout).unwrap().contains(copy));
    assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    let itself = dir.path().join("state/directory.sqlite");
    assert_refused(&run(&rest, &["backup", itself.to_str().unwrap()]), 1, &["is the database itself"]);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(5)).0.success());
    assert!(run(&rest, &["backup", copy]).status.success());
    let mut left: Vec<_> = std::fs::read_dir(dir.path().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.retain(|name| name.to_str().unwrap().starts_with("directory"));
    assert_eq!(left, ["directory.sqlite"]);
}

/// A database that is to be brought to this release, and takes its time: somebody else writes to it.
#[test]
fn a_start_that_takes_long_ends_when_it_is_told_to() {
    let dir = TempDir::new().unwrap();
    let daemon = start(dir.path(), &[]);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(5)).0.success());
    let database = rusqlite::Connection::open(dir.path().join("state/directory.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut child = maestrod(dir.path(), &[]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("brings the database") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {:?}", child.wait());
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    let log = text(log);
    assert!(status.success(), "{status}: {log}");
    database.execute_batch("ROLLBACK").unwrap();
    let version: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
}
