//! The configuration in force: what a reload makes of it, and what is told of it.
//!
//! Owns it while the daemon runs. The composition gives it out; `api` shows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p_proto::control::ConfigAnswer;
use p2p_service::config::{Reloaded, Sources, entries};

use super::Config;

/// The configuration in force. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct InForce {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    config: Config,
    /// What the file and the flags said when they were last read: in force after a restart.
    read: Config,
    sources: Sources,
}

impl InForce {
    /// With what the daemon starts with.
    pub fn new(config: Config, sources: Sources) -> InForce {
        InForce { held: Arc::new(Mutex::new(Held { read: config.clone(), config, sources })) }
    }

    /// As it is now.
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Takes what a reload can change, and says what it was and what it left.
    pub fn reload(&self, new: Config, sources: Sources) -> Reloaded {
        let mut held = self.lock();
        let reloaded = Reloaded::of(&held.config, &new, Config::is_live);
        held.config.shares.clone_from(&new.shares);
        held.config.transfers.clone_from(&new.transfers);
        held.config.limits.clone_from(&new.limits);
        held.read = new;
        held.sources = sources;
        reloaded
    }

    /// What `GET /v1/config` answers.
    pub fn answer(&self) -> ConfigAnswer {
        let held = self.lock();
        let file = held.sources.document.as_ref().map(|document| document.path().display().to_string());
        ConfigAnswer {
            file,
            entries: entries(&held.config, Some(&held.read), &held.sources, Config::is_live),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use p2p_service::config::Change;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_to_be_in_force_is() {
        let old = Config::default();
        let mut new = old.clone();
        new.name = "other".to_owned();
        new.shares[0].path = "/data".into();
        new.transfers.reserve_bytes = 1;
        new.transfers.allow_unproven = true;
        new.transfers.accept_offers = crate::serve::AcceptOffers::Off;
        new.transfers.running = 9;
        new.rest.listen = "127.0.0.1:1".to_owned();
        let in_force = InForce::new(old, Sources::default());
        let reloaded = in_force.reload(new.clone(), Sources::default());
        let keys = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
        let taken = [
            "share[shared].path",
            "transfers.accept_offers",
            "transfers.allow_unproven",
            "transfers.reserve_bytes",
            "transfers.running",
        ];
        assert_eq!(keys(&reloaded.taken), taken);
        assert_eq!(keys(&reloaded.refused), ["name", "rest.listen"]);
        let left = Reloaded::of(&in_force.config(), &new, Config::is_live);
        assert_eq!((left.taken, left.refused), (Vec::new(), reloaded.refused));
        let told = in_force.answer();
        let entry = told.entries.iter().find(|entry| entry.key == "rest.listen").unwrap();
        assert_eq!(
            (&entry.value, &entry.after_restart),
            (&json!("127.0.0.1:9001"), &Some(json!("127.0.0.1:1")))
        );
        assert!(entry.needs_restart);
    }
}
