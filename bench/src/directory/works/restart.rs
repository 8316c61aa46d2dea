//! A maestro that is started with a large directory: how long until it answers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use p2p_tests::as_soon_as;

use crate::directory::Bench;
use crate::directory::catalogs::peer_name;
use crate::directory::filled::Filled;
use crate::directory::maestro::Maestro;
use crate::directory::table::Figures;

/// How long it may take at all.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// The row: each time after SIGTERM, and at the end once after SIGKILL.
pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let filled = Filled::embedded(bench, bench.big_files).await?;
    let catalogs = filled.catalogs();
    let mut maestro = Maestro::start(filled.dir(), None).await?;
    let peers = filled.come_back(maestro.address()?).await?;
    let (name, holder) = (catalogs.name(0, catalogs.each() - 1), peer_name(0));
    let mut values = Vec::new();
    for killed in (0..bench.runs).map(|_| false).chain([true]) {
        match killed {
            true => maestro.kill().await?,
            false => maestro.stop().await?,
        }
        let began = Instant::now();
        maestro.start_again().await?;
        // Nobody has come back yet: what is shown is what was there when it ended.
        as_soon_as(ANSWERS_WITHIN, "the maestro answers", async || {
            let found = maestro.who_has(&name).await?;
            ensure!(found.contains(&holder), "{found:?}");
            Ok(())
        })
        .await?;
        values.push(began.elapsed().as_secs_f64());
    }
    drop(peers);
    let after_kill = values.pop().unwrap_or_default();
    Ok(Figures {
        values,
        filled: filled.how(),
        notes: vec![format!("after SIGKILL: {after_kill:.2} s; the database is in the page cache")],
        ..Figures::default()
    })
}
