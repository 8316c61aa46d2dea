//! The maestro that runs: whether it answers on its ports, who it is, and of which version.

use p2p_identity::{Identity, PeerId};
use p2p_proto::diagnosis::Check;
use p2p_proto::rest::MaestroRoot;
use p2p_service::wire::{self, Probed};

use super::state::Daemon;
use crate::ask::{PATIENCE, Unasked, ask, near};
use crate::config::Config;

/// Asks both ports. `id` is the identity of the state directory, where it can be read.
pub(super) async fn examine(config: &Config, id: Option<PeerId>, daemon: Daemon) -> Vec<Check> {
    let rest = ask::<MaestroRoot>(&config.rest.listen, "/").await;
    let mut checks = Vec::new();
    if let Daemon::Runs { pid } = daemon {
        checks.push(Check::ok("daemon", format!("maestrod runs: process {pid}")));
    }
    let answered = match rest {
        Ok(root) => {
            checks.push(Check::ok("rest", format!("{} answers", config.rest.listen)));
            Some(root)
        }
        Err(Unasked::NoPort) => {
            checks.push(Check::skipped("rest", "the configuration leaves the port to the system"));
            None
        }
        Err(Unasked::Silent(why)) => {
            checks.push(
                Check::problem("rest", format!("{} does not answer: {why}", config.rest.listen))
                    .advise("journalctl -u maestrod -n 20")
                    .advise("after a change of [rest] listen: sudo systemctl restart maestrod"),
            );
            None
        }
    };
    let told = answered.as_ref().and_then(|root| root.maestro_id.parse().ok());
    checks.push(grpc(&config.grpc.listen, id.or(told)).await);
    if let Some(root) = &answered {
        checks.push(program(&root.version));
        checks.push(identity(id, &root.maestro_id));
        let peers = root.peers_registrados;
        let noun = if peers == 1 { "peer is" } else { "peers are" };
        checks.push(Check::ok("peers", format!("{peers} {noun} online")));
    }
    checks
}

async fn grpc(listen: &str, expected: Option<PeerId>) -> Check {
    const NAME: &str = "grpc";
    let (Some(address), Some(expected)) = (near(listen), expected) else {
        return Check::skipped(NAME, format!("{listen} cannot be asked: port or identity are not known"));
    };
    // Who asks does not matter: a listener takes anyone as far as the handshake.
    let probed = match Identity::generate() {
        Ok(anyone) => wire::probe(&anyone, address, expected, PATIENCE).await,
        Err(error) => return Check::skipped(NAME, error.to_string()),
    };
    match probed {
        Ok(Probed::Reached) => Check::ok(NAME, format!("{listen} answers as this maestro")),
        Ok(Probed::OtherPeer) => Check::problem(NAME, format!("another identity answers on {listen}"))
            .advise("another maestrod, or a peer, has this port: see it with ss -ltnp"),
        Ok(Probed::NotTls) => {
            Check::problem(NAME, format!("something else answers on {listen}")).advise("see it with ss -ltnp")
        }
        Ok(Probed::Refused | Probed::Silent | Probed::NoRoute) => {
            Check::problem(NAME, format!("{listen} does not answer: peers cannot connect"))
                .advise("journalctl -u maestrod -n 20")
                .advise("after a change of [grpc] listen: sudo systemctl restart maestrod")
        }
        Err(error) => Check::problem(NAME, error.to_string()),
    }
}

fn program(running: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match running == own {
        true => Check::ok("program", format!("the maestrod that runs is {own}, as this one")),
        false => {
            Check::warning("program", format!("this is maestrod {own}, and the one that runs is {running}"))
                .advise("sudo systemctl restart maestrod")
        }
    }
}

fn identity(of_state: Option<PeerId>, answers: &str) -> Check {
    const NAME: &str = "running-identity";
    match of_state {
        Some(id) if id.to_string() != answers => {
            Check::problem(NAME, format!("the maestro that answers is {answers}, and the key file is {id}'s"))
                .advise("is there another maestrod? Or was the key file replaced: then restart maestrod")
        }
        Some(_) => Check::ok(NAME, "the maestro that answers is the one of this state directory"),
        None => Check::ok(NAME, format!("the maestro that answers is {answers}")),
    }
}
