//! Programs of the first system beside those of this one: a plain peer as a source, a plain client at a peer.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Context, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::{LocateAnswer, PeerList, Relation, Transfer, TransferState};
use p2p_tests::{Network, SeedClient, SeedPeer, demonstration, eventually, random_file};

const TEXT: &[u8] = b"Un archivo de un peer del primer sistema.\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_peer_is_located_and_fetched_from() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", TEXT), ("docs/plano.txt", b"otro")]).await.unwrap();
    plain.register(&maestro).await.unwrap();

    let located = maestro.locate("plano.txt").await.unwrap();
    assert_eq!(located.len(), 1);
    assert_eq!(located[0]["rest"], plain.url());
    assert_eq!(located[0]["grpc_port"], plain.grpc_port());
    assert_eq!(located[0].get("content"), None, "nobody vouches for it");

    let answer: LocateAnswer = peer.ctl_json(&["locate", "plano.txt"]).await.unwrap();
    let [candidate] = &answer.candidates[..] else { panic!("{answer:?}") };
    assert_eq!((&candidate.content, candidate.sources[0].peer.name.as_str()), (&None, plain.url()));
    let peers: PeerList = peer.ctl_json(&["peers"]).await.unwrap();
    let row = peers.peers.iter().find(|row| row.peer.name == plain.url()).expect("it is among the peers");
    assert_eq!((row.relation, row.peer.peer_id.as_deref()), (Relation::Plain, None));

    let said = peer.ctl(["fetch", "plano.txt"]).await.unwrap().ok().unwrap();
    assert!(said.stderr.contains("unproven"), "the user is told: {}", said.stderr);
    assert!(said.text().starts_with(&ContentHash::of(TEXT).to_string()), "{}", said.text());
    assert_eq!(std::fs::read(peer.shared("plano.txt")).unwrap(), TEXT);
    let transfer = &peer.transfers().await.unwrap()[0];
    assert_eq!((transfer.proven, transfer.state), (false, TransferState::Done));
    assert_eq!(transfer.content, Some(ContentHash::of(TEXT).to_string()), "its hash is known on arrival");

    // From now on there is someone who vouches for it, beside the plain peer.
    eventually(Duration::from_secs(2), "both are located", async || {
        let located = maestro.locate("plano.txt").await?;
        ensure!(located.len() == 2, "{located:?}");
        ensure!(located.iter().any(|row| row["content"].is_string()), "{located:?}");
        Ok(())
    })
    .await
    .unwrap();
    let said = peer.ctl(["fetch", "docs/plano.txt", "--from", plain.url(), "-o", "-"]).await.unwrap();
    assert_eq!(said.ok().unwrap().stdout, b"otro");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_vouches_for_is_not_fetched_unless_the_configuration_says_so() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", TEXT)]).await.unwrap();
    plain.register(&maestro).await.unwrap();
    let said = peer.ctl(["fetch", "plano.txt"]).await.unwrap().exited(5).unwrap();
    assert!(said.stderr.contains("allow_unproven"), "it says what to do: {}", said.stderr);
    assert!(!peer.shared("plano.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_peer_that_is_gone_is_waited_for() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", TEXT)]).await.unwrap();
    plain.register(&maestro).await.unwrap();
    drop(plain);
    let transfer: Transfer = peer.ctl_json(&["fetch", "plano.txt", "--detach"]).await.unwrap();
    eventually(Duration::from_secs(20), "the transfer says what it lacks", async || {
        let transfer = peer.transfer(transfer.id).await?;
        ensure!(matches!(transfer.state, TransferState::Waiting | TransferState::Failed), "{transfer:?}");
        transfer.reason.context("no reason")
    })
    .await
    .unwrap();
    assert!(!peer.shared("plano.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_leaves_nothing_of_a_plain_peers_file() {
    let network = demonstration(None).peers_with(|_, settings| {
        settings.set("transfers.reserve_bytes", i64::MAX);
    });
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", TEXT)]).await.unwrap();
    plain.register(&maestro).await.unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "plano.txt", "--detach"]).await.unwrap();
    let paused = |transfer: &Transfer| transfer.state == TransferState::Paused;
    let paused =
        peer.transfer_until(transfer.id, Duration::from_secs(20), "it has no room", paused).await.unwrap();
    assert!(paused.reason.unwrap().contains("reserve_bytes"));
    assert_eq!(peer.partial_files(), 0, "it takes no room while it waits for some");
    peer.ctl(["transfers", "cancel", &transfer.id.to_string()]).await.unwrap().ok().unwrap();
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_to_a_plain_peer() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", TEXT)]).await.unwrap();
    plain.register(&maestro).await.unwrap();
    let file = peer.dir().join("regalo.txt");
    std::fs::write(&file, "para ti").unwrap();
    peer.ctl(["send", file.to_str().unwrap(), plain.url()]).await.unwrap().ok().unwrap();
    assert_eq!(plain.file("regalo.txt").as_deref(), Some(&b"para ti"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_downloads_and_uploads() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let client = SeedClient::connect(&peer.address()).await.unwrap();

    let got = client.download("archivo1.txt").await.unwrap();
    assert!(got.ok, "{}", got.message);
    assert_eq!(got.content, std::fs::read(peer.shared("archivo1.txt")).unwrap());
    let missing = client.download("no-such-file.txt").await.unwrap();
    assert_eq!((missing.ok, missing.message.as_str(), missing.content.len()), (false, "Not found", 0));

    for (name, bytes) in
        [("subido.txt", TEXT.to_vec()), ("docs/subido.bin", vec![7; 3 << 20]), ("nada.txt", vec![])]
    {
        let answer = client.upload(name, bytes.clone()).await.unwrap();
        assert!(answer.ok, "{}", answer.message);
        assert_eq!(std::fs::read(peer.shared(name)).unwrap(), bytes);
        eventually(Duration::from_secs(2), "the maestro shows it", async || {
            ensure!(maestro.locate(name).await?.len() == 1, "not located");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(client.download(name).await.unwrap().content, bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_file_calls_name_their_limit() {
    let network = demonstration(None).start().await.unwrap();
    let peer = network.peer(1).unwrap();
    random_file(&peer.shared("grande.bin"), 5 << 20, 1).unwrap();
    peer.ctl(["refresh"]).await.unwrap().ok().unwrap();
    let client = SeedClient::connect(&peer.address()).await.unwrap();
    let down = client.download("grande.bin").await.unwrap();
    let up = client.upload("subido.bin", vec![7; 5 << 20]).await.unwrap();
    for (ok, message) in [(down.ok, down.message), (up.ok, up.message)] {
        assert!(!ok && message.contains("4190208") && message.contains("p2pctl"), "{message}");
    }
    assert!(down.content.is_empty() && !peer.shared("subido.bin").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_is_refused_unless_the_configuration_says_so() {
    let network =
        Network::builder().peers(1).files(|_, shared| p2p_tests::write_file(&shared.join("a.txt"), "a"));
    let network = network.start().await.unwrap();
    let client = SeedClient::connect(&network.peer(1).unwrap().address()).await.unwrap();
    let status = client.download("a.txt").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("TLS") && status.message().contains("plaintext"), "{status}");
    drop(client);
    eventually(Duration::from_secs(5), "the peer's log says so too", async || {
        let log = network.peer(1)?.daemon().log();
        ensure!(log.contains("refused") && log.contains("plaintext"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
}
