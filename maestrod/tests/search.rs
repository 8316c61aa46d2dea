//! Looking for files over REST: parts of names, patterns, prefixes, contents, and how many copies there are.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use futures::{StreamExt, stream};
use harness::{Maestro, Peer, SyncStream, eventually, file};
use serde_json::{Value, json};

fn hash(bytes: &str) -> String {
    blake3::hash(bytes.as_bytes()).to_string()
}

/// Code of the problem that a call is answered with, and its status.
async fn refusal(maestro: &Maestro, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("{}{path}", maestro.rest)).await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    let problem: Value = response.json().await.unwrap();
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    (status, problem["code"].as_str().unwrap().to_owned())
}

/// Two peers: ada with three files, bob with a copy of one and one under another name.
async fn two_peers(maestro: &Maestro) -> (Peer, [SyncStream; 2]) {
    let (ada, bob) = (Peer::new("ada"), Peer::new("bob"));
    let files = [file("docs/report.pdf", "r"), file("docs/notes/old report.txt", "n"), file("report", "p")];
    let streams = [
        ada.announce(maestro, &files).await,
        bob.announce(maestro, &[file("docs/report.pdf", "r"), file("copy.bin", "n")]).await,
    ];
    (ada, streams)
}

fn names(answer: &Value) -> Vec<&str> {
    answer["files"].as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn names_are_found_by_parts_and_patterns() {
    let maestro = Maestro::start().await;
    let _peers = two_peers(&maestro).await;
    let found = maestro.get("/search?q=REPORT").await;
    assert_eq!(names(&found), ["report", "docs/report.pdf", "docs/notes/old report.txt"]);
    assert_eq!((&found["order"], &found["q"]), (&json!("rank"), &json!("REPORT")));
    let first = json!({ "name": "docs/report.pdf", "content": hash("r"), "size": 1, "sources": 2 });
    assert_eq!(found["files"][1], first);
    for (q, expected) in [
        ("*.pdf", &["docs/report.pdf"][..]),
        ("docs/*", &["docs/report.pdf"]),
        ("docs/**", &["docs/notes/old report.txt", "docs/report.pdf"]),
        ("**old*", &["docs/notes/old report.txt"]),
        ("co", &["copy.bin"]),
        ("nothing like it", &[]),
    ] {
        assert_eq!(names(&maestro.get(&format!("/search?q={q}")).await), expected, "{q}");
    }
    assert_eq!(maestro.get("/search?q=co").await["order"], "name");
    assert_eq!(maestro.get("/search").await["files"].as_array().unwrap().len(), 4);
    // Page by page the same, in the order of the first.
    let first = maestro.get("/search?q=report&limit=1").await;
    let next = first["next"].as_str().unwrap();
    let rest = maestro.get(&format!("/search?q=report&cursor={next}")).await;
    assert_eq!((names(&first), names(&rest)), (vec!["report"], names(&found)[1..].to_vec()));
    assert_eq!(rest.get("next"), None);
    let long = "x".repeat(1025);
    assert_eq!(refusal(&maestro, &format!("/search?q={long}")).await, (400, "invalid-pattern".to_owned()));
    for cursor in ["forged", next] {
        // The one of a list by rank is of no use for what has no ranks.
        let refused = refusal(&maestro, &format!("/search?q=x&cursor={cursor}")).await;
        assert_eq!(refused, (400, "invalid-cursor".to_owned()));
    }
}

#[tokio::test]
async fn files_are_listed_by_prefix() {
    let maestro = Maestro::start().await;
    let (ada, _streams) = two_peers(&maestro).await;
    let listed = maestro.get("/files?prefix=docs/").await;
    assert_eq!(listed["files"], json!(["docs/notes/old report.txt", "docs/report.pdf"]));
    assert_eq!(listed["entries"][1]["sources"], 2);
    let page = maestro.get("/files?prefix=docs/&limit=1").await;
    let next = page["next"].as_str().unwrap();
    let page = maestro.get(&format!("/files?prefix=docs/&limit=1&cursor={next}")).await;
    assert_eq!(page["files"], json!(["docs/report.pdf"]));
    let of_ada = maestro.get(&format!("/files?prefix=report&peer={}", ada.id())).await;
    assert_eq!((&of_ada["files"], &of_ada["peer"]), (&json!(["report"]), &json!("ada")));
    assert_eq!(maestro.get("/files?prefix=").await["files"].as_array().unwrap().len(), 4);
    for (path, refused) in [
        ("/files", (400, "missing-peer")),
        ("/files?prefix=docs/&peer=nobody", (404, "no-such-peer")),
        ("/files?prefix=docs/&cursor=AAAA", (400, "invalid-cursor")),
    ] {
        assert_eq!(refusal(&maestro, path).await, (refused.0, refused.1.to_owned()), "{path}");
    }
}

/// Of what very many have, some are told, and that there are more.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_what_very_many_have_is_told_in_part() {
    const TOLD: usize = 1000;
    let maestro = Maestro::start().await;
    let common = [file("common", "x")];
    let announce = async |_| Peer::new("many").announce(&maestro, &common).await;
    let mut streams: Vec<SyncStream> =
        stream::iter(0..TOLD).map(announce).buffer_unordered(16).collect().await;
    let ask = async |question: &str| {
        let answer = maestro.get(&format!("/locate?{question}")).await;
        (answer["peers"].as_array().unwrap().len(), answer.get("more").cloned())
    };
    assert_eq!(ask("file=common").await, (TOLD, None));
    streams.push(announce(TOLD).await);
    assert_eq!(ask("file=common").await, (TOLD, Some(json!(true))));
    assert_eq!(ask(&format!("content={}", hash("x"))).await, (TOLD, Some(json!(true))));
}

#[tokio::test]
async fn contents_are_located_and_their_copies_counted() {
    let maestro = Maestro::start().await;
    let (_ada, [_of_ada, of_bob]) = two_peers(&maestro).await;
    let located = maestro.get(&format!("/locate?content={}", hash("n").to_uppercase())).await;
    assert_eq!(located["content"], hash("n"));
    assert_eq!(located["peers"].as_array().unwrap().len(), 2);
    let nobody = maestro.get(&format!("/locate?content={}", hash("?"))).await;
    assert_eq!(nobody, json!({ "file": "", "content": hash("?"), "peers": [] }));

    let count = maestro.get(&format!("/contents/{}", hash("n"))).await;
    assert_eq!((&count["copies"], &count["copies_away"], &count["size"]), (&json!(2), &json!(0), &json!(1)));
    let only = maestro.get("/contents?max_copies=1").await;
    assert_eq!(only["contents"].as_array().unwrap().len(), 1);
    assert_eq!((&only["contents"][0]["name"], &only["contents"][0]["copies"]), (&json!("report"), &json!(1)));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = maestro.get(&format!("/contents?limit=2&cursor={cursor}")).await;
        seen.extend(
            page["contents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["content"].as_str().unwrap().to_owned()),
        );
        match page.get("next") {
            Some(next) => cursor = next.as_str().unwrap().to_owned(),
            None => break,
        }
    }
    let mut all = ["r", "n", "p"].map(hash);
    all.sort();
    assert_eq!(seen, all);

    of_bob.goodbye().await;
    let of = format!("/contents/{}", hash("n"));
    eventually((json!(1), json!(1)), async || {
        let count = maestro.get(&of).await;
        (count["copies"].clone(), count["copies_away"].clone())
    })
    .await;
    let content = hash("n");
    for (path, refused) in [
        (format!("/contents/{}", hash("?")), (404, "no-such-content")),
        ("/contents/xyz".to_owned(), (400, "invalid-content")),
        ("/locate?content=abc".to_owned(), (400, "invalid-content")),
        (format!("/locate?content={content}&file=a"), (400, "file-and-content")),
        (format!("/contents?cursor={content}"), (400, "invalid-cursor")),
    ] {
        assert_eq!(refusal(&maestro, &path).await, (refused.0, refused.1.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn peers_are_listed_with_all_that_is_known_of_them() {
    let maestro = Maestro::start().await;
    let (ada, [_of_ada, of_bob]) = two_peers(&maestro).await;
    of_bob.goodbye().await;
    eventually(1, async || maestro.get("/peers").await["peers"].as_array().unwrap().len()).await;
    let here = maestro.get("/peers").await;
    let listed = &here["peers"][0];
    assert_eq!(listed["peer_id"], ada.id().to_string());
    assert_eq!((&listed["state"], &listed["version"]), (&json!("connected"), &json!("0.1.0")));
    assert_eq!((&listed["files_total"], &listed["bytes"]), (&json!(3), &json!(3)));
    assert_eq!(listed["addresses"], json!(["10.9.8.7:9002", "127.0.0.1:9002"]));
    assert!(listed["last_seen_ms"].as_i64().unwrap() > 0);
    let all = maestro.get("/peers?all=true").await;
    let states = all["peers"].as_array().unwrap().iter().map(|peer| peer["state"].as_str().unwrap());
    let mut states: Vec<_> = states.collect();
    states.sort_unstable();
    assert_eq!(states, ["away", "connected"]);
    // A stream that broke leaves a lease.
    drop(_of_ada);
    eventually(json!("lease"), async || maestro.get("/peers").await["peers"][0]["state"].clone()).await;
}
