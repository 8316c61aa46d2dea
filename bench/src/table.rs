//! The table that a bench ends with: medians, spread, and the ratio to the first row.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

/// One program's runs.
#[derive(Debug)]
pub(crate) struct Row {
    /// The program.
    pub(crate) name: &'static str,
    /// How long each run took; none where it could not run.
    pub(crate) times: Vec<Duration>,
    /// Why it could not run.
    pub(crate) note: String,
}

/// Prints the table. `x` is the throughput relative to the first row's.
pub(crate) fn print(title: &str, bytes: u64, rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{title}\n")?;
    writeln!(out, "| program | median s | min-max s | MiB/s | x |\n|---|---|---|---|---|")?;
    let first = rows.first().and_then(|row| median(&row.times));
    for row in rows {
        let Some(middle) = median(&row.times) else {
            writeln!(out, "| {} | – | – | – | {} |", row.name, row.note)?;
            continue;
        };
        let (least, most) =
            (row.times.iter().min().unwrap_or(&middle), row.times.iter().max().unwrap_or(&middle));
        let rate = bytes as f64 / (1 << 20) as f64 / middle.as_secs_f64();
        let ratio = first
            .map_or("–".to_owned(), |first| format!("{:.2}", first.as_secs_f64() / middle.as_secs_f64()));
        let (middle, least, most) = (middle.as_secs_f64(), least.as_secs_f64(), most.as_secs_f64());
        writeln!(out, "| {} | {middle:.2} | {least:.2}-{most:.2} | {rate:.0} | {ratio} |", row.name)?;
    }
    Ok(())
}

/// Of an even number of runs, the mean of the two in the middle.
fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let (below, above) = (times.get(times.len().checked_sub(1)? / 2)?, times.get(times.len() / 2)?);
    Some((*below + *above) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let secs =
            |all: &[u64]| median(&all.iter().map(|secs| Duration::from_secs(*secs)).collect::<Vec<_>>());
        assert_eq!(secs(&[]), None);
        assert_eq!(secs(&[3]), Some(Duration::from_secs(3)));
        assert_eq!(secs(&[9, 1, 5]), Some(Duration::from_secs(5)));
        assert_eq!(secs(&[4, 1, 2, 9]), Some(Duration::from_secs(3)));
    }
}
