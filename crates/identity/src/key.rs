//! The key: made once, kept private.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer, SigningKey};

use crate::PeerId;

/// A key file longer than this is not one of ours.
const MAX_KEY_FILE_LEN: u64 = 4096;

/// A program's own key.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file could not be read or made.
    #[error("cannot {action} the key file {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others may read the key.
    #[error(
        "the key file {} can be read by others (mode {mode:04o}): whoever read it can pass for this peer. \
         If nobody did, run `chmod 600 {}`; otherwise remove it, and the next start makes a new identity",
        path.display(), path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "the key file {} does not hold an Ed25519 key (PKCS#8, PEM): restore it from a backup, or move it away, \
         and the next start makes a new identity",
        path.display()
    )]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
}

impl Identity {
    /// A fresh identity that is kept nowhere.
    pub fn generate() -> Result<Self, io::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { key: SigningKey::from_bytes(&secret) })
    }

    /// The identity in this file; made, with mode 0600, where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read or written, is readable by others, or holds no key. Never makes a new identity
    /// in the place of a file that is there.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| move |source| IdentityError::Io { action, path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate().map_err(failed("create"))?;
                identity.store(path).map_err(failed("create"))?;
                Ok(identity)
            }
            Err(error) => Err(failed("read")(error)),
        }
    }

    /// The identity in this file, which must be there.
    ///
    /// # Errors
    /// As [`load_or_create`](Identity::load_or_create), and where there is no such file.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let file = File::open(path).map_err(|source| IdentityError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::load(path, file)
    }

    fn load(path: &Path, file: File) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io { action: "read", path: path.to_owned(), source };
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut pem = String::new();
        match file.take(MAX_KEY_FILE_LEN).read_to_string(&mut pem) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(failed(error)),
            _ => {}
        }
        let key =
            SigningKey::from_pkcs8_pem(&pem).map_err(|_| IdentityError::NotAKey { path: path.to_owned() })?;
        Ok(Self { key })
    }

    /// Writes beside and renames, so that a crash leaves no half of a key.
    fn store(&self, path: &Path) -> io::Result<()> {
        let pem =
            self.key.to_pkcs8_pem(LineEnding::LF).map_err(|error| io::Error::other(error.to_string()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    }

    /// The public half.
    pub fn id(&self) -> PeerId {
        PeerId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// Signs a message; the caller's message begins with a text that names its purpose, so that no signature serves
    /// two.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    pub(crate) fn to_pkcs8_der(&self) -> Result<Vec<u8>, ed25519_dalek::pkcs8::Error> {
        Ok(self.key.to_pkcs8_der()?.as_bytes().to_vec())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id().short())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_with_mode_0600_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/identity.key");
        let made = Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(Identity::load_or_create(&path).unwrap().id(), made.id());
        assert_ne!(Identity::generate().unwrap().id(), made.id());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_kept_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let path = dir.path().join("identity.key");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::NotAKey { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
