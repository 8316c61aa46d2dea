//! Many answers become one: the same contents together, the same sources once, one peer for one text. Pure.

use super::{Candidate, PeerRef, Source};

/// One candidate per content (a plain peer's unproven bytes: per name), each source once, those with most sources
/// first. Claims of another size are other candidates: one of them is false, and sources are not mixed.
pub(super) fn merge(found: Vec<Candidate>) -> Vec<Candidate> {
    let mut merged: Vec<Candidate> = Vec::new();
    for candidate in found {
        let same = |known: &&mut Candidate| {
            known.content == candidate.content
                && known.size == candidate.size
                && (candidate.content.is_some() || known.name == candidate.name)
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                for source in candidate.sources {
                    let is_known = |known: &Source| match (known.peer.id(), source.peer.id()) {
                        (None, None) => known.peer.rest_url() == source.peer.rest_url(),
                        (known, other) => known == other,
                    };
                    if !known.sources.iter().any(is_known) {
                        known.sources.push(source);
                    }
                }
            }
            None => merged.push(candidate),
        }
    }
    merged.retain(|candidate| !candidate.sources.is_empty());
    // Proven contents go before a plain peer's bytes, whatever their number.
    merged.sort_by_key(|candidate| (candidate.content.is_none(), std::cmp::Reverse(candidate.sources.len())));
    merged
}

/// Why there is no such peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindPeerError {
    /// Nobody is known by that name.
    #[error("no peer is known as {0}")]
    Unknown(String),
    /// Nobody is, of those that could be asked for.
    #[error("no peer is known as {text}, and not all could be asked: {why}")]
    Unasked {
        /// What was asked for.
        text: String,
        /// Who could not be asked, and why.
        why: String,
    },
    /// Several are.
    #[error("{text} may be any of: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Who it may be.
        candidates: Vec<String>,
    },
}

/// The one peer among `known` that this text names.
pub(super) fn pick(text: &str, known: Vec<PeerRef>) -> Result<PeerRef, FindPeerError> {
    let lower = text.to_ascii_lowercase();
    let url = text.trim_end_matches('/');
    let by_id =
        |peer: &PeerRef| peer.id().is_some_and(|id| lower.len() >= 4 && id.to_string().starts_with(&lower));
    let by_name = |peer: &PeerRef| peer.name() == text || peer.rest_url().trim_end_matches('/') == url;
    let mut matching: Vec<PeerRef> = Vec::new();
    for peer in known.iter().filter(|peer| by_name(peer)).chain(known.iter().filter(|peer| by_id(peer))) {
        let is_known = |other: &PeerRef| match peer.id() {
            Some(id) => other.id() == Some(id),
            None => other.id().is_none() && other.rest_url() == peer.rest_url(),
        };
        if !matching.iter().any(is_known) {
            matching.push(peer.clone());
        }
    }
    match matching.len() {
        0 => Err(FindPeerError::Unknown(text.to_owned())),
        1 => Ok(matching.remove(0)),
        _ => Err(FindPeerError::Ambiguous {
            text: text.to_owned(),
            candidates: matching
                .iter()
                .map(|peer| peer.id().map_or(peer.to_string(), |id| format!("{} ({id})", peer.name())))
                .collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Teller;
    use p2p_content::{ContentHash, FileName};
    use p2p_identity::PeerId;

    fn peer(number: u8, name: &str) -> PeerRef {
        PeerRef::Known {
            id: PeerId::from_bytes([number; 32]),
            name: name.to_owned(),
            addresses: vec![],
            rest_url: format!("http://localhost:90{number:02}"),
            grpc_port: 1,
        }
    }

    fn candidate(content: Option<&[u8]>, size: u64, peers: &[PeerRef]) -> Candidate {
        Candidate {
            name: FileName::parse("a").unwrap(),
            content: content.map(ContentHash::of),
            size: Some(size),
            modified_ms: None,
            sources: peers
                .iter()
                .map(|peer| Source { peer: peer.clone(), teller: Teller::maestro("m".to_owned()) })
                .collect(),
        }
    }

    #[test]
    fn contents_are_never_mixed_and_sources_are_listed_once() {
        let (a, b, c) = (peer(1, "A"), peer(2, "B"), peer(3, "C"));
        let merged = merge(vec![
            candidate(Some(b"x"), 1, std::slice::from_ref(&a)),
            candidate(Some(b"y"), 1, std::slice::from_ref(&b)),
            candidate(Some(b"y"), 1, &[b, c]),
            candidate(Some(b"x"), 2, std::slice::from_ref(&a)),
            candidate(None, 1, &[a]),
            candidate(Some(b"z"), 1, &[]),
        ]);
        let counts: Vec<_> = merged.iter().map(|candidate| candidate.sources.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(merged[0].content, Some(ContentHash::of(b"y")));
        assert_eq!(merged[3].content, None);
    }

    #[test]
    fn a_peer_is_picked_by_name_id_or_url_and_never_guessed() {
        let known = vec![peer(1, "A"), peer(2, "B"), peer(3, "B"), peer(1, "A")];
        let id = PeerId::from_bytes([2; 32]).to_string();
        assert_eq!(pick("A", known.clone()), Ok(peer(1, "A")));
        assert_eq!(pick(&id, known.clone()), Ok(peer(2, "B")));
        assert_eq!(pick(&id[..8], known.clone()), Ok(peer(2, "B")));
        assert_eq!(pick("http://localhost:9003/", known.clone()), Ok(peer(3, "B")));
        assert!(matches!(pick("B", known.clone()), Err(FindPeerError::Ambiguous { .. })));
        assert!(
            matches!(pick(&id[..3], known.clone()), Err(FindPeerError::Unknown(_))),
            "too short to be an ID"
        );
        assert!(matches!(pick("a", known), Err(FindPeerError::Unknown(_))));
    }
}
