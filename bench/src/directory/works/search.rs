//! `/search` for parts of names: some that nearly every name has, some that one has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::answers_rightly;
use crate::directory::Bench;
use crate::directory::catalogs::{Catalogs, Draw};
use crate::directory::filled::Filled;
use crate::directory::load::{Latencies, Patience, one_by_one};
use crate::directory::maestro::{Maestro, by_part};
use crate::directory::table::Figures;
use crate::statistics::Spread;

/// Results of a question.
const RESULTS: u32 = 20;
/// The 99th of a hundred may take so long.
const P99_MS: f64 = 150.0;
/// Questions of each length in a run.
const QUESTIONS: usize = 400;
/// A question is given up after that, and a run ends then, so that the row has an end where answers are slow.
const PATIENCE: Patience = Patience { each: Duration::from_secs(10), all: Duration::from_secs(60) };
/// How many letters a question has.
const LENGTHS: [(usize, usize); 3] = [(3, 3), (4, 6), (7, 16)];
/// Answers that are looked at closely before anything is measured.
const LOOKED_AT: usize = 60;

/// The big directory.
pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let filled = Filled::embedded(bench, bench.big_files).await?;
    let maestro = Maestro::start(filled.dir(), None).await?;
    let _peers = filled.come_back(maestro.address()?).await?;
    let catalogs = filled.catalogs();
    answers_rightly(&maestro, &catalogs).await?;
    let mut draw = catalogs.draw(3);
    finds_what_is_there(&maestro, &catalogs, &mut draw).await?;
    let (mut values, mut p99, mut unasked) = (Vec::new(), Vec::new(), 0);
    let mut of_length: Vec<Vec<Duration>> = vec![Vec::new(); LENGTHS.len()];
    for _ in 0..bench.runs {
        // One of each length in turn: a run that ends early has left out as many of each.
        let lengths = (0..QUESTIONS).flat_map(|_| LENGTHS);
        let parts = lengths.map(|length| by_part(&part(&catalogs, &mut draw, length), RESULTS));
        let parts: Vec<_> = parts.collect();
        let took = one_by_one(maestro.rest(), &parts, RESULTS as usize, PATIENCE).await?;
        unasked += parts.len() - took.len();
        for (place, took) in took.iter().enumerate() {
            of_length[place % LENGTHS.len()].push(*took);
        }
        let run = Latencies::new(took);
        values.push(millis(run.percentile(50.0)));
        p99.push(millis(run.percentile(99.0)));
    }
    let p99 = Spread::of(p99).context("nothing was measured")?;
    let of_length: Vec<Latencies> = of_length.into_iter().map(Latencies::new).collect();
    let longest = of_length.iter().map(Latencies::longest).max().unwrap_or_default();
    let mut notes: Vec<String> = of_length
        .iter()
        .zip(LENGTHS)
        .map(|(all, (least, most))| {
            let [p50, p99] = [50.0, 99.0].map(|percent| millis(all.percentile(percent)));
            format!("{least} to {most} letters: median {p50:.2} ms, 99 in 100 within {p99:.1} ms")
        })
        .collect();
    notes.push(format!("the longest of all took {:.0} ms", millis(longest)));
    if unasked > 0 {
        let asked = bench.runs * QUESTIONS * LENGTHS.len();
        notes.push(format!(
            "{unasked} of {asked} questions were not asked, since the time of their run was over"
        ));
    }
    Ok(Figures {
        values,
        ours: Some(format!("p99 {:.1} ms ({:.1}-{:.1})", p99.median, p99.least, p99.most)),
        filled: filled.how(),
        also: vec![(
            format!("99 in 100 within {:.1} ms, at most {P99_MS:.0}", p99.median),
            p99.median <= P99_MS,
        )],
        notes,
        ..Figures::default()
    })
}

/// A part of somebody's file name.
fn part(catalogs: &Catalogs, draw: &mut Draw, (least, most): (usize, usize)) -> String {
    loop {
        let (peer, place) = catalogs.any(draw);
        let letters: Vec<char> = catalogs.name(peer, place).chars().collect();
        let len = least + draw.below((most - least + 1) as u64) as usize;
        let Some(last) = letters.len().checked_sub(len) else { continue };
        let from = draw.below(last as u64 + 1) as usize;
        return letters[from..from + len].iter().collect();
    }
}

async fn finds_what_is_there(maestro: &Maestro, catalogs: &Catalogs, draw: &mut Draw) -> Result<()> {
    for looked in 0..LOOKED_AT {
        let part = part(catalogs, draw, LENGTHS[looked % LENGTHS.len()]);
        let answer = maestro.get(&by_part(&part, RESULTS)).await?;
        let files = answer["files"].as_array().context("the answer has no files")?;
        let is_through = answer["next"].is_null();
        ensure!(
            !files.is_empty() || !is_through,
            "nothing is found for {part:?}, which is in a name: {answer}"
        );
        for file in files {
            let name = file["name"].as_str().unwrap_or_default();
            let has_it = name.to_lowercase().contains(&part.to_lowercase());
            ensure!(has_it, "{name:?} is found for {part:?}");
        }
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
