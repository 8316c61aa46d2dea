//! A file of the user, read as it is sent.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream as _, StreamExt as _};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::exit::Exit;
use crate::failure::{Failure, text};

const CHUNK_LEN: usize = 256 * 1024;

/// The user's file cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ReadFailed {
    message: String,
}

impl ReadFailed {
    /// As the end of the command.
    pub(crate) fn failure(&self) -> Failure {
        Failure::new(Exit::Failed, "file-unreadable", self.message.clone()).hint("nothing was sent")
    }
}

/// A file of the user, opened.
pub(crate) struct Upload {
    source: Box<dyn AsyncRead + Send + Unpin>,
    shown: String,
    /// Its length; absent where only its end will tell.
    pub(crate) len: Option<u64>,
    /// Bytes that were read so far.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Upload {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Upload, Failure> {
        if path == Path::new("-") {
            return Upload::standard_input();
        }
        let shown = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (seen, file) = opened.map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => {
                Failure::new(Exit::NotFound, "no-such-file", format!("There is no file {shown}"))
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(Exit::Refused, "file-unreadable", format!("You may not read {shown}"))
            }
            _ => {
                Failure::new(Exit::Failed, "file-unreadable", format!("Cannot read {shown}: {}", text(&err)))
            }
        })?;
        if seen.is_dir() {
            return Err(Failure::new(Exit::Usage, "is-a-directory", format!("{shown} is a directory"))
                .hint("one file is sent at a time; to offer a directory, share it in p2pd's configuration"));
        }
        let len = seen.is_file().then_some(seen.len());
        Ok(Upload::of(Box::new(tokio::fs::File::from_std(file)), shown, len))
    }

    fn standard_input() -> Result<Upload, Failure> {
        let shown = "standard input".to_owned();
        let duplicate = io::stdin().as_fd().try_clone_to_owned().map_err(|err| {
            Failure::new(Exit::Failed, "file-unreadable", format!("Cannot read {shown}: {}", text(&err)))
        })?;
        let mut file = File::from(duplicate);
        let len = rest_of(&mut file);
        Ok(Upload::of(Box::new(tokio::fs::File::from_std(file)), shown, len))
    }

    fn of(source: Box<dyn AsyncRead + Send + Unpin>, shown: String, len: Option<u64>) -> Upload {
        Upload { source, shown, len, sent: Arc::default() }
    }

    /// The bytes, which must be as many as were promised: the daemon takes no half file for a whole one.
    pub(crate) fn into_stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        let Upload { source, shown, len, sent } = self;
        let mut chunks = ReaderStream::with_capacity(source, CHUNK_LEN);
        let failed =
            move |why: String| Some(Err(io::Error::other(ReadFailed { message: format!("{shown} {why}") })));
        let mut ended = false;
        futures::stream::poll_fn(move |cx| {
            if ended {
                return std::task::Poll::Ready(None);
            }
            std::pin::Pin::new(&mut chunks).poll_next(cx).map(|next| {
                let so_far = sent.load(Ordering::Relaxed);
                match next {
                    Some(Ok(mut chunk)) => {
                        // What is appended after the start is not part of the file that was sent.
                        let left = len.map_or(u64::MAX, |len| len - so_far);
                        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        ended = chunk.is_empty();
                        sent.store(so_far + chunk.len() as u64, Ordering::Relaxed);
                        (!ended).then_some(Ok(chunk))
                    }
                    Some(Err(err)) => failed(format!("cannot be read: {}", text(&err))),
                    None => match len.is_some_and(|len| so_far < len) {
                        true => failed("became shorter while it was sent".to_owned()),
                        false => None,
                    },
                }
            })
        })
        .boxed()
    }
}

/// How many bytes are left to read, where that can be known.
fn rest_of(file: &mut File) -> Option<u64> {
    let seen = file.metadata().ok()?;
    let at = file.stream_position().ok()?;
    seen.is_file().then(|| seen.len().saturating_sub(at))
}
