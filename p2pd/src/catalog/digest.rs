//! The digest by which a peer and its maestro know that they hold the same catalog (`directory.proto`, CatalogDelta).

use p2p_content::ContentHash;

/// XOR, over all files announced, of 16 bytes that stand for each. Adding a file and taking it out are one operation,
/// so it is kept up to date change by change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; 16]);

impl Digest {
    /// Adds the file, or takes it out if it is in.
    pub(super) fn toggle(&mut self, share: &str, name: &str, content: &ContentHash, size: u64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(share.as_bytes()).update(&[0]);
        hasher.update(name.as_bytes()).update(&[0]);
        hasher.update(content.as_bytes()).update(&size.to_le_bytes());
        for (mine, its) in self.0.iter_mut().zip(hasher.finalize().as_bytes()) {
            *mine ^= its;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_the_protocol_says_it_is() {
        let content = ContentHash::of(b"x");
        let mut bytes = b"docs\0a/b.txt\0".to_vec();
        bytes.extend_from_slice(content.as_bytes());
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        let mut digest = Digest::default();
        digest.toggle("docs", "a/b.txt", &content, 1);
        assert_eq!(digest.0, blake3::hash(&bytes).as_bytes()[..16]);
    }

    #[test]
    fn twice_is_nothing_and_order_does_not_count() {
        let content = ContentHash::of(b"x");
        let (mut one, mut other) = (Digest::default(), Digest::default());
        one.toggle("s", "a", &content, 1);
        one.toggle("s", "b", &content, 1);
        other.toggle("s", "b", &content, 1);
        other.toggle("s", "a", &content, 1);
        assert_eq!(one, other);
        one.toggle("s", "a", &content, 1);
        one.toggle("s", "b", &content, 1);
        assert_eq!(one, Digest::default());
    }
}
