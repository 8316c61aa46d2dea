//! What the user sees: lines and tables on standard output, warnings and failures on standard error, JSON for programs.
//!
//! Names come from other machines: whatever would move the cursor or change colours is made visible before it is shown.

use std::io::{self, IsTerminal as _, Write as _};

use p2p_proto::control::PeerName;
use serde::Serialize;

use crate::cli::Color;
use crate::exit::Exit;
use crate::failure::Failure;

mod table;
mod units;

pub(crate) use table::{Cell, Column, Table, Tone};
pub(crate) use units::{age, date, duration, now_ms, rate, size, size_or_unknown};

/// Where a command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    /// Decides about colour once for the whole program.
    pub(crate) fn new(json: bool, color: Color) -> Output {
        match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
        Output { json, terminal: io::stdout().is_terminal() }
    }

    /// Whether the user is a program.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether standard output is a terminal.
    pub(crate) fn terminal(&self) -> bool {
        self.terminal
    }

    /// Whether there is a terminal to draw progress on.
    pub(crate) fn progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// One JSON document, as it was received, on a line of its own.
    pub(crate) fn raw(&self, document: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(document).and_then(|()| stdout.write_all(b"\n"));
        written.and_then(|()| stdout.flush()).map_err(|err| Failure::output(&err))
    }

    /// One JSON document on a line of its own.
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let document = serde_json::to_vec(value).map_err(|err| {
            Failure::new(Exit::Failed, "not-printable", format!("Cannot print the answer: {err}"))
        })?;
        self.raw(&document)
    }

    /// A part of a JSON document.
    pub(crate) fn fragment(&self, part: impl AsRef<[u8]>) -> Result<(), Failure> {
        io::stdout().lock().write_all(part.as_ref()).map_err(|err| Failure::output(&err))
    }

    /// A line for people.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        writeln!(anstream::stdout(), "{}", plain(text)).map_err(|err| Failure::output(&err))
    }

    /// A table for people.
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        writeln!(anstream::stdout(), "{table}").map_err(|err| Failure::output(&err))
    }

    /// What a user should know beside the answer. Nothing is lost if it cannot be written.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(anstream::stderr(), "{}", plain(text));
        }
    }

    /// What a user should worry about.
    pub(crate) fn warn(&self, text: &str) {
        if !self.json {
            let style = anstyle::AnsiColor::Yellow.on_default().bold();
            let _ = writeln!(anstream::stderr(), "{style}warning:{style:#} {}", plain(text));
        }
    }

    /// Says why a command failed, and gives its exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if failure.message().is_empty() {
            return failure.exit();
        }
        let mut stderr = anstream::stderr();
        if self.json {
            let body = serde_json::to_string(&failure.body()).unwrap_or_default();
            let _ = writeln!(stderr, "{body}");
            return failure.exit();
        }
        let (red, cyan) =
            (anstyle::AnsiColor::Red.on_default().bold(), anstyle::AnsiColor::Cyan.on_default().bold());
        let _ = writeln!(stderr, "{red}error:{red:#} {}", plain(failure.message()));
        for hint in failure.hints() {
            let _ = writeln!(stderr, " {cyan}hint:{cyan:#} {}", plain(hint));
        }
        for command in failure.commands() {
            let _ = writeln!(stderr, "    {}", plain(command));
        }
        failure.exit()
    }

    /// A content's hash: short for the eye, whole for everything else.
    pub(crate) fn hash(&self, content: Option<&str>) -> String {
        match content {
            Some(hash) if self.terminal => hash.chars().take(12).collect(),
            Some(hash) => hash.to_owned(),
            None => "unproven".to_owned(),
        }
    }
}

/// The text with everything made visible that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if c.is_control() || is_bidi(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Marks that reorder the text around them, so that a name reads as another.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The short form of a peer ID.
pub(crate) fn short_id(peer_id: Option<&str>) -> String {
    peer_id.map_or_else(|| "-".to_owned(), |id| id.chars().take(8).collect())
}

/// A peer, for a sentence.
pub(crate) fn peer(peer: &PeerName) -> String {
    match &peer.peer_id {
        Some(id) => format!("{} ({})", peer.name, short_id(Some(id))),
        None => peer.name.clone(),
    }
}

/// A count and its noun.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A word as the user would have to type it in a shell.
pub(crate) fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_./:,+@%=".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{202e}\r"), "a\\u{1b}[2Jb\\u{202e}\\r");
        assert_eq!(plain("año 2024 ✓"), "año 2024 ✓");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("docs/a.txt"), "docs/a.txt");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
