//! A maestro whose directory is in PostgreSQL: what it says and does while the server is away. Needs PostgreSQL's programs:
//! `cargo xtask test-large` runs it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{Maestro, Peer, delta, eventually, file, upserts};
use maestrod::server::Server;
use p2p_service::tasks::Tasks;
use p2p_tests::PostgresServer;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

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
    assert!(!running.is_finished());
    server.start_again().unwrap();
    let running = running.await.unwrap().unwrap();
    eventually(StatusCode::OK, async || ask(&rest, "/").await.status()).await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
    drop(running);
}

/// What `docs/postgresql.md` says of backups: dumped while in use, restored, and mended by the peers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test-large` runs it"]
async fn a_dump_is_restored_and_mends_itself() {
    let server = PostgresServer::start().unwrap();
    let store = server.create_database("maestro").unwrap();
    let maestro = Maestro::start_with(|config| config.store = store).await;
    let ada = Peer::new("ada");
    let mut stream = ada.announce(&maestro, &[file("a", "1")]).await;
    server.run("pg_dump", "maestro", &["--format=custom", "--file=maestrod.dump"]).unwrap();
    stream.apply(delta(1, upserts(2, &[file("b", "2")]))).await;
    let (dir, mut config) = maestro.stop().await;
    config.store = server.create_database("restored").unwrap();
    server.run("pg_restore", "restored", &["--no-owner", "maestrod.dump"]).unwrap();
    let maestro = Maestro::start_in(dir, config).await;
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    assert_eq!(maestro.who_has("b").await, [""; 0]);
    // The peer is told how far the copy had come, and sends what came after.
    let mut stream = ada.sync(&maestro, 1, 2).await;
    stream.apply(delta(1, upserts(2, &[file("b", "2")]))).await;
    assert_eq!(maestro.who_has("b").await, ["ada"]);
}
