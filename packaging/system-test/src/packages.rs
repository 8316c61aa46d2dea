//! The packages under test: built by `cargo xtask dist`, this version and one that claims to be older.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::Running;

/// The version of the packages that are upgraded from. The programs are the same: what is tested is the upgrade.
pub(crate) const PREVIOUS: &str = "0.0.9-1";

/// A build from nothing on two cores, in the release profile.
const BUILD: Duration = Duration::from_secs(3600);

/// Where they are on the hosts.
pub(crate) const CURRENT_DIR: &str = "/packages/current";
/// Where the older ones are on the hosts.
pub(crate) const PREVIOUS_DIR: &str = "/packages/previous";
/// Where the signed repository is on the hosts.
pub(crate) const REPOSITORY_DIR: &str = "/packages/repo";

/// Directories with packages.
#[derive(Debug)]
pub(crate) struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Builds them into `dir`.
    pub(crate) fn build(dir: &Path, profile: &str) -> Result<Packages> {
        let packages = Packages { dir: dir.to_owned() };
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let previous = dist(&["--profile", profile, "--package-version", PREVIOUS])?;
        take(&previous, &packages.previous())?;
        // The repository is made of what is there: an older version in it does no harm, as in any repository.
        let current = dist(&["--profile", profile, "--repo"])?;
        take(&current, &packages.current())?;
        let repository = current
            .first()
            .and_then(|package| package.parent())
            .context("dist made no package")?
            .join("repo");
        let status =
            Command::new("cp").arg("--recursive").arg(&repository).arg(packages.repository()).status()?;
        ensure!(status.success(), "cannot copy {}", repository.display());
        Ok(packages)
    }

    /// Those of the run before.
    pub(crate) fn as_built(dir: &Path) -> Result<Packages> {
        let packages = Packages { dir: dir.to_owned() };
        let complete =
            [packages.current(), packages.previous(), packages.repository()].iter().all(|dir| dir.is_dir());
        ensure!(complete, "there are no packages in {}: run it without --as-built", dir.display());
        Ok(packages)
    }

    /// This version.
    pub(crate) fn current(&self) -> PathBuf {
        self.dir.join("current")
    }

    fn previous(&self) -> PathBuf {
        self.dir.join("previous")
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("repo")
    }

    /// Each directory, and where hosts have it.
    pub(crate) fn mounts(&self) -> [(PathBuf, &'static str); 3] {
        [(self.current(), CURRENT_DIR), (self.previous(), PREVIOUS_DIR), (self.repository(), REPOSITORY_DIR)]
    }
}

/// Runs `cargo xtask dist`; gives the packages that it says it made.
fn dist(options: &[&str]) -> Result<Vec<PathBuf>> {
    let xtask = env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(xtask);
    command.arg("dist").args(options);
    let shown = format!("cargo xtask dist {}", options.join(" "));
    let said = Running::start(command, &shown, b"")?.finish(BUILD)?.ok()?;
    let packages: Vec<_> =
        said.stdout.lines().filter(|line| line.ends_with(".deb")).map(PathBuf::from).collect();
    ensure!(!packages.is_empty(), "no package is named: {}", said.told());
    Ok(packages)
}

fn take(packages: &[PathBuf], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for package in packages {
        let name = package.file_name().context("a package has no name")?;
        fs::copy(package, to.join(name)).with_context(|| format!("cannot copy {}", package.display()))?;
    }
    Ok(())
}
