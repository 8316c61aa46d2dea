//! The bytes of a file as the body of an answer: read piece by piece, and broken off where the file changes meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::catalog::Stamp;

/// Bytes that are read at a time.
const CHUNK_LEN: usize = 256 * 1024;

/// Chunks that are read ahead of a reader that is slow.
const CHUNKS_AHEAD: usize = 4;

/// An answer with the whole file, whose length is told at the beginning. One that does not stay what `expected` says
/// breaks the answer off before its last byte, so that no reader takes a torn file for a whole one.
pub(super) fn answer(file: File, expected: Stamp) -> Response {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&file, &expected, |chunk| sender.blocking_send(Ok(chunk)).is_ok()) {
            tracing::warn!(%error, "a file was not given out to its end: {error}");
            // A reader who is gone needs no error.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let length = [
        (header::CONTENT_LENGTH, expected.size.to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    (length, Body::from_stream(ReceiverStream::new(chunks))).into_response()
}

/// Hands the file out until `take` has enough.
fn read(file: &File, expected: &Stamp, mut take: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    let mut at = 0;
    check(file, expected)?;
    while at < expected.size {
        let left = usize::try_from(expected.size - at).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(CHUNK_LEN)];
        file.read_exact_at(&mut chunk, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => error,
        })?;
        // After the read: only then is it known that what was read is what was meant.
        check(file, expected)?;
        at += chunk.len() as u64;
        if !take(Bytes::from(chunk)) {
            return Ok(());
        }
    }
    Ok(())
}

fn check(file: &File, expected: &Stamp) -> io::Result<()> {
    let found = stamp(file)?;
    if found.same_bytes(expected) { Ok(()) } else { Err(changed()) }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let found = file.metadata()?;
    let ns = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
    Ok(Stamp {
        size: found.len(),
        modified_ns: ns(found.mtime(), found.mtime_nsec()),
        changed_ns: ns(found.ctime(), found.ctime_nsec()),
        inode: found.ino(),
    })
}

fn changed() -> io::Error {
    io::Error::other("the file was changed while it was read")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;
    use tempfile::NamedTempFile;

    use super::*;

    fn file_of(len: usize) -> (NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[tokio::test]
    async fn a_file_comes_whole_and_with_its_length() {
        for len in [0, 1, CHUNK_LEN, 3 * CHUNK_LEN + 5] {
            let (file, bytes) = file_of(len);
            let expected = stamp(file.as_file()).unwrap();
            let response = answer(file.reopen().unwrap(), expected);
            assert_eq!(response.headers()[header::CONTENT_LENGTH], len.to_string());
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), bytes);
        }
    }

    #[tokio::test]
    async fn a_reader_who_is_slow_is_waited_for_and_not_read_ahead_of_without_limit() {
        let (file, bytes) = file_of(16 * CHUNK_LEN);
        let expected = stamp(file.as_file()).unwrap();
        let mut body = answer(file.reopen().unwrap(), expected).into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, bytes[..CHUNK_LEN]);
        // What was read ahead was read before the change; what comes after it is refused.
        std::fs::write(file.path(), b"other").unwrap();
        assert!(body.collect().await.is_err());
    }

    #[test]
    fn a_file_that_changes_is_never_given_out_to_its_end() {
        for change in ["same length", "shorter", "longer"] {
            let (mut file, bytes) = file_of(2 * CHUNK_LEN);
            let expected = stamp(file.as_file()).unwrap();
            let reader = file.reopen().unwrap();
            let mut given = 0;
            let ended = read(&reader, &expected, |chunk| {
                given += chunk.len();
                match change {
                    "same length" => {
                        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
                        file.as_file().set_modified(later).unwrap();
                    }
                    "shorter" => file.as_file().set_len(10).unwrap(),
                    _ => file.write_all(b"more").unwrap(),
                }
                true
            });
            assert!(ended.is_err(), "{change}");
            assert!(given < bytes.len(), "{change}: {given} bytes");
        }
    }

    #[test]
    fn a_file_that_is_another_one_already_gives_nothing_out() {
        let (file, _) = file_of(10);
        let expected = Stamp { inode: 1, ..stamp(file.as_file()).unwrap() };
        assert!(read(file.as_file(), &expected, |_| panic!("gave bytes out")).is_err());
    }
}
