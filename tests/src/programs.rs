//! The programs under test: built once per process, in the way that the running program itself was built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Names a directory that holds the programs already; nothing is built then.
const DIRECTORY_VARIABLE: &str = "P2P_PROGRAMS";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The directory server.
    pub maestrod: PathBuf,
    /// The peer daemon.
    pub p2pd: PathBuf,
    /// The command.
    pub p2pctl: PathBuf,
}

/// The programs, built on the first call: with the profile and in the target directory of the program that runs now, so
/// that what is tested is what was compiled beside the tests.
///
/// # Errors
/// Where they cannot be built, or are not where they should be.
pub fn programs() -> Result<&'static Programs> {
    static FOUND: OnceLock<std::result::Result<Programs, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_ref().map_err(|error| anyhow!("{error}"))
}

fn find() -> Result<Programs> {
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE).filter(|directory| !directory.is_empty()) {
        return within(Path::new(&directory)).with_context(|| format!("{DIRECTORY_VARIABLE} does not serve"));
    }
    let me = env::current_exe().context("cannot tell where this program is")?;
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let built =
        me.ancestors().skip(1).find(|directory| directory.file_name().is_some_and(|name| name != "deps"));
    let built = built.with_context(|| format!("{} is in no target directory", me.display()))?;
    // A test is compiled with the features that the whole workspace asks for, its dev-dependencies among them: asking for
    // the same again builds nothing twice. Other programs build no more than the three.
    let packages: &[&str] = match me.parent() == Some(built) {
        true => &["-p", "maestrod", "-p", "p2pd", "-p", "p2pctl", "--bins"],
        false => &["--workspace", "--all-targets"],
    };
    build(built, packages)?;
    within(built)
}

fn build(directory: &Path, packages: &[&str]) -> Result<()> {
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => bail!("{} names no profile", directory.display()),
    };
    let target = directory.parent().with_context(|| format!("{} is in nothing", directory.display()))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["build", "--quiet", "--profile", profile])
        .args(packages)
        .arg("--target-dir")
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    ensure!(status.success(), "the programs do not build (cargo says {status})");
    Ok(())
}

fn within(directory: &Path) -> Result<Programs> {
    // The programs are started from other directories than this one.
    let directory =
        directory.canonicalize().with_context(|| format!("there is no {}", directory.display()))?;
    let at = |name: &str| {
        let path = directory.join(name);
        ensure!(path.is_file(), "there is no {name} in {}", directory.display());
        Ok(path)
    };
    Ok(Programs { maestrod: at("maestrod")?, p2pd: at("p2pd")?, p2pctl: at("p2pctl")? })
}
