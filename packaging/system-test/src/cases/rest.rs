//! What the daemons cost while nothing happens.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Case, Group};
use crate::host::Host;
use crate::interrupt::{eventually, pass};
use crate::packages::CURRENT_DIR;
use crate::site::Site;

/// Files that the measured peer shares.
const FILES: u64 = 10_000;
/// How long nothing happens.
const REST: Duration = Duration::from_secs(60);
/// Hashing and announcing all the files.
const KNOWN: Duration = Duration::from_secs(60);
/// What p2pd may have resident.
const P2PD_KIB: u64 = 25 * 1024;
/// What maestrod may have resident, with three peers.
const MAESTROD_KIB: u64 = 20 * 1024;
/// What p2pd may use of one core.
const CPU_SHARE: f64 = 0.001;

/// Three peers; `uno` shares many files.
pub(super) const GROUP: Group = Group {
    name: "rest",
    hosts: &["maestro", "uno", "dos", "tres"],
    each_release: true,
    in_order: false,
    prepare,
    cases: &[
        Case { name: "p2pd-and-maestrod", check: p2pd_and_maestrod },
        Case { name: "p2pd-restarted", check: p2pd_restarted },
    ],
};

fn prepare(site: &Site<'_>) -> Result<()> {
    site.install_network(CURRENT_DIR)?;
    let make = format!(
        "cd /var/lib/p2pd/shared && seq -w 0 99 | xargs mkdir && awk 'BEGIN {{ for (number = 1; number <= {FILES}; number++) {{ \
         name = sprintf(\"%02d/%d.txt\", number % 100, number); print \"file number\", number >name; close(name) }} }}'"
    );
    let uno = site.host("uno")?;
    uno.must(&make)?;
    eventually(KNOWN, "all the files are in the catalog", || {
        let status = uno.status()?;
        ensure!(status.files == FILES, "{} are", status.files);
        Ok(())
    })?;
    site.in_sync("uno")
}

/// What a process has used.
struct Use {
    resident_kib: u64,
    anonymous_kib: u64,
    ticks: u64,
}

fn measure(host: &Host, unit: &str) -> Result<Use> {
    let pid = host.main_pid(unit)?;
    let status = host.must(&format!("cat /proc/{pid}/status"))?;
    let kib = |key: &str| -> Result<u64> {
        let line = status.stdout.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    // The name is in parentheses and may hold anything; user and system time are fields 14 and 15.
    let stat = host.must(&format!("cat /proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.stdout.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field =
        |number: usize| -> Result<u64> { Ok(fields.get(number - 3).copied().unwrap_or_default().parse()?) };
    Ok(Use { resident_kib: kib("VmRSS")?, anonymous_kib: kib("RssAnon")?, ticks: field(14)? + field(15)? })
}

fn p2pd_and_maestrod(site: &Site<'_>) -> Result<String> {
    let (maestro, uno) = (site.host("maestro")?, site.host("uno")?);
    let before = measure(uno, "p2pd")?;
    pass(REST)?;
    let (peer, directory) = (measure(uno, "p2pd")?, measure(maestro, "maestrod")?);
    let ticks_per_second: f64 = uno.must("getconf CLK_TCK")?.text().parse()?;
    #[expect(clippy::cast_precision_loss, reason = "a minute has some thousands of ticks")]
    let share = (peer.ticks - before.ticks) as f64 / ticks_per_second / REST.as_secs_f64();
    let note = format!(
        "p2pd {} KiB ({} anonymous) of {P2PD_KIB}, {:.3} % CPU of {:.1}; maestrod {} KiB ({} anonymous) of {MAESTROD_KIB}",
        peer.resident_kib,
        peer.anonymous_kib,
        share * 100.0,
        CPU_SHARE * 100.0,
        directory.resident_kib,
        directory.anonymous_kib
    );
    let within =
        peer.resident_kib <= P2PD_KIB && directory.resident_kib <= MAESTROD_KIB && share <= CPU_SHARE;
    ensure!(within, "{note}");
    Ok(note)
}

/// The same after a boot, when there is nothing to hash.
fn p2pd_restarted(site: &Site<'_>) -> Result<String> {
    let uno = site.host("uno")?;
    uno.must("systemctl restart p2pd.service")?;
    site.in_sync("uno")?;
    let peer = measure(uno, "p2pd")?;
    let note = format!("{} KiB ({} anonymous) of {P2PD_KIB}", peer.resident_kib, peer.anonymous_kib);
    ensure!(peer.resident_kib <= P2PD_KIB, "{note}");
    Ok(note)
}
