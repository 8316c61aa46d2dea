//! What an administrator can decide: the keys of `maestrod.toml`, their defaults, and what is wrong with them.
//!
//! Pure but for [`Config::load`]. Called by the program's edge, at start and for a reload; the rooms get the values.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use p2p_service::config::ConfigError;
use serde::{Deserialize, Serialize};

/// The file that is read when no other is named, if it is there.
pub const DEFAULT_PATH: &str = "/etc/maestrod/maestrod.toml";

/// Longest `name`, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest lease, in seconds: a peer that left without a word is not shown for longer than this.
const MAX_LEASE_SECS: u32 = 3600;
/// Longest life of a membership, in days: peers honour it that long without asking anyone.
const MAX_MEMBERSHIP_DAYS: u32 = 366;

/// The whole configuration. What the file does not say has the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What this maestro calls itself; shown to its peers.
    pub name: String,
    /// Where its identity, its join token and its database are.
    pub state_dir: PathBuf,
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
        Directory { lease_secs: 15 }
    }
}

/// Often enough that a membership of one day never runs out under a connected peer.
fn renew_every() -> Duration {
    Duration::from_secs(6 * 3600)
}

/// Values that parse and cannot be used: all of them, so that they can be corrected at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidValues(Vec<String>);

impl fmt::Display for InvalidValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
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

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// [`InvalidValues`], with one sentence per value.
    pub fn check(&self) -> Result<(), InvalidValues> {
        let mut problems = Vec::new();
        if self.name.trim().is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || self.name.chars().any(char::is_control)
        {
            problems.push(format!(
                "'name' must be 1 to {MAX_NAME_BYTES} bytes without control characters, and is {:?}",
                self.name
            ));
        }
        if self.state_dir.as_os_str().is_empty() {
            problems.push("'state_dir' is empty; name a directory".to_owned());
        }
        let lease_secs = self.directory.lease_secs;
        if !(1..=MAX_LEASE_SECS).contains(&lease_secs) {
            problems
                .push(format!("'directory.lease_secs' must be 1 to {MAX_LEASE_SECS}, and is {lease_secs}"));
        }
        let days = self.admission.membership_days;
        if !(1..=MAX_MEMBERSHIP_DAYS).contains(&days) {
            problems.push(format!(
                "'admission.membership_days' must be 1 to {MAX_MEMBERSHIP_DAYS}, and is {days}"
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(InvalidValues(problems)) }
    }

    /// How long the files of a peer whose stream broke stay visible.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(u64::from(self.directory.lease_secs))
    }

    /// What this configuration becomes when it is replaced by `new` without a restart, with the keys that changed and
    /// those that keep their values because only a restart can change them.
    pub fn reloaded(&self, new: Config) -> Reloaded {
        let mut changed = Vec::new();
        let mut needs_restart = Vec::new();
        let note = |differs: bool, key: &'static str, keys: &mut Vec<&'static str>| {
            if differs {
                keys.push(key);
            }
        };
        note(new.name != self.name, "name", &mut changed);
        note(new.rest.register != self.rest.register, "rest.register", &mut changed);
        note(new.admission.policy != self.admission.policy, "admission.policy", &mut changed);
        let days_differ = new.admission.membership_days != self.admission.membership_days;
        note(days_differ, "admission.membership_days", &mut changed);
        note(new.directory != self.directory, "directory.lease_secs", &mut changed);
        note(new.state_dir != self.state_dir, "state_dir", &mut needs_restart);
        note(new.log != self.log, "log", &mut needs_restart);
        note(new.rest.listen != self.rest.listen, "rest.listen", &mut needs_restart);
        note(new.rest.allowed_hosts != self.rest.allowed_hosts, "rest.allowed_hosts", &mut needs_restart);
        note(new.grpc != self.grpc, "grpc.listen", &mut needs_restart);
        let config = Config {
            state_dir: self.state_dir.clone(),
            log: self.log.clone(),
            rest: Rest { register: new.rest.register, ..self.rest.clone() },
            grpc: self.grpc.clone(),
            renew_every: self.renew_every,
            name: new.name,
            admission: new.admission,
            directory: new.directory,
        };
        Reloaded { config, changed, needs_restart }
    }
}

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What holds from now on.
    pub config: Config,
    /// Keys whose new values hold.
    pub changed: Vec<&'static str>,
    /// Keys whose old values still hold.
    pub needs_restart: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
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
            directory: Directory { lease_secs: 0 },
            admission: Admission { membership_days: 1000, ..Admission::default() },
            ..Config::default()
        };
        let message = config.check().unwrap_err().to_string();
        for key in ["'name'", "'directory.lease_secs'", "'admission.membership_days'"] {
            assert!(message.contains(key), "{key} is not in: {message}");
        }
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_reload_takes_what_can_change_and_names_the_rest() {
        let old = Config::default();
        let mut new = old.clone();
        new.name = "other".to_owned();
        new.directory.lease_secs = 30;
        new.grpc.listen = "[::]:1".to_owned();
        new.rest.listen = "127.0.0.1:1".to_owned();
        new.rest.register = RegisterFrom::Off;
        let reloaded = old.reloaded(new);
        assert_eq!(reloaded.changed, ["name", "rest.register", "directory.lease_secs"]);
        assert_eq!(reloaded.needs_restart, ["rest.listen", "grpc.listen"]);
        assert_eq!(reloaded.config.rest.listen, old.rest.listen);
        assert_eq!(reloaded.config.rest.register, RegisterFrom::Off);
        assert_eq!(reloaded.config.grpc, old.grpc);
        assert_eq!((reloaded.config.name.as_str(), reloaded.config.directory.lease_secs), ("other", 30));
    }
}
