//! Where the daemon's control socket is, and why it cannot be reached.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::failure::{Failure, text};

const SYSTEM: &str = "/run/p2pd/control.sock";

/// The socket of the daemon: the one that was named, else the system's, else the user's own.
pub(crate) fn find(named: Option<PathBuf>) -> PathBuf {
    if let Some(path) = named {
        return path;
    }
    let system = PathBuf::from(SYSTEM);
    // A socket in a directory that this user may not enter is there all the same: the message about it helps.
    if !matches!(system.try_exists(), Ok(false)) {
        return system;
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("p2pd/control.sock")) {
        Some(own) if own.exists() => own,
        _ => system,
    }
}

/// Says why a connection to the socket failed, and what to do.
pub(crate) fn explain(socket: &Path, err: &io::Error) -> Failure {
    let shown = socket.display();
    match err.kind() {
        io::ErrorKind::NotFound => not_running(format!("p2pd is not running: there is no socket {shown}")),
        io::ErrorKind::ConnectionRefused => {
            not_running(format!("p2pd is not running: nobody listens on its socket {shown}"))
        }
        io::ErrorKind::PermissionDenied => not_permitted(socket),
        _ => not_running(format!("Cannot reach p2pd at {shown}: {}", text(err))),
    }
}

fn not_running(message: String) -> Failure {
    Failure::new(Exit::Unreachable, "daemon-unreachable", message)
        .hint("start it with `systemctl start p2pd`, and see why it stopped with `journalctl -u p2pd`")
        .hint("if it listens elsewhere, name its socket: `p2pctl --socket PATH …`, or P2PD_SOCKET")
}

fn not_permitted(socket: &Path) -> Failure {
    let group = owning_group(socket).unwrap_or_else(|| "p2pd".to_owned());
    Failure::new(
        Exit::Refused,
        "socket-not-permitted",
        format!("You may not use p2pd's socket {}: it is for the group {group}", socket.display()),
    )
    .hint(format!("`sudo usermod -aG {group} $USER`, then log out and in again"))
}

/// The group that the socket is for; where it cannot be seen, that of its directory.
pub(crate) fn owning_group(socket: &Path) -> Option<String> {
    let seen = socket.metadata().or_else(|_| socket.parent().unwrap_or(socket).metadata()).ok()?;
    group_name(&std::fs::read_to_string("/etc/group").ok()?, seen.gid())
}

fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\np2pd:x:991:ana,luis\nbroken\n";
        assert_eq!(group_name(groups, 991).as_deref(), Some("p2pd"));
        assert_eq!(group_name(groups, 99), None);
    }

    #[test]
    fn a_refused_user_is_told_the_group_and_the_command() {
        let refused = explain(Path::new("/no/such"), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(refused.exit(), Exit::Refused);
        assert!(refused.hints()[0].contains("usermod -aG p2pd $USER"), "{refused:?}");
    }

    #[test]
    fn the_named_socket_goes_before_all_others() {
        assert_eq!(find(Some("/x".into())), PathBuf::from("/x"));
    }
}
