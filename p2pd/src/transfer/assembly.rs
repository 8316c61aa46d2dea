//! What a source has sent of one request, put together from its answers as they come.

use bytes::Bytes;

use super::gone::Gone;

/// Bytes that an answer has at the least, the last one of a request apart: crumbs cost more memory than they bring.
const LEAST_CHUNK: u64 = 4096;

/// The answers to one request.
pub(super) struct Assembly {
    wanted: u64,
    len: u64,
    chunks: Vec<Bytes>,
    /// The source was told that it is no longer wanted.
    pub(super) is_left: bool,
}

impl Assembly {
    /// Of a request for so many bytes.
    pub(super) fn of(wanted: u64) -> Self {
        Self { wanted, len: 0, chunks: Vec::new(), is_left: false }
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether all has come.
    pub(super) fn is_whole(&self) -> bool {
        self.len == self.wanted
    }

    /// What has come, in its order.
    pub(super) fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    /// One more answer, in the pieces in which the network delivered it. How many bytes it has.
    ///
    /// # Errors
    /// Where it breaks the protocol: who sends such a thing is not asked again.
    pub(super) fn add(&mut self, data: Vec<Bytes>) -> Result<u64, Gone> {
        let left = self.wanted - self.len;
        let len = data.iter().map(Bytes::len).sum::<usize>() as u64;
        if len < left.min(LEAST_CHUNK) {
            return Err(Gone::Dropped("it sends crumbs".to_owned()));
        }
        if len > left {
            return Err(Gone::Dropped("it sent more than was asked".to_owned()));
        }
        self.len += len;
        // Frames of some bytes each would cost more memory than they bring.
        match data.len() as u64 > 1 + len / LEAST_CHUNK {
            true => self.chunks.push(data.concat().into()),
            false => self.chunks.extend(data),
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(lens: &[usize]) -> Vec<Bytes> {
        lens.iter().map(|len| vec![1; *len].into()).collect()
    }

    #[test]
    fn answers_come_to_a_whole() {
        let mut assembly = Assembly::of(10_000);
        assert_eq!(assembly.add(bytes(&[5000, 100])).ok(), Some(5100));
        assert!(!assembly.is_whole());
        assert_eq!(assembly.add(bytes(&[4900])).ok(), Some(4900));
        assert!(assembly.is_whole());
        assert_eq!(assembly.into_chunks(), bytes(&[5000, 100, 4900]));
    }

    #[test]
    fn crumbs_and_too_much_are_against_the_protocol() {
        for (wanted, lens) in [(10_000, &[4095][..]), (10, &[9]), (10, &[11]), (10, &[])] {
            assert!(matches!(Assembly::of(wanted).add(bytes(lens)), Err(Gone::Dropped(_))), "{lens:?}");
        }
        assert_eq!(Assembly::of(0).add(Vec::new()).ok(), Some(0));
    }

    #[test]
    fn frames_of_some_bytes_each_are_joined() {
        let mut assembly = Assembly::of(8192);
        assert!(assembly.add(bytes(&[2; 4096])).is_ok());
        assert_eq!(assembly.into_chunks(), bytes(&[8192]));
    }
}
