//! The one line that `systemctl status` shows: said when it has changed, and in words and numbers for people.
//!
//! Called by a daemon's composition file and `main`, which know what there is to say.

use std::time::Duration;

use crate::notify;

/// How often the line is looked at, at the most.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What was last said.
#[derive(Debug, Default)]
pub struct StatusLine(String);

impl StatusLine {
    /// Tells systemd, if the line is another one. Whether it was.
    pub fn say(&mut self, line: String) -> bool {
        if self.0 == line {
            return false;
        }
        notify::status(&line);
        self.0 = line;
        true
    }
}

/// `1204` as `1,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,204 files`, `1 file`, `no files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        _ => format!("{} {many}", grouped(number)),
    }
}

/// `41 MiB`, `1.5 GiB`, `312 B`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be rounded to 1024 of a unit is one of the next.
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `3.1 s`, `12 min`, `850 ms`.
pub fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        secs if secs < 1.0 => format!("{} ms", time.as_millis()),
        secs if secs < 100.0 => format!("{secs:.1} s"),
        secs if secs < 7200.0 => format!("{:.0} min", secs / 60.0),
        secs => format!("{:.1} h", secs / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0, 999, 1204, 123_456, 1_234_567].map(grouped),
            ["0", "999", "1,204", "123,456", "1,234,567"]
        );
        assert_eq!([0, 1, 1204].map(|n| counted(n, "file", "files")), ["no files", "1 file", "1,204 files"]);
        assert_eq!([312, 1536, 41 << 20].map(size), ["312 B", "1.5 KiB", "41 MiB"]);
        assert_eq!([1024 * 1024 - 1, 3 << 30].map(size), ["1.0 MiB", "3.0 GiB"]);
        assert_eq!(
            [85, 3100, 720_000].map(|ms| duration(Duration::from_millis(ms))),
            ["85 ms", "3.1 s", "12 min"]
        );
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let mut line = StatusLine::default();
        assert!(line.say("a".to_owned()) && !line.say("a".to_owned()) && line.say("b".to_owned()));
    }
}
