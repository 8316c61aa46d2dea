//! `maestrod doctor`: what is wrong with the maestro of this configuration, if anything, seen by another process.
//!
//! Changes nothing: the state directory is looked at without taking its lock, the database is read only. What each finding
//! means is decided by pure functions beside the looks. Called by the program alone.

use std::fmt::Write as _;
use std::net::ToSocketAddrs as _;

use p2p_proto::diagnosis::{Check, Diagnosis};

use crate::config::{Config, EMBEDDED, Policy, RegisterFrom};
use state::Daemon;

mod database;
mod ports;
mod state;

/// Looks at everything now.
pub async fn examine(config: &Config) -> Diagnosis {
    let mut checks = vec![Check::ok("configuration", "the configuration is valid")];
    let (dir, is_embedded) = (config.state_dir.clone(), config.store == EMBEDDED);
    let looked = tokio::task::spawn_blocking(move || state::examine(&dir, is_embedded)).await;
    let state = match looked {
        Ok(state) => state,
        Err(error) => {
            checks.push(Check::problem("state", error.to_string()));
            return Diagnosis::of(checks);
        }
    };
    checks.extend(state.checks);
    checks.extend(database::examine(config).await);
    match state.daemon {
        Daemon::Stopped => checks.push(
            Check::problem("daemon", "maestrod is not running with this state directory")
                .advise("sudo systemctl start maestrod")
                .advise("why it stopped: journalctl -u maestrod -n 20"),
        ),
        daemon => checks.extend(ports::examine(config, state.id, daemon).await),
    }
    checks.extend(policies(config));
    Diagnosis::of(checks)
}

/// As a table for people.
pub fn table(diagnosis: &Diagnosis) -> String {
    let width = diagnosis.checks.iter().map(|check| check.name.len()).max().unwrap_or(0).max("CHECK".len());
    let mut text = format!("VERDICT  {:width$}  FOUND\n", "CHECK");
    for check in &diagnosis.checks {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:7}  {:width$}  {}", check.verdict.word(), check.name, check.found);
        for step in &check.advice {
            let _ = writeln!(text, "{:7}  {:width$}  → {step}", "", "");
        }
    }
    let _ = write!(text, "\n{}", diagnosis.summary());
    text
}

/// What the configuration lets strangers do.
fn policies(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let (rest, grpc) = (&config.rest.listen, &config.grpc.listen);
    checks.push(match config.admission.policy {
        Policy::Token => Check::ok("admission", "new peers show the join token"),
        Policy::Open if is_local(grpc) => {
            Check::ok("admission", format!("anyone who reaches {grpc} is a peer; only this machine does"))
        }
        Policy::Open => Check::warning(
            "admission",
            format!("anyone who reaches {grpc} is a peer, and may list every file"),
        )
        .advise("set [admission] policy = \"token\" and reload: `systemctl reload maestrod`"),
    });
    if !is_local(rest) {
        let may = match config.rest.register {
            RegisterFrom::Anyone => "see every file and announce files without an identity",
            RegisterFrom::Loopback | RegisterFrom::Off => "see every file",
        };
        checks.push(
            Check::warning("rest-access", format!("REST has no login: whoever reaches {rest} may {may}"))
                .advise("set [rest] listen = \"127.0.0.1:9000\" and restart, or let a firewall decide who reaches it"),
        );
    }
    checks
}

fn is_local(listen: &str) -> bool {
    let addresses = listen.to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    !addresses.is_empty() && addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use p2p_proto::diagnosis::Verdict;

    use super::*;

    #[test]
    fn an_open_door_to_the_network_is_warned_of() {
        let verdicts = |edit: fn(&mut Config)| {
            let mut config = Config::default();
            edit(&mut config);
            policies(&config).into_iter().map(|check| check.verdict).collect::<Vec<_>>()
        };
        use Verdict::{Ok, Warning};
        assert_eq!(verdicts(|_| ()), [Ok]);
        assert_eq!(verdicts(|config| config.admission.policy = Policy::Open), [Warning]);
        let local = |config: &mut Config| {
            config.admission.policy = Policy::Open;
            config.grpc.listen = "127.0.0.1:9010".to_owned();
        };
        assert_eq!(verdicts(local), [Ok]);
        assert_eq!(verdicts(|config| config.rest.listen = "[::]:9000".to_owned()), [Ok, Warning]);
    }

    #[test]
    fn the_table_lines_up() {
        let checks =
            vec![Check::ok("state", "it is there"), Check::problem("daemon", "it is not").advise("start it")];
        let expected = "\
VERDICT  CHECK   FOUND
ok       state   it is there
problem  daemon  it is not
                 → start it

1 problem.";
        assert_eq!(table(&Diagnosis::of(checks)), expected);
    }
}
