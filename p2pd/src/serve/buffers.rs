//! The buffers that file data is read into, used again and again.
//!
//! A chunk is filled by a thread that reads and let go by the one that sends. The allocator gives such memory back only
//! to the thread that took it, and every reading thread that now idles would keep what it once filled.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use p2p_proto::PULL_CHUNK_LEN;
use p2p_proto::pull::MAX_HEAD_LEN;

/// Buffers that are kept while nobody needs them.
const KEPT: usize = 64;

/// Lends buffers of one chunk each. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

/// A buffer of one chunk, which comes back when it is dropped.
struct Lent {
    buffer: Box<[u8]>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// Puts `head` into a buffer, at most [`MAX_HEAD_LEN`] bytes, and fills the `len` bytes after it, at most a chunk.
    ///
    /// # Errors
    ///
    /// What `fill` fails with.
    pub(super) fn filled<E>(
        &self,
        head: &[u8],
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = kept.unwrap_or_else(|| vec![0; MAX_HEAD_LEN + PULL_CHUNK_LEN].into());
        let mut lent = Lent { buffer, len: head.len() + len, home: self.clone() };
        let (before, data) = lent.buffer.split_at_mut(head.len());
        before.copy_from_slice(head);
        fill(&mut data[..len])?;
        Ok(Bytes::from_owner(lent))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_shows_only_what_was_filled() {
        let buffers = Buffers::default();
        let first = buffers.filled(b"the ", 5, |bytes| {
            bytes.copy_from_slice(b"first");
            Ok::<_, ()>(())
        });
        let first = first.unwrap();
        assert_eq!(&first[..], b"the first");
        let at = first.as_ptr();
        drop(first);
        let second = buffers.filled(b"", 3, |bytes| {
            bytes.copy_from_slice(b"2nd");
            Ok::<_, ()>(())
        });
        let second = second.unwrap();
        assert_eq!((&second[..], second.as_ptr()), (&b"2nd"[..], at));
        assert_eq!(buffers.filled(b"", 1, |_| Err("disk")).unwrap_err(), "disk");
        assert_eq!(buffers.0.lock().unwrap().len(), 1);
    }
}
