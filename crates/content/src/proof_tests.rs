//! The hasher, the manifest and the proofs against `blake3::hash`, which is the only judge of the tree.
//!
//! Most run under small rules (pieces of 1 KiB, at most 4 of them) that make the pieces double after 4 KiB.

use proptest::prelude::*;

use crate::piece::Rules;
use crate::{ContentHash, ContentHasher, FalsePiece, Manifest, ManifestError, NO_VALUE, PieceHasher, Pieces};

const SMALL: Rules = Rules { min_piece_len: 1024, max_pieces: 4 };

/// Bytes without a short period, so that a piece is never equal to its neighbour.
fn bytes_of(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn hash_in_steps(rules: Rules, bytes: &[u8], steps: &[usize]) -> (ContentHash, Manifest) {
    let mut hasher = ContentHasher::under(rules);
    let mut rest = bytes;
    for step in steps {
        let (now, later) = rest.split_at(rest.len().min(*step));
        hasher.update(now);
        rest = later;
    }
    assert_eq!(hasher.len(), (bytes.len() - rest.len()) as u64);
    hasher.update(rest);
    hasher.finish()
}

fn piece(bytes: &[u8], pieces: Pieces, index: u32) -> &[u8] {
    let range = pieces.range(index);
    &bytes[range.start as usize..range.end as usize]
}

/// Everything that must be true of what the hasher made of these bytes.
fn check(rules: Rules, bytes: &[u8], steps: &[usize]) -> Result<(), TestCaseError> {
    let (content, manifest) = hash_in_steps(rules, bytes, steps);
    let pieces = manifest.pieces();
    prop_assert_eq!(content, ContentHash::of(bytes));
    prop_assert_eq!(manifest.content(), content);
    prop_assert_eq!(pieces, Pieces::under(rules, bytes.len() as u64));
    let values: Vec<_> = (0..pieces.count()).map(|index| manifest.value(index).unwrap()).collect();
    prop_assert_eq!(manifest.value(pieces.count()), None);
    prop_assert_eq!(manifest.to_bytes(), values.concat());
    let checked = Manifest::check(content, pieces, values);
    prop_assert_eq!(checked.as_ref(), Ok(&manifest));
    for index in 0..pieces.count() {
        let (left, right) = piece(bytes, pieces, index).split_at(piece(bytes, pieces, index).len() / 3);
        prop_assert_eq!(manifest.prove(index, &[left, right]), Ok(()));
    }
    Ok(())
}

#[test]
fn lengths_at_the_edges_of_the_network_rules() {
    const MIB: usize = 1 << 20;
    let whole = bytes_of(5 * MIB, 1);
    for len in [0, 1, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 5, 5 * MIB] {
        for steps in [&[][..], &[65536; 80], &[1, MIB, MIB], &[MIB - 1, 1, 1]] {
            check(Rules::NETWORK, &whole[..len], steps).unwrap();
        }
    }
}

#[test]
fn every_chunk_edge_under_small_rules() {
    let whole = bytes_of(40 * 1024, 2);
    for chunks in 0..40usize {
        for len in (chunks * 1024).saturating_sub(1)..=chunks * 1024 + 1 {
            check(SMALL, &whole[..len], &[]).unwrap();
        }
    }
}

#[test]
fn pieces_double_as_often_as_the_length_calls_for() {
    let (_, manifest) = hash_in_steps(SMALL, &bytes_of(1 << 20, 3), &[]);
    assert_eq!((manifest.pieces().piece_len(), manifest.pieces().count()), (1 << 18, 4));
}

#[test]
fn a_content_of_one_piece_needs_no_manifest() {
    for len in [0, 1, 1 << 20] {
        let bytes = bytes_of(len, 4);
        let content = ContentHash::of(&bytes);
        let manifest = Manifest::single(content, len as u64).unwrap();
        assert_eq!(manifest, hash_in_steps(Rules::NETWORK, &bytes, &[]).1);
        assert_eq!(manifest.prove(0, &[&bytes]), Ok(()));
    }
    assert_eq!(Manifest::single(ContentHash::EMPTY, (1 << 20) + 1), None);
    assert_eq!(Manifest::single(ContentHash::from_bytes(NO_VALUE), 1), None);
    assert_eq!(
        Manifest::single(ContentHash::of(b"a"), 0).unwrap().prove(0, &[b""]),
        Err(FalsePiece::WrongBytes { index: 0 })
    );
}

#[test]
fn a_manifest_of_another_size_is_refused() {
    let content = ContentHash::of(b"a");
    let from_bytes = |len, size| Manifest::from_bytes(content, len, &vec![1; size]);
    for (len, size, expected) in [(1, 0, 32), (1, 31, 32), (1, 64, 32), (1 << 21, 32, 64), (1 << 21, 65, 64)]
    {
        assert_eq!(from_bytes(len, size), Err(ManifestError::WrongSize { expected, found: size }));
    }
    let wrong = Manifest::from_parts(content, 1 << 21, vec![[1; 32]; 3]);
    assert_eq!(wrong, Err(ManifestError::WrongCount { expected: 2, found: 3 }));
}

/// Who invents the content hash can make any values merge to it: the value that stands for "not the piece" must still
/// be refused.
#[test]
fn no_manifest_holds_the_value_of_nothing() {
    let values = vec![[7; 32], NO_VALUE];
    let invented = crate::hasher::root_of(&values);
    assert_eq!(Manifest::from_parts(invented, 1 << 21, values), Err(ManifestError::NoValue { index: 1 }));
}

/// The documentation says that a manifest doesn't prove the length and that the pieces do.
#[test]
fn a_false_length_is_found_by_the_pieces() {
    let bytes = bytes_of(3 * 1024 + 7, 5);
    let (content, manifest) = hash_in_steps(SMALL, &bytes, &[]);
    let values: Vec<_> = (0..4).map(|index| manifest.value(index).unwrap()).collect();
    let longer = Manifest::check(content, Pieces::under(SMALL, 3 * 1024 + 8), values).unwrap();
    let mut last = piece(&bytes, manifest.pieces(), 3).to_vec();
    assert_eq!(longer.prove(3, &[&last]), Err(FalsePiece::WrongLength { index: 3, expected: 8, found: 7 }));
    last.push(0);
    assert_eq!(longer.prove(3, &[&last]), Err(FalsePiece::WrongBytes { index: 3 }));
}

#[test]
fn a_piece_hasher_finishes_with_a_value_only_for_the_right_length() {
    for len in [0, 1, 1024, 1025, 2048, 9000] {
        let bytes = bytes_of(len, 6);
        let (_, manifest) = hash_in_steps(SMALL, &bytes, &[]);
        let pieces = manifest.pieces();
        for index in 0..pieces.count() + 2 {
            let exists = index < pieces.count();
            let right = if exists { piece(&bytes, pieces, index) } else { &[] };
            for (extra, cut) in [(0, 0), (0, 1), (0, right.len()), (1, 0), (70_000, 0)] {
                if cut > right.len() {
                    continue;
                }
                let mut hasher = PieceHasher::new(pieces, index);
                hasher.update(&right[..right.len() - cut]);
                assert_eq!(hasher.missing(), cut as u64);
                hasher.update(&vec![0; extra]);
                let expected =
                    if exists && extra == 0 && cut == 0 { manifest.value(index) } else { Some(NO_VALUE) };
                assert_eq!(Some(hasher.finish()), expected, "length {len}, piece {index}, +{extra} -{cut}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_length_in_any_steps(
        len in 0usize..40_000,
        seed: u64,
        steps in prop::collection::vec(prop_oneof![0usize..3, 0usize..3000, Just(1024)], 0..40),
    ) {
        check(SMALL, &bytes_of(len, seed), &steps)?;
    }

    #[test]
    fn a_flipped_bit_in_a_piece_is_refused(len in 1usize..20_000, seed: u64, at: prop::sample::Index, bit in 0u32..8) {
        let mut bytes = bytes_of(len, seed);
        let (_, manifest) = hash_in_steps(SMALL, &bytes, &[]);
        let pieces = manifest.pieces();
        let at = at.index(len);
        let flipped = pieces.index_of(at as u64).unwrap();
        bytes[at] ^= 1u8 << bit;
        for index in 0..pieces.count() {
            let expected = if index == flipped { Err(FalsePiece::WrongBytes { index }) } else { Ok(()) };
            prop_assert_eq!(manifest.prove(index, &[piece(&bytes, pieces, index)]), expected);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_value_is_refused(len in 0usize..20_000, seed: u64, at: prop::sample::Index, bit in 0u32..8) {
        let (content, manifest) = hash_in_steps(SMALL, &bytes_of(len, seed), &[]);
        let mut bytes = manifest.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let values = bytes.as_chunks::<32>().0.to_vec();
        let refused = Manifest::check(content, manifest.pieces(), values);
        let is_right_error = matches!(refused, Err(ManifestError::DoesNotProve { expected, .. }) if expected == content);
        prop_assert!(is_right_error, "{:?}", refused);
    }

    #[test]
    fn pieces_in_each_others_places_are_refused(len in 2049usize..20_000, seed: u64) {
        let bytes = bytes_of(len, seed);
        let (_, manifest) = hash_in_steps(SMALL, &bytes, &[]);
        let pieces = manifest.pieces();
        // From 2049 bytes on there are at least three pieces, so the first two are of one length.
        prop_assert_eq!(
            manifest.prove(0, &[piece(&bytes, pieces, 1)]),
            Err(FalsePiece::WrongBytes { index: 0 })
        );
        // Equal bytes in two places still have two values: the place is part of the proof.
        let same = vec![9; len];
        let (_, manifest) = hash_in_steps(SMALL, &same, &[]);
        prop_assert_ne!(manifest.value(0), manifest.value(1));
    }

    #[test]
    fn a_manifest_survives_the_wire(len in (1usize << 20) - 2..(3 << 20) + 5, seed: u64) {
        // Few bytes differ from zero: only the network rules are tried here, and filling megabytes costs more than hashing.
        let mut bytes = vec![0; len];
        bytes[len - 8..].copy_from_slice(&seed.to_le_bytes());
        let (content, manifest) = hash_in_steps(Rules::NETWORK, &bytes, &[]);
        let sent = manifest.to_bytes();
        prop_assert_eq!(Manifest::from_bytes(content, len as u64, &sent), Ok(manifest));
        let other = ContentHash::of(b"another");
        let refused = Manifest::from_bytes(other, len as u64, &sent);
        prop_assert_eq!(refused, Err(ManifestError::DoesNotProve { expected: other, found: content }));
    }
}
