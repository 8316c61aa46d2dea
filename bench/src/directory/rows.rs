//! The rows of the directory's table: what is measured, and what is aimed at. Pure.

use crate::rows::{Bound, Measure, Row, Target, at_most, row, throughput};

/// All rows, in the order of the table.
pub(crate) const ROWS: [Row; 9] = [
    row("locate", "/locate by name: nginx with a static answer of that size", throughput(0.5)),
    row("locate-p99", "/locate by name, at half of that rate: 99 in 100", at_most(Measure::Millis, 5.0)),
    row("locate-big", "/locate by name in the big directory: in the small one", throughput(0.8)),
    row(
        "search",
        "/search for a part of a name in the big directory, 20 results: the median",
        at_most(Measure::Millis, 30.0),
    ),
    row(
        "announce",
        "one peer announces a catalog: until it is found by name and hash",
        at_most(Measure::Seconds, 25.0),
    ),
    row(
        "crowd",
        "connected peers, 1 % of them with a change in each second: processor time of maestrod",
        at_most(Measure::OfOneCore, 60.0),
    ),
    row("restart", "start with the big directory: first right answer", at_most(Measure::Seconds, 2.0)),
    row(
        "postgres-locate",
        "/locate by name in the big directory, PostgreSQL: the embedded store",
        throughput(0.25),
    ),
    row(
        "postgres-announce",
        "the big directory is announced, PostgreSQL: the embedded store",
        Target { measure: Measure::Throughput, bound: Bound::AtLeast(1.0) },
    ),
];
