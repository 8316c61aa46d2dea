//! `cargo xtask demo`: a maestro and three peers, as separate processes, and everything that they do.
//!
//! The walk is the full test script of the first system, step by step; it prints what a user would type and what is
//! answered, and holds each answer against what it should be. Then the network stays up until Ctrl-C.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use p2p_tests::{MAESTRO_GRPC, Network, PORTS, demonstration, programs};
use tokio::signal::unix::{SignalKind, signal};

mod screen;
mod try_it;
mod walk;

use screen::Screen;

/// Where the first system's ports begin.
const DEFAULT_FIRST_PORT: u16 = 9000;
/// How long a daemon may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// How the demonstration runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only check that every step does what it should, and end
    #[arg(long)]
    check: bool,
    /// First of the ports: N (maestro) to N+6 (P3), and N+10 (maestro's gRPC)
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FIRST_PORT,
          value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    ports_from: u16,
}

/// Runs the demonstration to its end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(demonstrate(options))
}

async fn demonstrate(options: &Options) -> Result<()> {
    let screen = Screen::new();
    check_ports(options.ports_from)?;
    screen.note("Building maestrod, p2pd and p2pctl (the first time takes a few minutes) …");
    // Building blocks this thread, and there is nothing else to do yet.
    programs()?;
    let began = std::time::Instant::now();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let network = tokio::select! {
        network = demonstration(Some(options.ports_from)).start() => network?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let mut network = network;
    let walked = tokio::select! {
        walked = walk::walk(&mut network, &screen) => walked.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
    };
    let ended = match walked {
        Err(error) => {
            // The logs go before the error, so that the error is what one sees last.
            screen.note(&network.log_ends());
            Err(error.context("the demonstration failed"))
        }
        Ok(None) => Err(anyhow!("interrupted before the end")),
        Ok(Some(checks)) => {
            screen.good(&format!("{checks} checks passed in {:.1} s.", began.elapsed().as_secs_f64()));
            if !options.check {
                try_it::print(&network, &screen)?;
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                screen.note("\nStopping …");
            }
            Ok(())
        }
    };
    stop(&mut network).await?;
    ended
}

/// Stops everyone in order, so that what is left behind is nothing.
async fn stop(network: &mut Network) -> Result<()> {
    let peers = network.peers().len();
    for number in 1..=peers {
        let daemon = network.peer_mut(number)?.daemon_mut();
        if daemon.is_running() {
            let ended = daemon.terminate(STOPS_WITHIN).await?;
            if !ended.status.success() {
                bail!("P{number} stopped badly ({}): {}", ended.status, ended.log);
            }
        }
    }
    let daemon = network.maestro_mut()?.daemon_mut();
    if daemon.is_running() {
        daemon.terminate(STOPS_WITHIN).await?;
    }
    Ok(())
}

/// Who needs a port, from the first one on.
fn owner(offset: u16) -> String {
    match offset {
        0 => "the maestro's REST".to_owned(),
        MAESTRO_GRPC => "the maestro's gRPC".to_owned(),
        odd if odd % 2 == 1 => format!("REST of P{}", odd.div_ceil(2)),
        even => format!("gRPC of P{}", even / 2),
    }
}

/// Finds out before anything starts that a port is taken, and names every one that is.
fn check_ports(first: u16) -> Result<()> {
    let mut taken = Vec::new();
    for offset in (0..PORTS).chain([MAESTRO_GRPC]) {
        let port = first.checked_add(offset).context("there are no such ports")?;
        if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            taken.push(format!("port {port} ({}): {error}", owner(offset)));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    bail!(
        "the demonstration cannot have its ports:\n  {}\nMaybe another demonstration is running. Stop what listens \
         there (`ss -ltnp` shows who it is), or take other ports: cargo xtask demo --ports-from {}",
        taken.join("\n  "),
        if first == 9100 { 9200 } else { 9100 }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_owner_and_a_way_out() {
        // A port of the system's choice, and with luck the ones after it: only this one needs to be taken.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = check_ports(port - 4).unwrap_err().to_string();
        assert!(message.contains(&format!("port {port} (gRPC of P2)")), "{message}");
        assert!(message.contains("--ports-from 9100"), "{message}");
    }
}
