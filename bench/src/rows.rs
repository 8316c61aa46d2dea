//! The rows of the table: what is compared with whom, and what is aimed at. Pure.

/// A row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// The work, in words.
    pub(crate) work: &'static str,
    /// What is aimed at.
    pub(crate) target: Target,
}

/// What is aimed at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Target {
    /// What is compared with the bound.
    pub(crate) measure: Measure,
    /// The bound.
    pub(crate) bound: Bound,
}

/// What is compared with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Throughput, as a multiple of the rival's.
    Throughput,
    /// Time, as a multiple of the rival's.
    Time,
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Millis,
    /// Processor time, in hundredths of what one core gives.
    OfOneCore,
    /// Processor seconds per GiB, of sender and receiver together.
    CpuPerGib,
    /// The worst receiver's time, as a multiple of what its link alone needs.
    Limits,
    /// How many of all have the whole file, as a share of 1.
    Finished,
}

/// A bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Bound {
    /// Whether a value keeps it.
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

impl Measure {
    /// A value of it, for people.
    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            Measure::Throughput => format!("{value:.2} ×"),
            Measure::Time => format!("{value:.2} × its time"),
            Measure::Seconds => format!("{value:.2} s"),
            Measure::Millis => format!("{value:.2} ms"),
            Measure::OfOneCore => format!("{value:.0} % of a core"),
            Measure::CpuPerGib => format!("{value:.2} s/GiB"),
            Measure::Limits => format!("{value:.2} L"),
            Measure::Finished => format!("{:.0} % finish", value * 100.0),
        }
    }
}

impl Target {
    /// In words: `≥ 1.25 ×`.
    pub(crate) fn shown(self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("≥ {}", self.measure.shown(bound)),
            Bound::AtMost(bound) => format!("≤ {}", self.measure.shown(bound)),
        }
    }
}

/// At least so many times the rival's throughput.
pub(crate) const fn throughput(at_least: f64) -> Target {
    Target { measure: Measure::Throughput, bound: Bound::AtLeast(at_least) }
}

/// No more than this.
pub(crate) const fn at_most(measure: Measure, most: f64) -> Target {
    Target { measure, bound: Bound::AtMost(most) }
}

/// A row.
pub(crate) const fn row(name: &'static str, work: &'static str, target: Target) -> Row {
    Row { name, work, target }
}

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 21] = [
    row("curl", "one file, one source, to memory: curl from nginx, https", throughput(1.25)),
    row(
        "cpu",
        "one file, one source, to memory: processor time for TLS, proofs and writing",
        at_most(Measure::CpuPerGib, 1.2),
    ),
    row("rsync", "one file, one source, to memory: rsync daemon, no encryption", throughput(1.0)),
    row("cp", "one file, one source, to memory: cp", throughput(0.55)),
    row("rqbit", "one file, one source, to memory: rqbit to rqbit, BitTorrent", throughput(2.5)),
    row("sendme", "one file, one source, to memory: sendme, QUIC", throughput(4.0)),
    row("syncthing", "one file, one source, to memory: syncthing to syncthing", throughput(4.0)),
    row("aria2", "one file, one source, to memory: aria2 to aria2, BitTorrent", throughput(4.0)),
    row(
        "grpcio",
        "one file, one source, to memory: a stream of Python's grpcio, no encryption",
        throughput(2.0),
    ),
    row("four-sources", "one file, four sources, to memory: one source", throughput(0.95)),
    row("curl-disk", "one file, one source, to disk: curl from nginx, https", throughput(1.8)),
    row("small-files", "10,000 files of 4-64 KiB, to memory: rsync -aW daemon", throughput(1.1)),
    row("one-byte", "one file of 1 byte, from start to exit: curl, https", at_most(Measure::Time, 3.0)),
    row("hash-tree", "hashing a tree for the catalog: b3sum, as many threads", throughput(0.9)),
    row("rescan", "rescan of unchanged files: find -printf, warm", at_most(Measure::Time, 3.0)),
    row("resume", "restart at 90 % of a file: first new byte requested", at_most(Measure::Seconds, 1.0)),
    row("swarm", "one source to eight at once, links of 100 Mbit/s", at_most(Measure::Limits, 1.2)),
    row(
        "swarm-mixed",
        "one source to eight at once, links of 20 to 100 Mbit/s",
        at_most(Measure::Limits, 1.35),
    ),
    row(
        "swarm-cut",
        "one source to eight at once, links of 100 Mbit/s, the source cut off after 1.15 copies",
        Target { measure: Measure::Finished, bound: Bound::AtLeast(1.0) },
    ),
    row("delay", "four sources, 40 ms and 1 % loss on each link: an iperf3 flow each", throughput(0.8)),
    row("delay-one", "one source, 40 ms and 1 % loss on each link: one iperf3 flow", throughput(0.8)),
];

/// Those of `rows` that were asked for, in the order of the table; all where none was.
///
/// # Errors
/// The first name that no row has.
pub(crate) fn chosen(rows: &[Row], only: &[String]) -> Result<Vec<Row>, String> {
    if let Some(unknown) = only.iter().find(|name| !rows.iter().any(|row| row.name == **name)) {
        return Err(unknown.clone());
    }
    Ok(rows
        .iter()
        .copied()
        .filter(|row| only.is_empty() || only.iter().any(|name| name == row.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_chosen_by_name_in_the_order_of_the_table() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len(), "a name is given twice");
        assert_eq!(chosen(&ROWS, &[]).unwrap().len(), ROWS.len());
        let some = chosen(&ROWS, &["cp".to_owned(), "curl".to_owned()]).unwrap();
        assert_eq!(some.iter().map(|row| row.name).collect::<Vec<_>>(), ["curl", "cp"]);
        assert_eq!(chosen(&ROWS, &["cp".to_owned(), "scp".to_owned()]), Err("scp".to_owned()));
    }

    #[test]
    fn a_target_is_met_at_its_bound() {
        let faster = throughput(1.25);
        assert!(faster.bound.is_met_by(1.25) && faster.bound.is_met_by(2.0) && !faster.bound.is_met_by(1.24));
        assert_eq!(faster.shown(), "≥ 1.25 ×");
        let soon = at_most(Measure::Seconds, 1.0);
        assert!(soon.bound.is_met_by(1.0) && soon.bound.is_met_by(0.2) && !soon.bound.is_met_by(1.01));
        assert_eq!(soon.shown(), "≤ 1.00 s");
    }
}
