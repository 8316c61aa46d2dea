//! What processes cost, as the kernel tells it in `/proc`: processor time and the most memory they ever had.
//!
//! Owns nothing. Called by [`gauge`](crate::gauge) alone. Two programs are told apart by who started them: what this process
//! starts during a run is the client of that run, with all that it starts itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of a process and of the children that it has waited for: user and system.
///
/// # Errors
/// Where there is no such process.
pub(crate) fn cpu_with_children(pid: u32) -> Result<Duration> {
    let ticks = ticks(&stat(pid)?).context("the stat of a process has too few fields")?;
    Ok(duration(ticks.own + ticks.children))
}

/// Processor time of the children that this process has waited for, and of theirs.
///
/// # Errors
/// Where `/proc` is not there.
pub(crate) fn cpu_of_ended_children() -> Result<Duration> {
    let ticks = ticks(&stat(std::process::id())?).context("the stat of a process has too few fields")?;
    Ok(duration(ticks.children))
}

/// Processor time of a process, of all that it started and that still runs, and of all of those that have ended.
pub(crate) fn cpu_of_tree(pid: u32) -> Duration {
    tree(pid).into_iter().filter_map(|pid| cpu_with_children(pid).ok()).sum()
}

/// The process, its children and theirs, as they are now.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(children(parent));
        at += 1;
    }
    all
}

/// The children of a process that have not been waited for.
pub(crate) fn children(pid: u32) -> BTreeSet<u32> {
    // Each thread has children of its own.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeSet::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| numbers(&list)).collect()
}

/// The most memory that a process ever had (VmHWM), in bytes; `None` where it has ended.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    peak_of(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Makes the most memory that a process ever had what it has now.
///
/// # Errors
/// Where the process is another user's.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

/// Bytes that a process has read from files, pipes and other descriptors since it began.
///
/// # Errors
/// Where there is no such process.
pub(crate) fn bytes_read(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    read_in(&text).with_context(|| format!("{path} does not say what was read"))
}

fn stat(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/stat");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    own: u64,
    children: u64,
}

/// Fields 14 to 17 of proc(5). The second is the program's name, in which anything may stand.
fn ticks(stat: &str) -> Option<Ticks> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (user, system, child_user, child_system) = (next()?, next()?, next()?, next()?);
    Some(Ticks { own: user + system, children: child_user + child_system })
}

fn duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn read_in(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("rchar:"))?.trim().parse().ok()
}

fn numbers(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// What kind of file system a directory is on.
///
/// # Errors
/// Where there is no such directory.
pub(crate) fn file_system(dir: &Path) -> Result<&'static str> {
    let stat = rustix::fs::statfs(dir).with_context(|| format!("cannot ask about {}", dir.display()))?;
    Ok(match stat.f_type {
        0x0102_1994 => "tmpfs",
        0xef53 => "ext4",
        0x9123_683e => "btrfs",
        0x5846_5342 => "xfs",
        _ => "another file system",
    })
}

/// Bytes that this user can still write there.
///
/// # Errors
/// Where there is no such directory.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).with_context(|| format!("cannot ask about {}", dir.display()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(Ticks { own: 200, children: 50 }));
        assert_eq!(ticks("7 (short) S 1 7"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn memory_is_in_kib() {
        assert_eq!(
            peak_of("Name:\tp2pd\nVmPeak:\t  9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(peak_of("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn what_was_read_is_in_io() {
        assert_eq!(read_in("rchar: 4096\nwchar: 1\nread_bytes: 7\n"), Some(4096));
        assert_eq!(read_in("wchar: 1\n"), None);
    }

    #[test]
    fn a_child_is_seen_and_what_it_cost_is_kept() {
        let before = cpu_of_ended_children().unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo x; read x; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The kernel tells of a process that has just begun that it has no memory.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(tree(std::process::id()).contains(&child.id()));
        assert!(peak_memory(child.id()).is_some_and(|bytes| bytes > 4096));
        forget_peak(child.id()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert!(cpu_of_ended_children().unwrap() > before);
        assert_eq!(peak_memory(child.id()), None);
    }
}
