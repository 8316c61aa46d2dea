//! `why`: what bounds a transfer.

use std::time::Duration;

use p2p_proto::control::{TimeShares, WaitsFor, Why, WhySource};

use crate::cli;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, count, peer, rate, size};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `why`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Why) -> Result<(), Failure> {
    match args.watch {
        false => show(out, &look(client, args.id).await?),
        true => {
            tokio::select! {
                biased;
                // Ctrl-C is how one stops watching, and no failure.
                _ = tokio::signal::ctrl_c() => Ok(()),
                ended = watch(client, out, args.id) => ended,
            }
        }
    }
}

async fn look(client: &Client, id: u64) -> Result<Answer<Why>, Failure> {
    client.get::<Why>(&format!("/v1/transfers/{id}/why")).await
}

/// Until it has ended.
async fn watch(client: &Client, out: &Output, id: u64) -> Result<(), Failure> {
    loop {
        let answer = look(client, id).await?;
        show(out, &answer)?;
        if answer.value.state.is_ended() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        if !out.json() {
            out.line("")?;
        }
    }
}

fn show(out: &Output, answer: &Answer<Why>) -> Result<(), Failure> {
    let why = &answer.value;
    if out.json() {
        return out.raw(&answer.raw);
    }
    out.line(&why.says)?;
    if why.measured_ms > 0 {
        out.line("")?;
        out.table(&shares(why))?;
    }
    if !why.sources.is_empty() {
        out.line("")?;
        out.table(&sources(why))?;
    }
    if let Some(resumed) = why.resumed {
        out.line("")?;
        out.line(&format!(
            "It went on with {} that were remembered; {} not remembered and hashed to find out, {}.",
            count(resumed.remembered_pieces.into(), "piece", "pieces"),
            count(resumed.hashed_pieces.into(), "piece was", "pieces were"),
            size(resumed.hashed_bytes)
        ))?;
    }
    Ok(())
}

fn shares(why: &Why) -> Table {
    let over = match why.state.is_ended() {
        true => "SHARE OF ALL",
        false => "SHARE",
    };
    let mut table =
        Table::new(&[Column::right(over), Column::left("TIME OF THE SOURCES"), Column::flow("FIGURES")]);
    let TimeShares { bytes, their_limit, our_limit, disk, proofs, connecting, idle } = why.shares;
    let of_all = (why.limit_bytes_per_sec > 0).then(|| format!("limit: {}", rate(why.limit_bytes_per_sec)));
    let of_one = |source: &WhySource| {
        let limit = Some(source.limit_bytes_per_sec).filter(|limit| *limit > 0);
        limit.map(|limit| format!("of {}: {}", source.peer.name, rate(limit)))
    };
    let limits: Vec<String> = of_all.into_iter().chain(why.sources.iter().filter_map(of_one)).collect();
    let limit = limits.join(", ");
    let pace = |bytes_per_sec: Option<u64>, what: &str| {
        bytes_per_sec.map(|pace| format!("{what} {} a thread", rate(pace))).unwrap_or_default()
    };
    let cores = format!("{:.1} of {} busy", why.cpu.busy_cores, count(why.cpu.cores, "core", "cores"));
    let proving = match pace(why.cpu.bytes_per_sec, "proves") {
        pace if pace.is_empty() => cores,
        pace => format!("{pace}, {cores}"),
    };
    let seconds = why.measured_ms as f64 / 1000.0;
    for (share, what, figures) in [
        (bytes, "waiting for bytes", format!("{} in {seconds:.1} s", rate(why.bytes_per_sec))),
        (their_limit, "held back by their limit", String::new()),
        (our_limit, "held back by our limit", limit),
        (disk, "waiting for the disk", pace(why.disk.bytes_per_sec, "writes")),
        (proofs, "waiting for proofs", proving),
        (connecting, "connecting", String::new()),
        (idle, "with nothing to ask for", String::new()),
    ] {
        table.row([percent(share).into(), what.into(), figures.into()]);
    }
    table
}

fn sources(why: &Why) -> Table {
    let mut table = Table::new(&[
        Column::right("PACE"),
        Column::right("OPEN"),
        Column::left("WAITS FOR"),
        Column::right("SINCE"),
        Column::flow("SOURCE"),
    ]);
    for source in &why.sources {
        table.row([
            rate(source.bytes_per_sec).into(),
            source.open_requests.to_string().into(),
            waits_for(source),
            format!("{:.1} s", source.waits_ms as f64 / 1000.0).into(),
            peer(&source.peer).into(),
        ]);
    }
    table
}

fn waits_for(source: &WhySource) -> Cell {
    match source.waits_for {
        WaitsFor::Connection => Cell::toned("a connection", Tone::Busy),
        WaitsFor::Bytes => "bytes".into(),
        WaitsFor::TheirLimit => Cell::toned("its own limit", Tone::Busy),
        WaitsFor::OurLimit => Cell::toned("our limit", Tone::Busy),
        WaitsFor::OurLimitForIt => Cell::toned("our limit for it", Tone::Busy),
        WaitsFor::Sink => Cell::toned("disk and proofs", Tone::Busy),
        WaitsFor::Nothing => "nothing".into(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
