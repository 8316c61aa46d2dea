//! What this machine must have: a user who may, and the programs that boot, build and look.

use std::env;
use std::path::Path;

use anyhow::{Result, ensure};

/// Programs, and the Debian packages that bring them.
const TOOLS: [(&str, &str); 10] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("lintian", "lintian"),
];

/// Names everything that is missing at once.
pub(crate) fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the system test boots systems in namespaces, which only root can: run `sudo env \"PATH=$PATH\" cargo xtask \
         system-test`, on a machine where that does no harm"
    );
    let path = env::var("PATH").unwrap_or_default();
    let has =
        |tool: &str| env::split_paths(&path).any(|directory| Path::new(&directory).join(tool).is_file());
    let missing = missing(has);
    ensure!(
        missing.is_empty(),
        "programs are missing that the system test needs; on Debian:\n  apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    Ok(())
}

fn missing(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        TOOLS.iter().filter(|(tool, _)| !has(tool)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(missing(|_| true), [""; 0]);
        assert_eq!(missing(|tool| !["ip", "tc", "lintian"].contains(&tool)), ["iproute2", "lintian"]);
    }
}
