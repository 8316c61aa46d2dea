//! The REST interface: every row of the first system's contract, and what was added.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::collections::BTreeSet;

use harness::{Maestro, Peer, file};
use maestrod::config::RegisterFrom;
use p2p_service::config::Change;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

async fn post(maestro: &Maestro, body: &Value) -> Response {
    Client::new().post(format!("{}/register", maestro.rest)).json(body).send().await.unwrap()
}

async fn problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)));
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    problem
}

/// What the first system answers is in the answer, with the same type; more may be.
fn assert_holds(answer: &Value, expected: &Value, at: &str) {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => {
            for (key, expected) in expected {
                let answer = answer.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing"));
                assert_holds(answer, expected, &format!("{at}.{key}"));
            }
        }
        (Value::Array(answer), Value::Array(expected)) => {
            assert_eq!(answer.len(), expected.len(), "{at}");
            for (index, (answer, expected)) in answer.iter().zip(expected).enumerate() {
                assert_holds(answer, expected, &format!("{at}[{index}]"));
            }
        }
        (answer, expected) => assert_eq!(answer, expected, "{at}"),
    }
}

#[tokio::test]
async fn every_row_of_the_contract() {
    let maestro = Maestro::start().await;
    for (port, name) in [(9001, "archivo1.txt"), (9003, "archivo2.txt"), (9005, "archivo3.txt")] {
        let body =
            json!({ "peer": format!("http://localhost:{port}"), "files": [name], "grpc_port": port + 1 });
        let response = post(&maestro, &body).await;
        assert_eq!(response.status(), 200);
        let mut expected = body.clone();
        expected["status"] = json!("registered");
        assert_eq!(response.json::<Value>().await.unwrap(), expected);
    }
    let root = maestro.get("/").await;
    let expected = json!({ "message": "Servidor Maestro P2P", "status": "activo", "peers_registrados": 3 });
    assert_holds(&root, &expected, "root");
    assert_eq!(root["maestro_id"], maestro.id.to_string());
    let one = json!({ "rest": "http://localhost:9001", "grpc_port": 9002 });
    let peers = maestro.get("/peers").await;
    let expected = json!({ "peers": [
        { "rest": "http://localhost:9001", "grpc_port": 9002, "files": ["archivo1.txt"] },
        { "rest": "http://localhost:9003", "grpc_port": 9004, "files": ["archivo2.txt"] },
        { "rest": "http://localhost:9005", "grpc_port": 9006, "files": ["archivo3.txt"] },
    ] });
    assert_holds(&peers, &expected, "peers");
    assert_eq!(peers.get("next"), None);
    let directory = maestro.get("/directory").await;
    let expected = json!({ "directory": { "archivo1.txt": [one], "archivo2.txt": [
        { "rest": "http://localhost:9003", "grpc_port": 9004 }
    ] } });
    assert_holds(&directory, &expected, "directory");
    assert_eq!(directory["directory"].as_object().unwrap().len(), 3);
    let located = maestro.get("/locate?file=archivo1.txt").await;
    assert_eq!(located, json!({ "file": "archivo1.txt", "peers": [one] }));
    let nobody = maestro.get("/locate?file=archivo9.txt").await;
    assert_eq!(nobody, json!({ "file": "archivo9.txt", "peers": [] }));
    // Unknown parameters are no error, as they were none.
    assert_eq!(maestro.get("/locate?file=archivo1.txt&x=1").await, located);

    // A second call replaces.
    let again = json!({ "peer": "http://localhost:9001", "files": ["otro.txt"], "grpc_port": 9012 });
    assert_eq!(post(&maestro, &again).await.status(), 200);
    assert_eq!(maestro.get("/locate?file=archivo1.txt").await["peers"], json!([]));
    let located = maestro.get("/locate?file=otro.txt").await;
    assert_eq!(located["peers"], json!([{ "rest": "http://localhost:9001", "grpc_port": 9012 }]));
    assert_eq!(maestro.get("/").await["peers_registrados"], 3);
}

#[tokio::test]
async fn plain_and_synced_peers_stand_side_by_side() {
    let maestro = Maestro::start().await;
    let ada = Peer::new("ada");
    let _ada = ada.announce(&maestro, &[file("a.txt", "1"), file("docs/b.txt", "22")]).await;
    let body = json!({ "peer": "http://localhost:9001/", "files": ["a.txt"], "grpc_port": 9002 });
    assert_eq!(post(&maestro, &body).await.json::<Value>().await.unwrap()["peer"], body["peer"]);
    let hash = blake3::hash(b"1").to_string();
    let synced = json!({
        "rest": "http://ada.lab:9001", "grpc_port": 9002, "peer_id": ada.id().to_string(), "name": "ada",
        "content": hash, "size": 1
    });
    let plain = json!({ "rest": "http://localhost:9001", "grpc_port": 9002 });
    assert_eq!(maestro.get("/locate?file=a.txt").await["peers"], json!([synced, plain]));
    assert_eq!(maestro.get("/directory").await["directory"]["a.txt"], json!([synced, plain]));
    let peers = maestro.get("/peers").await;
    assert_eq!(peers["peers"][0]["files"], json!(["a.txt", "docs/b.txt"]));
    assert_eq!(peers["peers"][0]["files_total"], 2);
    assert_eq!(peers["peers"][1]["rest"], "http://localhost:9001");
    let found = maestro.get("/search?q=A.TXT").await;
    assert_eq!(
        found["files"],
        json!([
            { "name": "a.txt", "sources": 1 },
            { "name": "a.txt", "content": hash, "size": 1, "sources": 1 },
        ])
    );
    let files = maestro.get(&format!("/files?peer={}", ada.id())).await;
    assert_eq!(files, json!({ "peer": "ada", "files": ["a.txt", "docs/b.txt"] }));
    let files = maestro.get("/files?peer=http://localhost:9001").await;
    assert_eq!(files["files"], json!(["a.txt"]));
}

#[tokio::test]
async fn lists_are_paged() {
    let maestro = Maestro::start().await;
    for port in 1..=7 {
        let files: Vec<_> = (0..3).map(|number| format!("f{port}-{number}")).collect();
        let body = json!({ "peer": format!("http://localhost:{port}"), "files": files, "grpc_port": port });
        assert_eq!(post(&maestro, &body).await.status(), 200);
    }
    for (path, list, expected) in
        [("/peers", "peers", 7usize), ("/directory", "directory", 21), ("/search?q=f", "files", 21)]
    {
        let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = maestro.get(&format!("{path}{sign}limit=4&cursor={cursor}")).await;
            let keys: Vec<String> = match &page[list] {
                Value::Object(object) => object.keys().cloned().collect(),
                Value::Array(array) => array.iter().map(Value::to_string).collect(),
                other => panic!("{other}"),
            };
            assert!(keys.len() <= 4);
            for key in keys {
                assert!(seen.insert(key), "{path} repeats");
            }
            pages += 1;
            match page.get("next") {
                Some(next) => cursor = next.as_str().unwrap().to_owned(),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (expected, expected.div_ceil(4usize)), "{path}");
    }
    let peers_cursor = maestro.get("/peers?limit=1").await["next"].as_str().unwrap().to_owned();
    for path in [
        "/peers?cursor=forged".to_owned(),
        "/directory?cursor=%00".to_owned(),
        "/search?q=x&cursor=AAAA".to_owned(),
        format!("/directory?cursor={peers_cursor}"),
        format!("/peers?cursor={}", &peers_cursor[1..]),
    ] {
        problem(reqwest::get(format!("{}{path}", maestro.rest)).await.unwrap(), 400, "invalid-cursor").await;
    }
    // More than the greatest page is taken as the greatest page.
    assert_eq!(maestro.get("/peers?limit=999999").await["peers"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn what_is_wrong_is_a_problem() {
    let maestro = Maestro::start().await;
    let client = Client::new();
    let url = |path: &str| format!("{}{path}", maestro.rest);
    let get = async |path: &str| reqwest::get(url(path)).await.unwrap();
    problem(get("/nothing").await, 404, "unknown-path").await;
    problem(get("/locate").await, 400, "missing-file").await;
    problem(get("/locate?file=").await, 400, "missing-file").await;
    problem(get("/peers?limit=many").await, 400, "invalid-query").await;
    problem(get("/files").await, 400, "missing-peer").await;
    problem(get("/files?peer=nobody").await, 404, "no-such-peer").await;
    problem(client.request(Method::DELETE, url("/peers")).send().await.unwrap(), 405, "method-not-allowed")
        .await;
    problem(get("/register").await, 405, "method-not-allowed").await;
    let raw =
        |body: String| client.post(url("/register")).header("content-type", "application/json").body(body);
    problem(raw("{".to_owned()).send().await.unwrap(), 400, "invalid-json").await;
    problem(raw("{}".to_owned()).send().await.unwrap(), 422, "invalid-body").await;
    problem(raw(" ".repeat(17 << 20)).send().await.unwrap(), 413, "body-too-large").await;
    let with = |peer: &str, files: Value| json!({ "peer": peer, "files": files, "grpc_port": 9002 });
    let bad_name =
        problem(post(&maestro, &with("http://a", json!(["ok", "../x"]))).await, 422, "invalid-name").await;
    assert!(bad_name["detail"].as_str().unwrap().contains("../x"));
    problem(post(&maestro, &with("not a url", json!([]))).await, 422, "invalid-url").await;
    let many: Vec<_> = (0..100_001).map(|number| number.to_string()).collect();
    problem(post(&maestro, &with("http://a", json!(many))).await, 422, "too-many-files").await;
    assert_eq!(maestro.get("/").await["peers_registrados"], 0);
    // The most that is allowed is taken.
    assert_eq!(post(&maestro, &with("http://a", json!(many[..100_000]))).await.status(), 200);
    let peers = maestro.get("/peers").await;
    assert_eq!(peers["peers"][0]["files"].as_array().unwrap().len(), 1000);
    assert_eq!(peers["peers"][0]["files_total"], 100_000);
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let maestro =
        Maestro::start_with(|config| config.rest.allowed_hosts = vec!["maestro.lab".to_owned()]).await;
    let get = async |header: &str, value: &str| {
        Client::new().get(&maestro.rest).header(header, value).send().await.unwrap()
    };
    problem(get("host", "evil.example").await, 403, "foreign-host").await;
    problem(get("origin", "http://evil.example").await, 403, "foreign-origin").await;
    assert_eq!(get("host", "maestro.lab:9000").await.status(), StatusCode::OK);
    assert_eq!(get("origin", "http://localhost:9000").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_reload_changes_what_can_change() {
    let maestro = Maestro::start().await;
    let mut config = maestro.config.clone();
    config.rest.register = RegisterFrom::Off;
    config.name = "renamed".to_owned();
    config.grpc.listen = "127.0.0.1:1".to_owned();
    let reloaded = maestro.running.reload(config.clone());
    let keys = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&reloaded.taken), ["name", "rest.register"]);
    assert_eq!(keys(&reloaded.refused), ["grpc.listen"]);
    let body = json!({ "peer": "http://localhost:9001", "files": [], "grpc_port": 9002 });
    problem(post(&maestro, &body).await, 403, "register-refused").await;
    let stream = Peer::new("ada").sync(&maestro, 1, 0).await;
    assert_eq!(stream.welcome.name, "renamed");
    // What did not change is not said to have changed the next time.
    assert!(maestro.running.reload(config).taken.is_empty());
}

#[tokio::test]
async fn the_document_and_the_health_are_there() {
    let maestro = Maestro::start().await;
    assert_eq!(maestro.get("/healthz").await, json!({ "status": "ok" }));
    let document = maestro.get("/openapi.json").await;
    let paths: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in ["/", "/peers", "/directory", "/files", "/locate", "/search", "/register", "/healthz"] {
        assert!(paths.contains(path), "{path}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    // Every reference in the document leads somewhere in it.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    // It can be browsed without another machine: the page, and what it asks for.
    let get = async |path: &str| reqwest::get(format!("{}{path}", maestro.rest)).await.unwrap();
    let page = get("/docs").await;
    assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/docs/"));
    let page = page.text().await.unwrap();
    let assets = page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
    let assets: Vec<&str> = assets.collect();
    assert!(assets.len() >= 3 && !page.contains("https://"), "{page}");
    for asset in assets {
        let name = asset.trim_start_matches("./");
        let asset = get(&format!("/docs/{name}")).await;
        assert_eq!(asset.status(), StatusCode::OK, "{name}");
    }
    assert!(get("/docs/swagger-initializer.js").await.text().await.unwrap().contains("/openapi.json"));
}
