//! sendme from sendme: iroh's blobs over QUIC, without a relay.

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{ByCommand, Site};
use crate::child::{Daemon, free_address};
use crate::gauge::Side;
use crate::tools;

/// Neither reaches beyond this machine, nor draws.
const LOCAL: [&str; 5] = ["--magic-ipv6-addr", "[::1]:0", "--relay", "disabled", "--no-progress"];

/// Starts the one that has the file, and reads its ticket.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    let seed_dir = site.seed_dir()?;
    let mut command = quiet(site)?;
    command.args(["send", "--ticket-type", "addresses", "--magic-ipv4-addr", &free_address()?.to_string()]);
    command.args(LOCAL).arg(seed_dir.join(site.name)).current_dir(site.dir);
    let mut sender = Daemon::start("sendme", &mut command, site.dir)?;
    let ticket = sender
        .until("sendme prints a ticket", async |wrote| ticket_in(wrote).context("there is no ticket yet"))
        .await?;
    Ok(ByCommand {
        name: "sendme to sendme, QUIC".to_owned(),
        daemons: vec![(Side::Sends, sender)],
        command: Box::new(move || {
            let mut command = quiet(site)?;
            command.args(["receive", "--magic-ipv4-addr", "127.0.0.1:0"]).args(LOCAL);
            command.arg(&ticket).current_dir(site.out());
            Ok(command)
        }),
        out: Some(site.out()),
        product: site.file(),
    })
}

fn quiet(site: Site<'_>) -> Result<Command> {
    let mut command = site.tools.command(tools::SENDME)?;
    command.env("HOME", site.dir);
    Ok(command)
}

/// What follows `sendme receive`, where the line is whole.
fn ticket_in(wrote: &str) -> Option<String> {
    let (_, after) = wrote.split_once("sendme receive ")?;
    let (ticket, _) = after.split_once('\n')?;
    Some(ticket.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_when_it_is_whole() {
        assert_eq!(ticket_in("imported file\nto get this data, use\nsendme receive blobabc"), None);
        assert_eq!(ticket_in("use\nsendme receive blobabc\n").as_deref(), Some("blobabc"));
    }
}
