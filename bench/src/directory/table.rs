//! The directory's table. Pure.

use std::fmt::Write as _;

use crate::rows::Row;
use crate::statistics::Spread;
use crate::table::{Outcome, also, verdict, with_range};

/// What was measured of a row.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// What is compared with the target, one value a run.
    pub(crate) values: Vec<f64>,
    /// This project's own figure, and that of whom it is compared with, where there is more to them than the values.
    pub(crate) ours: Option<String>,
    /// See `ours`.
    pub(crate) other: Option<String>,
    /// Which files were in the directory, and how they came into it.
    pub(crate) filled: String,
    /// What else was aimed at, and whether it was reached.
    pub(crate) also: Vec<(String, bool)>,
    /// What the reader should know.
    pub(crate) notes: Vec<String>,
}

/// The whole table, and what there is to say about its rows.
pub(crate) fn table(rows: &[(Row, Outcome<Figures>)]) -> String {
    let mut table = String::from(
        "| row | ours | beside it | median (least-most) | target | | runs |\n|---|---|---|---|---|---|---|\n",
    );
    let mut notes = String::new();
    for (row, outcome) in rows {
        let (name, target) = (row.name, row.target.shown());
        match outcome {
            Outcome::Measured(figures) => {
                table.push_str(&line(row, figures));
                let _ = writeln!(notes, "- {name}: {}: {}", row.work, figures.filled);
                for note in figures.also.iter().map(also).chain(figures.notes.iter().cloned()) {
                    let _ = writeln!(notes, "- {name}: {note}");
                }
            }
            Outcome::Missing(why) => {
                let _ = writeln!(table, "| {name} | – | – | – | {target} | missing | – |");
                let _ = writeln!(notes, "- {name}: {}: **not measured**: {why}", row.work);
            }
            Outcome::Failed(why) => {
                let _ = writeln!(table, "| {name} | – | – | – | {target} | **FAILED** | – |");
                let _ = writeln!(notes, "- {name}: {}: **failed**: {why}", row.work);
            }
        }
    }
    format!("{table}\n{notes}")
}

fn line(row: &Row, figures: &Figures) -> String {
    let (shown, verdict) = match Spread::of(figures.values.iter().copied()) {
        None => ("–".to_owned(), "–"),
        Some(spread) => {
            (with_range(row.target.measure, spread), verdict(row.target.bound, spread.median, &figures.also))
        }
    };
    let said = |figure: &Option<String>| figure.clone().unwrap_or_else(|| "–".to_owned());
    format!(
        "| {} | {} | {} | **{shown}** | {} | {verdict} | {} |\n",
        row.name,
        said(&figures.ours),
        said(&figures.other),
        row.target.shown(),
        figures.values.len(),
    )
}

/// A rate, with its range: `9,812/s (9,700-9,900)`.
pub(crate) fn rates(values: &[f64]) -> Option<String> {
    let Spread { least, median, most } = Spread::of(values.iter().copied())?;
    Some(format!("{median:.0}/s ({least:.0}-{most:.0})"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    #[test]
    fn each_row_has_its_target_and_a_verdict() {
        let named = |name: &str| *ROWS.iter().find(|row| row.name == name).unwrap();
        let locate = Figures {
            values: vec![0.6, 0.5, 0.7],
            ours: rates(&[6000.0, 5000.0, 7000.0]),
            other: rates(&[10_000.0]),
            filled: "1,000 files".to_owned(),
            ..Figures::default()
        };
        let announce = Figures {
            values: vec![20.0],
            also: vec![("its parts 12.0 s later, at most 10".to_owned(), false)],
            ..Figures::default()
        };
        let rows = [
            (named("locate"), Outcome::Measured(locate)),
            (named("announce"), Outcome::Measured(announce)),
            (named("restart"), Outcome::Missing("no disk".to_owned())),
            (named("crowd"), Outcome::Failed("no files".to_owned())),
        ];
        let text = table(&rows);
        for line in [
            "| locate | 6000/s (5000-7000) | 10000/s (10000-10000) | **0.60 × (0.50-0.70)** | ≥ 0.50 × | met | 3 |",
            "| announce | – | – | **20.00 s (20.00-20.00)** | ≤ 25.00 s | **MISSED** | 1 |",
            "| restart | – | – | – | ≤ 2.00 s | missing | – |",
            "| crowd | – | – | – | ≤ 60 % of a core | **FAILED** | – |",
            "- announce: its parts 12.0 s later, at most 10: **MISSED**",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(
            text.contains("no disk") && text.contains("no files") && text.contains("1,000 files"),
            "{text}"
        );
    }
}
