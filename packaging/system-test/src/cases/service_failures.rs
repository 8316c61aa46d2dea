//! Daemons that die, hang, or cannot start: what systemd makes of it, and what an administrator sees.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::service::CONFIGURATION;
use super::so;
use crate::host::Host;
use crate::interrupt::{eventually, pass};
use crate::site::Site;

/// Units and where they run.
const DAEMONS: [(&str, &str); 2] = [("maestro", "maestrod"), ("dos", "p2pd")];
/// Longer than any pause between two starts.
const RESTARTS: Duration = Duration::from_secs(15);
/// Several times the pause between two starts: a storm would show in it.
const STORM: Duration = Duration::from_secs(15);
/// An address that no host has.
const LATE_ADDRESS: &str = "10.77.0.77";
/// How late it comes: after the time in which too many starts are a storm.
const LATE: Duration = Duration::from_secs(35);

/// `kill -9` is answered by a new process.
pub(super) fn killed(site: &Site<'_>) -> Result<String> {
    for (host, unit) in DAEMONS {
        let host = site.host(host)?;
        let before = host.main_pid(unit)?;
        host.must(&format!("kill -KILL {before}"))?;
        another_process(host, unit, before, RESTARTS)?;
    }
    site.in_sync("dos")?;
    so()
}

/// A stopped process feeds no watchdog: systemd ends it and starts another.
pub(super) fn hung(site: &Site<'_>) -> Result<String> {
    let mut stopped = Vec::new();
    for (host, unit) in DAEMONS {
        let host = site.host(host)?;
        let (pid, cursor) = (host.main_pid(unit)?, host.journal_cursor()?);
        let allowed: String = host.property(unit, "WatchdogUSec")?;
        ensure!(allowed != "0" && allowed != "infinity", "{unit} has no watchdog");
        host.must(&format!("kill -STOP {pid}"))?;
        stopped.push((host, unit, pid, cursor, allowed));
    }
    let mut notes = Vec::new();
    for (host, unit, pid, cursor, allowed) in stopped {
        another_process(host, unit, pid, Duration::from_secs(60))?;
        let journal = host.journal_since(&cursor, unit)?;
        ensure!(
            journal.to_lowercase().contains("watchdog"),
            "the journal does not name the watchdog:\n{journal}"
        );
        notes.push(format!("{unit} is allowed {allowed}"));
    }
    site.in_sync("dos")?;
    Ok(notes.join(", "))
}

fn another_process(host: &Host, unit: &str, before: u32, within: Duration) -> Result<()> {
    eventually(within, &format!("another process of {unit} runs on {}", host.name()), || {
        let now = host.main_pid(unit)?;
        ensure!(now != before, "it is still {before}");
        host.is(unit, "active")
    })
}

/// A start that cannot succeed is not repeated, and the reason is where one looks first.
pub(super) fn bad_configuration(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    dos.must(&format!(
        "cp {CONFIGURATION} /root/good.toml && echo 'reserve_byte = \"much\"' >>{CONFIGURATION}"
    ))?;
    let seen = refused_start(dos);
    dos.must(&format!(
        "cat /root/good.toml >{CONFIGURATION} && systemctl reset-failed p2pd.service p2pd.socket"
    ))?;
    dos.must("systemctl start p2pd.socket p2pd.service")?;
    site.in_sync("dos")?;
    seen
}

fn refused_start(dos: &Host) -> Result<String> {
    let restarted = dos.run("systemctl restart p2pd.service")?;
    ensure!(restarted.code != 0, "a daemon with a wrong configuration has started");
    let before = dos.property("p2pd", "NRestarts")?;
    pass(STORM)?;
    let after = dos.property("p2pd", "NRestarts")?;
    ensure!(before == after, "systemd tried {before} and then {after} times");
    dos.is("p2pd.service", "failed")?;
    let status = dos.run("systemctl status --full --no-pager p2pd.service")?;
    for wanted in ["reserve_byte", CONFIGURATION] {
        ensure!(status.stdout.contains(wanted), "it does not name {wanted}: {}", status.told());
    }
    // Whoever asks by the socket is told too, and starts no storm.
    let asked = dos.run("p2pctl status")?;
    ensure!(asked.code == 4, "p2pctl exits with {}: {}", asked.code, asked.told());
    let line = status.stdout.lines().find(|line| line.contains("reserve_byte")).unwrap_or_default();
    Ok(format!("{:?}", line.trim()))
}

/// An address that is not there yet, as at a boot whose network is slow, is waited for.
pub(super) fn late_address(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    dos.must(&format!(
        "cp {CONFIGURATION} /root/good.toml && \
         sed -i 's/^listen = \"\\[::\\]:9002\"$/listen = \"{LATE_ADDRESS}:9002\"/' {CONFIGURATION} && \
         grep --quiet '{LATE_ADDRESS}:9002' {CONFIGURATION}"
    ))?;
    let seen = started_late(dos);
    dos.must(&format!(
        "cat /root/good.toml >{CONFIGURATION}; ip address del {LATE_ADDRESS}/24 dev eth0 || true"
    ))?;
    dos.must("systemctl reset-failed p2pd.service p2pd.socket")?;
    dos.must("systemctl start p2pd.socket && systemctl restart p2pd.service")?;
    site.in_sync("dos")?;
    seen
}

fn started_late(dos: &Host) -> Result<String> {
    let cursor = dos.journal_cursor()?;
    // systemd counts starts by hand too.
    dos.must("systemctl reset-failed p2pd.service && systemctl restart --no-block p2pd.service")?;
    pass(LATE)?;
    dos.is("p2pd.service", "activating")?;
    let journal = dos.journal_since(&cursor, "p2pd")?;
    ensure!(journal.contains(LATE_ADDRESS), "the journal does not name {LATE_ADDRESS}:\n{journal}");
    dos.must(&format!("ip address add {LATE_ADDRESS}/24 dev eth0"))?;
    eventually(RESTARTS, "p2pd runs once the address is there", || dos.is("p2pd.service", "active"))?;
    Ok(format!("after {} restarts", dos.property("p2pd", "NRestarts")?))
}
