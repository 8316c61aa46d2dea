//! What to try while the demonstration stays up: real commands, to be pasted.

use anyhow::Result;
use p2p_tests::Network;

use super::screen::Screen;
use super::walk::p2pctl;

/// Prints it.
pub(crate) fn print(network: &Network, screen: &Screen) -> Result<()> {
    let (one, other) = (network.peer(1)?, network.peer(2)?);
    screen.title("The network stays up until Ctrl-C. Things to try, from another terminal:");
    screen.note(&format!("\n  Everything is in {}\n", network.dir().display()));
    for peer in network.peers() {
        let ready = peer.daemon().ready();
        let (rest, grpc) = (ready.rest.port(), ready.grpc.port());
        screen.note(&format!(
            "  {}  REST {rest}  gRPC {grpc}  shares {}",
            peer.name(),
            peer.shared("").display()
        ));
    }
    screen.note(&format!("\n  alias p1='{}'\n  alias p2='{}'\n", p2pctl(one)?, p2pctl(other)?));
    let maestro = network.maestro()?.rest()?;
    for (command, what) in [
        ("p1 status".to_owned(), "how P1 is"),
        ("p1 list --all".to_owned(), "every file of the network"),
        ("p1 fetch archivo2.txt -o .".to_owned(), "a copy that is yours"),
        (
            format!("head -c 1G /dev/urandom > {}", other.shared("grande.bin").display()),
            "something big for P2",
        ),
        ("p1 fetch grande.bin".to_owned(), "… and P1 fetches it; Ctrl-C leaves it running"),
        ("p1 transfers --watch".to_owned(), "how it goes on"),
        ("p1 send README.md P2 --as docs/README.md".to_owned(), "give P2 a file"),
        (format!("curl {}/directory", maestro.base()), "the maestro's directory"),
        (format!("curl {}/files", one.rest()?.base()), "P1's files"),
        (format!("kill -9 {}", network.maestro()?.daemon().pid()?), "and then `p1 locate archivo3.txt`"),
    ] {
        screen.note(&format!("  {command:<44} # {what}"));
    }
    Ok(())
}
