//! `peers`: who is in the network.

use p2p_proto::control::{PeerList, PeerRow, Relation};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, short_id, size};

/// Runs `peers`.
pub(super) async fn run(client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = client.get::<PeerList>("/v1/peers").await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let list = answer.value;
    if list.peers.is_empty() {
        out.note("No peers are known. Join a network with `p2pctl join HOST`, or add a friend with `p2pctl friends add`.");
    } else {
        show(out, &list.peers)?;
    }
    if let Some(why) = list.incomplete {
        out.warn(&format!("this may not be all: {why}"));
    }
    Ok(())
}

fn show(out: &Output, peers: &[PeerRow]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Column::left("NAME"),
        Column::left("ID"),
        Column::left("IS"),
        Column::left("ONLINE"),
        Column::right("FILES"),
        Column::right("SIZE"),
        Column::left("VERSION"),
        Column::flow("ADDRESS"),
    ]);
    for row in peers {
        let relation = match row.relation {
            Relation::Own => "this peer",
            Relation::Member => "member",
            Relation::Friend => "friend",
            Relation::Plain => "plain",
        };
        let online = match row.online {
            Some(true) => Cell::toned("yes", Tone::Good),
            Some(false) => Cell::toned("no", Tone::Bad),
            None => "?".into(),
        };
        let address = match row.addresses.is_empty() {
            true => row.rest.clone().unwrap_or_else(|| "-".to_owned()),
            false => row.addresses.join(" "),
        };
        table.row([
            row.peer.name.as_str().into(),
            short_id(row.peer.peer_id.as_deref()).into(),
            relation.into(),
            online,
            row.files.map_or_else(|| "?".to_owned(), |n| n.to_string()).into(),
            row.bytes.map_or_else(|| "?".to_owned(), size).into(),
            row.version.as_deref().unwrap_or("-").into(),
            address.into(),
        ]);
    }
    out.table(&table)
}
