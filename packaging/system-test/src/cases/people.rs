//! Who may do what: users in the group and outside of it, their copies, and shares that the sandbox hides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_proto::control::ShareList;

use super::{Case, Group, so};
use crate::interrupt::eventually;
use crate::packages::CURRENT_DIR;
use crate::site::Site;

/// ana and eva are in the group, juan is not.
pub(super) const GROUP: Group = Group {
    name: "people",
    hosts: &["maestro", "uno", "dos"],
    each_release: true,
    in_order: false,
    prepare,
    cases: &[
        Case { name: "outside-of-the-group", check: outside_of_the_group },
        Case { name: "fetched-for-the-group", check: fetched_for_the_group },
        Case { name: "delivered-with-their-umasks", check: delivered_with_their_umasks },
        Case { name: "delivered-through-the-socket", check: delivered_through_the_socket },
        Case { name: "callers-are-logged", check: callers_are_logged },
        Case { name: "hidden-share", check: hidden_share },
        Case { name: "unreadable-share", check: unreadable_share },
    ],
};

fn prepare(site: &Site<'_>) -> Result<()> {
    site.install_network(CURRENT_DIR)?;
    let dos = site.host("dos")?;
    dos.must("adduser ana p2pd && adduser eva p2pd")?;
    site.share("uno", "archivo1.txt", "100000", "dos")?;
    Ok(())
}

fn outside_of_the_group(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let refused = dos.run_as("juan", "p2pctl list")?.exited(5)?;
    ensure!(refused.stderr.contains("group p2pd"), "it does not name the group: {}", refused.told());
    ensure!(refused.stderr.contains("usermod -aG p2pd"), "it does not say how: {}", refused.told());
    let read = dos.run_as("juan", "ls /var/lib/p2pd/shared /var/lib/p2pd/identity.key")?;
    ensure!(read.stdout.is_empty(), "juan can see {}", read.told());
    Ok(format!("{:?}", refused.stderr.lines().next().unwrap_or_default()))
}

fn fetched_for_the_group(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let fetched = dos.run_as("ana", "p2pctl fetch archivo1.txt")?.ok()?;
    let path = fetched.text().split_once("  ").context("it prints no path")?.1.to_owned();
    let read = dos.run_as("eva", &format!("cat '{path}' | wc --bytes"))?.ok()?;
    ensure!(read.text() == "100000", "eva reads {}", read.told());
    let mode = dos.must(&format!("stat --format='%U:%G %a' '{path}'"))?;
    ensure!(mode.text().starts_with("p2pd:p2pd ") && mode.text().ends_with('0'), "{path} is {}", mode.text());
    let secret = dos.run_as("ana", "cat /var/lib/p2pd/identity.key")?;
    ensure!(secret.code != 0, "ana can read the daemon's key");
    Ok(format!("{path} is {}", mode.text()))
}

fn delivered_with_their_umasks(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    for (person, umask, mode) in [("ana", "022", "644"), ("ana", "002", "664"), ("eva", "077", "600")] {
        let target = format!("copy-{umask}.txt");
        dos.run_as(person, &format!("umask {umask} && p2pctl fetch archivo1.txt -o {target}"))?.ok()?;
        let found = dos.must(&format!("stat --format='%U:%G %a' /home/{person}/{target}"))?;
        let wanted = format!("{person}:{person} {mode}");
        ensure!(found.text() == wanted, "{target} is {}, and {wanted} is right", found.text());
        let hash = dos.hash(&format!("/home/{person}/{target}"))?;
        ensure!(hash == dos.hash("/var/lib/p2pd/shared/archivo1.txt")?, "{target} has another content");
    }
    so()
}

/// Whoever may ask the daemon but not read its files gets the bytes from it.
fn delivered_through_the_socket(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    dos.run_as("ana", "p2pctl fetch archivo1.txt")?.ok()?;
    let before = dos.must("stat --format=%a /var/lib/p2pd/shared")?;
    dos.must("chmod 2700 /var/lib/p2pd/shared")?;
    let fetched = dos.run_as("eva", "p2pctl fetch archivo1.txt -o through.txt");
    dos.must(&format!("chmod {} /var/lib/p2pd/shared", before.text()))?;
    fetched?.ok()?;
    let owner = dos.must("stat --format=%U:%G /home/eva/through.txt")?;
    ensure!(owner.text() == "eva:eva", "it is {}", owner.text());
    ensure!(
        dos.hash("/home/eva/through.txt")? == dos.hash("/var/lib/p2pd/shared/archivo1.txt")?,
        "other bytes"
    );
    so()
}

fn callers_are_logged(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let uid = dos.must("id --user eva")?;
    // Counted, since journalctl looks for matches after a cursor one line too late.
    let query = format!("journalctl --quiet --unit=p2pd --output=cat CALLER_UID={}", uid.text());
    let count = || -> Result<usize> { Ok(dos.must(&query)?.stdout.lines().count()) };
    let before = count()?;
    dos.run_as("eva", "p2pctl fetch archivo1.txt")?.ok()?;
    let lines = eventually(Duration::from_secs(10), "the journal names the user who called", || {
        let lines = count()? - before;
        ensure!(lines > 0, "no line more has CALLER_UID={}", uid.text());
        Ok(lines)
    })?;
    Ok(format!("{lines} lines"))
}

/// The sandbox hides home directories: the command says so before anything is configured, and prints what mends it, which
/// then does.
fn hidden_share(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    uno.must("install -d -o ana -g ana -m 0755 /home/ana/iso && chmod 0755 /home/ana && echo iso >/home/ana/iso/hidden.iso")?;
    mended(site, "/home/ana/iso", "hidden.iso")
}

/// Modes that keep the daemon's account out are found out too.
fn unreadable_share(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    uno.must("install -d -o juan -g juan -m 0700 /data/discos && echo iso >/data/discos/closed.iso")?;
    mended(site, "/data/discos", "closed.iso")
}

fn mended(site: &Site<'_>, path: &str, file: &str) -> Result<String> {
    let uno = site.host("uno")?;
    let refused = uno.run(&format!("p2pctl share add {path}"))?;
    ensure!(refused.code != 0, "it was taken as it is: {}", refused.told());
    let printed = format!("{}{}", refused.stdout, refused.stderr);
    let commands = indented_commands(&printed);
    ensure!(!commands.is_empty(), "it prints no commands: {}", refused.told());
    uno.must(&format!("set -e\n{commands}"))
        .with_context(|| format!("the printed commands do not work:\n{printed}"))?;
    eventually(Duration::from_secs(20), &format!("the files of {path} are shared"), || {
        // The commands may end with the one that adds the share, or leave that to the user.
        uno.must(&format!("p2pctl shares | grep --quiet {path} || p2pctl share add {path}"))?;
        let shares: ShareList = uno.ask("shares")?;
        let share = shares.shares.into_iter().find(|share| share.path == path).context("it is not listed")?;
        ensure!(share.unavailable.is_none() && share.files == 1, "{share:?}");
        Ok(())
    })?;
    site.found("dos", file)?;
    Ok(format!("mended by {} printed lines", commands.lines().count()))
}

/// Commands stand indented below the sentence that introduces them.
fn indented_commands(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| format!("{line}\n")).collect()
}
