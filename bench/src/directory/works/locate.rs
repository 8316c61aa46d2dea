//! `/locate` by name: as fast as answers come, and at half of that rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{answers_rightly, questions};
use crate::directory::Bench;
use crate::directory::filled::Filled;
use crate::directory::load::at_rate;
use crate::directory::maestro::Maestro;
use crate::directory::peers::Stream;
use crate::directory::postgres::Cluster;
use crate::directory::table::{Figures, rates};
use crate::directory::web::{CONNECTIONS, StaticAnswer, Wrk};
use crate::rows::Measure;
use crate::statistics::{Spread, ratios};
use crate::table::with_range;

/// Answers of which the one of middle length is taken as nginx's.
const MEASURED_ANSWERS: usize = 200;
/// How long the first question of each is asked, which does not count.
const WARM: Duration = Duration::from_secs(2);

/// A filled directory with a maestro on it and its peers connected.
struct Served {
    maestro: Maestro,
    address: SocketAddr,
    filled: Filled,
    _peers: Vec<Stream>,
}

async fn serve(filled: Filled, store: Option<&str>) -> Result<Served> {
    let maestro = Maestro::start(filled.dir(), store).await?;
    let peers = filled.come_back(maestro.address()?).await?;
    answers_rightly(&maestro, &filled.catalogs()).await?;
    let address = maestro.rest();
    Ok(Served { maestro, address, filled, _peers: peers })
}

/// The small directory beside nginx, and what answers of both take at half of its rate; the latter alone where `only_p99`.
pub(super) async fn small(bench: &Bench, only_p99: bool) -> Result<Vec<Figures>> {
    let served = serve(Filled::embedded(bench, bench.files).await?, None).await?;
    let paths = questions(&served.filled.catalogs());
    let answer = usual_answer(&served.maestro, &paths).await?;
    let dir = tempfile::tempdir()?;
    let nginx = StaticAnswer::start(&bench.tools, dir.path(), &answer).await?;
    let wrk = Wrk::new(&bench.tools, dir.path(), &paths)?;
    let (ours, theirs) = turns(bench, &wrk, served.address, nginx.address()).await?;
    let filled = served.filled.how();
    let median = Spread::of(ours.iter().copied()).context("nothing was measured")?.median;
    let fast = Figures {
        values: ratios(&ours, &theirs),
        ours: rates(&ours),
        other: rates(&theirs),
        filled: filled.clone(),
        notes: vec![format!("the static answer has {} bytes", answer.len())],
        ..Figures::default()
    };
    let (paths, rate) = (Arc::new(paths), median / 2.0);
    let (mut values, mut medians, mut longest, mut theirs) =
        (Vec::new(), Vec::new(), Duration::ZERO, Vec::new());
    for _ in 0..bench.runs {
        let lasting = Duration::from_secs(bench.secs);
        let seen = at_rate(served.address, &paths, rate, CONNECTIONS, lasting).await?;
        values.push(millis(seen.percentile(99.0)));
        medians.push(millis(seen.percentile(50.0)));
        longest = longest.max(seen.longest());
        let seen = at_rate(nginx.address(), &paths, rate, CONNECTIONS, lasting).await?;
        theirs.push(millis(seen.percentile(99.0)));
    }
    let median = Spread::of(medians).map_or(0.0, |spread| spread.median);
    let late = Figures {
        values,
        filled,
        ours: Some(format!("median {median:.2} ms, longest {:.1} ms", millis(longest))),
        other: Spread::of(theirs).map(|spread| with_range(Measure::Millis, spread)),
        notes: vec![
            format!("{rate:.0} questions a second; the client's clock counts in steps of 1 ms"),
            "beside it the same of nginx, at the same rate: what client and machine take".to_owned(),
        ],
        ..Figures::default()
    };
    Ok(if only_p99 { vec![late] } else { vec![fast, late] })
}

/// The big directory beside the small one.
pub(super) async fn big(bench: &Bench) -> Result<Figures> {
    let small = Box::pin(serve(Filled::embedded(bench, bench.files).await?, None)).await?;
    let big = Box::pin(serve(Filled::embedded(bench, bench.big_files).await?, None)).await?;
    beside(bench, &big, &small).await
}

/// The big directory in PostgreSQL beside the same in the embedded store.
pub(super) async fn postgres(bench: &Bench) -> Result<Figures> {
    let cluster = Cluster::start(bench).await?;
    let url = cluster.url();
    let filled = Filled::with(bench, &cluster.name(bench.big_files), bench.big_files, Some(&url)).await?;
    let there = Box::pin(serve(filled, Some(&url))).await?;
    let here = Box::pin(serve(Filled::embedded(bench, bench.big_files).await?, None)).await?;
    let figures = beside(bench, &there, &here).await?;
    drop(there);
    cluster.end().await?;
    Ok(figures)
}

async fn beside(bench: &Bench, one: &Served, other: &Served) -> Result<Figures> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let wrk = |served: &Served, dir: &tempfile::TempDir| {
        Wrk::new(&bench.tools, dir.path(), &questions(&served.filled.catalogs()))
    };
    let [first, second] = [wrk(one, &dirs[0])?, wrk(other, &dirs[1])?];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for served in [one, other] {
        served.filled.read_once()?;
    }
    first.run(one.address, WARM, 0).await?;
    second.run(other.address, WARM, 0).await?;
    for (_, seed) in (0..bench.runs).zip(1..) {
        ours.push(first.run(one.address, Duration::from_secs(bench.secs), seed).await?);
        theirs.push(second.run(other.address, Duration::from_secs(bench.secs), seed).await?);
    }
    Ok(Figures {
        values: ratios(&ours, &theirs),
        ours: rates(&ours),
        other: rates(&theirs),
        filled: one.filled.how(),
        notes: vec![format!("beside it {}", other.filled.how())],
        ..Figures::default()
    })
}

/// Both in turn, with the same questions.
async fn turns(
    bench: &Bench,
    wrk: &Wrk<'_>,
    one: SocketAddr,
    other: SocketAddr,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    wrk.run(one, WARM, 0).await?;
    wrk.run(other, WARM, 0).await?;
    for (_, seed) in (0..bench.runs).zip(1..) {
        ours.push(wrk.run(one, Duration::from_secs(bench.secs), seed).await?);
        theirs.push(wrk.run(other, Duration::from_secs(bench.secs), seed).await?);
    }
    Ok((ours, theirs))
}

/// The answer of middle length to some of these.
async fn usual_answer(maestro: &Maestro, paths: &[String]) -> Result<String> {
    let mut answers = Vec::new();
    for path in paths.iter().take(MEASURED_ANSWERS) {
        answers.push(maestro.get(path).await?.to_string());
    }
    answers.sort_by_key(String::len);
    let middle = answers.len() / 2;
    answers.into_iter().nth(middle).context("nothing was asked")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
