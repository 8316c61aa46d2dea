//! Who is who, and what is refused: callers without a certificate, impostors, changed maestros.
//!
//! Each is refused with a message on both sides, and nothing is lost.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use p2p_identity::{Identity, PeerId};
use p2p_proto::control::{JoinAnswer, MaestroState, Status, Transfer, TransferState};
use p2p_service::wire::{ConnectError, connect};
use p2p_tests::{
    Conduct, Daemon, LyingPeer, Network, Peer, call_without_certificate, eventually, programs, write_file,
};
use tokio::process::Command;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

async fn with_a_file() -> Network {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => write_file(&shared.join("a.txt"), "a"),
        _ => Ok(()),
    });
    network.start().await.unwrap()
}

async fn log_says(daemon: &Daemon, words: &[&str]) {
    eventually(SOON, &format!("the log of {} says {words:?}", daemon.name()), async || {
        let log = daemon.log();
        ensure!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{log}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn maestro_state(peer: &Peer, expected: MaestroState) -> Status {
    eventually(SOON, &format!("the maestro is {expected:?}"), async || {
        let status: Status = peer.ctl_json(&["status"]).await?;
        let maestro = status.maestro.as_ref().context("no maestro in it")?;
        ensure!(maestro.state == expected, "{maestro:?}");
        Ok(status)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_is_refused_and_both_sides_say_so() {
    let network = with_a_file().await;
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap());
    for daemon in [peer.daemon(), maestro.daemon()] {
        let address = daemon.ready().grpc.to_string();
        let refusal = timeout(SOON, call_without_certificate(&address)).await.unwrap().unwrap();
        assert!(refusal.to_string().contains("CertificateRequired"), "{refusal}");
        log_says(daemon, &["refused", "no certificate"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_behind_an_address_is_refused_and_both_sides_say_so() {
    let network = with_a_file().await;
    let (one, other) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let me = Identity::generate().unwrap();
    let expected: PeerId = other.id().parse().unwrap();
    let error = connect(&me, &[one.address()], Some(expected)).await.unwrap_err();
    let ConnectError::WrongPeer { wrong, .. } = &error else { panic!("{error}") };
    assert_eq!((wrong.expected, wrong.found.to_string().as_str()), (expected, one.id()));
    log_says(one.daemon(), &["refused", "not the identity"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_who_the_directory_says_gives_nothing() {
    let mut network = with_a_file().await;
    // The directory keeps saying that P1 is there, and somebody else answers at P1's address.
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer_mut(1).unwrap();
    let (id, key) = (peer.id().to_owned(), find_key(&peer.state("")));
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    peer.edit(|settings| {
        settings.remove("maestro").set("name", "impostor").set("state_dir", settings_dir(&key, "impostor"));
    })
    .unwrap();
    peer.daemon_mut().restart().await.unwrap();
    assert_ne!(peer.id(), id);
    assert!(!kept.is_empty());

    let fetching = network.peer(2).unwrap();
    let transfer: Transfer = fetching.ctl_json(&["fetch", "a.txt", "--detach"]).await.unwrap();
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting && transfer.reason.is_some();
    let transfer = fetching.transfer_until(transfer.id, SOON, "it says what it lacks", waits).await.unwrap();
    assert!(!fetching.shared("a.txt").exists(), "{transfer:?}");
    let impostor = network.peer(1).unwrap().id()[..8].to_owned();
    log_says(fetching.daemon(), &[&impostor]).await;
}

fn settings_dir(key: &Path, name: &str) -> String {
    key.parent().unwrap().with_file_name(name).to_string_lossy().into_owned()
}

/// The one file in a state directory that holds a private key.
fn find_key(state: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let is_key = |path: &std::path::PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"-----BEGIN PRIVATE KEY-----"))
    };
    files.filter(|path| path.is_file()).find(is_key).expect("the state directory holds a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_state_are_private() {
    let network = with_a_file().await;
    for state in [network.peer(1).unwrap().state(""), network.dir().join("maestro")] {
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700, "{}", state.display());
        assert_eq!(fs::metadata(find_key(&state)).unwrap().mode() & 0o7777, 0o600);
        for entry in fs::read_dir(&state).unwrap() {
            let entry = entry.unwrap();
            let secret = entry.file_name().to_string_lossy().contains("token");
            let mode = entry.metadata().unwrap().mode() & 0o777;
            assert!(!secret || mode == 0o600, "{:?} has mode {mode:o}", entry.file_name());
        }
    }
    let socket = fs::metadata(network.peer(1).unwrap().socket()).unwrap();
    assert_eq!(socket.mode() & 0o007, 0, "the control socket is for its group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_could_read_is_not_used() {
    let mut network = Network::builder().without_maestro().peers(1).start().await.unwrap();
    let peer = network.peer_mut(1).unwrap();
    peer.daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    let key = find_key(&peer.state(""));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = format!("{:#}", peer.daemon_mut().restart().await.unwrap_err());
    assert!(error.contains("chmod 600") && error.contains(key.to_str().unwrap()), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let id = peer.id().to_owned();
    peer.daemon_mut().restart().await.unwrap();
    assert_eq!(peer.id(), id, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_maestro_is_refused_with_both_fingerprints() {
    let mut network = with_a_file().await;
    let pinned = network.maestro().unwrap().daemon().ready().id.clone();
    let key = find_key(&network.dir().join("maestro"));
    let maestro = network.maestro_mut().unwrap();
    maestro.daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    maestro.daemon_mut().restart().await.unwrap();
    let found = maestro.daemon().ready().id.clone();
    assert_ne!(found, pinned);

    let status = maestro_state(network.peer(1).unwrap(), MaestroState::Refused).await;
    let detail = status.maestro.unwrap().detail.unwrap();
    assert!(detail.contains(&pinned) && detail.contains(&found), "both fingerprints: {detail}");
    log_says(network.peer(1).unwrap().daemon(), &[&pinned, &found]).await;

    // The true one comes back, and everything goes on.
    let maestro = network.maestro_mut().unwrap();
    maestro.daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    fs::remove_file(&key).unwrap();
    write_private(&key, &kept);
    maestro.daemon_mut().restart().await.unwrap();
    network.settled().await.unwrap();
    network.peer(2).unwrap().ctl(["fetch", "a.txt"]).await.unwrap().ok().unwrap();
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_pins_the_maestro_and_leaving_forgets_it() {
    let network = Network::builder().peers(1).peers_with(|_, settings| {
        settings.remove("maestro");
    });
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap());
    let wrong = ["join", &maestro.address(), "--fingerprint", peer.id()];
    let said = peer.ctl(wrong).await.unwrap().exited(5).unwrap();
    let id = &maestro.daemon().ready().id;
    assert!(
        said.stderr.contains(id) && said.stderr.contains(peer.id()),
        "both fingerprints: {}",
        said.stderr
    );

    let answer: JoinAnswer = peer.ctl_json(&["join", &maestro.address()]).await.unwrap();
    assert_eq!((&answer.maestro_id, answer.first_contact, answer.name.as_str()), (id, true, "maestro"));
    assert!(answer.membership_until_ms.is_some());
    peer.write("a.txt", "a").unwrap();
    peer.settled().await.unwrap();
    peer.ctl(["leave"]).await.unwrap().ok().unwrap();
    let rest = maestro.rest().unwrap();
    eventually(Duration::from_secs(5), "its files are hidden at once, not after the lease", async || {
        let located = rest.locate("a.txt").await?;
        ensure!(located.is_empty(), "{located:?}");
        Ok(())
    })
    .await
    .unwrap();
    let status: Status = peer.ctl_json(&["status"]).await.unwrap();
    assert_eq!(status.maestro, None);
}

/// The address that this machine has on its network; asking the kernel for the way there sends nothing.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_the_token_is_not_admitted_from_elsewhere() {
    // Peers on the maestro's loopback need no token, so this one comes from this machine's own address.
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address but the loopback's");
        return;
    };
    let network = Network::builder().peers(1).maestro_with(|settings| {
        settings.set("admission.policy", "token").set("grpc.listen", "0.0.0.0:0");
    });
    let network = network.peers_with(|_, settings| {
        settings.remove("maestro");
    });
    let network = network.start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap());
    let address = format!("{address}:{}", maestro.daemon().ready().grpc.port());
    for command in [&["join", &address][..], &["join", &address, "--token", "no-such-token"]] {
        let said = peer.ctl(command).await.unwrap().exited(5).unwrap();
        assert!(said.stderr.contains("--token"), "it says what to do: {}", said.stderr);
    }
    log_says(maestro.daemon(), &["refused", "token"]).await;
    let token = Command::new(&programs().unwrap().maestrod)
        .args(["--config", network.dir().join("maestro.toml").to_str().unwrap(), "token"])
        .output()
        .await
        .unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    peer.ctl(["join", &address, "--token", token.trim()]).await.unwrap().ok().unwrap();
    peer.settled().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_large_messages_end_in_an_error_and_nothing_else() {
    let network = with_a_file().await;
    let peer = network.peer(1).unwrap();
    let member = LyingPeer::start("miembro", Conduct::Honest, [("x", "x")]).await.unwrap();
    member.join(&network.maestro().unwrap().address()).await.unwrap();
    let mut client = member.call(&peer.address(), None).await.unwrap();
    let huge = p2p_proto::v1::ManifestRequest { content: vec![7; 8 << 20].into() };
    let status = client.get_manifest(huge).await.unwrap_err();
    assert!(status.message().contains("limit") || status.code() == tonic::Code::OutOfRange, "{status}");
    let rest = peer.rest().unwrap();
    assert_eq!(rest.get("/").await.unwrap().status, 200);
}
