//! What there is, and who has it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_identity::PeerId;
use p2p_proto::control::{
    Candidate, FileList, FileRow, FilesQuery, LocateAnswer, LocateQuery, PeerName, SourceRow,
};
use p2p_service::problem::{ApiQuery, Problem};

use crate::api::cursor::Listing;
use crate::api::own::{self, OwnQuery};
use crate::api::{Api, problems};
use crate::catalog::Viewer;
use crate::discovery::{self, FoundFile, PageQuery, PeerRef, Query};

const DEFAULT_LIMIT: u32 = 500;
const MAX_LIMIT: u32 = 5000;

/// Characters of a peer ID by which people tell peers apart.
const SHORT_ID_LEN: usize = 8;

/// Files: this peer's own, another peer's, or the network's.
#[utoipa::path(get, path = "/v1/files", operation_id = "list_files", responses((status = 200, body = FileList)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<FilesQuery>,
) -> Result<Json<FileList>, Problem> {
    let limit = limit_of(query.limit);
    let whose = match Whose::of(&query)? {
        Whose::Peer(text) if names_this_peer(&text, api.identity, &api.facts.name) => Whose::Own,
        whose => whose,
    };
    let prefix = query.prefix.unwrap_or_default();
    let text = query.text.unwrap_or_default();
    if whose == Whose::Own {
        let cursor = query.cursor.as_deref();
        let own = OwnQuery { prefix: &prefix, text: &text, viewer: Viewer::Own, limit, cursor };
        return Ok(Json(own::list(&api.catalog, own).await?));
    }
    let peer = match whose {
        Whose::Peer(text) => Some(api.locator.find_peer(&text).await?),
        _ => None,
    };
    let listing = listing_of(peer.as_ref(), &prefix, &text);
    let cursor = query.cursor.map(|cursor| listing.place(&cursor)).transpose()?.unwrap_or_default();
    let asked = PageQuery { prefix, text, limit, cursor };
    let page = match &peer {
        Some(peer) => api.locator.browse_peer(peer, &asked).await?,
        None => api.locator.browse_network(&asked).await.map_err(problems::of_network_listing)?,
    };
    let held = own::held(&api.catalog, page.files.iter().filter_map(|file| file.content)).await?;
    let row = |file: FoundFile| {
        let here = file.content.is_some_and(|content| held.contains(&content));
        row_of(file, here)
    };
    Ok(Json(FileList {
        files: page.files.into_iter().map(row).collect(),
        next: page.next.map(|place| listing.cursor(&place)),
        incomplete: page.incomplete,
    }))
}

/// Who has a name or a content.
#[utoipa::path(get, path = "/v1/locate", responses((status = 200, body = LocateAnswer)))]
pub(super) async fn locate(
    State(api): State<Arc<Api>>,
    ApiQuery(LocateQuery { what }): ApiQuery<LocateQuery>,
) -> Result<Json<LocateAnswer>, Problem> {
    let query = Query::parse(&what).map_err(|error| problems::invalid_name(&error))?;
    let located = api.locator.locate(&query).await;
    let candidates = located.candidates.into_iter().map(candidate_of).collect();
    Ok(Json(LocateAnswer { what, candidates, incomplete: located.incomplete }))
}

/// Whose files are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Own,
    Peer(String),
    Network,
}

impl Whose {
    fn of(query: &FilesQuery) -> Result<Whose, Problem> {
        match (&query.peer, query.all) {
            (None, false) => Ok(Whose::Own),
            (Some(peer), false) => Ok(Whose::Peer(peer.clone())),
            (None, true) => Ok(Whose::Network),
            (Some(_), true) => Err(Problem::bad_request(
                "invalid-query",
                "the query asks for one peer's files and for everyone's",
            )
            .hint("give either `peer` or `all=true`")),
        }
    }
}

/// Nobody else finds this peer for its own user.
fn names_this_peer(text: &str, identity: PeerId, name: &str) -> bool {
    text == name || text.len() >= SHORT_ID_LEN && identity.to_string().starts_with(&text.to_ascii_lowercase())
}

fn limit_of(asked: Option<u32>) -> u32 {
    asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
}

fn listing_of(peer: Option<&PeerRef>, prefix: &str, text: &str) -> Listing {
    // By its identity: a peer may be named in several ways, and a name may pass to another peer between two pages.
    let whose = match peer {
        None => String::new(),
        Some(peer) => peer.id().map_or_else(|| peer.rest_url().to_owned(), |id| id.to_string()),
    };
    Listing::of(&["there", &whose, prefix, text])
}

fn row_of(file: FoundFile, here: bool) -> FileRow {
    FileRow {
        name: file.name.into(),
        size: file.size,
        content: file.content.map(|content| content.to_string()),
        modified_ms: file.modified_ms,
        share: (!file.share.is_empty()).then_some(file.share),
        sources: file.sources,
        here,
    }
}

fn candidate_of(candidate: discovery::Candidate) -> Candidate {
    let source = |source: discovery::Source| SourceRow {
        peer: PeerName {
            peer_id: source.peer.id().map(|id| id.to_string()),
            name: source.peer.name().to_owned(),
        },
        origin: source.teller.origin,
        told_by: source.teller.name,
        told_ms: source.teller.told_ms,
        addresses: source.peer.addresses(),
    };
    Candidate {
        name: candidate.name.into(),
        size: candidate.size,
        content: candidate.content.map(|content| content.to_string()),
        sources: candidate.sources.into_iter().map(source).collect(),
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts as _;
    use p2p_content::{ContentHash, FileName};

    use super::*;

    async fn parse(query: &str) -> Result<FilesQuery, String> {
        let uri = format!("/v1/files?{query}");
        let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        let parsed = ApiQuery::<FilesQuery>::from_request_parts(&mut parts, &()).await;
        parsed.map(|ApiQuery(query)| query).map_err(|problem| problem.body().code.clone())
    }

    #[tokio::test]
    async fn the_query_says_whose_files_are_listed() {
        let whose = |query| async move { Whose::of(&parse(query).await.unwrap()) };
        assert_eq!(whose("").await, Ok(Whose::Own));
        assert_eq!(whose("all=false&prefix=docs%2F").await, Ok(Whose::Own));
        assert_eq!(whose("peer=P%202").await, Ok(Whose::Peer("P 2".to_owned())));
        assert_eq!(whose("all=true").await, Ok(Whose::Network));
        let both = whose("all=true&peer=P2").await.unwrap_err();
        assert_eq!(both.body().code, "invalid-query");
        assert!(both.body().hint.is_some());
    }

    #[tokio::test]
    async fn what_is_no_query_of_files_is_refused() {
        for query in ["limit=many", "limit=-1", "all=perhaps", "unknown=1"] {
            assert_eq!(parse(query).await, Err("invalid-query".to_owned()), "{query}");
        }
    }

    #[test]
    fn this_peer_is_known_by_its_name_and_its_id() {
        let id = PeerId::from_bytes([7; 32]);
        let names = |text: &str| names_this_peer(text, id, "P1");
        assert!(names("P1") && names(&id.to_string()) && names(&id.short()));
        assert!(!names("P") && !names("") && !names("P2") && !names(&id.short()[..7]));
        assert!(!names(&PeerId::from_bytes([8; 32]).to_string()));
    }

    #[test]
    fn limits_stay_within_bounds() {
        let limits = [None, Some(0), Some(7), Some(u32::MAX)].map(limit_of);
        assert_eq!(limits, [500, 1, 7, 5000]);
    }

    #[test]
    fn a_cursor_is_bound_to_the_peer_and_not_to_its_name() {
        let peer = |id: u8, name: &str| PeerRef::Known {
            id: PeerId::from_bytes([id; 32]),
            name: name.to_owned(),
            addresses: Vec::new(),
            rest_url: String::new(),
            grpc_port: 1,
        };
        let cursor = listing_of(Some(&peer(1, "P1")), "", "").cursor("place");
        assert!(listing_of(Some(&peer(1, "renamed")), "", "").place(&cursor).is_ok());
        assert!(listing_of(Some(&peer(2, "P1")), "", "").place(&cursor).is_err());
        assert!(listing_of(None, "", "").place(&cursor).is_err());
    }

    #[test]
    fn an_unproven_file_is_listed_without_a_content() {
        let file = FoundFile {
            name: FileName::parse("a").unwrap(),
            share: String::new(),
            content: None,
            size: None,
            modified_ms: None,
            sources: 1,
        };
        let row = row_of(file.clone(), false);
        assert_eq!((row.share, row.content, row.here), (None, None, false));
        let content = ContentHash::of(b"a");
        let row = row_of(FoundFile { content: Some(content), ..file }, true);
        assert_eq!((row.content, row.here), (Some(content.to_string()), true));
    }
}
