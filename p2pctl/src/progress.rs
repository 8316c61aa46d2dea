//! How a fetch or a send goes on: a bar on a terminal, JSON for a program, and nothing but pauses for everything else.

use indicatif::{ProgressBar, ProgressStyle};
use p2p_proto::control::{SourceState, Transfer, TransferState};

use crate::client::Answer;
use crate::failure::Failure;
use crate::output::{Output, count, duration, plain, rate, size, size_or_unknown};

/// The bar of one file.
pub(crate) struct Progress {
    out: Output,
    bar: Option<ProgressBar>,
    told: Option<String>,
}

impl Progress {
    /// Nothing is drawn before the first step.
    pub(crate) fn new(out: Output) -> Progress {
        Progress { out, bar: None, told: None }
    }

    /// A transfer went on.
    pub(crate) fn transfer(&mut self, answer: &Answer<Transfer>) -> Result<(), Failure> {
        let transfer = &answer.value;
        if self.out.json() {
            return self.out.raw(&answer.raw);
        }
        self.tell_pause(transfer);
        if !transfer.state.is_ended() {
            self.draw(&transfer.name, transfer.done_bytes, transfer.size, transfer_message(transfer));
        }
        Ok(())
    }

    /// Bytes of a file went out, or were taken.
    pub(crate) fn bytes(&mut self, name: &str, done: u64, of: Option<u64>, doing: &str) {
        self.draw(name, done, of, format!("{}  {doing}", amount(done, of)));
    }

    /// The daemon is away.
    pub(crate) fn lost(&mut self) {
        self.tell("p2pd does not answer; waiting for it to come back".to_owned());
        if let Some(bar) = &self.bar {
            bar.set_message("p2pd does not answer");
        }
    }

    /// What the bar is about has changed.
    pub(crate) fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(plain(what));
            bar.tick();
        }
    }

    /// Takes the bar away, so that lines can be written where it was.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn tell_pause(&mut self, transfer: &Transfer) {
        let pause = match transfer.state {
            TransferState::Waiting => "waiting for a source",
            TransferState::Paused => "paused",
            _ => return self.told = None,
        };
        let reason = transfer.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        self.tell(format!("{}: {pause}{reason}", transfer.name));
    }

    fn tell(&mut self, text: String) {
        if self.told.as_ref() == Some(&text) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.note(&text)),
            None => self.out.note(&text),
        }
        self.told = Some(text);
    }

    fn draw(&mut self, name: &str, done: u64, of: Option<u64>, message: String) {
        if !self.out.progress() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::no_length();
            bar.set_prefix(short_name(name, if columns() < 100 { 14 } else { 28 }));
            bar
        });
        match of {
            Some(len) if bar.length() != Some(len) => {
                bar.set_style(style(&with_bar(&bar.prefix())));
                bar.set_length(len);
            }
            None if bar.length().is_some() || bar.position() == 0 => {
                bar.set_style(style("{prefix} {spinner} {wide_msg}"));
                bar.unset_length();
            }
            _ => {}
        }
        bar.set_message(message);
        bar.set_position(done);
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The template of a bar that leaves its message room: the numbers tell more than the bar does.
fn with_bar(name: &str) -> String {
    const MESSAGE: usize = 54;
    let columns =
        rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col));
    match columns.saturating_sub(name.chars().count() + MESSAGE).min(40) {
        0..4 => "{prefix}  {wide_msg}".to_owned(),
        width => format!("{{prefix}} {{bar:{width}}} {{wide_msg}}"),
    }
}

fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col))
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a slip in this file; the plain bar is no reason to fail a fetch.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▉▊▋▌▍▎▏ ")
}

/// The end of a long name tells more than its beginning.
fn short_name(name: &str, room: usize) -> String {
    let name = plain(name);
    let len = name.chars().count();
    match len > room {
        true => format!("…{}", name.chars().skip(len - room + 1).collect::<String>()),
        false => name,
    }
}

fn amount(done: u64, of: Option<u64>) -> String {
    match of {
        Some(0) => size(0),
        Some(len) => format!("{}% of {}", done.saturating_mul(100) / len, size(len)),
        None => format!("{} of {}", size(done), size_or_unknown(of)),
    }
}

fn transfer_message(transfer: &Transfer) -> String {
    let mut amount = amount(transfer.done_bytes, transfer.size);
    if let Some(files) = transfer.files {
        amount.push_str(&format!("  {}/{files} files", transfer.files_done.unwrap_or_default()));
    }
    match transfer.state {
        TransferState::Running => {
            let left = transfer.eta_secs.map(|secs| format!("  {} left", duration(secs))).unwrap_or_default();
            let active = transfer.sources.iter().filter(|source| source.state == SourceState::Active).count();
            let sources = count(active as u64, "source", "sources");
            format!("{amount}  {}{left}  {sources}", rate(transfer.rate))
        }
        TransferState::Waiting => format!("{amount}  waiting for a source"),
        TransferState::Paused => format!("{amount}  paused"),
        TransferState::Queued => format!("{amount}  waits for its turn"),
        TransferState::Done | TransferState::Failed | TransferState::Cancelled => amount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(short_name("archivo1.txt", 14), "archivo1.txt");
        let short = short_name("a/very/long/directory/with/archivo1.txt", 24);
        assert_eq!(short.chars().count(), 24);
        assert!(short.starts_with('…') && short.ends_with("/archivo1.txt"), "{short}");
    }

    #[test]
    fn amounts_are_shares_of_the_whole() {
        assert_eq!(amount(512 << 20, Some(1 << 30)), "50% of 1.0 GiB");
        assert_eq!(amount(5, None), "5 B of ?");
        assert_eq!(amount(0, Some(0)), "0 B");
    }
}
