//! `send`: a file, to a peer.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use p2p_proto::control::{SendState, Sending};

use super::Route;
use crate::cli;
use crate::client::{Answer, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, peer, size};
use crate::progress::Progress;
use crate::upload::Upload;

/// Between two steps of the bar.
const TICK: Duration = Duration::from_millis(100);

/// Runs `send`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Send) -> Result<(), Failure> {
    let handed_over = Cell::new(false);
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            out.note(match handed_over.get() {
                true => "Interrupted; p2pd has the file and goes on offering it.",
                false => "Interrupted; nothing was sent.",
            });
            Err(Failure::quiet(Exit::Interrupted))
        }
        ended = send(client, out, args, &handed_over) => ended,
    }
}

async fn send(
    client: &Client,
    out: &Output,
    args: cli::Send,
    handed_over: &Cell<bool>,
) -> Result<(), Failure> {
    let name = name_there(&args)?;
    let upload = Upload::open(&args.file)?;
    let route = Route::new("/v1/sends").with("peer", &args.peer).with("name", &name).0;
    let (len, sent) = (upload.len, upload.sent.clone());
    let mut progress = Progress::new(*out);
    let mut answered = std::pin::pin!(client.upload::<Sending>(&route, upload.into_stream(), len));
    let mut tick = tokio::time::interval(TICK);
    let mut latest = loop {
        tokio::select! {
            answer = &mut answered => break answer?,
            _ = tick.tick() => progress.bytes(&name, sent.load(Ordering::Relaxed), len, "to p2pd"),
        }
    };
    handed_over.set(true);
    show(out, &mut progress, &latest)?;
    if !is_ended(&latest.value) {
        latest = follow(client, out, &mut progress, latest).await?;
    }
    progress.clear();
    finish(out, &latest.value)
}

async fn follow(
    client: &Client,
    out: &Output,
    progress: &mut Progress,
    first: Answer<Sending>,
) -> Result<Answer<Sending>, Failure> {
    let Sending { id, name, peer: to, .. } = &first.value;
    let unknown = |hint: Option<&str>| {
        let message = format!("p2pd stopped before it could say whether {} has {name}", peer(to));
        let failure = Failure::new(Exit::Unreachable, "daemon-gone", message);
        failure.hint(hint.unwrap_or("`p2pctl locate NAME` shows whether it arrived; else send it again"))
    };
    let mut events = client.events::<Sending>(&format!("/v1/sends/{id}/events")).await?;
    while let Some(answer) = match events.next().await {
        Err(failure) if failure.exit() == Exit::Unreachable => return Err(unknown(None)),
        next => next?,
    } {
        show(out, progress, &answer)?;
        if is_ended(&answer.value) {
            return Ok(answer);
        }
    }
    Err(unknown(None))
}

fn show(out: &Output, progress: &mut Progress, answer: &Answer<Sending>) -> Result<(), Failure> {
    if out.json() {
        return out.raw(&answer.raw);
    }
    let sending = &answer.value;
    let doing = match sending.state {
        SendState::Offered => format!("{} is asked", sending.peer.name),
        _ => format!("to {}", sending.peer.name),
    };
    progress.bytes(&sending.name, sending.done_bytes, Some(sending.size), &doing);
    Ok(())
}

fn is_ended(sending: &Sending) -> bool {
    matches!(sending.state, SendState::Delivered | SendState::Refused)
}

fn finish(out: &Output, sending: &Sending) -> Result<(), Failure> {
    let to = peer(&sending.peer);
    if sending.state == SendState::Refused {
        let why = sending.message.as_deref().unwrap_or("it does not say why");
        let message = format!("{to} did not take {}: {why}", sending.name);
        return Err(Failure::new(Exit::Refused, "send-refused", message));
    }
    if out.json() {
        return Ok(());
    }
    out.line(&format!("{to} has {} ({}).", sending.name, size(sending.size)))?;
    out.line(&format!("  hash  {}", sending.content))?;
    if let Some(message) = &sending.message {
        out.note(&format!("It says: {message}"));
    }
    Ok(())
}

fn name_there(args: &cli::Send) -> Result<String, Failure> {
    if let Some(name) = &args.save_as {
        return Ok(name.clone());
    }
    if args.file == Path::new("-") {
        let message = "Standard input has no name that the file could have there";
        return Err(Failure::new(Exit::Usage, "name-missing", message).hint("give it one with --as NAME"));
    }
    let name = args.file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        let message = format!("{} has no name that can be sent", args.file.display());
        Failure::new(Exit::Usage, "name-missing", message).hint("give it one with --as NAME")
    })
}
