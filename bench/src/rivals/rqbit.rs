//! rqbit from rqbit: BitTorrent over TCP, each told of the other instead of having to find it.

use anyhow::Result;
use tokio::process::Command;

use super::{ByCommand, Site, torrent};
use crate::child::{Daemon, free_address};
use crate::gauge::Side;
use crate::tools;

/// Starts the one that has the file.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    let (seed_dir, torrent) = (site.seed_dir()?, site.dir.join("file.torrent"));
    torrent::write(&torrent, site.source, site.name, None)?;
    let seed_address = free_address()?;
    let mut command = quiet(site)?;
    command.args([
        "--listen-port",
        &seed_address.port().to_string(),
        "download",
        "--disable-http-api",
        "--overwrite",
    ]);
    command.arg("--output-folder").arg(&seed_dir).arg(&torrent);
    let mut seed = Daemon::start("rqbit", &mut command, site.dir)?;
    seed.listens(seed_address).await?;
    let receiver_address = free_address()?;
    Ok(ByCommand {
        name: "rqbit to rqbit, BitTorrent".to_owned(),
        daemons: vec![(Side::Sends, seed)],
        command: Box::new(move || {
            let mut command = quiet(site)?;
            command.args(["--listen-port", &receiver_address.port().to_string()]);
            command.args(["download", "--disable-http-api", "--exit-on-finish"]);
            command.args(["--initial-peers", &seed_address.to_string(), "--output-folder"]);
            command.arg(site.out()).arg(&torrent);
            Ok(command)
        }),
        out: Some(site.out()),
        product: site.file(),
    })
}

/// It asks nobody but whom it is told of.
fn quiet(site: Site<'_>) -> Result<Command> {
    let mut command = site.tools.command(tools::RQBIT)?;
    command.args(["--disable-dht", "--disable-lsd", "--disable-trackers", "--disable-upnp-port-forward"]);
    command.args(["--ipv4-only", "--listen-ip", "127.0.0.1"]).env("HOME", site.dir).current_dir(site.dir);
    Ok(command)
}
