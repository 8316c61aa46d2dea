//! `shares` and `refresh`: what this peer offers.

use hyper::Method;
use p2p_proto::control::{RefreshAnswer, ShareList, ShareRow, Visibility};

use crate::client::{Client, LONG_CALL};
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, count, size};

/// Runs `shares`.
pub(super) async fn list(client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = client.get::<ShareList>("/v1/shares").await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let shares = answer.value.shares;
    if shares.is_empty() {
        out.note("This peer shares no directory: `p2pctl share add PATH` adds one.");
        return Ok(());
    }
    show(out, &shares)?;
    for share in &shares {
        if let Some(why) = &share.unavailable {
            out.warn(&format!("{} is not available, so its files are hidden: {why}", share.name));
        }
        for skipped in &share.skipped {
            out.warn(&format!("not shared from {}: {skipped}", share.name));
        }
    }
    Ok(())
}

fn show(out: &Output, shares: &[ShareRow]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Column::left("NAME"),
        Column::left("FOR"),
        Column::left("STATE"),
        Column::right("FILES"),
        Column::right("SIZE"),
        Column::left("FETCHED FILES"),
        Column::flow("DIRECTORY"),
    ]);
    for share in shares {
        let visible = match share.visible {
            Visibility::Network => "network",
            Visibility::Friends => "friends",
        };
        let state = match share.unavailable {
            Some(_) => Cell::toned("unavailable", Tone::Bad),
            None => Cell::toned("shared", Tone::Good),
        };
        table.row([
            share.name.as_str().into(),
            visible.into(),
            state,
            share.files.to_string().into(),
            size(share.bytes).into(),
            if share.downloads { "land here" } else { "-" }.into(),
            share.path.as_str().into(),
        ]);
    }
    out.table(&table)
}

/// Runs `refresh`.
pub(super) async fn refresh(client: &Client, out: &Output) -> Result<(), Failure> {
    let answer = client.json::<RefreshAnswer>(Method::POST, "/v1/refresh", None::<&()>, LONG_CALL).await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let RefreshAnswer { files, changed, removed, announced, detail } = answer.value;
    let announced_text = match announced {
        Some(true) => "; the maestro knows",
        Some(false) => "; the maestro does not know yet",
        None => "",
    };
    let files = count(files, "file", "files");
    out.line(&format!("{files} shared: {changed} new or changed, {removed} gone{announced_text}."))?;
    if let Some(detail) = detail {
        out.warn(&detail);
    }
    Ok(())
}
