//! Which part of a catalog a file is in, when two sides look for where their catalogs differ. Pure.

/// Most bits that number a bucket, so that the digests of all of them fit a message.
pub const MAX_BUCKET_BITS: u32 = 16;

/// The bucket of a file, of `2^bits`: the first `bits` bits of BLAKE3(share 00 name). `bits` above
/// [`MAX_BUCKET_BITS`] count as that many.
///
/// It follows from the place of a file and not from what is in it, so that a file that differs is in one bucket on
/// both sides.
pub fn bucket_of(share: &str, name: &str, bits: u32) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(share.as_bytes()).update(&[0]).update(name.as_bytes());
    let hash = hasher.finalize();
    let first = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
    u32::from(first) >> (MAX_BUCKET_BITS - bits.min(MAX_BUCKET_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_is_the_beginning_of_the_hash() {
        let hash = blake3::hash(b"docs\0a/b.txt");
        let [first, second, ..] = hash.as_bytes();
        assert_eq!(bucket_of("docs", "a/b.txt", 0), 0);
        assert_eq!(bucket_of("docs", "a/b.txt", 8), u32::from(*first));
        assert_eq!(bucket_of("docs", "a/b.txt", 16), u32::from(*first) << 8 | u32::from(*second));
        assert_eq!(bucket_of("docs", "a/b.txt", 3), u32::from(*first) >> 5);
        assert_eq!(bucket_of("docs", "a/b.txt", 99), bucket_of("docs", "a/b.txt", 16));
    }
}
