//! Runs the real program.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::daemon::Daemon;

/// How the program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts what is on standard output, to the letter.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Ended {
        assert_eq!(self.stdout, text, "{self:#?}");
        self
    }

    /// Asserts what is on standard error, among other things.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Ended {
        assert!(self.stderr.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Asserts that standard error is empty.
    #[track_caller]
    pub(crate) fn says_nothing(self) -> Ended {
        assert_eq!(self.stderr, "", "{self:#?}");
        self
    }

    /// Its standard output as JSON, one value per line.
    #[track_caller]
    pub(crate) fn values(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The program for this socket, without the settings of whoever runs the tests.
pub(crate) fn p2pctl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pctl"));
    command.args(args).env_clear().env("P2PD_SOCKET", socket).env("TZ", "UTC").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(daemon: &Daemon, args: &[&str]) -> Ended {
    Ended::of(p2pctl(&daemon.socket(), args).output().unwrap())
}

/// Runs it with something on its standard input.
pub(crate) fn run_with_input(daemon: &Daemon, args: &[&str], input: &[u8]) -> Ended {
    let mut child = p2pctl(&daemon.socket(), args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ended::of(child.wait_with_output().unwrap())
}

/// Presses Ctrl-C, and waits for the end.
pub(crate) fn interrupt(child: Child) -> Ended {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    Ended::of(child.wait_with_output().unwrap())
}
