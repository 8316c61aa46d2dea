//! The units and the packages by the tools that judge them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Group, so};
use crate::command::here;
use crate::packages::CURRENT_DIR;
use crate::report::say;
use crate::site::Site;

/// The exposure that `systemd-analyze security` may see, in its own measure from 0 to 10.
const EXPOSURE: f64 = 1.5;
/// Reading two packages.
const LINTIAN: Duration = Duration::from_secs(300);

/// Both packages on one host.
pub(super) const GROUP: Group = Group {
    name: "units",
    hosts: &["uno"],
    each_release: true,
    in_order: false,
    prepare: |site| site.install("uno", CURRENT_DIR, &["maestrod", "p2pd"]),
    cases: &[
        Case { name: "verify", check: verify },
        Case { name: "security", check: security },
        Case { name: "quiet-start", check: quiet_start },
    ],
};

/// What is the same for all releases.
pub(super) const LINT: Group = Group {
    name: "lintian",
    hosts: &[],
    each_release: false,
    in_order: false,
    prepare: |_| Ok(()),
    cases: &[Case { name: "packages", check: lintian }],
};

fn verify(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    for units in ["p2pd.service p2pd.socket maestrod.service", "--user p2pd.service p2pd.socket"] {
        // Units of users have a place in their session, and root on this host has none.
        let verify = format!("XDG_RUNTIME_DIR=/run systemd-analyze verify --man=yes {units}");
        let said = uno.must(&verify)?;
        let output = format!("{}{}", said.stdout, said.stderr);
        // Of other packages' units it speaks too.
        let ours: Vec<_> =
            output.lines().filter(|line| line.contains("p2pd") || line.contains("maestrod")).collect();
        ensure!(ours.is_empty(), "{ours:#?}");
    }
    so()
}

fn security(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    let mut notes = Vec::new();
    for unit in ["p2pd.service", "maestrod.service"] {
        let said = uno.must(&format!("systemd-analyze security --no-pager {unit}"))?;
        let line =
            said.stdout.lines().find(|line| line.contains("Overall exposure level")).context(said.told())?;
        let figure = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        let figure = figure.with_context(|| format!("there is no figure in {line:?}"))?;
        ensure!(figure <= EXPOSURE, "{unit} has {figure}, and {EXPOSURE} is the limit:\n{}", said.stdout);
        notes.push(format!("{unit} {figure}"));
    }
    Ok(format!("{} (limit {EXPOSURE})", notes.join(", ")))
}

/// A daemon that starts as it should has nothing to warn of.
fn quiet_start(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    let said = uno.must("journalctl --quiet --priority=warning --unit=p2pd --unit=maestrod --output=cat")?;
    ensure!(said.stdout.is_empty(), "{}", said.stdout);
    so()
}

fn lintian(site: &Site<'_>) -> Result<String> {
    let directory = site.lab().packages()?.current();
    let mut arguments = vec!["--allow-root".to_owned(), "--fail-on=error,warning".to_owned()];
    for package in std::fs::read_dir(&directory)? {
        arguments.push(package?.path().display().to_string());
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let said = here("lintian", &arguments, LINTIAN)?;
    let output = format!("{}{}", said.stdout, said.stderr);
    say(&format!(
        "lintian says of {}: {}",
        directory.display(),
        if output.is_empty() { "nothing" } else { &output }
    ));
    Ok("no errors, no warnings".to_owned())
}
