//! `p2pctl send`: a file to a peer, and from there into the maestro's directory.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use p2p_content::ContentHash;
use p2p_proto::control::{SendState, Sending};
use p2p_tests::{Network, eventually, hash_of_file, random_bytes, random_file};
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// Two peers who take offers of everyone in the network.
async fn network() -> Network {
    let network = Network::builder().peers(2).peers_with(|_, settings| {
        settings.set("transfers.accept_offers", "network");
    });
    network.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_file_arrives_and_shows_in_the_directory_unasked() {
    let network = network().await;
    let (from, to) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let maestro = network.maestro().unwrap().rest().unwrap();
    let file = from.dir().join("informe.bin");
    let hash = random_file(&file, (9 << 20) + 1, 1).unwrap();
    let file = file.to_str().unwrap();

    let cases: [(&[&str], &str); 3] = [
        (&["send", file, "P2"], "informe.bin"),
        (&["send", file, "P2", "--as", "docs/2024/otro nombre.bin"], "docs/2024/otro nombre.bin"),
        (&["send", file, &to.id()[..12], "--as", "por id.bin"], "por id.bin"),
    ];
    for (command, name) in cases {
        let said = from.ctl(command).await.unwrap().ok().unwrap();
        assert!(said.text().contains(&hash.to_string()), "{}", said.text());
        assert_eq!(to.hash_of(name).unwrap(), hash, "{name} is there when the command returns");
        eventually(Duration::from_secs(2), "the maestro shows who has it", async || {
            let located = maestro.locate(name).await?;
            ensure!(located.len() == 1 && located[0]["name"] == json!("P2"), "{located:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert!(!from.shared("informe.bin").exists(), "the sender's shares are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_sent() {
    let network = network().await;
    let (from, to) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let bytes = random_bytes(5 << 20, 1);
    let mut command = from.p2pctl().command(["send", "-", "P2", "--as", "tubo.bin"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(to.hash_of("tubo.bin").unwrap(), ContentHash::of(&bytes));
    from.ctl(["send", "-", "P2"]).await.unwrap().exited(2).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_takes_offers_of_friends_only_unless_it_says_otherwise() {
    let network = Network::builder().peers(2).start().await.unwrap();
    let (from, to) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let file = from.dir().join("a.txt");
    std::fs::write(&file, "a").unwrap();
    let command = ["send", file.to_str().unwrap(), "P2"];
    let said = from.ctl(command).await.unwrap().exited(5).unwrap();
    assert!(said.stderr.contains("friend"), "it says why: {}", said.stderr);
    assert!(!to.shared("a.txt").exists());
    for (one, other) in [(from, to), (to, from)] {
        one.ctl(["friends", "add", &other.address()]).await.unwrap().ok().unwrap();
    }
    from.ctl(command).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(to.shared("a.txt")).unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_said() {
    let network = network().await;
    let (from, to) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let file = from.dir().join("a.txt");
    std::fs::write(&file, "a").unwrap();
    let file = file.to_str().unwrap();
    from.ctl(["send", file, "nadie"]).await.unwrap().exited(3).unwrap();
    assert_ne!(from.ctl(["send", "/no/such/file", "P2"]).await.unwrap().code, 0);
    for name in ["../a.txt", "/a.txt", "a/../../b", ".p2p-partial/a", "a\u{1b}b"] {
        let said = from.ctl(["send", file, "P2", "--as", name]).await.unwrap();
        assert!(said.code != 0 && !said.stderr.is_empty(), "{name:?}: {}", said.stderr);
    }
    // A name that is taken there is not taken from whoever has it.
    to.write("taken.txt", "mío").unwrap();
    to.ctl(["refresh"]).await.unwrap().ok().unwrap();
    let said = from.ctl(["send", file, "P2", "--as", "taken.txt"]).await.unwrap();
    assert!(said.code != 0 && said.stderr.contains("taken.txt"), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(to.shared("taken.txt")).unwrap(), "mío");
    // Nothing came to lie beside the share.
    let entries = std::fs::read_dir(to.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    assert!(entries.iter().all(|name| *name != "a.txt" && *name != "b"), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_follows_a_send_in_json() {
    let network = network().await;
    let from = network.peer(1).unwrap();
    let file = from.dir().join("a.bin");
    let hash = random_file(&file, 4 << 20, 1).unwrap();
    let said = from.ctl(["--json", "send", file.to_str().unwrap(), "P2"]).await.unwrap().ok().unwrap();
    let last: Sending = said.json().unwrap();
    assert_eq!((last.state, last.content), (SendState::Delivered, hash.to_string()));
    assert_eq!((last.size, last.done_bytes), (4 << 20, 4 << 20));
    assert_eq!(hash_of_file(&network.peer(2).unwrap().shared("a.bin")).unwrap(), hash);
}
