//! The configuration in force, for who asks what it is.

use p2p_proto::control::{ConfigEntry, ConfigOrigin};
use serde::Serialize;
use toml::Value;

use super::Sources;
use super::changes::flat;

/// Every key with its value and where that comes from. `is_live` says which keys a reload takes; `next`, where a reload
/// found other values, what will be in force after a restart.
pub fn entries<T: Serialize>(
    config: &T,
    next: Option<&T>,
    sources: &Sources,
    is_live: impl Fn(&str) -> bool,
) -> Vec<ConfigEntry> {
    let next = next.map(flat).unwrap_or_default();
    let entry = |(key, value): (String, Value)| {
        let is_flag = sources.flags.iter().any(|(flagged, _)| *flagged == key);
        // The tables of an array are in the file together, or not at all.
        let in_file = key.split_once('[').map_or(key.as_str(), |(array, _)| array);
        let origin = match &sources.document {
            _ if is_flag => ConfigOrigin::Flag,
            Some(document) if document.has(in_file) => ConfigOrigin::File,
            _ => ConfigOrigin::Default,
        };
        let after_restart = next.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        ConfigEntry {
            needs_restart: !is_live(&key),
            after_restart: after_restart.filter(|after| **after != value).map(json),
            now: None,
            value: json(&value),
            key,
            origin,
        }
    };
    flat(config).into_iter().map(entry).collect()
}

fn json(value: &Value) -> serde_json::Value {
    // TOML says nothing that JSON cannot, but times, which no configuration here has.
    serde_json::to_value(value).unwrap_or_default()
}
