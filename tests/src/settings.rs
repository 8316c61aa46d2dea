//! A daemon's configuration, as the tests change it.

use anyhow::{Context, Result};
use toml::{Table, Value};

/// A TOML table with paths: `settings.set("grpc.plaintext", "loopback")`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(Table);

impl Settings {
    /// Puts `value` at the dotted `path`, making the tables on the way; what is no table on the way is replaced.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> &mut Settings {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.at(tables).insert(key.to_owned(), value.into());
        self
    }

    /// Takes away what is at the dotted `path`.
    pub fn remove(&mut self, path: &str) -> &mut Settings {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.at(tables).remove(key);
        self
    }

    /// Adds a `[[share]]`.
    pub fn add_share(&mut self, share: Table) -> &mut Settings {
        if let Value::Array(shares) = self.0.entry("share").or_insert_with(|| Value::Array(Vec::new())) {
            shares.push(Value::Table(share));
        }
        self
    }

    /// Takes all shares away.
    pub fn clear_shares(&mut self) -> &mut Settings {
        self.0.remove("share");
        self
    }

    /// The text at the dotted `path`.
    pub fn text(&self, path: &str) -> Option<&str> {
        let mut keys = path.split('.');
        let first = self.0.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))?.as_str()
    }

    /// As a file holds it.
    ///
    /// # Errors
    /// Where TOML cannot say it.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.0).context("these settings cannot be written as TOML")
    }

    fn at(&mut self, tables: &str) -> &mut Table {
        let mut table = &mut self.0;
        for key in tables.split('.').filter(|key| !key.is_empty()) {
            let slot = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            if !slot.is_table() {
                *slot = Value::Table(Table::new());
            }
            let Value::Table(next) = slot else { unreachable!("it was made a table just now") };
            table = next;
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_into_tables() {
        let mut settings = Settings::default();
        settings.set("name", "P1").set("rest.listen", "127.0.0.1:0").set("rest.require_token", false);
        assert_eq!(settings.text("rest.listen"), Some("127.0.0.1:0"));
        settings.remove("rest.require_token").set("rest.listen", "[::1]:0");
        assert_eq!(settings.to_toml().unwrap(), "name = \"P1\"\n\n[rest]\nlisten = \"[::1]:0\"\n");
    }
}
