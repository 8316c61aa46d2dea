//! A fetch that is disturbed while it runs, and what it must come to.

use std::time::Duration;

use anyhow::{Result, ensure};
use p2p_proto::control::TransferState;

use crate::command::Running;
use crate::interrupt::eventually;
use crate::site::Site;

/// Towards the fetching host: slow enough that a fetch of [`LEN`] is met half-way.
pub(super) const RATE: &str = "100mbit";
/// What is fetched: five seconds at that rate.
pub(super) const LEN: &str = "64M";
/// From asking for a file to having it all, with whatever happens in between.
const FETCHED: Duration = Duration::from_secs(90);
/// What a daemon that ends in order may ask for again.
const WASTED: u64 = 16 << 20;

/// A fetch that has begun and has not ended.
pub(super) struct Fetching {
    name: String,
    hash: String,
    command: Running,
}

/// `uno` shares a file, and `dos` has fetched a fifth of it.
pub(super) fn begun(site: &Site<'_>, name: &str) -> Result<Fetching> {
    let hash = site.share("uno", name, LEN, "dos")?;
    site.rate("dos", Some(RATE))?;
    let dos = site.host("dos")?;
    let command = dos.start("root", &format!("p2pctl fetch '{name}'"))?;
    eventually(Duration::from_secs(30), &format!("a fifth of {name} has arrived"), || {
        let transfer = dos.transfer(name)?;
        let size = transfer.size.unwrap_or(u64::MAX);
        ensure!(transfer.done_bytes > size / 5, "{} of {size} bytes have", transfer.done_bytes);
        Ok(())
    })?;
    let transfer = dos.transfer(name)?;
    ensure!(
        transfer.state == TransferState::Running,
        "{name} is {:?} too early to be disturbed",
        transfer.state
    );
    Ok(Fetching { name: name.to_owned(), hash, command })
}

impl Fetching {
    /// The command ends as if nothing had happened, and the file is the one that was shared.
    pub(super) fn ends_well(self, site: &Site<'_>) -> Result<String> {
        let ended = self.command.finish(FETCHED)?.ok();
        site.rate("dos", None)?;
        let ended = ended?;
        let dos = site.host("dos")?;
        let transfer = dos.transfer(&self.name)?;
        ensure!(transfer.state == TransferState::Done, "it is {:?}: {:?}", transfer.state, transfer.reason);
        let path = transfer.path.unwrap_or_default();
        let hash = dos.hash(&path)?;
        ensure!(hash == self.hash, "{path} has the hash {hash}, and {} was shared", self.hash);
        ensure!(ended.text().starts_with(&hash), "the command does not print the hash: {}", ended.told());
        ensure!(
            transfer.wasted_bytes <= WASTED,
            "{} bytes were asked for again, and {WASTED} is the limit",
            transfer.wasted_bytes
        );
        Ok(format!("{} KiB were asked for again", transfer.wasted_bytes / 1024))
    }
}
