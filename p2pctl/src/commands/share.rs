//! `share`: which directories this peer offers, added and removed.

use std::path::Path;

use hyper::Method;
use p2p_proto::control::{AddShare, ShareRow, Status, Visibility};

use super::{escaped, shares};
use crate::cli::{self, ShareVerb};
use crate::client::{CALL, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, quoted};
use crate::remedy::{self, Case, Daemon, Flaw, Seen};

/// Runs `share`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Share) -> Result<(), Failure> {
    match args.verb {
        ShareVerb::List => shares::list(client, out).await,
        ShareVerb::Add(args) => add(client, out, args).await,
        ShareVerb::Remove { name } => {
            client.delete(&format!("/v1/shares/{}", escaped(&name))).await?;
            out.note(&format!("{name} is not shared any more. Its files stay where they are."));
            Ok(())
        }
    }
}

async fn add(client: &Client, out: &Output, args: cli::AddShare) -> Result<(), Failure> {
    let request = AddShare {
        path: args.path.to_string_lossy().into_owned(),
        name: args.name,
        visible: match args.visible {
            cli::Visible::Network => Visibility::Network,
            cli::Visible::Friends => Visibility::Friends,
        },
        downloads: args.downloads,
    };
    let answer = match client.json::<ShareRow>(Method::POST, "/v1/shares", Some(&request), CALL).await {
        Ok(answer) => answer,
        Err(failure) => return Err(explain(client, &request, failure).await),
    };
    if out.json() {
        return out.raw(&answer.raw);
    }
    let share = answer.value;
    let to = match share.visible {
        Visibility::Network => "the network",
        Visibility::Friends => "friends",
    };
    out.line(&format!("{} is shared with {to} as {}.", share.path, share.name))?;
    if share.downloads {
        out.line("Fetched files land in it from now on.")?;
    }
    out.note("Its files are being looked at; `p2pctl shares` shows how far that is.");
    if let Some(why) = share.unavailable {
        out.warn(&why);
    }
    Ok(())
}

/// Where the daemon cannot use a directory that this user sees: why that is, and what helps.
async fn explain(client: &Client, request: &AddShare, failure: Failure) -> Failure {
    let Some(flaw) = Flaw::of_code(failure.code()) else { return failure };
    let path = Path::new(&request.path);
    let last = path.file_name().map(|last| last.to_string_lossy().into_owned());
    let name = request.name.clone().or(last).unwrap_or_default();
    let pid = client.get::<Status>("/v1/status").await.map_or(0, |answer| answer.value.pid);
    let case = Case { path, name: &name, downloads: request.downloads, flaw };
    let Some(remedy) = remedy::remedy(case, &Daemon::of_process(pid), &Seen::at(path)) else {
        return Failure::new(
            Exit::NotFound,
            failure.code(),
            format!("There is no directory {}", request.path),
        )
        .hint("check the path; it must be that of a directory on the machine of p2pd");
    };
    let explained = Failure::new(Exit::Refused, failure.code(), failure.message());
    if remedy.commands.is_empty() {
        return explained.hint(remedy.reason);
    }
    let again = again(request);
    let hint = format!("{}. These commands change that, and share it:", remedy.reason);
    remedy.commands.into_iter().chain([again]).fold(explained.hint(hint), Failure::command)
}

/// The same command once more, as a user would type it.
fn again(request: &AddShare) -> String {
    let mut command = format!("p2pctl share add {}", quoted(&request.path));
    if let Some(name) = &request.name {
        command.push_str(&format!(" --name {}", quoted(name)));
    }
    if request.visible == Visibility::Friends {
        command.push_str(" --visible friends");
    }
    if request.downloads {
        command.push_str(" --downloads");
    }
    command
}
