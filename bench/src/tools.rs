//! The programs that the comparisons need beside the project's own: where they are, and what to do where they are not.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

/// A program that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// The name of the program.
    pub(crate) program: &'static str,
    /// A command that installs it.
    pub(crate) install: &'static str,
}

macro_rules! tools {
    ($($(#[$about:meta])* $name:ident = $program:literal by $install:literal;)*) => {
        $($(#[$about])* pub(crate) const $name: Tool = Tool { program: $program, install: $install };)*
    };
}

tools! {
    /// The web server.
    NGINX = "nginx" by "apt install nginx-light";
    /// Asks a web server as fast as it answers.
    WRK = "wrk" by "apt install wrk";
    /// The HTTP client.
    CURL = "curl" by "apt install curl";
    /// Makes the web server's certificate.
    OPENSSL = "openssl" by "apt install openssl";
    /// Daemon and client.
    RSYNC = "rsync" by "apt install rsync";
    /// Of coreutils, and everywhere.
    CP = "cp" by "apt install coreutils";
    /// BitTorrent, in Rust.
    RQBIT = "rqbit" by "cargo install --locked rqbit";
    /// iroh over QUIC.
    SENDME = "sendme" by "cargo install --locked sendme";
    /// The continuous synchroniser.
    SYNCTHING = "syncthing" by "apt install syncthing";
    /// BitTorrent, in C++.
    ARIA2 = "aria2c" by "apt install aria2";
    /// Runs the gRPC programs in `bench/grpcio`.
    PYTHON = "python3" by "apt install python3 python3-venv";
    /// Hashes files.
    B3SUM = "b3sum" by "cargo install --locked b3sum";
    /// Of findutils, and everywhere.
    FIND = "find" by "apt install findutils";
    /// Measures what a link carries.
    IPERF3 = "iperf3" by "apt install iperf3";
    /// Makes hosts and their links.
    IP = "ip" by "apt install iproute2";
    /// Gives links their speed.
    TC = "tc" by "apt install iproute2";
    /// Shows that a link is up, and how long it is.
    PING = "ping" by "apt install iputils-ping";
    /// Hands packets to the program that delays them.
    IPTABLES = "iptables" by "apt install iptables";
}

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    dirs: Vec<PathBuf>,
}

impl Tools {
    /// Looks in `first` and its `bin`, then where the shell looks, then where Debian puts what root runs.
    pub(crate) fn new(first: Option<&Path>) -> Tools {
        Tools::within(first, std::env::var_os("PATH").as_deref())
    }

    fn within(first: Option<&Path>, path: Option<&OsStr>) -> Tools {
        let mut dirs: Vec<PathBuf> =
            first.into_iter().flat_map(|dir| [dir.join("bin"), dir.to_owned()]).collect();
        dirs.extend(path.into_iter().flat_map(std::env::split_paths));
        dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        Tools { dirs }
    }

    /// Where a program is.
    pub(crate) fn find(&self, tool: Tool) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        self.dirs.iter().map(|dir| dir.join(tool.program)).find(is_program)
    }

    /// A command of it.
    ///
    /// # Errors
    /// Where it is not installed.
    pub(crate) fn command(&self, tool: Tool) -> Result<Command> {
        let path = self.find(tool).with_context(|| missing(tool))?;
        Ok(Command::new(path))
    }

    /// What is missing of these, and how to install it, in words for the table; `None` where all are here.
    pub(crate) fn missing(&self, needed: &[Tool]) -> Option<String> {
        let missing: Vec<String> =
            needed.iter().filter(|tool| self.find(**tool).is_none()).map(|tool| missing(*tool)).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

fn missing(tool: Tool) -> String {
    format!("no {} here: {}", tool.program, tool.install)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_that_is_named_goes_first_and_what_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (path, mode) in [(bin.join("b3sum"), 0o755), (bin.join("rqbit"), 0o644)] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let tools = Tools::within(Some(dir.path()), None);
        assert_eq!(tools.find(B3SUM), Some(bin.join("b3sum")));
        assert_eq!(tools.missing(&[B3SUM]), None);
        assert_eq!(
            tools.missing(&[B3SUM, RQBIT]),
            Some("no rqbit here: cargo install --locked rqbit".to_owned()),
            "what may not be run is no program"
        );
        let path = std::env::join_paths([&bin]).unwrap();
        assert_eq!(Tools::within(None, Some(&path)).find(B3SUM), Some(bin.join("b3sum")));
    }
}
