//! What a content is made of and how each part of it is proven.
//!
//! **For:** a file's bytes are named by their BLAKE3 hash, cut into pieces, and taken from strangers. This crate says
//! where the pieces lie, proves each one the moment it arrives, remembers which are held, and refuses the names that
//! must never reach a disk.
//!
//! **Owns:** the piece geometry ([`Pieces`]), the manifest and its proofs ([`Manifest`]), the bitmap's layout
//! ([`Bitmap`]), what proves a length ([`EndHasher`]), the rules for names ([`FileName`]) and the buckets of a catalog ([`bucket_of`]). These are agreements between programs: a change here is a
//! change of protocol.
//!
//! **May be called by** everyone. It calls nobody: no async, no I/O, no clock, no network, no randomness.
//!
//! # Where the proofs come from
//!
//! BLAKE3 hashes a tree (the BLAKE3 paper, section 2.1, and the documentation of [`blake3::hazmat`]). A piece is an
//! aligned power-of-two range, hence a whole subtree, and the chaining values of the pieces merge to the very hash that
//! `b3sum` prints. So a list of chaining values needs no trust in who gave it.
//!
//! # Example
//!
//! ```
//! use p2p_content::{Bitmap, ContentHash, ContentHasher, Manifest};
//!
//! // Who has the file makes its hash and its manifest in one pass.
//! let bytes = vec![7u8; (2 << 20) + 5];
//! let mut hasher = ContentHasher::new();
//! hasher.update(&bytes);
//! let (content, manifest) = hasher.finish();
//! assert_eq!(content, ContentHash::of(&bytes));
//!
//! // Who wants it gets the manifest from anybody, and then the pieces from anybody.
//! let sent = manifest.to_bytes();
//! let manifest = Manifest::from_bytes(content, bytes.len() as u64, &sent)?;
//! let mut held = Bitmap::new(manifest.pieces().count());
//! let range = manifest.pieces().range(2);
//! manifest.prove(2, &[&bytes[range.start as usize..range.end as usize]])?;
//! held.set(2);
//! assert_eq!(held.iter_missing().collect::<Vec<_>>(), [0, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bitmap;
mod bucket;
mod ending;
mod hash;
mod hasher;
mod manifest;
mod name;
mod piece;
#[cfg(test)]
mod proof_tests;

pub use bitmap::{Bitmap, BitmapError};
pub use bucket::{MAX_BUCKET_BITS, bucket_of};
pub use ending::EndHasher;
pub use hash::{ContentHash, ParseHashError};
pub use hasher::{ContentHasher, NO_VALUE, PieceHasher};
pub use manifest::{FalsePiece, Manifest, ManifestError};
pub use name::{FileName, MAX_COMPONENT_BYTES, MAX_NAME_BYTES, NameError, PARTIAL_DIR};
pub use piece::{MAX_PIECES, MIN_PIECE_LEN, Pieces, piece_len};
