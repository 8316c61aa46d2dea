//! From a fresh system to a fetched file, as README.md says it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Group, so};
use crate::packages::{CURRENT_DIR, REPOSITORY_DIR};
use crate::readme::{Place, fetched_name, install_commands, place, takes_token};
use crate::site::Site;

/// A command that unpacks a package, at the longest.
const COMMAND: Duration = Duration::from_secs(120);

/// Who gives is `uno`, who fetches is `dos`.
pub(super) const GROUP: Group = Group {
    name: "install",
    hosts: &["maestro", "uno", "dos", "tres"],
    each_release: true,
    in_order: true,
    prepare: |_| Ok(()),
    cases: &[
        Case { name: "readme-commands", check: readme_commands },
        Case { name: "started-and-enabled", check: started_and_enabled },
        Case { name: "manuals-and-completions", check: manuals_and_completions },
        Case { name: "doctor-finds-all-well", check: doctor_finds_all_well },
        Case { name: "doctor-names-a-missing-maestro", check: doctor_names_a_missing_maestro },
        Case { name: "from-the-repository", check: from_the_repository },
    ],
};

fn readme_commands(site: &Site<'_>) -> Result<String> {
    let commands = install_commands()?;
    let name = fetched_name()?;
    let text = "La red reparte lo que todos tienen.\n";
    let mut token = String::new();
    for command in &commands {
        let hosts: &[&str] = match place(command) {
            Place::Maestro => &["maestro"],
            Place::Peers => &["uno", "dos"],
            Place::One => {
                // What there is to fetch is there before anyone asks for it.
                site.host("uno")?.write(&format!("/var/lib/p2pd/shared/{name}"), text)?;
                site.in_sync("uno")?;
                site.found("dos", name)?;
                &["dos"]
            }
        };
        for host in hosts {
            let script = format!("cd {CURRENT_DIR} && {command}");
            let input = if takes_token(command) { token.as_str() } else { "" };
            let said = site
                .host(host)?
                .run_with("ana", &script, input.as_bytes(), COMMAND)?
                .ok()
                .with_context(|| format!("on {host}"))?;
            if place(command) == Place::Maestro {
                token = format!("{}\n", said.text().lines().next_back().unwrap_or_default());
            }
        }
    }
    let dos = site.host("dos")?;
    let path = dos.transfer(name)?.path.context("the fetched file has no path")?;
    let (hash, wanted) = (dos.hash(&path)?, blake3::hash(text.as_bytes()).to_hex());
    ensure!(hash == wanted.as_str(), "{path} has the hash {hash}, and {wanted} was shared");
    let listed = dos.must("p2pctl list --all")?;
    ensure!(listed.stdout.contains(name), "{}", listed.told());
    Ok(format!("{} commands", commands.len()))
}

fn started_and_enabled(site: &Site<'_>) -> Result<String> {
    for (host, unit) in [
        ("maestro", "maestrod.service"),
        ("uno", "p2pd.service"),
        ("uno", "p2pd.socket"),
        ("dos", "p2pd.service"),
    ] {
        let host = site.host(host)?;
        host.is(unit, "active")?;
        host.must(&format!("systemctl is-enabled {unit}"))?;
    }
    so()
}

fn manuals_and_completions(site: &Site<'_>) -> Result<String> {
    let (maestro, uno) = (site.host("maestro")?, site.host("uno")?);
    for page in ["8 p2pd", "5 p2pd.toml", "1 p2pctl", "1 p2pctl-fetch"] {
        uno.must(&format!("man --where {page}"))?;
    }
    for page in ["8 maestrod", "5 maestrod.toml"] {
        maestro.must(&format!("man --where {page}"))?;
    }
    for file in [
        "/usr/share/bash-completion/completions/p2pctl",
        "/usr/share/zsh/vendor-completions/_p2pctl",
        "/usr/share/fish/vendor_completions.d/p2pctl.fish",
        "/usr/share/doc/p2pd/copyright",
        "/usr/share/doc/p2pd/hardening.md",
        "/usr/share/doc/p2pd/packages.md",
        "/usr/share/doc/p2pd/changelog.Debian.gz",
    ] {
        uno.must(&format!("test -s {file}"))?;
    }
    let conffiles = uno.must("dpkg-query --show --showformat='${Conffiles}' p2pd")?;
    ensure!(conffiles.stdout.contains("/etc/p2pd/p2pd.toml"), "{}", conffiles.told());
    so()
}

fn doctor_finds_all_well(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    let human = uno.must("p2pctl doctor")?;
    let machine: serde_json::Value = uno.must("p2pctl --json doctor")?.json()?;
    ensure!(machine.is_object() || machine.is_array(), "{machine}");
    site.host("maestro")?.must("maestrod doctor")?;
    Ok(format!("{} lines", human.stdout.lines().count()))
}

fn doctor_names_a_missing_maestro(site: &Site<'_>) -> Result<String> {
    let (maestro, uno) = (site.host("maestro")?, site.host("uno")?);
    maestro.must("systemctl stop maestrod")?;
    let found = uno.run("p2pctl doctor");
    maestro.must("systemctl start maestrod")?;
    let found = found?;
    ensure!([1, 2].contains(&found.code), "exit code {}: {}", found.code, found.told());
    ensure!(found.stdout.contains("maestro"), "{}", found.told());
    Ok(format!("exit code {}", found.code))
}

fn from_the_repository(site: &Site<'_>) -> Result<String> {
    let tres = site.host("tres")?;
    tres.must("cp /packages/repo/p2pd-archive-keyring.asc /etc/apt/keyrings/")?;
    let sources = format!(
        "Types: deb\nURIs: file:{REPOSITORY_DIR}\nSuites: stable\nComponents: main\n\
         Signed-By: /etc/apt/keyrings/p2pd-archive-keyring.asc\n"
    );
    // There is no internet on these hosts: this repository is all that apt has.
    tres.must(
        "mkdir -p /root/sources && mv /etc/apt/sources.list* /root/sources/ && mkdir /etc/apt/sources.list.d",
    )?;
    tres.write("/etc/apt/sources.list.d/p2pd.sources", &sources)?;
    tres.must("apt-get update --error-on=any")?;
    tres.run_with("root", "apt-get install --yes p2pd", b"", COMMAND)?.ok()?;
    tres.is("p2pd.service", "active")?;
    let policy = tres.must("apt-cache policy p2pd")?;
    ensure!(policy.stdout.contains(REPOSITORY_DIR), "{}", policy.told());
    so()
}
