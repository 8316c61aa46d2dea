//! The name of a content: its BLAKE3 hash.

use std::fmt;
use std::str::FromStr;

/// The BLAKE3 hash of a content: its identity everywhere in the network.
///
/// It's the default-mode, 32-byte hash, so [`Display`](fmt::Display) gives what `b3sum` prints: 64 lower-case
/// hexadecimal digits. [`FromStr`] takes the same in any case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of the content that has no bytes.
    pub const EMPTY: ContentHash = ContentHash([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b,
        0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
    ]);

    /// The hash of bytes that are all in memory. For more than that, use [`ContentHasher`](crate::ContentHasher).
    pub fn of(bytes: &[u8]) -> ContentHash {
        ContentHash(*blake3::hash(bytes).as_bytes())
    }

    /// The hash that these 32 bytes are. Nothing is computed or checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> ContentHash {
        ContentHash(bytes)
    }

    /// The 32 bytes, in the order in which they are printed.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits: for logs and tables, where a person tells contents apart. Never for a decision,
    /// since 48 bits can be made to collide.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Through blake3's own printer, so that "what b3sum prints" is true by construction; `pad` keeps table widths.
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<ContentHash, ParseHashError> {
        // The digits come first: "not a hexadecimal digit" tells more about a pasted file name than its length does.
        if let Some(digit) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(ParseHashError::Digit { digit });
        }
        blake3::Hash::from_hex(text)
            .map(|hash| ContentHash(*hash.as_bytes()))
            .map_err(|_| ParseHashError::Digits { found: text.len() })
    }
}

impl TryFrom<&[u8]> for ContentHash {
    type Error = ParseHashError;

    fn try_from(bytes: &[u8]) -> Result<ContentHash, ParseHashError> {
        bytes.try_into().map(ContentHash).map_err(|_| ParseHashError::Bytes { found: bytes.len() })
    }
}

impl From<[u8; 32]> for ContentHash {
    fn from(bytes: [u8; 32]) -> ContentHash {
        ContentHash(bytes)
    }
}

/// Why a text or a byte string isn't a [`ContentHash`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// The text has another number of hexadecimal digits than 64.
    #[error(
        "a content hash has 64 hexadecimal digits and this has {found}: give the whole hash, as `b3sum` prints it"
    )]
    Digits {
        /// How many digits there are.
        found: usize,
    },
    /// The text has a character that isn't a hexadecimal digit.
    #[error(
        "{digit:?} is not a hexadecimal digit: a content hash has 64 of them (0-9, a-f) and nothing else, as `b3sum` prints it"
    )]
    Digit {
        /// The first such character.
        digit: char,
    },
    /// The byte string isn't 32 bytes long.
    #[error("a content hash is 32 bytes long and this is {found}")]
    Bytes {
        /// How many bytes there are.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_b3sum_prints() {
        // `b3sum` of the three bytes "abc": a published test value, not one of our making.
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        let hash = ContentHash::of(b"abc");
        assert_eq!(hash.to_string(), abc);
        assert_eq!(format!("{hash:?}"), abc);
        assert_eq!(hash.short(), "6437b3ac3846");
        assert_eq!(format!("{hash:>66}"), format!("  {abc}"));
    }

    #[test]
    fn empty_is_the_hash_of_nothing() {
        assert_eq!(ContentHash::EMPTY, ContentHash::of(b""));
    }

    #[test]
    fn parses_any_case_and_nothing_else() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        let parse = |text: &str| text.parse::<ContentHash>();
        assert_eq!(parse(""), Err(ParseHashError::Digits { found: 0 }));
        assert_eq!(parse(&"a".repeat(63)), Err(ParseHashError::Digits { found: 63 }));
        assert_eq!(parse(&"a".repeat(65)), Err(ParseHashError::Digits { found: 65 }));
        assert_eq!(parse(&format!("{} ", "a".repeat(63))), Err(ParseHashError::Digit { digit: ' ' }));
        assert_eq!(parse(&"é".repeat(32)), Err(ParseHashError::Digit { digit: 'é' }));
    }

    #[test]
    fn takes_exactly_32_bytes() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(ContentHash::try_from(&hash.as_bytes()[..]), Ok(hash));
        assert_eq!(ContentHash::try_from(&[0u8; 31][..]), Err(ParseHashError::Bytes { found: 31 }));
        assert_eq!(ContentHash::try_from(&[0u8; 33][..]), Err(ParseHashError::Bytes { found: 33 }));
    }
}
