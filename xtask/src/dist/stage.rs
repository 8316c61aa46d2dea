//! The source tree that debhelper works in: `packaging/debian`, and beside it what the packages contain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::configuration;
use super::programs::Programs;

/// Directories and files that are staged as they are.
const COPIED: [&str; 6] = ["docs", "etc", "systemd", "CHANGELOG.md", "README.md", "LICENSE"];
/// Configuration files, each with a manual page.
const CONFIGURATIONS: [&str; 2] = ["p2pd.toml", "maestrod.toml"];
/// Shells, and where their scripts for p2pctl are staged.
const SHELLS: [(&str, &str); 3] =
    [("bash", "bash/p2pctl"), ("zsh", "zsh/_p2pctl"), ("fish", "fish/p2pctl.fish")];

/// Makes the tree anew in `build`, and gives back its path.
pub(super) fn make(root: &Path, build: &Path, programs: &Programs, version: Option<&str>) -> Result<PathBuf> {
    if build.exists() {
        fs::remove_dir_all(build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    let changelog = root.join("packaging/debian/changelog");
    let changelog =
        fs::read_to_string(&changelog).with_context(|| format!("cannot read {}", changelog.display()))?;
    let changelog = match version {
        Some(version) => with_version(&changelog, version)?,
        None => changelog,
    };
    let stage = build.join("p2pd");
    make_dir(&stage)?;
    copy(&root.join("packaging/debian"), &stage.join("debian"))?;
    write(&stage.join("debian/changelog"), &changelog)?;
    for name in COPIED {
        copy(&root.join(name), &stage.join(name))?;
    }
    for program in [&programs.maestrod, &programs.p2pd, &programs.p2pctl] {
        let name = program.file_name().context("a program has no name")?;
        copy(program, &stage.join("bin").join(name))?;
    }
    manuals(root, &stage, programs)?;
    completions(&stage, programs)?;
    Ok(stage)
}

fn manuals(root: &Path, stage: &Path, programs: &Programs) -> Result<()> {
    let man = stage.join("man");
    make_dir(&man)?;
    for (program, how) in
        [(&programs.maestrod, "--manual"), (&programs.p2pd, "--manual"), (&programs.p2pctl, "manual")]
    {
        let status = Command::new(program).arg(how).arg(&man).status();
        let status = status.with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(status.success(), "{} does not write its manual ({status})", program.display());
    }
    for name in CONFIGURATIONS {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let frame = read(root.join("packaging/man").join(format!("{name}.5")))?;
        let page = configuration::page(&frame, &read(root.join("etc").join(name))?)
            .with_context(|| format!("no manual page of {name}"))?;
        write(&man.join(format!("{name}.5")), &page)?;
    }
    Ok(())
}

fn completions(stage: &Path, programs: &Programs) -> Result<()> {
    for (shell, path) in SHELLS {
        let output = Command::new(&programs.p2pctl).args(["completions", shell]).output();
        let output = output.with_context(|| format!("cannot run {}", programs.p2pctl.display()))?;
        ensure!(output.status.success(), "p2pctl completions {shell} failed ({})", output.status);
        let path = stage.join("completions").join(path);
        make_dir(path.parent().unwrap_or(stage))?;
        fs::write(&path, output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The changelog with another version in its newest entry: the same programs, packaged as another release.
fn with_version(changelog: &str, version: &str) -> Result<String> {
    let is_plain = version.chars().all(|c| c.is_ascii_alphanumeric() || ".+~-".contains(c));
    if !is_plain || !version.starts_with(|c: char| c.is_ascii_digit()) {
        bail!("{version:?} is not a version of a Debian package; write one like 0.1.0-1 or 0.1.0-1~test1");
    }
    let (head, rest) = changelog.split_once('(').context("the changelog has no version")?;
    let (_, rest) = rest.split_once(')').context("the changelog's version does not end")?;
    Ok(format!("{head}({version}){rest}"))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file, or a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    make_dir(to.parent().unwrap_or(to))?;
    if from.is_dir() {
        make_dir(to)?;
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changelog() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/debian/changelog")).unwrap()
    }

    #[test]
    fn packages_have_the_version_of_the_programs() {
        let first = format!("p2pd ({}-", env!("CARGO_PKG_VERSION"));
        assert!(
            changelog().starts_with(&first),
            "the newest entry of the changelog does not begin with {first}"
        );
    }

    #[test]
    fn another_version_replaces_the_newest_only() {
        let log = "p2pd (0.1.0-1) unstable\n\n  * B (again)\n\np2pd (0.0.9-1) unstable\n";
        let changed = with_version(log, "0.2.0~rc1-1").unwrap();
        assert_eq!(changed, "p2pd (0.2.0~rc1-1) unstable\n\n  * B (again)\n\np2pd (0.0.9-1) unstable\n");
        for wrong in ["", "v1", "1 2", "1/2"] {
            assert!(with_version(log, wrong).is_err(), "{wrong}");
        }
    }
}
