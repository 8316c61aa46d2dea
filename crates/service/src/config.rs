//! Reading a daemon's TOML configuration, with errors that an administrator can act upon.
//!
//! Called by a daemon's `main`, at start and for every reload. What the keys are is the daemon's affair: its types
//! refuse unknown keys with `#[serde(deny_unknown_fields)]`.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

mod suggest;

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
    #[error(
        "{}:{line}:{column}: {what}{}{}",
        path.display(),
        key.as_ref().map(|key| format!(" (in {key})")).unwrap_or_default(),
        hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// The dotted path of the key, or of the table around it, where the parser knows it.
        key: Option<String>,
        /// What is wrong.
        what: String,
        /// What may have been meant.
        hint: Option<String>,
    },
}

/// Reads the file at `path` as TOML into a `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let bytes = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), source },
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let readable = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let what = "this is not UTF-8 text".to_owned();
        let hint = Some("save the file as UTF-8".to_owned());
        invalid(path, &readable, valid, None, what, hint)
    })?;
    toml::from_str(&text).map_err(|error| explain(path, &text, error))
}

fn explain(path: &Path, text: &str, mut error: toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |Range { start, .. }| start);
    let what = error.message().trim().replace('\n', ", ").replace('`', "'");
    let hint = suggest::hint(&what);
    // Without its input the error shows, instead of the line, the path of the key; there is no other way to ask.
    error.set_input(None);
    let key = error
        .to_string()
        .lines()
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`').map(str::to_owned));
    invalid(path, text, offset, key, what, hint)
}

fn invalid(
    path: &Path,
    text: &str,
    offset: usize,
    key: Option<String>,
    what: String,
    hint: Option<String>,
) -> ConfigError {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigError::Invalid {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        what,
        hint,
    }
}
