//! From the disk to the maestro's directory: what changes in a share is right in `/locate` within two seconds.
//!
//! The tree of 10,000 files is in `large.rs`.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::ShareList;
use p2p_tests::{Network, Rest, eventually, random_file, write_file};
use serde_json::json;

const AT_ONCE: Duration = Duration::from_secs(2);
const MIB: u64 = 1 << 20;

/// Waits until `/locate` gives exactly this content for `name`; `None`: nobody.
async fn located(maestro: &Rest, name: &str, content: Option<ContentHash>) -> Result<()> {
    let began = Instant::now();
    eventually(AT_ONCE, &format!("{name} is {content:?} in the directory"), async || {
        let found = maestro.locate(name).await?;
        let contents: Vec<_> = found.iter().map(|row| row["content"].clone()).collect();
        let expected: Vec<_> = content.iter().map(|content| json!(content.to_string())).collect();
        ensure!(contents == expected, "{contents:?}");
        Ok(())
    })
    .await?;
    println!("{name}: {} ms", began.elapsed().as_millis());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_shows_within_two_seconds() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());

    let hash = peer.write("a.txt", "uno").unwrap();
    located(&maestro, "a.txt", Some(hash)).await.unwrap();
    let hash = peer.write("a.txt", "dos").unwrap();
    located(&maestro, "a.txt", Some(hash)).await.unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(peer.shared("a.txt")).unwrap();
    file.write_all(b" y tres").unwrap();
    drop(file);
    located(&maestro, "a.txt", Some(ContentHash::of(b"dos y tres"))).await.unwrap();

    fs::rename(peer.shared("a.txt"), peer.shared("b.txt")).unwrap();
    located(&maestro, "b.txt", Some(ContentHash::of(b"dos y tres"))).await.unwrap();
    located(&maestro, "a.txt", None).await.unwrap();

    let hash = peer.write("docs/más/c.txt", "anidado").unwrap();
    located(&maestro, "docs/más/c.txt", Some(hash)).await.unwrap();
    fs::rename(peer.shared("docs"), peer.shared("papeles")).unwrap();
    located(&maestro, "papeles/más/c.txt", Some(hash)).await.unwrap();
    located(&maestro, "docs/más/c.txt", None).await.unwrap();
    let hash = peer.write("papeles/más/d.txt", "en un directorio que cambió de nombre").unwrap();
    located(&maestro, "papeles/más/d.txt", Some(hash)).await.unwrap();
    fs::remove_dir_all(peer.shared("papeles")).unwrap();
    located(&maestro, "papeles/más/c.txt", None).await.unwrap();

    // As editors and downloaders save: whole, under another name, then renamed over the old one.
    write_file(&peer.dir().join("new"), "guardado").unwrap();
    fs::rename(peer.dir().join("new"), peer.shared("b.txt")).unwrap();
    located(&maestro, "b.txt", Some(ContentHash::of(b"guardado"))).await.unwrap();
    fs::remove_file(peer.shared("b.txt")).unwrap();
    located(&maestro, "b.txt", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_shows_whole() {
    const FILES: usize = 1000;
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let began = Instant::now();
    for number in 0..FILES {
        peer.write(&format!("árbol/{}/{number}.txt", number / 100), format!("archivo {number}")).unwrap();
    }
    eventually(Duration::from_secs(10), "the tree is in the directory", async || {
        let row = maestro.get("/peers").await?.ok()?["peers"][0].clone();
        ensure!(row["files_total"] == json!(FILES), "{}", row["files_total"]);
        Ok(())
    })
    .await
    .unwrap();
    println!("{FILES} files: {} ms", began.elapsed().as_millis());
    fs::remove_dir_all(peer.shared("árbol")).unwrap();
    eventually(Duration::from_secs(10), "it is gone from the directory", async || {
        let row = maestro.get("/peers").await?.ok()?["peers"][0].clone();
        ensure!(row["files_total"] == json!(0), "{}", row["files_total"]);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_not_announced_half_done() {
    const STEPS: u64 = 12;
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let (path, whole) = (peer.shared("lento.bin"), peer.dir().join("whole.bin"));
    let hash = random_file(&whole, STEPS * MIB, 1).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let writer = tokio::spawn(async move {
        let mut file = fs::File::create(path).unwrap();
        // As a slow download writes. The pauses are what is tested, not what is waited for.
        let mut pauses = tokio::time::interval(Duration::from_millis(300));
        for step in bytes.chunks(1 << 20) {
            pauses.tick().await;
            file.write_all(step).unwrap();
        }
    });
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    while !writer.is_finished() {
        looks.tick().await;
        let found = maestro.locate("lento.bin").await.unwrap();
        let half_done = found.iter().any(|row| row["content"] != json!(hash.to_string()));
        assert!(!half_done, "announced while it was written: {found:?}");
    }
    writer.await.unwrap();
    located(&maestro, "lento.bin", Some(hash)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_within_the_share_are_shared() {
    let network = Network::builder().peers(1).files(|_, shared| {
        let outside = shared.parent().context("no parent")?.join("outside");
        write_file(&outside.join("secret.txt"), "secreto")?;
        write_file(&shared.join("a.txt"), "a")?;
        symlink(outside.join("secret.txt"), shared.join("link.txt"))?;
        symlink(&outside, shared.join("linked"))?;
        symlink("a.txt", shared.join("inside.txt"))?;
        symlink("/dev/zero", shared.join("zero"))?;
        write_file(&shared.join(".p2p-partial/x"), "not whole")?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            shared.join("pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )?;
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let files = peer.rest().unwrap().get("/files").await.unwrap().ok().unwrap();
    assert_eq!(files["files"], json!(["a.txt"]));
    for name in ["link.txt", "linked/secret.txt", "inside.txt", "zero", "pipe", ".p2p-partial/x"] {
        assert!(maestro.locate(name).await.unwrap().is_empty(), "{name}");
        peer.ctl(["fetch", name, "-o", "-"]).await.map(|said| assert_ne!(said.code, 0, "{name}")).unwrap();
    }
    // A file that becomes a link later is not followed either.
    fs::remove_file(peer.shared("a.txt")).unwrap();
    symlink("../outside/secret.txt", peer.shared("a.txt")).unwrap();
    located(&maestro, "a.txt", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_hashes_nothing_again() {
    let network = Network::builder().peers(1);
    let network = network.files(|_, shared| random_file(&shared.join("grande.bin"), 64 * MIB, 1).map(drop));
    let mut network = network.start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    let peer = network.peer_mut(1).unwrap();
    peer.daemon_mut().terminate(Duration::from_secs(5)).await.unwrap();
    // A file that came while nobody looked is found all the same.
    let hash = peer.write("nuevo.txt", "nuevo").unwrap();
    peer.daemon_mut().restart().await.unwrap();
    peer.settled().await.unwrap();
    located(&maestro, "nuevo.txt", Some(hash)).await.unwrap();
    located(&maestro, "grande.bin", Some(peer.hash_of("grande.bin").unwrap())).await.unwrap();
    let io = fs::read_to_string(format!("/proc/{}/io", peer.daemon().pid().unwrap())).unwrap();
    let read: u64 = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap();
    assert!(read < 16 * MIB, "it read {read} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_away_is_hidden_and_not_forgotten() {
    let network = Network::builder().peers(1);
    let network = network.files(|_, shared| random_file(&shared.join("grande.bin"), 64 * MIB, 1).map(drop));
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let hash = peer.hash_of("grande.bin").unwrap();
    let read = || -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", peer.daemon().pid().unwrap())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    fs::rename(peer.shared(""), peer.dir().join("away")).unwrap();
    let unavailable = async |expected: bool| {
        peer.ctl(["refresh"]).await.unwrap();
        eventually(Duration::from_secs(10), "the share's state shows", async || {
            let shares: ShareList = peer.ctl_json(&["shares"]).await?;
            ensure!(shares.shares[0].unavailable.is_some() == expected, "{shares:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    unavailable(true).await;
    let before = read();
    fs::rename(peer.dir().join("away"), peer.shared("")).unwrap();
    unavailable(false).await;
    eventually(Duration::from_secs(10), "it is in the directory again", async || {
        let found = maestro.locate("grande.bin").await?;
        ensure!(found.len() == 1 && found[0]["content"] == json!(hash.to_string()), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(read() - before < 16 * MIB, "it was not hashed again");
}
