//! One source and eight that fetch at once, as [`swarm`](crate::swarm) plays it.

use anyhow::Result;

use super::missing_for_hosts;
use crate::rows::{Measure, Row};
use crate::swarm::{Plan, Seen, once};
use crate::table::{Measured, Outcome};
use crate::transfer::{Bench, Report};

/// Who fetch at once.
const RECEIVERS: u8 = 8;
/// The source's link, in Mbit/s.
const SEED_MBIT: u32 = 100;
/// Links of the row with mixed ones, in Mbit/s.
const MIXED: [u32; 8] = [20, 20, 40, 40, 60, 60, 100, 100];
/// The most that the source may send, where all links are alike.
const COPIES: f64 = 1.15;
/// A run may take so many times what the slowest link needs, and some seconds, until it is given up.
const GIVE_UP_AFTER: f64 = 6.0;

/// The rows.
pub(super) async fn run(bench: &Bench, rows: &[Row], report: &mut Report) -> Result<()> {
    for row in rows {
        if let Some(missing) = missing_for_hosts(bench, &[]) {
            report.add(*row, Outcome::Missing(missing));
            continue;
        }
        let outcome = match measure(bench, row).await {
            Ok(measured) => Outcome::Measured(measured),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        report.add(*row, outcome);
    }
    Ok(())
}

async fn measure(bench: &Bench, row: &Row) -> Result<Measured> {
    let plan = plan(row, bench.swarm_mib);
    let mut all = Vec::new();
    for _ in 0..bench.runs {
        all.push(once(&plan).await?);
    }
    let value = |seen: &Seen| match row.target.measure {
        Measure::Finished => seen.finished(),
        _ => seen.worst(),
    };
    let mut measured = Measured::of_values(all.iter().map(value).collect());
    let most = all.iter().map(|seen| seen.copies).fold(0.0, f64::max);
    let copies = format!("the source sends {most:.2} copies");
    match row.name {
        "swarm" => measured.also.push((format!("{copies}, at most {COPIES}"), most <= COPIES)),
        _ => measured.notes.push(copies),
    }
    if row.target.measure == Measure::Finished {
        let worst = all.iter().map(Seen::worst).fold(0.0, f64::max);
        measured.notes.push(match worst.is_finite() {
            true => format!("the worst receiver takes {worst:.2} times what its link needs"),
            false => format!("who has not finished after {} s never does", plan.give_up_secs),
        });
    }
    Ok(measured)
}

fn plan(row: &Row, mib: u64) -> Plan {
    let mbit = match row.name {
        "swarm-mixed" => MIXED.to_vec(),
        _ => vec![SEED_MBIT],
    };
    let slowest = mbit.iter().copied().min().unwrap_or(SEED_MBIT);
    // MiB in Mbit is 8.4 of them; the minute is for daemons that start.
    let give_up_secs = 60 + (GIVE_UP_AFTER * mib as f64 * 8.4 / f64::from(slowest)) as u64;
    Plan {
        mib,
        receivers: RECEIVERS,
        mbit,
        seed_mbit: SEED_MBIT,
        cut_after: (row.name == "swarm-cut").then_some(COPIES),
        give_up_secs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ROWS, chosen};

    fn plan_of(name: &str) -> Plan {
        plan(&chosen(&ROWS, &[name.to_owned()]).unwrap()[0], 256)
    }

    #[test]
    fn the_rows_differ_in_links_and_in_the_cut() {
        let (alike, mixed, cut) = (plan_of("swarm"), plan_of("swarm-mixed"), plan_of("swarm-cut"));
        assert_eq!((alike.mbit, alike.cut_after), (vec![100], None));
        assert_eq!(
            (mixed.mbit.len(), mixed.mbit.iter().min(), mixed.mbit.iter().max()),
            (8, Some(&20), Some(&100))
        );
        assert_eq!((cut.mbit, cut.cut_after), (vec![100], Some(1.15)));
        assert!(mixed.give_up_secs > 4 * alike.give_up_secs - 4 * 60, "slow links take longer");
    }
}
