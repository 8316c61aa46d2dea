//! What can be seen without the daemon: its socket, its configuration, its unit.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use p2p_proto::diagnosis::Check;
use tokio::process::Command;

use crate::failure::text;
use crate::socket;

/// How long another program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The configuration that p2pd reads when no other is named.
const DEFAULT_CONFIG: &str = "/etc/p2pd/p2pd.toml";
/// Where p2pd may be, where `PATH` does not tell; users have no `sbin` in it.
const PROGRAM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Whether the socket is there, and for whom.
pub(super) fn socket(path: &Path) -> Check {
    const NAME: &str = "socket";
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::problem(NAME, format!("there is no {shown}"))
                .advise("sudo systemctl start p2pd.socket")
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
/// system's.
pub(super) async fn configuration(pid: Option<u32>) -> Check {
    const NAME: &str = "configuration";
    let named = pid.and_then(config_of);
    let file = named.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let shown = file.display();
    if let Err(error) = fs::File::open(&file)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Check::skipped(NAME, format!("you may not read {shown}")).advise("sudo p2pctl doctor");
    }
    let Some(program) = program() else {
        return Check::skipped(NAME, format!("p2pd is not installed here, so nobody can judge {shown}"));
    };
    let mut command = Command::new(&program);
    command.arg("--check-config");
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
            .advise(format!("correct it, then: p2pd --check-config --config {shown}"))
        }
        Err(why) => Check::skipped(NAME, format!("{} cannot be asked: {why}", program.display())),
    }
}

/// What systemd knows of a daemon that does not answer; nothing where there is no systemd, or no such unit.
pub(super) async fn unit() -> Option<Check> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut command = Command::new("systemctl");
    command.args(["show", "p2pd.service", "--property=LoadState,ActiveState,SubState,Result,UnitFileState"]);
    unit_check(&String::from_utf8_lossy(&output(command).await.ok()?.stdout))
}

fn unit_check(shown: &str) -> Option<Check> {
    const NAME: &str = "unit";
    let property = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let enabled = property("UnitFileState").is_some_and(|state| state == "enabled");
    let at_boot = if enabled { "it starts at boot" } else { "it does not start at boot" };
    match (property("LoadState")?, property("ActiveState")?) {
        ("not-found", _) => None,
        (_, "failed") => Some(
            Check::problem(NAME, format!("p2pd.service has failed ({})", property("Result").unwrap_or("?")))
                .advise("journalctl -u p2pd -n 20")
                .advise("sudo systemctl reset-failed p2pd && sudo systemctl start p2pd"),
        ),
        (_, "active") => {
            Some(Check::warning(NAME, "p2pd.service is running, and does not answer on this socket"))
        }
        (_, "inactive") => Some(
            Check::problem(NAME, format!("p2pd.service is stopped; {at_boot}"))
                .advise("sudo systemctl enable --now p2pd"),
        ),
        (_, state) => Some(Check::warning(NAME, format!("p2pd.service is {state}"))),
    }
}

/// The configuration file that a process was given.
fn config_of(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    config_among(line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()))
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
        let check = |active: &str| {
            unit_check(&format!(
                "LoadState=loaded\nActiveState={active}\nResult=exit-code\nUnitFileState=enabled\n"
            ))
        };
        let failed = check("failed").unwrap();
        assert!(failed.verdict == Verdict::Problem && failed.found.contains("exit-code"), "{failed:?}");
        assert!(check("inactive").unwrap().found.contains("starts at boot"));
        assert_eq!(check("activating").unwrap().verdict, Verdict::Warning);
        assert_eq!(unit_check("LoadState=not-found\nActiveState=inactive\n"), None);
        assert_eq!(unit_check(""), None);
    }

    #[test]
    fn the_configuration_of_a_process_is_on_its_command_line() {
        let among = |words: &[&str]| config_among(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(among(&["p2pd", "--config", "/a.toml", ""]), Some("/a.toml".into()));
        assert_eq!(among(&["p2pd", "--config=/b.toml"]), Some("/b.toml".into()));
        assert_eq!(among(&["p2pd", "--name", "x"]), None);
    }

    #[test]
    fn a_socket_is_judged_by_what_it_is_and_for_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
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
