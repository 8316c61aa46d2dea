//! Root file systems of Debian releases, made once and then only read: each host has its own layer above.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::here;
use crate::lab::Lab;

/// What is in a base beside Debian's smallest system: what a server has, and no dependency of our packages that they do
/// not name themselves.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,libnss-systemd,iproute2,procps,\
                        adduser,acl,sudo,openssh-server,openssh-client,man-db,less";

/// From the network and slow disks.
const BUILD: Duration = Duration::from_secs(900);

/// A Debian release that the packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Release {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Release {
    /// All of them.
    pub(crate) const ALL: [Release; 2] = [Release::Bookworm, Release::Trixie];

    /// Its code name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }
}

/// The base of a release, made where it is not there yet or was made by another recipe.
pub(crate) fn base(lab: &Lab, release: Release) -> Result<PathBuf> {
    let name = release.name();
    let (base, stamp) =
        (lab.dir().join(format!("base-{name}")), lab.dir().join(format!("base-{name}.recipe")));
    let hook = lab.script("prepare-base");
    let recipe = format!("{PACKAGES}\n{}", fs::read_to_string(&hook)?);
    if base.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == recipe) {
        return Ok(base);
    }
    let unfinished = lab.dir().join(format!("base-{name}.new"));
    for old in [&base, &unfinished] {
        remove(old)?;
    }
    let sources = sources(lab, release)?;
    let options = apt_options()?.into_iter().map(|file| format!("--aptopt={}", file.display()));
    let mut arguments: Vec<String> = vec![
        "--quiet".to_owned(),
        "--mode=root".to_owned(),
        "--variant=minbase".to_owned(),
        format!("--include={PACKAGES}"),
        // A host is thrown away after its test: it needs no protection from power cuts.
        "--dpkgopt=force-unsafe-io".to_owned(),
        format!("--customize-hook={}", hook.display()),
    ];
    arguments.extend(options);
    arguments.extend([name.to_owned(), unfinished.display().to_string(), sources.display().to_string()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    here("mmdebstrap", &arguments, BUILD)
        .with_context(|| format!("the base system of {name} cannot be made"))?;
    fs::rename(&unfinished, &base)?;
    fs::write(&stamp, recipe)?;
    Ok(base)
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// This machine's own sources of packages, for the release: wherever it gets its packages from is reachable from here.
fn sources(lab: &Lab, release: Release) -> Result<PathBuf> {
    let mine = os_codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    for (path, extension) in
        [("/etc/apt/sources.list.d/debian.sources", "sources"), ("/etc/apt/sources.list", "list")]
    {
        let Ok(text) = fs::read_to_string(path) else { continue };
        if let Some(mine) = &mine
            && text.contains(mine.as_str())
        {
            let file = lab.dir().join(format!("{}.{extension}", release.name()));
            fs::write(&file, text.replace(mine.as_str(), release.name()))?;
            return Ok(file);
        }
    }
    let file = lab.dir().join(format!("{}.list", release.name()));
    fs::write(&file, format!("deb http://deb.debian.org/debian {} main\n", release.name()))?;
    Ok(file)
}

fn os_codename(os_release: &str) -> Option<String> {
    let lines = os_release.lines();
    if !lines.clone().any(|line| line == "ID=debian") {
        return None;
    }
    lines.filter_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(str::to_owned).next()
}

/// Files that say how this machine gets its packages (a proxy, for example).
fn apt_options() -> Result<Vec<PathBuf>> {
    let directory = Path::new("/etc/apt/apt.conf.d");
    let Ok(entries) = fs::read_dir(directory) else {
        bail!(
            "{} is not there: the system test builds Debian systems on a Debian machine",
            directory.display()
        );
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("Acquire::")));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_debian_has_sources_to_take_over() {
        let debian = "PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(os_codename(debian).as_deref(), Some("bookworm"));
        assert_eq!(os_codename("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), None);
    }
}
