//! What an administrator relies on: the journal's story of a transfer, configuration, whose files are whose, and what
//! systemd is told.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use p2p_proto::control::{ConfigAnswer, ConfigEntry, Transfer};
use p2p_tests::{
    Conduct, Entry, Journal, LyingPeer, Network, Peer, eventually, programs, random_bytes, random_file,
    write_file,
};
use rustix::process::{Signal, geteuid};
use serde_json::json;
use tokio::process::Command;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
/// A user and a group that no machine has.
const STRANGER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// Whether this process can be other users; else says that the test is left out.
fn is_root(what: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped, since only root can be another user: {what}");
    }
    root
}

/// Ends a peer's daemon and starts it again by this program.
async fn restart_by(peer: &mut Peer, program: PathBuf) {
    let daemon = peer.daemon_mut();
    daemon.launch_mut().program = program;
    daemon.terminate(Duration::from_secs(10)).await.unwrap();
    daemon.restart().await.unwrap();
}

/// A program that starts p2pd with this umask.
fn with_umask(dir: &Path, umask: &str) -> PathBuf {
    let path = dir.join(format!("p2pd-{umask}"));
    let p2pd = programs().unwrap().p2pd.display();
    fs::write(&path, format!("#!/bin/sh\numask {umask}\nexec '{p2pd}' \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_tells_the_story_of_a_transfer() {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => random_file(&shared.join("mentira.bin"), 24 * MIB, 9).map(drop),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let Some(journal) = Journal::listen(&network.dir().join("journal")).unwrap() else {
        println!("skipped: no mount namespaces here");
        return;
    };
    let program = journal.wrap(&programs().unwrap().p2pd).unwrap();
    restart_by(network.peer_mut(2).unwrap(), program).await;
    network.settled().await.unwrap();
    let liar =
        LyingPeer::start("mentiroso", Conduct::false_pieces(1), [("mentira.bin", random_bytes(24 << 20, 9))]);
    let liar = liar.await.unwrap();
    liar.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "mentira.bin", "--detach"]).await.unwrap();
    let done = peer.transfer_done(transfer.id, Duration::from_secs(120)).await.unwrap();

    let mut story: Vec<Entry> = Vec::new();
    eventually(SOON, "the story has its end", async || {
        story.extend(journal.entries()?);
        ensure!(story.iter().any(|entry| entry["MESSAGE"].contains("is done")), "{story:#?}");
        Ok(())
    })
    .await
    .unwrap();
    // As `journalctl -u p2pd TRANSFER_ID=…` chooses them.
    let number = transfer.id.to_string();
    let all = story.clone();
    story.retain(|entry| entry.get("TRANSFER_ID") == Some(&number));
    let told: Vec<&str> = story.iter().map(|entry| entry["MESSAGE"].as_str()).collect();
    println!("{}", told.join("\n"));
    let find = |part: &str| {
        story
            .iter()
            .find(|entry| entry["MESSAGE"].contains(part))
            .unwrap_or_else(|| panic!("{part}: {told:#?}"))
    };
    let begins = find("begins");
    assert_eq!(begins["CALLER_UID"], geteuid().as_raw().to_string());
    assert_eq!((begins["FILE"].as_str(), begins["BYTES"].as_str()), ("mentira.bin", "25165824"));
    assert_eq!(begins["CONTENT_HASH"], transfer.content.clone().unwrap());
    let asked: Vec<&str> = story
        .iter()
        .filter(|entry| entry["MESSAGE"].contains("asks the source"))
        .map(|entry| entry["PEER_ID"].as_str())
        .collect();
    assert!(asked.contains(&network.peer(1).unwrap().id()), "{told:#?}");
    let dropped = find("dropped the source");
    assert_eq!((dropped["PEER_ID"].as_str(), dropped["PRIORITY"].as_str()), (&*liar.id().to_string(), "4"));
    assert!(dropped["REASON"].contains("false bytes"), "{dropped:#?}");
    let end = find("is done");
    assert_eq!((end["BYTES"].as_str(), end["PRIORITY"].as_str()), ("25165824", "6"));
    assert_eq!(end["PATH"], done.path.unwrap());
    assert_eq!(end["WASTED_BYTES"], done.wasted_bytes.to_string());
    for field in ["BYTES_PER_SEC", "DURATION_MS", "SOURCES"] {
        assert!(end[field].parse::<u64>().unwrap() > 0, "{field}: {end:#?}");
    }
    // Who called is in the journal too, and reads are not in it.
    let call = all.iter().find(|entry| entry.get("METHOD").is_some_and(|method| method == "POST")).unwrap();
    assert_eq!(
        (call["CALLER_UID"].clone(), call["HTTP_STATUS"].as_str()),
        (geteuid().as_raw().to_string(), "201")
    );
    assert!(!all.iter().any(|entry| entry.get("METHOD").is_some_and(|method| method == "GET")), "{all:#?}");
    assert!(all.iter().all(|entry| entry["SYSLOG_IDENTIFIER"] == "p2pd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_a_configuration_is_told_at_once() {
    let network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let file = network.dir().join("wrong.toml");
    let text = "nmae = \"x\"\nlog = \"p2pd=loud\"\n[rest]\nlisten = 9001\n[transfers]\nrunning = 0\n[[share]]\nname = \"a\"\n\
                path = \"/srv/a\"\n[[share]]\nname = \"a\"\npath = \"/srv/b\"\nvisible = \"everyone\"\n[[share]]\nname = \"c\"\n";
    fs::write(&file, text).unwrap();
    let check = async |file: &Path| {
        let mut command = Command::new(&programs().unwrap().p2pd);
        command.arg("--config").arg(file).arg("--check-config").output().await.unwrap()
    };
    let output = check(&file).await;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    println!("{told}");
    let lines: Vec<&str> = told.lines().collect();
    for (line, part) in [
        (1, "did you mean 'name'?"),
        (2, "(in log)"),
        (4, "(in rest.listen)"),
        (6, "must be at least 1 (in transfers.running)"),
        (11, "the name \"a\" is given twice"),
        (13, "unknown variant 'everyone'"),
        (14, "missing field 'path'"),
    ] {
        let place = format!("p2pd: {}:{line}:", file.display());
        assert!(
            lines.iter().any(|told| told.starts_with(&place) && told.contains(part)),
            "{line} {part}: {told}"
        );
    }
    assert_eq!(lines.len(), 7, "and nothing else: {told}");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/p2pd.toml");
    assert!(check(&sample).await.status.success());
}

async fn log_says(peer: &Peer, part: &str) {
    eventually(SOON, &format!("the log says {part}"), async || {
        let log = peer.daemon().log();
        ensure!(log.contains(part), "{log}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn entry(peer: &Peer, key: &str) -> Result<ConfigEntry> {
    let answer: ConfigAnswer = peer.ctl_json(&["config", "show"]).await?;
    let found = answer.entries.into_iter().find(|entry| entry.key == key);
    found.ok_or_else(|| anyhow::anyhow!("no {key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_each_key_and_the_configuration_in_force_is_shown() {
    let mut network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let shown = network.peer(1).unwrap().ctl(["config", "show"]).await.unwrap().ok().unwrap().text();
    for line in
        ["name = \"P1\"  # file", "running = 4  # default", "plaintext = \"off\"  # default", "[[share]]"]
    {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }
    let peer = network.peer_mut(1).unwrap();
    peer.edit(|settings| {
        settings.set("transfers.reserve_bytes", 1000).set("log", "debug").set("name", "otro");
    })
    .unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
    log_says(peer, "INFO configuration changed: transfers.reserve_bytes: 268435456 → 1000\n").await;
    log_says(peer, "WARN not changed without a restart: name: \"P1\" → \"otro\"; the old value stays").await;
    log_says(peer, "WARN not changed without a restart: log: \"info\" → \"debug\"; the old value stays")
        .await;
    let reserve = entry(peer, "transfers.reserve_bytes").await.unwrap();
    assert_eq!((reserve.value, reserve.needs_restart, reserve.after_restart), (json!(1000), false, None));
    let log = entry(peer, "log").await.unwrap();
    assert_eq!(
        (log.value, log.needs_restart, log.after_restart),
        (json!("info"), true, Some(json!("debug")))
    );

    peer.edit(|settings| {
        settings.set("transfers.reserve_bytes", "much").set("grpc.listen", 7);
    })
    .unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
    log_says(peer, "(in transfers.reserve_bytes)").await;
    log_says(peer, "(in grpc.listen)").await;
    log_says(peer, "the old one stays").await;
    assert_eq!(entry(peer, "transfers.reserve_bytes").await.unwrap().value, json!(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_what_is_done_and_the_watchdog_is_fed() {
    let network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let dir = network.dir();
    let mut settings = network.peer_settings(1).unwrap();
    let text = |path: &str| dir.join(path).to_string_lossy().into_owned();
    fs::create_dir_all(dir.join("own/shared")).unwrap();
    write_file(&dir.join("own/shared/a.txt"), "a").unwrap();
    settings.clear_shares().set("state_dir", text("own/state")).set("control.socket", text("own.sock"));
    let share = [("name", "shared".to_owned()), ("path", text("own/shared"))];
    settings.add_share(share.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect());
    let launch = network.launch(&programs().unwrap().p2pd, "own", &settings).unwrap();
    let notify = dir.join("own.notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut daemon = Command::new(&launch.program)
        .arg("--config")
        .arg(&launch.config)
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "1000000")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut fed, mut status) = (0, String::new());
    let mut buffer = [0; 4096];
    while fed < 5 || status != "no transfers; 1 file shared; no network joined" {
        let len = match socket.recv(&mut buffer) {
            // A child of another test ended: a wait with a time limit is not taken up again by itself.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            received => received.unwrap(),
        };
        let said = String::from_utf8_lossy(&buffer[..len]).into_owned();
        fed += usize::from(said == "WATCHDOG=1\n");
        if let Some(line) = said.lines().find_map(|line| line.strip_prefix("STATUS=")) {
            status = line.to_owned();
        }
    }
    daemon.kill().await.unwrap();
}

/// Runs p2pctl as another user, in these groups, with this umask.
async fn as_user(ctl: &Path, socket: &str, uid: u32, groups: &str, umask: &str, args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string()]);
    match groups {
        "" => command.arg("--clear-groups"),
        groups => command.args(["--groups", groups]),
    };
    command
        .args(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(ctl)
        .args(["--socket", socket]);
    command.args(args).env_remove("P2PD_SOCKET").env("NO_COLOR", "1").current_dir("/");
    command.stdin(Stdio::null()).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_in_the_group_get_files_of_their_own_and_others_are_told_the_group() {
    if !is_root("delivery to other users") {
        return;
    }
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => write_file(&shared.join("docs/carta.txt"), "querida"),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let dir = network.dir().to_owned();
    // The network's directory is its maker's alone; these users come in by its path.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let ctl = dir.join("p2pctl");
    fs::copy(&programs().unwrap().p2pctl, &ctl).unwrap();
    let program = with_umask(&dir, "0027");
    let peer = network.peer_mut(2).unwrap();
    chown(peer.shared(""), None, Some(GROUP)).unwrap();
    fs::set_permissions(peer.shared(""), fs::Permissions::from_mode(0o2750)).unwrap();
    restart_by(peer, program).await;
    network.settled().await.unwrap();
    let peer = network.peer(2).unwrap();
    let socket = peer.socket().to_owned();
    chown(&socket, None, Some(GROUP)).unwrap();
    assert_eq!(mode(Path::new(&socket)), 0o660);

    let refused = as_user(&ctl, &socket, STRANGER, "", "0022", &["status"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    println!("{said}");
    assert!(said.contains("You may not use p2pd's socket") && said.contains(&GROUP.to_string()), "{said}");

    for (umask, expected) in [("0022", 0o644), ("0077", 0o600)] {
        let home = dir.join(format!("home-{umask}"));
        fs::create_dir(&home).unwrap();
        chown(&home, Some(STRANGER), Some(STRANGER)).unwrap();
        let target = home.join("carta.txt");
        let args = ["fetch", "docs/carta.txt", "-o", target.to_str().unwrap()];
        let output = as_user(&ctl, &socket, STRANGER, &GROUP.to_string(), umask, &args).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata = fs::metadata(&target).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (STRANGER, STRANGER));
        assert_eq!((mode(&target), fs::read(&target).unwrap().as_slice()), (expected, &b"querida"[..]));
    }
    // What was fetched is the group's to read, in directories of the group.
    let fetched = peer.shared("docs/carta.txt");
    for (path, expected) in [(fetched.clone(), 0o640), (peer.shared("docs"), 0o2750)] {
        assert_eq!(
            (mode(&path), fs::metadata(&path).unwrap().gid()),
            (expected, GROUP),
            "{}",
            path.display()
        );
    }
    // Where the user may not read it, its bytes come through the socket.
    fs::set_permissions(peer.shared(""), fs::Permissions::from_mode(0o700)).unwrap();
    let target = dir.join("home-0022/por-el-socket.txt");
    let args = ["fetch", "docs/carta.txt", "-o", target.to_str().unwrap()];
    let output = as_user(&ctl, &socket, STRANGER, &GROUP.to_string(), "0022", &args).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = fs::metadata(&target).unwrap();
    assert_eq!((metadata.uid(), fs::read(&target).unwrap().as_slice()), (STRANGER, &b"querida"[..]));
    let by = format!("asked for by uid {STRANGER}");
    assert!(peer.daemon().log().contains(&by), "{}", peer.daemon().log());
    let call = format!("uid {STRANGER} (pid ");
    assert!(
        peer.daemon().log().lines().any(|line| line.contains(&call) && line.contains("POST /v1/transfers"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetched_file_has_the_mode_and_the_group_that_its_place_calls_for() {
    if !is_root("groups of directories") {
        return;
    }
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => {
            write_file(&shared.join("a.txt"), "a")?;
            write_file(&shared.join("equipo/b.txt"), "b")
        }
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let program = with_umask(network.dir(), "0022");
    let peer = network.peer_mut(2).unwrap();
    // A directory in the share that belongs to another group than the share itself.
    fs::create_dir(peer.shared("equipo")).unwrap();
    chown(peer.shared("equipo"), None, Some(GROUP)).unwrap();
    fs::set_permissions(peer.shared("equipo"), fs::Permissions::from_mode(0o2775)).unwrap();
    restart_by(peer, program).await;
    network.settled().await.unwrap();
    let peer = network.peer(2).unwrap();
    for (name, gid) in [("a.txt", fs::metadata(peer.shared("")).unwrap().gid()), ("equipo/b.txt", GROUP)] {
        peer.ctl(["fetch", name]).await.unwrap().ok().unwrap();
        let path = peer.shared(name);
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o644, gid), "{name}");
    }
}
