//! One peer with a large catalog: how long until others find what it has, and what that costs the maestro.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_identity::Identity;
use p2p_tests::eventually;

use crate::directory::Bench;
use crate::directory::catalogs::{Catalogs, peer_name};
use crate::directory::filled::{Filled, thousands};
use crate::directory::maestro::{Maestro, by_part, own_dir};
use crate::directory::peers::{Stream, Told};
use crate::directory::postgres::Cluster;
use crate::directory::table::{Figures, rates};
use crate::processes::cpu_with_children;
use crate::statistics::Spread;

/// How much later it must be found by parts of its name.
const PARTS_SECS: f64 = 10.0;
/// Private memory of maestrod meanwhile.
const PRIVATE_MIB: f64 = 300.0;
/// Runs that count, at the most: each takes half a minute.
const RUNS: usize = 5;
/// How long a file may take until it is found.
const FOUND_WITHIN: Duration = Duration::from_secs(600);
/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Seen {
    found_secs: f64,
    parts_secs: f64,
    private_mib: f64,
    cpu_secs: f64,
}

/// The row of the embedded store.
pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let mut all = Vec::new();
    for nth in 0..bench.runs.min(RUNS) {
        let catalogs = Catalogs::new(bench.seed + nth as u64, 1, bench.files);
        all.push(once(bench, catalogs).await?);
    }
    let spread = |of: fn(&Seen) -> f64| Spread::of(all.iter().map(of)).context("nothing was measured");
    let (parts, private, cpu) =
        (spread(|seen| seen.parts_secs)?, spread(|seen| seen.private_mib)?, spread(|seen| seen.cpu_secs)?);
    let told: Vec<f64> = all.iter().map(|seen| bench.files as f64 / seen.found_secs).collect();
    Ok(Figures {
        values: all.iter().map(|seen| seen.found_secs).collect(),
        ours: rates(&told),
        filled: format!(
            "{} files, told by one peer over its Sync stream to an empty directory",
            thousands(bench.files)
        ),
        also: vec![
            (
                format!(
                    "found by a part of its name {:.1} s ({:.1}-{:.1}) later, at most {PARTS_SECS:.0}",
                    parts.median, parts.least, parts.most
                ),
                parts.median <= PARTS_SECS,
            ),
            (
                format!(
                    "private memory of maestrod at most {:.0} MiB ({:.0}-{:.0}), less than {PRIVATE_MIB:.0}",
                    private.median, private.least, private.most
                ),
                private.most < PRIVATE_MIB,
            ),
        ],
        notes: vec![format!(
            "processor time of maestrod until then: {:.1} s ({:.1}-{:.1})",
            cpu.median, cpu.least, cpu.most
        )],
        ..Figures::default()
    })
}

async fn once(bench: &Bench, catalogs: Catalogs) -> Result<Seen> {
    let dir = own_dir(bench.disk.as_ref())?;
    let maestro = Maestro::start(dir.path(), None).await?;
    let memory = Watched::new(maestro.pid()?);
    let identity = Identity::generate()?;
    let last = catalogs.file(0, catalogs.each() - 1);
    let holder = peer_name(0);
    let cpu_before = cpu_with_children(maestro.pid()?)?;
    let began = Instant::now();
    let mut stream = Stream::open(&identity, &holder, maestro.address()?, Told::default()).await?;
    stream.announce(catalogs.of(0)).await?;
    eventually(FOUND_WITHIN, "the last file is found by its name and its content", async || {
        for found in [maestro.who_has(&last.name).await?, maestro.who_has_content(&last.content).await?] {
            ensure!(found.contains(&holder), "{found:?}");
        }
        Ok(())
    })
    .await?;
    let found_secs = began.elapsed().as_secs_f64();
    eventually(FOUND_WITHIN, "the last file is found by a part of its name", async || {
        // All of the index is looked at, not only that of the last names, which are tried one by one.
        let behind = maestro.metric("maestrod_names_unindexed").await?;
        ensure!(behind == 0.0, "{behind} names are not indexed");
        let part: String = last.name.chars().skip(4).collect();
        let answer = maestro.get(&by_part(&part, 20)).await?.to_string();
        ensure!(answer.contains(&last.name), "{answer}");
        Ok(())
    })
    .await?;
    let parts_secs = began.elapsed().as_secs_f64() - found_secs;
    let cpu_secs = cpu_with_children(maestro.pid()?)?.saturating_sub(cpu_before).as_secs_f64();
    let private_mib = memory.most() as f64 / f64::from(1 << 20);
    stream.leave().await?;
    Ok(Seen { found_secs, parts_secs, private_mib, cpu_secs })
}

/// The big directory told to an empty PostgreSQL and to an empty embedded store, in turn.
pub(super) async fn postgres(bench: &Bench) -> Result<Figures> {
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs.min(RUNS) {
        let cluster = Cluster::anew(bench).await?;
        there.push(Filling::of(Filled::anew(bench, bench.big_files, Some(&cluster.url())).await?));
        cluster.end().await?;
        // What the one has still to write is not to be the other's to wait for.
        rustix::fs::sync();
        here.push(Filling::of(Filled::anew(bench, bench.big_files, None).await?));
        rustix::fs::sync();
    }
    let told = |all: &[Filling]| all.iter().map(|filling| filling.told_per_sec).collect::<Vec<_>>();
    let indexed = |all: &[Filling]| {
        let spread = Spread::of(all.iter().map(|filling| filling.indexed_secs));
        spread.map(|Spread { least, median, most }| format!("{median:.0} s ({least:.0}-{most:.0})"))
    };
    let (ours, other) = (told(&there), told(&here));
    let (indexed_there, indexed_here) = (indexed(&there), indexed(&here));
    Ok(Figures {
        values: ours.iter().zip(&other).map(|(ours, other)| ours / other).collect(),
        ours: rates(&ours),
        other: rates(&other),
        filled: format!(
            "{} files of {} peers, told over their Sync streams to an empty directory",
            thousands(bench.big_files),
            thousands(bench.peers)
        ),
        notes: vec![format!(
            "in the text index {} later; embedded {}",
            indexed_there.context("nothing was measured")?,
            indexed_here.context("nothing was measured")?
        )],
        ..Figures::default()
    })
}

/// How fast a directory was filled.
struct Filling {
    told_per_sec: f64,
    indexed_secs: f64,
}

impl Filling {
    /// The directory is taken away.
    fn of(filled: Filled) -> Filling {
        Filling { told_per_sec: filled.told_per_sec(), indexed_secs: filled.indexed_secs() }
    }
}

/// A look now and then at the private memory of a process, until it is dropped.
struct Watched {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    fn new(pid: u32) -> Watched {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let watched = Watched { most: Arc::clone(&most), over: Arc::clone(&over) };
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(private_memory(pid), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        watched
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// Bytes of memory that no other process shares; 0 where it has ended.
fn private_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_private_memory() {
        let some = private_memory(std::process::id());
        let more = vec![1u8; 32 << 20];
        assert!(some > 100_000 && private_memory(std::process::id()) > some + (30 << 20), "{}", more.len());
        assert_eq!(private_memory(u32::MAX), 0);
    }
}
