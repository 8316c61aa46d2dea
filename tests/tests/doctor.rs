//! `p2pctl doctor` and `p2pctl share` with real daemons: what is well, what is found when something is not, and
//! directories that are shared while the daemon runs.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_proto::control::{FileList, ShareList, ShareRow};
use p2p_proto::diagnosis::{Check, Diagnosis, Verdict};
use p2p_tests::{Network, Peer, eventually, write_file};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);

/// What doctor says now, and how it exits.
async fn examined(peer: &Peer) -> (Diagnosis, i32) {
    let said = peer.ctl(["doctor", "--json"]).await.unwrap();
    let diagnosis = said.json().with_context(|| said.stderr.clone()).unwrap();
    (diagnosis, said.code)
}

fn check<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    let found = diagnosis.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check of {name}: {diagnosis:#?}"))
}

/// Waits until a check comes out so.
async fn comes_out(peer: &Peer, name: &str, verdict: Verdict) -> Diagnosis {
    eventually(SOON, &format!("{name} is {}", verdict.word()), async || {
        let (diagnosis, code) = examined(peer).await;
        ensure!(check(&diagnosis, name).verdict == verdict, "{diagnosis:#?}");
        ensure!(code == i32::from(diagnosis.verdict.exit_code()), "{code}");
        Ok(diagnosis)
    })
    .await
    .unwrap()
}

async fn listed(peer: &Peer, names: &[&str]) {
    eventually(SOON, &format!("the files are {names:?}"), async || {
        let files: FileList = peer.ctl_json(&["list"]).await?;
        let found: Vec<_> = files.files.iter().map(|file| file.name.as_str()).collect();
        ensure!(found == names, "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn shares(peer: &Peer) -> Result<Vec<ShareRow>> {
    Ok(peer.ctl_json::<ShareList>(&["shares"]).await?.shares)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_peer_is_well() {
    let network = Network::builder().peers(2).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let (diagnosis, code) = examined(peer).await;
    assert_eq!((diagnosis.verdict, code), (Verdict::Ok, 0), "{diagnosis:#?}");
    let names: Vec<_> = diagnosis.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "daemon",
            "socket",
            "program",
            "configuration",
            "identity",
            "state",
            "space",
            "share shared",
            "inotify",
            "maestro",
            "membership",
            "clock",
            "reachable",
            "versions"
        ]
    );
    assert!(diagnosis.checks.iter().all(|check| check.verdict == Verdict::Ok), "{diagnosis:#?}");
    assert!(check(&diagnosis, "reachable").found.contains(&peer.address()), "{diagnosis:#?}");
    assert!(check(&diagnosis, "identity").found.contains(peer.id()), "{diagnosis:#?}");
    let said = peer.ctl(["doctor"]).await.unwrap().ok().unwrap();
    assert!(said.text().ends_with("All is well.\n"), "{}", said.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maestro_that_is_down_and_one_that_is_back() {
    let mut network = Network::builder().peers(1).start().await.unwrap();
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    let diagnosis = comes_out(network.peer(1).unwrap(), "maestro", Verdict::Problem).await;
    assert_eq!(check(&diagnosis, "reachable").verdict, Verdict::Skipped);
    assert_eq!(check(&diagnosis, "clock").verdict, Verdict::Skipped);
    assert!(check(&diagnosis, "maestro").advice.iter().any(|step| step.contains("maestrod doctor")));
    network.maestro_mut().unwrap().daemon_mut().restart().await.unwrap();
    comes_out(network.peer(1).unwrap(), "reachable", Verdict::Ok).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_at_which_nobody_answers_is_found_by_the_maestro() {
    let mut network = Network::builder().start().await.unwrap();
    let announced = toml::Value::Array(vec!["127.0.0.1:1".into(), "192.0.2.7:9002".into()]);
    network
        .add_peer(|settings| {
            settings.set("grpc.announce", announced);
        })
        .await
        .unwrap();
    network.settled().await.unwrap();
    let diagnosis = comes_out(network.peer(1).unwrap(), "reachable", Verdict::Warning).await;
    let reachable = check(&diagnosis, "reachable");
    assert!(reachable.found.contains("not at 127.0.0.1:1: the connection was refused"), "{reachable:?}");
    assert!(reachable.found.contains("not tried, being other hosts: 192.0.2.7:9002"), "{reachable:?}");
    assert!(reachable.advice[0].contains("[grpc] announce"), "{reachable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_here_is_found_here() {
    let mut network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let diagnosis = comes_out(peer, "maestro", Verdict::Warning).await;
    assert!(check(&diagnosis, "maestro").advice[0].contains("p2pctl join"), "{diagnosis:#?}");
    fs::rename(peer.shared(""), peer.dir().join("away")).unwrap();
    let diagnosis = comes_out(peer, "share shared", Verdict::Problem).await;
    assert_eq!(check(&diagnosis, "space").verdict, Verdict::Problem, "{diagnosis:#?}");
    fs::rename(peer.dir().join("away"), peer.shared("")).unwrap();
    comes_out(peer, "space", Verdict::Ok).await;
    fs::remove_file(peer.state("identity.key")).unwrap();
    comes_out(peer, "identity", Verdict::Problem).await;

    let peer = network.peer_mut(1).unwrap();
    peer.edit(|settings| {
        settings.set("nmae", "x");
    })
    .unwrap();
    let diagnosis = comes_out(peer, "configuration", Verdict::Problem).await;
    assert!(check(&diagnosis, "configuration").found.contains("nmae"), "{diagnosis:#?}");
    peer.edit(|settings| {
        settings.remove("nmae").set("transfers.reserve_bytes", i64::MAX);
    })
    .unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
    let diagnosis = comes_out(peer, "space", Verdict::Problem).await;
    assert_eq!(check(&diagnosis, "configuration").verdict, Verdict::Ok);
    assert!(check(&diagnosis, "space").found.contains("reserve_bytes"), "{diagnosis:#?}");

    peer.daemon_mut().terminate(SOON).await.unwrap();
    let (diagnosis, code) = examined(peer).await;
    assert_eq!((check(&diagnosis, "daemon").verdict, code), (Verdict::Problem, 2));
    assert!(check(&diagnosis, "daemon").advice[0].contains("systemctl start p2pd"), "{diagnosis:#?}");
    assert_eq!(check(&diagnosis, "socket").verdict, Verdict::Problem);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_shared_while_the_daemon_runs_and_after_a_restart() {
    let mut network = Network::builder().peers(2).start().await.unwrap();
    let iso = network.dir().canonicalize().unwrap().join("iso");
    write_file(&iso.join("imagen.iso"), "una imagen").unwrap();
    let peer = network.peer_mut(1).unwrap();
    let path = iso.to_str().unwrap();
    peer.ctl(["share", "add", path, "--name", "imágenes"]).await.unwrap().ok().unwrap();
    listed(peer, &["imagen.iso"]).await;
    comes_out(peer, "share imágenes", Verdict::Ok).await;
    peer.daemon().signal(Signal::HUP).unwrap();
    peer.daemon_mut().kill_9().await.unwrap();
    peer.daemon_mut().restart().await.unwrap();
    listed(peer, &["imagen.iso"]).await;
    peer.settled().await.unwrap();
    let other = network.peer(2).unwrap();
    let fetched = other.ctl(["fetch", "imagen.iso", "-o", "-"]).await.unwrap().ok().unwrap();
    assert_eq!(fetched.text(), "una imagen");

    let peer = network.peer(1).unwrap();
    peer.ctl(["share", "remove", "imágenes"]).await.unwrap().ok().unwrap();
    listed(peer, &[]).await;
    assert!(iso.join("imagen.iso").exists());
    peer.ctl(["share", "remove", "imágenes"]).await.unwrap().exited(3).unwrap();
    let said = peer.ctl(["share", "remove", "shared"]).await.unwrap().exited(1).unwrap();
    assert!(said.stderr.contains("configuration file"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetched_files_land_where_they_are_told_to() {
    let network = Network::builder().peers(2).start().await.unwrap();
    let (peer, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    other.write("a.txt", "uno").unwrap();
    other.settled().await.unwrap();
    let landing = network.dir().canonicalize().unwrap().join("landing");
    fs::create_dir(&landing).unwrap();
    peer.ctl(["share", "add", landing.to_str().unwrap(), "--downloads"]).await.unwrap().ok().unwrap();
    peer.ctl(["fetch", "a.txt"]).await.unwrap().ok().unwrap();
    assert_eq!(fs::read_to_string(landing.join("a.txt")).unwrap(), "uno");
    let rows = shares(peer).await.unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.downloads, row.added)).collect();
    assert_eq!(told, [("shared", false, false), ("landing", true, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_shared_is_refused_with_a_reason() {
    let network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    let (state, inner) = (peer.state("").canonicalize().unwrap(), peer.shared("inner"));
    fs::create_dir(&inner).unwrap();
    let beside = peer.dir().join("shared2");
    fs::create_dir(&beside).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    for (args, code, words) in [
        (vec![text(&state)], 2, "this peer's key"),
        (vec!["/".to_owned()], 2, "root"),
        (vec!["relative".to_owned()], 2, "not an absolute path"),
        (vec![text(&inner)], 1, "inside the other"),
        (vec!["/no/such".to_owned()], 3, "There is no directory"),
        (vec![text(&beside), "--name".to_owned(), "shared".to_owned()], 6, "a share named"),
    ] {
        let args = ["share".to_owned(), "add".to_owned()].into_iter().chain(args);
        let said = peer.ctl(args).await.unwrap().exited(code).unwrap();
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    assert_eq!(shares(peer).await.unwrap().len(), 1);
}
