//! How fast file data goes out and comes in, at the most.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use p2p_proto::control::{LimitsAnswer, Transfer};
use p2p_tests::{Network, eventually, programs, random_file};
use rustix::process::Signal;
use tokio::process::Command;

const MIB: u64 = 1 << 20;
const TRANSFERRED: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

async fn with_file(mib: u64) -> Network {
    let network = Network::builder().peers(2).files(move |number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), mib * MIB, 1).map(drop),
        _ => Ok(()),
    });
    network.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_keeps_to_its_limit() {
    for (limited, option) in [(1, "--up"), (2, "--down")] {
        let network = with_file(12).await;
        let said: LimitsAnswer =
            network.peer(limited).unwrap().ctl_json(&["limit", option, "4MiB"]).await.unwrap();
        let limit = if option == "--up" { said.up } else { said.down };
        assert_eq!((limit.bytes_per_sec, limit.is_set), (4 * MIB, true));
        let began = Instant::now();
        network.peer(2).unwrap().ctl(["fetch", "grande.bin"]).await.unwrap().ok().unwrap();
        let took = began.elapsed();
        // 12 MiB at 4 MiB/s, of which the last piece is not waited for, and a tenth of a second may have been saved up.
        assert!(took >= Duration::from_millis(2500), "{option}: {took:?}");
        assert!(took <= Duration::from_secs(15), "{option}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_changed_while_bytes_flow_and_outlives_the_daemon() {
    let mut network = with_file(64).await;
    network.peer(1).unwrap().ctl(["limit", "--up", "1MiB"]).await.unwrap().ok().unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.terminate(Duration::from_secs(5)).await.unwrap();
    daemon.restart().await.unwrap();
    network.settled().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let kept: LimitsAnswer = source.ctl_json(&["limit"]).await.unwrap();
    assert_eq!((kept.up.bytes_per_sec, kept.up.configured_bytes_per_sec), (MIB, 0));
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes >= MIB;
    peer.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();
    let shown = source.ctl(["limit", "--as-configured"]).await.unwrap().ok().unwrap().text();
    assert!(shown.contains("none"), "{shown}");
    let freed = Instant::now();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert!(freed.elapsed() < Duration::from_secs(20), "a minute at the old limit: {:?}", freed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_patience_with_a_source_that_its_own_limit_holds_back() {
    // The second file may go 25 s after the first: longer than anybody may be silent without a reason.
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => (1..=2).try_for_each(|file| {
            random_file(&shared.join(format!("juego/{file}.bin")), 1500, file).map(drop)
        }),
        _ => Ok(()),
    });
    let network = network.peers_with(|number, settings| {
        if number == 1 {
            settings.set("limits.up_bytes_per_sec", 60);
        }
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let began = Instant::now();
    let begun: Transfer = peer.ctl_json(&["fetch", "-r", "juego", "--detach"]).await.unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(20), "nobody was silent: {:?}", began.elapsed());
    let log = peer.daemon().log();
    assert!(!log.contains("lost the source"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_low_limit_no_crumbs_are_sent() {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => random_file(&shared.join("grande.bin"), 200 << 10, 1).map(drop),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    network.peer(1).unwrap().ctl(["limit", "--up", "50KiB"]).await.unwrap().ok().unwrap();
    let peer = network.peer(2).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!(done.wasted_bytes, 0, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rate_is_refused_with_an_example() {
    let network = with_file(1).await;
    for rate in ["fast", "-1MiB", "0", ""] {
        let said = network.peer(1).unwrap().ctl(["limit", "--up", rate]).await.unwrap();
        assert!(said.stderr.contains("20MiB"), "{rate}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_has_a_limit_of_its_own_on_either_side() {
    for limited in [1, 2] {
        let mut network = with_file(64).await;
        let (option, other) = if limited == 1 { ("--up", "P2") } else { ("--down", "P1") };
        let peer = network.peer(limited).unwrap();
        let words = ["limit", "--peer", other, option, "2MiB"];
        let said: LimitsAnswer = peer.ctl_json(&words).await.unwrap();
        let of_peer = &said.peers[0];
        assert_eq!(of_peer.peer.name, other);
        let rates = (of_peer.up_bytes_per_sec, of_peer.down_bytes_per_sec);
        assert_eq!(rates, if limited == 1 { (2 * MIB, 0) } else { (0, 2 * MIB) });
        assert_eq!((said.up.bytes_per_sec, said.down.bytes_per_sec), (0, 0), "all together have none");

        // It outlives the daemon, and is changed while bytes flow.
        let daemon = network.peer_mut(limited).unwrap().daemon_mut();
        daemon.kill_9().await.unwrap();
        daemon.restart().await.unwrap();
        network.settled().await.unwrap();
        let (peer, fetcher) = (network.peer(limited).unwrap(), network.peer(2).unwrap());
        let table = peer.ctl(["limit"]).await.unwrap().ok().unwrap().text();
        assert!(table.contains(other) && table.contains("2.0 MiB/s"), "{table}");
        let began = Instant::now();
        let begun: Transfer = fetcher.ctl_json(&["fetch", "grande.bin", "--detach"]).await.unwrap();
        let some = |transfer: &Transfer| transfer.done_bytes >= 6 * MIB;
        fetcher.transfer_until(begun.id, TRANSFERRED, "some of it is there", some).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1500), "{option}: {:?}", began.elapsed());
        let freed = Instant::now();
        peer.ctl(["limit", "--peer", other, "--as-configured"]).await.unwrap().ok().unwrap();
        fetcher.transfer_done(begun.id, TRANSFERRED).await.unwrap();
        assert!(
            freed.elapsed() < Duration::from_secs(20),
            "half a minute at the old limit: {:?}",
            freed.elapsed()
        );
        let left: LimitsAnswer = peer.ctl_json(&["limit"]).await.unwrap();
        assert_eq!(left.peers, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_knows_has_no_limit_and_a_peer_alone_is_no_command() {
    let network = with_file(1).await;
    let peer = network.peer(1).unwrap();
    let said = peer.ctl(["limit", "--peer", "nadie", "--up", "1MiB"]).await.unwrap();
    assert!(said.stderr.contains("nadie") && said.stderr.contains("p2pctl peers"), "{said:?}");
    let said = peer.ctl(["limit", "--peer", "P2"]).await.unwrap();
    assert!(said.stderr.contains("--up"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schedule_says_now_is_in_force_and_shown() {
    let mut network = with_file(1).await;
    let peer = network.peer_mut(1).unwrap();
    peer.edit(|settings| {
        let period = |from: &str, to: &str, up: i64| {
            let mut period = toml::Table::new();
            period.insert("from".to_owned(), from.into());
            period.insert("to".to_owned(), to.into());
            period.insert("up_bytes_per_sec".to_owned(), up.into());
            toml::Value::Table(period)
        };
        let periods = vec![period("00:00", "24:00", 5 << 20)];
        settings.set("limits.schedule", periods).set("limits.down_bytes_per_sec", 7 << 20);
    })
    .unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
    let limits = eventually(SOON, "the schedule holds", async || {
        let limits: LimitsAnswer = peer.ctl_json(&["limit"]).await?;
        ensure!(limits.up.bytes_per_sec == 5 * MIB, "{limits:?}");
        Ok(limits)
    })
    .await
    .unwrap();
    let period = limits.up.scheduled.unwrap();
    assert!(period.starts_with("every day ") && limits.down.scheduled.is_none(), "{period}");
    assert_eq!(limits.down.bytes_per_sec, 7 * MIB);
    let table = peer.ctl(["limit"]).await.unwrap().ok().unwrap().text();
    assert!(table.contains(&format!("the schedule, {period}")), "{table}");
    let shown = peer.ctl(["config", "show"]).await.unwrap().ok().unwrap().text();
    let line = format!("up_bytes_per_sec = 0  # default; now 5242880: the schedule, {period}");
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    assert!(shown.parse::<toml::Table>().is_ok(), "it can be read as a file: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_a_schedule_is_told_with_its_line() {
    let network = with_file(1).await;
    let file = network.dir().join("wrong.toml");
    let text = "[limits]\nupload_slots = 0\n[[limits.schedule]]\ndays = [\"mon\", \"tue\"]\nfrom = \"22:00\"\n\
                to = \"06:00\"\nup_bytes_per_sec = 1\n[[limits.schedule]]\ndays = [\"wed\"]\nfrom = \"05:00\"\n\
                to = \"12:00\"\ndown_bytes_per_sec = 1\n[[limits.schedule]]\ndays = [\"sunday\"]\n\
                from = \"8:00\"\nto = \"24:01\"\nup_bytes_per_sec = 1\n";
    fs::write(&file, text).unwrap();
    let mut check = Command::new(&programs().unwrap().p2pd);
    let output = check.arg("--config").arg(&file).arg("--check-config").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    for (line, part) in [
        (2, "must be at least 1 (in limits.upload_slots)"),
        (10, "on wed at 05:00: at any time one of them can hold (in limits.schedule[1].from)"),
        (14, "unknown variant 'sunday'"),
        (15, "\"8:00\" is no time of the day"),
        (16, "\"24:01\" is no time of the day"),
    ] {
        let place = format!("p2pd: {}:{line}:", file.display());
        let is_it = |told: &&str| told.starts_with(&place) && told.contains(part);
        assert!(lines.iter().any(is_it), "{line} {part}: {told}");
    }
    assert_eq!(lines.len(), 5, "and nothing else: {told}");
}
