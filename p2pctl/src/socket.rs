//! Where the daemon's control socket is, and why it cannot be reached.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::failure::{Failure, text};

const SYSTEM: &str = "/run/p2pd/control.sock";
/// Where a user's own is in `XDG_RUNTIME_DIR`.
const BELOW_RUNTIME: &str = "p2pd/control.sock";

/// The socket of the daemon: the one that was named, else the user's own, where there is one, else the system's.
pub(crate) fn find(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| nearest(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)))
}

/// A user who has a daemon of their own set it up: it is the one that is meant. The system's is there unasked.
fn nearest(runtime_dir: Option<PathBuf>) -> PathBuf {
    match runtime_dir.map(|directory| directory.join(BELOW_RUNTIME)) {
        Some(own) if own.exists() => own,
        _ => SYSTEM.into(),
    }
}

/// Whose daemon it is: another manager runs it, and its configuration is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The machine's.
    System,
    /// This user's own: `p2pd --user`.
    User,
}

impl Owner {
    /// Whose daemon is behind this socket, by where it is.
    pub(crate) fn of(socket: &Path) -> Owner {
        Owner::within(socket, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
    }

    fn within(socket: &Path, runtime_dir: Option<PathBuf>) -> Owner {
        match runtime_dir.filter(|directory| directory.join(BELOW_RUNTIME) == socket) {
            Some(_) => Owner::User,
            None => Owner::System,
        }
    }

    /// What is between `systemctl` or `journalctl` and its verb.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Owner::System => "",
            Owner::User => " --user",
        }
    }
}

/// Says why a connection to the socket failed, and what to do.
pub(crate) fn explain(socket: &Path, err: &io::Error) -> Failure {
    let shown = socket.display();
    let message = match err.kind() {
        io::ErrorKind::NotFound => format!("p2pd is not running: there is no socket {shown}"),
        io::ErrorKind::ConnectionRefused => {
            format!("p2pd is not running: nobody listens on its socket {shown}")
        }
        io::ErrorKind::PermissionDenied => return not_permitted(socket),
        _ => format!("Cannot reach p2pd at {shown}: {}", text(err)),
    };
    not_running(message, Owner::of(socket).flag())
}

fn not_running(message: String, user: &str) -> Failure {
    let start = format!("start it with `systemctl{user} start p2pd`");
    Failure::new(Exit::Unreachable, "daemon-unreachable", message)
        .hint(format!("{start}, and see why it stopped with `journalctl{user} -u p2pd`"))
        .hint("if it listens elsewhere, name its socket: `p2pctl --socket PATH …`, or P2PD_SOCKET")
}

fn not_permitted(socket: &Path) -> Failure {
    let (shown, code) = (socket.display(), "socket-not-permitted");
    let Some((group, is_for_group)) = owning_group(socket) else {
        return Failure::new(Exit::Refused, code, format!("You may not use p2pd's socket {shown}"))
            .hint("use it as root, or as a user whom its owner lets in");
    };
    if !is_for_group {
        let message = format!("You may not use p2pd's socket {shown}: it is for its owner alone");
        return Failure::new(Exit::Refused, code, message).hint(
            "that p2pd is another user's own; start one for yourself with `systemctl --user start p2pd`",
        );
    }
    let message = format!("You may not use p2pd's socket {shown}: it is for the group {group}");
    Failure::new(Exit::Refused, code, message)
        .hint(format!("`sudo usermod -aG {group} $USER`, then log out and in again"))
}

/// The name of the group that may use the socket, else its number; and whether the group may. Where the socket lies in a
/// directory that is closed to this user, what holds for that directory.
pub(crate) fn owning_group(socket: &Path) -> Option<(String, bool)> {
    let is_for_group = |metadata: &Metadata, bits: u32| metadata.mode() & bits == bits;
    let (gid, is_for_group) = match socket.metadata() {
        Ok(seen) => (seen.gid(), is_for_group(&seen, 0o060)),
        Err(_) => {
            let seen = socket.parent()?.metadata().ok()?;
            (seen.gid(), is_for_group(&seen, 0o010))
        }
    };
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some((group_name(&groups, gid).unwrap_or_else(|| gid.to_string()), is_for_group))
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\np2pd:x:991:ana,luis\nbroken\n";
        assert_eq!(group_name(groups, 991).as_deref(), Some("p2pd"));
        assert_eq!(group_name(groups, 99), None);
    }

    #[test]
    fn a_refused_user_is_told_the_group_and_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let group = |mode| {
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
            explain(&socket, &io::ErrorKind::PermissionDenied.into())
        };
        let refused = group(0o660);
        assert_eq!(refused.exit(), Exit::Refused);
        let gid = std::fs::metadata(&socket).unwrap().gid();
        let name = group_name(&std::fs::read_to_string("/etc/group").unwrap(), gid).unwrap();
        assert!(refused.message().contains(&format!("the group {name}")), "{refused:?}");
        assert!(refused.hints()[0].contains(&format!("usermod -aG {name} $USER")), "{refused:?}");
        let alone = group(0o600);
        assert!(alone.message().contains("its owner alone"), "{alone:?}");
    }

    #[test]
    fn the_users_own_daemon_goes_before_the_systems() {
        let runtime = tempfile::tempdir().unwrap();
        let nearest = || nearest(Some(runtime.path().to_owned()));
        assert_eq!(nearest(), Path::new(SYSTEM));
        std::fs::create_dir(runtime.path().join("p2pd")).unwrap();
        std::fs::write(runtime.path().join("p2pd/control.sock"), "").unwrap();
        assert_eq!(nearest(), runtime.path().join("p2pd/control.sock"));
        assert_eq!(super::nearest(None), Path::new(SYSTEM));
    }

    #[test]
    fn whose_daemon_it_is_shows_in_where_its_socket_is() {
        let within = |socket: &str, directory: Option<&str>| {
            Owner::within(Path::new(socket), directory.map(PathBuf::from))
        };
        let own = "/run/user/1000/p2pd/control.sock";
        assert_eq!(within(own, Some("/run/user/1000")), Owner::User);
        assert_eq!(within(own, None), Owner::System);
        assert_eq!(within(SYSTEM, Some("/run/user/1000")), Owner::System);
        let hint = |owner: Owner| not_running(String::new(), owner.flag()).hints()[0].clone();
        assert!(hint(Owner::User).contains("`systemctl --user start p2pd`"));
        assert!(hint(Owner::System).contains("`journalctl -u p2pd`"));
    }

    #[test]
    fn the_named_socket_goes_before_all_others() {
        assert_eq!(find(Some("/x".into())), PathBuf::from("/x"));
    }
}
