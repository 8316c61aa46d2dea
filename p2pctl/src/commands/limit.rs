//! `limit`: how fast file data goes out and comes in, at the most.

use hyper::Method;
use p2p_proto::control::{Limit, LimitsAnswer, PeerLimit, SetLimits};

use crate::cli;
use crate::client::{CALL, Client};
use crate::failure::Failure;
use crate::output::{Column, Output, Table, peer, rate};

/// Runs `limit`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Limit) -> Result<(), Failure> {
    let cli::Limit { up, down, as_configured, peer } = args;
    let answer = match (up, down, as_configured) {
        (None, None, false) => client.get::<LimitsAnswer>("/v1/limits").await?,
        _ => {
            let request =
                SetLimits { up: up.map(|up| up.0), down: down.map(|down| down.0), as_configured, peer };
            client.json::<LimitsAnswer>(Method::POST, "/v1/limits", Some(&request), CALL).await?
        }
    };
    if out.json() {
        return out.raw(&answer.raw);
    }
    let mut table = Table::new(&[Column::left("DIRECTION"), Column::right("LIMIT"), Column::left("SET BY")]);
    for (direction, limit) in [("up", &answer.value.up), ("down", &answer.value.down)] {
        table.row([direction.into(), shown(limit.bytes_per_sec).into(), origin(limit).into()]);
    }
    out.table(&table)?;
    if answer.value.peers.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&of_peers(&answer.value.peers))
}

fn of_peers(limits: &[PeerLimit]) -> Table {
    let mut table = Table::new(&[Column::flow("PEER"), Column::right("UP"), Column::right("DOWN")]);
    for limit in limits {
        let rates = [limit.up_bytes_per_sec, limit.down_bytes_per_sec].map(shown);
        let [up, down] = rates.map(Into::into);
        table.row([peer(&limit.peer).into(), up, down]);
    }
    table
}

fn shown(bytes_per_sec: u64) -> String {
    match bytes_per_sec {
        0 => "none".to_owned(),
        limit => rate(limit),
    }
}

fn origin(limit: &Limit) -> String {
    let schedule = limit.scheduled.as_ref().map(|period| format!("the schedule, {period}"));
    match limit.is_set {
        true => {
            let by = schedule.map(|schedule| format!(" by {schedule}")).unwrap_or_default();
            format!("p2pctl limit (configured: {}{by})", shown(limit.configured_bytes_per_sec))
        }
        false => schedule.unwrap_or_else(|| "the configuration".to_owned()),
    }
}
