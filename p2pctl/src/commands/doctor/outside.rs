//! What can be seen without the daemon: its socket, its configuration, its unit.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use p2p_proto::diagnosis::Check;
use tokio::process::Command;

use crate::failure::text;
use crate::socket::{self, Owner};

/// How long another program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The configuration that the system's p2pd reads when no other is named.
const DEFAULT_CONFIG: &str = "/etc/p2pd/p2pd.toml";
/// Where p2pd may be, where `PATH` does not tell; users have no `sbin` in it.
const PROGRAM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// `systemctl`, for a daemon of this owner.
pub(super) fn systemctl(owner: Owner) -> &'static str {
    match owner {
        Owner::System => "sudo systemctl",
        Owner::User => "systemctl --user",
    }
}

/// Whether the socket is there, and for whom.
pub(super) fn socket(path: &Path, owner: Owner) -> Check {
    const NAME: &str = "socket";
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::problem(NAME, format!("there is no {shown}"))
                .advise(format!("{} start p2pd.socket", systemctl(owner)))
                .advise("if p2pd listens elsewhere: `p2pctl --socket PATH doctor`, or P2PD_SOCKET");
        }
        Err(error) => return Check::problem(NAME, format!("{shown} cannot be looked at: {}", text(&error))),
    };
    if !found.file_type().is_socket() {
        return Check::problem(NAME, format!("{shown} is not a socket"))
            .advise("move it away, and restart p2pd");
    }
    let mode = found.permissions().mode() & 0o777;
    let group = socket::owning_group(path).map_or_else(|| found.gid().to_string(), |(group, _)| group);
    let who = format!("{shown} is for the group {group} (mode {mode:04o})");
    if mode & 0o002 != 0 {
        return Check::warning(NAME, format!("{who}, and for every user of this machine"))
            .advise(format!("sudo chmod 0660 {shown}"));
    }
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::ok(NAME, who),
        Err(_) => Check::problem(NAME, format!("{who}, which you are not in"))
            .advise(format!("sudo usermod -aG {group} $USER"))
            .advise("log out and in again"),
    }
}

/// Whether the configuration can be read and makes sense, as p2pd itself judges it: the one of this process, or the
/// usual one.
pub(super) async fn configuration(pid: Option<u32>, owner: Owner) -> Check {
    const NAME: &str = "configuration";
    let words = pid.map(command_line).unwrap_or_default();
    // One that was started by hand may have its socket anywhere.
    let is_users = words.iter().any(|word| word == "--user");
    if is_users && pid.is_some_and(|pid| !is_mine(pid)) {
        return Check::skipped(NAME, "it is another user's own p2pd, and its configuration is at their home");
    }
    let owner = if is_users { Owner::User } else { owner };
    let named = match (config_among(words.into_iter()), pid) {
        (Some(named), Some(pid)) => match from_where_it_runs(&named, pid) {
            Some(named) => Some(named),
            None => {
                let shown = named.display();
                let found =
                    format!("p2pd was started with --config {shown}, and you may not see in which directory");
                return Check::skipped(NAME, found).advise("sudo p2pctl doctor");
            }
        },
        (named, _) => named,
    };
    let file = named.clone().unwrap_or_else(|| usual_config(owner, |name| std::env::var_os(name)));
    let shown = file.display();
    if let Err(error) = fs::File::open(&file)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let check = Check::skipped(NAME, format!("you may not read {shown}"));
        // As root, it would be root's own daemon that is looked at.
        return if owner == Owner::User { check } else { check.advise("sudo p2pctl doctor") };
    }
    let Some(program) = program() else {
        return Check::skipped(NAME, format!("p2pd is not installed here, so nobody can judge {shown}"));
    };
    let mut command = Command::new(&program);
    command.arg("--check-config");
    if owner == Owner::User {
        command.arg("--user");
    }
    if let Some(named) = &named {
        command.arg("--config").arg(named);
    }
    match output(command).await {
        Ok(output) if output.status.success() && file.exists() => {
            Check::ok(NAME, format!("{shown} is valid"))
        }
        Ok(output) if output.status.success() => {
            Check::ok(NAME, format!("there is no {shown}; everything is as by default"))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said.lines().map(|line| line.trim_start_matches("p2pd: ")).collect();
            Check::problem(
                NAME,
                format!("{shown} is not valid, and p2pd will not start with it: {}", said.join("; ")),
            )
            .advise(format!("correct it, then: p2pd{} --check-config --config {shown}", owner.flag()))
        }
        Err(why) => Check::skipped(NAME, format!("{} cannot be asked: {why}", program.display())),
    }
}

/// What systemd knows of a daemon that does not answer; nothing where there is no systemd, or no such unit.
pub(super) async fn unit(owner: Owner) -> Option<Check> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut command = Command::new("systemctl");
    if owner == Owner::User {
        command.arg("--user");
    }
    command.args(["show", "p2pd.service", "--property=LoadState,ActiveState,SubState,Result,UnitFileState"]);
    unit_check(&String::from_utf8_lossy(&output(command).await.ok()?.stdout), owner)
}

fn unit_check(shown: &str, owner: Owner) -> Option<Check> {
    const NAME: &str = "unit";
    let property = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let enabled = property("UnitFileState").is_some_and(|state| state == "enabled");
    let begins = match owner {
        Owner::System => "at boot",
        Owner::User => "with your session",
    };
    let starts = if enabled { format!("it starts {begins}") } else { format!("it does not start {begins}") };
    let systemctl = systemctl(owner);
    match (property("LoadState")?, property("ActiveState")?) {
        ("not-found", _) => None,
        (_, "failed") => Some(
            Check::problem(NAME, format!("p2pd.service has failed ({})", property("Result").unwrap_or("?")))
                .advise(format!("journalctl{} -u p2pd -n 20", owner.flag()))
                .advise(format!("{systemctl} reset-failed p2pd && {systemctl} start p2pd")),
        ),
        (_, "active") => {
            Some(Check::warning(NAME, "p2pd.service is running, and does not answer on this socket"))
        }
        (_, "inactive") => Some(
            Check::problem(NAME, format!("p2pd.service is stopped; {starts}"))
                .advise(format!("{systemctl} enable --now p2pd")),
        ),
        (_, state) => Some(Check::warning(NAME, format!("p2pd.service is {state}"))),
    }
}

/// What a process was started with; nothing where that cannot be seen.
fn command_line(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn is_mine(pid: u32) -> bool {
    let me = rustix::process::geteuid().as_raw();
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == me)
}

/// A path as that process means it; nothing where it depends on a directory that this user may not see.
fn from_where_it_runs(named: &Path, pid: u32) -> Option<PathBuf> {
    if named.is_absolute() {
        return Some(named.to_owned());
    }
    Some(fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(named))
}

/// The configuration that p2pd reads when no other is named: a user's own is where XDG says, as `variable` reads it.
fn usual_config(owner: Owner, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if owner == Owner::System {
        return DEFAULT_CONFIG.into();
    }
    let directory = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")));
    // Without a home p2pd refuses to start, and says so itself.
    base.unwrap_or_else(|| "~/.config".into()).join("p2pd/p2pd.toml")
}

fn config_among(mut words: impl Iterator<Item = String>) -> Option<PathBuf> {
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(value) = word.strip_prefix("--config=") {
            return Some(value.into());
        }
    }
    None
}

/// p2pd's program: beside this one, else where programs are.
fn program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let named = std::env::var_os("PATH").unwrap_or_default();
    let directories =
        beside.into_iter().chain(std::env::split_paths(&named)).chain(PROGRAM_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join("p2pd")).find(|program| program.is_file())
}

async fn output(mut command: Command) -> Result<Output, String> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(text(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use p2p_proto::diagnosis::Verdict;

    use super::*;

    #[test]
    fn a_unit_tells_why_its_daemon_is_silent() {
        let check_of = |active: &str, owner| {
            let shown =
                format!("LoadState=loaded\nActiveState={active}\nResult=exit-code\nUnitFileState=enabled\n");
            unit_check(&shown, owner)
        };
        let check = |active: &str| check_of(active, Owner::System);
        let failed = check("failed").unwrap();
        assert!(failed.verdict == Verdict::Problem && failed.found.contains("exit-code"), "{failed:?}");
        assert!(check("inactive").unwrap().found.contains("starts at boot"));
        assert_eq!(check("activating").unwrap().verdict, Verdict::Warning);
        assert_eq!(unit_check("LoadState=not-found\nActiveState=inactive\n", Owner::System), None);
        assert_eq!(unit_check("", Owner::System), None);
        assert!(failed.advice[1].starts_with("sudo systemctl reset-failed"), "{failed:?}");
        let own = check_of("failed", Owner::User).unwrap();
        assert!(own.advice[0].starts_with("journalctl --user -u"), "{own:?}");
        assert!(own.advice[1].starts_with("systemctl --user reset-failed"), "{own:?}");
        assert!(check_of("inactive", Owner::User).unwrap().found.contains("with your session"));
    }

    #[test]
    fn the_configuration_of_a_process_is_on_its_command_line() {
        let among = |words: &[&str]| config_among(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(among(&["p2pd", "--config", "/a.toml", ""]), Some("/a.toml".into()));
        assert_eq!(among(&["p2pd", "--config=/b.toml"]), Some("/b.toml".into()));
        assert_eq!(among(&["p2pd", "--name", "x"]), None);
        let here = |named: &str| from_where_it_runs(Path::new(named), std::process::id()).unwrap();
        assert_eq!(here("/a.toml"), Path::new("/a.toml"));
        assert_eq!(here("etc/a.toml"), std::env::current_dir().unwrap().join("etc/a.toml"));
        assert_eq!(from_where_it_runs(Path::new("a.toml"), u32::MAX), None);
        assert!(is_mine(std::process::id()) && !is_mine(u32::MAX));
    }

    #[test]
    fn a_users_own_daemon_has_its_configuration_at_home() {
        let usual = |variables: &[(&str, &str)]| {
            usual_config(Owner::User, |name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(usual(&[("HOME", "/home/ana")]), Path::new("/home/ana/.config/p2pd/p2pd.toml"));
        let both = [("HOME", "/home/ana"), ("XDG_CONFIG_HOME", "/c")];
        assert_eq!(usual(&both), Path::new("/c/p2pd/p2pd.toml"));
        assert_eq!(usual_config(Owner::System, |_| None), Path::new(DEFAULT_CONFIG));
    }

    #[test]
    fn a_socket_is_judged_by_what_it_is_and_for_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = |path: &Path| super::socket(path, Owner::User);
        assert_eq!(socket(&path).advice[0], "systemctl --user start p2pd.socket");
        assert_eq!(socket(&path).verdict, Verdict::Problem);
        fs::write(&path, "").unwrap();
        assert!(socket(&path).found.contains("not a socket"));
        fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert_eq!(socket(&path).verdict, Verdict::Ok, "{:?}", socket(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(socket(&path).verdict, Verdict::Warning);
    }
}
