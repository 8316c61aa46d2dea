//! Where the daemon of one user keeps its things, as the XDG base directories say: `p2pd --user`.
//!
//! Called by `main`, before the configuration is checked. Reads the environment through a function, and no files.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::Config;

/// A user's own places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDirs {
    /// The configuration file that is read, if it is there.
    pub config_file: PathBuf,
    /// Identity, catalog and transfers.
    pub state_dir: PathBuf,
    /// The control socket; none where the session has no directory for it.
    pub socket: Option<PathBuf>,
}

/// The environment names no home.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--user needs to know your home directory, and HOME is not set to an absolute path; set it")]
pub struct NoHome;

impl UserDirs {
    /// Finds them in the environment, which `variable` reads.
    ///
    /// # Errors
    /// [`NoHome`], where neither `HOME` nor the XDG variables that stand for it are set.
    pub fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, NoHome> {
        // The specification has relative paths ignored.
        let directory = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = directory("HOME");
        let base = |name: &str, below_home: &str| {
            directory(name).or_else(|| Some(home.as_ref()?.join(below_home))).ok_or(NoHome)
        };
        Ok(Self {
            config_file: base("XDG_CONFIG_HOME", ".config")?.join("p2pd/p2pd.toml"),
            state_dir: base("XDG_STATE_HOME", ".local/state")?.join("p2pd"),
            socket: directory("XDG_RUNTIME_DIR").map(|path| path.join("p2pd/control.sock")),
        })
    }

    /// Puts the user's places where the configuration has the system's. Says which keys have another value now.
    pub fn replace_defaults(&self, config: &mut Config) -> Vec<&'static str> {
        let (system, mut keys) = (Config::default(), Vec::new());
        if config.state_dir == system.state_dir {
            config.move_state(self.state_dir.clone());
            keys.push("state_dir");
        }
        if let Some(socket) = self.socket.as_ref().filter(|_| config.control.socket == system.control.socket)
        {
            config.control.socket.clone_from(socket);
            keys.push("control.socket");
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<UserDirs, NoHome> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        UserDirs::find(get)
    }

    #[test]
    fn the_variables_go_before_the_usual_places() {
        let usual = find(&[("HOME", "/home/ana"), ("XDG_STATE_HOME", "relative")]).unwrap();
        assert_eq!(usual.config_file, Path::new("/home/ana/.config/p2pd/p2pd.toml"));
        assert_eq!(usual.state_dir, Path::new("/home/ana/.local/state/p2pd"));
        assert_eq!(usual.socket, None);

        let named = [("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")];
        let named = find(&named).unwrap();
        assert_eq!(named.config_file, Path::new("/c/p2pd/p2pd.toml"));
        assert_eq!(named.state_dir, Path::new("/s/p2pd"));
        assert_eq!(named.socket.as_deref(), Some(Path::new("/r/p2pd/control.sock")));

        assert_eq!(find(&[]), Err(NoHome));
    }

    #[test]
    fn what_the_configuration_says_itself_stays() {
        let dirs = find(&[("HOME", "/home/ana"), ("XDG_RUNTIME_DIR", "/run/user/1000")]).unwrap();
        let mut config = Config::default();
        assert_eq!(dirs.replace_defaults(&mut config), ["state_dir", "control.socket"]);
        assert_eq!(config.state_dir, Path::new("/home/ana/.local/state/p2pd"));
        assert_eq!(config.shares[0].path, Path::new("/home/ana/.local/state/p2pd/shared"));
        assert_eq!(config.control.socket, Path::new("/run/user/1000/p2pd/control.sock"));

        let mut own = Config { state_dir: "/data/peer".into(), ..Config::default() };
        own.control.socket = "/data/peer.sock".into();
        let before = own.clone();
        assert!(dirs.replace_defaults(&mut own).is_empty());
        assert_eq!(own, before);
    }
}
