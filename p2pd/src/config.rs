//! What a user can decide: the keys of `p2pd.toml`, their defaults, and what is wrong with them.
//!
//! Called by the program's edge, at start and for a reload; the rooms get the values.

use std::path::{Path, PathBuf};

use p2p_proto::control::Visibility;
use p2p_service::config::ConfigError;
use p2p_service::wire;
use serde::{Deserialize, Serialize};

use crate::limits::{Configured, Period, Rates};
use crate::serve::AcceptOffers;
use crate::shares::ShareConfig;
use crate::transfer::TransferSettings;

mod in_force;
mod maestro_list;
mod real_paths;

pub use in_force::InForce;
pub use maestro_list::MaestroList;
use real_paths::RealPaths;

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
    /// The maestros; none: those that were joined with `p2pctl join`, if any.
    pub maestro: MaestroList,
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
    /// How fast file data goes out and comes in.
    pub limits: Limits,
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

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes per second that are sent at the most; 0: as fast as it goes.
    pub up_bytes_per_sec: u64,
    /// Bytes per second that are fetched at the most; 0: as fast as it goes.
    pub down_bytes_per_sec: u64,
    /// Other rates for times of the week.
    pub schedule: Vec<Period>,
    /// Peers that are served at once.
    pub upload_slots: u32,
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
            maestro: MaestroList::default(),
            log: "info".to_owned(),
            control: Control::default(),
            rest: Rest::default(),
            grpc: Grpc::default(),
            transfers: Transfers::default(),
            limits: Limits::default(),
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

impl Default for Limits {
    fn default() -> Self {
        Self { up_bytes_per_sec: 0, down_bytes_per_sec: 0, schedule: Vec::new(), upload_slots: 32 }
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

    /// What the types cannot say is wrong: each key, and one sentence about its value.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, is_wrong: bool, what: &str| {
            if is_wrong {
                problems.push((key.to_owned(), what.to_owned()));
            }
        };
        wrong("name", self.name.len() > MAX_NAME_BYTES, "is longer than 255 bytes");
        wrong("name", self.name.chars().any(char::is_control), "has control characters");
        wrong("state_dir", !self.state_dir.is_absolute(), "must be an absolute path");
        wrong("control.socket", !self.control.socket.is_absolute(), "must be an absolute path");
        wrong("transfers.running", self.transfers.running == 0, "must be at least 1");
        wrong("limits.upload_slots", self.limits.upload_slots == 0, "must be at least 1");
        if let Some(what) = self.maestro.problem() {
            wrong("maestro", true, &what);
        }
        for (key, what) in crate::limits::schedule_problems(&self.limits.schedule) {
            wrong(&key, true, &what);
        }
        wrong("share", self.shares.is_empty(), "there is no [[share]]: give at least one directory to share");
        for (key, what) in [
            ("log", p2p_service::log::check_filter(&self.log)),
            ("rest.listen", p2p_service::listen::check_address(&self.rest.listen)),
            ("grpc.listen", p2p_service::listen::check_address(&self.grpc.listen)),
        ] {
            wrong(key, what.is_some(), what.as_deref().unwrap_or_default());
        }
        let paths = self.shares.iter().map(|share| share.path.as_path());
        let real = RealPaths::of(paths.chain([self.state_dir.as_path()]));
        for at in 0..self.shares.len() {
            self.share_problems(at, &real, &mut wrong);
        }
        problems
    }

    fn share_problems(&self, at: usize, real: &RealPaths, wrong: &mut impl FnMut(&str, bool, &str)) {
        let (share, before) = (&self.shares[at], &self.shares[..at]);
        let (name_key, path_key) = (format!("share[{at}].name"), format!("share[{at}].path"));
        let name = &share.name;
        wrong(&name_key, name.is_empty(), "a share's name is empty");
        wrong(&name_key, name.len() > MAX_NAME_BYTES, "a share's name is longer than 255 bytes");
        let taken = before.iter().any(|other| other.name == *name);
        wrong(
            &name_key,
            taken,
            &format!("the name {name:?} is given twice: each share has a name of its own"),
        );
        let relative = format!("the path of the share {name:?} must be absolute");
        wrong(&path_key, !share.path.is_absolute(), &relative);
        for other in before {
            let overlap = real.within(&share.path, &other.path) || real.within(&other.path, &share.path);
            let what = format!("the shares {name:?} and {:?} lie one inside the other", other.name);
            wrong(&path_key, overlap, &what);
        }
        let what = format!("the share {name:?} holds the state directory, and with it this peer's key");
        wrong(&path_key, real.within(&self.state_dir, &share.path), &what);
    }

    /// Whether a reload takes a change of this key.
    pub fn is_live(key: &str) -> bool {
        ["share[", "limits.", "transfers."].iter().any(|live| key.starts_with(live))
    }

    /// Takes another state directory. The default share lies in it, and moves with it.
    pub fn move_state(&mut self, dir: PathBuf) {
        let own = self.state_dir.join("shared");
        for share in self.shares.iter_mut().filter(|share| share.path == own) {
            share.path = dir.join("shared");
        }
        self.state_dir = dir;
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

    /// The limits, as they are kept to.
    pub fn configured_limits(&self) -> Configured {
        let Limits { up_bytes_per_sec, down_bytes_per_sec, schedule, upload_slots } = &self.limits;
        Configured {
            rates: Rates { up: *up_bytes_per_sec, down: *down_bytes_per_sec },
            schedule: schedule.clone(),
            upload_slots: *upload_slots as usize,
        }
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
        assert_eq!(config.problems(), []);
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
            log: "p2pd=loud".to_owned(),
            grpc: Grpc { listen: "9002".to_owned(), ..Grpc::default() },
            maestro: MaestroList::of(vec!["a".to_owned(), "a".to_owned()]),
            ..Config::default()
        };
        let told: Vec<String> =
            config.problems().iter().map(|(key, what)| format!("{key}: {what}")).collect();
        for (key, part) in [
            ("transfers.running", "at least 1"),
            ("share[1].name", "given twice"),
            ("share[1].path", "inside the other"),
            ("share[0].path", "this peer's key"),
            ("share[2].path", "absolute"),
            ("share[2].name", "is empty"),
            ("log", "such as"),
            ("grpc.listen", "HOST:PORT"),
            ("maestro", "twice"),
        ] {
            let is_it = |told: &String| told.starts_with(&format!("{key}: ")) && told.contains(part);
            assert!(told.iter().any(is_it), "{key} {part}: {told:?}");
        }
    }
}
