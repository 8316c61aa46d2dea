//! What an examination of a program finds: one check per line, each with a verdict and what to do. `p2pctl doctor` and
//! `maestrod doctor` print it, and exit by its worst verdict.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It could not be examined, or there is nothing to examine. Counts as neither well nor ill.
    Skipped,
    /// As it should be.
    Ok,
    /// It works, and something should be done all the same.
    Warning,
    /// It does not work.
    Problem,
}

impl Verdict {
    /// The word that people and programs read.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Skipped => "skipped",
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        }
    }

    /// The exit code of a program whose worst verdict this is: 0 all well, 1 warnings, 2 problems.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Skipped | Verdict::Ok => 0,
            Verdict::Warning => 1,
            Verdict::Problem => 2,
        }
    }
}

/// One thing that was examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was examined; stable, such as `maestro` or `share docs`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do, step by step; commands stand alone. Empty where there is nothing to do.
    #[serde(default)]
    pub advice: Vec<String>,
}

impl Check {
    /// A check without advice.
    pub fn new(name: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Check {
        Check { name: name.into(), verdict, found: found.into(), advice: Vec::new() }
    }

    /// It is as it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Ok, found)
    }

    /// It works, and something should be done all the same.
    pub fn warning(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Warning, found)
    }

    /// It does not work.
    pub fn problem(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Problem, found)
    }

    /// It could not be examined; `found` says why.
    pub fn skipped(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Skipped, found)
    }

    /// The same, with one more thing to do.
    #[must_use]
    pub fn advise(mut self, step: impl Into<String>) -> Check {
        self.advice.push(step.into());
        self
    }
}

/// Everything that was examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// What was examined, in the order in which to read it.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Of these checks.
    pub fn of(checks: Vec<Check>) -> Diagnosis {
        let worst = checks.iter().map(|check| check.verdict).max();
        Diagnosis { verdict: worst.unwrap_or(Verdict::Skipped).max(Verdict::Ok), checks }
    }

    /// How it ends, in one line.
    pub fn summary(&self) -> String {
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let told = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        match (count(Verdict::Problem), count(Verdict::Warning)) {
            (0, 0) => "All is well.".to_owned(),
            (0, warnings) => format!("{}.", told(warnings, "warning")),
            (problems, 0) => format!("{}.", told(problems, "problem")),
            (problems, warnings) => {
                format!("{}, {}.", told(problems, "problem"), told(warnings, "warning"))
            }
        }
    }
}

/// The release that a version belongs to: programs talk to those of their own and of the previous one.
pub fn release_of(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split(['.', '-', '+', '~']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides() {
        let check = |verdict| Check::new("x", verdict, "y");
        let worst = |verdicts: &[Verdict]| {
            let diagnosis = Diagnosis::of(verdicts.iter().copied().map(check).collect());
            (diagnosis.verdict.exit_code(), diagnosis.summary())
        };
        use Verdict::{Ok, Problem, Skipped, Warning};
        assert_eq!(worst(&[]), (0, "All is well.".to_owned()));
        assert_eq!(worst(&[Skipped, Ok]), (0, "All is well.".to_owned()));
        assert_eq!(worst(&[Warning, Ok, Warning]), (1, "2 warnings.".to_owned()));
        assert_eq!(worst(&[Ok, Problem, Warning, Skipped]), (2, "1 problem, 1 warning.".to_owned()));
        assert_eq!(Diagnosis::of(vec![check(Skipped)]).verdict, Ok);
    }

    #[test]
    fn a_release_is_two_numbers() {
        assert_eq!(release_of("0.1.0"), release_of("0.1.7-2~deb12"));
        assert_ne!(release_of("0.1.0"), release_of("0.2.0"));
        assert_eq!(release_of("nonsense"), None);
    }
}
