//! Running a maestro: metrics, limits, numbers, copies that are restored, peers that are forgotten.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Maestro, Peer, SyncStream, complete, delta, eventually, file, removal, upserts};
use maestrod::directory::sqlite::backup;
use maestrod::server::database_path;
use p2p_proto::v1::{CatalogDelta, Change, FileEntry};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

async fn register(maestro: &Maestro, files: &Value) -> Response {
    let body = json!({ "peer": "http://localhost:9001", "files": files, "grpc_port": 9002 });
    Client::new().post(format!("{}/register", maestro.rest)).json(&body).send().await.unwrap()
}

async fn metrics(maestro: &Maestro) -> String {
    let response = reqwest::get(format!("{}/metrics", maestro.rest)).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    response.text().await.unwrap()
}

#[tokio::test]
async fn metrics_tell_what_happened_and_what_is_there() {
    let maestro = Maestro::start().await;
    let mut stream = Peer::new("ada").announce(&maestro, &[file("a", "1"), file("b", "22")]).await;
    maestro.get("/locate?file=a").await;
    maestro.get("/contents?max_copies=1").await;
    assert_eq!(reqwest::get(format!("{}/nothing", maestro.rest)).await.unwrap().status(), 404);
    stream.client.list_peers(p2p_proto::v1::ListPeersRequest::default()).await.unwrap();
    let text = metrics(&maestro).await;
    for line in [
        "maestrod_peers{state=\"connected\"} 1",
        "maestrod_peers{state=\"known\"} 1",
        "maestrod_files 2",
        "maestrod_files_bytes 3",
        "maestrod_sync_streams 1",
        "maestrod_sync_changes_total 2",
        "maestrod_sync_batches_total 1",
        "maestrod_grpc_requests_total{call=\"ListPeers\"} 1",
        "maestrod_http_requests_total{route=\"/locate\",method=\"GET\",status=\"200\"} 1",
        "maestrod_http_requests_total{route=\"other\",method=\"GET\",status=\"404\"} 1",
        "maestrod_http_request_duration_seconds_count{route=\"/locate\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    drop(stream);
    let has = async |line: &str| metrics(&maestro).await.lines().any(|found| found == line);
    eventually(true, async || has("maestrod_sync_streams 0").await).await;
    eventually(true, async || has("maestrod_contents 2").await).await;
    let status = maestro.get("/status").await;
    assert_eq!(status["peers"], json!({ "connected": 0, "here": 1, "known": 1 }));
    assert_eq!((&status["files"], &status["bytes"], &status["contents"]), (&json!(2), &json!(3), &json!(2)));
    assert!(status["database_bytes"].as_u64().unwrap() > 0);
}

/// A 429 that says when to come back; its problem.
async fn assert_limited(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "too-many-requests");
    problem
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let maestro = Maestro::start_with(|config| config.rest.requests_per_sec = 10).await;
    let url = format!("{}/healthz", maestro.rest);
    let client = Client::new();
    let mut limited = None;
    for _ in 0..200 {
        let response = client.get(&url).send().await.unwrap();
        if response.status() != StatusCode::OK {
            limited = Some(response);
            break;
        }
    }
    let problem = assert_limited(limited.expect("no limit was reached")).await;
    assert!(problem["hint"].as_str().unwrap().contains("requests_per_sec"), "{problem}");
    // It may again, as soon as it was told.
    eventually(StatusCode::OK, async || client.get(&url).send().await.unwrap().status()).await;
    // A reload lifts the limit.
    let mut config = maestro.config.clone();
    config.rest.requests_per_sec = 0;
    assert_eq!(maestro.running.reload(config).taken.len(), 1);
    for _ in 0..50 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK);
    }
    let text = metrics(&maestro).await;
    assert!(text.contains("maestrod_http_limited_total{route=\"/healthz\"}"), "{text}");
}

#[tokio::test]
async fn registrations_are_limited_in_number_and_size() {
    let maestro = Maestro::start_with(|config| {
        config.rest.registrations_per_min = 3;
        config.rest.max_body_bytes = 4096;
    })
    .await;
    assert_eq!(register(&maestro, &json!(["a"])).await.status(), 200);
    let many: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    assert_eq!(register(&maestro, &json!(many)).await.status(), 413);
    assert_eq!(register(&maestro, &json!(["b"])).await.status(), 200);
    let problem = assert_limited(register(&maestro, &json!(["c"])).await).await;
    assert!(problem["hint"].as_str().unwrap().contains("registrations_per_min"), "{problem}");
    // Whoever reads is not held up.
    assert_eq!(maestro.who_has("b").await, ["http://localhost:9001"]);
}

#[tokio::test]
async fn who_was_not_seen_for_long_is_forgotten() {
    let maestro = Maestro::start_with(|config| config.directory.keep_unseen_days = 0).await;
    let (ada, bob) = (Peer::new("ada"), Peer::new("bob"));
    for peer in [&ada, &bob] {
        peer.announce(&maestro, &[file(peer.name, "x")]).await.goodbye().await;
    }
    eventually(0, async || maestro.get("/peers").await["peers"].as_array().unwrap().len()).await;
    let (dir, config) = maestro.stop().await;
    // Two days pass for ada.
    let connection = rusqlite::Connection::open(database_path(&config.state_dir)).unwrap();
    let sql = "UPDATE peers SET last_seen_ms = last_seen_ms - 2 * 86400000 WHERE name = 'ada'";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    drop(connection);
    let maestro = Maestro::start_in(dir, config).await;
    let known = async || {
        let all = maestro.get("/peers?all=true").await;
        let names =
            all["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(known().await, ["ada", "bob"]);
    let mut config = maestro.config.clone();
    config.directory.keep_unseen_days = 1;
    maestro.running.reload(config);
    eventually(vec!["bob".to_owned()], known).await;
    assert!(metrics(&maestro).await.contains("maestrod_peers_forgotten_total 1"));
    // It is nobody's memory, and a peer like any other when it comes back.
    let _ada = ada.announce(&maestro, &[file("back", "y")]).await;
    assert_eq!(maestro.who_has("back").await, ["ada"]);
}

/// A peer that changes its files and remembers how.
struct Changing {
    peer: Peer,
    log: Vec<Change>,
    files: BTreeMap<String, FileEntry>,
}

impl Changing {
    fn new(name: &'static str) -> Changing {
        Changing { peer: Peer::new(name), log: Vec::new(), files: BTreeMap::new() }
    }

    fn catalog(&self) -> Vec<FileEntry> {
        self.files.values().cloned().collect()
    }

    fn last(&self) -> u64 {
        self.log.last().map_or(0, |change| change.sequence)
    }

    /// The next changes: some files come, some change, some go.
    fn change(&mut self) -> CatalogDelta {
        let mut changes = Vec::new();
        for _ in 0..20 {
            let sequence = self.last() + 1;
            let name = format!("{}-{}", self.peer.name, sequence * 7 % 500);
            let change = match self.files.contains_key(&name) && sequence.is_multiple_of(3) {
                true => {
                    self.files.remove(&name);
                    removal(sequence, &name)
                }
                false => {
                    let entry = file(&name, &format!("{name} {sequence}"));
                    self.files.insert(name, entry.clone());
                    upserts(sequence, &[entry]).remove(0)
                }
            };
            self.log.push(change.clone());
            changes.push(change);
        }
        delta(1, changes)
    }

    /// Sends changes until told to end.
    async fn run(mut self, mut stream: SyncStream, end: Arc<AtomicBool>) -> Changing {
        let mut first = true;
        while !end.load(Ordering::Relaxed) {
            let delta = self.change();
            let delta = complete(delta, &self.catalog());
            assert!(!stream.apply(CatalogDelta { reset: first, ..delta }).await.resync);
            first = false;
        }
        self
    }
}

/// Puts a copy in the place of the database, as docs/operations.md says.
fn restore(copy: &Path, state_dir: &Path) {
    let database = database_path(state_dir);
    for beside in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{beside}", database.display()));
    }
    std::fs::copy(copy, database).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_under_load_restores_to_what_the_peers_have() {
    let maestro = Maestro::start().await;
    let end = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for name in ["ada", "bob", "cyd"] {
        let changing = Changing::new(name);
        let stream = changing.peer.sync(&maestro, 1, 0).await;
        running.push(tokio::spawn(changing.run(stream, Arc::clone(&end))));
    }
    let database = database_path(&maestro.config.state_dir);
    let changes = async || {
        let text = metrics(&maestro).await;
        let line = text.lines().find_map(|line| line.strip_prefix("maestrod_sync_changes_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let copies: Vec<_> = (0..3).map(|number| maestro.dir.path().join(format!("copy-{number}"))).collect();
    for copy in &copies {
        let before = changes().await;
        eventually(true, async || changes().await > before + 200).await;
        let (database, copy) = (database.clone(), copy.clone());
        let copied = tokio::task::spawn_blocking(move || backup(&database, &copy)).await.unwrap().unwrap();
        assert_eq!(copied.peers, 3);
    }
    let before = changes().await;
    eventually(true, async || changes().await > before + 200).await;
    end.store(true, Ordering::Relaxed);
    let mut peers = Vec::new();
    for task in running {
        peers.push(task.await.unwrap());
    }
    let (mut dir, mut config) = maestro.stop().await;
    for copy in &copies {
        restore(copy, &config.state_dir);
        let maestro = Maestro::start_in(dir, config).await;
        let mut older = 0;
        let mut streams = Vec::new();
        for changing in &peers {
            let mut stream = changing.peer.sync(&maestro, 1, changing.last()).await;
            let held = stream.welcome.applied_sequence;
            assert_eq!(stream.welcome.epoch, 1);
            assert!(held > 0 && held <= changing.last());
            older += u32::from(held < changing.last());
            let rest: Vec<_> = changing.log.iter().filter(|change| change.sequence > held).cloned().collect();
            let rest = CatalogDelta { through_sequence: changing.last(), ..delta(1, rest) };
            assert!(!stream.apply(complete(rest, &changing.catalog())).await.resync, "the digests differ");
            let listed = maestro.get(&format!("/files?peer={}", changing.peer.id())).await;
            assert_eq!(listed["files"], json!(changing.files.keys().collect::<Vec<_>>()));
            streams.push(stream);
        }
        assert!(older > 0, "the copy is of the end");
        assert_eq!(maestro.get("/status").await["peers"]["connected"], 3);
        drop(streams);
        (dir, config) = maestro.stop().await;
    }
}
