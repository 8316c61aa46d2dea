//! Reading a daemon's TOML configuration, with errors that an administrator can act upon: all of them at once, each with
//! its key and its line.
//!
//! Called by a daemon's `main`, at start and for every reload. What the keys are is the daemon's affair: its types
//! refuse unknown keys with `#[serde(deny_unknown_fields)]`, and what the types cannot say it tells [`Sources::check`].
//!
//! A key is written as its path: `transfers.running`; of the tables in an array, `share[2].path`, or `share[docs].path`
//! where the table has a name.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

mod changes;
mod document;
mod suggest;
mod view;

pub use changes::{Change, Reloaded, changes, log_refused};
pub use document::Document;
pub use view::entries;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error(
        "there is no configuration file {}; create it (the samples show all keys) or name another with --config",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error(
        "cannot read the configuration {}: {source}; correct that or name another file with --config",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML, or not what the daemon expects.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl ConfigError {
    /// Each thing that is wrong, in one line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Invalid(problems) => problems.0.iter().map(Problem::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

/// All that is wrong with a configuration, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `p2pd.toml:4:8`, a flag, or the file where nothing nearer is known.
    pub at: Option<String>,
    /// The line, for the order; 0 where there is none.
    line: usize,
    /// The key, or the table around it.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(key) = &self.key {
            write!(f, " (in {key})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// What was read of a file: a value without what is wrong, and what is wrong.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What the file says; where it says something wrong, the default.
    pub value: T,
    /// Where it says it.
    pub document: Document,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Reads the file at `path` as TOML into a `T`.
///
/// # Errors
/// Where it cannot be read, or any of it is wrong.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let loaded = read(path)?;
    if loaded.problems.is_empty() { Ok(loaded.value) } else { Err(Problems(loaded.problems).into()) }
}

/// Reads as much as can be read of the file at `path`.
///
/// # Errors
/// Where nothing can be.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Loaded<T>, ConfigError> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), source },
    })?;
    let (found, mut problems) = document::read(path, bytes);
    problems.sort_by_key(|problem| problem.line);
    match found {
        Some((value, document)) => Ok(Loaded { value, document, problems }),
        None => Err(Problems(problems).into()),
    }
}

/// `share[2].path` as `share.path`.
fn without_places(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// Where a daemon's configuration comes from: a file, if there is one, and flags over it.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file.
    pub document: Option<Document>,
    /// Keys that flags have replaced, with the flags.
    pub flags: Vec<(&'static str, &'static str)>,
}

impl Sources {
    /// Puts together what is wrong in the file (`problems`) and what its values cannot mean (`found`: key and what is
    /// wrong with it), and says where each is.
    ///
    /// # Errors
    /// Where anything is wrong.
    pub fn check(&self, mut problems: Vec<Problem>, found: Vec<(String, String)>) -> Result<(), Problems> {
        // What was left out as wrong has its default now, for which its table is not to be blamed again.
        let told: Vec<String> = problems.iter().filter_map(|problem| problem.key.clone()).collect();
        let is_told = |key: &str| {
            let within =
                |told: &String| told.strip_prefix(key).is_some_and(|rest| rest.starts_with(['[', '.']));
            told.iter().any(|told| key == told || within(told))
        };
        let typed = problems.len();
        for (key, what) in found {
            let problem = self.problem(&key, what);
            // In the path that a type's error has, arrays have no places.
            let same = |told: &Problem| told.line == problem.line && told.key == Some(without_places(&key));
            if !is_told(&key) && (problem.line == 0 || !problems[..typed].iter().any(same)) {
                problems.push(problem);
            }
        }
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    fn problem(&self, key: &str, what: String) -> Problem {
        let key = key.to_owned();
        if let Some((_, flag)) = self.flags.iter().find(|(flagged, _)| *flagged == key) {
            return Problem { at: Some((*flag).to_owned()), line: 0, key: None, what, hint: None };
        }
        let (at, line) = match &self.document {
            Some(document) => document.place(&key),
            None => (None, 0),
        };
        Problem { at, line, key: Some(key), what, hint: None }
    }
}
