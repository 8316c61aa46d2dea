//! `fetch`: a file, from everyone who has it.

use std::cell::RefCell;
use std::path::Path;

use hyper::Method;
use p2p_proto::control::{FetchAnswer, FetchRequest, Transfer};

use super::follow::{self, Phase, detached, ended_well};
use super::{Route, tree};
use crate::cli;
use crate::client::{CALL, Client};
use crate::deliver::Target;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, peer, quoted, size, size_or_unknown};
use crate::progress::Progress;

/// Runs `fetch`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Fetch) -> Result<(), Failure> {
    let is_tree = tree::is_one(&args);
    let recursive = if args.recursive { "-r " } else { "" };
    let again = format!("p2pctl fetch {recursive}{}", quoted(&args.what));
    let phase = RefCell::new(Phase::Asking);
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => None,
        ended = tree::fetch(client, out, &args, &phase), if is_tree => Some(ended),
        ended = dry_run(client, out, &args), if !is_tree && args.dry_run => Some(ended),
        ended = fetch(client, out, args.clone(), &phase), if !is_tree && !args.dry_run => Some(ended),
    };
    match ended {
        Some(result) => result,
        None => {
            interrupted(out, &phase.borrow(), &again);
            Err(Failure::quiet(Exit::Interrupted))
        }
    }
}

async fn fetch(
    client: &Client,
    out: &Output,
    args: cli::Fetch,
    phase: &RefCell<Phase>,
) -> Result<(), Failure> {
    let target = Target::new(args.output, args.force);
    let target = match (is_hash(&args.what), &args.save_as) {
        (true, None) => target,
        (_, name) => target.named(name.as_deref().unwrap_or(&args.what)),
    };
    target.check()?;
    let what = args.what.clone();
    let priority = args.priority.map(cli::Priority::to_wire);
    let request = FetchRequest { what: args.what, from: args.from, save_as: args.save_as, priority };
    let asked = client.json::<Transfer>(Method::POST, "/v1/transfers", Some(&request), CALL).await;
    let started = asked.map_err(|failure| with_hints(failure, &what))?;
    let (id, name) = (started.value.id, started.value.name.clone());
    if args.detach {
        return match out.json() {
            true => out.raw(&started.raw),
            false => detached(out, &started.value),
        };
    }
    phase.replace(Phase::Fetching { id, name: name.clone() });
    let target = target.named(&name);
    target.check().map_err(|failure| failure.hint(whereabouts(&started.value)))?;
    let mut progress = Progress::new(*out);
    let transfer = follow::transfer(client, started, &mut progress).await?;
    ended_well(&transfer)?;
    if target != Target::Share {
        phase.replace(Phase::Delivering { path: transfer.path.clone().unwrap_or_default() });
        progress.doing("copying it to where you want it");
    }
    let delivered = target.deliver(client, &transfer).await;
    progress.clear();
    let delivered = delivered.map_err(|failure| match failure.message() {
        "" => failure,
        _ => failure.hint(whereabouts(&transfer)),
    })?;
    finish(out, &target, &transfer, delivered.as_deref())
}

fn with_hints(failure: Failure, what: &str) -> Failure {
    match failure.code() {
        "several-contents" if failure.hints().is_empty() => failure
            .hint(format!("`p2pctl locate {}` shows who has which", quoted(what)))
            .hint("fetch one by its hash, or with --from PEER"),
        "name-taken" if failure.hints().is_empty() => failure.hint("give it another name with --as NAME"),
        _ => failure,
    }
}

/// Says what fetching the file comes to.
async fn dry_run(client: &Client, out: &Output, args: &cli::Fetch) -> Result<(), Failure> {
    let route = Route::new("/v1/fetch")
        .with("what", &args.what)
        .with_some("from", args.from.as_deref())
        .with_some("save_as", args.save_as.as_deref());
    let asked = client.get::<FetchAnswer>(&route.0).await;
    let answer = asked.map_err(|failure| with_hints(failure, &args.what))?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let found = &answer.value;
    let bytes = size_or_unknown(found.size);
    if found.here {
        out.line(&format!("is here   {}, {bytes}", found.name))?;
        return out.line(&format!("at        {}", found.path));
    }
    out.line(&format!("to fetch  {}, {bytes}", found.name))?;
    out.line(&format!(
        "hash      {}",
        found.content.as_deref().unwrap_or("unproven: nobody vouches for its bytes")
    ))?;
    let sources: Vec<String> = found.sources.iter().map(peer).collect();
    let sources = if sources.is_empty() { "nobody now".to_owned() } else { sources.join(", ") };
    out.line(&format!("from      {sources}"))?;
    out.line(&format!("to        {}", found.path))?;
    if let Some(free) = found.free_bytes {
        out.line(&format!("free      {}", size(free)))?;
    }
    if let Some(id) = found.transfer {
        out.note(&format!("Transfer {id} fetches it already."));
    }
    if let Some(why) = &found.incomplete {
        out.warn(&format!("others may have it too: {why}"));
    }
    Ok(())
}

/// What became of a file that could not be put where its user wants it.
fn whereabouts(transfer: &Transfer) -> String {
    match &transfer.path {
        Some(path) => format!("the fetched file itself is here: {path}"),
        None => format!("p2pd fetches it all the same; `p2pctl transfers cancel {}` ends that", transfer.id),
    }
}

fn is_hash(what: &str) -> bool {
    what.len() == 64 && what.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn finish(
    out: &Output,
    target: &Target,
    transfer: &Transfer,
    delivered: Option<&Path>,
) -> Result<(), Failure> {
    if !transfer.proven {
        out.warn(&format!(
            "{} is unproven: it came from a plain peer, and nobody vouches for its bytes",
            transfer.name
        ));
    }
    let hash = transfer.content.as_deref().unwrap_or("-");
    if *target == Target::Stdout {
        out.note(&format!("{hash}  {} ({})", transfer.name, size_or_unknown(transfer.size)));
        return Ok(());
    }
    if out.json() {
        return Ok(());
    }
    let path = match delivered {
        Some(path) => path.display().to_string(),
        None => transfer.path.clone().unwrap_or_else(|| transfer.name.clone()),
    };
    out.line(&format!("{hash}  {path}"))
}

fn interrupted(out: &Output, phase: &Phase, again: &str) {
    match phase {
        Phase::Asking => out.note("Interrupted."),
        Phase::Fetching { id, name } => {
            let cancel = format!("p2pctl transfers cancel {id}");
            let watch = "p2pctl transfers --watch";
            let width = again.chars().count().max(cancel.len()).max(watch.len());
            out.note(&format!("Interrupted; p2pd goes on fetching {name} (transfer {id})."));
            out.note(&format!("  {again:width$}  comes back to it"));
            out.note(&format!("  {watch:width$}  shows how it goes on"));
            out.note(&format!("  {cancel:width$}  ends it"));
        }
        Phase::Delivering { path } => {
            out.note(&format!("Interrupted while it was copied; the file itself is here: {path}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_hash_is_one() {
        assert!(is_hash(&"a1".repeat(32)));
        assert!(!is_hash(&"a1".repeat(31)));
        assert!(!is_hash(&"g1".repeat(32)));
    }
}
