//! Hosts with links of their own on this machine: network namespaces around one switch. Needs root, `ip` and `tc`.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What the names of its namespaces begin with.
const PREFIX: &str = "p2plab";

/// The network: hosts with the addresses 10.77.0.1 and on. Its namespaces go when it is dropped.
#[derive(Debug)]
pub struct Lab {
    hosts: u8,
}

impl Lab {
    /// A switch, and so many hosts on it, with links of any speed.
    ///
    /// # Errors
    /// Where this user may not make them, or a program is missing.
    pub fn build(hosts: u8) -> Result<Lab> {
        let lab = Lab { hosts };
        // What a run that was killed left behind.
        lab.remove();
        lab.make().context("cannot make network namespaces; this needs root, and the packages iproute2")?;
        Ok(lab)
    }

    fn make(&self) -> Result<()> {
        let switch = format!("{PREFIX}-sw");
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge mcast_snooping 0 forward_delay 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for number in 1..=self.hosts {
            let host = self.namespace(number);
            ip(&format!("netns add {host}"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("link add eth0 netns {host} type veth peer name p{number} netns {switch}"))?;
            ip(&format!("-n {switch} link set p{number} master br0 up"))?;
            ip(&format!("-n {host} addr add {}/24 brd + dev eth0", Self::address(number)))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(())
    }

    /// The namespace of a host, from 1.
    pub fn namespace(&self, number: u8) -> String {
        format!("{PREFIX}-h{number}")
    }

    /// The address of a host, from 1.
    pub fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, number)
    }

    /// Gives a host's link this speed both ways, in Mbit/s.
    ///
    /// # Errors
    /// Where the kernel cannot.
    pub fn limit(&self, number: u8, mbit: u32) -> Result<()> {
        let shape = format!("root tbf rate {mbit}mbit burst 64kb latency 50ms");
        let (host, switch) = (self.namespace(number), format!("{PREFIX}-sw"));
        run("tc", &format!("-n {host} qdisc replace dev eth0 {shape}"))?;
        run("tc", &format!("-n {switch} qdisc replace dev p{number} {shape}"))?;
        Ok(())
    }

    /// Bytes that a host has sent.
    ///
    /// # Errors
    /// Where there is no such host.
    pub fn sent_bytes(&self, number: u8) -> Result<u64> {
        let host = self.namespace(number);
        let text = run("ip", &format!("netns exec {host} cat /sys/class/net/eth0/statistics/tx_bytes"))?;
        text.trim().parse().with_context(|| format!("{text:?} is no number of bytes"))
    }

    /// A command that runs on a host.
    pub fn command(&self, number: u8, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(number), program]);
        command
    }

    /// A command that runs in the switch, where all that hosts send to each other passes.
    pub fn command_in_switch(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{PREFIX}-sw"), program]);
        command
    }

    /// Cuts a host off, as if its cable were pulled.
    ///
    /// # Errors
    /// Where there is no such host.
    pub fn cut(&self, number: u8) -> Result<()> {
        ip(&format!("-n {PREFIX}-sw link set p{number} down"))
    }

    fn remove(&self) {
        for number in 1..=self.hosts {
            let _ = ip(&format!("netns del {}", self.namespace(number)));
        }
        let _ = ip(&format!("netns del {PREFIX}-sw"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(args: &str) -> Result<()> {
    run("ip", args).map(drop)
}

fn run(program: &str, args: &str) -> Result<String> {
    let output = Command::new(program)
        .args(args.split(' '))
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {args}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
