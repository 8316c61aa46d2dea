//! What differs between two configurations, key by key. Pure; used by daemons at a reload.

use serde::Serialize;
use toml::Value;

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key: `transfers.running`, `share[docs].path`.
    pub key: String,
    /// Its old value, as TOML; `None` where there was none.
    pub old: Option<String>,
    /// Its new value.
    pub new: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} → {}", self.key, shown(&self.old), shown(&self.new))
    }
}

/// The keys whose values differ.
pub fn changes<T: Serialize>(old: &T, new: &T) -> Vec<Change> {
    let (old, new) = (flat(old), flat(new));
    let of = |values: &[(String, Value)], key: &str| {
        values.iter().find(|(known, _)| known == key).map(|(_, value)| value.to_string())
    };
    let gone = old.iter().filter(|(key, _)| of(&new, key).is_none());
    let keys = gone.chain(&new).map(|(key, _)| key);
    keys.map(|key| Change { key: key.clone(), old: of(&old, key), new: of(&new, key) })
        .filter(|change| change.old != change.new)
        .collect()
}

/// Every key with its value, tables taken apart.
pub(super) fn flat<T: Serialize>(config: &T) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    // A configuration is made of what TOML can say.
    if let Ok(table) = toml::Table::try_from(config) {
        for (key, value) in table {
            flatten(key, value, &mut values);
        }
    }
    values
}

fn flatten(key: String, value: Value, values: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (inner, value) in table {
                flatten(format!("{key}.{inner}"), value, values);
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            for (index, value) in array.into_iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                flatten(format!("{key}[{name}]"), value, values);
            }
        }
        value => values.push((key, value)),
    }
}

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values are in force.
    pub taken: Vec<Change>,
    /// Keys whose old values stay in force until a restart.
    pub refused: Vec<Change>,
}

impl Reloaded {
    /// Sorts what differs by whether a reload can take it.
    pub fn of<T: Serialize>(old: &T, new: &T, is_live: impl Fn(&str) -> bool) -> Reloaded {
        let (taken, refused) = changes(old, new).into_iter().partition(|change| is_live(&change.key));
        Reloaded { taken, refused }
    }

    /// Tells the log, with a line for each key.
    pub fn log(&self, program: &str) {
        for change in &self.taken {
            let Change { key, old, new } = change;
            tracing::info!(key, old, new, "configuration changed: {change}");
        }
        for change in &self.refused {
            let Change { key, old, new } = change;
            tracing::warn!(
                key,
                old,
                new,
                "not changed without a restart: {change}; the old value stays until `systemctl restart {program}`"
            );
        }
        if self.taken.is_empty() && self.refused.is_empty() {
            tracing::info!("the configuration was read again and is the same");
        }
    }
}

/// Tells the log why a configuration was not taken, with a line for each thing that is wrong.
pub fn log_refused(error: &super::ConfigError) {
    for line in error.lines() {
        tracing::error!(
            reason = line,
            "the configuration is not valid and the old one stays: {line}; correct it and reload again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Config {
        name: &'static str,
        rest: Rest,
        share: Vec<Share>,
    }

    #[derive(Serialize)]
    struct Rest {
        hosts: Vec<&'static str>,
    }

    #[derive(Serialize)]
    struct Share {
        name: &'static str,
        path: &'static str,
    }

    #[test]
    fn each_key_that_differs_is_told_with_both_values() {
        let share = |name, path| Share { name, path };
        let old = Config {
            name: "a",
            rest: Rest { hosts: vec![] },
            share: vec![share("docs", "/d"), share("isos", "/i")],
        };
        let new = Config {
            name: "a",
            rest: Rest { hosts: vec!["x"] },
            share: vec![share("music", "/m"), share("docs", "/e")],
        };
        let told: Vec<String> = changes(&old, &new).iter().map(Change::to_string).collect();
        assert_eq!(
            told,
            [
                "share[isos].name: \"isos\" → nothing",
                "share[isos].path: \"/i\" → nothing",
                "rest.hosts: [] → [\"x\"]",
                "share[music].name: nothing → \"music\"",
                "share[music].path: nothing → \"/m\"",
                "share[docs].path: \"/d\" → \"/e\"",
            ]
        );
        let reloaded = Reloaded::of(&old, &new, |key| key.starts_with("share["));
        assert_eq!(reloaded.refused.len(), 1);
        assert_eq!(reloaded.refused[0].key, "rest.hosts");
    }
}
