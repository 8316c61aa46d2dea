//! A journal of one daemon's own: what journald would be told, taken apart. Needs root, for a place of its own to mount it
//! in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};

/// The fields of one entry.
pub type Entry = BTreeMap<String, String>;

/// The listening end of a journal's socket.
#[derive(Debug)]
pub struct Journal {
    datagrams: Receiver<Vec<u8>>,
    directory: PathBuf,
}

impl Journal {
    /// A journal in this directory, which is made; `None` where this process may not give a daemon a file system view of
    /// its own.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn listen(directory: &Path) -> Result<Option<Journal>> {
        let mut trial = Command::new("unshare");
        trial.args(["--mount", "mount", "-t", "tmpfs", "none", "/run"]);
        let trial = trial.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !trial.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        fs::create_dir_all(directory)?;
        let socket = UnixDatagram::bind(directory.join("socket"))?;
        let (sender, datagrams) = channel();
        // A daemon waits for a journal that does not listen. The thread ends with the one who asks for entries, or with
        // this process.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(len) = socket.recv(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Some(Journal { datagrams, directory: directory.to_owned() }))
    }

    /// A program that starts `program` with this journal in the place of the system's, as systemd would start it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn wrap(&self, program: &Path) -> Result<PathBuf> {
        let (directory, program) = (self.directory.display(), program.display());
        let script = format!(
            "#!/bin/sh\nexport JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)\nexec unshare --mount sh -c 'mount -t \
             tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && exec \
             \"$@\"' '{directory}' '{program}' \"$@\"\n"
        );
        let path = self.directory.join("with-journal");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The entries that have come since this was last asked.
    ///
    /// # Errors
    /// Where one is not written as the journal's protocol has it.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        // The first datagram of a program is empty: it asks whether anybody listens.
        let told = self.datagrams.try_iter().filter(|datagram| !datagram.is_empty());
        told.map(|datagram| parse(&datagram)).collect()
    }
}

/// `KEY=value\n`, or `KEY\n`, the value's length in 8 bytes, the value and `\n`.
fn parse(mut rest: &[u8]) -> Result<Entry> {
    let mut entry = Entry::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').context("a line without an end")?;
        let line = std::str::from_utf8(&rest[..end])?;
        rest = &rest[end + 1..];
        if let Some((key, value)) = line.split_once('=') {
            entry.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let (len, after) = rest.split_at_checked(8).context("no length")?;
        let len = usize::try_from(u64::from_le_bytes(len.try_into()?))?;
        let (value, after) = after.split_at_checked(len).context("a value that is too short")?;
        entry.insert(line.to_owned(), String::from_utf8_lossy(value).into_owned());
        rest = after.strip_prefix(b"\n").context("no line break after a value")?;
    }
    Ok(entry)
}
