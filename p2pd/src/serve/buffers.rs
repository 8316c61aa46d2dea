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

/// A buffer with room for one chunk, or for several short ones after each other. It comes back when it is dropped.
pub(super) struct Lent {
    buffer: Box<[u8]>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer with nothing in it.
    pub(super) fn lend(&self) -> Lent {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = kept.unwrap_or_else(|| vec![0; MAX_HEAD_LEN + PULL_CHUNK_LEN].into());
        Lent { buffer, len: 0, home: self.clone() }
    }
}

impl Lent {
    /// Bytes that are in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a head and `len` bytes of data fit in. Into an empty one a chunk does.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.buffer.len() - self.len >= MAX_HEAD_LEN + len
    }

    /// Appends `head`, at most [`MAX_HEAD_LEN`] bytes, and the `len` bytes that `fill` puts there; there must be
    /// [room](Self::has_room). Where `fill` fails, nothing is appended.
    ///
    /// # Errors
    ///
    /// What `fill` fails with.
    pub(super) fn append<E>(
        &mut self,
        head: &[u8],
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (before, data) = self.buffer[self.len..].split_at_mut(head.len());
        before.copy_from_slice(head);
        fill(&mut data[..len])?;
        self.len += head.len() + len;
        Ok(())
    }
}

impl From<Lent> for Bytes {
    fn from(lent: Lent) -> Self {
        Self::from_owner(lent)
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

    fn with(mut lent: Lent, head: &[u8], text: &[u8]) -> Lent {
        let fill = |bytes: &mut [u8]| {
            bytes.copy_from_slice(text);
            Ok::<_, ()>(())
        };
        lent.append(head, text.len(), fill).unwrap();
        lent
    }

    #[test]
    fn a_buffer_comes_back_and_shows_only_what_was_filled() {
        let buffers = Buffers::default();
        let first = Bytes::from(with(buffers.lend(), b"the ", b"first"));
        assert_eq!(&first[..], b"the first");
        let at = first.as_ptr();
        drop(first);
        let second = Bytes::from(with(buffers.lend(), b"", b"2nd"));
        assert_eq!((&second[..], second.as_ptr()), (&b"2nd"[..], at));
        drop(second);
        let mut third = with(buffers.lend(), b"a", b"b");
        assert_eq!(third.append(b"head", 1, |_| Err("disk")).unwrap_err(), "disk");
        assert_eq!(&Bytes::from(with(third, b"c", b"d"))[..], b"abcd", "what failed is not there");
        assert_eq!(buffers.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_chunk_fits_into_an_empty_one_and_nothing_beside_it() {
        let lent = Buffers::default().lend();
        assert!(lent.has_room(PULL_CHUNK_LEN) && !lent.has_room(PULL_CHUNK_LEN + 1));
        let lent = with(lent, &[7; MAX_HEAD_LEN], &vec![7; PULL_CHUNK_LEN - 100]);
        assert!(lent.has_room(100 - MAX_HEAD_LEN) && !lent.has_room(101 - MAX_HEAD_LEN));
    }
}
