//! Sizes, rates, times and dates, in the words of the user.

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Now, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A size in binary units.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A size that nobody may know.
pub(crate) fn size_or_unknown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), size)
}

/// A rate in binary units.
pub(crate) fn rate(bytes_per_sec: u64) -> String {
    format!("{}/s", size(bytes_per_sec))
}

/// How long ago something was, or its date if that is long.
pub(crate) fn age(then_ms: i64, now_ms: i64) -> String {
    let secs = (now_ms - then_ms) / 1000;
    // The clocks of two machines differ a little; what lies further in the future is told by its date.
    match secs {
        -60..5 => "just now".to_owned(),
        5..2_592_000 => format!("{} ago", duration(secs.unsigned_abs())),
        _ => date(then_ms),
    }
}

/// A span of time in its largest unit.
pub(crate) fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h", secs / 3600),
        86_400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", secs / 86_400),
    }
}

/// A day, where the user is.
pub(crate) fn date(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(then) => then.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string(),
        Err(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1_288_490_189), "1.2 GiB");
        assert_eq!(rate(117_440_512), "112.0 MiB/s");
    }

    #[test]
    fn ages_read_well_and_the_future_is_a_date() {
        let now = 1_750_000_000_000;
        assert_eq!(age(now - 3_000, now), "just now");
        assert_eq!(age(now + 3_000, now), "just now");
        assert_eq!(age(now - 180_000, now), "3 min ago");
        assert_eq!(age(now - 7_200_000, now), "2 h ago");
        assert_eq!(age(now - 86_400_000, now), "1 day ago");
        assert!(age(now - 86_400_000 * 400, now).starts_with("2024-"));
        assert!(age(now + 86_400_000 * 400, now).starts_with("2026-"));
    }
}
