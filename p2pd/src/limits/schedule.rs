//! Times of the week at which other limits hold. Pure: the time is an argument, as a minute of the week.
//!
//! Called by `limits`, which asks what holds now, and by `config`, which asks what is wrong.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Minutes of a day, and of a week.
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
/// Periods that a schedule has at the most.
const PERIODS: usize = 100;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        })
    }
}

/// One `[[limits.schedule]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// The days on which it begins; without the key, every day.
    #[serde(default = "Day::all")]
    pub days: Vec<Day>,
    /// When it begins, as HH:MM.
    pub from: String,
    /// When it ends, as HH:MM, 24:00 at the latest; where that is earlier than `from`, on the next day.
    pub to: String,
    /// Bytes per second that are sent at the most; 0: as fast as it goes. Without the key, what `[limits]` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_bytes_per_sec: Option<u64>,
    /// Bytes per second that are fetched at the most, in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_bytes_per_sec: Option<u64>,
}

impl Period {
    /// Minutes of the week, from the one in which it begins; what is past the end of the week is its beginning again.
    fn spans(&self) -> Vec<Range<u16>> {
        let (Some(from), Some(to)) = (minute(&self.from), minute(&self.to)) else { return Vec::new() };
        let len = if to > from { to - from } else { to + DAY - from };
        let start = |day: &Day| *day as u16 * DAY + from;
        self.days.iter().map(start).map(|start| start..start + len).collect()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<String> = self.days.iter().map(Day::to_string).collect();
        let days = if days.len() == Day::ALL.len() { "every day".to_owned() } else { days.join(",") };
        write!(f, "{days} {}-{}", self.from, self.to)
    }
}

/// A time of the day as minutes, 24:00 included.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (true, true) = (digits(hour), digits(minute)) else { return None };
    let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY).then_some(minutes)
}

/// The minute of the week in which this is, from Monday 00:00 of the clocks on the wall.
pub(super) fn minute_of_week(time: &jiff::civil::DateTime) -> u16 {
    let day = time.weekday().to_monday_zero_offset().unsigned_abs();
    let hour = time.hour().unsigned_abs();
    u16::from(day) * DAY + u16::from(hour) * 60 + u16::from(time.minute().unsigned_abs())
}

/// The period that holds in this minute of the week, if one does.
pub(super) fn at(periods: &[Period], minute: u16) -> Option<&Period> {
    let holds = |period: &&Period| period.spans().iter().any(|span| is_in(span, minute));
    periods.iter().find(holds)
}

fn is_in(span: &Range<u16>, minute: u16) -> bool {
    span.contains(&minute) || span.contains(&(minute + WEEK))
}

/// What is wrong with a schedule: each key, and one sentence about its value.
pub fn problems(periods: &[Period]) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if periods.len() > PERIODS {
        let what = format!("there are {} periods, and {PERIODS} at the most", periods.len());
        problems.push(("limits.schedule".to_owned(), what));
    }
    for (index, period) in periods.iter().enumerate() {
        let key = |name: &str| format!("limits.schedule[{index}].{name}");
        for (name, time, latest) in [("from", &period.from, "23:59"), ("to", &period.to, "24:00")] {
            let is_time = minute(time).is_some_and(|minute| name == "to" || minute < DAY);
            if !is_time {
                let what =
                    format!("{time:?} is no time of the day: write it as HH:MM, from 00:00 to {latest}");
                problems.push((key(name), what));
            }
        }
        if minute(&period.from).is_some_and(|from| minute(&period.to) == Some(from)) {
            let what = "the period has no length; a whole day is from 00:00 to 24:00".to_owned();
            problems.push((key("to"), what));
        }
        if period.days.is_empty() {
            problems.push((key("days"), "there is no day in it; without the key it is every day".to_owned()));
        }
        let twice = (1..period.days.len()).find(|at| period.days[..*at].contains(&period.days[*at]));
        if let Some(at) = twice {
            problems.push((key("days"), format!("{} is given twice", period.days[at])));
        }
        if period.up_bytes_per_sec.is_none() && period.down_bytes_per_sec.is_none() {
            let what = "it limits nothing: give it up_bytes_per_sec, down_bytes_per_sec or both".to_owned();
            problems.push((format!("limits.schedule[{index}]"), what));
        }
        for (before, other) in periods[..index].iter().enumerate() {
            if let Some((day, time)) = common(other, period) {
                let what = format!(
                    "the period {period} overlaps with limits.schedule[{before}], {other}, on {day} at {time}: at any \
                     time one of them can hold"
                );
                problems.push((key("from"), what));
            }
        }
    }
    problems
}

/// The first time that is in both.
fn common(one: &Period, other: &Period) -> Option<(Day, String)> {
    let (these, those) = (one.spans(), other.spans());
    let both = |minute: &u16| {
        let within = |spans: &[Range<u16>]| spans.iter().any(|span| is_in(span, *minute));
        within(&these) && within(&those)
    };
    // Where two overlap, they do so where one of them begins.
    let mut starts: Vec<u16> = these.iter().chain(&those).map(|span| span.start).collect();
    starts.sort_unstable();
    let minute = starts.into_iter().find(both)?;
    let (day, time) = (usize::from(minute / DAY), minute % DAY);
    Some((Day::ALL[day], format!("{:02}:{:02}", time / 60, time % 60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(days: &[Day], from: &str, to: &str, up: u64) -> Period {
        Period {
            days: days.to_vec(),
            from: from.to_owned(),
            to: to.to_owned(),
            up_bytes_per_sec: Some(up),
            down_bytes_per_sec: None,
        }
    }

    fn up_at(periods: &[Period], day: Day, time: &str) -> Option<u64> {
        at(periods, day as u16 * DAY + minute(time).unwrap()).and_then(|period| period.up_bytes_per_sec)
    }

    #[test]
    fn a_period_holds_from_its_first_minute_to_the_one_before_its_last() {
        let week =
            [period(&[Day::Mon, Day::Fri], "08:00", "18:30", 1), period(&[Day::Mon], "18:30", "24:00", 2)];
        assert_eq!(problems(&week), []);
        for (day, time, up) in [
            (Day::Mon, "07:59", None),
            (Day::Mon, "08:00", Some(1)),
            (Day::Mon, "18:29", Some(1)),
            (Day::Mon, "18:30", Some(2)),
            (Day::Mon, "23:59", Some(2)),
            (Day::Tue, "00:00", None),
            (Day::Tue, "12:00", None),
            (Day::Fri, "12:00", Some(1)),
        ] {
            assert_eq!(up_at(&week, day, time), up, "{day} {time}");
        }
    }

    #[test]
    fn a_period_that_ends_before_it_begins_goes_over_midnight_and_over_the_end_of_the_week() {
        let night = [period(&[Day::Sun], "22:00", "06:00", 1)];
        assert_eq!(problems(&night), []);
        for (day, time, up) in [
            (Day::Sun, "21:59", None),
            (Day::Sun, "22:00", Some(1)),
            (Day::Mon, "00:00", Some(1)),
            (Day::Mon, "05:59", Some(1)),
            (Day::Mon, "06:00", None),
            (Day::Sun, "05:00", None),
        ] {
            assert_eq!(up_at(&night, day, time), up, "{day} {time}");
        }
    }

    #[test]
    fn overlapping_periods_are_told_with_a_time_that_both_have() {
        let nights = [
            period(&[Day::Sun], "22:00", "06:00", 1),
            period(&[Day::Mon], "05:00", "07:00", 2),
            period(&[Day::Mon], "06:30", "08:00", 3),
            period(&[Day::Tue], "05:00", "07:00", 4),
        ];
        let told = problems(&nights);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0].0, "limits.schedule[1].from");
        assert!(
            told[0].1.contains("limits.schedule[0]") && told[0].1.contains("on mon at 05:00"),
            "{told:?}"
        );
        assert_eq!(told[1].0, "limits.schedule[2].from");
        assert!(
            told[1].1.contains("limits.schedule[1]") && told[1].1.contains("on mon at 06:30"),
            "{told:?}"
        );
    }

    #[test]
    fn all_that_is_malformed_is_told() {
        let mut bad = vec![
            period(&[], "8:00", "25:00", 1),
            period(&[Day::Sat, Day::Sat], "10:00", "10:00", 1),
            period(&[Day::Sun], "24:00", "12:60", 1),
            period(&[Day::Mon], "+1:00", "01:00", 1),
        ];
        bad[2].up_bytes_per_sec = None;
        let told = problems(&bad);
        let keys: Vec<&str> =
            told.iter().map(|(key, _)| key.strip_prefix("limits.schedule").unwrap()).collect();
        let expected =
            ["[0].from", "[0].to", "[0].days", "[1].to", "[1].days", "[2].from", "[2].to", "[2]", "[3].from"];
        assert_eq!(keys, expected, "{told:#?}");
        let many = vec![period(&[Day::Mon], "00:00", "00:00", 1); PERIODS + 1];
        assert_eq!(problems(&many)[0].0, "limits.schedule");
    }

    #[test]
    fn the_minute_of_the_week_is_that_of_the_clocks_on_the_wall() {
        let sunday = jiff::civil::date(2026, 11, 29);
        assert_eq!(minute_of_week(&sunday.at(23, 59, 59, 0)), WEEK - 1);
        assert_eq!(minute_of_week(&sunday.tomorrow().unwrap().at(0, 1, 0, 0)), 1);
    }

    #[test]
    fn people_read_when_it_holds() {
        assert_eq!(period(&[Day::Mon, Day::Tue], "08:00", "18:00", 1).to_string(), "mon,tue 08:00-18:00");
        assert_eq!(period(&Day::ALL, "00:00", "24:00", 1).to_string(), "every day 00:00-24:00");
    }
}
