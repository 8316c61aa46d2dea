//! The bytes of a fetched file on their way to its user, and the proof that they are what was fetched.
//!
//! The daemon's file may lie where others can change it, and so may the directories on the way to it. So no link is
//! followed to it, and what counts is the hash of what was written: it is compared before the copy gets its name.

use std::fs::File;
use std::io::{self, Read, Write};

use p2p_content::{ContentHash, ContentHasher};
use p2p_proto::control::Transfer;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::io::AsyncWriteExt as _;

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;

/// Code of bytes that are not those of the content.
pub(crate) const CHANGED: &str = "content-changed";

/// Bytes that are read, hashed and written at a time.
const CHUNK_LEN: usize = 1 << 20;

/// What came of copying the daemon's own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// The copy is what was fetched.
    Whole,
    /// This user may not read the file where its path says; nothing was written.
    Nothing,
    /// The file has other bytes now. What was written is not to be used.
    Other,
}

/// Makes an empty file a copy of the daemon's own, where this user may read that one.
pub(crate) async fn from_disk(
    transfer: &Transfer,
    to: File,
    disk: &impl Fn(&io::Error) -> Failure,
) -> Result<Copied, Failure> {
    let wanted = Wanted::of(transfer)?;
    let Some(from) = transfer.path.as_deref().and_then(open) else { return Ok(Copied::Nothing) };
    let copied = tokio::task::spawn_blocking(move || duplicate(from, &to, wanted)).await;
    copied.map_err(|err| disk(&io::Error::other(err)))?.map_err(|err| disk(&err))
}

/// Writes what the daemon gives as the content. An error where that is something else: then all of it is written by now.
pub(crate) async fn through_the_socket(
    client: &Client,
    transfer: &Transfer,
    to: File,
    disk: &impl Fn(&io::Error) -> Failure,
) -> Result<(), Failure> {
    let Some(content) = Wanted::of(transfer)?.content else {
        let message =
            format!("p2pd does not say which content {} has, so it cannot be read from it", transfer.name);
        return Err(Failure::new(Exit::Failed, "content-unknown", message));
    };
    let mut bytes = client.bytes(&format!("/v1/contents/{content}")).await?;
    let mut to = tokio::fs::File::from_std(to);
    // Two KiB that no future need carry.
    let mut hasher = Box::new(ContentHasher::new());
    while let Some(piece) = bytes.next().await? {
        to.write_all(&piece).await.map_err(|err| disk(&err))?;
        hasher.update(&piece);
    }
    to.flush().await.map_err(|err| disk(&err))?;
    match hasher.finish().0 == content {
        true => Ok(()),
        false => Err(changed(transfer)),
    }
}

/// The bytes are not those that were fetched.
pub(crate) fn changed(transfer: &Transfer) -> Failure {
    let message = format!("{} was changed after it was fetched: its bytes are other ones now", transfer.name);
    Failure::new(Exit::Failed, CHANGED, message).hint("fetch it again")
}

/// What the bytes must be, as far as the daemon says.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    content: Option<ContentHash>,
    size: Option<u64>,
}

impl Wanted {
    fn of(transfer: &Transfer) -> Result<Wanted, Failure> {
        let content = transfer.content.as_deref().map(str::parse::<ContentHash>).transpose();
        let content = content.map_err(|err| {
            let message = format!("p2pd says of {} what is no content: {err}", transfer.name);
            Failure::new(Exit::Failed, "not-understood", message)
        })?;
        Ok(Wanted { content, size: transfer.size })
    }
}

/// The daemon's file, where it is what its path says and this user may read it.
fn open(path: &str) -> Option<File> {
    // A directory on the way may be another user's, who could make it a link to where only this user may read; and what
    // is there may be a pipe. A kernel or a sandbox without this call is a reason to ask the daemon for the bytes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let file = File::from(opened.ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

fn duplicate(from: File, to: &File, wanted: Wanted) -> io::Result<Copied> {
    let is_size = |len: u64| wanted.size.is_none_or(|size| size == len);
    if !is_size(from.metadata()?.len()) {
        return Ok(Copied::Other);
    }
    // The hash is that of the copy: the file may be written to at any time, also between two reads.
    let (content, len) = if rustix::fs::ioctl_ficlone(to, &from).is_ok() {
        pour(to, io::sink())?
    } else {
        // Who can write to the file could make it grow for ever.
        pour(from.take(wanted.size.map_or(u64::MAX, |size| size.saturating_add(1))), to)?
    };
    match is_size(len) && wanted.content.is_none_or(|wanted| wanted == content) {
        true => Ok(Copied::Whole),
        false => Ok(Copied::Other),
    }
}

/// Gives the hash and the number of the bytes.
fn pour(mut from: impl Read, mut to: impl Write) -> io::Result<(ContentHash, u64)> {
    let mut hasher = ContentHasher::new();
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        hasher.update(&chunk[..len]);
        to.write_all(&chunk[..len])?;
    }
    let len = hasher.len();
    Ok((hasher.finish().0, len))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn no_link_is_followed_on_the_way_to_the_daemons_file() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("secret")).unwrap();
        std::fs::write(real.join("secret/file"), "x").unwrap();
        std::os::unix::fs::symlink("secret", real.join("way")).unwrap();
        std::os::unix::fs::symlink("secret/file", real.join("link")).unwrap();
        assert!(open(text(&real.join("secret/file"))).is_some());
        for not_it in ["way/file", "link", "secret", "no"] {
            assert!(open(text(&real.join(not_it))).is_none(), "{not_it}");
        }
    }

    #[test]
    fn a_copy_is_proven_by_its_own_hash() {
        let bytes = vec![7u8; CHUNK_LEN + 5];
        let from = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(from.path(), &bytes).unwrap();
        let copied = |content, size| {
            let to = tempfile::NamedTempFile::new().unwrap();
            let wanted = Wanted { content, size };
            let copied = duplicate(from.reopen().unwrap(), to.as_file(), wanted).unwrap();
            (copied, std::fs::read(to.path()).unwrap())
        };
        let (content, len) = (ContentHash::of(&bytes), bytes.len() as u64);
        assert_eq!(copied(Some(content), Some(len)), (Copied::Whole, bytes.clone()));
        assert_eq!(copied(Some(content), None), (Copied::Whole, bytes.clone()));
        assert_eq!(copied(None, Some(len)), (Copied::Whole, bytes));
        assert_eq!(copied(Some(ContentHash::EMPTY), Some(len)).0, Copied::Other);
        assert_eq!(copied(Some(content), Some(len - 1)), (Copied::Other, Vec::new()));
    }
}
