//! The configuration in force, as `GET /v1/config` tells it, and how people read it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// `GET /v1/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigAnswer {
    /// The file that was read; absent where there was none.
    pub file: Option<String>,
    /// Every key. There are no secrets in the configuration.
    pub entries: Vec<ConfigEntry>,
}

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigEntry {
    /// Its path: `transfers.running`, `share[docs].path`.
    pub key: String,
    /// Its value, as it is in force now.
    pub value: Value,
    /// Where that comes from.
    pub origin: ConfigOrigin,
    /// Whether a change of it needs a restart.
    pub needs_restart: bool,
    /// The value that the file has since the last reload, where only a restart will put it in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_restart: Option<Value>,
    /// What holds now in place of it, where something goes before the configured value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<ConfigNow>,
}

/// What goes before a configured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigNow {
    /// What holds.
    pub value: Value,
    /// Why.
    pub why: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigOrigin {
    /// Nobody said anything else.
    Default,
    /// The configuration file.
    File,
    /// The command line.
    Flag,
}

impl ConfigAnswer {
    /// The configuration as a file of its own, with where each value comes from.
    pub fn to_toml(&self) -> String {
        let mut text = match &self.file {
            Some(file) => format!("# {file}, and the defaults\n"),
            None => "# no file was read: the defaults\n".to_owned(),
        };
        // What stands alone has to stand before the first table.
        let (alone, within): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|entry| !entry.key.contains(['.', '[']));
        for entry in alone {
            line(&mut text, &entry.key, entry);
        }
        // The tables of an array stand after the keys of the table that they are in.
        let mut within = within;
        within.sort_by_key(|entry| {
            let top = entry.key.split(['.', '[']).next().unwrap_or_default();
            (top, entry.key.contains('['))
        });
        let mut table = "";
        for entry in within {
            let Some((of, key)) = entry.key.rsplit_once('.') else { continue };
            if of != table {
                let header = match of.split_once('[') {
                    Some((array, _)) => format!("[[{array}]]"),
                    None => format!("[{of}]"),
                };
                let _ = write!(text, "\n{header}\n");
                table = of;
            }
            line(&mut text, key, entry);
        }
        text
    }
}

fn line(text: &mut String, key: &str, entry: &ConfigEntry) {
    let origin = match entry.origin {
        ConfigOrigin::Default => "default",
        ConfigOrigin::File => "file",
        ConfigOrigin::Flag => "flag",
    };
    let after = entry.after_restart.as_ref().map(|after| format!("; after a restart: {}", toml(after)));
    // To a String nothing fails to be written.
    let now = entry.now.as_ref().map(|now| format!("; now {}: {}", toml(&now.value), now.why));
    let [after, now] = [after, now].map(Option::unwrap_or_default);
    let _ = writeln!(text, "{key} = {}  # {origin}{after}{now}", toml(&entry.value));
}

/// What JSON writes of texts, numbers, truths and lists of them, TOML reads; but for one character.
fn toml(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_read_it_as_a_file() {
        let entry = |key: &str, value: Value, origin| ConfigEntry {
            key: key.to_owned(),
            value,
            origin,
            needs_restart: false,
            after_restart: None,
            now: None,
        };
        let mut entries = vec![
            entry("grpc.listen", json!("[::]:9002"), ConfigOrigin::Default),
            entry("limits.down", json!(0), ConfigOrigin::Default),
            entry("limits.schedule[0].from", json!("08:00"), ConfigOrigin::File),
            entry("limits.up", json!(0), ConfigOrigin::Default),
            entry("name", json!("a\"b"), ConfigOrigin::Flag),
            entry("share[a.b].name", json!("a.b"), ConfigOrigin::File),
            entry("share[a.b].path", json!("/a"), ConfigOrigin::File),
            entry("share[c].name", json!("c"), ConfigOrigin::File),
            entry("transfers.running", json!(4), ConfigOrigin::File),
        ];
        entries[8].after_restart = Some(json!(8));
        entries[3].now = Some(ConfigNow { value: json!(5), why: "the schedule".to_owned() });
        let text = ConfigAnswer { file: Some("/etc/x.toml".to_owned()), entries }.to_toml();
        let expected = "# /etc/x.toml, and the defaults\nname = \"a\\\"b\"  # flag\n\n[grpc]\nlisten = \
                        \"[::]:9002\"  # default\n\n[limits]\ndown = 0  # default\nup = 0  # default; now 5: \
                        the schedule\n\n[[limits.schedule]]\nfrom = \"08:00\"  # file\n\n[[share]]\nname = \"a.b\"  # file\npath = \"/a\"  # file\n\n\
                        [[share]]\nname = \"c\"  # file\n\n[transfers]\nrunning = 4  # file; after a restart: 8\n";
        assert_eq!(text, expected);
    }
}
