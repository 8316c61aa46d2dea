//! `fetch`: the way of a file to its user.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use p2p_content::ContentHash;
use serde_json::{Value, json};

use crate::command::{Ended, interrupt, p2pctl, run};
use crate::daemon::{Daemon, Reply};
use crate::listing::{HASH, ID};
use crate::transfers::transfer;

const BYTES: &[u8] = &[b'p'; 1024];
const EVENTS: &str = "GET /v1/transfers/7/events";

fn created(transfer: &Value) -> Reply {
    Reply::Body { status: 201, body: transfer.to_string().into() }
}

/// The content of [`BYTES`].
fn content() -> String {
    ContentHash::of(BYTES).to_string()
}

fn contents() -> String {
    format!("GET /v1/contents/{}", content())
}

/// How often the daemon was asked for the bytes.
fn asked_for_bytes(daemon: &Daemon) -> usize {
    daemon.seen().iter().filter(|seen| seen.what.starts_with("GET /v1/contents")).count()
}

/// A daemon that has the file already, by its own account there.
fn naming(path: &Path) -> Daemon {
    let daemon = Daemon::start();
    let mut done = transfer(7, "done");
    done["content"] = json!(content());
    done["path"] = json!(path);
    daemon.on("POST /v1/transfers", created(&done));
    daemon
}

/// The same, with bytes to give out.
fn giving(path: &Path, bytes: &'static [u8]) -> Daemon {
    let daemon = naming(path);
    daemon.on(&contents(), Reply::Body { status: 200, body: bytes.into() });
    daemon
}

/// A daemon that has the file, where `p2pctl` can read it or where it cannot; and where that is.
fn having(readable: bool) -> (Daemon, tempfile::TempDir) {
    let share = tempfile::tempdir().unwrap();
    let path = share.path().canonicalize().unwrap().join("shared.txt");
    if readable {
        std::fs::write(&path, BYTES).unwrap();
    }
    (giving(&path, BYTES), share)
}

fn staying_open(events: Vec<Value>) -> Reply {
    Reply::Events { events, apart: Duration::ZERO, stays_open: true }
}

/// What is left in a directory beside what should be.
fn names_in(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_fetch_ends_with_hash_and_path_as_b3sum_writes_them() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.events(EVENTS, vec![transfer(7, "running"), transfer(7, "done")]);
    run(&daemon, &["fetch", "docs/a.txt", "--from", "P2", "--as", "b.txt"])
        .exits(0)
        .says_nothing()
        .prints(&format!("{HASH}  /nowhere/docs/a.txt\n"));
    let asked: Value = serde_json::from_slice(&daemon.seen()[0].body).unwrap();
    assert_eq!(asked, json!({"what": "docs/a.txt", "from": "P2", "save_as": "b.txt"}));
}

#[test]
fn in_json_every_step_is_one_line() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.events(EVENTS, vec![transfer(7, "running"), transfer(7, "done")]);
    let ended = run(&daemon, &["fetch", "docs/a.txt", "--json"]).exits(0).says_nothing();
    assert_eq!(ended.values(), [transfer(7, "queued"), transfer(7, "running"), transfer(7, "done")]);
}

#[test]
fn a_dry_run_of_a_file_tells_what_would_be_fetched_and_from_whom_and_where_it_would_land() {
    let found = json!({"what": "docs/a.txt", "name": "b.txt", "content": HASH, "size": 2048, "here": false,
                       "path": "/nowhere/b.txt", "transfer": null, "sources": [{"peer_id": ID, "name": "P2"}],
                       "free_bytes": 4096, "incomplete": null});
    let daemon = Daemon::start();
    daemon.json("GET /v1/fetch", found.clone());
    run(&daemon, &["fetch", "docs/a.txt", "--dry-run", "--from", "P 2", "--as", "b.txt"])
        .exits(0)
        .says_nothing()
        .prints(&format!(
            "to fetch  b.txt, 2.0 KiB\nhash      {HASH}\nfrom      P2 (y5tq3kzm)\nto        /nowhere/b.txt\n\
             free      4.0 KiB\n"
        ));
    assert_eq!(daemon.seen()[0].query, "what=docs%2Fa.txt&from=P%202&save_as=b.txt");
    let ended = run(&daemon, &["fetch", "docs/a.txt", "--dry-run", "--json"]).exits(0);
    assert_eq!(ended.values(), std::slice::from_ref(&found));
    let mut here = found;
    (here["here"], here["sources"]) = (json!(true), json!([]));
    let daemon = Daemon::start();
    daemon.json("GET /v1/fetch", here);
    run(&daemon, &["fetch", "docs/a.txt", "--dry-run"])
        .exits(0)
        .prints("is here   b.txt, 2.0 KiB\nat        /nowhere/b.txt\n");
    let daemon = Daemon::start();
    daemon.problem("GET /v1/fetch", 409, "several-contents", "there are 2");
    run(&daemon, &["fetch", "docs/a.txt", "--dry-run"]).exits(6).prints("").says("p2pctl locate docs/a.txt");
}

#[test]
fn detaching_prints_the_number_and_how_to_follow() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    run(&daemon, &["fetch", "docs/a.txt", "--detach"])
        .exits(0)
        .prints("7\n")
        .says("p2pctl transfers --watch")
        .says("p2pctl transfers cancel 7");
    let ended = run(&daemon, &["fetch", "docs/a.txt", "--detach", "--json"]).exits(0);
    assert_eq!(ended.values(), [transfer(7, "queued")]);
    assert_eq!(daemon.seen().len(), 2, "nothing was followed");
}

#[test]
fn a_pause_is_told_once_with_its_reason() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    let mut waiting = transfer(7, "waiting");
    waiting["reason"] = json!("P2 is offline");
    let mut paused = transfer(7, "paused");
    paused["reason"] = json!("1 GiB is missing");
    daemon.events(EVENTS, vec![waiting.clone(), waiting, paused, transfer(7, "done")]);
    let ended = run(&daemon, &["fetch", "docs/a.txt"]).exits(0);
    assert_eq!(
        ended.stderr,
        "docs/a.txt: waiting for a source: P2 is offline\ndocs/a.txt: paused: 1 GiB is missing\n"
    );
}

#[test]
fn a_fetch_that_fails_gives_the_reason() {
    let daemon = Daemon::start();
    let mut failed = transfer(7, "failed");
    failed["reason"] = json!("every source sent false bytes");
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.events(EVENTS, vec![failed]);
    run(&daemon, &["fetch", "x"])
        .exits(1)
        .prints("")
        .says("Cannot fetch docs/a.txt: every source sent false bytes");
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "cancelled")));
    run(&daemon, &["fetch", "x"]).exits(1).prints("").says("was cancelled");
}

#[test]
fn an_unproven_file_comes_with_a_warning() {
    let daemon = Daemon::start();
    let mut done = transfer(7, "done");
    done["proven"] = json!(false);
    daemon.on("POST /v1/transfers", created(&done));
    run(&daemon, &["fetch", "x"]).exits(0).says("warning: docs/a.txt is unproven").says("nobody vouches");
}

#[test]
fn a_file_is_delivered_where_its_user_wants_it() {
    use std::os::unix::fs::PermissionsExt as _;
    for readable in [true, false] {
        let (daemon, _share) = having(readable);
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("mine.txt");
        run(&daemon, &["fetch", "docs/a.txt", "-o", path.to_str().unwrap()])
            .exits(0)
            .says_nothing()
            .prints(&format!("{}  {}\n", content(), path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), BYTES);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o600, 0o600);
        run(&daemon, &["fetch", "docs/a.txt", "-o", out.path().to_str().unwrap()]).exits(0);
        assert_eq!(std::fs::read(out.path().join("a.txt")).unwrap(), BYTES);
        assert_eq!(names_in(out.path().to_owned()), ["a.txt", "mine.txt"]);
        assert_eq!(asked_for_bytes(&daemon), if readable { 0 } else { 2 });
    }
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let (daemon, _share) = having(true);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("a.txt");
    std::fs::write(&path, "mine").unwrap();
    for target in [path.as_path(), out.path()] {
        run(&daemon, &["fetch", "docs/a.txt", "-o", target.to_str().unwrap()]).exits(6).says("--force");
    }
    assert!(daemon.seen().is_empty(), "refused before anything was fetched");
    // Only the answer tells which name a hash has.
    run(&daemon, &["fetch", HASH, "-o", out.path().to_str().unwrap()])
        .exits(6)
        .says("is there already")
        .says("the fetched file itself is here");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    run(&daemon, &["fetch", "docs/a.txt", "--force", "-o", path.to_str().unwrap()]).exits(0);
    assert_eq!(std::fs::read(&path).unwrap(), BYTES);
}

#[test]
fn a_target_that_cannot_be_is_refused_first() {
    let (daemon, _share) = having(true);
    run(&daemon, &["fetch", "docs/a.txt", "-o", "/no/such/dir/a.txt"])
        .exits(3)
        .says("There is no directory /no/such/dir");
    if !rustix::process::geteuid().is_root() {
        // Root may write everywhere.
        use std::os::unix::fs::PermissionsExt as _;
        let out = tempfile::tempdir().unwrap();
        std::fs::set_permissions(out.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
        let path = out.path().join("a.txt");
        run(&daemon, &["fetch", "docs/a.txt", "-o", path.to_str().unwrap()])
            .exits(7)
            .says("Cannot write into");
    }
    assert!(daemon.seen().is_empty());
}

#[test]
fn a_copy_that_breaks_off_leaves_nothing_behind() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "done")));
    daemon.on(&format!("GET /v1/contents/{HASH}"), Reply::Torn(BYTES[..100].into()));
    let out = tempfile::tempdir().unwrap();
    run(&daemon, &["fetch", "docs/a.txt", "-o", out.path().to_str().unwrap()])
        .exits(4)
        .prints("")
        .says("broke off");
    assert!(names_in(out.path().to_owned()).is_empty());
}

#[test]
fn other_bytes_are_never_delivered_as_the_content() {
    for other in [&b"shorter"[..], &[b'q'; 1024]] {
        let share = tempfile::tempdir().unwrap();
        let path = share.path().canonicalize().unwrap().join("shared.txt");
        std::fs::write(&path, other).unwrap();
        let out = tempfile::tempdir().unwrap();
        let fetch = ["fetch", "docs/a.txt", "-o", out.path().to_str().unwrap()];

        let daemon = naming(&path);
        daemon.problem(&contents(), 404, "not-here", "this peer does not have the content");
        run(&daemon, &fetch).exits(1).prints("").says("was changed").says("fetch it again");
        run(&giving(&path, other), &fetch).exits(1).prints("").says("was changed");
        assert!(names_in(out.path().to_owned()).is_empty());

        // Another file of the daemon may have the content.
        run(&giving(&path, BYTES), &fetch).exits(0).says_nothing();
        assert_eq!(std::fs::read(out.path().join("a.txt")).unwrap(), BYTES);
        assert_eq!(names_in(out.path().to_owned()), ["a.txt"]);
    }
}

#[test]
fn no_link_leads_to_a_file_that_the_daemon_did_not_mean() {
    let share = tempfile::tempdir().unwrap();
    let real = share.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("real")).unwrap();
    std::fs::write(real.join("real/shared.txt"), BYTES).unwrap();
    std::os::unix::fs::symlink("real", real.join("way")).unwrap();
    let daemon = giving(&real.join("way/shared.txt"), BYTES);
    let out = tempfile::tempdir().unwrap();
    run(&daemon, &["fetch", "docs/a.txt", "-o", out.path().to_str().unwrap()]).exits(0);
    assert_eq!(asked_for_bytes(&daemon), 1);
    assert_eq!(std::fs::read(out.path().join("a.txt")).unwrap(), BYTES);
}

#[test]
fn what_is_no_file_is_never_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let (daemon, _share) = having(true);
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let fetch =
        |name: &str| run(&daemon, &["fetch", "docs/a.txt", "--force", "-o", at(name).to_str().unwrap()]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    fetch("pipe").exits(0).says_nothing().prints(&format!("{}  {}\n", content(), at("pipe").display()));
    assert_eq!(reader.join().unwrap(), BYTES);
    assert!(at("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    run(&daemon, &["fetch", "docs/a.txt", "-o", at("pipe").to_str().unwrap()])
        .exits(6)
        .says("write into it with --force");

    std::os::unix::fs::symlink("/dev/null", at("null")).unwrap();
    fetch("null").exits(0);
    assert_eq!(std::fs::read_link(at("null")).unwrap(), Path::new("/dev/null"));

    std::fs::write(at("file"), "mine").unwrap();
    std::os::unix::fs::symlink("file", at("link")).unwrap();
    fetch("link").exits(6).says("where the link leads");
    assert_eq!(std::fs::read(at("file")).unwrap(), b"mine");
    assert_eq!(names_in(out.path().to_owned()), ["file", "link", "null", "pipe"]);
}

#[test]
fn standard_output_gets_the_bytes_and_nothing_else() {
    for readable in [true, false] {
        let (daemon, _share) = having(readable);
        let text = String::from_utf8(BYTES.to_vec()).unwrap();
        run(&daemon, &["fetch", "docs/a.txt", "-o", "-"]).exits(0).prints(&text).says(&content());
        assert_eq!(asked_for_bytes(&daemon), 1, "what cannot be taken back comes from the daemon");
        // What a file held before stays there.
        let file = daemon.dir().join("out");
        std::fs::write(&file, "before ").unwrap();
        let append = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        let status = p2pctl(&daemon.socket(), &["fetch", "a", "-o", "-"]).stdout(append).status().unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("before {text}"));
    }
}

#[test]
fn other_bytes_on_standard_output_are_disowned() {
    let daemon = giving(Path::new("/nowhere/a.txt"), b"other");
    run(&daemon, &["fetch", "a", "-o", "-"]).exits(1).prints("other").says("do not use it");
}

#[test]
fn a_full_disk_is_exit_code_7() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (daemon, _share) = having(true);
    let child = p2pctl(&daemon.socket(), &["fetch", "a", "-o", "-"]).stdout(full).spawn().unwrap();
    Ended::of(child.wait_with_output().unwrap()).exits(7).says("the disk is full");
}

#[test]
fn a_reader_that_closes_the_pipe_ends_it_quietly() {
    for readable in [true, false] {
        let (daemon, _share) = having(readable);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = p2pctl(&daemon.socket(), &["fetch", "a", "-o", "-"]).stdout(writer).spawn().unwrap();
        Ended::of(child.wait_with_output().unwrap()).exits(0).says_nothing();
    }
}

#[test]
fn a_restart_of_the_daemon_is_waited_for() {
    let mut daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.on(EVENTS, staying_open(vec![transfer(7, "running")]));
    daemon.events(EVENTS, vec![transfer(7, "done")]);
    let child = p2pctl(&daemon.socket(), &["fetch", "docs/a.txt"]).spawn().unwrap();
    daemon.wait_for(EVENTS, 1);
    daemon.stop();
    std::thread::sleep(Duration::from_millis(700));
    daemon.serve();
    Ended::of(child.wait_with_output().unwrap())
        .exits(0)
        .prints(&format!("{HASH}  /nowhere/docs/a.txt\n"))
        .says("waiting for it to come back");
}

#[test]
fn a_daemon_that_does_not_come_back_keeps_the_transfer() {
    let mut daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.on(EVENTS, staying_open(vec![transfer(7, "running")]));
    let child = p2pctl(&daemon.socket(), &["fetch", "docs/a.txt"]).spawn().unwrap();
    daemon.wait_for(EVENTS, 1);
    let stopped = Instant::now();
    daemon.stop();
    Ended::of(child.wait_with_output().unwrap())
        .exits(4)
        .prints("")
        .says("within 10 s")
        .says("nothing is lost");
    assert!(stopped.elapsed() >= Duration::from_secs(10));
}

#[test]
fn ctrl_c_ends_the_command_and_not_the_transfer() {
    let daemon = Daemon::start();
    daemon.on("POST /v1/transfers", created(&transfer(7, "queued")));
    daemon.on(EVENTS, staying_open(vec![transfer(7, "running")]));
    let out = tempfile::tempdir().unwrap();
    let args = ["fetch", "my a.txt", "-o", out.path().to_str().unwrap()];
    let child = p2pctl(&daemon.socket(), &args).stdin(Stdio::null()).spawn().unwrap();
    daemon.wait_for(EVENTS, 1);
    interrupt(child)
        .exits(130)
        .prints("")
        .says("p2pd goes on fetching docs/a.txt (transfer 7)")
        .says("p2pctl fetch 'my a.txt'")
        .says("p2pctl transfers --watch")
        .says("p2pctl transfers cancel 7");
    assert!(daemon.seen().iter().all(|seen| !seen.what.starts_with("DELETE")), "{:?}", daemon.seen());
    assert!(names_in(out.path().to_owned()).is_empty());
}
