//! Serving, who calls, and the guard of local interfaces.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use p2p_service::bearer;
use p2p_service::http::{LocalOnly, UnixCaller, local_only_guard, serve, with_fallbacks};
use p2p_service::listen::{tcp, unix};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::problem::read;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_unix_caller_is_known_by_the_kernels_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let listener = unix(&path, 0o600).unwrap();
    let app = Router::new()
        .route("/", get(async |ConnectInfo(caller): ConnectInfo<UnixCaller>| format!("{caller:?}")));
    let token = CancellationToken::new();
    let server = tokio::spawn(serve(listener, app, token.clone()));
    let us = UnixCaller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: Some(rustix::process::getpid().as_raw_pid()),
    };
    assert_eq!(ask(UnixStream::connect(&path).await.unwrap()).await, format!("{us:?}"));
    token.cancel();
    timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_under_way_are_answered_before_the_end_and_new_ones_refused() {
    let listener = tcp("REST", "[rest] listen", "127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (handler_begun, handler_go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    let app = Router::new().route(
        "/",
        get(async move || {
            handler_begun.notify_one();
            handler_go_on.notified().await;
            "done"
        }),
    );
    let token = CancellationToken::new();
    let server = tokio::spawn(serve(listener, app, token.clone()));
    let request = tokio::spawn(ask(TcpStream::connect(address).await.unwrap()));
    timeout(Duration::from_secs(5), begun.notified()).await.unwrap();
    token.cancel();
    timeout(Duration::from_secs(5), async { while TcpStream::connect(address).await.is_ok() {} })
        .await
        .unwrap();
    assert!(!server.is_finished(), "a request is still under way");
    go_on.notify_one();
    assert_eq!(request.await.unwrap(), "done");
    timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn only_local_names_and_local_pages_pass_the_guard() {
    let guard = from_fn_with_state(LocalOnly::new(["Nas.lan"]), local_only_guard);
    let app = Router::new().route("/", get(async || "welcome")).layer(guard);
    let hosts = "foreign-host";
    let origins = "foreign-origin";
    let table: &[(&[&str], &[&str], &str)] = &[
        (&["localhost"], &[], ""),
        (&["LocalHost:9000"], &[], ""),
        (&["127.0.0.1:9000"], &[], ""),
        (&["[::1]:9000"], &[], ""),
        (&["nas.lan:80"], &[], ""),
        (&["localhost"], &["http://localhost:3000"], ""),
        (&["localhost"], &["https://[::1]"], ""),
        (&[], &[], hosts),
        (&["evil.example"], &[], hosts),
        (&["evil.example:9000"], &["http://localhost"], hosts),
        (&["localhost.evil.example"], &[], hosts),
        (&["127.0.0.1.nip.io"], &[], hosts),
        (&["evil@localhost"], &[], hosts),
        (&["localhost@evil.example"], &[], hosts),
        (&["localhost", "evil.example"], &[], hosts),
        (&["192.168.1.7:9000"], &[], hosts),
        (&["::1"], &[], hosts),
        (&[""], &[], hosts),
        (&["localhost"], &["https://evil.example"], origins),
        (&["localhost"], &["http://localhost.evil.example"], origins),
        (&["localhost"], &["http://localhost@evil.example"], origins),
        (&["localhost"], &["null"], origins),
        (&["localhost"], &["file://localhost"], origins),
        (&["localhost"], &["localhost"], origins),
        (&["localhost"], &["http://localhost", "https://evil.example"], origins),
    ];
    for (hosts, origins, code) in table {
        let mut request = Request::builder().uri("/");
        for host in *hosts {
            request = request.header(header::HOST, *host);
        }
        for origin in *origins {
            request = request.header(header::ORIGIN, *origin);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, content_type, document) = read(response).await;
        if code.is_empty() {
            assert_eq!(status, StatusCode::OK, "{hosts:?} {origins:?}");
        } else {
            assert_eq!(status, StatusCode::FORBIDDEN, "{hosts:?} {origins:?}");
            assert_eq!(
                (content_type.as_str(), document["code"].as_str()),
                ("application/problem+json", Some(*code))
            );
            assert!(document["hint"].is_string());
        }
    }
    // What a proxy or an HTTP/2 client says in the request line counts like a Host header.
    for (uri, status) in [("http://localhost:1/", 200), ("http://evil.example/", 403)] {
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status().as_u16(), status, "{uri}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_and_missing_tokens_are_problems() {
    let app = with_fallbacks(Router::new().route("/files", get(async || "files")));
    let ask = async |app: &Router, method: &str, uri: &str, token: &str| {
        let mut request = Request::builder().method(method).uri(uri);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, token);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let headers = response.headers().clone();
        let (status, _, document) = read(response).await;
        (status.as_u16(), headers, document["code"].as_str().unwrap_or_default().to_owned())
    };
    let (status, _, code) = ask(&app, "GET", "/flies", "").await;
    assert_eq!((status, code.as_str()), (404, "unknown-path"));
    let (status, headers, code) = ask(&app, "DELETE", "/files", "").await;
    assert_eq!((status, code.as_str()), (405, "method-not-allowed"));
    assert_eq!(headers[header::ALLOW], "GET,HEAD");

    let app = app.layer(from_fn_with_state(Arc::<str>::from("s3cret"), bearer::require));
    let (status, headers, code) = ask(&app, "GET", "/files", "Bearer guess1").await;
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(ask(&app, "GET", "/files", "Bearer s3cret").await.0, 200);
}
