//! Which firewall this machine seems to have, and the commands that let peers through it.

use std::path::Path;

/// What was found of firewalls. Their rules are root's to see: this only tells which command helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Firewalls {
    ufw: bool,
    firewalld: bool,
    nft: bool,
}

impl Firewalls {
    /// Those of the system under this root directory.
    pub(super) fn at(root: &Path) -> Firewalls {
        let has = |paths: &[&str]| paths.iter().any(|path| root.join(path).exists());
        let ufw = std::fs::read_to_string(root.join("etc/ufw/ufw.conf")).unwrap_or_default();
        Firewalls {
            ufw: ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("enabled=yes")),
            firewalld: has(&["usr/sbin/firewalld", "usr/bin/firewall-cmd"]),
            nft: has(&["usr/sbin/nft", "sbin/nft"]),
        }
    }

    /// What opens this port: the command of the firewall that manages the others, if there is one.
    pub(super) fn open(self, port: u16) -> Vec<String> {
        let ufw = format!("sudo ufw allow {port}/tcp");
        let firewalld =
            format!("sudo firewall-cmd --permanent --add-port={port}/tcp && sudo firewall-cmd --reload");
        let nft = format!("sudo nft insert rule inet filter input tcp dport {port} accept");
        match self {
            Firewalls { ufw: true, .. } => vec![ufw],
            Firewalls { firewalld: true, .. } => vec![firewalld],
            Firewalls { nft: true, .. } => {
                vec![nft, "for good: the same rule in /etc/nftables.conf, without `insert`".to_owned()]
            }
            _ => vec![
                format!("with ufw: {ufw}"),
                format!("with firewalld: {firewalld}"),
                format!("with nftables: {nft}"),
            ],
        }
    }
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
        assert_eq!(Firewalls::at(root.path()).open(9002).len(), 3, "all that there may be");
        write("usr/sbin/nft", "");
        let nft = Firewalls::at(root.path()).open(9002);
        assert_eq!(nft[0], "sudo nft insert rule inet filter input tcp dport 9002 accept");
        write("etc/ufw/ufw.conf", "# ufw\nENABLED=no\n");
        assert!(Firewalls::at(root.path()).open(9002)[0].starts_with("sudo nft"), "it is off");
        write("usr/bin/firewall-cmd", "");
        assert!(Firewalls::at(root.path()).open(9002)[0].contains("--add-port=9002/tcp"));
        write("etc/ufw/ufw.conf", "ENABLED=yes\n");
        assert_eq!(Firewalls::at(root.path()).open(9002), ["sudo ufw allow 9002/tcp"]);
    }
}
