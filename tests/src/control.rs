//! `p2pctl`, run as a user would run it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may take that is not said to take longer.
const COMMAND: Duration = Duration::from_secs(120);

/// `p2pctl` for one daemon.
#[derive(Debug, Clone)]
pub struct Ctl {
    program: PathBuf,
    socket: PathBuf,
    dir: PathBuf,
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// The command, as a user would type it.
    pub command: String,
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Said {
    /// Its standard output, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same, where the command succeeded.
    ///
    /// # Errors
    /// Where it did not, with all that it said.
    pub fn ok(self) -> Result<Said> {
        self.exited(0)
    }

    /// The same, where the command ended with this code.
    ///
    /// # Errors
    /// Where it did not, with all that it said.
    pub fn exited(self, code: i32) -> Result<Said> {
        ensure!(
            self.code == code,
            "`{}` exits with {} and not {code}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.text(),
            self.stderr
        );
        Ok(self)
    }

    /// Its standard output as JSON: of a stream, the last document.
    ///
    /// # Errors
    /// Where it is none.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.text();
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        let last = last.with_context(|| format!("`{}` prints nothing: {}", self.command, self.stderr))?;
        serde_json::from_str(last).with_context(|| format!("`{}` prints {last}", self.command))
    }
}

impl Ctl {
    /// `p2pctl` for the daemon behind this socket, run in `dir`.
    pub fn new(program: &Path, socket: &Path, dir: &Path) -> Ctl {
        Ctl { program: program.to_owned(), socket: socket.to_owned(), dir: dir.to_owned() }
    }

    /// A command, to be run by the caller.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(&self.socket).args(args);
        command.current_dir(&self.dir).env_remove("P2PD_SOCKET").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Result<Said> {
        self.run_within(COMMAND, args).await
    }

    /// Runs a command that may take long.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn run_within<I: IntoIterator<Item: AsRef<OsStr>>>(
        &self,
        deadline: Duration,
        args: I,
    ) -> Result<Said> {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let command = format!("p2pctl {}", words.join(" "));
        let began = Instant::now();
        let output = self.command(&args).output();
        let Ok(output) = timeout(deadline, output).await else {
            bail!("`{command}` does not end within {deadline:?}");
        };
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        Ok(Said {
            command,
            code: output.status.code().unwrap_or(128 + signal.unwrap_or(0)),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: began.elapsed(),
        })
    }

    /// Runs a command with `--json`, and reads what it prints.
    ///
    /// # Errors
    /// Where it fails, or prints something else.
    pub async fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        self.run(["--json"].iter().chain(args)).await?.ok()?.json()
    }
}
