//! The state directory: who may enter it, who holds its lock, and whether what is in it is whole.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use p2p_identity::{Identity, IdentityError, PeerId};
use p2p_proto::diagnosis::Check;
use p2p_service::bearer;
use p2p_service::state_dir::Room;

use crate::directory::sqlite::{Integrity, check_integrity};
use crate::server::{DATABASE_FILE, KEY_FILE, TOKEN_FILE};

/// A larger database, in bytes, takes too long to be read whole.
const MAX_CHECKED: u64 = 1 << 30;
/// A clock may be so far behind the times that files have.
const CLOCK_GRACE: Duration = Duration::from_secs(60);

/// Whether a maestro runs with this state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    /// It does.
    Runs { pid: u32 },
    /// It does not.
    Stopped,
    /// This user may not know.
    Unknown,
}

pub(super) struct State {
    pub(super) checks: Vec<Check>,
    pub(super) daemon: Daemon,
    pub(super) id: Option<PeerId>,
}

/// Looks at all of it. `is_embedded`: the directory's database is in it too. Blocking.
pub(super) fn examine(dir: &Path, is_embedded: bool) -> State {
    let shown = dir.display();
    let closed = |checks, daemon| State { checks, daemon, id: None };
    let found = match fs::metadata(dir).and_then(|found| fs::read_dir(dir).map(|_| found)) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let check = Check::problem("state", format!("there is no state directory {shown} yet"))
                .advise("it is made when maestrod first starts; another one is named with --state-dir");
            return closed(vec![check], Daemon::Stopped);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let check = Check::skipped("state", format!("you may not look into {shown}: {error}"))
                .advise("sudo maestrod doctor");
            return closed(vec![check], Daemon::Unknown);
        }
        Err(error) => {
            let check = Check::problem("state", format!("{shown} cannot be used: {error}"))
                .advise("move away what is there, or name another directory with --state-dir");
            return closed(vec![check], Daemon::Stopped);
        }
    };
    let daemon = holder(dir);
    let mode = found.permissions().mode() & 0o777;
    let mut checks = vec![directory(dir, mode, Room::of(dir))];
    let (identity, id) = identity(&dir.join(KEY_FILE));
    checks.extend([identity, token(&dir.join(TOKEN_FILE))]);
    checks.extend(is_embedded.then(|| database(&dir.join(DATABASE_FILE), daemon)));
    checks.push(clock(dir));
    State { checks, daemon, id }
}

fn directory(dir: &Path, mode: u32, room: io::Result<Room>) -> Check {
    const NAME: &str = "state";
    let shown = dir.display();
    let room = match room {
        Ok(room) => room,
        Err(error) => return Check::problem(NAME, format!("{shown} cannot be used: {error}")),
    };
    if let Some(problem) = room.problem(dir, "what peers announce is kept in it") {
        return problem;
    }
    if mode & 0o007 != 0 {
        return Check::warning(
            NAME,
            format!("every user of this machine may enter {shown} (mode {mode:04o})"),
        )
        .advise(format!("sudo chmod 0700 {shown}"));
    }
    Check::ok(NAME, format!("{shown} (mode {mode:04o}), {} MiB free", room.free >> 20))
}

/// Who holds the lock: its process has written its number there, and the kernel tells who locks what. To try the lock
/// would keep a maestro from starting that tries it in the same moment.
fn holder(dir: &Path) -> Daemon {
    let lock = dir.join("lock");
    let pid = match fs::read_to_string(&lock) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Daemon::Stopped,
        Err(_) => return Daemon::Unknown,
    };
    let inode = fs::metadata(&lock).map(|found| found.ino());
    match (pid, inode, fs::read_to_string("/proc/locks")) {
        (Some(pid), Ok(inode), Ok(locks)) if holds(&locks, pid, inode) => Daemon::Runs { pid },
        (_, Ok(_), Ok(_)) => Daemon::Stopped,
        _ => Daemon::Unknown,
    }
}

/// Whether the kernel's list of locks has this one. A line is like `3: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`.
fn holds(locks: &str, pid: u32, inode: u64) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", holder, file, ..] = words.as_slice() else { return false };
        let of_file = file.rsplit(':').next().and_then(|inode| inode.parse().ok());
        holder.parse() == Ok(pid) && of_file == Some(inode)
    })
}

fn identity(path: &Path) -> (Check, Option<PeerId>) {
    const NAME: &str = "identity";
    match Identity::open(path) {
        Ok(identity) => {
            let id = identity.id();
            let check = Check::ok(
                NAME,
                format!("the network's identity is {id}; {} is worth a backup", path.display()),
            );
            (check, Some(id))
        }
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            let check = Check::skipped(NAME, format!("you may not read {}", path.display()));
            (check.advise("sudo maestrod doctor"), None)
        }
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let check = Check::problem(
                NAME,
                format!("there is no {}: the next start makes a new network", path.display()),
            )
            .advise("restore it from a backup, or every peer must join again");
            (check, None)
        }
        Err(error) => (Check::problem(NAME, error.to_string()), None),
    }
}

fn token(path: &Path) -> Check {
    const NAME: &str = "join-token";
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Check::warning(NAME, format!("others can read {shown}: who read it can join"))
                .advise(format!("remove {shown} and restart maestrod: it makes a new one"))
        }
        Ok(_) => match bearer::read_token(path) {
            Ok(_) => Check::ok(NAME, "`maestrod token` prints it"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Check::skipped(NAME, format!("you may not read {shown}")).advise("sudo maestrod doctor")
            }
            Err(error) => Check::problem(NAME, error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::warning(NAME, format!("there is no {shown}; the next start makes one"))
        }
        Err(error) => Check::problem(NAME, format!("{shown}: {error}")),
    }
}

fn database(path: &Path, daemon: Daemon) -> Check {
    const NAME: &str = "database";
    let shown = path.display();
    let len = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::warning(
                NAME,
                format!("there is no {shown}; the next start makes one, and peers fill it"),
            );
        }
        Err(error) => return Check::problem(NAME, format!("{shown}: {error}")),
    };
    if let Err(error) = fs::File::open(path)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Check::skipped(NAME, format!("you may not read {shown}")).advise("sudo maestrod doctor");
    }
    if len > MAX_CHECKED {
        return Check::skipped(
            NAME,
            format!("{shown} has {} MiB: to read it whole takes too long", len >> 20),
        );
    }
    match check_integrity(path, daemon == Daemon::Stopped) {
        Ok(Integrity::Whole { peers }) => {
            Check::ok(NAME, format!("{shown} is whole; it knows {peers} peers"))
        }
        Ok(Integrity::Damaged { what }) => Check::problem(NAME, format!("{shown} is damaged: {what}"))
            .advise("sudo systemctl stop maestrod")
            .advise(format!("move {shown} away, with the files beside it that begin like it"))
            .advise("sudo systemctl start maestrod: the peers send their catalogs again, and show the token again"),
        Err(error) => Check::problem(NAME, error.to_string()),
    }
}

/// A clock that is behind what was written before was wrong then, or is now.
fn clock(dir: &Path) -> Check {
    let times = fs::read_dir(dir).into_iter().flatten().flatten();
    let newest = times.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    clock_check(newest, SystemTime::now())
}

fn clock_check(newest: Option<SystemTime>, now: SystemTime) -> Check {
    const NAME: &str = "clock";
    let ahead = newest.and_then(|newest| newest.duration_since(now).ok()).unwrap_or_default();
    if ahead > CLOCK_GRACE {
        let found = format!(
            "the clock is {} s behind what maestrod wrote before: memberships end too late",
            ahead.as_secs()
        );
        return Check::problem(NAME, found).advise("sudo timedatectl set-ntp true");
    }
    Check::ok(
        NAME,
        "the clock is not behind what was written before; `p2pctl doctor` compares it with a peer's",
    )
}

#[cfg(test)]
mod tests {
    use p2p_proto::diagnosis::Verdict;

    use super::*;

    #[test]
    fn the_kernel_tells_who_holds_the_lock() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:1f:1234 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 5 00:1f:1234 0 EOF\n";
        assert!(holds(locks, 4711, 1234));
        assert!(!holds(locks, 4711, 77) && !holds(locks, 5, 1234) && !holds(locks, 11, 77));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), Daemon::Stopped);
        let held = p2p_service::state_dir::StateDir::open(dir.path().join("s")).unwrap();
        assert_eq!(holder(held.path()), Daemon::Runs { pid: std::process::id() });
        let path = held.path().to_owned();
        drop(held);
        assert_eq!(holder(&path), Daemon::Stopped);
    }

    #[test]
    fn a_clock_that_went_back_is_found() {
        let now = SystemTime::now();
        assert_eq!(clock_check(Some(now - CLOCK_GRACE), now).verdict, Verdict::Ok);
        assert_eq!(clock_check(Some(now + CLOCK_GRACE * 2), now).verdict, Verdict::Problem);
        assert_eq!(clock_check(None, now).verdict, Verdict::Ok);
    }

    #[test]
    fn what_others_may_read_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let room = |free, is_read_only| Ok(Room { free, free_files: None, is_read_only });
        assert_eq!(directory(dir.path(), 0o700, room(1 << 30, false)).verdict, Verdict::Ok);
        assert_eq!(directory(dir.path(), 0o755, room(1 << 30, false)).verdict, Verdict::Warning);
        assert_eq!(directory(dir.path(), 0o755, room(0, false)).verdict, Verdict::Problem);
        assert_eq!(directory(dir.path(), 0o700, room(1 << 30, true)).verdict, Verdict::Problem);
        let path = dir.path().join(TOKEN_FILE);
        assert_eq!(token(&path).verdict, Verdict::Warning);
        bearer::load_or_create_token(&path).unwrap();
        assert_eq!(token(&path).verdict, Verdict::Ok);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(token(&path).verdict, Verdict::Warning);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert_eq!(token(&path).verdict, Verdict::Problem);
    }
}
