//! Which firewall this machine seems to have, and the commands that let peers through it.

use std::path::Path;

/// What was found of firewalls. Their rules are root's to see: this only tells which command helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Firewalls {
    ufw: bool,
    firewalld: bool,
    nftables: bool,
}

/// Where `systemctl enable nftables` puts its link.
const NFTABLES_ENABLED: [&str; 2] = [
    "etc/systemd/system/sysinit.target.wants/nftables.service",
    "etc/systemd/system/multi-user.target.wants/nftables.service",
];

impl Firewalls {
    /// Those of the system under this root directory.
    pub(super) fn at(root: &Path) -> Firewalls {
        let has = |paths: &[&str]| paths.iter().any(|path| root.join(path).exists());
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let (ufw, rules) = (read("etc/ufw/ufw.conf"), read("etc/nftables.conf"));
        Firewalls {
            ufw: ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("enabled=yes")),
            firewalld: has(&["usr/sbin/firewalld", "usr/bin/firewall-cmd"]),
            // nft itself is on hosts without any firewall, and a rule needs a chain that is there.
            nftables: has(&NFTABLES_ENABLED)
                && declares(&rules, &["table", "inet", "filter"])
                && declares(&rules, &["chain", "input"]),
        }
    }

    /// What opens this port: the command of the firewall that manages the others, if there is one.
    pub(super) fn open(self, port: u16) -> Vec<String> {
        let ufw = format!("sudo ufw allow {port}/tcp");
        let firewalld =
            format!("sudo firewall-cmd --permanent --add-port={port}/tcp && sudo firewall-cmd --reload");
        let rule = format!("tcp dport {port} accept");
        match self {
            Firewalls { ufw: true, .. } => vec![ufw],
            Firewalls { firewalld: true, .. } => vec![firewalld],
            Firewalls { nftables: true, .. } => vec![
                format!("sudo nft insert rule inet filter input {rule}"),
                format!("for good: `{rule}` in the chain `input` of /etc/nftables.conf"),
            ],
            _ => vec![
                format!("with ufw: {ufw}"),
                format!("with firewalld: {firewalld}"),
                format!("with nftables: the rule `{rule}` in the chain that filters what comes in"),
            ],
        }
    }
}

/// Whether a line of these rules begins a block of this name.
fn declares(rules: &str, name: &[&str]) -> bool {
    rules.lines().any(|line| {
        let words = line.split(|at: char| at.is_whitespace() || at == '{').filter(|word| !word.is_empty());
        words.take(name.len()).eq(name.iter().copied())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firewall_that_is_there_gets_its_command() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let of_any = Firewalls::at(root.path()).open(9002);
        assert_eq!(of_any.len(), 3, "all that there may be");
        assert!(of_any[2].contains("tcp dport 9002 accept") && !of_any[2].contains("sudo nft"), "{of_any:?}");
        write("usr/sbin/nft", "");
        write(
            "etc/nftables.conf",
            "flush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n",
        );
        assert_eq!(Firewalls::at(root.path()).open(9002), of_any, "nothing loads these rules");
        write(NFTABLES_ENABLED[0], "");
        let nft = Firewalls::at(root.path()).open(9002);
        assert_eq!(nft[0], "sudo nft insert rule inet filter input tcp dport 9002 accept");
        write("etc/ufw/ufw.conf", "# ufw\nENABLED=no\n");
        assert!(Firewalls::at(root.path()).open(9002)[0].starts_with("sudo nft"), "it is off");
        write("usr/bin/firewall-cmd", "");
        assert!(Firewalls::at(root.path()).open(9002)[0].contains("--add-port=9002/tcp"));
        write("etc/ufw/ufw.conf", "ENABLED=yes\n");
        assert_eq!(Firewalls::at(root.path()).open(9002), ["sudo ufw allow 9002/tcp"]);
    }

    #[test]
    fn a_chain_that_is_not_there_is_not_named() {
        let root = tempfile::tempdir().unwrap();
        for path in [NFTABLES_ENABLED[1], "etc/nftables.conf"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "table inet mine {\n\tchain input {\n\t}\n}\n#table inet filter {\n")
                .unwrap();
        }
        assert_eq!(Firewalls::at(root.path()).open(9002).len(), 3);
    }
}
