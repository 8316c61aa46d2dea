//! What depends on the environment or on the standard streams, in a process of its own: this test binary again, asked
//! for one of the ignored tests below.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
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

    let next = || receive(&socket);
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
    notify::finish();
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
    notify::finish();
    let is_notifier = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).is_ok_and(|name| name == "notify\n")
    };
    let is_started = std::fs::read_dir("/proc/self/task").unwrap().any(is_notifier);
    assert_eq!(is_started, std::env::var_os("NOTIFY_SOCKET").is_some());
}

#[test]
fn a_systemd_that_does_not_read_holds_nobody_up() {
    for test in ["tell_while_nobody_reads", "leave_while_nobody_reads", "be_watched_while_nobody_reads"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = child(test);
        command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "100000");
        let mut child = Daemon(command.stdout(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{test} does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{test}: {status}");
    }
}

/// The socket that is to be told, without room for a datagram.
fn full_socket() -> UnixDatagram {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    loop {
        // A new one each time: a sender has a limit of its own, and that is not to be the one that is met.
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        if let Err(error) = sender.send_to(b"FULL=1\n", &path) {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            return socket;
        }
    }
}

#[test]
#[ignore = "started by a_systemd_that_does_not_read_holds_nobody_up"]
fn tell_while_nobody_reads() {
    use p2p_service::notify;
    let socket = full_socket();
    let began = Instant::now();
    notify::ready("serving", &[("X_REST", "127.0.0.1:4321")]);
    for number in 0..1000 {
        notify::status(&number.to_string());
        notify::watchdog();
    }
    notify::reloading();
    notify::ready("serving again", &[]);
    notify::status("the newest");
    notify::watchdog();
    notify::stopping();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");

    let mut said: Vec<String> = Vec::new();
    while said.last().is_none_or(|last| last != "STOPPING=1\n") {
        let text = receive(&socket);
        if text != "FULL=1\n" {
            said.push(text);
        }
    }
    let reloading = said.remove(2);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    let expected = [
        "READY=1\nSTATUS=serving\nX_REST=127.0.0.1:4321\n",
        "WATCHDOG=1\n",
        "READY=1\nSTATUS=serving again\n",
        "STATUS=the newest\n",
        "STOPPING=1\n",
    ];
    assert_eq!(said, expected);
    notify::finish();
    notify::status("still there");
    assert_eq!(receive(&socket), "STATUS=still there\n");
}

#[test]
#[ignore = "started by a_systemd_that_does_not_read_holds_nobody_up"]
fn leave_while_nobody_reads() {
    use p2p_service::notify;
    let _socket = full_socket();
    let began = Instant::now();
    notify::ready("serving", &[]);
    notify::finish();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "there is no farewell to wait for: {took:?}");

    let began = Instant::now();
    notify::stopping();
    notify::finish();
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
#[ignore = "started by a_systemd_that_does_not_read_holds_nobody_up"]
fn be_watched_while_nobody_reads() {
    use p2p_service::health::{Health, Watchdog};
    let socket = full_socket();
    let watchdog = Watchdog::start(Health::default()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    drop(watchdog);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    // One under way and one that waits; the thread may have been about to feed once more.
    let count = fed(&socket);
    assert!((1..=3).contains(&count), "fed {count} times");
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

/// The datagrams that came within a second.
fn fed(socket: &UnixDatagram) -> usize {
    let (mut count, until) = (0, std::time::Instant::now() + Duration::from_secs(1));
    let mut buffer = [0; 512];
    while let Some(left) =
        until.checked_duration_since(std::time::Instant::now()).filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left)).unwrap();
        match socket.recv(&mut buffer) {
            Ok(len) => count += usize::from(&buffer[..len] == b"WATCHDOG=1\n"),
            Err(_) => break,
        }
    }
    count
}

/// A daemon that is started by a test, and ends with it.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already is none to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the watchdog has been fed some times from now on.
fn feeds(socket: &UnixDatagram) {
    let (mut count, began) = (0, std::time::Instant::now());
    while count < 5 {
        assert!(began.elapsed() < Duration::from_secs(20), "a healthy daemon feeds the watchdog");
        count += fed(socket);
    }
}

/// Starts a daemon whose loop gets stuck when it is told to, and gives what it wrote until it ended.
fn get_stuck(how: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (notify, log) = (dir.path().join("notify"), dir.path().join("log"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    let mut command = child("loop_until_stuck");
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "100000").env("HOW", how);
    let file = std::fs::File::create(&log).unwrap();
    let mut daemon = Daemon(command.stdin(std::process::Stdio::piped()).stderr(file).spawn().unwrap());
    feeds(&socket);
    let mut stdin = daemon.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"get stuck\n").unwrap();
    let began = std::time::Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("has stood still") {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not found out");
        fed(&socket);
    }
    // What was on its way is there by now.
    fed(&socket);
    assert_eq!(fed(&socket), 0, "a stuck daemon feeds no watchdog");
    drop(daemon);
    std::fs::read_to_string(&log).unwrap()
}

#[test]
fn a_loop_that_is_stuck_ends_the_feeding_and_is_named() {
    for how in ["waits for ever", "blocks the runtime"] {
        let log = get_stuck(how);
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("has stood still")).collect();
        assert!(
            lines.iter().any(|line| line.contains("ERROR") && line.contains("the loop 'keeper'")),
            "{log}"
        );
        // Where the runtime goes on, its other loops are well.
        assert!(how.starts_with("blocks") || lines.len() == 1, "{log}");
    }
}

#[test]
#[ignore = "started by a_loop_that_is_stuck_ends_the_feeding_and_is_named"]
fn loop_until_stuck() {
    use p2p_service::health::Watchdog;
    use p2p_service::tasks::Tasks;
    if let Err(error) = p2p_service::log::init("p2pd", "info") {
        panic!("{error}");
    }
    let blocks = std::env::var("HOW").unwrap().starts_with("blocks");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = Tasks::new();
        let _watchdog = Watchdog::start(tasks.health()).unwrap();
        let (told, mut events) = tokio::sync::mpsc::channel::<()>(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            told.blocking_send(()).unwrap();
            std::thread::park();
        });
        let patience = Duration::from_secs(2);
        let heart = tasks.heartbeat("keeper", patience);
        tasks.spawn("keeper", async move {
            loop {
                heart.beat();
                tokio::select! {
                    Some(()) = events.recv() => match blocks {
                        true => std::thread::park(),
                        false => std::future::pending().await,
                    },
                    () = heart.due() => {}
                }
            }
        });
        let heart = tasks.heartbeat("main", patience);
        loop {
            heart.beat();
            heart.due().await;
        }
    });
}

#[test]
fn a_daemon_that_was_stopped_for_a_while_is_not_called_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, log) = (dir.path().join("notify"), dir.path().join("log"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    let mut command = child("loop_until_stuck");
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "100000").env("HOW", "waits");
    let file = std::fs::File::create(&log).unwrap();
    let daemon = Daemon(command.stdin(std::process::Stdio::piped()).stderr(file).spawn().unwrap());
    feeds(&socket);
    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // As long as the loops may be silent, and more: the machine's own time is what is tested.
    while fed(&socket) > 0 {}
    fed(&socket);
    fed(&socket);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    feeds(&socket);
    drop(daemon);
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("has stood still"), "{log}");
}
