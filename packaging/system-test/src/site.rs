//! Some hosts on one network: made for one group of cases, and taken away after it.
//!
//! Each host's network namespace has one link to a bridge in a namespace of its own, so that nothing of this machine's
//! network is touched. Addresses are 10.77.0.1 and on, in the order of the hosts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_proto::control::{LocateAnswer, MaestroState};

use crate::bases::Release;
use crate::command::here;
use crate::host::Host;
use crate::interrupt::eventually;
use crate::lab::{Lab, QUICK};

/// Unpacking and starting a package.
const INSTALLS: Duration = Duration::from_secs(120);
/// What one peer does is known to the others in that time.
pub(crate) const SETTLES: Duration = Duration::from_secs(30);

/// The hosts of one group.
#[derive(Debug)]
pub(crate) struct Site<'lab> {
    lab: &'lab Lab,
    name: String,
    hosts: Vec<Host>,
    kept: bool,
}

impl<'lab> Site<'lab> {
    /// Makes the network, and boots the hosts.
    pub(crate) fn boot(
        lab: &'lab Lab,
        base: &Path,
        release: Release,
        group: &str,
        names: &[&'static str],
    ) -> Result<Site<'lab>> {
        let name = format!("{}-{group}", release.name());
        lab.sweep_named(&name)?;
        let mut site = Site { lab, name, hosts: Vec::new(), kept: false };
        let switch = site.netns("switch");
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add bridge0 type bridge forward_delay 0"))?;
        ip(&format!("-n {switch} link set bridge0 up"))?;
        let addressed: Vec<_> =
            (1..).zip(names).map(|(number, name)| (*name, format!("10.77.0.{number}"))).collect();
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, address) in &addressed {
            writeln!(hosts, "{address} {name}")?;
        }
        for (name, address) in addressed {
            let netns = site.netns(name);
            ip(&format!("netns add {netns}"))?;
            ip(&format!("-n {netns} link set lo up"))?;
            ip(&format!("link add eth0 netns {netns} type veth peer name {name} netns {switch}"))?;
            ip(&format!("-n {switch} link set {name} master bridge0 up"))?;
            ip(&format!("-n {netns} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {netns} link set eth0 up"))?;
            let dir = site.dir().join(name);
            site.hosts.push(Host::boot(lab, name, &netns, (&dir, base), &hosts)?);
        }
        for host in &site.hosts {
            host.booted()?;
        }
        Ok(site)
    }

    fn netns(&self, host: &str) -> String {
        format!("{}{}-{host}", self.lab.prefix(), self.name)
    }

    /// The hosts.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The laboratory.
    pub(crate) fn lab(&self) -> &Lab {
        self.lab
    }

    /// Its own directory, which goes with it.
    pub(crate) fn dir(&self) -> PathBuf {
        self.lab.sites().join(&self.name)
    }

    /// A host.
    pub(crate) fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .iter()
            .find(|host| host.name() == name)
            .with_context(|| format!("this site has no host {name}"))
    }

    /// Lets the link towards a host carry so much (`40mbit`), or all that it can (`None`).
    pub(crate) fn rate(&self, host: &str, rate: Option<&str>) -> Result<()> {
        let switch = self.netns("switch");
        let shaped = match rate {
            Some(rate) => {
                format!("qdisc replace dev {host} root tbf rate {rate} burst 64kb latency 50ms")
            }
            None => format!("qdisc delete dev {host} root"),
        };
        let arguments = format!("netns exec {switch} tc {shaped}");
        ip(&arguments)
    }

    /// Installs packages (from `/packages/current` or `/packages/previous`) as an administrator does.
    pub(crate) fn install(&self, host: &str, directory: &str, packages: &[&str]) -> Result<()> {
        let files: Vec<_> = packages.iter().map(|package| format!("./{package}_*.deb")).collect();
        let script = format!("cd {directory} && apt install --yes {}", files.join(" "));
        self.host(host)?.run_with("root", &script, b"", INSTALLS)?.ok()?;
        Ok(())
    }

    /// Installs maestrod on `maestro` and p2pd on the others, and joins them.
    pub(crate) fn install_network(&self, directory: &str) -> Result<()> {
        let peers: Vec<_> = self.hosts.iter().map(Host::name).filter(|name| *name != "maestro").collect();
        std::thread::scope(|scope| {
            let mut installing = vec![scope.spawn(|| self.install("maestro", directory, &["maestrod"]))];
            installing
                .extend(peers.iter().map(|peer| scope.spawn(|| self.install(peer, directory, &["p2pd"]))));
            for done in installing {
                done.join().map_err(|_| anyhow::anyhow!("installing panicked"))??;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        for peer in peers {
            self.join(peer)?;
        }
        Ok(())
    }

    /// Joins a peer to the network of `maestro`, and waits until both agree.
    pub(crate) fn join(&self, peer: &str) -> Result<()> {
        let token = self.host("maestro")?.must("maestrod token")?;
        let host = self.host(peer)?;
        let join = "p2pctl join maestro --token-file -";
        host.run_with("root", join, token.stdout.as_bytes(), SETTLES)?.ok()?;
        self.in_sync(peer)
    }

    /// Waits until the maestro holds the catalog of a peer.
    pub(crate) fn in_sync(&self, peer: &str) -> Result<()> {
        let host = self.host(peer)?;
        eventually(SETTLES, &format!("{peer} is in sync with its maestro"), || {
            let status = host.status()?;
            let maestro = status.maestro.context("it has joined no network")?;
            ensure!(maestro.state == MaestroState::InSync, "it is {:?}: {:?}", maestro.state, maestro.detail);
            ensure!(status.files_pending == 0, "{} files are to be hashed", status.files_pending);
            Ok(())
        })
    }

    /// Puts a file of so many random bytes into the default share of a peer, and waits until another finds it. Gives its
    /// hash.
    pub(crate) fn share(&self, peer: &str, name: &str, len: &str, seen_by: &str) -> Result<String> {
        let path = format!("/var/lib/p2pd/shared/{name}");
        self.host(peer)?.must(&format!("umask 022; head --bytes={len} /dev/urandom >'{path}'"))?;
        self.found(seen_by, name)?;
        self.host(peer)?.hash(&path)
    }

    /// Waits until a peer finds a file in the network.
    pub(crate) fn found(&self, by: &str, name: &str) -> Result<()> {
        let host = self.host(by)?;
        eventually(SETTLES, &format!("{by} finds {name}"), || {
            let answer: LocateAnswer = host.ask(&format!("locate '{name}'"))?;
            ensure!(!answer.candidates.is_empty(), "nobody has it");
            Ok(())
        })
    }

    /// Leaves the hosts up: the next run removes them.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.lab.sweep_named(&self.name) {
            crate::report::warn(&format!("{} is not all taken away: {error:#}", self.name));
        }
        for host in &mut self.hosts {
            host.end();
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    here("ip", &arguments.split(' ').collect::<Vec<_>>(), QUICK)?;
    Ok(())
}
