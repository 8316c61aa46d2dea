//! The units as an administrator uses them: start, stop, reload, reboot, and commands while the daemon is away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::service_failures as failures;
use super::{Case, Group, so, whole};
use crate::host::Host;
use crate::interrupt::eventually;
use crate::packages::CURRENT_DIR;
use crate::site::Site;

/// A daemon ends by itself in this time.
const ENDS: Duration = Duration::from_secs(6);

/// The configuration that the package installs.
pub(super) const CONFIGURATION: &str = "/etc/p2pd/p2pd.toml";

/// What the daemon says of itself, and what comes of it.
pub(super) const GROUP: Group = Group {
    name: "service",
    hosts: &["maestro", "uno", "dos"],
    each_release: true,
    in_order: false,
    prepare: |site| site.install_network(CURRENT_DIR),
    cases: &[
        Case { name: "start-and-stop", check: start_and_stop },
        Case { name: "status-line", check: status_line },
        Case { name: "reload", check: reload },
        Case { name: "socket-activation", check: socket_activation },
        Case { name: "commands-during-a-restart", check: commands_during_a_restart },
        Case { name: "fetch-over-a-restart", check: fetch_over_a_restart },
        Case { name: "fetch-over-a-maestro-restart", check: fetch_over_a_maestro_restart },
        Case { name: "journal-of-a-transfer", check: journal_of_a_transfer },
        Case { name: "killed", check: failures::killed },
        Case { name: "hung", check: failures::hung },
        Case { name: "bad-configuration", check: failures::bad_configuration },
        Case { name: "late-address", check: failures::late_address },
        Case { name: "reboot", check: reboot },
        Case { name: "user-unit", check: user_unit },
    ],
};

fn start_and_stop(site: &Site<'_>) -> Result<String> {
    let mut slowest = Duration::ZERO;
    for (host, unit) in [("maestro", "maestrod"), ("dos", "p2pd")] {
        let host = site.host(host)?;
        let stopped = host.must(&format!("systemctl stop {unit}.service"))?;
        ensure!(stopped.took < ENDS, "{unit} took {:.1} s to stop", stopped.took.as_secs_f64());
        slowest = slowest.max(stopped.took);
        host.is(unit, "inactive")?;
        let result = host.property(unit, "Result")?;
        ensure!(result == "success", "{unit} ended with {result}");
        host.must(&format!("systemctl start {unit}.service"))?;
        host.is(unit, "active")?;
        let before = host.main_pid(unit)?;
        host.must(&format!("systemctl restart {unit}.service"))?;
        ensure!(host.main_pid(unit)? != before, "{unit} was not restarted");
        host.must(&format!("systemctl status {unit}"))?;
    }
    site.in_sync("dos")?;
    Ok(format!("stops in {:.1} s at the most", slowest.as_secs_f64()))
}

fn status_line(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let text =
        eventually(Duration::from_secs(15), "the status line tells how many files are shared", || {
            let text = dos.property("p2pd", "StatusText")?;
            ensure!(text.contains("files shared") || text.contains("file shared"), "it is {text:?}");
            Ok(text)
        })?;
    let maestro = site.host("maestro")?.property("maestrod", "StatusText")?;
    ensure!(maestro.contains("peers"), "the maestro's is {maestro:?}");
    Ok(format!("{text:?}, {maestro:?}"))
}

fn reload(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let (cursor, pid) = (dos.journal_cursor()?, dos.main_pid("p2pd")?);
    let edit = "sed -i -e 's/^reserve_bytes = .*/reserve_bytes = 1048576/' -e 's/^log = .*/log = \"warn\"/'";
    dos.must(&format!("cp {CONFIGURATION} /root/before.toml && {edit} {CONFIGURATION}"))?;
    let reloaded = dos.run("systemctl reload p2pd");
    dos.must(&format!("cat /root/before.toml >{CONFIGURATION}"))?;
    reloaded?.ok()?;
    ensure!(dos.main_pid("p2pd")? == pid, "the daemon was restarted");
    let journal = dos.journal_since(&cursor, "p2pd")?;
    for wanted in ["reserve_bytes", "log"] {
        ensure!(journal.contains(wanted), "the journal does not name {wanted}:\n{journal}");
    }
    let refused = journal.lines().find(|line| line.contains("log:")).unwrap_or_default();
    ensure!(refused.contains("restart"), "it does not say that `log` needs a restart:\n{journal}");
    dos.must("systemctl reload p2pd")?;
    so()
}

fn socket_activation(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let mode = dos.must("stat --format='%U:%G %a' /run/p2pd/control.sock")?;
    ensure!(mode.text() == "root:p2pd 660", "the socket is {}", mode.text());
    dos.must("systemctl stop p2pd.service")?;
    dos.is("p2pd.service", "inactive")?;
    dos.is("p2pd.socket", "active")?;
    let status = dos.must("p2pctl status")?;
    dos.is("p2pd.service", "active")?;
    site.in_sync("dos")?;
    Ok(format!("the first answer took {:.2} s", status.took.as_secs_f64()))
}

fn commands_during_a_restart(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    let asking = "asked=0; while [ ! -e /root/enough ]; do \
                    p2pctl list >/dev/null || exit; asked=$((asked + 1)); \
                  done; echo $asked";
    dos.must("rm -f /root/enough")?;
    let asked = dos.start("root", asking)?;
    // systemd counts starts by hand too, and too many in a short time are refused.
    dos.must("systemctl reset-failed p2pd.service")?;
    let restarted = dos.run("for time in 1 2 3; do systemctl restart p2pd.service || exit; done");
    dos.must("systemctl reset-failed p2pd.service")?;
    dos.must("touch /root/enough")?;
    restarted?.ok()?;
    let asked = asked.finish(Duration::from_secs(60))?.ok().context("a command failed during a restart")?;
    Ok(format!("{} commands during 3 restarts, none failed", asked.text()))
}

fn fetch_over_a_restart(site: &Site<'_>) -> Result<String> {
    let fetching = whole::begun(site, "restarted.bin")?;
    site.host("dos")?.must("systemctl restart p2pd.service")?;
    fetching.ends_well(site)
}

fn fetch_over_a_maestro_restart(site: &Site<'_>) -> Result<String> {
    let fetching = whole::begun(site, "maestro-restarted.bin")?;
    site.host("maestro")?.must("systemctl restart maestrod.service")?;
    let ended = fetching.ends_well(site)?;
    site.in_sync("dos")?;
    Ok(ended)
}

fn journal_of_a_transfer(site: &Site<'_>) -> Result<String> {
    let hash = site.share("uno", "told.txt", "1000", "dos")?;
    let dos = site.host("dos")?;
    dos.must("p2pctl fetch told.txt")?;
    let id = dos.transfer("told.txt")?.id;
    let query = |filter: &str| dos.must(&format!("journalctl --quiet --unit=p2pd --output=json {filter}"));
    let lines = eventually(Duration::from_secs(10), "the journal tells the transfer's story", || {
        let lines = query(&format!("TRANSFER_ID={id}"))?.stdout;
        ensure!(lines.lines().count() >= 2, "it has {} lines with TRANSFER_ID={id}", lines.lines().count());
        Ok(lines)
    })?;
    ensure!(lines.contains(&hash), "no line names the content {hash}:\n{lines}");
    Ok(format!("{} lines", lines.lines().count()))
}

fn reboot(site: &Site<'_>) -> Result<String> {
    let (maestro, dos) = (site.host("maestro")?, site.host("dos")?);
    let before = dos.status()?.peer_id;
    maestro.reboot()?;
    dos.reboot()?;
    maestro.is("maestrod.service", "active")?;
    dos.is("p2pd.service", "active")?;
    site.in_sync("dos")?;
    let after = dos.status()?.peer_id;
    ensure!(after == before, "it was {before}, and is {after} after the reboot");
    so()
}

/// A desktop user's own daemon, without root: its files are theirs, its socket is in their session.
fn user_unit(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    // One machine has one set of default ports.
    uno.must("systemctl stop p2pd.service p2pd.socket")?;
    let checked = user_daemon(uno);
    uno.run("loginctl disable-linger eva; systemctl stop user@$(id -u eva).service")?;
    uno.must("systemctl start p2pd.socket p2pd.service")?;
    site.in_sync("uno")?;
    checked
}

fn user_daemon(uno: &Host) -> Result<String> {
    uno.must("loginctl enable-linger eva")?;
    let session = "export XDG_RUNTIME_DIR=/run/user/$(id -u); ";
    eventually(Duration::from_secs(20), "eva's session is there", || {
        uno.run_as("eva", &format!("{session} systemctl --user is-system-running --wait"))?.ok()
    })?;
    uno.run_as("eva", &format!("{session} systemctl --user start p2pd.socket"))?.ok()?;
    let status = uno.run_as("eva", &format!("{session} p2pctl --json status"))?.ok()?;
    let status: p2p_proto::control::Status = status.json()?;
    ensure!(status.state_dir.starts_with("/home/eva/"), "its state is in {}", status.state_dir);
    uno.run_as("eva", &format!("{session} systemctl --user is-active p2pd.service"))?.ok()?;
    Ok(format!("its state is in {}", status.state_dir))
}
