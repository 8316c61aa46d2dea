//! One booted Debian system: what an administrator or a user does in it, and what is then the case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use p2p_proto::control::{Status, Transfer, TransferList};
use serde::de::DeserializeOwned;

use crate::command::{Running, Said};
use crate::interrupt::eventually;
use crate::lab::Lab;

/// A command that only asks or starts something.
const COMMAND: Duration = Duration::from_secs(60);
/// A command that a system answers at once, if it answers.
const ANSWERS: Duration = Duration::from_secs(10);
/// Firmware and loader are spared: what boots is systemd alone.
const BOOTS: Duration = Duration::from_secs(60);

/// A booted host.
#[derive(Debug)]
pub(crate) struct Host {
    name: &'static str,
    dir: PathBuf,
    enter: PathBuf,
    script: Child,
}

impl Host {
    /// Starts to boot a host: `machine` is its name on this machine and that of its network namespace, `dir` its own
    /// directory, `hosts` its list of hosts.
    pub(crate) fn boot(
        lab: &Lab,
        name: &'static str,
        machine: &str,
        (dir, base): (&Path, &Path),
        hosts: &str,
    ) -> Result<Host> {
        for directory in ["upper/etc", "work", "root"] {
            fs::create_dir_all(dir.join(directory))?;
        }
        fs::write(dir.join("upper/etc/hostname"), format!("{name}\n"))?;
        fs::write(dir.join("upper/etc/hosts"), hosts)?;
        let console = fs::File::create(dir.join("console.log"))?;
        let mut script = Command::new(lab.script("boot"));
        script.arg(machine).arg(dir).arg(base).arg(machine);
        for (outside, inside) in lab.packages()?.mounts() {
            script.arg(format!("--bind-ro={}:{inside}", outside.display()));
        }
        std::os::unix::process::CommandExt::process_group(&mut script, 0);
        script.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let script = script.spawn().context("cannot run packaging/system-test/boot")?;
        Ok(Host { name, dir: dir.to_owned(), enter: lab.script("enter"), script })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How to look into it by hand.
    pub(crate) fn how_to_enter(&self) -> String {
        format!("{} {} bash", self.enter.display(), self.dir.display())
    }

    /// Waits until all that is started at boot is.
    pub(crate) fn booted(&self) -> Result<()> {
        let waited = eventually(BOOTS, &format!("{} has booted", self.name), || {
            // While a system comes up or goes down, a command in it may find nobody to answer.
            let state = self.run_with("root", "systemctl is-system-running --wait", b"", ANSWERS)?;
            match state.text() {
                "running" => Ok(()),
                "degraded" => bail!("units failed: {}", self.run("systemctl --failed --no-legend")?.text()),
                _ => bail!("{}", state.told()),
            }
        });
        waited.with_context(|| fs::read_to_string(self.dir.join("console.log")).unwrap_or_default())
    }

    /// Runs a shell's command as root, to its end.
    pub(crate) fn run(&self, script: &str) -> Result<Said> {
        self.run_with("root", script, b"", COMMAND)
    }

    /// Runs a command as root, and wants its success.
    pub(crate) fn must(&self, script: &str) -> Result<Said> {
        self.run(script)?.ok().with_context(|| format!("on {}", self.name))
    }

    /// Runs a shell's command as this user, in their home.
    pub(crate) fn run_as(&self, user: &str, script: &str) -> Result<Said> {
        self.run_with(user, script, b"", COMMAND)
    }

    /// Runs a shell's command with an input and a deadline.
    pub(crate) fn run_with(
        &self,
        user: &str,
        script: &str,
        input: &[u8],
        deadline: Duration,
    ) -> Result<Said> {
        self.start_with(user, script, input)?.finish(deadline).with_context(|| format!("on {}", self.name))
    }

    /// Starts a shell's command as this user, and does not wait for it.
    pub(crate) fn start(&self, user: &str, script: &str) -> Result<Running> {
        self.start_with(user, script, b"")
    }

    fn start_with(&self, user: &str, script: &str, input: &[u8]) -> Result<Running> {
        let mut command = Command::new(&self.enter);
        command.arg(&self.dir);
        match user {
            "root" => command.args(["sh", "-c", script]),
            // A login, so that home, groups and umask are theirs.
            _ => command.args(["runuser", "--login", user, "--command", script]),
        };
        Running::start(command, script, input)
    }

    /// A path in the host, as this machine reaches it while the host runs.
    pub(crate) fn path(&self, inside: &str) -> Result<PathBuf> {
        let nspawn = fs::read_to_string(self.dir.join("pid")).context("the host is not booted")?;
        let nspawn = nspawn.trim();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))?;
        let first = children.split_whitespace().next().context("the host has no first process")?;
        Ok(PathBuf::from(format!("/proc/{first}/root{inside}")))
    }

    /// The BLAKE3 hash of a file in the host, in hex.
    pub(crate) fn hash(&self, inside: &str) -> Result<String> {
        let path = self.path(inside)?;
        let mut hasher = blake3::Hasher::new();
        let file = fs::File::open(&path).with_context(|| format!("there is no {inside} on {}", self.name))?;
        hasher.update_reader(file)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Writes a file of root's.
    pub(crate) fn write(&self, inside: &str, text: &str) -> Result<()> {
        let script = format!("install -D -m 0644 /dev/stdin '{inside}'");
        self.run_with("root", &script, text.as_bytes(), COMMAND)?.ok()?;
        Ok(())
    }

    /// Asks p2pd as root.
    pub(crate) fn ask<T: DeserializeOwned>(&self, arguments: &str) -> Result<T> {
        self.must(&format!("p2pctl --json {arguments}"))?.json()
    }

    /// How its p2pd is.
    pub(crate) fn status(&self) -> Result<Status> {
        self.ask("status")
    }

    /// The transfer of this name that was begun last.
    pub(crate) fn transfer(&self, name: &str) -> Result<Transfer> {
        let all: TransferList = self.ask("transfers --all")?;
        let of_name = all.transfers.into_iter().filter(|transfer| transfer.name == name);
        of_name
            .max_by_key(|transfer| transfer.id)
            .ok_or_else(|| anyhow!("{name} was never fetched on {}", self.name))
    }

    /// One property of a unit.
    pub(crate) fn property(&self, unit: &str, property: &str) -> Result<String> {
        Ok(self.must(&format!("systemctl show --value --property={property} {unit}"))?.text().to_owned())
    }

    /// The process of a service, where it runs.
    pub(crate) fn main_pid(&self, unit: &str) -> Result<u32> {
        let pid = self.property(unit, "MainPID")?.parse()?;
        ensure!(pid != 0, "{unit} does not run on {}", self.name);
        Ok(pid)
    }

    /// Wants a unit to be in this state.
    pub(crate) fn is(&self, unit: &str, state: &str) -> Result<()> {
        let found = self.property(unit, "ActiveState")?;
        ensure!(
            found == state,
            "{unit} on {} is {found}, and not {state}: {}",
            self.name,
            self.journal_end(COMMAND)?
        );
        Ok(())
    }

    /// Where the journal ends now.
    pub(crate) fn journal_cursor(&self) -> Result<String> {
        let said = self.must("journalctl --quiet --lines=1 --show-cursor --output=cat")?;
        let cursor = said.stdout.lines().find_map(|line| line.strip_prefix("-- cursor: "));
        Ok(cursor.context("the journal shows no cursor")?.to_owned())
    }

    /// What a unit, and systemd of it, has said since then.
    pub(crate) fn journal_since(&self, cursor: &str, unit: &str) -> Result<String> {
        let said =
            self.must(&format!("journalctl --quiet --output=cat --after-cursor='{cursor}' --unit={unit}"))?;
        Ok(said.stdout)
    }

    /// The last that the services have said in this time, for whoever looks for the cause of a failure.
    pub(crate) fn journal_end(&self, within: Duration) -> Result<String> {
        let seconds = within.as_secs() + 1;
        let services = "--unit=p2pd --unit=maestrod --output=short-iso";
        let said = self.run(&format!("journalctl --quiet --since=-{seconds}s --lines=40 {services}"))?;
        Ok(said.stdout)
    }

    /// Reboots it, and waits until it is up again.
    pub(crate) fn reboot(&self) -> Result<()> {
        let pid = || fs::read_to_string(self.dir.join("pid")).context("nothing is booted");
        let before = pid()?;
        // It is told, and may be gone before it has said so.
        let _ = self.run_with("root", "systemctl reboot", b"", ANSWERS);
        eventually(BOOTS, &format!("{} goes down and comes up", self.name), || {
            ensure!(pid()? != before, "it has not gone down");
            Ok(())
        })?;
        self.booted()
    }

    /// Ends it at once; what it made is removed by the laboratory.
    pub(crate) fn end(&mut self) {
        // The laboratory has killed it, and looks for what is left.
        let _ = self.script.wait();
    }
}
