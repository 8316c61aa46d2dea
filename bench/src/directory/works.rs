//! The works of the directory's table: each makes what it needs, measures, and takes all away again.

use anyhow::{Context, Result, ensure};

use super::catalogs::{Catalogs, peer_name};
use super::maestro::{Maestro, by_name};
use super::table::Figures;
use super::{Bench, Report, postgres};
use crate::rows::Row;
use crate::table::Outcome;
use crate::tools;

mod announce;
mod crowd;
mod locate;
mod restart;
mod search;

/// Names that questions are drawn from.
const ASKED: usize = 50_000;
/// Answers that are looked at closely before anything is measured.
const LOOKED_AT: u64 = 100;

/// Measures the rows in order. A row that fails does not keep the others from being measured.
///
/// # Errors
/// None of the rows': those are in the report.
pub(super) async fn measure(bench: &Bench, rows: &[Row], report: &mut Report) -> Result<()> {
    let mut at = 0;
    while let Some(row) = rows.get(at) {
        // The rate of the second is taken from the first.
        let with_next =
            row.name == "locate" && rows.get(at + 1).is_some_and(|next| next.name == "locate-p99");
        let group = &rows[at..=at + usize::from(with_next)];
        at += group.len();
        if let Some(missing) = missing(bench, row) {
            for row in group {
                report.add(*row, Outcome::Missing(missing.clone()));
            }
            continue;
        }
        match figures(bench, group).await {
            Ok(figures) => {
                for (row, figures) in group.iter().zip(figures) {
                    report.add(*row, Outcome::Measured(figures));
                }
            }
            Err(error) => {
                for row in group {
                    report.add(*row, Outcome::Failed(format!("{error:#}")));
                }
            }
        }
    }
    Ok(())
}

async fn figures(bench: &Bench, rows: &[Row]) -> Result<Vec<Figures>> {
    let first = rows.first().context("no row")?;
    let one = match first.name {
        "locate" | "locate-p99" => return Box::pin(locate::small(bench, first.name == "locate-p99")).await,
        "locate-big" => Box::pin(locate::big(bench)).await?,
        "search" => Box::pin(search::run(bench)).await?,
        "announce" => Box::pin(announce::run(bench)).await?,
        "crowd" => Box::pin(crowd::run(bench)).await?,
        "restart" => Box::pin(restart::run(bench)).await?,
        "postgres-locate" => Box::pin(locate::postgres(bench)).await?,
        _ => Box::pin(announce::postgres(bench)).await?,
    };
    Ok(vec![one])
}

/// What keeps a row from being measured, in words for the table.
fn missing(bench: &Bench, row: &Row) -> Option<String> {
    match row.name {
        "locate" | "locate-p99" => bench.tools.missing(&[tools::WRK, tools::NGINX]),
        "locate-big" => bench.tools.missing(&[tools::WRK]),
        "postgres-locate" => bench.tools.missing(&[tools::WRK]).or_else(postgres::missing),
        "postgres-announce" => postgres::missing(),
        _ => None,
    }
}

/// The paths of questions for names that exist.
fn questions(catalogs: &Catalogs) -> Vec<String> {
    let mut draw = catalogs.draw(1);
    let names = (0..ASKED).map(|_| {
        let (peer, place) = catalogs.any(&mut draw);
        by_name(&catalogs.name(peer, place))
    });
    names.collect()
}

/// Fails where the maestro does not answer rightly who has a file.
async fn answers_rightly(maestro: &Maestro, catalogs: &Catalogs) -> Result<()> {
    let mut draw = catalogs.draw(2);
    for _ in 0..LOOKED_AT {
        let (peer, place) = catalogs.any(&mut draw);
        let (file, holder) = (catalogs.file(peer, place), peer_name(peer));
        for found in [maestro.who_has(&file.name).await?, maestro.who_has_content(&file.content).await?] {
            ensure!(found.contains(&holder), "{holder} has {}, and the maestro says: {found:?}", file.name);
        }
    }
    Ok(())
}
