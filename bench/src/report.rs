//! How every bench goes: its rows are chosen, measured one after the other, and told as one table.

use std::io::Write;

use anyhow::{Result, bail, ensure};

use crate::interrupted;
use crate::rows::{Row, chosen};
use crate::table::Outcome;

/// What is known by now.
#[derive(Debug)]
pub(crate) struct Report<M> {
    outcomes: Vec<(Row, Outcome<M>)>,
}

impl<M> Report<M> {
    /// A row is done.
    pub(crate) fn add(&mut self, row: Row, outcome: Outcome<M>) {
        let came_of_it = match &outcome {
            Outcome::Measured(_) => "measured",
            Outcome::Missing(why) | Outcome::Failed(why) => why,
        };
        // Who watches sees how far it is; that nobody does is no error.
        let _ = writeln!(std::io::stderr(), "{}: {came_of_it}", row.name);
        self.outcomes.push((row, outcome));
    }

    /// Whether nothing is known of a row yet.
    pub(crate) fn lacks(&self, row: Row) -> bool {
        !self.outcomes.iter().any(|(known, _)| known.name == row.name)
    }
}

/// The rows of `bench` that were asked for by name; all, where none was.
///
/// # Errors
/// A name that no row has.
pub(crate) fn asked_for(bench: &str, rows: &[Row], only: &[String]) -> Result<Vec<Row>> {
    match chosen(rows, only) {
        Ok(rows) => Ok(rows),
        Err(name) => bail!("there is no row {name}: `cargo xtask bench {bench} --list` shows them"),
    }
}

/// Prints the rows, and what each aims at.
pub(crate) fn list(rows: &[Row]) -> Result<()> {
    let width = |text: fn(&Row) -> usize| rows.iter().map(text).max().unwrap_or_default();
    let (names, targets) = (width(|row| row.name.len()), width(|row| row.target.shown().chars().count()));
    let mut out = std::io::stdout();
    for Row { name, work, target } in rows {
        writeln!(out, "{name:<names$} {:<targets$} {work}", target.shown())?;
    }
    Ok(())
}

/// Measures `rows`, and prints the table below its title: also of what was measured before it was interrupted.
///
/// # Errors
/// Those of `measure`; a signal; and rows that failed.
pub(crate) async fn tell<M>(
    rows: &[Row],
    title: &str,
    table: impl FnOnce(&[(Row, Outcome<M>)]) -> String,
    measure: impl AsyncFnOnce(&[Row], &mut Report<M>) -> Result<()>,
) -> Result<()> {
    let mut report = Report { outcomes: Vec::new() };
    let ended = tokio::select! {
        done = measure(rows, &mut report) => done,
        // What is dropped here ends what it has started.
        signal = interrupted() => Err(anyhow::anyhow!("interrupted by {}", signal?)),
    };
    writeln!(std::io::stdout(), "\n{title}\n\n{}", table(&report.outcomes))?;
    ended?;
    let failed = report.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count();
    ensure!(failed == 0, "{failed} of {} rows failed", rows.len());
    Ok(())
}
