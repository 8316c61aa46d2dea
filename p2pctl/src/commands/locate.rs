//! `locate`: who has a file.

use std::collections::BTreeSet;

use p2p_proto::control::{Candidate, LocateAnswer, Origin, SourceRow};

use super::Route;
use crate::cli;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Column, Output, Table, age, count, now_ms, short_id, size_or_unknown};

/// Runs `locate`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Locate) -> Result<(), Failure> {
    let route = Route::new("/v1/locate").with("what", &args.what).0;
    let answer = client.get::<LocateAnswer>(&route).await?;
    if out.json() {
        out.raw(&answer.raw)?;
    }
    let located = answer.value;
    if let Some(why) = &located.incomplete {
        out.warn(&format!("this may not be all: {why}"));
    }
    if located.candidates.is_empty() {
        // The answer is printed already; a program needs no second one.
        return Err(match out.json() {
            true => Failure::quiet(Exit::NotFound),
            false => Failure::new(Exit::NotFound, "not-found", format!("Nobody has {}", args.what))
                .hint("`p2pctl search TEXT` finds files by a part of their name"),
        });
    }
    if out.json() {
        return Ok(());
    }
    for candidate in &located.candidates {
        show(out, candidate)?;
    }
    let contents: BTreeSet<_> = located.candidates.iter().map(|candidate| &candidate.content).collect();
    match (contents.len(), located.candidates.len()) {
        (1, 1) => {}
        (1, _) => out.note("One content has one length: the others are told falsely. To fetch it finds out which."),
        (several, _) => out.note(&format!(
            "There are {several} different contents under this name: fetch one by its hash, or with --from PEER."
        )),
    }
    Ok(())
}

/// Who said so.
fn known_from(source: &SourceRow) -> String {
    let (what, link) = match source.origin {
        Origin::Own => return "this peer".to_owned(),
        Origin::Maestro => ("maestro", " "),
        Origin::Friend => ("friend", " "),
        Origin::Cache => ("memory", " of "),
    };
    // A daemon of an older release gives no names.
    source.told_by.as_ref().map_or_else(|| what.to_owned(), |name| format!("{what}{link}{name}"))
}

fn show(out: &Output, candidate: &Candidate) -> Result<(), Failure> {
    let sources = count(candidate.sources.len() as u64, "source", "sources");
    out.line(&format!("{}  {}  {sources}", candidate.name, size_or_unknown(candidate.size)))?;
    match &candidate.content {
        Some(hash) => out.line(&format!("  {hash}"))?,
        None => out.line("  unproven: nobody vouches for its bytes")?,
    }
    let columns = [
        Column::left("PEER"),
        Column::left("ID"),
        Column::left("KNOWN FROM"),
        Column::left("SAID"),
        Column::flow("ADDRESS"),
    ];
    let now = now_ms();
    let mut table = Table::new(&columns).indented(2);
    for source in &candidate.sources {
        let said = source.told_ms.map_or_else(|| "-".to_owned(), |then| age(then, now));
        let id = short_id(source.peer.peer_id.as_deref());
        table.row([
            source.peer.name.as_str().into(),
            id.into(),
            known_from(source).into(),
            said.into(),
            source.addresses.join(" ").into(),
        ]);
    }
    out.table(&table)
}
