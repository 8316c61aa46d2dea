//! How the command ends: its exit codes, and which problem of the daemon is which.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 3 | not found: no such file, peer, friend or transfer |
//! | 4 | p2pd does not answer |
//! | 5 | refused: permission, admission or identity |
//! | 6 | needs a choice: several contents, several peers, a name that is taken |
//! | 7 | the disk: full or not writable |
//! | 8 | in part: files were left out, or not all could be asked |
//! | 130 | interrupted (Ctrl-C) |
//!
//! `doctor` says by its exit code what it found, as such programs do: 0 all is well, 1 there are warnings, 2 there are
//! problems.
//!
//! These are an interface: scripts compare them. A code may be added, none changes its meaning.

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done,
    /// It failed, for a reason that no other code names.
    Failed,
    /// The command line does not make sense.
    Usage,
    /// There is no such file, peer, friend or transfer.
    NotFound,
    /// The daemon does not answer.
    Unreachable,
    /// Someone does not allow it, or is not who they should be.
    Refused,
    /// There are several answers, and the user must choose.
    Choice,
    /// The disk is full or not writable.
    Disk,
    /// What could be done is done, and it may not be all.
    Partial,
    /// Ctrl-C.
    Interrupted,
    /// `doctor` found something that should be done, and nothing that is broken.
    Warnings,
    /// `doctor` found something that is broken.
    Problems,
}

impl Exit {
    const ALL: [Exit; 10] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::Unreachable,
        Exit::Refused,
        Exit::Choice,
        Exit::Disk,
        Exit::Partial,
        Exit::Interrupted,
    ];

    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Unreachable => 4,
            Exit::Refused => 5,
            Exit::Choice => 6,
            Exit::Disk => 7,
            Exit::Partial => 8,
            Exit::Interrupted => 130,
            Exit::Warnings => 1,
            Exit::Problems => 2,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "wrong usage",
            Exit::NotFound => "not found: no such file, peer, friend or transfer",
            Exit::Unreachable => "p2pd does not answer",
            Exit::Refused => "refused: permission, admission or identity",
            Exit::Choice => "needs a choice: several contents, several peers, a name that is taken",
            Exit::Disk => "the disk: full or not writable",
            Exit::Partial => "in part: files were left out, or not all could be asked",
            Exit::Interrupted => "interrupted (Ctrl-C)",
            Exit::Warnings => "doctor: there are warnings",
            Exit::Problems => "doctor: there are problems",
        }
    }

    /// The exit code for a problem document. Its `code` decides; its HTTP status only where the code is a newer one.
    pub(crate) fn of_problem(code: &str, status: u16) -> Exit {
        match code {
            "not-found" | "peer-unknown" | "friend-unknown" | "transfer-unknown" => Exit::NotFound,
            "unproven-refused" | "not-admitted" | "maestro-changed" | "identity-changed" => Exit::Refused,
            "several-contents" | "peer-ambiguous" | "name-taken" | "share-name-taken" => Exit::Choice,
            "disk-full" | "disk-not-writable" => Exit::Disk,
            _ => match status {
                400 | 414 | 422 => Exit::Usage,
                401 | 403 => Exit::Refused,
                404 => Exit::NotFound,
                507 => Exit::Disk,
                _ => Exit::Failed,
            },
        }
    }
}

/// The table of exit codes, for `--help`.
pub(crate) fn help() -> String {
    let mut text = "Exit codes:".to_owned();
    for exit in Exit::ALL {
        text.push_str(&format!("\n  {:>3}  {}", exit.code(), exit.meaning()));
    }
    text.push_str("\nOf doctor: 0 all is well, 1 there are warnings, 2 there are problems.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_problem_decides_before_its_status() {
        assert_eq!(Exit::of_problem("maestro-changed", 409), Exit::Refused);
        assert_eq!(Exit::of_problem("name-taken", 409), Exit::Choice);
        assert_eq!(Exit::of_problem("configured", 409), Exit::Failed);
        assert_eq!(Exit::of_problem("from-a-newer-daemon", 404), Exit::NotFound);
    }

    #[test]
    fn help_and_the_table_above_say_the_same() {
        let documented = include_str!("exit.rs");
        for exit in Exit::ALL {
            let row = format!("//! | {} | {} |", exit.code(), exit.meaning());
            assert!(documented.lines().any(|line| line == row), "no row {row}");
        }
    }
}
