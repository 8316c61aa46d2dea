//! Commands: run to their end within a deadline, or in the background; what they said is kept.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;

use crate::interrupt;

/// Between two looks whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    /// The command, as a user would type it.
    pub(crate) command: String,
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Said {
    /// The same, where the command succeeded.
    pub(crate) fn ok(self) -> Result<Said> {
        self.exited(0)
    }

    /// The same, where the command ended with this code.
    pub(crate) fn exited(self, code: i32) -> Result<Said> {
        ensure!(self.code == code, "exit code {} and not {code}: {}", self.code, self.told());
        Ok(self)
    }

    /// The command, and all that it said.
    pub(crate) fn told(&self) -> String {
        format!("`{}` says\n{}{}", self.command, self.stdout, self.stderr)
    }

    /// Its standard output without the last line break.
    pub(crate) fn text(&self) -> &str {
        self.stdout.trim_end()
    }

    /// Its standard output as JSON: of a stream, the last document.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let last = self.stdout.lines().rfind(|line| !line.trim().is_empty());
        let last = last.with_context(|| format!("nothing is printed: {}", self.told()))?;
        serde_json::from_str(last).with_context(|| format!("`{}` prints {last}", self.command))
    }
}

/// A thread that reads all of a stream.
type Reader = JoinHandle<Vec<u8>>;

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    shown: String,
    child: Child,
    began: Instant,
    streams: Option<(Reader, Reader)>,
}

impl Running {
    /// Starts a command; `shown` is what a user would type.
    pub(crate) fn start(mut command: Command, shown: &str, input: &[u8]) -> Result<Running> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for this program, which ends its commands itself.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(mut stdin) = stdin {
            // Who does not read its input may close it.
            let _ = stdin.write_all(input);
        }
        let streams = Some((reader(stdout), reader(stderr)));
        Ok(Running { shown: shown.to_owned(), child, began: Instant::now(), streams })
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self, deadline: Duration) -> Result<Said> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            interrupt::check()?;
            if self.began.elapsed() > deadline {
                self.kill();
                let said = self.said(-1)?;
                bail!("no end within {} s: {}", deadline.as_secs_f64(), said.told());
            }
            thread::sleep(LOOK_EVERY);
        };
        self.said(status.code().unwrap_or(128 + status.signal().unwrap_or(0)))
    }

    fn said(&mut self, code: i32) -> Result<Said> {
        let took = self.began.elapsed();
        let (stdout, stderr) = self.streams.take().context("it was read already")?;
        let text = |stream: JoinHandle<Vec<u8>>| {
            let bytes = stream.join().map_err(|_| anyhow!("reading what {} says failed", self.shown))?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Said { command: self.shown.clone(), code, stdout: text(stdout)?, stderr: text(stderr)?, took })
    }

    fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn reader(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until then is what there is to tell.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Runs a program of this machine to its end, and wants its success.
pub(crate) fn here(program: &str, arguments: &[&str], deadline: Duration) -> Result<Said> {
    let shown = format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments);
    Running::start(command, &shown, b"")?.finish(deadline)?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Result<Said> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(command, script, b"in")?.finish(deadline)
    }

    #[test]
    fn what_is_said_and_how_it_ends_is_kept() {
        let said = shell("cat; echo out; echo err >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((said.code, said.text(), said.stderr.as_str()), (3, "inout", "err\n"));
        assert_eq!(shell("kill -9 $$", Duration::from_secs(10)).unwrap().code, 137);
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_its_children() {
        let error =
            shell("echo begun; sleep 1000 & wait", Duration::from_millis(100)).unwrap_err().to_string();
        assert!(error.contains("no end within 0.1 s") && error.contains("begun"), "{error}");
    }
}
