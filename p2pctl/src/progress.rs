//! How a fetch or a send goes on: a bar on a terminal, JSON for a program, and nothing but pauses for everything else.

use indicatif::{ProgressBar, ProgressStyle};
use p2p_proto::control::{SourceState, Transfer, TransferState};

use crate::client::Answer;
use crate::failure::Failure;
use crate::output::{Output, count, duration, plain, rate, size, size_or_unknown};

/// The bar of one file, or of one directory.
pub(crate) struct Progress {
    out: Output,
    /// Whether there is somebody to see a bar.
    draws: bool,
    bar: Option<ProgressBar>,
    told: Option<String>,
}

impl Progress {
    /// Nothing is drawn before the first step.
    pub(crate) fn new(out: Output) -> Progress {
        Progress { out, draws: out.progress(), bar: None, told: None }
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
        if !self.draws {
            return;
        }
        let bar = self.bar.get_or_insert_with(ProgressBar::no_length);
        if bar.prefix().is_empty() {
            bar.set_prefix(short_name(name, if columns() < 100 { 14 } else { 28 }));
        }
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
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressDrawTarget, TermLike};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::Color;

    /// A terminal that keeps what is written on its lines, of which a bar is to take one.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<Vec<String>>>);

    impl Screen {
        fn change(&self, change: impl FnOnce(&mut Vec<String>)) -> io::Result<()> {
            let mut lines = self.0.lock().unwrap();
            if lines.is_empty() {
                lines.push(String::new());
            }
            change(&mut lines);
            Ok(())
        }

        fn lines(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|line| line.trim_end().to_owned()).collect()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
            self.change(|all| all.truncate(all.len().saturating_sub(lines).max(1)))
        }

        fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
            self.change(|all| all.resize(all.len() + lines, String::new()))
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.change(|all| all.extend([text.to_owned(), String::new()]))
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.change(|all| all.last_mut().unwrap().push_str(text))
        }

        fn clear_line(&self) -> io::Result<()> {
            self.change(|all| all.last_mut().unwrap().clear())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn drawing(json: bool) -> (Progress, Screen) {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = Some(ProgressBar::with_draw_target(None, target));
        let out = Output::new(json, Color::Never);
        (Progress { out, draws: true, bar, told: None }, screen)
    }

    fn step(of: Value) -> Answer<Transfer> {
        let mut transfer = json!({"id": 7, "name": "docs/", "content": null, "size": 2048, "done_bytes": 0,
                                  "wasted_bytes": 0, "state": "running", "reason": null, "proven": true, "sources": [],
                                  "rate": 0, "eta_secs": null, "created_ms": 0, "ended_ms": null, "path": null,
                                  "files": 3, "files_done": 0});
        transfer.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        Answer { value: serde_json::from_value(transfer).unwrap(), raw: bytes::Bytes::new() }
    }

    #[test]
    fn a_directory_has_one_bar_however_many_files_it_has() {
        let (mut progress, screen) = drawing(false);
        progress.transfer(&step(json!({"state": "queued"}))).unwrap();
        let [line] = &screen.lines()[..] else { panic!("{screen:?}") };
        assert!(line.starts_with("docs/ ") && line.contains("0/3 files  waits for its turn"), "{line}");
        let sources = json!([{"peer_id": null, "name": "P2", "bytes": 9, "state": "active", "reason": null}]);
        for (done, files, percent) in [(512, 1, 25), (1024, 2, 50), (2047, 2, 99)] {
            let more = json!({"done_bytes": done, "files_done": files, "rate": 512, "eta_secs": 3, "sources": sources});
            progress.transfer(&step(more)).unwrap();
            let [line] = &screen.lines()[..] else { panic!("more than one line: {screen:?}") };
            let said = format!("{percent}% of 2.0 KiB  {files}/3 files  512 B/s  3 s left  1 source");
            assert!(line.starts_with("docs/ ") && line.contains(&said), "no {said:?} in {line:?}");
        }
        progress.transfer(&step(json!({"state": "done", "done_bytes": 2048, "files_done": 3}))).unwrap();
        progress.clear();
        assert!(screen.lines().iter().all(String::is_empty), "it is gone in the end: {screen:?}");
    }

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
