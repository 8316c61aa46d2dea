//! The harness itself, as far as a maestro alone can show that it works.

use std::time::Duration;

use p2p_tests::{Conduct, Daemon, LyingPeer, Network, SeedClient, SeedPeer, programs};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_own_peers_are_in_the_directory() {
    let network = Network::builder().start().await.unwrap();
    let (address, maestro) =
        (network.maestro().unwrap().address(), network.maestro().unwrap().rest().unwrap());
    let plain = SeedPeer::start([("plano.txt", "uno")]).await.unwrap();
    let answer = plain.register(&maestro).await.unwrap();
    assert_eq!(answer["status"], json!("registered"));
    let liar =
        LyingPeer::start("mentiroso", Conduct::Honest, [("a.txt", "a"), ("b.txt", "b")]).await.unwrap();
    liar.join(&address).await.unwrap();
    for (file, rest) in [
        ("plano.txt", plain.url().to_owned()),
        ("b.txt", format!("http://localhost:{}", liar.address().rsplit(':').next().unwrap())),
    ] {
        let located = maestro.locate(file).await.unwrap();
        assert_eq!((located.len(), &located[0]["rest"]), (1, &json!(rest)), "{located:?}");
    }
    let client = SeedClient::connect(&format!("127.0.0.1:{}", plain.grpc_port())).await.unwrap();
    client.upload("dos.txt", "dos").await.unwrap();
    assert_eq!(client.download("dos.txt").await.unwrap().content, "dos");
    assert_eq!(plain.file("dos.txt").unwrap(), b"dos");
    assert_eq!(client.download("tres.txt").await.unwrap().message, "Not found");
    let known = LyingPeer::start("otro", Conduct::Honest, [("c.txt", "c")]).await.unwrap();
    let mut client = known.call(&liar.address(), Some(liar.id())).await.unwrap();
    let refused = known.offer("c.txt", &mut client, "c.txt").await.unwrap();
    assert_eq!(refused.message, "this peer takes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_killed_stopped_and_started_again() {
    let mut network = Network::builder().start().await.unwrap();
    let daemon = network.maestro_mut().unwrap().daemon_mut();
    let before = daemon.ready().clone();
    assert!(daemon.peak_memory().unwrap() > 1 << 20);
    daemon.kill_9().await.unwrap();
    assert!(daemon.pid().is_err());
    daemon.restart().await.unwrap();
    assert_eq!(daemon.ready(), &before, "the same ports and the same identity");
    let ended = daemon.terminate(Duration::from_secs(5)).await.unwrap();
    assert!(ended.status.success(), "{}", ended.log);

    let mut settings = network.maestro_settings();
    settings.set("nmae", "x").set("state_dir", network.dir().join("other").to_str().unwrap());
    let launch = network.launch(&programs().unwrap().maestrod, "other", &settings).unwrap();
    let ended = Daemon::start_refused(launch).await.unwrap();
    assert!(!ended.status.success() && ended.log.contains("nmae"), "{}", ended.log);
}
