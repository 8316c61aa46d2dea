//! The programs that are packaged, and which systems they can run on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The oldest Debian that the packages are for is 12, and this is its C library. Debian 13 has a newer one.
const NEWEST_GLIBC: (u32, u32) = (2, 36);

/// The three programs.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) maestrod: PathBuf,
    pub(super) p2pd: PathBuf,
    pub(super) p2pctl: PathBuf,
}

/// Builds the programs; or finds them in the directory that `P2P_PROGRAMS` names, as the tests do.
pub(super) fn find(root: &Path, profile: &str) -> Result<Programs> {
    let named = env::var_os("P2P_PROGRAMS").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let directory = match named {
        Some(directory) => {
            directory.canonicalize().with_context(|| format!("there is no {}", directory.display()))?
        }
        None => build(root, profile)?,
    };
    let at = |name: &str| {
        let path = directory.join(name);
        ensure!(path.is_file(), "there is no {name} in {}", directory.display());
        Ok(path)
    };
    Ok(Programs { maestrod: at("maestrod")?, p2pd: at("p2pd")?, p2pctl: at("p2pctl")? })
}

fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    // In development the whole workspace is built, tests and all: the same command as everywhere else, so that nothing
    // is built twice.
    let packages: &[&str] = match profile {
        "dev" => &["--workspace", "--all-targets"],
        _ => &["-p", "maestrod", "-p", "p2pd", "-p", "p2pctl", "--bins"],
    };
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["build", "--locked", "--profile", profile]).args(packages).current_dir(root);
    let status = command.status().with_context(|| format!("cannot run {}", cargo.display()))?;
    ensure!(status.success(), "the programs do not build (cargo says {status})");
    Ok(target.join(if profile == "dev" { "debug" } else { profile }))
}

/// Refuses programs that the C library of the oldest system would not start.
pub(super) fn check_libc(programs: &Programs) -> Result<()> {
    for program in [&programs.maestrod, &programs.p2pd, &programs.p2pctl] {
        let output = Command::new("objdump")
            .arg("--dynamic-syms")
            .arg(program)
            .output()
            .context("cannot run objdump")?;
        ensure!(output.status.success(), "objdump cannot read {} ({})", program.display(), output.status);
        let newest = newest_glibc(&String::from_utf8_lossy(&output.stdout));
        let newest = newest.with_context(|| format!("{} names no version of glibc", program.display()))?;
        ensure!(
            newest <= NEWEST_GLIBC,
            "{} needs glibc {}.{}, and Debian 12 has {}.{}; build it on Debian 12",
            program.display(),
            newest.0,
            newest.1,
            NEWEST_GLIBC.0,
            NEWEST_GLIBC.1
        );
    }
    Ok(())
}

/// The newest version that a symbol asks for.
fn newest_glibc(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = version.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let symbols = "\
            0000 DF *UND*\t0000 (GLIBC_2.9)  pipe2\n\
            0000 DF *UND*\t0000 (GLIBC_2.34) dlsym\n\
            0000 DF *UND*\t0000 (GLIBC_2.2.5) free\n\
            0000 DF *UND*\t0000 (GLIBC_PRIVATE) x\n\
            0000  w *UND*\t0000  Base        y\n";
        assert_eq!(newest_glibc(symbols), Some((2, 34)));
        assert_eq!(newest_glibc("nothing"), None);
    }
}
