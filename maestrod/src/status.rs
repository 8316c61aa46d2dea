//! `maestrod status`: what the maestro that runs holds, asked of it. The body is that of `GET /status`.

use std::time::Duration;

use p2p_service::status::{counted, duration, grouped, size};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ask::ask;
use crate::config::Config;

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The maestro's identity in base32.
    pub maestro_id: String,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Its peers.
    pub peers: PeerCounts,
    /// Files of the peers that are here.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Different contents that are known, of peers here or away, as counted last. Absent before the first count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<u64>,
    /// Bytes of the database, with its log.
    pub database_bytes: u64,
    /// About how many names are so new that their parts are not found yet.
    pub names_unindexed: u64,
}

/// How many peers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerCounts {
    /// With an open stream.
    pub connected: u64,
    /// Whose files are shown: these, those whose lease runs, and plain peers.
    pub here: u64,
    /// All that are not forgotten.
    pub known: u64,
}

/// Asks the maestro of this configuration.
///
/// # Errors
///
/// What is wrong and what to do, where it does not answer.
pub async fn ask_running(config: &Config) -> Result<Status, String> {
    let listen = &config.rest.listen;
    ask(listen, "/status").await.map_err(|why| {
        format!(
            "maestrod does not answer on {listen}: {why}; `maestrod doctor` examines it, and one that listens \
             elsewhere is asked with --rest-listen"
        )
    })
}

impl Status {
    /// For people.
    pub fn to_text(&self) -> String {
        let PeerCounts { connected, here, known } = self.peers;
        let uptime = duration(Duration::from_secs(self.uptime_secs));
        let contents = self.contents.map_or_else(|| "not counted yet".to_owned(), grouped);
        let mut text = format!(
            "maestrod   {}, runs for {uptime}\nidentity   {}\npeers      {} connected, {} here, {} known\n\
             files      {}, {}\ncontents   {contents}\ndatabase   {}",
            self.version,
            self.maestro_id,
            grouped(connected),
            grouped(here),
            grouped(known),
            grouped(self.files),
            size(self.bytes),
            size(self.database_bytes)
        );
        if self.names_unindexed > 0 {
            let names = counted(self.names_unindexed, "name is", "names are");
            text.push_str(&format!("\nsearch     {names} being indexed"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_for_people() {
        let status = Status {
            version: "0.1.0".to_owned(),
            maestro_id: "abc".to_owned(),
            uptime_secs: 7200,
            peers: PeerCounts { connected: 3, here: 4, known: 1200 },
            files: 12_345,
            bytes: 5 << 30,
            contents: Some(12_000),
            database_bytes: 3 << 20,
            names_unindexed: 0,
        };
        let text = status.to_text();
        for said in ["3 connected, 4 here, 1,200 known", "12,345", "12,000", "0.1.0, runs for "] {
            assert!(text.contains(said), "{text}");
        }
        assert!(!text.contains("indexed"));
        let status = Status { contents: None, names_unindexed: 1, ..status };
        assert!(status.to_text().contains("not counted yet"));
        assert!(status.to_text().ends_with("1 name is being indexed"));
    }
}
