//! A maestro whose directory is in PostgreSQL: what it says and does while the server is away. Needs PostgreSQL's programs:
//! `cargo xtask test-large` runs it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Maestro, Peer, complete, delta, eventually, file, removal, upserts};
use maestrod::config::Config;
use maestrod::doctor;
use maestrod::server::Server;
use p2p_proto::diagnosis::Verdict;
use p2p_proto::v1::CatalogDelta;
use p2p_service::tasks::Tasks;
use p2p_tests::PostgresServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

async fn ask(rest: &str, path: &str) -> Response {
    reqwest::get(format!("{rest}{path}")).await.unwrap()
}

/// A 503 that says why, and when to come back.
async fn assert_unavailable(response: Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "directory-unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("cannot be reached"), "{problem}");
}

async fn says(rest: &str, line: &str) -> bool {
    ask(rest, "/metrics").await.text().await.unwrap().lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_database_that_goes_and_comes_back() {
    let mut server = PostgresServer::start().unwrap();
    let store = server.create_database("maestro").unwrap();
    let maestro = Maestro::start_with(|config| config.store = store).await;
    assert!(!maestro.dir.path().join("state/directory.sqlite").exists());
    let ada = Peer::new("ada");
    let mut stream = ada.announce(&maestro, &[file("a", "1")]).await;
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    server.stop().unwrap();
    for path in ["/", "/locate?file=a", "/status", "/healthz", "/search?q=a"] {
        assert_unavailable(ask(&maestro.rest, path).await).await;
    }
    assert!(says(&maestro.rest, "maestrod_database_reachable 0").await);
    assert!(maestro.running.status().await.unwrap().contains("cannot be reached"));
    let lost = stream.refused(delta(1, upserts(2, &[file("b", "2")]))).await;
    assert_eq!(lost.code(), tonic::Code::Unavailable, "{lost}");
    server.start_again().unwrap();
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    assert!(says(&maestro.rest, "maestrod_database_reachable 1").await);
    // A new stream goes on where the old one was.
    let mut stream = ada.sync(&maestro, 1, 1).await;
    stream.apply(delta(1, upserts(2, &[file("b", "2")]))).await;
    assert_eq!(maestro.who_has("b").await, ["ada"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_maestro_waits_for_its_database_at_the_start() {
    let mut server = PostgresServer::start().unwrap();
    let store = server.create_database("later").unwrap();
    server.stop().unwrap();
    let dir = Arc::new(TempDir::new().unwrap());
    let mut config = harness::config(dir.path());
    config.store = store;
    let (tasks, bound) = (Tasks::new(), Server::bind(config).await.unwrap());
    let rest = format!("http://{}", bound.rest_addr());
    let running = {
        let tasks = tasks.clone();
        tokio::spawn(async move { bound.run(&tasks).await })
    };
    assert_unavailable(ask(&rest, "/").await).await;
    assert_unavailable(ask(&rest, "/anything").await).await;
    assert!(says(&rest, "maestrod_database_reachable 0").await);
    assert!(!running.is_finished());
    server.start_again().unwrap();
    let running = running.await.unwrap().unwrap();
    eventually(StatusCode::OK, async || ask(&rest, "/").await.status()).await;
    assert!(says(&rest, "maestrod_database_reachable 1").await);
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
    drop(running);
}

/// A second maestro on the database of the first, of the same network.
async fn beside(first: &Maestro) -> Maestro {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut config = harness::config(dir.path());
    config.store.clone_from(&first.config.store);
    fs::create_dir(&config.state_dir).unwrap();
    fs::copy(first.config.state_dir.join("identity.key"), config.state_dir.join("identity.key")).unwrap();
    Maestro::start_in(dir, config).await
}

/// What is told to one maestro is in the answers of another within a second: what comes, what goes, and who leaves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn what_one_maestro_is_told_the_other_answers() {
    const WITHIN: Duration = Duration::from_secs(1);
    let server = PostgresServer::start().unwrap();
    let store = server.create_database("maestro").unwrap();
    let told = Maestro::start_with(|config| config.store = store).await;
    let asked = beside(&told).await;
    assert_eq!(told.id, asked.id);
    let ada = Peer::new("ada");
    let mut stream = ada.announce(&told, &[]).await;
    let shows = async |name: &str, expected: &[&str], since: Instant| {
        eventually(expected.to_vec(), async || {
            let found = asked.who_has(name).await;
            expected.iter().copied().filter(|peer| found.iter().any(|found| found == peer)).collect()
        })
        .await;
        let found = asked.who_has(name).await;
        assert_eq!((found.len(), since.elapsed() < WITHIN), (expected.len(), true), "{found:?}");
    };
    for sequence in (1..60).step_by(2) {
        let (name, since) = (format!("f{sequence}"), Instant::now());
        stream.apply(delta(1, upserts(sequence, &[file(&name, "1")]))).await;
        shows(&name, &["ada"], since).await;
        let since = Instant::now();
        stream.apply(delta(1, vec![removal(sequence + 1, &name)])).await;
        shows(&name, &[], since).await;
    }
    stream.apply(delta(1, upserts(99, &[file("last", "1")]))).await;
    shows("last", &["ada"], Instant::now()).await;
    let since = Instant::now();
    stream.goodbye().await;
    shows("last", &[], since).await;
    // It comes back to the other one.
    let since = Instant::now();
    let _stream = ada.sync(&asked, 1, 99).await;
    shows("last", &["ada"], since).await;
    eventually(vec!["ada".to_owned()], async || told.who_has("last").await).await;
    assert!(since.elapsed() < WITHIN, "{:?}", since.elapsed());
}

/// What `docs/postgresql.md` says of backups: dumped while a peer goes on telling changes, restored, and mended by the peer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_dump_is_restored_and_mends_itself() {
    let server = PostgresServer::start().unwrap();
    let store = server.create_database("maestro").unwrap();
    let maestro = Maestro::start_with(|config| config.store = store).await;
    let ada = Peer::new("ada");
    // Enough for a dump to take a while.
    let mut files: Vec<_> = (1..=20_000).map(|number| file(&format!("f{number}"), "1")).collect();
    let mut stream = ada.announce(&maestro, &files).await;
    let (told, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let telling = {
        let (told, stop) = (Arc::clone(&told), stop.clone());
        tokio::spawn(async move {
            let mut sequence = 20_000;
            while !stop.is_cancelled() {
                sequence += 1;
                let next = file(&format!("f{sequence}"), "1");
                stream.apply(delta(1, upserts(sequence, std::slice::from_ref(&next)))).await;
                files.push(next);
                told.store(sequence, Ordering::Relaxed);
            }
            files
        })
    };
    eventually(true, async || told.load(Ordering::Relaxed) > 0).await;
    let before = told.load(Ordering::Relaxed);
    let dump = || server.run("pg_dump", "maestro", &["--format=custom", "--file=maestrod.dump"]);
    tokio::task::block_in_place(dump).unwrap();
    let after = told.load(Ordering::Relaxed);
    stop.cancel();
    let files = telling.await.unwrap();
    assert!(after > before, "nothing was told while it was dumped");
    let (dir, mut config) = maestro.stop().await;
    config.store = server.create_database("restored").unwrap();
    server.run("pg_restore", "restored", &["--no-owner", "maestrod.dump"]).unwrap();
    let maestro = Maestro::start_in(dir, config).await;
    assert_eq!(maestro.who_has("f1").await, ["ada"]);
    // The peer is told how far the copy had come, and sends what came after; then both hold the same.
    let last = files.len() as u64;
    let mut stream = ada.sync(&maestro, 1, last).await;
    let held = stream.welcome.applied_sequence;
    assert!((before..=after + 1).contains(&held), "{held}, dumped between {before} and {after}");
    let rest = &files[usize::try_from(held).unwrap()..];
    let next = CatalogDelta { through_sequence: last, ..delta(1, upserts(held + 1, rest)) };
    assert!(!stream.apply(complete(next, &files)).await.resync);
    assert_eq!(maestro.who_has(&format!("f{last}")).await, ["ada"]);
}

/// Whoever the certificates of a site come from.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this host, and its key.
    fn certify(&self, host: &str) -> (String, String) {
        let (params, key) =
            (CertificateParams::new([host.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A maestro with this configuration that must not start; what it says.
async fn refusal(config: &Config) -> String {
    let (tasks, bound) = (Tasks::new(), Server::bind(config.clone()).await.unwrap());
    let started = tokio::time::timeout(Duration::from_secs(30), bound.run(&tasks)).await;
    started.expect("it waits").err().expect("it was let in").to_string()
}

/// A database as a careful administrator has it: reached over the network by TLS alone, and with a password.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_database_is_entered_by_tls_and_with_a_password() {
    const PASSWORD: &str = "s3 cret";
    let (site, other) = (Authority::new(), Authority::new());
    let (certificate, key) = site.certify("localhost");
    let server = PostgresServer::start_guarded(&certificate, &key, PASSWORD).unwrap();
    server.create_database("maestro").unwrap();
    let files = TempDir::new().unwrap();
    let keep = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let (right, wrong, none) =
        (keep("right", &format!("{PASSWORD}\n")), keep("wrong", "s3 cre\n"), PathBuf::new());
    let (ca, stranger) = (keep("ca.pem", &site.0.pem()), keep("stranger.pem", &other.0.pem()));
    let address = server.tcp_address("maestro").unwrap();
    let require = format!("{address}?sslmode=require");
    let fill = |config: &mut Config, store: &str, password: &PathBuf, ca: &PathBuf| {
        store.clone_into(&mut config.store);
        (config.store_password_file, config.store_ca_file) = (password.clone(), ca.clone());
    };

    let maestro = Maestro::start_with(|config| fill(config, &require, &right, &ca)).await;
    let _ada = Peer::new("ada").announce(&maestro, &[file("a", "1")]).await;
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    let by_tls = "SELECT count(*) > 0, bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                  WHERE application_name = 'maestrod'";
    assert_eq!(server.sql("maestro", by_tls).unwrap(), "t|t");

    // One that runs goes on trying: somebody may set it right on the server.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'maestrod'";
    server.sql("maestro", "ALTER ROLE maestrod PASSWORD 'another'").unwrap();
    server.sql("maestro", cut).unwrap();
    // The first answer may still be of the connection that was cut.
    eventually(true, async || {
        let lost: Value = ask(&maestro.rest, "/locate?file=a").await.json().await.unwrap();
        let detail = lost["detail"].as_str().unwrap();
        detail.contains("password authentication failed") && detail.contains("store_password_file")
    })
    .await;
    server.sql("maestro", &format!("ALTER ROLE maestrod PASSWORD '{PASSWORD}'")).unwrap();
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    drop(maestro.stop().await);

    // One that starts says what is wrong, and ends.
    let numeric = require.replace("localhost", "127.0.0.1");
    let nobody = server.tcp_address("nobody").unwrap();
    let refused = async |store: &str, password: &PathBuf, trusted: &PathBuf, words: [&str; 2]| {
        let dir = TempDir::new().unwrap();
        let mut config = harness::config(dir.path());
        fill(&mut config, store, password, trusted);
        let said = refusal(&config).await;
        let examined = doctor::examine(&config).await;
        let found = examined.checks.iter().find(|check| check.name == "database").unwrap();
        assert_eq!(found.verdict, Verdict::Problem, "{}", found.found);
        for word in words {
            assert!(said.contains(word) && found.found.contains(word), "{word}: {said}\n{}", found.found);
        }
        assert!(!said.contains("s3 cre"), "{said}");
    };
    refused(&require, &wrong, &ca, ["password authentication failed", "store_password_file"]).await;
    refused(&require, &none, &ca, ["asks for a password", "store_password_file"]).await;
    refused(&require, &right, &stranger, ["invalid peer certificate", "store_ca_file"]).await;
    refused(&require, &right, &none, ["invalid peer certificate", "store_ca_file"]).await;
    refused(&numeric, &right, &ca, ["invalid peer certificate", "name the host"]).await;
    refused(&format!("{address}?sslmode=disable"), &right, &ca, ["no encryption", "sslmode"]).await;
    refused(&format!("{nobody}?sslmode=require"), &right, &ca, ["does not exist", "postgresql.md"]).await;
    // By the default it is TLS all the same, and as strict.
    refused(&address, &right, &stranger, ["invalid peer certificate", "store_ca_file"]).await;
    server.sql("postgres", "ALTER SYSTEM SET ssl = off").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually("off".to_owned(), async || server.sql("postgres", "SHOW ssl").unwrap()).await;
    refused(&require, &right, &ca, ["does not support TLS", "ssl = on"]).await;
}
