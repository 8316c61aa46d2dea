//! Where what is held of a peer differs from what the peer has, and what makes it the same.
//!
//! Both sides sort the files of the catalog into buckets by their place. Only the files of buckets with different digests
//! are told. What the comparison needs in memory does not grow with the catalog.

use std::collections::BTreeMap;

use p2p_content::{MAX_BUCKET_BITS, bucket_of};
use p2p_identity::PeerId;
use p2p_proto::v1::BucketDigests;

use super::session::Violation;
use crate::directory::{Change, Digest, Directory, DirectoryError, FileRecord};

/// Files that are asked for at once, about: what the buckets have on the side that has more.
pub(super) const FILES_ASKED: u64 = 1000;
/// Files that one answer may have.
pub(super) const FILES_TOLD: usize = 2000;
/// Files in buckets that differ, at the most. Each thousand costs both sides a walk through the catalog, so that more of
/// them had better be sent by the order of their changes.
const MAX_FILES: u64 = 8000;
/// Files of one page of what is held.
const PAGE: usize = 2000;
/// Fewest bits of buckets. Few files are soon told, so it is not worth less.
const MIN_BITS: u32 = 6;

/// How many bits number the buckets of a catalog with so many files: some 16 files in each.
pub(super) fn bits_for(files: u64) -> u32 {
    (files / 16).checked_ilog2().unwrap_or(0).clamp(MIN_BITS, MAX_BUCKET_BITS)
}

/// A bucket on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bucket {
    digest: Digest,
    files: u32,
}

/// The peer's buckets, as it tells them.
pub(super) fn told(said: &BucketDigests) -> Result<Vec<Bucket>, Violation> {
    let bits = said.bits;
    let (digests, odd) = said.digests.as_chunks::<16>();
    if bits > MAX_BUCKET_BITS
        || digests.len() != 1 << bits
        || !odd.is_empty()
        || said.files.len() != 1 << bits
    {
        return Err(Violation::Buckets { bits });
    }
    let buckets = digests.iter().zip(&said.files);
    Ok(buckets.map(|(digest, files)| Bucket { digest: Digest(*digest), files: *files }).collect())
}

/// The buckets of what is held of the peer.
pub(super) async fn held(
    directory: &dyn Directory,
    peer: PeerId,
    bits: u32,
) -> Result<Vec<Bucket>, DirectoryError> {
    let mut buckets = vec![Bucket::default(); 1 << bits.min(MAX_BUCKET_BITS)];
    each_file(directory, peer, |file| {
        let bucket = &mut buckets[bucket_of(&file.share, &file.name, bits) as usize];
        bucket.digest ^= Digest::of(&file);
        bucket.files = bucket.files.saturating_add(1);
        true
    })
    .await?;
    Ok(buckets)
}

/// The files held of the peer in these buckets, in ascending order; `None` if they are more than anybody asked for.
pub(super) async fn held_in(
    directory: &dyn Directory,
    peer: PeerId,
    bits: u32,
    buckets: &[u32],
) -> Result<Option<Vec<FileRecord>>, DirectoryError> {
    let mut files = Vec::new();
    each_file(directory, peer, |file| {
        if buckets.binary_search(&bucket_of(&file.share, &file.name, bits)).is_ok() {
            files.push(file);
        }
        files.len() <= 2 * FILES_TOLD
    })
    .await?;
    Ok((files.len() <= 2 * FILES_TOLD).then_some(files))
}

/// Calls `visit` with each file that is held of the peer, until it answers `false`.
async fn each_file(
    directory: &dyn Directory,
    peer: PeerId,
    mut visit: impl FnMut(FileRecord) -> bool + Send,
) -> Result<(), DirectoryError> {
    let mut after = None;
    loop {
        let page = directory.files_of(peer, after, PAGE).await?;
        if !page.items.into_iter().all(&mut visit) || page.next.is_none() {
            return Ok(());
        }
        after = page.next;
    }
}

/// The buckets whose files the peer is to tell, by question of about so many files, the first one last; each in ascending
/// order. `None`: too much differs.
pub(super) fn plan(held: &[Bucket], told: &[Bucket], files_asked: u64) -> Option<Vec<Vec<u32>>> {
    let mut questions: Vec<Vec<u32>> = Vec::new();
    let (mut in_last, mut in_all) = (u64::MAX, 0);
    for (number, (held, told)) in (0..).zip(held.iter().zip(told)).filter(|(_, (held, told))| held != told) {
        let files = u64::from(held.files.max(told.files));
        in_all += files;
        if files > FILES_TOLD as u64 || in_all > MAX_FILES {
            return None;
        }
        match questions.last_mut() {
            Some(last) if in_last + files <= files_asked => {
                last.push(number);
                in_last += files;
            }
            _ => {
                questions.push(vec![number]);
                in_last = files;
            }
        }
    }
    questions.reverse();
    Some(questions)
}

/// The changes that make what is held what was told.
pub(super) fn difference(held: Vec<FileRecord>, told: Vec<FileRecord>) -> Vec<Change> {
    let place = |file: &FileRecord| (file.share.clone(), file.name.clone());
    let mut lacking: BTreeMap<_, _> = told.into_iter().map(|file| (place(&file), file)).collect();
    let mut changes = Vec::new();
    for file in held {
        let place = place(&file);
        match lacking.get(&place) {
            Some(told) if *told == file => drop(lacking.remove(&place)),
            Some(_) => {}
            None => changes.push(Change::Removed { share: file.share, name: file.name }),
        }
    }
    changes.extend(lacking.into_values().map(Change::Upsert));
    changes
}

#[cfg(test)]
mod tests {
    use p2p_content::ContentHash;

    use super::*;

    fn file(name: &str, bytes: &str) -> FileRecord {
        FileRecord {
            share: "s".to_owned(),
            name: name.to_owned(),
            content: Some(ContentHash::of(bytes.as_bytes())),
            size: bytes.len() as u64,
            modified_ms: 1000,
        }
    }

    fn bucket(digest: u8, files: u32) -> Bucket {
        Bucket { digest: Digest([digest; 16]), files }
    }

    #[test]
    fn buckets_grow_in_number_with_the_catalog() {
        for (files, bits) in [(0, 6), (1000, 6), (1 << 14, 10), (1_000_000, 15), (u64::MAX, 16)] {
            assert_eq!(bits_for(files), bits, "{files}");
        }
    }

    #[test]
    fn an_answer_that_is_too_short_or_too_long_is_none() {
        let said = |bits, bytes, files| BucketDigests {
            bits,
            digests: vec![1; bytes].into(),
            files: vec![1; files],
            ..BucketDigests::default()
        };
        assert_eq!(told(&said(1, 32, 2)).unwrap(), [bucket(1, 1); 2]);
        for (bits, bytes, files) in
            [(1, 16, 2), (1, 32, 1), (1, 33, 2), (17, 16 << 17, 1 << 17), (u32::MAX, 0, 0)]
        {
            assert_eq!(told(&said(bits, bytes, files)), Err(Violation::Buckets { bits }));
        }
    }

    #[test]
    fn questions_are_of_buckets_that_differ_and_of_so_many_files() {
        let same = bucket(9, 400);
        let told = [same, bucket(1, 400), bucket(1, 0), bucket(1, 700), same, bucket(1, 1500), bucket(1, 1)];
        let held = [same, bucket(2, 300), bucket(2, 600), bucket(2, 1), same, bucket(1, 1499), bucket(2, 1)];
        assert_eq!(plan(&held, &told, 1000).unwrap(), [vec![6], vec![5], vec![3], vec![1, 2]]);
        assert_eq!(plan(&held, &held, 1000).unwrap(), Vec::<Vec<u32>>::new());
        // One bucket that fits no answer, and more than is worth it.
        assert_eq!(plan(&[bucket(1, 2001)], &[bucket(2, 1)], 1000), None);
        assert_eq!(plan(&[bucket(1, 900); 9], &[bucket(2, 900); 9], 1000), None);
    }

    #[test]
    fn what_is_missing_comes_and_what_is_too_much_goes() {
        let mut newer = file("changed", "1");
        newer.modified_ms += 1;
        let held = vec![file("same", "1"), file("changed", "1"), file("gone", "1")];
        let told = vec![newer.clone(), file("new", "1"), file("same", "1")];
        let gone = Change::Removed { share: "s".to_owned(), name: "gone".to_owned() };
        let expected = [gone, Change::Upsert(newer), Change::Upsert(file("new", "1"))];
        assert_eq!(difference(held, told), expected);
    }
}
