//! What an administrator can decide: the keys of `maestrod.toml`, their defaults, and what is wrong with them.
//!
//! Pure but for [`Config::load`]. Called by the program's edge, at start and for a reload; the rooms get the values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use p2p_service::config::{ConfigError, Reloaded};
use serde::{Deserialize, Serialize};

use crate::directory::postgres::{OpenError, Settings, check_address};

/// The `store` that is a file in the state directory.
pub const EMBEDDED: &str = "sqlite";

/// The file that is read when no other is named, if it is there.
pub const DEFAULT_PATH: &str = "/etc/maestrod/maestrod.toml";

/// Longest `name`, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest lease, in seconds: a peer that left without a word is not shown for longer than this.
const MAX_LEASE_SECS: u32 = 3600;
/// Longest life of a membership, in days: peers honour it that long without asking anyone.
const MAX_MEMBERSHIP_DAYS: u32 = 366;
/// Least and most of `rest.max_body_bytes`.
const BODY_BYTES: std::ops::RangeInclusive<u32> = 4096..=256 << 20;
/// Most of `directory.keep_unseen_days`.
const MAX_KEEP_UNSEEN_DAYS: u32 = 36_500;

/// The whole configuration. What the file does not say has the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What this maestro calls itself; shown to its peers.
    pub name: String,
    /// Where its identity, its join token and its database are.
    pub state_dir: PathBuf,
    /// Where the directory is kept: [`EMBEDDED`], or the address of a PostgreSQL database.
    pub store: String,
    /// A file with that database's password, for maestrod's user alone; empty: there is none.
    pub store_password_file: PathBuf,
    /// A file with the certificates that the database's must come from; empty: those of the system.
    pub store_ca_file: PathBuf,
    /// What is logged, as a filter of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The REST interface.
    pub rest: Rest,
    /// The interface that peers speak.
    pub grpc: Grpc,
    /// Who may become a peer.
    pub admission: Admission,
    /// The index.
    pub directory: Directory,
    /// How often a connected peer gets a new membership. Not in the file: only tests need another value.
    #[serde(skip, default = "renew_every")]
    pub renew_every: Duration,
}

/// `[rest]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// Host and port.
    pub listen: String,
    /// Who may `POST /register`.
    pub register: RegisterFrom,
    /// Names by which the interface may be called, beside the loopback's and the address it listens on.
    pub allowed_hosts: Vec<String>,
    /// Requests of one address in a second, at the most; 0: any number.
    pub requests_per_sec: u32,
    /// Registrations of one address in a minute, at the most; 0: any number.
    pub registrations_per_min: u32,
    /// Bytes of a registration, at the most.
    pub max_body_bytes: u32,
}

/// `[grpc]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// Host and port.
    pub listen: String,
}

/// `[admission]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// What a new peer must show.
    pub policy: Policy,
    /// Life of a membership, in days.
    pub membership_days: u32,
}

/// `[directory]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Directory {
    /// How long the files of a peer whose stream broke stay visible, in seconds.
    pub lease_secs: u32,
    /// How many days a peer is kept that is not seen; 0: for ever.
    pub keep_unseen_days: u32,
}

/// Who may `POST /register`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterFrom {
    /// Programs on this machine.
    Loopback,
    /// Everyone who reaches the interface.
    Anyone,
    /// Nobody.
    Off,
}

/// What a new peer must show to be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The join token, once. Peers on the maestro's own machine need none.
    Token,
    /// Nothing: whoever connects is a peer.
    Open,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "maestro".to_owned(),
            state_dir: PathBuf::from("/var/lib/maestrod"),
            store: EMBEDDED.to_owned(),
            store_password_file: PathBuf::new(),
            store_ca_file: PathBuf::new(),
            log: "info".to_owned(),
            rest: Rest::default(),
            grpc: Grpc::default(),
            admission: Admission::default(),
            directory: Directory::default(),
            renew_every: renew_every(),
        }
    }
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            listen: "127.0.0.1:9000".to_owned(),
            register: RegisterFrom::Loopback,
            allowed_hosts: Vec::new(),
            requests_per_sec: 5000,
            registrations_per_min: 600,
            max_body_bytes: 16 << 20,
        }
    }
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc { listen: "[::]:9010".to_owned() }
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission { policy: Policy::Token, membership_days: 7 }
    }
}

impl Default for Directory {
    fn default() -> Directory {
        Directory { lease_secs: 15, keep_unseen_days: 90 }
    }
}

/// Often enough that a membership of one day never runs out under a connected peer.
fn renew_every() -> Duration {
    Duration::from_secs(6 * 3600)
}

impl Config {
    /// Reads the file at `path`. The values are not checked yet: flags may still replace them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the file and the line.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        p2p_service::config::load(path)
    }

    /// What the types cannot say is wrong: each key, and one sentence about its value.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, what: Option<String>| {
            problems.extend(what.map(|what| (key.to_owned(), what)));
        };
        let name_is_wrong = self.name.trim().is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || self.name.chars().any(char::is_control);
        let what = || {
            format!("must be 1 to {MAX_NAME_BYTES} bytes without control characters, and is {:?}", self.name)
        };
        wrong("name", name_is_wrong.then(what));
        let what = || "is empty; name a directory".to_owned();
        wrong("state_dir", self.state_dir.as_os_str().is_empty().then(what));
        let is_embedded = self.store == EMBEDDED;
        wrong("store", if is_embedded { None } else { check_address(&self.store) });
        for (key, file) in
            [("store_password_file", &self.store_password_file), ("store_ca_file", &self.store_ca_file)]
        {
            let what = || "is of a PostgreSQL database, and store names none; leave it empty".to_owned();
            wrong(key, (is_embedded && !file.as_os_str().is_empty()).then(what));
        }
        wrong("log", p2p_service::log::check_filter(&self.log));
        wrong("rest.listen", p2p_service::listen::check_address(&self.rest.listen));
        wrong("grpc.listen", p2p_service::listen::check_address(&self.grpc.listen));
        let between = |value: u32, most: u32| {
            (!(1..=most).contains(&value)).then(|| format!("must be 1 to {most}, and is {value}"))
        };
        let body_bytes = self.rest.max_body_bytes;
        let (least, most) = BODY_BYTES.into_inner();
        let what = || format!("must be {least} to {most}, and is {body_bytes}");
        wrong("rest.max_body_bytes", (!BODY_BYTES.contains(&body_bytes)).then(what));
        let days = self.directory.keep_unseen_days;
        let what = || format!("must be 0 to {MAX_KEEP_UNSEEN_DAYS}, and is {days}");
        wrong("directory.keep_unseen_days", (days > MAX_KEEP_UNSEEN_DAYS).then(what));
        wrong("directory.lease_secs", between(self.directory.lease_secs, MAX_LEASE_SECS));
        wrong("admission.membership_days", between(self.admission.membership_days, MAX_MEMBERSHIP_DAYS));
        problems
    }

    /// Whether a reload takes a change of this key.
    pub fn is_live(key: &str) -> bool {
        let live = [
            "name",
            "rest.register",
            "rest.requests_per_sec",
            "rest.registrations_per_min",
            "admission.policy",
            "admission.membership_days",
            "directory.lease_secs",
            "directory.keep_unseen_days",
        ];
        live.contains(&key)
    }

    /// The PostgreSQL database that `store` names, with its password read. `None`: the embedded one.
    ///
    /// # Errors
    ///
    /// If the address is none, or a file cannot be read or is open to others.
    pub fn database(&self) -> Result<Option<Settings>, OpenError> {
        if self.store == EMBEDDED {
            return Ok(None);
        }
        let file = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let (password, ca) = (file(&self.store_password_file), file(&self.store_ca_file));
        Settings::new(&self.store, password.as_deref(), ca.as_deref()).map(Some)
    }

    /// How long the files of a peer whose stream broke stay visible.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(u64::from(self.directory.lease_secs))
    }

    /// What this configuration becomes when it is replaced by `new` without a restart, with what changed and what only
    /// a restart can change.
    pub fn reloaded(&self, new: Config) -> (Config, Reloaded) {
        let reloaded = Reloaded::of(self, &new, Config::is_live);
        let config = Config {
            state_dir: self.state_dir.clone(),
            store: self.store.clone(),
            store_password_file: self.store_password_file.clone(),
            store_ca_file: self.store_ca_file.clone(),
            log: self.log.clone(),
            rest: Rest {
                register: new.rest.register,
                requests_per_sec: new.rest.requests_per_sec,
                registrations_per_min: new.rest.registrations_per_min,
                ..self.rest.clone()
            },
            grpc: self.grpc.clone(),
            renew_every: self.renew_every,
            name: new.name,
            admission: new.admission,
            directory: new.directory,
        };
        (config, reloaded)
    }
}

#[cfg(test)]
mod tests {
    use p2p_service::config::Change;

    use super::*;

    #[test]
    fn the_sample_says_exactly_the_defaults() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/maestrod.toml");
        assert_eq!(Config::load(&sample).unwrap(), Config::default());
        // Every key is in the sample, in the open: an administrator finds all of them there.
        let text = std::fs::read_to_string(&sample).unwrap();
        let said: toml::Table = toml::from_str(&text).unwrap();
        let known = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(said, known);
    }

    #[test]
    fn unknown_keys_are_refused_in_every_section() {
        for text in
            ["nmae = 'x'", "[rest]\nport = 1", "[grpc]\nx = 1", "[admission]\nx = 1", "[directory]\nx = 1"]
        {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_bad_values_are_named_at_once() {
        let config = Config {
            name: "a\nb".to_owned(),
            store: "postgresql://u:secret@db/x".to_owned(),
            log: "loud=very".to_owned(),
            rest: Rest { listen: "9000".to_owned(), max_body_bytes: 1, ..Rest::default() },
            directory: Directory { lease_secs: 0, keep_unseen_days: u32::MAX },
            admission: Admission { membership_days: 1000, ..Admission::default() },
            ..Config::default()
        };
        let keys: Vec<String> = config.problems().into_iter().map(|(key, _)| key).collect();
        let expected = [
            "name",
            "store",
            "log",
            "rest.listen",
            "rest.max_body_bytes",
            "directory.keep_unseen_days",
            "directory.lease_secs",
            "admission.membership_days",
        ];
        assert_eq!(keys, expected);
        assert_eq!(Config::default().problems(), []);
        let config = Config { store_password_file: PathBuf::from("/x"), ..Config::default() };
        assert_eq!(config.problems()[0].0, "store_password_file");
    }

    #[test]
    fn a_reload_takes_what_can_change_and_names_the_rest() {
        let old = Config::default();
        let mut new = old.clone();
        new.name = "other".to_owned();
        new.directory.lease_secs = 30;
        new.rest.requests_per_sec = 7;
        new.rest.max_body_bytes = 8192;
        new.grpc.listen = "[::]:1".to_owned();
        new.rest.listen = "127.0.0.1:1".to_owned();
        new.rest.register = RegisterFrom::Off;
        let (config, reloaded) = old.reloaded(new.clone());
        let keys = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
        assert_eq!(
            keys(&reloaded.taken),
            ["directory.lease_secs", "name", "rest.register", "rest.requests_per_sec"]
        );
        assert_eq!(keys(&reloaded.refused), ["grpc.listen", "rest.listen", "rest.max_body_bytes"]);
        assert_eq!(config.rest.listen, old.rest.listen);
        // What was told to be in force is.
        assert_eq!(Reloaded::of(&config, &new, Config::is_live).taken, []);
        assert_eq!(config.rest.register, RegisterFrom::Off);
    }
}
