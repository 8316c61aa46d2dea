//! The table that the comparisons end with. Pure but for the printing.

use std::fmt::Write as _;
use std::time::Duration;

use crate::contest::Runs;
use crate::gauge::Sample;
use crate::rows::{Bound, Measure, Row, Target};
use crate::statistics::{Spread, ratios};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;
/// Less than this says nothing about processor time: the kernel counts it in hundredths of a second.
const CPU_COUNTS_FROM_BYTES: u64 = 16 << 20;

/// What came of a row.
#[derive(Debug)]
pub(crate) enum Outcome<M = Measured> {
    /// It was measured.
    Measured(M),
    /// It could not be, for this reason, and with what to do.
    Missing(String),
    /// It was tried, and somebody failed.
    Failed(String),
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// What is compared with the target, one value a round.
    pub(crate) values: Vec<f64>,
    /// This project's runs, where there is more to them than the values.
    pub(crate) ours: Option<Runs>,
    /// The rival's.
    pub(crate) rival: Option<Runs>,
    /// Bytes that each run moved.
    pub(crate) bytes: u64,
    /// What else was aimed at, and whether it was reached.
    pub(crate) also: Vec<(String, bool)>,
    /// What the reader should know.
    pub(crate) notes: Vec<String>,
}

impl Measured {
    /// Two that did the same work, of so many bytes, in turn.
    pub(crate) fn of_contest(measure: Measure, bytes: u64, (ours, rival): (Runs, Runs)) -> Measured {
        let seconds = |runs: &Runs| -> Vec<f64> {
            runs.samples.iter().map(|sample| sample.took.as_secs_f64()).collect()
        };
        let values = match measure {
            Measure::Throughput => ratios(&seconds(&rival), &seconds(&ours)),
            Measure::CpuPerGib => ours.samples.iter().map(|sample| cpu_per_gib(sample, bytes)).collect(),
            _ => ratios(&seconds(&ours), &seconds(&rival)),
        };
        Measured { values, ours: Some(ours), rival: Some(rival), bytes, also: Vec::new(), notes: Vec::new() }
    }

    /// Values that were measured in a way of their own.
    pub(crate) fn of_values(values: Vec<f64>) -> Measured {
        Measured { values, ours: None, rival: None, bytes: 0, also: Vec::new(), notes: Vec::new() }
    }
}

/// The whole table, and what there is to say about its rows.
pub(crate) fn table(rows: &[(Row, Outcome)]) -> String {
    let mut table = String::from(
        "| row | ours, s | rival, s | measured | target | | CPU s/GiB, ours : rival | peak MiB sending + receiving, ours : rival |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut notes = String::new();
    for (row, outcome) in rows {
        let target = row.target.shown();
        let name = row.name;
        match outcome {
            Outcome::Measured(measured) => {
                table.push_str(&line(row, measured));
                for note in measured.also.iter().map(also).chain(measured.notes.iter().cloned()) {
                    let _ = writeln!(notes, "- {name}: {note}");
                }
            }
            Outcome::Missing(why) => {
                let _ = writeln!(table, "| {name} | – | – | – | {target} | missing | – | – |");
                let _ = writeln!(notes, "- {name}: **not measured**: {why}");
            }
            Outcome::Failed(why) => {
                let _ = writeln!(table, "| {name} | – | – | – | {target} | **FAILED** | – | – |");
                let _ = writeln!(notes, "- {name}: **failed**: {why}");
            }
        }
    }
    for (row, outcome) in rows {
        let _ = writeln!(notes, "- {} is {}{}", row.name, row.work, who(outcome));
    }
    format!("{table}\n{notes}")
}

/// Who was compared, where that is two programs.
fn who(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Measured(Measured { ours: Some(ours), rival: Some(rival), .. }) => {
            format!(" (`{}` : `{}`)", ours.name, rival.name)
        }
        _ => String::new(),
    }
}

fn line(row: &Row, measured: &Measured) -> String {
    let Target { measure, bound } = row.target;
    let value = Spread::of(measured.values.iter().copied());
    let (shown, verdict) = match value {
        None => ("–".to_owned(), "–"),
        Some(spread) => (with_range(measure, spread), verdict(bound, spread.median, &measured.also)),
    };
    let both = |of: &dyn Fn(&Runs) -> Option<String>| {
        let one = |runs: &Option<Runs>| runs.as_ref().and_then(of).unwrap_or_else(|| "–".to_owned());
        (one(&measured.ours), one(&measured.rival))
    };
    let (our_time, rival_time) = both(&|runs| seconds(runs));
    let (our_cpu, rival_cpu) = both(&|runs| cpu(runs, measured.bytes));
    let (our_peak, rival_peak) = both(&peak);
    format!(
        "| {} | {our_time} | {rival_time} | **{shown}** | {} | {verdict} | {our_cpu} : {rival_cpu} | {our_peak} : {rival_peak} |\n",
        row.name,
        row.target.shown(),
    )
}

/// What the table says of a value.
pub(crate) fn verdict(bound: Bound, value: f64, also: &[(String, bool)]) -> &'static str {
    match bound.is_met_by(value) && also.iter().all(|(_, met)| *met) {
        true => "met",
        false => "**MISSED**",
    }
}

/// What else was aimed at, in words.
pub(crate) fn also((what, met): &(String, bool)) -> String {
    format!("{what}: {}", if *met { "met" } else { "**MISSED**" })
}

/// A median, with the least and the most.
pub(crate) fn with_range(measure: Measure, Spread { least, median, most }: Spread) -> String {
    let factor = if measure == Measure::Finished { 100.0 } else { 1.0 };
    format!("{} ({:.2}-{:.2})", measure.shown(median), least * factor, most * factor)
}

fn seconds(runs: &Runs) -> Option<String> {
    let times = runs.samples.iter().map(|sample| sample.took.as_secs_f64());
    let Spread { least, median, most } = Spread::of(times)?;
    // What takes no longer than a blink is told in ms, as fractions.
    let digits = if median < 1.0 { 3 } else { 2 };
    Some(format!("{median:.digits$} ({least:.digits$}-{most:.digits$})"))
}

fn cpu(runs: &Runs, bytes: u64) -> Option<String> {
    if bytes < CPU_COUNTS_FROM_BYTES {
        return None;
    }
    let median = Spread::of(runs.samples.iter().map(|sample| cpu_per_gib(sample, bytes)))?.median;
    Some(format!("{median:.2}"))
}

fn cpu_per_gib(sample: &Sample, bytes: u64) -> f64 {
    sample.cpu.as_secs_f64() * GIB / bytes as f64
}

fn peak(runs: &Runs) -> Option<String> {
    let most = |of: fn(&Sample) -> u64| runs.samples.iter().map(of).max();
    let (sending, receiving) = (most(|sample| sample.peak_sending)?, most(|sample| sample.peak_receiving)?);
    Some(format!("{:.0} + {:.0}", sending as f64 / MIB, receiving as f64 / MIB))
}

/// Whether the median of these is at most this long, and how to say it.
pub(crate) fn median_at_most(runs: &Runs, most: Duration) -> (String, bool) {
    let median = Spread::of(runs.samples.iter().map(|sample| sample.took.as_secs_f64()));
    let median = median.map_or(f64::INFINITY, |spread| spread.median);
    (
        format!("median {:.1} ms, at most {} ms", median * 1000.0, most.as_millis()),
        median <= most.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ROWS, chosen};

    fn runs(name: &str, millis: &[u64]) -> Runs {
        let sample = |millis: &u64| Sample {
            took: Duration::from_millis(*millis),
            cpu: Duration::from_millis(2 * millis),
            peak_sending: 30 << 20,
            peak_receiving: 40 << 20,
        };
        Runs { name: name.to_owned(), samples: millis.iter().map(sample).collect() }
    }

    fn row(name: &str) -> Row {
        chosen(&ROWS, &[name.to_owned()]).unwrap()[0]
    }

    fn contest(name: &str, bytes: u64, ours: &[u64], rival: &[u64]) -> (Row, Outcome) {
        let row = row(name);
        let both = (runs("ours", ours), runs("rival", rival));
        (row, Outcome::Measured(Measured::of_contest(row.target.measure, bytes, both)))
    }

    #[test]
    fn neighbours_are_compared_and_the_target_is_judged() {
        let rows = [
            contest("curl", 1 << 30, &[1000, 1000, 2000], &[1300, 1400, 2400]),
            contest("rescan", 0, &[700, 500], &[100, 100]),
            contest("cpu", 1 << 30, &[500], &[1000]),
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            "| curl | 1.00 (1.00-2.00) | 1.40 (1.30-2.40) | **1.30 × (1.20-1.40)** | ≥ 1.25 × | met | 2.00 : 2.80 | 30 + 40 : 30 + 40 |"
        );
        assert_eq!(
            lines[3],
            "| rescan | 0.600 (0.500-0.700) | 0.100 (0.100-0.100) | **6.00 × its time (5.00-7.00)** | ≤ 3.00 × its time \
             | **MISSED** | – : – | 30 + 40 : 30 + 40 |"
        );
        assert!(lines[4].contains("**1.00 s/GiB (1.00-1.00)** | ≤ 1.20 s/GiB | met"), "{}", lines[4]);
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let missing = Outcome::Missing("no rqbit here: cargo install --locked rqbit".to_owned());
        let text = table(&[(row("rqbit"), missing), (row("cp"), Outcome::Failed("cp: no space".to_owned()))]);
        assert!(text.contains("| rqbit | – | – | – | ≥ 2.50 × | missing |"), "{text}");
        assert!(
            text.contains("- rqbit: **not measured**: no rqbit here: cargo install --locked rqbit"),
            "{text}"
        );
        assert!(text.contains("| **FAILED** |") && text.contains("cp: no space"), "{text}");
    }

    #[test]
    fn a_second_aim_counts_too() {
        let (one_byte, outcome) = contest("one-byte", 1, &[70, 70], &[50, 50]);
        let Outcome::Measured(mut measured) = outcome else { unreachable!() };
        measured.also.push(median_at_most(&runs("ours", &[70, 70]), Duration::from_millis(60)));
        let text = table(&[(one_byte, Outcome::Measured(measured))]);
        assert!(text.contains("1.40 × its time") && text.contains("| **MISSED** |"), "{text}");
        assert!(text.contains("median 70.0 ms, at most 60 ms: **MISSED**"), "{text}");
        assert!(median_at_most(&runs("ours", &[60]), Duration::from_millis(60)).1);
    }
}
