//! Why a directory is not fetched, as problem documents.

use p2p_service::problem::Problem;

use super::{LISTED, internal, of_network_listing, unprocessable};
use crate::transfer::{Conflict, PatternError, TreeError};

impl From<PatternError> for Problem {
    fn from(error: PatternError) -> Problem {
        match &error {
            PatternError::Name(error) => super::invalid_name(error),
            PatternError::Pattern { .. } => unprocessable("invalid-pattern", error.to_string()).hint(
                "* and ? stand for what has no /, ** between slashes or at the end for any directories: 'data/**/*.jpg'",
            ),
        }
    }
}

impl From<TreeError> for Problem {
    fn from(error: TreeError) -> Problem {
        match error {
            TreeError::NotFound { ref incomplete, .. } => {
                let why = incomplete.as_ref().map_or(String::new(), |why| format!("; {why}"));
                Problem::not_found("not-found", format!("{error}{why}"))
                    .hint("`p2pctl list --all DIR/` lists what the network has")
            }
            TreeError::Conflicts { ref first, conflicts, .. } => {
                let mut rows: Vec<String> = first.iter().take(LISTED).map(describe).collect();
                let more = conflicts.saturating_sub(rows.len() as u64);
                if more > 0 {
                    rows.push(format!("and {more} more"));
                }
                let detail = format!("{error}:\n  {}", rows.join("\n  "));
                match first.iter().all(|conflict| conflict.here) {
                    true => Problem::conflict("name-taken", detail)
                        .hint("move what is here under these names, or fetch the other files by a pattern"),
                    false => Problem::conflict("several-contents", detail).hint(
                        "choose whose files you want with --from PEER, or fetch the other files by a pattern",
                    ),
                }
            }
            TreeError::Ask(error) => of_network_listing(error),
            TreeError::Catalog(_) | TreeError::Store(_) => internal(error),
        }
    }
}

fn describe(conflict: &Conflict) -> String {
    let contents = conflict.contents.len();
    match (conflict.here, contents) {
        (true, 1) => format!("{}: another file is here under this name", conflict.name),
        (true, _) => {
            format!("{}: another file is here under this name, and others have {contents}", conflict.name)
        }
        (false, _) => format!("{}: {contents} different contents", conflict.name),
    }
}
