//! Peer IDs: public keys, and how they are written.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

/// A peer's identity, or a maestro's: an Ed25519 public key.
///
/// Written in lower-case base32 (RFC 4648) without padding, 52 characters; the short form is the first 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Characters of a written peer ID.
    pub const TEXT_LEN: usize = 52;

    /// The ID of the peer that holds this public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 characters: enough for a person to tell peers apart, not enough to trust one.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

/// A text that is not a peer ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a peer ID: expected {} characters of base32 (a-z, 2-7), as `p2pctl status` prints",
    PeerId::TEXT_LEN
)]
pub struct ParsePeerIdError;

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes =
            BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| ParsePeerIdError)?;
        Self::try_from(bytes.as_slice())
    }
}

impl TryFrom<&[u8]> for PeerId {
    type Error = ParsePeerIdError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| ParsePeerIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_lower_case_base32_and_read_back() {
        let id = PeerId::from_bytes([0xa5; 32]);
        let text = id.to_string();
        assert_eq!(text.len(), PeerId::TEXT_LEN);
        assert_eq!(text, text.to_ascii_lowercase());
        assert_eq!(text.parse::<PeerId>(), Ok(id));
        assert_eq!(text.to_ascii_uppercase().parse::<PeerId>(), Ok(id));
        assert_eq!(id.short(), text[..8]);
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "abc", "0189", &"a".repeat(51), &"a".repeat(53), &"é".repeat(26)] {
            assert_eq!(text.parse::<PeerId>(), Err(ParsePeerIdError), "{text:?}");
        }
    }
}
