//! The chaining values of a content's pieces, which prove themselves against its hash and then prove the pieces.

use crate::hasher::root_of;
use crate::{ContentHash, NO_VALUE, PieceHasher, Pieces};

/// How to prove each piece of one content: 32 bytes per piece.
///
/// A value of this type has proven itself: its chaining values merge to the content's hash, by the tree rules of the
/// BLAKE3 paper, section 2.1. So it may come from anybody. The one value of a content of a single piece is the content's
/// hash.
///
/// What it doesn't prove is the *length*: that is proven by an ending ([`prove_len`](Manifest::prove_len)), or when the
/// last piece is. Someone who lies about the length can make a manifest that proves itself, but no ending and no last
/// piece that prove under it, so a lie never puts a false byte in a file. As long as the length isn't proven, bytes that
/// don't prove say nothing of who gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    content: ContentHash,
    pieces: Pieces,
    values: Vec<[u8; 32]>,
}

impl Manifest {
    /// The manifest of `content`, `len` bytes long, with one chaining value per piece in the order of the pieces.
    ///
    /// # Errors
    ///
    /// [`ManifestError::WrongCount`] if there isn't one value per piece, [`ManifestError::NoValue`] if one is
    /// [`NO_VALUE`], [`ManifestError::DoesNotProve`] if they merge to another hash.
    pub fn from_parts(
        content: ContentHash,
        len: u64,
        values: Vec<[u8; 32]>,
    ) -> Result<Manifest, ManifestError> {
        Manifest::check(content, Pieces::of(len), values)
    }

    /// Reads what [`to_bytes`](Manifest::to_bytes) wrote. It allocates no more than `bytes` is long.
    ///
    /// # Errors
    ///
    /// [`ManifestError::WrongSize`] if `bytes` isn't 32 per piece long, and those of
    /// [`from_parts`](Manifest::from_parts).
    pub fn from_bytes(content: ContentHash, len: u64, bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let pieces = Pieces::of(len);
        let expected = u64::from(pieces.count()) * 32;
        let (values, rest) = bytes.as_chunks::<32>();
        if bytes.len() as u64 != expected || !rest.is_empty() {
            return Err(ManifestError::WrongSize { expected, found: bytes.len() });
        }
        Manifest::check(content, pieces, values.to_vec())
    }

    /// The manifest of a content of one piece, which nobody needs to give because its hash says all. `None` for a
    /// longer content, and for the one hash that no content has ([`NO_VALUE`]).
    pub fn single(content: ContentHash, len: u64) -> Option<Manifest> {
        Manifest::from_parts(content, len, vec![*content.as_bytes()]).ok()
    }

    pub(crate) fn check(
        content: ContentHash,
        pieces: Pieces,
        values: Vec<[u8; 32]>,
    ) -> Result<Manifest, ManifestError> {
        if values.len() as u64 != u64::from(pieces.count()) {
            return Err(ManifestError::WrongCount { expected: pieces.count(), found: values.len() });
        }
        // Merging alone wouldn't refuse it: who makes up a content hash can make one up from any values.
        if let Some(index) = values.iter().position(|value| *value == NO_VALUE) {
            return Err(ManifestError::NoValue { index });
        }
        let found = root_of(&values);
        if found != content {
            return Err(ManifestError::DoesNotProve { expected: content, found });
        }
        Ok(Manifest { content, pieces, values })
    }

    /// For the hasher that has just merged these values to this content.
    pub(crate) fn proven(content: ContentHash, pieces: Pieces, values: Vec<[u8; 32]>) -> Manifest {
        Manifest { content, pieces, values }
    }

    /// The content that this is the manifest of.
    pub fn content(&self) -> ContentHash {
        self.content
    }

    /// Where the pieces lie.
    pub fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// The chaining value of piece `index`; `None` if there is no such piece. A [`PieceHasher`] that took the piece's
    /// bytes finishes with it.
    pub fn value(&self, index: u32) -> Option<[u8; 32]> {
        self.values.get(usize::try_from(index).ok()?).copied()
    }

    /// The chaining values in the order of the pieces, 32 bytes each and nothing else: at most 2 MiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.concat()
    }

    /// Proves that `chunks`, one after another, are the bytes of piece `index`.
    ///
    /// # Errors
    ///
    /// [`FalsePiece::NoSuchPiece`], [`FalsePiece::WrongLength`] (found before anything is hashed) or
    /// [`FalsePiece::WrongBytes`]. Each means that who gave them as that piece was wrong.
    pub fn prove(&self, index: u32, chunks: &[impl AsRef<[u8]>]) -> Result<(), FalsePiece> {
        let Some(value) = self.value(index) else {
            return Err(FalsePiece::NoSuchPiece { index, count: self.pieces.count() });
        };
        let range = self.pieces.range(index);
        let expected = range.end - range.start;
        let found = chunks.iter().map(|chunk| chunk.as_ref().len() as u64).sum();
        if found != expected {
            return Err(FalsePiece::WrongLength { index, expected, found });
        }
        let mut hasher = PieceHasher::new(self.pieces, index);
        for chunk in chunks {
            hasher.update(chunk.as_ref());
        }
        if hasher.finish() != value {
            return Err(FalsePiece::WrongBytes { index });
        }
        Ok(())
    }
}

/// Why values aren't the manifest of a content. Who gave them, or the length, was wrong: ask another source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// There isn't one value per piece.
    #[error("the content has {expected} pieces and the manifest has {found} values")]
    WrongCount {
        /// How many pieces a content of this length has.
        expected: u32,
        /// How many values were given.
        found: usize,
    },
    /// The bytes aren't 32 per piece.
    #[error("the manifest of this content is {expected} bytes long and this is {found}")]
    WrongSize {
        /// The bytes that the manifest of a content of this length has.
        expected: u64,
        /// The bytes that were given.
        found: usize,
    },
    /// A value is [`NO_VALUE`], which no piece has.
    #[error("the manifest's value for piece {index} is all zeros, which no piece has")]
    NoValue {
        /// The first such piece.
        index: usize,
    },
    /// The values merge to another hash.
    #[error("the manifest proves {found} and not {expected}")]
    DoesNotProve {
        /// The content that was asked for.
        expected: ContentHash,
        /// The content that the values merge to.
        found: ContentHash,
    },
    /// What should prove the length doesn't.
    #[error("that the content is {len} bytes long is not proven")]
    LengthNotProven {
        /// The length, in bytes, that the manifest is for.
        len: u64,
    },
}

/// Why bytes aren't the piece that they were given as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FalsePiece {
    /// The content has no piece of that number.
    #[error("there is no piece {index}: the content has {count}")]
    NoSuchPiece {
        /// The number that was given.
        index: u32,
        /// How many pieces there are, numbered from 0.
        count: u32,
    },
    /// There are too few or too many bytes.
    #[error("piece {index} is {expected} bytes long and {found} were given")]
    WrongLength {
        /// The piece.
        index: u32,
        /// Its length, in bytes.
        expected: u64,
        /// How many bytes were given.
        found: u64,
    },
    /// The bytes have another hash.
    #[error("the bytes given as piece {index} are not its bytes")]
    WrongBytes {
        /// The piece.
        index: u32,
    },
}
