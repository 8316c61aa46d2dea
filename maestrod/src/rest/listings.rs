//! What can be listed: peers and their files. Lists are paged with `limit` and `cursor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_content::ContentHash;
use p2p_proto::rest::{DirectoryListing, PeerFiles, PeerRef, Peers};
use p2p_service::problem::{ApiQuery, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RestState, problem_of};
use crate::directory::{Found, PeerKey, PeerRecord, Search, Which, cursor};
use crate::presence::now_ms;

/// Items of a page where the caller does not say.
const DEFAULT_LIMIT: usize = 1000;
/// Items of a page at the most; more is taken as this.
pub(super) const MAX_LIMIT: usize = 10_000;
/// Names per peer in the list of peers.
const NAMES_PER_PEER: usize = 1000;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Items at the most; 1000 where it is not given, never more than 10000.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    limit: Option<u32>,
    /// `next` of the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PeersQuery {
    /// Also those whose files are not shown now.
    all: Option<bool>,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    limit: Option<u32>,
    /// `next` of the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilesQuery {
    /// Peer ID, or the URL of a plain peer: the files of this peer.
    peer: Option<String>,
    /// What the names begin with. Must be given where no peer is; may be empty, for all.
    prefix: Option<String>,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    limit: Option<u32>,
    /// `next` of the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

/// `GET /files`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FilesAnswer {
    /// The peer's name, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// Names of the files, in order.
    files: Vec<String>,
    /// Where a prefix was given: what is under these names. A name is here once for each content that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<FoundName>>,
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
    /// How many peers have it now. Of a name that more than 10000 have, so many are looked at.
    sources: u32,
}

impl From<Found> for FoundName {
    fn from(found: Found) -> FoundName {
        FoundName {
            size: found.file.content.map(|_| found.file.size),
            content: found.file.content.map(|content| content.to_string()),
            name: found.file.name,
            sources: found.sources,
        }
    }
}

/// The peers that are here, with their files; or all that are known.
#[utoipa::path(
    get,
    path = "/peers",
    params(PeersQuery),
    responses(
        (status = 200, description = "The peers.", body = Peers),
        (status = 400, description = "The request is not valid, or the cursor is not of this list."),
    )
)]
pub(super) async fn peers(
    State(state): State<Arc<RestState>>,
    ApiQuery(query): ApiQuery<PeersQuery>,
) -> Result<Json<Peers>, Problem> {
    let after = decoded(query.cursor, cursor::decode_peer)?;
    let which = if query.all.unwrap_or(false) { Which::All } else { Which::Visible };
    let page = state.directory.peers(which, NAMES_PER_PEER, after, bounded(query.limit)).await;
    let page = page.map_err(problem_of)?;
    let ids = page.items.iter().filter_map(|listed| listed.peer.key.id());
    let connected = state.presence.connected(ids.collect()).await;
    let connected = connected.map_err(|stopping| Problem::unavailable("stopping", stopping.to_string()))?;
    let now_ms = now_ms();
    let peers = page.items.into_iter().map(|listed| {
        let (peer_id, name) = identity_of(&listed.peer);
        let PeerRecord { key, profile, visible, files, bytes, last_seen_ms } = listed.peer;
        let state = match key.id() {
            None => "plain",
            Some(id) if connected.binary_search(&id).is_ok() => "connected",
            Some(_) if visible => "lease",
            Some(_) => "away",
        };
        PeerFiles {
            rest: profile.rest_url,
            grpc_port: profile.grpc_port,
            files: listed.names,
            files_total: files,
            bytes,
            state: state.to_owned(),
            addresses: profile.addresses,
            version: key.id().map(|_| profile.version),
            // Of a peer whose stream is open the maestro hears all the time.
            last_seen_ms: if state == "connected" { now_ms } else { last_seen_ms },
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
    responses(
        (status = 200, description = "The files.", body = DirectoryListing),
        (status = 400, description = "The request is not valid, or the cursor is not of this list."),
    )
)]
pub(super) async fn directory(
    State(state): State<Arc<RestState>>,
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

/// Files of one peer, or whose names begin with a prefix, or both.
#[utoipa::path(
    get,
    path = "/files",
    params(FilesQuery),
    responses(
        (status = 200, description = "The files.", body = FilesAnswer),
        (status = 400, description = "The request is not valid, or the cursor is not of this list."),
        (status = 404, description = "No such peer is here."),
    )
)]
pub(super) async fn files(
    State(state): State<Arc<RestState>>,
    ApiQuery(query): ApiQuery<FilesQuery>,
) -> Result<Json<FilesAnswer>, Problem> {
    let peer = query.peer.filter(|peer| !peer.is_empty());
    let key =
        peer.as_ref().map(|peer| peer.parse().map_or_else(|_| PeerKey::Plain(peer.clone()), PeerKey::Synced));
    let after = decoded(query.cursor, cursor::decode_name)?;
    let limit = bounded(query.limit);
    let no_such_peer = |asked: &str| {
        Problem::not_found("no-such-peer", format!("no peer {asked:?} is here now"))
            .hint("/peers lists who is")
    };
    match (peer, key, query.prefix) {
        (None, _, None) | (_, None, None) => {
            Err(Problem::bad_request("missing-peer", "the request does not say whose files, or which")
                .hint("ask like /files?peer=PEER_ID, with an ID from /peers, or like /files?prefix=docs/"))
        }
        (Some(asked), Some(key), None) => {
            let found = state.directory.names_of(key, after, limit).await.map_err(problem_of)?;
            let (record, page) = found.ok_or_else(|| no_such_peer(&asked))?;
            let peer = if record.profile.name.is_empty() { asked } else { record.profile.name };
            let next = page.next.as_ref().map(cursor::encode_name);
            Ok(Json(FilesAnswer { peer: Some(peer), files: page.items, entries: None, next }))
        }
        (asked, key, Some(prefix)) => {
            let name = match (&asked, &key) {
                (Some(asked), Some(key)) => {
                    let found = state.directory.names_of(key.clone(), None, 1).await.map_err(problem_of)?;
                    let (record, _) = found.ok_or_else(|| no_such_peer(asked))?;
                    Some(record.profile.name).filter(|name| !name.is_empty())
                }
                _ => None,
            };
            let search = Search { prefix, peer: key, ..Search::default() };
            let page = state.directory.search(search, after, limit).await.map_err(problem_of)?;
            let mut files: Vec<String> = page.items.iter().map(|found| found.file.name.clone()).collect();
            files.dedup();
            let entries = Some(page.items.into_iter().map(FoundName::from).collect());
            let next = page.next.as_ref().map(cursor::encode_name);
            Ok(Json(FilesAnswer { peer: name.or(asked), files, entries, next }))
        }
    }
}

pub(super) fn reference(peer: &PeerRecord, content: Option<ContentHash>, size: u64) -> PeerRef {
    let (peer_id, name) = identity_of(peer);
    PeerRef {
        rest: peer.profile.rest_url.clone(),
        grpc_port: peer.profile.grpc_port,
        peer_id,
        name,
        size: content.map(|_| size),
        content: content.map(|content| content.to_string()),
        // All is told by this maestro, now.
        origin: None,
        told_by: None,
        told_ms: None,
    }
}

fn identity_of(peer: &PeerRecord) -> (Option<String>, Option<String>) {
    match &peer.key {
        PeerKey::Synced(id) => (Some(id.to_string()), Some(peer.profile.name.clone())),
        PeerKey::Plain(_) => (None, None),
    }
}

pub(super) fn bounded(asked: Option<u32>) -> usize {
    match asked {
        None | Some(0) => DEFAULT_LIMIT,
        Some(asked) => (asked as usize).min(MAX_LIMIT),
    }
}

pub(super) fn decoded<P>(
    text: Option<String>,
    decode: impl FnOnce(&str) -> Result<P, cursor::InvalidCursor>,
) -> Result<Option<P>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    decode(&text).map(Some).map_err(|error| Problem::bad_request("invalid-cursor", error.to_string()))
}
