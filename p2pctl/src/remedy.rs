//! What lets the daemon use a directory that it cannot use: the drop-in for its unit, and the commands, to the letter.
//!
//! The daemon says how it fails, from within its sandbox. This program sees the machine from outside: whether the
//! directory is there after all, who may read it, and which unit the daemon runs in. [`Daemon`] and [`Seen`] look;
//! the advice itself is pure.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use p2p_content::ContentHash;

use crate::output::{plain, quoted};

/// How the daemon fails at a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It sees nothing of that name.
    NotThere,
    /// It may not read it.
    Unreadable,
    /// Nothing can be written where it sees it.
    ReadOnly,
    /// It may not write in it.
    NotWritable,
}

impl Flaw {
    /// By the code of the daemon's problem.
    pub(crate) fn of_code(code: &str) -> Option<Flaw> {
        match code {
            "share-not-there" => Some(Flaw::NotThere),
            "share-unreadable" => Some(Flaw::Unreadable),
            "share-read-only" => Some(Flaw::ReadOnly),
            "share-not-writable" => Some(Flaw::NotWritable),
            _ => None,
        }
    }
}

/// What is to be made possible.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// The directory, as an absolute path.
    pub(crate) path: &'a Path,
    /// The share's name.
    pub(crate) name: &'a str,
    /// Whether fetched files are to land in it.
    pub(crate) downloads: bool,
    /// What is in the way.
    pub(crate) flaw: Flaw,
}

/// How the daemon is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// Its user's name.
    user: String,
    /// Its unit of the system's manager, if it runs in one.
    unit: Option<String>,
}

impl Daemon {
    /// That of this process; what cannot be found out is as the packages install it.
    pub(crate) fn of_process(pid: u32) -> Daemon {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = fs::metadata(format!("/proc/{pid}")).ok().and_then(|seen| user_name(&passwd, seen.uid()));
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Daemon { user: user.unwrap_or_else(|| "p2pd".to_owned()), unit: system_unit(&groups) }
    }
}

/// What this user sees of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it is a directory.
    is_directory: bool,
    /// Whether it is this user's own, who then needs nobody to change its access list.
    is_own: bool,
    /// Whether everybody may read it.
    is_open: bool,
    /// The directories on the way that not everybody may enter.
    closed: Vec<PathBuf>,
    /// The directory's own path, where it was named by another one.
    leads_to: Option<PathBuf>,
    /// Whether this user is root.
    is_root: bool,
}

impl Seen {
    /// Looks at the directory and at those on the way to it.
    pub(crate) fn at(path: &Path) -> Seen {
        let me = rustix::process::geteuid();
        let (Ok(found), Ok(real)) = (fs::metadata(path), path.canonicalize()) else {
            return Seen { is_root: me.is_root(), ..Seen::default() };
        };
        let mode = |path: &Path| fs::metadata(path).map_or(0o777, |found| found.permissions().mode());
        let mut closed: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        closed.retain(|directory| mode(directory) & 0o001 == 0);
        closed.reverse();
        Seen {
            is_directory: found.is_dir(),
            is_own: found.uid() == me.as_raw(),
            is_open: mode(path) & 0o005 == 0o005,
            closed,
            leads_to: (real != path).then_some(real),
            is_root: me.is_root(),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remedy {
    /// What is wrong, and what the commands do.
    pub(crate) reason: String,
    /// The commands, in order.
    pub(crate) commands: Vec<String>,
}

/// What lets this daemon use this directory; nothing where the directory is not there at all.
pub(crate) fn remedy(case: Case<'_>, daemon: &Daemon, seen: &Seen) -> Option<Remedy> {
    if !seen.is_directory {
        return None;
    }
    if let Some(reason) = unsafe_to_name(case.path, seen) {
        return Some(Remedy { reason, commands: Vec::new() });
    }
    let Daemon { user, unit } = daemon;
    let private = ["/home", "/root", "/run/user"].iter().any(|private| case.path.starts_with(private));
    // A home that the sandbox closes looks to the daemon like one that its modes close.
    let is_hidden = case.flaw == Flaw::NotThere || case.flaw == Flaw::Unreadable && private && unit.is_some();
    let sudo = if seen.is_root { "" } else { "sudo " };
    let mut commands = Vec::new();
    let mut reasons = Vec::new();
    match unit {
        Some(unit) if is_hidden || case.flaw == Flaw::ReadOnly => {
            reasons.push(match is_hidden {
                true => format!("you see it and p2pd does not: the sandbox of {unit} hides it"),
                false => format!("the sandbox of {unit} lets p2pd only read there"),
            });
            let directory = format!("/etc/systemd/system/{unit}.d");
            let file = format!("{directory}/share-{}.conf", file_word(case.name));
            let lines = drop_in(&case, is_hidden, private);
            let lines: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
            commands.push(format!("{sudo}mkdir -p {directory}"));
            commands.push(format!("printf '%s\\n' {} | {sudo}tee {file}", lines.join(" ")));
        }
        None if is_hidden => {
            reasons
                .push("you see it and p2pd does not: it runs in another view of the file system".to_owned());
        }
        _ => {}
    }
    let is_denied = matches!(case.flaw, Flaw::Unreadable | Flaw::NotWritable) && !(is_hidden && seen.is_open);
    if is_denied || is_hidden && (case.downloads || !seen.is_open) {
        let (may, does) = if case.downloads { ("rwX", "read and write") } else { ("rX", "read") };
        reasons.push(format!("its modes do not let the user {user} {does} it"));
        let owner = if seen.is_own { "" } else { sudo };
        let path = quoted(&case.path.to_string_lossy());
        // A directory that is bound into the sandbox is reached without those on the way.
        for closed in seen.closed.iter().filter(|_| !(is_hidden && unit.is_some())) {
            commands.push(format!("{sudo}setfacl -m u:{user}:x {}", quoted(&closed.to_string_lossy())));
        }
        commands.push(format!("{owner}setfacl -R -m u:{user}:{may} -m d:u:{user}:{may} {path}"));
    }
    if let Some(unit) = unit
        && commands.iter().any(|command| command.contains("/etc/systemd/"))
    {
        commands.push(format!("{sudo}systemctl daemon-reload"));
        commands.push(format!("{sudo}systemctl restart {unit}"));
    }
    Some(Remedy { reason: reasons.join("; "), commands })
}

/// Why no command shall have this path in it: root would run it, and others may decide what it does.
fn unsafe_to_name(path: &Path, seen: &Seen) -> Option<String> {
    let shown = path.to_string_lossy();
    // A new line would be one of the unit file, and of the shell.
    if shown.contains('\n') || plain(&shown) != shown {
        return Some(
            "its path has characters that cannot be shown, so no command can name it: rename it".to_owned(),
        );
    }
    let real = seen.leads_to.as_ref()?.display();
    Some(format!(
        "this is not the directory's own path, which is {real}: whoever controls a link on the way could turn commands against \
         other files, so there are none; share it by its own path"
    ))
}

/// The lines of the drop-in.
fn drop_in(case: &Case<'_>, is_hidden: bool, private: bool) -> Vec<String> {
    let path = case.path.to_string_lossy();
    let mut lines = vec!["[Service]".to_owned()];
    if is_hidden && private {
        // Homes stay hidden, and what is bound into them shows: with `yes` it would not.
        lines.push("ProtectHome=tmpfs".to_owned());
    }
    let line = match (is_hidden, case.downloads) {
        // The dash: a disk that is not there shall not keep the daemon from starting.
        (true, true) => format!("BindPaths=-{}", unit_word(&path, true)),
        (true, false) => format!("BindReadOnlyPaths=-{}", unit_word(&path, true)),
        (false, _) => format!("ReadWritePaths=-{}", unit_word(&path, false)),
    };
    lines.push(match line.split_once('=') {
        Some((key, value)) if value.contains(char::is_whitespace) => format!("{key}=\"{value}\""),
        _ => line,
    });
    lines
}

/// A path as a unit file wants it.
fn unit_word(path: &str, has_parts: bool) -> String {
    let mut word = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' => word.push_str("%%"),
            '\\' | '"' | '\'' => word.extend(['\\', c]),
            ':' if has_parts => word.push_str("\\:"),
            c => word.push(c),
        }
    }
    word
}

/// A name as a part of a file's name, which no other name shares.
fn file_word(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut word: String = name.chars().map(|c| if safe(c) { c } else { '-' }).collect();
    if word != name {
        let hash = ContentHash::of(name.as_bytes()).to_string();
        // No name that stays as it is has a plus.
        word.push('+');
        word.push_str(&hash[..8]);
    }
    word
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The unit of the system's manager that `/proc/PID/cgroup` names, if it is one of p2pd: a daemon that was started by hand
/// is in the unit of whoever started it.
fn system_unit(groups: &str) -> Option<String> {
    let is_p2pd = |unit: &&str| unit.starts_with("p2pd") && unit.ends_with(".service");
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let of_system = paths.filter(|path| !path.split('/').any(|part| part.starts_with("user@")));
    of_system.filter_map(|path| path.split('/').find(is_p2pd)).map(str::to_owned).next()
}

#[cfg(test)]
#[path = "remedy_tests.rs"]
mod tests;
