//! A state directory on a disk that is too small.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_proto::control::{Transfer, TransferState};
use rusqlite::Connection;

use super::{Case, Group};
use crate::command::here;
use crate::host::Host;
use crate::interrupt::eventually;
use crate::lab::QUICK;
use crate::packages::CURRENT_DIR;
use crate::site::Site;

/// Size of the disk.
const DISK_MIB: u64 = 160;
/// What stays free, as the host is configured.
const RESERVE_MIB: u64 = 32;
/// What is fetched: there is room for it, and not for it twice.
const LEN: &str = "64M";
/// What fills the disk, for a time.
const BALLAST: &str = "/var/lib/p2pd/ballast";
/// A paused transfer looks at the disk again in this time.
const LOOKS_AGAIN: Duration = Duration::from_secs(90);

/// `dos` has the small disk.
pub(super) const GROUP: Group = Group {
    name: "disk",
    hosts: &["maestro", "uno", "dos"],
    each_release: true,
    in_order: true,
    prepare,
    cases: &[
        Case { name: "pauses-and-goes-on", check: pauses_and_goes_on },
        Case { name: "filled-during-a-fetch", check: filled_during_a_fetch },
        Case { name: "killed-on-a-full-disk", check: killed_on_a_full_disk },
    ],
};

fn prepare(site: &Site<'_>) -> Result<()> {
    let dos = site.host("dos")?;
    mount_disk(site, dos)?;
    site.install_network(CURRENT_DIR)?;
    let reserve = RESERVE_MIB << 20;
    dos.must(&format!("sed -i 's/^reserve_bytes = .*/reserve_bytes = {reserve}/' /etc/p2pd/p2pd.toml"))?;
    dos.must("systemctl restart p2pd.service")?;
    site.in_sync("dos")
}

/// Puts an ext4 of its own below the state directory before anything is installed.
fn mount_disk(site: &Site<'_>, host: &Host) -> Result<()> {
    let image = site.dir().join("disk.ext4");
    let shown = image.display().to_string();
    fs::File::create(&image)?.set_len(DISK_MIB << 20)?;
    here("mkfs.ext4", &["-q", "-m", "0", &shown], QUICK)?;
    let device = here("losetup", &["--find", "--show", &shown], QUICK)?;
    let device = device.text().to_owned();
    let number = device.strip_prefix("/dev/loop").context("losetup names no loop device")?;
    let mounted = host.must(&format!(
        "mknod /dev/small-disk b 7 {number} && mkdir -p /var/lib/p2pd && mount /dev/small-disk /var/lib/p2pd && \
         rmdir /var/lib/p2pd/lost+found"
    ));
    // It goes when the host does, and with it the mount.
    here("losetup", &["--detach", &device], QUICK)?;
    mounted?;
    Ok(())
}

fn free_mib(host: &Host) -> Result<u64> {
    let said = host.must("df --output=avail --block-size=1M /var/lib/p2pd | tail -n 1")?;
    Ok(said.text().trim().parse()?)
}

/// Takes all of the disk but so much.
fn leave_free(host: &Host, mib: u64) -> Result<()> {
    let take = free_mib(host)?.saturating_sub(mib);
    host.must(&format!("fallocate --length {take}MiB {BALLAST}"))?;
    Ok(())
}

/// Takes all of the disk, to the last block.
fn fill(host: &Host) -> Result<()> {
    let filled = host.run(&format!(
        "for size in 1M 4k 1; do cat /dev/zero | head --bytes=1G | dd bs=$size >>{BALLAST}; done"
    ))?;
    ensure!(filled.stderr.contains("No space left"), "the disk is not full: {}", filled.told());
    Ok(())
}

fn paused(host: &Host, name: &str) -> Result<Transfer> {
    eventually(Duration::from_secs(30), &format!("{name} is paused"), || {
        let transfer = host.transfer(name)?;
        ensure!(transfer.state == TransferState::Paused, "it is {:?}: {:?}", transfer.state, transfer.reason);
        Ok(transfer)
    })
}

fn done(host: &Host, name: &str, hash: &str) -> Result<()> {
    let path = eventually(LOOKS_AGAIN, &format!("{name} is fetched once there is room"), || {
        let transfer = host.transfer(name)?;
        ensure!(transfer.state == TransferState::Done, "it is {:?}: {:?}", transfer.state, transfer.reason);
        transfer.path.context("it has no path")
    })?;
    ensure!(host.hash(&path)? == hash, "{name} has other bytes than were shared");
    Ok(())
}

fn pauses_and_goes_on(site: &Site<'_>) -> Result<String> {
    let hash = site.share("uno", "waits.bin", LEN, "dos")?;
    let dos = site.host("dos")?;
    leave_free(dos, 80)?;
    dos.must("p2pctl fetch --detach waits.bin")?;
    let transfer = paused(dos, "waits.bin")?;
    let free = free_mib(dos)?;
    ensure!(free >= RESERVE_MIB, "{free} MiB are free, and {RESERVE_MIB} are to stay free");
    let reason = transfer.reason.context("it does not say why")?;
    let shown = dos.must("p2pctl transfers")?;
    ensure!(shown.stdout.contains("paused"), "{}", shown.told());
    dos.must(&format!("rm {BALLAST}"))?;
    done(dos, "waits.bin", &hash)?;
    Ok(format!("{reason:?}"))
}

/// Somebody else fills the disk while a file arrives whose space is reserved already: the file arrives all the same, or
/// waits, but is never torn.
fn filled_during_a_fetch(site: &Site<'_>) -> Result<String> {
    let dos = site.host("dos")?;
    dos.must("rm -f /var/lib/p2pd/shared/*.bin && p2pctl refresh")?;
    let fetching = super::whole::begun(site, "fills.bin")?;
    fill(dos)?;
    let full = dos.transfer("fills.bin")?;
    dos.must(&format!("rm {BALLAST}"))?;
    ensure!(!full.state.is_ended() || full.state == TransferState::Done, "it is {:?}", full.state);
    let note = fetching.ends_well(site)?;
    sound(site)?;
    Ok(note)
}

/// Killed while not a byte is free, and started again: with room, all is as it was.
fn killed_on_a_full_disk(site: &Site<'_>) -> Result<String> {
    let hash = site.share("uno", "later.bin", "1M", "dos")?;
    let dos = site.host("dos")?;
    let before = dos.status()?;
    leave_free(dos, RESERVE_MIB / 2)?;
    dos.must("p2pctl fetch --detach later.bin")?;
    paused(dos, "later.bin")?;
    fill(dos)?;
    let refused = dos.run("p2pctl fetch archivo-x.bin")?;
    ensure!(refused.code != 0, "{}", refused.told());
    let pid = dos.main_pid("p2pd")?;
    dos.must(&format!("kill -KILL {pid}"))?;
    let on_a_full_disk = eventually(Duration::from_secs(15), "p2pd is up again on the full disk", || {
        ensure!(dos.main_pid("p2pd")? != pid, "the old process is still there");
        dos.is("p2pd.service", "active")
    });
    dos.must(&format!(
        "rm {BALLAST}; systemctl reset-failed p2pd.service; systemctl start p2pd.socket p2pd.service"
    ))?;
    let after = dos.status()?;
    ensure!(after.peer_id == before.peer_id, "it is another peer");
    done(dos, "later.bin", &hash)?;
    sound(site)?;
    site.in_sync("dos")?;
    let files = dos.status()?.files;
    ensure!(files == before.files + 1, "{} files were shared, and now {files}", before.files);
    Ok(match on_a_full_disk {
        Ok(()) => "it also starts while the disk is full".to_owned(),
        Err(_) => "it starts once there is room".to_owned(),
    })
}

/// Both databases are whole, and the key is the daemon's alone.
fn sound(site: &Site<'_>) -> Result<()> {
    let host = site.host("dos")?;
    host.must("systemctl stop p2pd.socket p2pd.service")?;
    let checked =
        ["catalog.sqlite", "transfers.sqlite"].iter().try_for_each(|database| whole(site, host, database));
    host.must("systemctl start p2pd.socket p2pd.service")?;
    checked?;
    let key = host.must("stat --format=%U:%a /var/lib/p2pd/identity.key")?;
    ensure!(key.text() == "p2pd:600", "the key is {}", key.text());
    Ok(())
}

/// Looks at a copy: to open a database is to change it.
fn whole(site: &Site<'_>, host: &Host, database: &str) -> Result<()> {
    let copies = site.dir();
    for suffix in ["", "-wal"] {
        let file = format!("{database}{suffix}");
        match fs::copy(host.path(&format!("/var/lib/p2pd/{file}"))?, copies.join(&file)) {
            // A daemon that ended in order leaves no log beside it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            copied => {
                copied.with_context(|| format!("cannot copy {file}"))?;
            }
        }
    }
    let connection = Connection::open(copies.join(database))?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "{database}: {verdict}");
    Ok(())
}
