//! Bodies of the REST interfaces, with exactly the keys of the first system. Answers may gain keys; they lose none.

use std::collections::BTreeMap;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::control::Origin;

/// Where a peer is reached, in the first system's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerRef {
    /// Base URL of its REST interface.
    pub rest: String,
    /// Port of its gRPC interface.
    pub grpc_port: u16,
    /// Its peer ID in base32. Absent for a plain peer of the first system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// BLAKE3 hash, in hex, of what this peer has under the name that was asked for. Absent where nobody vouches for
    /// the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Who said so. A peer's `/locate` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The name of who said so: a maestro's, or a friend's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
    /// When that was said, in milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_ms: Option<i64>,
}

/// `GET /` of the maestro.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaestroRoot {
    /// `Servidor Maestro P2P`.
    pub message: String,
    /// `activo`.
    pub status: String,
    /// How many peers are visible now.
    pub peers_registrados: u64,
    /// The maestro's identity in base32.
    pub maestro_id: String,
    /// Version of the program.
    pub version: String,
}

/// One peer in `GET /peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerFiles {
    /// Base URL of its REST interface.
    pub rest: String,
    /// Port of its gRPC interface.
    pub grpc_port: u16,
    /// Names of its files: the first 1000, in order; `/files?peer=` and the gRPC interface page through more.
    pub files: Vec<String>,
    /// How many files it has in all.
    pub files_total: u64,
    /// Their bytes; 0 for a plain peer, who does not say.
    #[serde(default)]
    pub bytes: u64,
    /// `connected`; `lease`: its stream broke, and its files are shown a little longer; `away`: its files are not shown;
    /// `plain`: a peer of the first system, which is listed until it registers another list.
    #[serde(default)]
    pub state: String,
    /// `host:port` of its gRPC port, best first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Version of its program. Absent for a plain peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was last heard of, in milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub last_seen_ms: i64,
    /// Its peer ID in base32. Absent for a plain peer of the first system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `GET /peers` of the maestro.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// The visible peers, or all that are known, as asked.
    pub peers: Vec<PeerFiles>,
    /// Cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /directory` of the maestro.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectoryListing {
    /// Name → who has it.
    pub directory: BTreeMap<String, Vec<PeerRef>>,
    /// Cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /locate` of the maestro and of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Located {
    /// The name that was asked for.
    pub file: String,
    /// Who has it; empty where nobody does.
    pub peers: Vec<PeerRef>,
}

/// Files that a plain peer may register.
pub const MAX_REGISTERED_FILES: usize = 100_000;

/// Body of `POST /register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// Base URL of the peer's REST interface; what identifies a plain peer.
    pub peer: String,
    /// Names of its files. Replaces what it registered before.
    #[serde(deserialize_with = "some_names")]
    pub files: Vec<String>,
    /// Port of its `files.FileService`.
    pub grpc_port: u16,
}

/// Reads one name more than may be registered, which is enough to refuse them: a list of empty names takes many times its
/// length in memory.
fn some_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of names")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Vec<String>, A::Error> {
            let mut read = Vec::new();
            while read.len() <= MAX_REGISTERED_FILES {
                let Some(name) = names.next_element()? else { return Ok(read) };
                read.push(name);
            }
            while names.next_element::<IgnoredAny>()?.is_some() {}
            Ok(read)
        }
    }

    deserializer.deserialize_seq(Names)
}

/// Answer to `POST /register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// `registered`.
    pub status: String,
    /// As sent.
    pub peer: String,
    /// As sent.
    pub files: Vec<String>,
    /// As sent.
    pub grpc_port: u16,
}

/// `GET /` of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerRoot {
    /// `Peer P1`.
    pub message: String,
    /// `activo`.
    pub status: String,
    /// How many files it shares.
    pub archivos: u64,
}

/// `GET /files` of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerFileNames {
    /// The peer's name.
    pub peer: String,
    /// Names of its files, in order.
    pub files: Vec<String>,
    /// Cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /info` of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerInfo {
    /// The peer's name.
    pub id: String,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// Port of its gRPC interface.
    pub grpc_port: u16,
    /// Names of its files: the first page.
    pub files: Vec<String>,
    /// Its peer ID in base32.
    pub peer_id: String,
}

/// `GET /search` of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerHas {
    /// The peer's name.
    pub peer: String,
    /// The name that was asked for.
    pub file: String,
    /// Whether this peer has it.
    pub exists: bool,
}

/// Answer to `POST /refresh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refreshed {
    /// `updated`.
    pub status: String,
    /// Names of this peer's files: the first page.
    pub files: Vec<String>,
    /// What the maestro said of it.
    pub maestro_response: MaestroResponse,
}

/// What the maestro holds after a refresh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaestroResponse {
    /// `registered` where the maestro acknowledged the catalog as it is; else `pending`, and it is told once it answers.
    pub status: String,
    /// Why it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Answer to `POST /upload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// Whether the file is in the shared directory.
    pub ok: bool,
    /// What happened, for a person.
    pub message: String,
    /// BLAKE3 hash of the bytes that arrived, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
