//! Why a command did not do what was asked: how it exits, what failed, and what the user can do.

use std::io;

use p2p_proto::problem::Problem;
use serde::Serialize;

use crate::exit::Exit;

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    code: String,
    message: String,
    hints: Vec<String>,
    commands: Vec<String>,
}

/// A failure under `--json`: one object on standard error.
#[derive(Serialize)]
pub(crate) struct FailureBody<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hints: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    commands: &'a [String],
    exit: u8,
}

impl Failure {
    /// A failure; `code` is stable and in kebab-case, as in the daemon's problems.
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            code: code.to_owned(),
            message: message.into(),
            hints: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// An end of which the user knows already, or that is none of their concern.
    pub(crate) fn quiet(exit: Exit) -> Failure {
        Failure::new(exit, "", "")
    }

    /// The same, with something that the user can do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// The same, with one more of the commands that help, in their order.
    #[must_use]
    pub(crate) fn command(mut self, command: impl Into<String>) -> Failure {
        self.commands.push(command.into());
        self
    }

    /// What the daemon said.
    pub(crate) fn from_problem(problem: Problem) -> Failure {
        let exit = Exit::of_problem(&problem.code, problem.status);
        let message = if problem.detail.is_empty() { problem.title } else { problem.detail };
        let hints = problem.hint.into_iter().collect();
        Failure { exit, code: problem.code, message, hints, commands: Vec::new() }
    }

    /// Writing to standard output failed. A reader that has seen enough (`p2pctl list | head`) is no failure.
    pub(crate) fn output(err: &io::Error) -> Failure {
        match err.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(Exit::Done),
            _ => Failure::disk("Cannot write to standard output", err),
        }
    }

    /// A file of the user cannot be written.
    pub(crate) fn disk(what: &str, err: &io::Error) -> Failure {
        use io::ErrorKind as Kind;
        match err.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => {
                Failure::new(Exit::Disk, "disk-full", format!("{what}: the disk is full"))
                    .hint("make room, or name a path on another disk")
            }
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
                Failure::new(Exit::Disk, "disk-not-writable", format!("{what}: {}", text(err)))
                    .hint("name a path that you may write")
            }
            _ => Failure::new(Exit::Failed, "io", format!("{what}: {}", text(err))),
        }
    }

    /// How the command exits.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// What failed, and why; empty where there is nothing to say.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The commands that help, in their order.
    pub(crate) fn commands(&self) -> &[String] {
        &self.commands
    }

    /// As it is written under `--json`.
    pub(crate) fn body(&self) -> FailureBody<'_> {
        FailureBody {
            code: &self.code,
            detail: &self.message,
            hints: &self.hints,
            commands: &self.commands,
            exit: self.exit.code(),
        }
    }
}

/// The operating system's words, without its error number.
pub(crate) fn text(err: &io::Error) -> String {
    let text = err.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
