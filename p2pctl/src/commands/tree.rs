//! `fetch -r` and `fetch PATTERN`: a whole directory, by one transfer.

use std::cell::RefCell;

use hyper::Method;
use p2p_proto::control::{
    Transfer, TransferState, TreeAnswer, TreeConflict, TreeFileRow, TreeQuery, TreeRequest,
};

use super::Route;
use super::follow::{self, Phase, detached, ended_well};
use crate::cli;
use crate::client::{Client, LONG_CALL, decode};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Column, Output, Table, count, peer, size};
use crate::progress::Progress;

/// Files that a dry run lists for people.
const LISTED: u32 = 20;

/// Whether this is about a directory or a pattern, and not about one file.
pub(super) fn is_one(args: &cli::Fetch) -> bool {
    args.recursive || args.what.contains(['*', '?'])
}

/// Runs `fetch` of a directory or a pattern.
pub(super) async fn fetch(
    client: &Client,
    out: &Output,
    args: &cli::Fetch,
    phase: &RefCell<Phase>,
) -> Result<(), Failure> {
    if args.output.is_some() || args.save_as.is_some() {
        let message =
            "-o and --as are for one file; a directory comes into the share, under the names that it has";
        return Err(Failure::new(Exit::Usage, "one-file-only", message.to_owned())
            .hint("copy it from there afterwards, or fetch its files one by one"));
    }
    let what = match (args.recursive, args.what.contains(['*', '?'])) {
        // What is a pattern is one with -r too.
        (true, false) => format!("{}/", args.what.trim_end_matches('/')),
        _ => args.what.clone(),
    };
    if args.dry_run {
        let list = (!out.json()).then_some(LISTED);
        return dry_run(client, out, &TreeQuery { what, from: args.from.clone(), list }).await;
    }
    let priority = args.priority.map(cli::Priority::to_wire);
    let request = TreeRequest { what, from: args.from.clone(), priority };
    let path = "/v1/trees";
    let started = client.json::<Transfer>(Method::POST, path, Some(&request), LONG_CALL).await?;
    // One that has ended already says so at its end.
    if let Some(why) = &started.value.incomplete
        && (args.detach || !started.value.state.is_ended())
    {
        out.warn(&format!("this may not be all of {}: {why}", started.value.name));
    }
    if args.detach {
        return match out.json() {
            true => out.raw(&started.raw),
            false => detached(out, &started.value),
        };
    }
    phase.replace(Phase::Fetching { id: started.value.id, name: started.value.name.clone() });
    let mut progress = Progress::new(*out);
    let was_here = started.value.state == TransferState::Done;
    let transfer = follow::transfer(client, started, &mut progress).await?;
    progress.clear();
    ended_well(&transfer)?;
    if out.json() {
        return is_whole(&transfer);
    }
    let files = count(transfer.files.unwrap_or_default(), "file", "files");
    let bytes = size(transfer.size.unwrap_or_default());
    out.note(&match was_here {
        true if transfer.incomplete.is_some() => {
            format!("What is known of {} is here already: {files}, {bytes}.", transfer.name)
        }
        true => format!("All of {} is here already: {files}, {bytes}.", transfer.name),
        false => format!("{files}, {bytes}."),
    });
    out.line(transfer.path.as_deref().unwrap_or(&transfer.name))?;
    is_whole(&transfer)
}

/// A directory of which there may be more is no success, or nobody would look for the rest.
fn is_whole(transfer: &Transfer) -> Result<(), Failure> {
    let Some(why) = &transfer.incomplete else { return Ok(()) };
    let message = format!("This may not be all of {}: {why}", transfer.name);
    Err(Failure::new(Exit::Partial, "incomplete", message)
        .hint("the same command fetches what is missing, and nothing twice"))
}

async fn dry_run(client: &Client, out: &Output, query: &TreeQuery) -> Result<(), Failure> {
    let list = query.list.map(|list| list.to_string());
    let route = Route::new("/v1/trees")
        .with("what", &query.what)
        .with_some("from", query.from.as_deref())
        .with_some("list", list.as_deref());
    let found = match out.json() {
        true => print_all(client, out, &route.0).await?,
        false => {
            let answer = client.json::<TreeAnswer>(Method::GET, &route.0, None::<&()>, LONG_CALL).await?;
            tell(out, &answer.value)?;
            answer.value
        }
    };
    match &found {
        TreeAnswer { conflicts: 1.., .. } => Err(Failure::quiet(Exit::Choice)),
        TreeAnswer { unproven_files: 0, incomplete: None, .. } => Ok(()),
        _ => Err(Failure::quiet(Exit::Partial)),
    }
}

/// Prints an answer as it comes, however long its list is; what it says before the list.
async fn print_all(client: &Client, out: &Output, route: &str) -> Result<TreeAnswer, Failure> {
    const LIST: &[u8] = b",\"list\":[";
    let mut bytes = client.bytes_after(route, LONG_CALL).await?;
    let (mut head, mut found) = (Vec::new(), None);
    while let Some(piece) = bytes.next().await? {
        out.fragment(&piece)?;
        if found.is_some() {
            continue;
        }
        head.extend_from_slice(&piece);
        // No text within has quotes that are not escaped.
        if let Some(at) = head.windows(LIST.len()).position(|part| part == LIST) {
            let whole = [&head[..at], LIST, b"]}"].concat();
            found = serde_json::from_slice(&whole).ok();
        }
    }
    out.raw(b"")?;
    match found {
        Some(found) => Ok(found),
        None => Ok(decode(head.into())?.value),
    }
}

fn tell(out: &Output, found: &TreeAnswer) -> Result<(), Failure> {
    let files = |number| count(number, "file", "files");
    out.line(&format!("to fetch  {}, {}", files(found.files), size(found.bytes)))?;
    if found.here_files > 0 {
        out.line(&format!("is here   {}, {}", files(found.here_files), size(found.here_bytes)))?;
    }
    if found.unproven_files > 0 {
        let unproven = files(found.unproven_files);
        out.line(&format!(
            "left out  {unproven} that only plain peers have: nobody vouches for their bytes"
        ))?;
    }
    if found.files > 0 {
        let sources: Vec<String> = found.sources.iter().map(peer).collect();
        let sources = if sources.is_empty() { "nobody now".to_owned() } else { sources.join(", ") };
        out.line(&format!("from      {sources}"))?;
    }
    if let Some(free) = found.free_bytes {
        out.line(&format!("free      {}", size(free)))?;
    }
    for TreeConflict { name, here, contents } in &found.first_conflicts {
        let why = match here {
            true => "another file is here under this name".to_owned(),
            false => format!("{} different contents", contents.len()),
        };
        out.line(&format!("choose    {name}: {why}"))?;
    }
    let more = found.conflicts.saturating_sub(found.first_conflicts.len() as u64);
    if more > 0 {
        out.line(&format!("choose    {more} more"))?;
    }
    if found.conflicts > 0 {
        out.note("Nothing is fetched while names need a choice: --from PEER takes what that peer has.");
    }
    if !found.list.is_empty() {
        out.line("")?;
        out.table(&files_of(&found.list))?;
    }
    let listed = found.list.len() as u64;
    // What needs a choice is listed with the others.
    let more = (found.files + found.conflicts).saturating_sub(listed);
    if more > 0 && listed > 0 {
        out.line(&format!("… and {more} more, which --json lists too"))?;
    }
    if let Some(why) = &found.incomplete {
        out.warn(&format!("there may be more: {why}"));
    }
    Ok(())
}

fn files_of(list: &[TreeFileRow]) -> Table {
    // A name that is broken over lines cannot be copied into the next command.
    let columns =
        [Column::right("SIZE").at_least(10), Column::right("SOURCES").at_least(7), Column::left("NAME")];
    let mut table = Table::new(&columns);
    for TreeFileRow { name, size: bytes, sources, .. } in list {
        table.row([size(*bytes).into(), sources.to_string().into(), name.as_str().into()]);
    }
    table
}
