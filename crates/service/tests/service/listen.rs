//! Listeners on real sockets, and the refusals an administrator meets.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::Path;

use p2p_service::listen::{ListenError, SocketFile, tcp, unix};
use tokio::net::TcpStream;

const KEY: &str = "[rest] listen";

#[tokio::test]
async fn a_port_in_use_says_for_what_and_how_to_find_the_other() {
    let first = tcp("REST", KEY, "127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let in_use = |host: &str| {
        format!(
            "cannot listen on {host}:{port} for REST: the port is in use by another program \
             (see it with: ss -ltnp 'sport = :{port}'); stop it or change [rest] listen"
        )
    };
    for host in ["127.0.0.1", "localhost"] {
        let error = tcp("REST", KEY, &format!("{host}:{port}")).await.unwrap_err();
        assert_eq!(error.to_string(), in_use(host));
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_are_refused_with_the_key() {
    for bad in [
        "",
        "9000",
        ":9000",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:http",
        "::1:9000",
        "[::]",
        "[]:1",
        "a:70000",
    ] {
        let error = tcp("REST", KEY, bad).await.unwrap_err();
        assert!(matches!(error, ListenError::Syntax { .. }), "{bad}: {error}");
        assert!(error.to_string().contains("write [rest] listen like 127.0.0.1:9000"), "{error}");
    }
    // TEST-NET-1 is nobody's.
    let error = tcp("REST", KEY, "192.0.2.1:9000").await.unwrap_err();
    assert!(matches!(error, ListenError::NotAvailable { .. }), "{error}");
    let error = tcp("REST", KEY, "nobody.invalid:9000").await.unwrap_err();
    assert!(matches!(error, ListenError::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn the_ipv6_wildcard_is_for_ipv4_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // A machine without IPv6.
    }
    let listener = tcp("REST", KEY, "[::]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("run/p2pd");
    let path = parent.join("control");
    let listener = unix(&path, 0o660).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);

    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).is_err());

    let listener = unix(&path, 0o600).unwrap();
    let error = unix(&path, 0o600).unwrap_err();
    assert!(matches!(error, ListenError::UnixInUse { .. }), "{error}");
    assert!(error.to_string().contains("another daemon answers there"), "{error}");
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_daemon_too_busy_to_accept_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    for _ in 0..2 {
        assert!(matches!(unix(&path, 0o600), Err(ListenError::UnixInUse { .. })));
    }
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &dir.path().to_owned()] {
        assert!(matches!(unix(path, 0o600), Err(ListenError::NotASocket { .. })));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(matches!(unix(&file.join("below"), 0o600), Err(ListenError::Unix { .. })));
}

#[tokio::test]
async fn a_path_too_long_says_by_how_much() {
    let dir = tempfile::tempdir().unwrap();
    let room = 107 - dir.path().as_os_str().as_bytes().len() - 1;
    unix(&dir.path().join("s".repeat(room)), 0o600).unwrap();
    let error = unix(&dir.path().join("s".repeat(room + 3)), 0o600).unwrap_err();
    assert!(error.to_string().contains("3 bytes too long for a Unix socket"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_name_is_removed_at_the_end_unless_another_daemon_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let first = unix(&path, 0o600).unwrap();
    let file = SocketFile::guard(&path).unwrap();
    drop(first);
    let _second = unix(&path, 0o600).unwrap();
    drop(file);
    assert!(path.exists(), "the second daemon's name stays");
    drop(SocketFile::guard(&path).unwrap());
    assert!(!path.exists());
    assert!(SocketFile::guard(Path::new("/nonexistent/control")).is_err());
}
