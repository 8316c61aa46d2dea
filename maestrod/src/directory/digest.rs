//! The digest by which a peer and the maestro find out whether they hold the same catalog. Pure.

use std::ops::BitXorAssign;

use super::FileRecord;

/// XOR, over the files of a catalog, of the first 16 bytes of BLAKE3(share 00 name 00 content size-as-8-bytes-LE).
///
/// XOR is its own inverse, so a file is taken out as it was put in. It proves nothing against a peer that cheats: a
/// peer can only deceive the maestro about its own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// What one file adds to the digest.
    pub fn of(file: &FileRecord) -> Digest {
        let content = file.content.as_ref().map_or(&[][..], |content| content.as_bytes());
        Digest::of_parts(&file.share, &file.name, content, file.size)
    }

    /// The same, of a file that is not at hand as a whole.
    pub fn of_parts(share: &str, name: &str, content: &[u8], size: u64) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(share.as_bytes()).update(&[0]).update(name.as_bytes()).update(&[0]);
        hasher.update(content).update(&size.to_le_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Digest(first)
    }
}

impl BitXorAssign for Digest {
    fn bitxor_assign(&mut self, other: Digest) {
        for (byte, other) in self.0.iter_mut().zip(other.0) {
            *byte ^= other;
        }
    }
}

#[cfg(test)]
mod tests {
    use p2p_content::ContentHash;

    use super::*;

    #[test]
    fn follows_the_layout_of_the_protocol() {
        let content = ContentHash::of(b"abc");
        let file = FileRecord {
            share: "docs".to_owned(),
            name: "a/b.txt".to_owned(),
            content: Some(content),
            size: 0x0102,
            modified_ms: 99,
        };
        let mut said = b"docs\0a/b.txt\0".to_vec();
        said.extend(content.as_bytes());
        said.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Digest::of(&file).0, blake3::hash(&said).as_bytes()[..16]);
    }

    #[test]
    fn what_was_put_in_can_be_taken_out() {
        let mut digest = Digest::default();
        let one = Digest::of_parts("s", "a", &[1; 32], 1);
        let other = Digest::of_parts("s", "b", &[1; 32], 1);
        digest ^= one;
        digest ^= other;
        digest ^= one;
        assert_eq!(digest, other);
    }
}
