//! The Debian tools that packaging needs, and the command that brings what is missing.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

/// Programs, and the Debian packages that have them.
const FOR_PACKAGES: [(&str, &str); 5] = [
    ("dpkg-buildpackage", "dpkg-dev"),
    ("dh", "debhelper"),
    ("dh_installsysusers", "debhelper"),
    ("objdump", "binutils"),
    ("lintian", "lintian"),
];
const FOR_REPOSITORY: [(&str, &str); 2] = [("apt-ftparchive", "apt-utils"), ("gpg", "gnupg")];

/// Says what is missing, all of it at once, and how to get it.
pub(super) fn check(repository: bool) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| env::split_paths(&path).any(|directory| is_file(&directory.join(program)));
    let needed = FOR_PACKAGES.iter().chain(if repository { &FOR_REPOSITORY[..] } else { &[] });
    let packages = missing(needed, is_there);
    if packages.is_empty() {
        return Ok(());
    }
    bail!(
        "tools that make Debian packages are missing; on Debian, run\n  \
         sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn missing<'a>(
    needed: impl Iterator<Item = &'a (&'static str, &'static str)>,
    is_there: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        needed.filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_missing_is_named_once() {
        let missing =
            missing(FOR_PACKAGES.iter(), |program| program != "lintian" && !program.starts_with("dh"));
        assert_eq!(missing, ["debhelper", "lintian"]);
    }
}
