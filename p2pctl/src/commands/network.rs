//! `join` and `leave`: the networks of maestros.

use std::io::Read as _;
use std::path::Path;

use hyper::Method;
use p2p_proto::control::{JoinAnswer, JoinRequest};

use super::Route;
use crate::cli;
use crate::client::{Client, LONG_CALL};
use crate::exit::Exit;
use crate::failure::{Failure, text};
use crate::output::{Output, date};

/// No token is longer; a file that is was named by mistake.
const MAX_TOKEN_LEN: u64 = 64 * 1024;

/// Runs `join`.
pub(super) async fn join(client: &Client, out: &Output, args: cli::Join) -> Result<(), Failure> {
    let token = match &args.token_file {
        Some(path) => Some(read_token(path)?),
        None => args.token,
    };
    let mut maestro_id = args.fingerprint;
    for (at, address) in args.addresses.into_iter().enumerate() {
        let request = JoinRequest {
            address,
            maestro_id: maestro_id.clone(),
            token: token.clone(),
            add: args.also || at > 0,
        };
        let joined = join_one(client, out, request).await?;
        // A token is one network's secret: nobody else is shown it.
        if token.is_some() {
            maestro_id.get_or_insert(joined);
        }
    }
    Ok(())
}

/// The identity that was joined.
async fn join_one(client: &Client, out: &Output, request: JoinRequest) -> Result<String, Failure> {
    let answer = client.json::<JoinAnswer>(Method::PUT, "/v1/network", Some(&request), LONG_CALL).await?;
    let joined = answer.value;
    if out.json() {
        out.raw(&answer.raw)?;
        return Ok(joined.maestro_id);
    }
    out.line(&format!("Joined the network of {} at {}.", joined.name, joined.address))?;
    out.line(&format!("  fingerprint  {}", joined.maestro_id))?;
    if let Some(until) = joined.membership_until_ms {
        out.line(&format!("  member until {}, and renewed by itself", date(until)))?;
    }
    if let Some(other) = &joined.same_as {
        out.note(&format!(
            "It has the identity of the maestro at {other}, so they are one directory: one of them is in use, the others \
             are in reserve."
        ));
        return Ok(joined.maestro_id);
    }
    match (joined.first_contact, request.maestro_id.is_some()) {
        (true, false) => out.note(
            "This is the first contact with this maestro: nothing proves that it is the right one. Compare the \
             fingerprint with the one that its administrator gives you; if they differ, `p2pctl leave`. From now on \
             only this identity is accepted.",
        ),
        (true, true) => out.note("It has the identity that you named. From now on only this one is accepted."),
        (false, _) => out.note("It is the same maestro as before."),
    }
    Ok(joined.maestro_id)
}

/// Runs `leave`.
pub(super) async fn leave(client: &Client, out: &Output, args: cli::Leave) -> Result<(), Failure> {
    if let Some(address) = &args.address {
        client.delete(&Route::new("/v1/network").with("address", address).0).await?;
        out.note(&format!("This peer has left the maestro at {address}."));
        return Ok(());
    }
    client.delete("/v1/network").await?;
    out.note("This peer has left the network. Its files and friends stay; `p2pctl join HOST` joins again.");
    Ok(())
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let mut token = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(MAX_TOKEN_LEN).read_to_string(&mut token),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_LEN).read_to_string(&mut token))
        }
    };
    let shown = path.display();
    read.map_err(|err| {
        Failure::new(
            Exit::Usage,
            "token-unreadable",
            format!("Cannot read the token from {shown}: {}", text(&err)),
        )
    })?;
    match token.trim() {
        "" => Err(Failure::new(Exit::Usage, "token-empty", format!("There is no token in {shown}"))),
        token => Ok(token.to_owned()),
    }
}
