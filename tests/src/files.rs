//! Files for the tests: made of a seed, never held in memory whole.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use p2p_content::ContentHash;

/// Bytes that are written or hashed at a time.
const STEP_LEN: usize = 1 << 20;

/// Makes a file of `len` bytes that follow from `seed` and look random, with its directories. Gives its hash.
///
/// # Errors
/// Where the file cannot be written.
pub fn random_file(path: &Path, len: u64, seed: u64) -> Result<ContentHash> {
    // The extended output of a hash: as fast as the disk, and the same on every machine.
    let mut bytes = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; STEP_LEN];
    make_parent(path)?;
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut left = len;
    while left > 0 {
        let step = usize::try_from(left).map_or(STEP_LEN, |left| left.min(STEP_LEN));
        bytes.fill(&mut buffer[..step]);
        hasher.update(&buffer[..step]);
        file.write_all(&buffer[..step]).with_context(|| format!("cannot write {}", path.display()))?;
        left -= step as u64;
    }
    Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
}

/// The same bytes, in memory: for the peers that are no programs.
pub fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The hash of a file, by a reader of its own and not by what is under test.
///
/// # Errors
/// Where the file cannot be read.
pub fn hash_of_file(path: &Path) -> Result<ContentHash> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; STEP_LEN];
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes())),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// Writes a small file, with its directories.
///
/// # Errors
/// Where it cannot be written.
pub fn write_file(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    make_parent(path)?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// How many files are in the tree at `path`, and how many bytes they have.
///
/// # Errors
/// Where it cannot be read.
pub fn size_of_tree(path: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let (more_files, more_bytes) = size_of_tree(&entry.path())?;
            files += more_files;
            bytes += more_bytes;
        } else {
            files += 1;
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
}

fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, same, other) = (dir.path().join("a/1"), dir.path().join("2"), dir.path().join("3"));
        let hash = random_file(&one, (2 << 20) + 7, 1).unwrap();
        assert_eq!(fs::metadata(&one).unwrap().len(), (2 << 20) + 7);
        assert_eq!(hash, hash_of_file(&one).unwrap());
        assert_eq!(fs::read(&one).unwrap(), random_bytes((2 << 20) + 7, 1));
        assert_eq!(hash, random_file(&same, (2 << 20) + 7, 1).unwrap());
        assert_ne!(hash, random_file(&other, (2 << 20) + 7, 2).unwrap());
        assert_eq!(size_of_tree(dir.path()).unwrap(), (3, 3 * ((2 << 20) + 7)));
    }
}
