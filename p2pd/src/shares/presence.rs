//! Whether a share's directory can be used. A disk that is not mounted leaves an empty directory: that is not "all
//! files deleted".

use std::io;
use std::path::Path;

use super::root::{Identity, Links, Root};
use crate::catalog::{Catalog, CatalogError, ShareRecord};

/// What is at a share's path now.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) found: io::Result<Directory>,
    pub(super) remembered: Remembered,
}

/// A directory that can be opened and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) identity: Identity,
    pub(super) is_empty: bool,
}

/// What the catalog remembers of a share's directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) identity: Option<Identity>,
    pub(super) files: u64,
}

/// Looks at what is there. Blocking; a network disk may keep it waiting for long.
pub(super) fn probe(
    path: &Path,
    links: Links,
    share: &str,
    catalog: &Catalog,
) -> Result<Probed, CatalogError> {
    let found = Root::open(path, links)
        .and_then(|root| Ok(Directory { identity: root.identity, is_empty: root.is_empty()? }));
    let reader = catalog.reader()?;
    let identity = reader.share(share)?.and_then(|ShareRecord { root, .. }| root);
    let identity = identity.map(|(device, inode)| Identity { device, inode });
    Ok(Probed { found, remembered: Remembered { identity, files: reader.files_in(share)? } })
}

/// Whether what was found is the share's directory, or why not.
pub(super) fn judge(path: &Path, probed: &Probed) -> Result<Identity, String> {
    let shown = path.display();
    let directory = match &probed.found {
        Ok(directory) => directory,
        Err(error) => return Err(reason_of(path, error)),
    };
    let Remembered { identity, files } = probed.remembered;
    if directory.is_empty && files > 0 && identity.is_some_and(|known| known != directory.identity) {
        return Err(format!(
            "{shown} is empty, and it is not the directory that had this share's {files} files: is its disk mounted? \
             If it is meant to be empty, put a file into it"
        ));
    }
    Ok(directory.identity)
}

fn reason_of(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist: is its disk mounted?"),
        io::ErrorKind::PermissionDenied => format!(
            "{shown} cannot be read by the user that this program runs as: permission denied; \
             let its group read it, or share another directory"
        ),
        io::ErrorKind::NotADirectory => format!("{shown} is not a directory"),
        _ => format!("{shown} cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = Identity { device: 1, inode: 2 };
    const B: Identity = Identity { device: 7, inode: 2 };

    fn verdict(identity: Identity, is_empty: bool, known: Option<Identity>, files: u64) -> Option<Identity> {
        let found = Ok(Directory { identity, is_empty });
        let remembered = Remembered { identity: known, files };
        judge(Path::new("/srv"), &Probed { found, remembered }).ok()
    }

    #[test]
    fn only_an_empty_stranger_in_the_place_of_files_is_refused() {
        assert_eq!(verdict(B, true, Some(A), 1), None);
        assert_eq!(verdict(A, true, Some(A), 1), Some(A), "emptied by its owner");
        assert_eq!(verdict(B, false, Some(A), 1), Some(B), "mounted again, or another disk with files");
        assert_eq!(verdict(B, true, Some(A), 0), Some(B), "nothing is lost");
        assert_eq!(verdict(A, true, None, 0), Some(A), "new");
    }

    #[test]
    fn reasons_say_what_is_wrong() {
        let reason = |kind: io::ErrorKind| reason_of(Path::new("/srv/x"), &kind.into());
        assert!(reason(io::ErrorKind::NotFound).contains("/srv/x does not exist"));
        assert!(reason(io::ErrorKind::PermissionDenied).contains("permission denied"));
        assert!(reason(io::ErrorKind::NotADirectory).contains("not a directory"));
    }
}
