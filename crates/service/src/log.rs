//! Where the daemon's log goes: to the journal when systemd started it, else as readable lines to stderr.
//!
//! In the journal an event of this project has its fields under their own names, in upper case (`journal` lists them);
//! those of libraries are marked by `F_`. On stderr its message says all by itself, and is shown alone.
//!
//! Owns the process's one tracing subscriber. Called once, by a daemon's `main`, before anything else logs.

use std::io::{IsTerminal, Stderr};

use rustix::fs::fstat;
use tracing::Metadata;
use tracing::field::{Field, Visit};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{self, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// The environment variable whose filter replaces the configured one.
pub const FILTER_VARIABLE: &str = "P2P_LOG";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not an `EnvFilter` directive string.
    #[error(
        "cannot use the log filter '{filter}' from {origin}: {source}; \
         write a level (error, warn, info, debug, trace) or levels per module, such as 'info,p2pd=debug'"
    )]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// Who gave it: the configuration or the environment.
        origin: &'static str,
        /// What the filter's parser says.
        source: ParseError,
    },
    /// Something else installed a subscriber earlier.
    #[error("cannot start logging: {0}; log::init is to be called once, first of all")]
    Installed(#[from] TryInitError),
}

/// Sends everything that is traced in this process, and passes `filter`, to the journal or to stderr.
///
/// `identifier` is the name that `journalctl -t` finds. [`FILTER_VARIABLE`], when set and not empty, replaces
/// `filter`.
pub fn init(identifier: &str, filter: &str) -> Result<(), LogError> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = match from_environment {
        Some(value) => parse(&value, "the environment variable P2P_LOG")?,
        None => parse(filter, "the configuration")?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let journal_error = if stderr_is_the_journal() {
        match (tracing_journald::layer(), tracing_journald::layer()) {
            (Ok(own), Ok(others)) => {
                let own = to_journal(own.with_field_prefix(None), identifier).with_filter(filter_fn(is_own));
                let others = to_journal(others, identifier).with_filter(filter_fn(|it| !is_own(it)));
                registry.with(own).with(others).try_init()?;
                return Ok(());
            }
            (Err(error), _) | (_, Err(error)) => Some(error),
        }
    } else {
        None
    };
    // Stderr goes to the journal too, only without the fields.
    let own = stderr_lines().fmt_fields(MessageAlone).with_filter(filter_fn(is_own));
    let others = stderr_lines().with_filter(filter_fn(|it| !is_own(it)));
    registry.with(own).with(others).try_init()?;
    if let Some(error) = journal_error {
        tracing::warn!(%error, "cannot reach the journal's socket ({error}); logging plain lines to stderr instead");
    }
    Ok(())
}

/// What is wrong with a filter of the configuration, if anything is.
pub fn check_filter(filter: &str) -> Option<String> {
    parse(filter, "the configuration").err().map(|error| error.to_string())
}

fn parse(filter: &str, origin: &'static str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        origin,
        source,
    })
}

/// Whether an event is one of this project's programs.
fn is_own(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    krate == "p2pd" || krate == "maestrod" || krate.starts_with("p2p_")
}

/// Information is what the journal calls informational: notices are bold there, and for what is unusual.
fn to_journal(layer: tracing_journald::Layer, identifier: &str) -> tracing_journald::Layer {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    layer.with_syslog_identifier(identifier.to_owned()).with_priority_mappings(priorities)
}

fn stderr_lines<S>() -> fmt::Layer<S, DefaultFields, Format, fn() -> Stderr> {
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    fmt::layer().with_writer(std::io::stderr as fn() -> Stderr).with_ansi(colour).with_target(false)
}

/// Writes an event's message, and leaves the fields, which say the same again, to the journal.
struct MessageAlone;

impl<'writer> FormatFields<'writer> for MessageAlone {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut line = Line { writer, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    result: std::fmt::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.result = write!(self.writer, "{value:?}");
        }
    }
}

/// systemd leaves JOURNAL_STREAM in the environment even of programs whose stderr was redirected since, so the
/// variable alone proves nothing.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = fstat(std::io::stderr()) else { return false };
    names(&stream, stderr.st_dev, stderr.st_ino)
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_device_and_inode_are_the_journal() {
        assert!(names("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "8", "", "8:", "a:b", "8:1234:1"] {
            assert!(!names(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn a_bad_filter_says_which_and_from_where() {
        let message = parse("p2pd=loud", "the configuration").unwrap_err().to_string();
        assert!(message.contains("'p2pd=loud' from the configuration"), "{message}");
        assert!(message.contains("such as 'info,p2pd=debug'"), "{message}");
    }
}
