//! What a user can decide: the keys of `p2pd.toml`, their defaults, and what is wrong with them.
//!
//! Called by the program's edge, at start and for a reload; the rooms get the values.

use std::fmt;
use std::path::{Path, PathBuf};

use p2p_proto::control::Visibility;
use p2p_service::config::ConfigError;
use p2p_service::wire;
use serde::{Deserialize, Serialize};

use crate::serve::AcceptOffers;
use crate::shares::ShareConfig;
use crate::transfer::TransferSettings;

/// The file that is read when no other is named, if it is there.
pub const DEFAULT_PATH: &str = "/etc/p2pd/p2pd.toml";

/// Longest `name`, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The whole configuration. What the file does not say has the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What this peer calls itself; empty: the host's name.
    pub name: String,
    /// Where its identity, its catalog and its transfers are.
    pub state_dir: PathBuf,
    /// `host` or `host:port` of the maestro; empty: the one that was joined with `p2pctl join`, if any.
    pub maestro: String,
    /// What is logged, as a filter of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The control socket.
    pub control: Control,
    /// The REST interface.
    pub rest: Rest,
    /// The interface that other peers speak.
    pub grpc: Grpc,
    /// Fetching, sending and taking in.
    pub transfers: Transfers,
    /// The shared directories.
    #[serde(rename = "share")]
    pub shares: Vec<Share>,
}

/// `[control]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the Unix socket that `p2pctl` speaks with.
    pub socket: PathBuf,
}

/// `[rest]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// Host and port.
    pub listen: String,
    /// Base URL by which others are told of it; empty: made of the host's name and the port.
    pub url: String,
    /// Whether calls that change something need the local token.
    pub require_token: bool,
    /// Names by which the interface may be called, beside the loopback's.
    pub allowed_hosts: Vec<String>,
}

/// `[grpc]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// Host and port.
    pub listen: String,
    /// Who may speak plaintext, without an identity.
    pub plaintext: Plaintext,
    /// `host:port` by which others are told of it; empty: the addresses of this host.
    pub announce: Vec<String>,
}

/// Who may speak plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plaintext {
    /// Nobody.
    Off,
    /// Programs on this machine.
    Loopback,
    /// Everyone.
    Anyone,
}

/// `[transfers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transfers {
    /// Whether files of plain peers, for which nobody vouches, are fetched.
    pub allow_unproven: bool,
    /// From whom files are taken.
    pub accept_offers: AcceptOffers,
    /// How many run at once.
    pub running: u32,
    /// Bytes that stay free on the disk of the downloads.
    pub reserve_bytes: u64,
}

/// One `[[share]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Who may see it.
    #[serde(default)]
    pub visible: Visibility,
    /// Whether fetched files land in it; without any such share, in the first.
    #[serde(default)]
    pub downloads: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            state_dir: "/var/lib/p2pd".into(),
            maestro: String::new(),
            log: "info".to_owned(),
            control: Control::default(),
            rest: Rest::default(),
            grpc: Grpc::default(),
            transfers: Transfers::default(),
            shares: vec![Share {
                name: "shared".to_owned(),
                path: "/var/lib/p2pd/shared".into(),
                visible: Visibility::Network,
                downloads: true,
            }],
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/p2pd/control.sock".into() }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9001".to_owned(),
            url: String::new(),
            require_token: true,
            allowed_hosts: Vec::new(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self { listen: "[::]:9002".to_owned(), plaintext: Plaintext::Off, announce: Vec::new() }
    }
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            allow_unproven: false,
            accept_offers: AcceptOffers::Friends,
            running: 4,
            reserve_bytes: 256 << 20,
        }
    }
}

/// What is wrong with a configuration that can be read.
#[derive(Debug, thiserror::Error)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read or understood; with its line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        p2p_service::config::load(path)
    }

    /// What cannot be meant, all of it at once.
    pub fn check(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, what: String| {
            if is_wrong {
                problems.push(what);
            }
        };
        wrong(self.name.len() > MAX_NAME_BYTES, format!("name: longer than {MAX_NAME_BYTES} bytes"));
        wrong(self.name.chars().any(char::is_control), "name: has control characters".to_owned());
        wrong(!self.state_dir.is_absolute(), "state_dir: must be an absolute path".to_owned());
        wrong(!self.control.socket.is_absolute(), "[control] socket: must be an absolute path".to_owned());
        wrong(self.transfers.running == 0, "[transfers] running: must be at least 1".to_owned());
        wrong(
            self.shares.is_empty(),
            "there is no [[share]]: give at least one directory to share".to_owned(),
        );
        for (at, share) in self.shares.iter().enumerate() {
            let name = &share.name;
            wrong(name.is_empty(), "[[share]] name: is empty".to_owned());
            let taken = self.shares[..at].iter().any(|other| other.name == *name);
            wrong(taken, format!("[[share]] name: {name:?} is given twice"));
            wrong(!share.path.is_absolute(), format!("[[share]] {name:?}: path must be absolute"));
            // Links and dots may lead where the text does not say.
            let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let within =
                |inner: &Path, outer: &Path| inner.starts_with(outer) || real(inner).starts_with(real(outer));
            for other in &self.shares[..at] {
                let overlap = within(&share.path, &other.path) || within(&other.path, &share.path);
                wrong(overlap, format!("[[share]] {name:?} and {:?}: one is inside the other", other.name));
            }
            wrong(name.len() > MAX_NAME_BYTES, format!("[[share]] name: longer than {MAX_NAME_BYTES} bytes"));
            wrong(
                within(&self.state_dir, &share.path),
                format!("[[share]] {name:?}: holds the state directory, and with it this peer's key"),
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// The shares, as the shares room takes them.
    pub fn share_configs(&self) -> Vec<ShareConfig> {
        let share = |share: &Share| ShareConfig {
            name: share.name.clone(),
            path: share.path.clone(),
            visible: share.visible,
            downloads: share.downloads,
            added: false,
        };
        self.shares.iter().map(share).collect()
    }

    /// What transfers follow.
    pub fn transfer_settings(&self) -> TransferSettings {
        let Transfers { allow_unproven, reserve_bytes, .. } = self.transfers;
        TransferSettings { allow_unproven, reserve_bytes }
    }
}

impl From<Plaintext> for wire::Plaintext {
    fn from(plaintext: Plaintext) -> Self {
        match plaintext {
            Plaintext::Off => Self::Off,
            Plaintext::Loopback => Self::Loopback,
            Plaintext::Anyone => Self::Anyone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_says_the_defaults() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/p2pd.toml");
        let config = Config::load(&sample).unwrap();
        assert_eq!(config, Config::default());
        config.check().unwrap();
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let share = |name: &str, path: &str| Share {
            name: name.to_owned(),
            path: path.into(),
            visible: Visibility::Network,
            downloads: false,
        };
        let config = Config {
            state_dir: "/data/state".into(),
            shares: vec![share("a", "/data"), share("a", "/data/b"), share("", "relative")],
            transfers: Transfers { running: 0, ..Transfers::default() },
            ..Config::default()
        };
        let told = config.check().unwrap_err().to_string();
        for part in ["running", "given twice", "inside the other", "this peer's key", "absolute", "is empty"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
