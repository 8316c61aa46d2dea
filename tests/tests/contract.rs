//! Every row of the seed contract, over HTTP, against the demonstration network: keys and JSON types compared.
//!
//! The expected answers are copied from the contract. An answer may carry more keys than those, and never fewer.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use p2p_tests::{Network, Rest, demonstration, eventually};
use serde_json::{Value, json};

/// Whether `found` has every key of `expected`, with values of the same JSON types; of arrays, every element is held
/// against the first expected one.
fn same_shape(expected: &Value, found: &Value) -> Result<()> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let Some(there) = found.get(key) else { bail!("no key {key} in {found:?}") };
                same_shape(value, there)?;
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            if let Some(element) = expected.first() {
                found.iter().try_for_each(|there| same_shape(element, there))?;
            }
        }
        (Value::Number(expected), Value::Number(found)) => {
            ensure!(expected.is_u64() == found.is_u64(), "{found} is another kind of number than {expected}");
        }
        _ => {
            let same = std::mem::discriminant(expected) == std::mem::discriminant(found);
            ensure!(same, "{found} has another type than {expected}");
        }
    }
    Ok(())
}

/// The seed's way to name a peer.
fn reference(network: &Network, number: usize) -> Value {
    let ready = network.peer(number).unwrap().daemon().ready();
    json!({ "rest": format!("http://localhost:{}", ready.rest.port()), "grpc_port": ready.grpc.port() })
}

/// Whether `found` is the peer that `expected` names, whatever more it says.
fn names(found: &Value, expected: &Value) -> bool {
    found["rest"] == expected["rest"] && found["grpc_port"] == expected["grpc_port"]
}

async fn get(rest: &Rest, path: &str) -> Value {
    let answer = rest.get(path).await.unwrap();
    assert_eq!(answer.media_type, "application/json", "GET {path}");
    answer.ok().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_maestro_answers_as_the_first_system_did() {
    let network = demonstration(None).start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    let peers: Vec<Value> = (1..=3).map(|number| reference(&network, number)).collect();

    let root = get(&maestro, "/").await;
    let expected = json!({"message": "Servidor Maestro P2P", "status": "activo", "peers_registrados": 3});
    same_shape(&expected, &root).unwrap();
    for key in ["message", "status", "peers_registrados"] {
        assert_eq!(root[key], expected[key]);
    }

    let listed = get(&maestro, "/peers").await;
    let expected =
        json!({"peers": [{"rest": "http://localhost:9001", "grpc_port": 9002, "files": ["archivo1.txt"]}]});
    same_shape(&expected, &listed).unwrap();
    let listed = listed["peers"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    for (number, peer) in (1..).zip(&peers) {
        let row = listed.iter().find(|row| names(row, peer)).expect("the peer is listed");
        assert_eq!(row["files"], json!([format!("archivo{number}.txt")]));
    }

    let directory = get(&maestro, "/directory").await;
    let row = json!([{"rest": "http://localhost:9001", "grpc_port": 9002}]);
    let expected = json!({"directory": {"archivo1.txt": row, "archivo2.txt": row, "archivo3.txt": row}});
    same_shape(&expected, &directory).unwrap();
    assert_eq!(directory["directory"].as_object().unwrap().len(), 3);

    for (number, peer) in (1..).zip(&peers) {
        let file = format!("archivo{number}.txt");
        let holders = directory["directory"][&file].as_array().unwrap();
        assert!(holders.len() == 1 && names(&holders[0], peer), "{holders:?}");
        let located = get(&maestro, &format!("/locate?file={file}")).await;
        same_shape(&json!({"file": "archivo1.txt", "peers": row}), &located).unwrap();
        assert_eq!(located["file"], json!(file));
        let holders = located["peers"].as_array().unwrap();
        assert!(holders.len() == 1 && names(&holders[0], peer), "{holders:?}");
    }
    let nobody = get(&maestro, "/locate?file=no-such-file.txt").await;
    assert_eq!(nobody, json!({"file": "no-such-file.txt", "peers": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_replaces_the_one_before() {
    let network = demonstration(None).start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    let peer = "http://localhost:9901";
    for files in [json!(["plano1.txt", "plano2.txt"]), json!(["plano2.txt", "plano3.txt"]), json!([])] {
        let body = json!({"peer": peer, "files": files, "grpc_port": 9902});
        let answer = maestro.post_json("/register", &body).await.unwrap().ok().unwrap();
        let expected = json!({"status": "registered", "peer": peer, "files": files, "grpc_port": 9902});
        same_shape(&expected, &answer).unwrap();
        for key in ["status", "peer", "files", "grpc_port"] {
            assert_eq!(answer[key], expected[key]);
        }
        for name in ["plano1.txt", "plano2.txt", "plano3.txt"] {
            let located = maestro.locate(name).await.unwrap();
            let registered = files.as_array().unwrap().contains(&json!(name));
            assert_eq!(located.len(), usize::from(registered), "{name} after {files}");
            assert!(located.iter().all(|row| names(row, &json!({"rest": peer, "grpc_port": 9902}))));
        }
        // Beside the peers that sync, not instead of them.
        assert_eq!(maestro.locate("archivo1.txt").await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged() {
    let network = demonstration(None).start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    for (path, key) in [("/peers", "peers"), ("/directory", "directory")] {
        let (mut seen, mut pages, mut cursor) = (0, 0, String::new());
        loop {
            let page = get(&maestro, &format!("{path}?limit=2{cursor}")).await;
            let rows = page[key].as_array().map(Vec::len).or(page[key].as_object().map(serde_json::Map::len));
            let rows = rows.unwrap();
            assert!(rows <= 2, "{path} gives {rows} rows where 2 were asked for");
            (seen, pages) = (seen + rows, pages + 1);
            let Some(next) = page["next"].as_str() else { break };
            assert!(pages < 10, "{path} never ends");
            cursor = format!("&cursor={next}");
        }
        assert_eq!((seen, pages), (3, 2), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_answers_as_the_first_system_did() {
    let network = demonstration(None).start().await.unwrap();
    for number in 1..=3 {
        let rest = network.peer(number).unwrap().rest().unwrap();
        let (name, file) = (format!("P{number}"), format!("archivo{number}.txt"));
        let myself = reference(&network, number);

        let root = get(&rest, "/").await;
        same_shape(&json!({"message": "Peer P1", "status": "activo", "archivos": 1}), &root).unwrap();
        let told = (root["message"].as_str(), root["status"].as_str(), root["archivos"].as_u64());
        assert_eq!(told, (Some(format!("Peer {name}").as_str()), Some("activo"), Some(1)));

        let files = get(&rest, "/files").await;
        assert_eq!((&files["peer"], &files["files"]), (&json!(name), &json!([file])));

        let info = get(&rest, "/info").await;
        assert_eq!((&info["id"], &info["files"]), (&json!(name), &json!([file])));
        assert_eq!((&info["rest_url"], &info["grpc_port"]), (&myself["rest"], &myself["grpc_port"]));

        for (asked, exists) in [(file.as_str(), true), ("otro.txt", false)] {
            let found = get(&rest, &format!("/search?file={asked}")).await;
            let told = (&found["peer"], &found["file"], &found["exists"]);
            assert_eq!(told, (&json!(name), &json!(asked), &json!(exists)));
        }

        // Itself first; then, for want of friends, the maestro.
        for holder in 1..=3 {
            let asked = format!("archivo{holder}.txt");
            let located = get(&rest, &format!("/locate?file={asked}")).await;
            assert_eq!(located["file"], json!(asked));
            let holders = located["peers"].as_array().unwrap();
            assert!(!holders.is_empty() && names(&holders[0], &reference(&network, holder)), "{holders:?}");
        }
        let nobody = get(&rest, "/locate?file=no-such-file.txt").await;
        assert_eq!(nobody, json!({"file": "no-such-file.txt", "peers": []}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_and_upload_are_over_when_they_return() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let rest = peer.rest().unwrap();

    peer.write("nuevo.txt", "nuevo").unwrap();
    let refreshed = rest.post("/refresh").await.unwrap().ok().unwrap();
    let expected = json!({"status": "updated", "files": [""], "maestro_response": {}});
    same_shape(&expected, &refreshed).unwrap();
    assert_eq!(refreshed["status"], json!("updated"));
    assert_eq!(refreshed["files"], json!(["archivo1.txt", "nuevo.txt"]));
    assert_eq!(maestro.locate("nuevo.txt").await.unwrap().len(), 1, "{refreshed}");

    for (name, bytes) in
        [("x.txt", b"hola".to_vec()), ("vacio.bin", Vec::new()), ("docs/largo.bin", vec![7; 6 << 20])]
    {
        let path = format!("/upload?filename={}", name.replace('/', "%2F"));
        let answer = rest.post_bytes(&path, bytes.clone()).await.unwrap().ok().unwrap();
        same_shape(&json!({"ok": true, "message": ""}), &answer).unwrap();
        assert_eq!(answer["ok"], json!(true));
        assert_eq!(std::fs::read(peer.shared(name)).unwrap(), bytes);
        assert_eq!(maestro.locate(name).await.unwrap().len(), 1, "{name} right after {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_file_replaces_it() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) = (network.peer(1).unwrap(), network.maestro().unwrap().rest().unwrap());
    let rest = peer.rest().unwrap();
    rest.post_bytes("/upload?filename=archivo1.txt", "otro").await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read(peer.shared("archivo1.txt")).unwrap(), b"otro");
    let located = maestro.locate("archivo1.txt").await.unwrap();
    assert_eq!(located[0]["size"], json!(4), "{located:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_needs_the_token() {
    let network = demonstration(None)
        .peers_with(|_, settings| {
            settings.remove("rest.require_token");
        })
        .start()
        .await
        .unwrap();
    let peer = network.peer(1).unwrap();
    for path in ["/refresh", "/upload?filename=x.txt"] {
        for rest in [peer.rest().unwrap(), peer.rest().unwrap().with_token("0".repeat(64))] {
            let answer = rest.post_bytes(path, "hola").await.unwrap();
            assert_eq!((answer.status, answer.code()), (401, "unauthorized"), "{path}: {}", answer.text);
            assert_eq!(answer.media_type, "application/problem+json");
        }
        peer.rest_with_token().unwrap().post_bytes(path, "hola").await.unwrap().ok().unwrap();
    }
    assert!(get(&peer.rest().unwrap(), "/search?file=x.txt").await["exists"].as_bool().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_problem_documents() {
    let network = demonstration(None).start().await.unwrap();
    let (peer, maestro) =
        (network.peer(1).unwrap().rest().unwrap(), network.maestro().unwrap().rest().unwrap());
    let home = [("host", "localhost")];
    let cases = [
        (&maestro, "GET", "/nothing", &home[..], 404),
        (&peer, "GET", "/nothing", &home[..], 404),
        (&maestro, "DELETE", "/peers", &home[..], 405),
        (&peer, "GET", "/upload", &home[..], 405),
        (&maestro, "GET", "/locate", &home[..], 400),
        (&peer, "GET", "/locate", &home[..], 400),
        (&peer, "GET", "/search", &home[..], 400),
        (&peer, "POST", "/upload", &home[..], 400),
        (&maestro, "GET", "/peers?limit=none", &home[..], 400),
        (&maestro, "GET", "/directory?cursor=%21", &home[..], 400),
        // A page of another site, which a browser at this machine shows, and a name of that site's that leads here.
        (&peer, "POST", "/upload?filename=x.txt", &[("origin", "https://evil.example")][..], 403),
        (&peer, "GET", "/files", &[("host", "evil.example")][..], 403),
        (&maestro, "GET", "/directory", &[("host", "evil.example")][..], 403),
    ];
    for (rest, method, path, headers, status) in cases {
        let answer = rest.ask_with(method, path, headers).await.unwrap();
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text);
        assert_eq!(answer.media_type, "application/problem+json", "{method} {path}");
        same_shape(&json!({"type": "", "title": "", "status": 0, "detail": "", "code": ""}), &answer.json)
            .unwrap();
    }
    for body in [json!({}), json!({"peer": "http://localhost:1", "files": "x", "grpc_port": 1}), json!([1])] {
        let answer = maestro.post_json("/register", &body).await.unwrap();
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text);
        assert_eq!(answer.media_type, "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_anywhere_shows_in_the_directory_unasked() {
    let network = demonstration(None).start().await.unwrap();
    let maestro = network.maestro().unwrap().rest().unwrap();
    network
        .peer(3)
        .unwrap()
        .rest()
        .unwrap()
        .post_bytes("/upload?filename=a.txt", "a")
        .await
        .unwrap()
        .ok()
        .unwrap();
    // Everyone else learns of it through the maestro.
    let other = network.peer(2).unwrap().rest().unwrap();
    eventually(Duration::from_secs(2), "P2 locates it", async || {
        let located = other.locate("a.txt").await?;
        ensure!(located.len() == 1 && names(&located[0], &reference(&network, 3)), "{located:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(maestro.locate("a.txt").await.unwrap().len(), 1);
}
