//! What a run prints: one line for each case as soon as it has ended, and at the end what failed.

use std::io::{self, Write};
use std::time::Duration;

/// How a case ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is as it should be; with a figure or a remark, where there is one.
    Good(String),
    /// It is not, and why.
    Bad(String),
}

/// One case that was run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Where: the release, or the machine that builds.
    pub(crate) place: &'static str,
    /// `group/case`.
    pub(crate) name: String,
    /// How.
    pub(crate) outcome: Outcome,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Ended {
    /// Prints its line, and what went wrong below it.
    pub(crate) fn print(&self) {
        let seconds = self.took.as_secs_f64();
        let head = |word: &str| format!("{word:6}  {:8}  {:38} {seconds:6.1} s", self.place, self.name);
        match &self.outcome {
            Outcome::Good(note) => say(format!("{}  {note}", head("ok")).trim_end()),
            Outcome::Bad(why) => say(&format!("{}\n{}", head("FAILED"), indented(why))),
        }
    }

    /// Whether it is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good(_))
    }
}

/// A line of its own.
pub(crate) fn say(text: &str) {
    // A reader that has seen enough is no failure of the test.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Something that should not be so, and fails nothing.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "warning: {text}");
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("        {line}")).collect::<Vec<_>>().join("\n")
}
