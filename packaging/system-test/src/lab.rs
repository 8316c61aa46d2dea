//! Where everything that a run makes is: one directory under `target`, one prefix of names for machines, cgroups and
//! network namespaces. Whoever has the lock of the directory has the prefix too, so that what bears it and does not
//! belong to the holder is left over from a run that was killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::here;
use crate::packages::Packages;

/// What ends a machine or takes a namespace away.
pub(crate) const QUICK: Duration = Duration::from_secs(20);

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
        for machine in machines(&begins)? {
            // It may end by itself at this moment.
            let _ = kill_process(machine, Signal::KILL);
        }
        eventually_without_machines(&begins)?;
        for cgroup in cgroups(&begins) {
            // The scripts remove them too.
            let _ = remove_cgroup(&cgroup);
        }
        for name in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if name.starts_with(&begins) {
                here("ip", &["netns", "delete", &name], QUICK)?;
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

fn eventually_without_machines(begins: &str) -> Result<()> {
    let mut left = machines(begins)?.len();
    // Not `eventually`: this also runs after Ctrl-C.
    let until = std::time::Instant::now() + QUICK;
    while left > 0 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        left = machines(begins)?.len();
    }
    anyhow::ensure!(left == 0, "{left} machines of the system test do not end: {begins}*");
    Ok(())
}

/// Processes of `systemd-nspawn`, and of the script that starts it, whose machine's name begins so. The first process of a
/// machine dies with its nspawn, and with it all others.
fn machines(begins: &str) -> Result<Vec<Pid>> {
    let (nspawn, script) = (format!("--machine={begins}"), "/packaging/system-test/boot");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(pid) =
            process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // It may have ended since.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_ours = words.clone().any(|word| word.starts_with(&nspawn))
            || (words.any(|word| word.ends_with(script)) && words.any(|word| word.starts_with(begins)));
        if is_ours {
            found.push(pid);
        }
    }
    Ok(found)
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
