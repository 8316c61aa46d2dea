//! Where everything that a run makes is: one directory under `target`, one prefix of names for machines, cgroups and
//! network namespaces. Whoever has the lock of the directory has the prefix too, so that what bears it and does not
//! belong to the holder is left over from a run that was killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::packages::Packages;

/// What ends a machine or takes a namespace away.
pub(crate) const QUICK: Duration = Duration::from_secs(20);

/// Between two looks whether a killed process is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The laboratory.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    prefix: String,
    packages: Option<Packages>,
    _lock: File,
}

impl Lab {
    /// Takes the laboratory of a target directory, and clears away what an earlier run left.
    pub(crate) fn open(target: &Path) -> Result<Lab> {
        let dir = target.join("system-test");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let lock = File::create(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another system test works in {}: wait for its end", dir.display()))?;
        // Other checkouts on this machine have laboratories of their own.
        let hash = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
        let prefix = format!("p2pst{}-", hash.get(..4).unwrap_or_default());
        let lab = Lab { dir, prefix, packages: None, _lock: lock };
        lab.sweep()?;
        Ok(lab)
    }

    /// The same, with packages to install.
    pub(crate) fn with_packages(self, packages: Packages) -> Lab {
        Lab { packages: Some(packages), ..self }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What every name begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The packages.
    pub(crate) fn packages(&self) -> Result<&Packages> {
        self.packages.as_ref().context("there are no packages yet")
    }

    /// One of the scripts beside this program's sources.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    /// Where the sites are.
    pub(crate) fn sites(&self) -> PathBuf {
        self.dir.join("sites")
    }

    /// Ends and removes everything whose name begins with the prefix.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.sweep_named("")
    }

    /// Ends and removes everything whose name begins with the prefix and `part`: one site.
    pub(crate) fn sweep_named(&self, part: &str) -> Result<()> {
        let begins = format!("{}{part}", self.prefix);
        end_all(&begins)?;
        for cgroup in cgroups(&begins) {
            // The scripts remove them too.
            let _ = remove_cgroup(&cgroup);
        }
        for name in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if name.starts_with(&begins) {
                // Not `here`, which fails after Ctrl-C.
                let deleted = Command::new("ip").args(["netns", "delete", &name]).status()?;
                ensure!(
                    deleted.success(),
                    "the network namespace {name} stays: `ip netns delete` says {deleted}"
                );
            }
        }
        for site in fs::read_dir(self.sites()).into_iter().flatten().flatten() {
            if site.file_name().to_string_lossy().starts_with(part) {
                fs::remove_dir_all(site.path())
                    .with_context(|| format!("cannot remove {}", site.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Kills them until there are none: the script may just be about to start another.
fn end_all(begins: &str) -> Result<()> {
    // Not `eventually`, which fails after Ctrl-C: this is what then is to be done.
    let until = Instant::now() + QUICK;
    loop {
        let left = processes(begins)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{} processes of {begins}* do not end", left.len());
        for process in left {
            // It may end by itself at this moment.
            let _ = kill_process(process, Signal::KILL);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// All processes of the machines whose names begin so, and of the script that boots them: whoever ends only
/// systemd-nspawn leaves the system in it running.
fn processes(begins: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // It may have ended since.
        let cgroups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if is_in_cgroup(&cgroups, begins) || is_boot_of(&command, begins) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether `/proc/PID/cgroup` places the process in a machine whose name begins so.
fn is_in_cgroup(cgroups: &str, begins: &str) -> bool {
    cgroups.lines().filter_map(|line| line.strip_prefix("0::/")).any(|path| path.starts_with(begins))
}

/// Whether this is the command line of `boot`, for a machine whose name begins so.
fn is_boot_of(command: &[u8], begins: &str) -> bool {
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words.any(|word| word.ends_with("/packaging/system-test/boot"))
        && words.any(|word| word.starts_with(begins))
}

/// Directories of cgroups whose name begins so, in each hierarchy of version 2 that is mounted here.
fn cgroups(begins: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    let directories = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    let ours = directories.filter(|entry| entry.file_name().to_string_lossy().starts_with(begins));
    ours.map(|entry| entry.path()).collect()
}

/// Removes a cgroup and those in it; their files cannot be removed and need not be.
fn remove_cgroup(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_their_cgroup_or_as_the_script() {
        let cgroups = "3:cpu:/\n0::/p2pst12ab-bookworm-disk-uno/payload/init.scope\n";
        assert!(is_in_cgroup(cgroups, "p2pst12ab-bookworm-disk"));
        assert!(!is_in_cgroup(cgroups, "p2pst12ab-trixie"));
        assert!(!is_in_cgroup("0::/user.slice/p2pst12ab-\n", "p2pst12ab-"));
        let command =
            b"/bin/bash\0/src/packaging/system-test/boot\0--private\0p2pst12ab-trixie-rest-uno\0/d\0";
        assert!(is_boot_of(command, "p2pst12ab-trixie"));
        assert!(!is_boot_of(command, "p2pst12ab-bookworm"));
        assert!(!is_boot_of(b"less\0p2pst12ab-trixie\0", "p2pst12ab-trixie"));
    }
}
