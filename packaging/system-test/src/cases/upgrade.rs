//! The life of the packages: from an older version to this one, back, away, and to nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::service::CONFIGURATION;
use super::{Case, Group, so, whole};
use crate::host::Host;
use crate::interrupt::eventually;
use crate::packages::{CURRENT_DIR, PREVIOUS, PREVIOUS_DIR};
use crate::site::Site;

/// Unpacking and starting a package.
const INSTALLS: Duration = Duration::from_secs(120);
/// A share of the user's, outside of what the package makes.
const SHARE: &str = "/srv/iso";
/// A share of the user's in the state directory, beside the default one.
const BESIDE: &str = "/var/lib/p2pd/beside";
/// Where a moved state directory is.
const MOVED: &str = "/srv/state";
/// The list of files before anything was installed.
const BEFORE: &str = "/root/files-before";

/// `dos` is upgraded; the others have this version from the start.
pub(super) const GROUP: Group = Group {
    name: "upgrade",
    hosts: &["maestro", "uno", "dos"],
    each_release: true,
    in_order: true,
    prepare,
    cases: &[
        Case { name: "during-a-fetch", check: during_a_fetch },
        Case { name: "keeps-configuration", check: keeps_configuration },
        Case { name: "downgrade", check: downgrade },
        Case { name: "remove-keeps-data", check: remove_keeps_data },
        Case { name: "reinstall-is-the-same-peer", check: reinstall_is_the_same_peer },
        Case { name: "purge", check: purge },
        Case { name: "purge-of-maestrod", check: purge_of_maestrod },
    ],
};

fn prepare(site: &Site<'_>) -> Result<()> {
    for host in ["maestro", "dos"] {
        site.host(host)?.must(&format!("{} >{BEFORE}", list_files()))?;
    }
    site.install("maestro", CURRENT_DIR, &["maestrod"])?;
    site.install("uno", CURRENT_DIR, &["p2pd"])?;
    site.install("dos", PREVIOUS_DIR, &["p2pd"])?;
    let dos = site.host("dos")?;
    dos.must(&format!("mkdir -p {SHARE} && echo mine >{SHARE}/mine.txt"))?;
    for (name, path) in [("iso", SHARE), ("beside", BESIDE)] {
        let share = format!("\n[[share]]\nname = \"{name}\"\npath = \"{path}\"\n");
        dos.must(&format!("printf '%s' '{share}' >>{CONFIGURATION}"))?;
    }
    dos.must(&format!("sed -i 's/^running = .*/running = 3/' {CONFIGURATION}"))?;
    dos.must("systemctl restart p2pd.service")?;
    site.join("uno")?;
    site.join("dos")
}

/// Files of the system, without what every installation of any package changes: lists and caches of dpkg, of apt, of
/// systemd, and the journal.
fn list_files() -> String {
    let changing = [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/tmp",
        "/root",
        "/packages",
        "/var/tmp",
        "/var/log",
        "/var/cache",
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/lib/systemd",
        "/var/lib/private",
        "/srv",
    ];
    let pruned: Vec<_> = changing.iter().map(|path| format!("-path {path}")).collect();
    // Each change of the accounts keeps the file as it was before.
    format!(
        "find / \\( {} \\) -prune -o ! -path '/etc/*-' ! -path '/etc/.pwd.lock' -print | sort",
        pruned.join(" -o ")
    )
}

fn during_a_fetch(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let installed = |dos: &Host| Ok::<_, anyhow::Error>(dos.must("dpkg-query --show p2pd")?.stdout);
    ensure!(installed(dos)?.contains(PREVIOUS), "{}", installed(dos)?);
    let pid = dos.main_pid("p2pd")?;
    let fetching = whole::begun(site, "upgraded.bin")?;
    site.install("dos", CURRENT_DIR, &["p2pd"])?;
    ensure!(!installed(dos)?.contains(PREVIOUS), "{}", installed(dos)?);
    ensure!(dos.main_pid("p2pd")? != pid, "the old daemon still runs");
    fetching.ends_well(site)
}

fn keeps_configuration(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    dos.must(&format!(
        "grep --quiet '^running = 3' {CONFIGURATION} && grep --quiet {SHARE} {CONFIGURATION}"
    ))?;
    eventually(Duration::from_secs(15), "the share of the edited configuration is listed", || {
        let listed = dos.must("p2pctl list")?;
        ensure!(listed.stdout.contains("mine.txt"), "{}", listed.told());
        Ok(())
    })?;
    so()
}

/// Either is right: the older program refuses a newer database and leaves it as it is, or it works with it.
fn downgrade(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let peer = dos.status()?.peer_id;
    let downgrade = format!("cd {PREVIOUS_DIR} && apt-get install --yes --allow-downgrades ./p2pd_*.deb");
    dos.run_with("root", &downgrade, b"", INSTALLS)?.ok()?;
    let state = dos.property("p2pd.service", "ActiveState")?;
    let note = match state.as_str() {
        "active" => {
            ensure!(dos.status()?.peer_id == peer, "it is another peer");
            let hash = dos.must("p2pctl list")?;
            ensure!(hash.stdout.contains("upgraded.bin"), "{}", hash.told());
            "safe: the older version goes on with the same state"
        }
        _ => {
            let journal = dos.journal_end(INSTALLS)?;
            ensure!(journal.contains("newer"), "it does not say why:\n{journal}");
            "refused by the older version, which leaves the newer state as it is"
        }
    };
    site.install("dos", CURRENT_DIR, &["p2pd"])?;
    ensure!(dos.status()?.peer_id == peer, "it is another peer after the way back");
    site.in_sync("dos")?;
    Ok(note.to_owned())
}

fn remove_keeps_data(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let kept = "/var/lib/p2pd/identity.key /var/lib/p2pd/catalog.sqlite /var/lib/p2pd/network.json \
                /var/lib/p2pd/shared/upgraded.bin";
    dos.must(&format!("ls {kept}"))?;
    dos.must("apt-get remove --yes p2pd")?;
    dos.must(&format!("ls {kept} {CONFIGURATION} {SHARE}/mine.txt"))?;
    let left = dos.run("pgrep --exact p2pd; ls /usr/sbin/p2pd /run/p2pd/control.sock 2>/dev/null")?;
    ensure!(left.stdout.is_empty(), "there is still {}", left.told());
    so()
}

fn reinstall_is_the_same_peer(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let key = "sha256sum </var/lib/p2pd/identity.key";
    let before = dos.must(key)?.stdout;
    site.install("dos", CURRENT_DIR, &["p2pd"])?;
    ensure!(dos.must(key)?.stdout == before, "the key is another one");
    site.in_sync("dos")?;
    dos.must(&format!("grep --quiet '^running = 3' {CONFIGURATION}"))?;
    so()
}

fn purge(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    // The daemon has made the share. A file in it is the user's, a part of an unfinished download is not.
    dos.must(&format!(
        "cd {BESIDE} && echo mine >beside.txt && mkdir -p .p2p-partial && touch .p2p-partial/0-1 && \
         touch /var/lib/p2pd/.friends.json.7.0"
    ))?;
    let purged = dos.must("apt-get purge --yes p2pd")?;
    dos.must(&format!("grep --quiet mine {SHARE}/mine.txt")).context("a file of the user's share is gone")?;
    dos.must(&format!("grep --quiet mine {BESIDE}/beside.txt"))
        .context("a file of the user's share beside the default one is gone")?;
    let left = new_files(dos)?;
    let beside = format!("{BESIDE}/beside.txt");
    let fetched = "/var/lib/p2pd/shared/upgraded.bin";
    let mine: BTreeSet<_> =
        ["/var/lib/p2pd", "/var/lib/p2pd/shared", fetched, BESIDE, beside.as_str()].into();
    let foreign: Vec<_> = left.iter().filter(|path| !mine.contains(path.as_str())).collect();
    ensure!(foreign.is_empty(), "purge leaves {foreign:?}; it says\n{}", purged.told());
    // What the user fetched is the user's; without it, nothing is left.
    ensure!(left.contains(fetched), "the user's fetched file is gone");
    dos.must(&format!("rm {fetched} {beside}"))?;
    site.install("dos", CURRENT_DIR, &["p2pd"])?;
    dos.must("apt-get purge --yes p2pd")?;
    let left = new_files(dos)?;
    ensure!(left.is_empty(), "purge leaves {left:?}");
    purge_through_a_link(site)?;
    Ok("without files of the user, the system is as before".to_owned())
}

/// No key is left where the state directory was moved and a link put in its place.
fn purge_through_a_link(site: &Site<'_>) -> Result<()> {
    site.install("dos", CURRENT_DIR, &["p2pd"])?;
    let dos = site.host("dos")?;
    dos.must("apt-get remove --yes p2pd")?;
    dos.must(&format!("mv /var/lib/p2pd {MOVED} && ln -s {MOVED} /var/lib/p2pd && ls {MOVED}/identity.key"))?;
    let purged = dos.must("apt-get purge --yes p2pd")?;
    dos.must(&format!("test ! -e {MOVED}")).with_context(|| format!("{MOVED} is left: {}", purged.told()))?;
    let left = new_files(dos)?;
    ensure!(left.is_empty(), "purge leaves {left:?}");
    Ok(())
}

fn purge_of_maestrod(site: &Site<'_>) -> Result<String> {
    let maestro = site.host("maestro")?;
    maestro.must("ls /var/lib/maestrod/identity.key")?;
    maestro.must("apt-get remove --yes maestrod")?;
    maestro.must("ls /var/lib/maestrod/identity.key /etc/maestrod/maestrod.toml")?;
    maestro.must("apt-get purge --yes maestrod")?;
    let left = new_files(maestro)?;
    ensure!(left.is_empty(), "purge leaves {left:?}");
    so()
}

/// Files that are there now and were not before, and those that are gone.
fn new_files(host: &Host) -> Result<BTreeSet<String>> {
    let said = host.must(&format!("{} | diff {BEFORE} - | sed -n 's/^[<>] //p'", list_files()))?;
    Ok(said.stdout.lines().map(str::to_owned).collect())
}
