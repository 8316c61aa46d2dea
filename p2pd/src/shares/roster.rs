//! Which shares there are: those of the configuration, which are the administrator's, and those that users added by
//! command, which are kept in the state directory. Owned by the loop; pure but for the file.

use std::io;
use std::path::{Path, PathBuf};

use p2p_proto::control::Visibility;
use serde::{Deserialize, Serialize};

use super::{AddError, RemoveError, ShareConfig};
use crate::kept::Kept;

/// File of the shares that were added, in the state directory.
const FILE: &str = "shares.json";

/// A share that was added. Its path is that of the directory itself: no link was on the way when it was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    name: String,
    path: PathBuf,
    #[serde(default)]
    visible: Visibility,
    #[serde(default)]
    downloads: bool,
}

/// An added share that is not in force, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its name.
    pub name: String,
    /// What is in its way.
    pub reason: String,
}

/// Both kinds of shares.
#[derive(Debug)]
pub(super) struct Roster {
    configured: Vec<ShareConfig>,
    added: Vec<Added>,
    kept: Kept,
}

impl Roster {
    /// The configured shares, and those that are kept in the state directory.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else.
    pub(super) fn open(configured: Vec<ShareConfig>, state_dir: &Path) -> io::Result<Roster> {
        let kept = Kept::at(state_dir.join(FILE));
        let added = kept.read()?;
        Ok(Roster { configured, added, kept })
    }

    /// The administrator's shares are others now.
    pub(super) fn set_configured(&mut self, configured: Vec<ShareConfig>) {
        self.configured = configured;
    }

    /// The shares that are in force, and those that are not. The configuration comes first: where an added share
    /// contradicts it, it waits until it does not. Fetched files land where a user last said, if one did.
    pub(super) fn merged(&self) -> (Vec<ShareConfig>, Vec<SetAside>) {
        let mut shares = self.configured.clone();
        let mut aside = Vec::new();
        let mut landing = None;
        for added in &self.added {
            match conflict(&shares, &added.name, &added.path) {
                Some(reason) => aside.push(SetAside { name: added.name.clone(), reason }),
                None => {
                    landing = if added.downloads { Some(shares.len()) } else { landing };
                    shares.push(added.into());
                }
            }
        }
        if let Some(landing) = landing {
            for (at, share) in shares.iter_mut().enumerate() {
                share.downloads = at == landing;
            }
        }
        (shares, aside)
    }

    /// Adds a share. [`keep`](Roster::keep) makes it last.
    ///
    /// # Errors
    /// Where the name or the directory is another share's.
    pub(super) fn add(&mut self, share: ShareConfig) -> Result<(), AddError> {
        // Those that are set aside hold their names: they may come back.
        let waiting = self.added.iter().map(ShareConfig::from);
        let all: Vec<ShareConfig> = self.configured.iter().cloned().chain(waiting).collect();
        if all.iter().any(|other| other.name == share.name) {
            return Err(AddError::NameTaken { name: share.name });
        }
        if let Some(reason) = conflict(&all, &share.name, &share.path) {
            return Err(AddError::Overlaps { path: share.path, reason });
        }
        let ShareConfig { name, path, visible, downloads, .. } = share;
        self.added.push(Added { name, path, visible, downloads });
        Ok(())
    }

    /// Removes a share that was added. [`keep`](Roster::keep) makes it last.
    ///
    /// # Errors
    /// Where there is none of that name, or it is the administrator's.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), RemoveError> {
        let before = self.added.len();
        self.added.retain(|added| added.name != name);
        if self.added.len() < before {
            return Ok(());
        }
        let name = name.to_owned();
        Err(match self.configured.iter().any(|share| share.name == name) {
            true => RemoveError::Configured { name },
            false => RemoveError::Unknown { name },
        })
    }

    /// Writes down what was added, beside the loop: the disk may take its time.
    pub(super) fn keep(&self) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (kept, added) = (self.kept.clone(), self.added.clone());
        move || kept.write(&added)
    }

    /// As it was before a change that could not be kept.
    pub(super) fn snapshot(&self) -> impl FnOnce(&mut Roster) + Send + 'static {
        let added = self.added.clone();
        move |roster| roster.added = added
    }
}

impl From<&Added> for ShareConfig {
    fn from(added: &Added) -> ShareConfig {
        let Added { name, path, visible, downloads } = added.clone();
        ShareConfig { name, path, visible, downloads, added: true }
    }
}

/// What keeps a share from standing beside the others, if anything.
fn conflict(others: &[ShareConfig], name: &str, path: &Path) -> Option<String> {
    others.iter().find_map(|other| {
        if other.name == name {
            return Some(format!("the configuration has a share named {name:?}, too"));
        }
        let shown = other.path.display();
        let other_name = &other.name;
        if path == other.path {
            Some(format!("it is the directory of the share {other_name:?}"))
        } else if path.starts_with(&other.path) {
            Some(format!("it is inside of {shown}, the directory of the share {other_name:?}"))
        } else if other.path.starts_with(path) {
            Some(format!("{shown}, the directory of the share {other_name:?}, is inside of it"))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str, path: &str, downloads: bool) -> ShareConfig {
        let (name, path) = (name.to_owned(), path.into());
        ShareConfig { name, path, visible: Visibility::Network, downloads, added: false }
    }

    fn roster(dir: &Path) -> Roster {
        Roster::open(vec![share("shared", "/srv/shared", true)], dir).unwrap()
    }

    fn in_force(roster: &Roster) -> Vec<(String, bool, bool)> {
        let (shares, _) = roster.merged();
        shares.into_iter().map(|share| (share.name, share.downloads, share.added)).collect()
    }

    #[test]
    fn what_was_added_is_there_again_and_its_downloads_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut added = roster(dir.path());
        added.add(share("iso", "/data/iso", false)).unwrap();
        assert_eq!(in_force(&added), [("shared".to_owned(), true, false), ("iso".to_owned(), false, true)]);
        added.add(share("in", "/data/in", true)).unwrap();
        added.keep()().unwrap();
        let again = roster(dir.path());
        assert_eq!(
            in_force(&again),
            [
                ("shared".to_owned(), false, false),
                ("iso".to_owned(), false, true),
                ("in".to_owned(), true, true)
            ]
        );
        added.remove("in").unwrap();
        assert!(in_force(&added)[0].1, "fetched files land where they did before");
    }

    #[test]
    fn names_and_directories_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut roster = roster(dir.path());
        roster.add(share("iso", "/data/iso", false)).unwrap();
        for (name, path) in [("iso", "/elsewhere"), ("shared", "/elsewhere")] {
            let refused = roster.add(share(name, path, false)).unwrap_err();
            assert!(matches!(refused, AddError::NameTaken { .. }), "{refused}");
        }
        for path in ["/data/iso", "/data/iso/deep", "/data", "/srv", "/srv/shared/x"] {
            let refused = roster.add(share("new", path, false)).unwrap_err();
            assert!(matches!(refused, AddError::Overlaps { .. }), "{path}: {refused}");
        }
        roster.add(share("new", "/data/isolated", false)).unwrap();
    }

    #[test]
    fn the_administrators_shares_go_first_and_are_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut roster = roster(dir.path());
        roster.add(share("iso", "/data/iso", true)).unwrap();
        roster.set_configured(vec![share("all", "/data", true)]);
        let (shares, aside) = roster.merged();
        assert_eq!((shares.len(), shares[0].downloads, aside.len()), (1, true, 1));
        assert!(aside[0].reason.contains("/data"), "{aside:?}");
        let refused = roster.add(share("iso", "/elsewhere", false)).unwrap_err();
        assert!(matches!(refused, AddError::NameTaken { .. }), "it may come back: {refused}");
        assert!(matches!(roster.remove("all"), Err(RemoveError::Configured { .. })));
        assert!(matches!(roster.remove("shared"), Err(RemoveError::Unknown { .. })));
        roster.set_configured(vec![share("iso", "/srv/other", false)]);
        assert_eq!(roster.merged().1[0].name, "iso");
        roster.set_configured(vec![share("shared", "/srv/shared", false)]);
        assert_eq!(roster.merged().1, []);
        roster.remove("iso").unwrap();
    }
}
