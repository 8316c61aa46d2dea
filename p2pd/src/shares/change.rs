//! Adding a share by command, and removing it again.
//!
//! What waits for a disk is done before the loop is asked: whether the directory can be used, and which directory it
//! really is. The loop decides who has the name, keeps the list, and puts it in force.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use p2p_proto::control::{AddShare, Visibility};
use tokio::sync::oneshot;

use super::fitness::{self, Unfit};
use super::keeper::{Command, Keeper};
use super::looks::Aim;
use super::root::Links;
use super::roster::Roster;
use super::{ShareConfig, ShareError, ShareState, Shares};

/// How long a directory may take to answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Longest name of a share, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Where the answer to a change goes.
pub(super) type Changed<E> = oneshot::Sender<Result<(), E>>;

/// Why a share cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is not an absolute path without `..`.
    #[error("{path:?} is not an absolute path")]
    NotAbsolute {
        /// The path.
        path: String,
    },
    /// It cannot name a share.
    #[error("{name:?} cannot be the name of a share: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Everything, or what this program keeps for itself.
    #[error("{} cannot be shared: {why}", path.display())]
    Forbidden {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It is not the caller's to share.
    #[error("{} cannot be shared by you: {why}", path.display())]
    NotYours {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Another share has the name.
    #[error("there is a share named {name:?} already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Another share has the directory, or a part of it.
    #[error("{} cannot be shared: {reason}", path.display())]
    Overlaps {
        /// The directory.
        path: PathBuf,
        /// With what.
        reason: String,
    },
    /// The program cannot use it.
    #[error("{} cannot be shared: {why}", path.display())]
    Unfit {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: Unfit,
    },
    /// The list cannot be kept.
    #[error("cannot keep the list of shares: {0}")]
    Keep(io::Error),
    /// The shares failed.
    #[error(transparent)]
    Shares(#[from] ShareError),
}

/// Why a share cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none of that name.
    #[error("there is no share named {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It is the administrator's.
    #[error("the share {name:?} is in the configuration file, and stays until it is taken out there")]
    Configured {
        /// The name.
        name: String,
    },
    /// The list cannot be kept.
    #[error("cannot keep the list of shares: {0}")]
    Keep(io::Error),
    /// The shares failed.
    #[error(transparent)]
    Shares(#[from] ShareError),
}

impl Shares {
    /// Shares a directory from now on, and after every restart. The user `by` may share what is theirs; to share the
    /// directories of others, or to have everybody's fetched files land somewhere, takes root, or the user that this
    /// program runs as.
    ///
    /// # Errors
    /// [`AddError`]; nothing has changed then.
    pub async fn add(&self, request: AddShare, by: u32) -> Result<ShareState, AddError> {
        let asked = Asked::of(&request)?;
        let name = asked.name.clone();
        let (state_dir, others) = (self.state_dir.clone(), self.rows());
        let path = asked.path.clone();
        let look = move || asked.look(&state_dir, &others, by);
        let looked = self.looks.at(&path, Aim::ToAdd, LOOK_DEADLINE, look).await;
        let silent = || AddError::Unfit { path, why: Unfit::Other(io::ErrorKind::TimedOut.into()) };
        let share = looked.ok_or_else(silent)??;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Add { share, reply }).await.map_err(|_| ShareError::Closed)?;
        answer.await.map_err(|_| ShareError::Closed)??;
        let row = self.rows().into_iter().find(|row| row.name == name);
        Ok(row.ok_or(ShareError::NotShared { share: name })?)
    }

    /// Shares a directory no more that was added by [`add`](Shares::add). Its files stay where they are.
    ///
    /// # Errors
    /// [`RemoveError`]; nothing has changed then.
    pub async fn remove(&self, name: &str) -> Result<(), RemoveError> {
        let (reply, answer) = oneshot::channel();
        let remove = Command::Remove { name: name.to_owned(), reply };
        self.commands.send(remove).await.map_err(|_| ShareError::Closed)?;
        answer.await.map_err(|_| ShareError::Closed)?
    }
}

impl Keeper {
    pub(super) async fn on_add(&mut self, share: ShareConfig, reply: Changed<AddError>) {
        let result = self.change_roster(|roster| roster.add(share), AddError::Keep).await;
        // Nobody may wait for it any more.
        let _ = reply.send(result);
    }

    pub(super) async fn on_remove(&mut self, name: &str, reply: Changed<RemoveError>) {
        let result = self.change_roster(|roster| roster.remove(name), RemoveError::Keep).await;
        let _ = reply.send(result);
    }

    /// Changes the list, keeps it and puts it in force; where one of these fails, all is as it was before.
    async fn change_roster<E: From<ShareError>>(
        &mut self,
        change: impl FnOnce(&mut Roster) -> Result<(), E>,
        not_kept: fn(io::Error) -> E,
    ) -> Result<(), E> {
        let undo = self.roster.snapshot();
        change(&mut self.roster)?;
        let failed = match self.keep_roster().await {
            Err(error) => not_kept(error),
            Ok(()) => match self.take_roster().await {
                Ok(()) => return Ok(()),
                Err(error) => E::from(error),
            },
        };
        undo(&mut self.roster);
        let kept = self.keep_roster().await.map_err(ShareError::Kept);
        let taken = self.take_roster().await;
        if let Err(error) = kept.and(taken) {
            tracing::error!(
                %error,
                "a change of the shares could not be undone: {error}; look at the disk of the state directory, and at \
                 `p2pctl shares` when p2pd has been restarted"
            );
        }
        Err(failed)
    }

    async fn keep_roster(&self) -> io::Result<()> {
        tokio::task::spawn_blocking(self.roster.keep()).await.map_err(io::Error::other)?
    }
}

/// A request that makes sense by itself.
struct Asked {
    name: String,
    path: PathBuf,
    visible: Visibility,
    downloads: bool,
}

impl Asked {
    fn of(request: &AddShare) -> Result<Asked, AddError> {
        let path = Path::new(&request.path);
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return Err(AddError::NotAbsolute { path: request.path.clone() });
        }
        // Without what the text has twice, such as slashes.
        let path: PathBuf = path.components().collect();
        let last = path.file_name().map(|last| last.to_string_lossy().into_owned());
        let Some(last) = last else {
            return Err(forbidden(path, "it is the root of everything"));
        };
        let name = request.name.clone().unwrap_or(last);
        if let Some(why) = flaw(&name) {
            return Err(AddError::BadName { name, why });
        }
        Ok(Asked { name, path, visible: request.visible, downloads: request.downloads })
    }

    /// Finds out which directory it is, and tries it out. Blocking.
    fn look(self, state_dir: &Path, others: &[ShareState], by: u32) -> Result<ShareConfig, AddError> {
        fitness::try_out(&self.path, Links::Follow, self.downloads)
            .map_err(|why| AddError::Unfit { path: self.path.clone(), why })?;
        let path = self
            .path
            .canonicalize()
            .map_err(|error| AddError::Unfit { path: self.path.clone(), why: Unfit::Other(error) })?;
        self.is_for(&path, by)?;
        if path.parent().is_none() {
            return Err(forbidden(path, "it is the root of everything"));
        }
        if path.to_str().is_none() {
            return Err(forbidden(path, "its path is not valid UTF-8"));
        }
        let state_dir = real(state_dir);
        if path.starts_with(&state_dir) || state_dir.starts_with(&path) {
            let why = format!("this peer's key and databases are in {}", state_dir.display());
            return Err(AddError::Forbidden { path, why });
        }
        // The list itself is checked by the loop; links of the administrator's paths are only known here.
        for other in others {
            let there = real(&other.path);
            if path.starts_with(&there) || there.starts_with(&path) {
                let reason = format!(
                    "one of it and {}, the directory of the share {:?}, is inside the other",
                    other.path.display(),
                    other.name
                );
                return Err(AddError::Overlaps { path, reason });
            }
        }
        let Asked { name, visible, downloads, .. } = self;
        Ok(ShareConfig { name, path, visible, downloads, added: true })
    }

    /// This program reads more than each of its users may: nobody shares through it what is not theirs.
    fn is_for(&self, path: &Path, by: u32) -> Result<(), AddError> {
        if by == 0 || by == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let not_yours = |why: String| Err(AddError::NotYours { path: path.to_owned(), why });
        let owner = std::fs::metadata(path)
            .map_err(|error| AddError::Unfit { path: path.to_owned(), why: Unfit::Other(error) })?
            .uid();
        if owner != by {
            return not_yours(format!("it belongs to the user with the number {owner}"));
        }
        if self.downloads {
            return not_yours("everybody's fetched files would land in it".to_owned());
        }
        Ok(())
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn forbidden(path: PathBuf, why: &str) -> AddError {
    AddError::Forbidden { path, why: why.to_owned() }
}

/// What keeps a text from being a share's name. Names are parts of URLs and of file names in advice.
fn flaw(name: &str) -> Option<&'static str> {
    match name {
        _ if name.trim().is_empty() => Some("it is empty"),
        _ if name.len() > MAX_NAME_BYTES => Some("it is longer than 255 bytes"),
        _ if name.chars().any(char::is_control) => Some("it has control characters"),
        _ if name.contains('/') => Some("it has a slash"),
        "." | ".." => Some("it is a directory's own name"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, name: Option<&str>) -> Result<Asked, AddError> {
        let name = name.map(str::to_owned);
        Asked::of(&AddShare { path: path.to_owned(), name, visible: Visibility::Network, downloads: false })
    }

    #[test]
    fn the_last_part_of_the_path_is_the_name() {
        let given = asked("/data//iso/", None).unwrap();
        assert_eq!((given.name.as_str(), given.path.as_path()), ("iso", Path::new("/data/iso")));
        assert_eq!(asked("/data/iso", Some("images")).unwrap().name, "images");
    }

    #[test]
    fn what_names_no_directory_or_no_share_is_refused() {
        for path in ["", "iso", "./iso", "/data/../etc", "~/iso"] {
            assert!(matches!(asked(path, None), Err(AddError::NotAbsolute { .. })), "{path}");
        }
        for path in ["/", "//", "/."] {
            assert!(asked(path, Some("all")).is_err(), "{path}");
        }
        let long = "n".repeat(256);
        for name in ["", "  ", "a/b", "a\nb", ".", "..", &long] {
            assert!(matches!(asked("/data", Some(name)), Err(AddError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn each_user_shares_what_is_theirs_and_root_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let look = |downloads, by| {
            let request = AddShare {
                path: path.to_str().unwrap().to_owned(),
                name: None,
                visible: Visibility::Network,
                downloads,
            };
            Asked::of(&request).unwrap().look(Path::new("/no/state"), &[], by)
        };
        look(false, own).unwrap();
        look(true, 0).unwrap();
        assert!(matches!(look(false, own + 1), Err(AddError::NotYours { .. })));
        // Only root can give a directory away.
        if own == 0 {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            look(false, 65_534).unwrap();
            assert!(matches!(look(true, 65_534), Err(AddError::NotYours { .. })));
        }
    }
}
