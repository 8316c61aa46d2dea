//! aria2 from aria2 over BitTorrent, which find each other by a tracker.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::process::Command;

use super::tracker::Tracker;
use super::{ByCommand, Site, torrent};
use crate::child::{Daemon, free_address};
use crate::gauge::Side;
use crate::tools;

/// Starts the one that has the file.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    let (seed_dir, torrent) = (site.seed_dir()?, site.dir.join("file.torrent"));
    let (seed_address, receiver_address) = (free_address()?, free_address()?);
    let tracker = Tracker::start(seed_address).await?;
    torrent::write(&torrent, site.source, site.name, Some(&tracker.url()))?;
    let mut command = quiet(site, seed_address)?;
    command.args(["--check-integrity=true", "--seed-ratio=0.0", "--dir"]).arg(&seed_dir).arg(&torrent);
    let mut seed = Daemon::start("aria2c", &mut command, site.dir)?;
    seed.listens(seed_address).await?;
    Ok(ByCommand {
        name: "aria2 to aria2, BitTorrent".to_owned(),
        daemons: vec![(Side::Sends, seed)],
        command: Box::new(move || {
            // It is there as long as it is asked for.
            let _tracker = &tracker;
            let mut command = quiet(site, receiver_address)?;
            command.args(["--seed-time=0", "--dir"]).arg(site.out()).arg(&torrent);
            Ok(command)
        }),
        out: Some(site.out()),
        product: site.file(),
    })
}

/// It asks nobody but the tracker.
fn quiet(site: Site<'_>, listen: SocketAddr) -> Result<Command> {
    let mut command = site.tools.command(tools::ARIA2)?;
    command.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
    command.args([
        "--disable-ipv6=true",
        "--interface=127.0.0.1",
        "--summary-interval=0",
        "--show-console-readout=false",
    ]);
    command.arg(format!("--listen-port={}", listen.port()));
    Ok(command)
}
