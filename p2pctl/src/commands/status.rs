//! `status`: how this peer is.

use p2p_proto::control::{MaestroState, MaestroStatus, Status};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, age, count, date, duration, now_ms, size};

/// Runs `status`.
pub(super) async fn run(client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = client.get::<Status>("/v1/status").await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let (status, now) = (answer.value, now_ms());
    let mut facts = Table::facts();
    facts.fact("peer", &status.name);
    facts.fact("ID", &status.peer_id);
    let up = duration(seconds(status.started_ms, now));
    facts.fact("daemon", format!("p2pd {}, process {}, up {up}", status.version, status.pid));
    // A daemon of an older release has one only.
    let maestros = if status.maestros.is_empty() { status.maestro.as_slice() } else { &status.maestros };
    if maestros.is_empty() {
        facts.fact("maestro", "none; join one with `p2pctl join HOST`");
    }
    for maestro in maestros {
        maestro_facts(&mut facts, maestro, now);
    }
    let pending = match status.files_pending {
        0 => String::new(),
        n => format!("; {n} more still to be hashed"),
    };
    let files = count(status.files, "file", "files");
    facts.fact("shares", format!("{files}, {}{pending}", size(status.bytes)));
    facts.fact("friends", status.friends.to_string());
    facts.fact("transfers", format!("{} open", status.transfers_open));
    facts.fact("REST", &status.rest);
    facts.fact("gRPC", &status.grpc);
    facts.fact("state", &status.state_dir);
    out.table(&facts)?;
    if status.loops.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut loops = Table::new(&[Column::left("KEEPS TRUE"), Column::left("LAST"), Column::flow("RESULT")]);
    for row in &status.loops {
        let last = row.last_ms.map_or_else(|| "-".to_owned(), |then| age(then, now));
        loops.row([row.name.as_str().into(), last.into(), row.result.as_str().into()]);
    }
    out.table(&loops)
}

fn maestro_facts(facts: &mut Table, maestro: &MaestroStatus, now: i64) {
    let name = maestro.name.as_ref().map(|name| format!("{name} at ")).unwrap_or_default();
    facts.fact("maestro", format!("{name}{}", maestro.address));
    let (state, tone) = match maestro.state {
        MaestroState::Connecting => ("connecting", Tone::Busy),
        MaestroState::Syncing => ("syncing", Tone::Busy),
        MaestroState::InSync => ("in sync", Tone::Good),
        MaestroState::Reserve => ("in reserve", Tone::Good),
        MaestroState::Unreachable => ("unreachable", Tone::Bad),
        MaestroState::Refused => ("refused", Tone::Bad),
    };
    let since = seconds(maestro.since_ms, now);
    let pending = match maestro.changes_pending {
        0 => String::new(),
        n => format!(", {} not acknowledged", count(n, "change", "changes")),
    };
    facts.fact("", Cell::toned(&format!("{state} for {}{pending}", duration(since)), tone));
    if let Some(detail) = &maestro.detail {
        facts.fact("", detail);
    }
    if let Some(until) = maestro.membership_until_ms {
        facts.fact("", format!("member until {}", date(until)));
    }
    if let Some(id) = &maestro.maestro_id {
        facts.fact("", format!("fingerprint {id}"));
    }
}

fn seconds(since_ms: i64, now: i64) -> u64 {
    u64::try_from((now - since_ms) / 1000).unwrap_or(0)
}
