//! What can be read: peers, names, who has what. Lists are paged with `limit` and `cursor`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use p2p_content::ContentHash;
use p2p_proto::problem::Problem as ProblemBody;
use p2p_proto::rest::{DirectoryListing, Located, PeerFileNames, PeerFiles, PeerRef, Peers};
use p2p_service::problem::{ApiQuery, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RestState, problem_of};
use crate::directory::{PeerKey, PeerRecord, Search, Wanted, Which, cursor};

/// Items of a page where the caller does not say.
const DEFAULT_LIMIT: usize = 1000;
/// Items of a page at the most; more is taken as this.
const MAX_LIMIT: usize = 10_000;
/// Names per peer in the list of peers.
const NAMES_PER_PEER: usize = 1000;
/// Peers per content that `/locate` answers with.
const MAX_SOURCES: usize = 1000;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Items at the most; 1000 where it is not given, never more than 10000.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LocateQuery {
    /// Exact name of a file.
    #[param(required = true)]
    file: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Part of the name, without regard to case. Everything where it is not given.
    #[serde(default)]
    q: String,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilesQuery {
    /// Peer ID, or the URL of a plain peer.
    #[param(required = true)]
    peer: Option<String>,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    limit: Option<usize>,
    /// `next` of the previous page.
    cursor: Option<String>,
}

/// `GET /search`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SearchAnswer {
    /// What was asked for.
    q: String,
    /// What was found, by name.
    files: Vec<FoundName>,
    /// Cursor of the next page; absent on the last one. A page may be empty and yet not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One content under one name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FoundName {
    /// The name.
    name: String,
    /// BLAKE3 hash, in hex. Absent where nobody vouches for the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// How many peers have it now.
    sources: u32,
}

/// The peers that are here, with their files.
#[utoipa::path(
    get,
    path = "/peers",
    params(PageQuery),
    responses((status = 200, body = Peers), (status = 400, body = ProblemBody))
)]
pub(super) async fn peers(
    State(state): State<RestState>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<Peers>, Problem> {
    let after = decoded(query.cursor, cursor::decode_peer)?;
    let page = state.directory.peers(Which::Visible, NAMES_PER_PEER, after, bounded(query.limit)).await;
    let page = page.map_err(problem_of)?;
    let peers = page.items.into_iter().map(|listed| {
        let (peer_id, name) = identity_of(&listed.peer);
        PeerFiles {
            rest: listed.peer.profile.rest_url,
            grpc_port: listed.peer.profile.grpc_port,
            files: listed.names,
            files_total: listed.peer.files,
            peer_id,
            name,
        }
    });
    Ok(Json(Peers { peers: peers.collect(), next: page.next.as_ref().map(cursor::encode_peer) }))
}

/// The files that are here, with their peers.
#[utoipa::path(
    get,
    path = "/directory",
    params(PageQuery),
    responses((status = 200, body = DirectoryListing), (status = 400, body = ProblemBody))
)]
pub(super) async fn directory(
    State(state): State<RestState>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<DirectoryListing>, Problem> {
    let after = decoded(query.cursor, cursor::decode_name)?;
    let page = state.directory.list(after, bounded(query.limit)).await.map_err(problem_of)?;
    let directory: BTreeMap<_, _> = page
        .items
        .into_iter()
        .map(|listed| {
            let holders = listed.holders.iter();
            let refs = holders.map(|holder| reference(&holder.peer, holder.content, holder.size)).collect();
            (listed.name, refs)
        })
        .collect();
    Ok(Json(DirectoryListing { directory, next: page.next.as_ref().map(cursor::encode_name) }))
}

/// The names of one peer's files.
#[utoipa::path(
    get,
    path = "/files",
    params(FilesQuery),
    responses(
        (status = 200, body = PeerFileNames),
        (status = 400, body = ProblemBody),
        (status = 404, body = ProblemBody)
    )
)]
pub(super) async fn files(
    State(state): State<RestState>,
    ApiQuery(query): ApiQuery<FilesQuery>,
) -> Result<Json<PeerFileNames>, Problem> {
    let asked = query.peer.filter(|peer| !peer.is_empty()).ok_or_else(|| {
        Problem::bad_request("missing-peer", "the request does not say whose files")
            .hint("ask like /files?peer=PEER_ID, with an ID from /peers, or the URL of a plain peer")
    })?;
    let key = asked.parse().map_or_else(|_| PeerKey::Plain(asked.clone()), PeerKey::Synced);
    let after = decoded(query.cursor, cursor::decode_name)?;
    let found = state.directory.names_of(key, after, bounded(query.limit)).await.map_err(problem_of)?;
    let (peer, page) = found.ok_or_else(|| {
        Problem::not_found("no-such-peer", format!("no peer {asked:?} is here now"))
            .hint("/peers lists who is")
    })?;
    let peer = if peer.profile.name.is_empty() { asked } else { peer.profile.name };
    Ok(Json(PeerFileNames { peer, files: page.items, next: page.next.as_ref().map(cursor::encode_name) }))
}

/// Who has this file.
#[utoipa::path(
    get,
    path = "/locate",
    params(LocateQuery),
    responses((status = 200, body = Located), (status = 400, body = ProblemBody))
)]
pub(super) async fn locate(
    State(state): State<RestState>,
    ApiQuery(query): ApiQuery<LocateQuery>,
) -> Result<Json<Located>, Problem> {
    let file = query.file.filter(|file| !file.is_empty()).ok_or_else(|| {
        Problem::bad_request("missing-file", "the request does not say which file")
            .hint("ask like /locate?file=archivo1.txt")
    })?;
    let found = state.directory.locate(Wanted::Name(file.clone()), MAX_SOURCES).await.map_err(problem_of)?;
    let peers = found.iter().flat_map(|candidate| {
        let (content, size) = (candidate.file.content, candidate.file.size);
        candidate.sources.iter().map(move |peer| reference(peer, content, size))
    });
    let peers = peers.take(MAX_LIMIT).collect();
    Ok(Json(Located { file, peers }))
}

/// Files by a part of their name.
#[utoipa::path(
    get,
    path = "/search",
    params(SearchQuery),
    responses((status = 200, body = SearchAnswer), (status = 400, body = ProblemBody))
)]
pub(super) async fn search(
    State(state): State<RestState>,
    ApiQuery(query): ApiQuery<SearchQuery>,
) -> Result<Json<SearchAnswer>, Problem> {
    let after = decoded(query.cursor, cursor::decode_name)?;
    let search = Search { text: query.q.clone(), ..Search::default() };
    let page = state.directory.search(search, after, bounded(query.limit)).await.map_err(problem_of)?;
    let files = page.items.into_iter().map(|found| FoundName {
        size: found.file.content.map(|_| found.file.size),
        content: found.file.content.map(|content| content.to_string()),
        name: found.file.name,
        sources: found.sources,
    });
    Ok(Json(SearchAnswer {
        q: query.q,
        files: files.collect(),
        next: page.next.as_ref().map(cursor::encode_name),
    }))
}

fn reference(peer: &PeerRecord, content: Option<ContentHash>, size: u64) -> PeerRef {
    let (peer_id, name) = identity_of(peer);
    PeerRef {
        rest: peer.profile.rest_url.clone(),
        grpc_port: peer.profile.grpc_port,
        peer_id,
        name,
        size: content.map(|_| size),
        content: content.map(|content| content.to_string()),
    }
}

fn identity_of(peer: &PeerRecord) -> (Option<String>, Option<String>) {
    match &peer.key {
        PeerKey::Synced(id) => (Some(id.to_string()), Some(peer.profile.name.clone())),
        PeerKey::Plain(_) => (None, None),
    }
}

fn bounded(asked: Option<usize>) -> usize {
    match asked {
        None | Some(0) => DEFAULT_LIMIT,
        Some(asked) => asked.min(MAX_LIMIT),
    }
}

fn decoded<P>(
    text: Option<String>,
    decode: impl FnOnce(&str) -> Result<P, cursor::InvalidCursor>,
) -> Result<Option<P>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    decode(&text).map(Some).map_err(|error| Problem::bad_request("invalid-cursor", error.to_string()))
}
