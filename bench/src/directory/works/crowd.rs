//! Many peers that stay connected, of which in each second one in a hundred has something new to tell. Now and then each of them
//! has some of the others drawn for it, to know them while the maestro is down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use p2p_identity::Identity;
use tokio::sync::Mutex;
use tokio::time::sleep_until;

use crate::directory::Bench;
use crate::directory::catalogs::{Catalogs, peer_name};
use crate::directory::filled::thousands;
use crate::directory::maestro::{Maestro, own_dir};
use crate::directory::peers::{DRAW_EVERY, Stream, Told};
use crate::directory::table::Figures;
use crate::processes::{cpu_with_children, forget_peak, peak_memory};
use crate::statistics::Spread;

/// Files of each peer.
const FILES_EACH: u64 = 20;
/// Of so many peers one changes in a second.
const ONE_IN: u64 = 100;
/// Peers that connect at the same time.
const CONNECTING: usize = 64;
/// Memory of maestrod.
const MEMORY_MIB: f64 = 600.0;
/// How long it goes on before it counts: all have been asked by then whether they are alive, and the text index has all.
const SETTLE: Duration = Duration::from_secs(15);
/// An acknowledgement that takes so long says that the maestro does not keep up.
const LATE: Duration = Duration::from_secs(1);

struct Member {
    stream: Stream,
    version: u64,
}

/// The row.
pub(super) async fn run(bench: &Bench) -> Result<Figures> {
    let dir = own_dir(bench.disk.as_ref())?;
    let maestro = Maestro::start(dir.path(), None).await?;
    let (address, pid) = (maestro.address()?, maestro.pid()?);
    let catalogs = Catalogs::new(bench.seed, bench.crowd, bench.crowd * FILES_EACH);
    let began = Instant::now();
    let coming = (0..catalogs.peers()).map(|peer| {
        tokio::spawn(async move {
            let identity = Identity::generate()?;
            let mut stream = Stream::open(&identity, &peer_name(peer), address, Told::default()).await?;
            stream.announce(catalogs.of(peer)).await?;
            anyhow::Ok(Arc::new(Mutex::new(Member { stream, version: 0 })))
        })
    });
    let members: Vec<Arc<Mutex<Member>>> =
        iter(coming).buffered(CONNECTING).map(|joined| joined?).try_collect().await?;
    let came_secs = began.elapsed().as_secs_f64();
    go_on(&members, &catalogs, bench.seed, SETTLE).await?;
    let connected = maestro.metric("maestrod_sync_streams").await?;
    ensure!(connected == catalogs.peers() as f64, "{connected} of {} are connected", catalogs.peers());
    forget_peak(pid)?;
    let (mut values, mut acknowledged) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        let (cpu, began) = (cpu_with_children(pid)?, Instant::now());
        let lasting = Duration::from_secs(bench.secs);
        let mut took = go_on(&members, &catalogs, bench.seed + 1 + run as u64, lasting).await?;
        let used = cpu_with_children(pid)?.saturating_sub(cpu).as_secs_f64();
        values.push(100.0 * used / began.elapsed().as_secs_f64());
        acknowledged.append(&mut took);
    }
    let memory = peak_memory(pid).context("maestrod has ended")? as f64 / f64::from(1 << 20);
    let still = maestro.metric("maestrod_sync_streams").await?;
    ensure!(still == connected, "{} streams broke", connected - still);
    acknowledged.sort_unstable();
    let p99 = acknowledged.get(acknowledged.len() * 99 / 100).copied().unwrap_or_default();
    let spread = Spread::of(acknowledged.iter().map(Duration::as_secs_f64)).context("nothing was told")?;
    Ok(Figures {
        values,
        ours: Some(format!("{memory:.0} MiB")),
        filled: format!(
            "{} peers with {FILES_EACH} files each, connected and told in {came_secs:.0} s; {} changes and {:.1} draws of \
             members a second",
            thousands(catalogs.peers()),
            catalogs.peers() / ONE_IN,
            catalogs.peers() as f64 / DRAW_EVERY.as_secs_f64()
        ),
        also: vec![
            (
                format!("resident memory at most {memory:.0} MiB, less than {MEMORY_MIB:.0}"),
                memory < MEMORY_MIB,
            ),
            (format!("all changes are acknowledged, 99 in 100 within {p99:?}"), p99 < LATE),
        ],
        notes: vec![format!(
            "acknowledged after {:.1} ms in the median, {:.0} ms at the most",
            spread.median * 1000.0,
            spread.most * 1000.0
        )],
        ..Figures::default()
    })
}

/// Has them go on for so long. How long the acknowledgements took.
async fn go_on(
    members: &[Arc<Mutex<Member>>],
    catalogs: &Catalogs,
    seed: u64,
    lasting: Duration,
) -> Result<Vec<Duration>> {
    let changes = change(members, catalogs, seed, lasting);
    let (took, ()) = tokio::try_join!(changes, draw(members, catalogs, seed, lasting))?;
    Ok(took)
}

/// Has each peer know some of the others anew as often as it does, evenly.
async fn draw(
    members: &[Arc<Mutex<Member>>],
    catalogs: &Catalogs,
    seed: u64,
    lasting: Duration,
) -> Result<()> {
    let mut random = catalogs.draw(!seed);
    let rate = catalogs.peers() as f64 / DRAW_EVERY.as_secs_f64();
    let began = Instant::now();
    let mut drawing = Vec::new();
    for number in 0..(rate * lasting.as_secs_f64()) as u32 {
        sleep_until((began + Duration::from_secs_f64(f64::from(number) / rate)).into()).await;
        let index = usize::try_from(random.below(catalogs.peers())).unwrap_or(usize::MAX);
        let member = Arc::clone(members.get(index).context("there is no such peer")?);
        drawing.push(tokio::spawn(async move {
            let drawn = member.lock().await.stream.draw();
            drawn.await
        }));
    }
    for drawn in drawing {
        ensure!(drawn.await?? > 0, "nobody was drawn");
    }
    Ok(())
}

/// Has one in a hundred tell a change in each second, evenly. How long the acknowledgements took.
async fn change(
    members: &[Arc<Mutex<Member>>],
    catalogs: &Catalogs,
    seed: u64,
    lasting: Duration,
) -> Result<Vec<Duration>> {
    let mut draw = catalogs.draw(seed);
    let rate = (catalogs.peers() / ONE_IN).max(1) as f64;
    let changes = (rate * lasting.as_secs_f64()) as u32;
    let began = Instant::now();
    let mut telling = Vec::new();
    for number in 0..changes {
        let due = began + Duration::from_secs_f64(f64::from(number) / rate);
        sleep_until(due.into()).await;
        let (peer, catalogs) = (draw.below(catalogs.peers()), *catalogs);
        let index = usize::try_from(peer).unwrap_or(usize::MAX);
        let member = Arc::clone(members.get(index).context("there is no such peer")?);
        telling.push(tokio::spawn(async move {
            let mut member = member.lock().await;
            // The first file changes again and again.
            let old = match member.version {
                0 => catalogs.file(peer, 0),
                version => catalogs.changed(peer, 0, version),
            };
            member.version += 1;
            let new = catalogs.changed(peer, 0, member.version);
            member.stream.change(&old, new).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut took = Vec::new();
    for told in telling {
        took.push(told.await??);
    }
    Ok(took)
}
