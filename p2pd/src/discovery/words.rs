//! The words of discovery: what is asked for, and what is found.

use std::fmt;

use p2p_content::{ContentHash, FileName, NameError};
use p2p_identity::PeerId;
use p2p_proto::control::{Origin, PeerName};
use p2p_proto::v1;
use serde::{Deserialize, Serialize};

use super::now_ms;

/// Addresses of one peer, and sources of one content, that are taken from an answer.
const MAX_ADDRESSES: usize = 16;
const MAX_SOURCES: usize = 64;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Whatever has exactly this name.
    Name(FileName),
    /// These bytes, whatever their name.
    Content(ContentHash),
}

impl Query {
    /// 64 hex digits are a content, everything else is a name.
    ///
    /// # Errors
    /// Where it can be neither.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(content) => Ok(Self::Content(content)),
            Err(_) => FileName::parse(text).map(Self::Name),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Content(content) => content.fmt(f),
        }
    }
}

/// A peer, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRef {
    /// One with an identity.
    Known {
        /// Who must answer.
        #[serde(with = "id_text")]
        id: PeerId,
        /// What it calls itself, or what this user calls it.
        name: String,
        /// `host:port`, best first.
        addresses: Vec<String>,
        /// Base URL of its REST interface.
        rest_url: String,
        /// Port of its gRPC interface.
        grpc_port: u16,
    },
    /// One of the first system: nobody knows who answers there.
    Plain {
        /// Base URL of its REST interface; names it.
        rest_url: String,
        /// Port of its gRPC interface, on the same host.
        grpc_port: u16,
    },
}

impl PeerRef {
    /// Its identity, where it has one.
    pub fn id(&self) -> Option<PeerId> {
        match self {
            Self::Known { id, .. } => Some(*id),
            Self::Plain { .. } => None,
        }
    }

    /// What to call it: its name, or a plain peer's URL.
    pub fn name(&self) -> &str {
        match self {
            Self::Known { name, .. } => name,
            Self::Plain { rest_url, .. } => rest_url,
        }
    }

    /// Base URL of its REST interface.
    pub fn rest_url(&self) -> &str {
        match self {
            Self::Known { rest_url, .. } | Self::Plain { rest_url, .. } => rest_url,
        }
    }

    /// Port of its gRPC interface.
    pub fn grpc_port(&self) -> u16 {
        match self {
            Self::Known { grpc_port, .. } | Self::Plain { grpc_port, .. } => *grpc_port,
        }
    }

    /// `host:port` of its gRPC interface, best first.
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Self::Known { addresses, .. } => addresses.clone(),
            Self::Plain { rest_url, grpc_port } => {
                let host = rest_url.split_once("://").map_or(rest_url.as_str(), |(_, rest)| rest);
                let host = host.split('/').next().unwrap_or(host);
                let host = match host.rsplit_once(':') {
                    Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                    _ => host,
                };
                vec![format!("{host}:{grpc_port}")]
            }
        }
    }

    /// As a message.
    pub fn to_wire(&self) -> v1::PeerInfo {
        v1::PeerInfo {
            peer_id: self.id().map(|id| id.as_bytes().to_vec().into()).unwrap_or_default(),
            name: self.name().to_owned(),
            addresses: self.addresses(),
            rest_url: self.rest_url().to_owned(),
            grpc_port: self.grpc_port().into(),
            version: String::new(),
        }
    }

    /// From a message; `None` where the ID is neither absent nor a key.
    pub fn from_wire(info: v1::PeerInfo) -> Option<Self> {
        let grpc_port = u16::try_from(info.grpc_port).ok()?;
        if info.peer_id.is_empty() {
            return Some(Self::Plain { rest_url: info.rest_url, grpc_port });
        }
        let id = PeerId::try_from(info.peer_id.as_ref()).ok()?;
        Some(Self::Known {
            id,
            name: info.name,
            // Nobody is dialled at more places than a host has interfaces.
            addresses: info.addresses.into_iter().take(MAX_ADDRESSES).collect(),
            rest_url: info.rest_url,
            grpc_port,
        })
    }
}

impl From<&PeerRef> for PeerName {
    fn from(peer: &PeerRef) -> Self {
        Self { peer_id: peer.id().map(|id| id.to_string()), name: peer.name().to_owned() }
    }
}

impl fmt::Display for PeerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { id, name, .. } => write!(f, "{name} ({})", id.short()),
            Self::Plain { rest_url, .. } => f.write_str(rest_url),
        }
    }
}

/// A peer ID as it is written.
pub(super) mod id_text {
    use p2p_identity::PeerId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(id: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PeerId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who said that somebody has a content, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teller {
    /// What they are to this peer.
    pub origin: Origin,
    /// Their name: the maestro's, or the friend's; of what is remembered, that of the maestro who said it. `None`: this peer
    /// itself, or nobody knows.
    pub name: Option<String>,
    /// When they were asked, in milliseconds since 1970-01-01 UTC; of what is remembered, when it was told. `None`: nobody
    /// knows.
    pub told_ms: Option<i64>,
}

impl Teller {
    /// This peer's own catalog, now.
    pub fn own() -> Self {
        Self { origin: Origin::Own, name: None, told_ms: Some(now_ms()) }
    }

    /// The maestro of this name, now.
    pub fn maestro(name: String) -> Self {
        Self { origin: Origin::Maestro, name: Some(name), told_ms: Some(now_ms()) }
    }

    /// This peer, who is asked now.
    pub fn friend(peer: &PeerRef) -> Self {
        Self { origin: Origin::Friend, name: Some(peer.name().to_owned()), told_ms: Some(now_ms()) }
    }
}

/// Someone who has a content, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Who has it.
    pub peer: PeerRef,
    /// Who said so.
    pub teller: Teller,
}

impl Source {
    /// Whether it is this peer itself.
    pub fn is_own(&self) -> bool {
        self.teller.origin == Origin::Own
    }
}

/// One content under one name, with everyone who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: FileName,
    /// Its hash; `None` where nobody vouches for the bytes (a plain peer's file).
    pub content: Option<ContentHash>,
    /// Bytes; `None` where nobody knows.
    pub size: Option<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub modified_ms: Option<i64>,
    /// Who has it, this peer first where it does.
    pub sources: Vec<Source>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located {
    /// The different contents, the one with most sources first.
    pub candidates: Vec<Candidate>,
    /// What could not be asked, and why.
    pub incomplete: Option<String>,
}

/// A page of files of one peer or of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of their names.
    pub files: Vec<FoundFile>,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// What could not be asked, and why.
    pub incomplete: Option<String>,
}

/// One file in a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its name.
    pub name: FileName,
    /// The share it is in.
    pub share: String,
    /// Its hash; `None` where nobody vouches for the bytes.
    pub content: Option<ContentHash>,
    /// Bytes; `None` where nobody knows.
    pub size: Option<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub modified_ms: Option<i64>,
    /// How many peers have it, as far as the answerer knows.
    pub sources: u32,
}

/// Which files to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// Only names that start with this.
    pub prefix: String,
    /// Only names that contain this, without regard to case.
    pub text: String,
    /// At the most.
    pub limit: u32,
    /// Where the previous page ended; empty: from the start.
    pub cursor: String,
}

impl Candidate {
    /// Those who have it beside this peer.
    pub fn others(&self) -> Vec<PeerRef> {
        let others = self.sources.iter().filter(|source| !source.is_own());
        others.map(|source| source.peer.clone()).collect()
    }

    /// From a message; `None` where it breaks the protocol (a name or a hash that is none). Sources that break it are
    /// left out.
    pub fn from_wire(candidate: v1::Candidate, teller: &Teller) -> Option<Self> {
        let file = FoundFile::from_wire(v1::FoundFile { file: candidate.file, sources: 0 })?;
        let sources = candidate.sources.into_iter().filter_map(PeerRef::from_wire).take(MAX_SOURCES);
        Some(Self {
            name: file.name,
            content: file.content,
            size: file.size,
            modified_ms: file.modified_ms,
            sources: sources.map(|peer| Source { peer, teller: teller.clone() }).collect(),
        })
    }
}

impl FoundFile {
    /// From a message; `None` where it breaks the protocol.
    pub fn from_wire(found: v1::FoundFile) -> Option<Self> {
        let file = found.file?;
        let content = match file.content.is_empty() {
            true => None,
            false => Some(ContentHash::try_from(file.content.as_ref()).ok()?),
        };
        Some(Self {
            name: FileName::parse(&file.name).ok()?,
            share: file.share,
            content,
            // Nobody knows anything of a plain peer's file but its name.
            size: content.map(|_| file.size),
            modified_ms: content.map(|_| file.modified_ms),
            sources: found.sources,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_hex_digits_are_a_content() {
        let content = ContentHash::of(b"x");
        assert_eq!(Query::parse(&content.to_string()), Ok(Query::Content(content)));
        assert!(matches!(Query::parse("archivo1.txt"), Ok(Query::Name(_))));
        assert!(matches!(Query::parse(&"a".repeat(63)), Ok(Query::Name(_))));
        assert!(Query::parse("../x").is_err());
    }

    #[test]
    fn a_plain_peer_is_reached_on_the_host_of_its_url() {
        for (url, address) in [
            ("http://localhost:9001", "localhost:9002"),
            ("http://10.0.0.1/", "10.0.0.1:9002"),
            ("http://[::1]:9001/x", "[::1]:9002"),
            ("http://[fe80::1]", "[fe80::1]:9002"),
        ] {
            let peer = PeerRef::Plain { rest_url: url.to_owned(), grpc_port: 9002 };
            assert_eq!(peer.addresses(), [address], "{url}");
        }
    }
}
