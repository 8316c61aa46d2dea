//! The PostgreSQL database, where the directory is in one: whether it lets this maestro in, and has its shape.

use p2p_proto::diagnosis::Check;

use crate::config::Config;
use crate::directory::postgres::{Look, OpenError, PostgresDirectory};

const NAME: &str = "database";

/// Looks at it. `None`: the directory is a file in the state directory.
pub(super) async fn examine(config: &Config) -> Option<Check> {
    let settings = match config.database() {
        Ok(None) => return None,
        Ok(Some(settings)) => settings,
        Err(error) => return Some(Check::problem(NAME, error.to_string())),
    };
    let place = settings.place();
    let looked = match PostgresDirectory::new(&settings) {
        Ok(directory) => directory.look().await,
        Err(error) => Err(error),
    };
    Some(finding(&place, &looked))
}

fn finding(place: &str, looked: &Result<Look, OpenError>) -> Check {
    match looked {
        Ok(Look::Known { peers }) => Check::ok(NAME, format!("{place} answers, and knows {peers} peers")),
        Ok(Look::Empty) => Check::ok(NAME, format!("{place} answers; maestrod makes its tables when it starts")),
        Err(error @ OpenError::Unreachable(_)) => Check::problem(NAME, format!("{place}: {error}"))
            .advise("look at store, store_password_file and store_ca_file of the configuration, and whether the server runs")
            .advise("maestrod itself waits for it, and needs no restart"),
        Err(error) => Check::problem(NAME, format!("{place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use p2p_proto::diagnosis::Verdict;

    use super::*;

    #[test]
    fn a_database_that_is_away_is_a_problem() {
        assert_eq!(finding("x on db", &Ok(Look::Known { peers: 3 })).verdict, Verdict::Ok);
        let lost = finding("x on db", &Err(OpenError::Unreachable("no route".to_owned())));
        assert_eq!(lost.verdict, Verdict::Problem);
        assert!(lost.found.contains("no route") && lost.found.contains("x on db"), "{}", lost.found);
    }
}
