//! The demonstration network: the first system's one maestro and three peers, each with its `archivoN.txt`.

use crate::files::write_file;
use crate::network::{Network, NetworkBuilder};

/// Ports of the demonstration network, from its first one on: the maestro's REST, then REST and gRPC of each peer.
pub const PORTS: u16 = 7;
/// Where the maestro's gRPC port is, from the first one on.
pub const MAESTRO_GRPC: u16 = 10;

/// Describes the demonstration network, on ports from `first_port` on or wherever the system likes.
///
/// It opens what a real one keeps shut: anyone on this machine may write through REST, speak plaintext gRPC, and offer
/// files; and what nobody vouches for is fetched.
pub fn demonstration<'a>(first_port: Option<u16>) -> NetworkBuilder<'a> {
    let listen = move |offset: u16| format!("127.0.0.1:{}", first_port.map_or(0, |first| first + offset));
    Network::builder()
        .peers(3)
        .maestro_with(move |settings| {
            settings.set("name", "Maestro").set("rest.listen", listen(0));
            settings.set("grpc.listen", listen(MAESTRO_GRPC));
        })
        .peers_with(move |number, settings| {
            let rest = u16::try_from(2 * number - 1).unwrap_or(u16::MAX);
            settings.set("rest.listen", listen(rest)).set("grpc.listen", listen(rest + 1));
            settings.set("rest.require_token", false).set("grpc.plaintext", "loopback");
            settings.set("transfers.allow_unproven", true).set("transfers.accept_offers", "network");
        })
        .files(|number, shared| {
            let text = format!("Este es el archivo {number}. Lo comparte el peer P{number}.\n");
            write_file(&shared.join(format!("archivo{number}.txt")), text)
        })
}
