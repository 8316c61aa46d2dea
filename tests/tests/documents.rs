//! The REST interfaces against their own OpenAPI documents: `cargo xtask test-rest`.
//!
//! Schemathesis makes requests of every kind that the documents allow, and many that they do not. No answer may be a server's
//! error, or one that the document does not have: its status, its media type, its headers, its body.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ffi::OsString;
use std::path::Path;

use p2p_tests::{Network, Rest, write_file};
use serde_json::json;
use tokio::process::Command;

/// Names the program; `cargo xtask test-rest` installs it and sets this.
const PROGRAM: &str = "P2P_SCHEMATHESIS";
/// Where set, another seed than the usual one.
const SEED: &str = "P2P_SEED";
/// What of an answer is held against the document.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance";
/// Names of files in the shares, ordinary and less so.
const NAMES: [&str; 6] = [
    "archivo1.txt",
    "datos/2024/informe final.pdf",
    "música/canción ñ.flac",
    "a",
    "A/b/c/d.tar.gz",
    "50%.txt",
];

/// Has it ask everything of the interface for so many seconds.
async fn hold_against_its_document(rest: &Rest, dir: &Path, secs: u32) {
    let program = std::env::var_os(PROGRAM).unwrap_or_else(|| OsString::from("schemathesis"));
    let seed = std::env::var(SEED).unwrap_or_else(|_| "1".to_owned());
    let mut command = Command::new(&program);
    command
        .arg("run")
        .arg(format!("{}/openapi.json", rest.base()))
        .args(["--checks", CHECKS, "--seed", &seed]);
    command.args(["--max-time", &secs.to_string(), "--no-color", "--continue-on-failure"]);
    if let Some(token) = rest.token() {
        command.arg("--header").arg(format!("Authorization:Bearer {token}"));
    }
    // It leaves files where it is.
    let ended = command.current_dir(dir).kill_on_drop(true).output().await;
    let ended = ended.unwrap_or_else(|error| {
        panic!("cannot run {}: {error}; `cargo xtask test-rest` installs it", program.display())
    });
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{} (seed {seed}):\n{said}", ended.status);
    let asked = said.lines().find(|line| line.contains("generated,")).unwrap_or("?").trim();
    println!("{}: {asked}", rest.base());
    assert_eq!(rest.get("/healthz").await.unwrap().status, 200, "it does not answer any more");
}

async fn network() -> Network {
    let fill = |number: usize, shared: &Path| {
        for name in NAMES {
            write_file(&shared.join(name), format!("{name} of {}", number % 2))?;
        }
        Ok(())
    };
    let any = |settings: &mut p2p_tests::Settings| {
        settings.set("rest.requests_per_sec", 0).set("rest.registrations_per_min", 0);
    };
    Network::builder().peers(3).files(fill).maestro_with(any).start().await.unwrap()
}

#[tokio::test]
#[ignore = "needs Schemathesis: run with cargo xtask test-rest"]
async fn the_maestro_answers_as_its_document_says() {
    let network = network().await;
    let rest = network.maestro().unwrap().rest().unwrap();
    let plain = json!({"peer": "http://10.1.2.3:9001", "grpc_port": 9002, "files": NAMES});
    rest.post_json("/register", &plain).await.unwrap().ok().unwrap();
    hold_against_its_document(&rest, network.dir(), 60).await;
}

#[tokio::test]
#[ignore = "needs Schemathesis: run with cargo xtask test-rest"]
async fn a_peer_answers_as_its_document_says() {
    let network = network().await;
    hold_against_its_document(&network.peer(1).unwrap().rest_with_token().unwrap(), network.dir(), 30).await;
}
