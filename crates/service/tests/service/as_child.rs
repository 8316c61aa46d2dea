//! What depends on the environment or on the standard streams, in a process of its own: this test binary again, asked
//! for one of the ignored tests below.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Output};
use std::time::Duration;

fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", &format!("as_child::{test}")]);
    for variable in
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "P2P_LOG", "JOURNAL_STREAM", "NO_COLOR"]
    {
        command.env_remove(variable);
    }
    command
}

fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    output
}

#[test]
fn systemd_is_told_in_one_datagram_each() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

    let mut command = child("tell_systemd");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    succeed(command);

    let next = || {
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    assert_eq!(next(), "READY=1\nSTATUS=serving 2 shares\nX_REST=127.0.0.1:4321\n");
    assert_eq!(next(), "STATUS=a READY=1\n", "a line break in a status must not become an assignment");
    let reloading = next();
    let clock = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(clock.trim().parse::<u64>().unwrap() > 0);
    assert_eq!(next(), "WATCHDOG=1\n");
    assert_eq!(next(), "STOPPING=1\n");
}

#[test]
#[ignore = "started by systemd_is_told_in_one_datagram_each"]
fn tell_systemd() {
    use p2p_service::notify;
    notify::ready("serving 2 shares", &[("X_REST", "127.0.0.1:4321")]);
    notify::status("a\nREADY=1");
    notify::reloading();
    notify::watchdog();
    notify::stopping();
    assert_eq!(notify::watchdog_interval(), Some(Duration::from_millis(1500)));
}

#[test]
fn without_systemd_nothing_happens() {
    succeed(child("tell_nobody"));
    let mut command = child("tell_nobody");
    // Somebody else's watchdog, and a socket that is gone.
    command
        .env("WATCHDOG_USEC", "3000000")
        .env("WATCHDOG_PID", "1")
        .env("NOTIFY_SOCKET", "/nonexistent/notify");
    succeed(command);
}

#[test]
#[ignore = "started by without_systemd_nothing_happens"]
fn tell_nobody() {
    use p2p_service::notify;
    notify::ready("serving", &[]);
    notify::stopping();
    assert_eq!(notify::watchdog_interval(), None);
}

#[test]
fn the_socket_that_systemd_passes_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    // Systemd's protocol names the process, whose number only the shell knows before it becomes the test.
    let test = child("use_the_passed_socket");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ exec \"$@\" 3<&0", "sh"])
        .arg(test.get_program())
        .args(test.get_args())
        .env("LISTEN_FDS", "1")
        .stdin(OwnedFd::from(listener));
    let _waiting = UnixStream::connect(&path).unwrap();
    succeed(shell);
}

#[tokio::test]
#[ignore = "started by the_socket_that_systemd_passes_is_used_once"]
async fn use_the_passed_socket() {
    let listener = p2p_service::listen::passed_unix().unwrap();
    assert!(p2p_service::listen::passed_unix().is_none());
    tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.unwrap().unwrap();
}

#[test]
fn the_log_is_readable_lines_when_stderr_is_not_the_journal() {
    let mut command = child("log_something");
    // Left over from whoever started the terminal.
    command.env("JOURNAL_STREAM", "1:1");
    let stderr = String::from_utf8(succeed(command).stderr).unwrap();
    let line = stderr.lines().find(|line| line.contains("listening")).unwrap();
    assert!(line.contains(" INFO ") && line.contains("port=9000"), "{line}");
    assert!(!stderr.contains('\u{1b}'), "no colour into a pipe: {stderr:?}");
    assert!(!stderr.contains("details"), "{stderr}");

    let mut command = child("log_something");
    command.env("P2P_LOG", "debug");
    assert!(String::from_utf8(succeed(command).stderr).unwrap().contains("details"));

    let mut command = child("log_something");
    command.env("P2P_LOG", "p2pd=loud");
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("'p2pd=loud' from the environment variable P2P_LOG"), "{stderr}");
}

#[test]
#[ignore = "started by the_log_is_readable_lines_when_stderr_is_not_the_journal"]
fn log_something() {
    if let Err(error) = p2p_service::log::init("p2pd", "info") {
        panic!("{error}");
    }
    tracing::info!(port = 9000, "listening");
    tracing::debug!("details");
}
