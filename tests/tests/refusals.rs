//! What a daemon refuses to start with or to take, each with a message that says what to do: configurations, names, full
//! disks.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use p2p_proto::control::{Transfer, TransferState};
use p2p_proto::v1::offer_update;
use p2p_tests::{
    Conduct, Daemon, LyingPeer, Network, SeedClient, Settings, demonstration, eventually, programs,
    random_file,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Starts a p2pd that is configured like P1 but for `edit`, and gives what it says on its way out.
async fn refused(network: &Network, edit: impl FnOnce(&mut Settings)) -> String {
    let mut settings = network.peer_settings(1).unwrap();
    edit(&mut settings);
    let launch = network.launch(&programs().unwrap().p2pd, "refused", &settings).unwrap();
    let ended = Daemon::start_refused(launch).await.unwrap();
    assert!(!ended.status.success(), "it ends with an error: {}", ended.log);
    ended.log
}

fn says(log: &str, words: &[&str]) {
    assert!(words.iter().all(|word| log.contains(word)), "{words:?} are not all in: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_cannot_work_are_refused_with_what_to_do() {
    let network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let lock_free = network.dir().join("free").to_string_lossy().into_owned();
    let elsewhere = |settings: &mut Settings| {
        settings.set("state_dir", lock_free.clone()).set("control.socket", format!("{lock_free}.sock"));
    };

    let log = refused(&network, |settings| {
        elsewhere(settings);
        settings.set("rest.lisen", "127.0.0.1:0");
    });
    // The line and the nearest key.
    says(&log.await, &["lisen", "listen", "refused.toml:"]);

    let taken = peer.daemon().ready().rest.to_string();
    let log = refused(&network, |settings| {
        elsewhere(settings);
        settings.set("rest.listen", taken.clone());
    });
    says(&log.await, &[&taken, "in use"]);

    let log = refused(&network, |settings| {
        settings.set("control.socket", format!("{lock_free}.sock"));
    });
    let state = peer.state("").to_string_lossy().trim_end_matches('/').to_owned();
    says(&log.await, &[&state, &peer.daemon().pid().unwrap().to_string()]);

    // None of it troubled the one that runs.
    peer.ctl(["status"]).await.unwrap().ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maestro_refuses_likewise() {
    let network = Network::builder().start().await.unwrap();
    let maestro = network.maestro().unwrap().daemon();
    let start = async |settings: &Settings| {
        let launch = network.launch(&programs().unwrap().maestrod, "refused", settings).unwrap();
        Daemon::start_refused(launch).await.unwrap().log
    };
    let mut settings = network.maestro_settings();
    says(&start(&settings).await, &["maestro", &maestro.pid().unwrap().to_string()]);
    let taken = maestro.ready().grpc.to_string();
    let other = network.dir().join("other").to_string_lossy().into_owned();
    settings.set("state_dir", other).set("grpc.listen", taken.clone());
    says(&start(&settings).await, &[&taken, "in use"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_not_there_is_said_and_waited_for() {
    let network = Network::builder().without_maestro().peers(1).peers_with(|_, settings| {
        let path = settings.text("state_dir").unwrap().replace("/state", "/later");
        let share = [("name", "later"), ("path", &path)];
        settings.add_share(share.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect());
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let path = peer.dir().join("later");
    let said = peer.ctl(["shares"]).await.unwrap().ok().unwrap();
    assert!(
        said.text().contains("unavailable") && said.stderr.contains("later"),
        "{}{}",
        said.text(),
        said.stderr
    );
    let log = peer.daemon().log();
    assert!(log.lines().any(|line| line.contains(path.to_str().unwrap())), "{log}");
    p2p_tests::write_file(&path.join("a.txt"), "a").unwrap();
    eventually(Duration::from_secs(60), "it is shared when it is there", async || {
        let files = peer.rest()?.get("/files").await?.ok()?;
        ensure!(files["files"] == json!(["a.txt"]), "{files}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Names that no peer takes, each with what is wrong with it.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "../fuera.txt",
        "a/../../fuera.txt",
        "/fuera.txt",
        "a//b",
        "a/",
        ".",
        "..",
        "",
        ".p2p-partial/x",
        "a\0b",
        "a\nb",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("n".repeat(256));
    names.push(vec!["n".repeat(200); 6].join("/"));
    names
}

fn tree(dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        paths.push(path.to_string_lossy().into_owned());
        if path.is_dir() && !path.is_symlink() {
            paths.extend(tree(&path));
        }
    }
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_are_refused_at_every_entry() {
    let network = demonstration(None).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let before = tree(&peer.shared(""));
    let (rest, seed) = (peer.rest().unwrap(), SeedClient::connect(&peer.address()).await.unwrap());
    let liar = LyingPeer::start("mentiroso", Conduct::Honest, [("x.txt", "x")]).await.unwrap();
    liar.join(&network.maestro().unwrap().address()).await.unwrap();
    let mut offering = liar.call(&peer.address(), None).await.unwrap();

    for name in bad_names() {
        let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = rest.post_bytes(&format!("/upload?filename={escaped}"), "x").await.unwrap();
        assert!((400..500).contains(&answer.status), "REST takes {name:?}: {}", answer.text);
        assert_eq!(answer.media_type, "application/problem+json");
        let answer = seed.upload(&name, "x").await.unwrap();
        assert!(!answer.ok && !answer.message.is_empty(), "FileService takes {name:?}");
        assert!(!seed.download(&name).await.unwrap().ok, "FileService gives {name:?}");
        let last = liar.offer("x.txt", &mut offering, &name).await;
        let refused = last.as_ref().map_or(true, |last| last.state() == offer_update::State::Refused);
        assert!(refused, "an offer as {name:?} is taken: {last:?}");
        assert_ne!(
            peer.ctl(["fetch", "archivo2.txt", "--as", &name.replace('\0', "\u{1}")]).await.unwrap().code,
            0
        );
    }
    // Bytes that are no text.
    for bytes in ["%ff%fe", "a%80b"] {
        let answer = rest.post_bytes(&format!("/upload?filename={bytes}"), "x").await.unwrap();
        assert!((400..500).contains(&answer.status), "{bytes}: {}", answer.text);
    }
    assert_eq!(tree(&peer.shared("")), before, "nothing came of it");
    assert!(!peer.dir().join("fuera.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_on_the_disk_that_the_network_cannot_say_are_left_out() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    for name in [&b"latin1-\xe9.txt"[..], b"salto\n.txt", b"escape\x1b[2J.txt"] {
        fs::write(peer.shared(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    peer.write("a.txt", "a").unwrap();
    peer.ctl(["refresh"]).await.unwrap().ok().unwrap();
    let files = peer.rest().unwrap().get("/files").await.unwrap().ok().unwrap();
    assert_eq!(files["files"], json!(["a.txt"]));
    assert_eq!(maestro.locate("a.txt").await.unwrap().len(), 1);
    let shares = peer.ctl(["shares"]).await.unwrap().ok().unwrap().stderr;
    assert!(shares.contains("latin1"), "the user is told what is left out: {shares}");
    assert!(!shares.contains('\u{1b}'), "and the terminal is not driven by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_planted_in_a_share_leads_nowhere() {
    let network = demonstration(None).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let outside = peer.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, peer.shared("door")).unwrap();
    std::os::unix::fs::symlink(outside.join("x.txt"), peer.shared("x.txt")).unwrap();
    let seed = SeedClient::connect(&peer.address()).await.unwrap();
    for name in ["door/x.txt", "x.txt"] {
        peer.rest().unwrap().post_bytes(&format!("/upload?filename={name}"), "x").await.unwrap();
        seed.upload(name, "x").await.unwrap();
        peer.ctl(["fetch", "archivo2.txt", "--as", name, "--detach"]).await.unwrap();
    }
    eventually(SOON, "every transfer has ended, or says why it does not", async || {
        let transfers = peer.transfers().await?;
        ensure!(
            transfers.iter().all(|transfer| transfer.reason.is_some() || transfer.state.is_ended()),
            "{transfers:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(tree(&outside), [""; 0], "nothing was written through a link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_pauses_a_fetch_and_loses_nothing() {
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 2 {
            settings.set("transfers.reserve_bytes", i64::MAX);
        }
    });
    let network = network.files(|number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), 8 * MIB, 1).map(drop),
        _ => Ok(()),
    });
    let mut network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let paused = |transfer: &Transfer| transfer.state == TransferState::Paused && transfer.reason.is_some();
    let transfer =
        peer.transfer_until(transfer.id, SOON, "it says that there is no room", paused).await.unwrap();
    assert!(!peer.shared("grande.bin").exists());

    let peer = network.peer_mut(2).unwrap();
    peer.daemon_mut().terminate(Duration::from_secs(5)).await.unwrap();
    peer.edit(|settings| {
        settings.remove("transfers.reserve_bytes");
    })
    .unwrap();
    peer.daemon_mut().restart().await.unwrap();
    peer.transfer_done(transfer.id, SOON).await.unwrap();
    assert_eq!(peer.hash_of("grande.bin").unwrap(), network.peer(1).unwrap().hash_of("grande.bin").unwrap());
}

/// A caller that reads nothing before it has sent all, as many simple ones do.
#[tokio::test(flavor = "multi_thread")]
async fn who_uploads_too_much_can_send_it_all_and_then_reads_why() {
    let network = Network::builder().peers(1).peers_with(|_, settings| {
        settings.set("transfers.reserve_bytes", i64::MAX);
    });
    let network = network.start().await.unwrap();
    let rest = network.peer(1).unwrap().rest_with_token().unwrap();
    let body = vec![7; 32 << 20];
    let mut connection = TcpStream::connect(rest.base().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /upload?filename=x.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        rest.token().unwrap(),
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&body).await.expect("all of it can be sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 507 ") && answer.contains("disk-full"), "{answer}");
}

/// A small file system of its own, gone when this is dropped. `None` where this user may not mount.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(at: &Path) -> Option<SmallDisk<'_>> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "p2p-test"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// Has what is fetched land there, and so many bytes stay free.
fn downloads_at(settings: &mut Settings, path: &Path, reserve: i64) {
    let share = [("name", "small"), ("path", path.to_str().unwrap())];
    settings.clear_shares().set("transfers.reserve_bytes", reserve);
    let mut share: toml::Table =
        share.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    share.insert("downloads".to_owned(), true.into());
    settings.add_share(share);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_a_fetch_until_there_is_room() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(mount.path()) else {
        // Said aloud: on such a machine this test shows nothing.
        eprintln!("skipped: only root may mount a small file system; reserve_bytes is tested without one");
        return;
    };
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 2 {
            downloads_at(settings, disk.0, 0);
        }
    });
    let network = network.files(|number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), 16 * MIB, 1).map(drop),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    // Too little room for the file, and the daemon learns of it only by writing.
    fs::write(disk.0.join("ballast"), vec![0; 12 << 20]).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let paused = |transfer: &Transfer| transfer.state == TransferState::Paused && transfer.reason.is_some();
    peer.transfer_until(transfer.id, SOON, "it says that the disk is full", paused).await.unwrap();
    assert!(!disk.0.join("grande.bin").exists());
    let sent = peer.rest_with_token().unwrap().post_bytes("/upload?filename=x.bin", vec![7; 20 << 20]).await;
    let sent = sent.unwrap();
    assert_eq!((sent.status, sent.code()), (507, "disk-full"), "{}", sent.text);
    assert!(!disk.0.join("x.bin").exists());

    fs::remove_file(disk.0.join("ballast")).unwrap();
    eventually(Duration::from_secs(90), "it goes on by itself when there is room", async || {
        let transfer = peer.transfer(transfer.id).await?;
        ensure!(transfer.state == TransferState::Done, "{transfer:?}");
        Ok(())
    })
    .await
    .unwrap();
    let there = p2p_tests::hash_of_file(&disk.0.join("grande.bin")).unwrap();
    assert_eq!(there, network.peer(1).unwrap().hash_of("grande.bin").unwrap());
    drop(network);
}

/// One file that is longer than the disk, and others that fit.
#[tokio::test(flavor = "multi_thread")]
async fn what_fits_of_a_directory_comes_whatever_does_not() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(mount.path()) else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 2 {
            downloads_at(settings, disk.0, MIB.cast_signed());
        }
    });
    let sizes =
        [("a.bin", 32 * MIB), ("b.bin", 6 * MIB), ("c.bin", 5 * MIB), ("d.bin", 300_000), ("e.bin", 7)];
    let network = network.files(move |number, shared| match number {
        1 => sizes
            .iter()
            .try_for_each(|(name, size)| random_file(&shared.join("set").join(name), *size, *size).map(drop)),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let paused = |transfer: &Transfer| transfer.state == TransferState::Paused && transfer.reason.is_some();
    let paused = peer.transfer_until(transfer.id, SOON, "it waits for room", paused).await.unwrap();
    let why = paused.reason.unwrap();
    assert!(why.contains("1 of its files waits for room on the disk; set/a.bin: it needs 33554432"), "{why}");
    assert!(why.contains("all others are here"), "{why}");
    assert_eq!(paused.files_done, Some(4), "{why}");
    for (name, _) in &sizes[1..] {
        let there = p2p_tests::hash_of_file(&disk.0.join("set").join(name)).unwrap();
        assert_eq!(there, network.peer(1).unwrap().hash_of(&format!("set/{name}")).unwrap());
    }
    drop(network);
}

/// A directory of the share that is on another disk, so that no file can get its name there.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_takes_no_files_costs_only_its_own() {
    let share = tempfile::tempdir().unwrap();
    let away = share.path().join("set/away");
    let Some(disk) = SmallDisk::mount(&away) else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    let network = Network::builder().peers(2).peers_with(|number, settings| {
        if number == 2 {
            downloads_at(settings, share.path(), 0);
        }
    });
    let files = ["away/long.bin", "away/short.bin", "here/long.bin", "here/other.bin", "here/short.bin"];
    let network = network.files(move |number, shared| match number {
        1 => (1..).zip(&files).try_for_each(|(seed, name)| {
            let size = if name.contains("short") { 1000 } else { 12 * MIB };
            random_file(&shared.join("set").join(name), size, seed).map(drop)
        }),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap();
    let ended = |transfer: &Transfer| transfer.state.is_ended();
    let failed = peer.transfer_until(transfer.id, SOON, "it has ended", ended).await.unwrap();
    assert_eq!((failed.state, failed.files_done), (TransferState::Failed, Some(3)), "{failed:?}");
    let why = failed.reason.unwrap();
    assert!(why.contains("set/away/") && why.contains("and 1 more could not get their names"), "{why}");
    for name in &files[2..] {
        let there = p2p_tests::hash_of_file(&share.path().join("set").join(name)).unwrap();
        assert_eq!(there, network.peer(1).unwrap().hash_of(&format!("set/{name}")).unwrap());
    }
    let left = fs::read_dir(disk.0).unwrap().count();
    assert_eq!(left, 0, "nothing is left of what has no name");
    drop(network);
}
