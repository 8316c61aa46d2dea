//! Copies of the directory that `maestrod backup` takes while peers change what they share: each is put in the place of the
//! directory, and the peers mend it.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_tests::{Network, Rest, eventually, programs, write_file};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(5);
const PEERS: usize = 3;
/// Copies that are taken.
const COPIES: usize = 3;
/// Changes that pass between one copy and the next.
const BETWEEN: u64 = 200;
/// Between two changes of one peer's directory.
const PACE: Duration = Duration::from_millis(5);

/// Changes a shared directory until told to end: files come, change, and go, and one is replaced again and again.
async fn change(shared: PathBuf, number: usize, stop: CancellationToken) -> Result<()> {
    let mut ticks = tokio::time::interval(PACE);
    for turn in 0u64.. {
        if stop.is_cancelled() {
            return Ok(());
        }
        ticks.tick().await;
        let name = |turn: u64| shared.join(format!("P{number}/{}.txt", turn % 400));
        write_file(&name(turn), format!("{turn} de P{number}"))?;
        write_file(&shared.join(format!("P{number}/last.txt")), format!("{turn}"))?;
        if turn % 3 == 0 {
            let _ = fs::remove_file(name(turn * 7));
        }
    }
    Ok(())
}

/// The files of a directory by name, with their contents.
fn files_in(shared: &Path) -> Result<BTreeMap<String, ContentHash>> {
    let mut files = BTreeMap::new();
    for dir in fs::read_dir(shared)? {
        let dir = dir?.path();
        if !dir.is_dir() || dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            let name = path.strip_prefix(shared)?.display().to_string();
            files.insert(name, ContentHash::of(&fs::read(&path)?));
        }
    }
    Ok(files)
}

/// What the maestro holds of the directory `P1` or so, of which only that peer has files.
async fn held(rest: &Rest, number: usize) -> Result<BTreeMap<String, ContentHash>> {
    let (mut files, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = rest.get(&format!("/files?prefix=P{number}/&cursor={cursor}")).await?.ok()?;
        for entry in page["entries"].as_array().context("no entries")? {
            let name = entry["name"].as_str().context("no name")?.to_owned();
            let content = entry["content"].as_str().context("no content")?.parse()?;
            ensure!(files.insert(name.clone(), content).is_none(), "{name} is there twice");
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(files),
        }
    }
}

async fn metric(rest: &Rest, name: &str) -> Result<u64> {
    let text = rest.get("/metrics").await?.text;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} in {text}"))?.parse()?)
}

async fn until_changed(rest: &Rest) {
    let before = metric(rest, "maestrod_sync_changes_total").await.unwrap();
    eventually(SOON, "more changes", async || {
        let now = metric(rest, "maestrod_sync_changes_total").await?;
        ensure!(now >= before + BETWEEN, "{before} before, {now} now");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until the maestro holds of every peer what its directory has.
async fn agrees(network: &Network) {
    let rest = network.maestro().unwrap().rest().unwrap();
    for number in 1..=PEERS {
        let shared = network.peer(number).unwrap().shared("");
        eventually(SOON, &format!("P{number} and the maestro agree"), async || {
            let (has, held) = (files_in(&shared)?, held(&rest, number).await?);
            ensure!(has == held, "{} files there, {} held", has.len(), held.len());
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_taken_while_peers_change_are_restored_to_what_the_peers_have() {
    let network = Network::builder().peers(PEERS).files(|number, shared| {
        (0..300)
            .try_for_each(|file| write_file(&shared.join(format!("P{number}/{file}.txt")), "al principio"))
    });
    let mut network = network.start().await.unwrap();
    let rest = network.maestro().unwrap().rest().unwrap();
    let stop = CancellationToken::new();
    let changing: Vec<_> = (1..=PEERS)
        .map(|number| {
            let shared = network.peer(number).unwrap().shared("");
            tokio::spawn(change(shared, number, stop.clone()))
        })
        .collect();
    let state = network.dir().join("maestro");
    let copies: Vec<_> =
        (0..COPIES).map(|number| network.dir().join(format!("copy-{number}.sqlite"))).collect();
    for copy in &copies {
        until_changed(&rest).await;
        let (state, copy) = (state.clone(), copy.clone());
        let backup = move || {
            let mut command = Command::new(&programs().unwrap().maestrod);
            command.arg("--state-dir").arg(state).arg("backup").arg(copy).output().unwrap()
        };
        let said = tokio::task::spawn_blocking(backup).await.unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    until_changed(&rest).await;
    stop.cancel();
    for ended in changing {
        ended.await.unwrap().unwrap();
    }
    agrees(&network).await;

    for copy in &copies {
        let daemon = network.maestro_mut().unwrap().daemon_mut();
        let ended = daemon.terminate(STOPS_WITHIN).await.unwrap();
        assert!(ended.status.success(), "{}", ended.log);
        // As docs/operations.md says.
        for beside in ["-wal", "-shm"] {
            let _ = fs::remove_file(state.join(format!("directory.sqlite{beside}")));
        }
        fs::copy(copy, state.join("directory.sqlite")).unwrap();
        network.maestro_mut().unwrap().daemon_mut().restart().await.unwrap();
        agrees(&network).await;
        let rest = network.maestro().unwrap().rest().unwrap();
        // The copy was older, and what came after was sent; no catalog as a whole, and nothing of it was wrong.
        assert!(metric(&rest, "maestrod_sync_changes_total").await.unwrap() > 0);
        for wrong in ["maestrod_sync_resyncs_total", "maestrod_sync_repairs_total"] {
            assert_eq!(metric(&rest, wrong).await.unwrap(), 0, "{wrong}");
        }
    }
}
