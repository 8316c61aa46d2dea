//! What a run has to leave behind: whether it is right, and taking it away for the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_tests::hash_of_file;

/// What a run has to leave behind.
#[derive(Debug, Clone)]
pub(crate) enum Product {
    /// Nothing that could be looked at.
    Nothing,
    /// A file.
    File {
        /// Where.
        path: PathBuf,
        /// Its content.
        hash: ContentHash,
        /// Its bytes.
        len: u64,
    },
    /// A tree.
    Tree {
        /// Where.
        path: PathBuf,
        /// What it is a copy of.
        like: PathBuf,
    },
}

impl Product {
    /// Looks at it: every byte where `thoroughly`, else what has which size.
    ///
    /// # Errors
    /// Where it is not what it should be.
    pub(crate) fn check(&self, thoroughly: bool) -> Result<()> {
        match self {
            Product::Nothing => Ok(()),
            Product::File { path, hash, len } => {
                let found =
                    fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?.len();
                ensure!(found == *len, "{} has {found} bytes and should have {len}", path.display());
                ensure!(
                    !thoroughly || hash_of_file(path)? == *hash,
                    "{} has other bytes than its source",
                    path.display()
                );
                Ok(())
            }
            Product::Tree { path, like } => check_tree(path, like, thoroughly),
        }
    }

    /// Takes it away.
    ///
    /// # Errors
    /// Where it cannot be.
    pub(crate) fn remove(&self) -> Result<()> {
        match self {
            Product::Nothing => Ok(()),
            Product::File { path, .. } => {
                fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
            }
            Product::Tree { path, .. } => {
                fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
            }
        }
    }
}

fn check_tree(path: &Path, like: &Path, thoroughly: bool) -> Result<()> {
    let (there, should) = (sizes(path)?, sizes(like)?);
    ensure!(
        there == should,
        "{} has {} files, and {} has {}, or some have other sizes",
        path.display(),
        there.len(),
        like.display(),
        should.len()
    );
    if thoroughly {
        for name in there.keys() {
            let same = hash_of_file(&path.join(name))? == hash_of_file(&like.join(name))?;
            ensure!(same, "{} has other bytes than its source", path.join(name).display());
        }
    }
    Ok(())
}

/// The size of each file of a tree, by its path in it.
fn sizes(root: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            match metadata.is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    found.insert(entry.path().strip_prefix(root)?.to_owned(), metadata.len());
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use p2p_tests::{random_file, write_file};

    use super::*;

    #[test]
    fn a_file_that_is_short_or_false_is_no_product() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let hash = random_file(&path, 5000, 1).unwrap();
        let product = Product::File { path: path.clone(), hash, len: 5000 };
        product.check(true).unwrap();
        fs::write(&path, vec![0; 5000]).unwrap();
        assert!(product.check(true).unwrap_err().to_string().contains("other bytes"));
        fs::write(&path, [0]).unwrap();
        assert!(product.check(false).unwrap_err().to_string().contains("has 1 bytes and should have 5000"));
        product.remove().unwrap();
        assert!(product.check(false).is_err() && product.remove().is_err());
    }

    #[test]
    fn a_tree_is_compared_file_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, like) = (dir.path().join("copy"), dir.path().join("tree"));
        for root in [&path, &like] {
            write_file(&root.join("a/b"), "hola").unwrap();
            write_file(&root.join("c"), "adios").unwrap();
        }
        let product = Product::Tree { path: path.clone(), like };
        product.check(true).unwrap();
        write_file(&path.join("a/b"), "halo").unwrap();
        product.check(false).unwrap();
        assert!(product.check(true).is_err());
        fs::remove_file(path.join("c")).unwrap();
        assert!(product.check(false).is_err());
        product.remove().unwrap();
    }
}
