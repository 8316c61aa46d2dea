//! Looking for files: by name, by content, by a part of the name; and how many have a content.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_content::ContentHash;
use p2p_proto::rest::PeerRef;
use p2p_service::problem::{ApiPath, ApiQuery, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::listings::{FoundName, MAX_LIMIT, bounded, decoded, reference};
use super::{RestState, problem_of};
use crate::directory::{Candidate, Copies, MAX_CANDIDATES, Order, Pattern, Wanted, cursor};

/// Peers per content that `/locate` answers with.
const MAX_SOURCES: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LocateQuery {
    /// Exact name of a file. This or a content must be given, and not both.
    file: Option<String>,
    /// BLAKE3 hash of a content, in hex: who has it, under whatever names.
    #[param(min_length = 64, max_length = 64, pattern = "^[0-9a-fA-F]{64}$")]
    content: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchQuery {
    /// Part of the name, without regard to case; everything where it is not given. With `*` or `?` it is a pattern: `?`
    /// is one character, `*` any number of them but for `/`, `**` any number of any; without `/` it is of the last
    /// component of the name, else of the whole name. Three letters in a row are found at once; less is looked for in
    /// page after page.
    #[serde(default)]
    #[param(max_length = 1024)]
    q: String,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    limit: Option<u32>,
    /// `next` of the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ContentsQuery {
    /// Only contents with at most so many copies: 1 lists those of which there is only one.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    max_copies: Option<u32>,
    /// Items at the most; 1000 where it is not given, never more than 10000.
    #[param(value_type = Option<u64>, maximum = 4294967295u64)]
    limit: Option<u32>,
    /// `next` of the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]*$")]
    cursor: Option<String>,
}

/// `GET /locate`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LocateAnswer {
    /// The name that was asked for; of a content, a name that one of the peers has for it, empty where nobody does.
    file: String,
    /// The content that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Who has it; empty where nobody does. At most 1000 of each content, drawn anew for each answer.
    peers: Vec<PeerRef>,
    /// Whether others have it too; absent where these are all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// `GET /search`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SearchAnswer {
    /// What was asked for.
    q: String,
    /// What was found.
    files: Vec<FoundName>,
    /// `rank`: all that match, the names that fit best first, then by name. `batch`: more than 10000 names may match, which
    /// are told some 1000 at a time, each time those that fit best first; names that begin with `q`, as it is written, are
    /// among the first, where they are not many. `name`: by name, as less than three letters in a row were given, or the
    /// cursor is of a list by name.
    order: String,
    /// About how many names are so new that their parts are not found yet, or found last where `order` is `batch`; absent
    /// where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unindexed: Option<u64>,
    /// Cursor of the next page; absent on the last one. A page may be empty and yet not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /contents`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContentsAnswer {
    /// The contents, in order of their hashes.
    contents: Vec<ContentCopies>,
    /// Cursor of the next page; absent on the last one. A page may be empty and yet not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A content, and how many have it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContentCopies {
    /// BLAKE3 hash, in hex.
    content: String,
    /// A name that one of the peers has for it.
    name: String,
    /// Bytes.
    size: u64,
    /// How many peers that are here have it, whatever they call it: 1 is the only copy. 10000 is that or more.
    copies: u32,
    /// How many more have it that are not here now.
    copies_away: u32,
}

impl From<Copies> for ContentCopies {
    fn from(copies: Copies) -> ContentCopies {
        ContentCopies {
            content: copies.content.to_string(),
            name: copies.name,
            size: copies.size,
            copies: copies.here,
            copies_away: copies.away,
        }
    }
}

/// Who has this file, or this content.
#[utoipa::path(
    get,
    path = "/locate",
    params(LocateQuery),
    responses(
        (status = 200, description = "Who has it.", body = LocateAnswer),
        (status = 400, description = "The request is not valid."),
    )
)]
pub(super) async fn locate(
    State(state): State<Arc<RestState>>,
    ApiQuery(query): ApiQuery<LocateQuery>,
) -> Result<Json<LocateAnswer>, Problem> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (wanted, file, content) = match (given(query.file), given(query.content)) {
        (Some(file), None) => (Wanted::Name(file.clone()), Some(file), None),
        (None, Some(content)) => {
            let content = content_of(&content)?;
            (Wanted::Content(content), None, Some(content.to_string()))
        }
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("file-and-content", "the request names a file and a content")
                .hint("ask for one of them"));
        }
        (None, None) => {
            return Err(Problem::bad_request("missing-file", "the request does not say which file")
                .hint("ask like /locate?file=archivo1.txt, or /locate?content=HASH"));
        }
    };
    let mut found = state.directory.locate(wanted, MAX_SOURCES + 1).await.map_err(problem_of)?;
    let mut more = found.len() == MAX_CANDIDATES;
    for Candidate { sources, .. } in &mut found {
        if sources.len() > MAX_SOURCES {
            // Any of them: they are in the order of their keys, and the last one would never be told.
            sources.remove(rand::random_range(0..sources.len()));
            more = true;
        }
    }
    let file = file.or_else(|| found.first().map(|found| found.file.name.clone())).unwrap_or_default();
    let mut peers = found.iter().flat_map(|Candidate { file, sources }| {
        sources.iter().map(move |peer| reference(peer, file.content, file.size))
    });
    let told = peers.by_ref().take(MAX_LIMIT).collect();
    more |= peers.next().is_some();
    Ok(Json(LocateAnswer { file, content, peers: told, more }))
}

/// Files by a part of their name, or a pattern.
#[utoipa::path(
    get,
    path = "/search",
    params(SearchQuery),
    responses(
        (status = 200, description = "What was found.", body = SearchAnswer),
        (status = 400, description = "The request is not valid, the pattern is none, or the cursor is not of this list."),
    )
)]
pub(super) async fn search(
    State(state): State<Arc<RestState>>,
    ApiQuery(query): ApiQuery<SearchQuery>,
) -> Result<Json<SearchAnswer>, Problem> {
    let after = decoded(query.cursor, cursor::decode_find)?;
    let pattern = Pattern::parse(&query.q);
    let pattern = pattern.map_err(|error| Problem::bad_request("invalid-pattern", error.to_string()))?;
    let page = state.directory.find(pattern, after, bounded(query.limit)).await.map_err(problem_of)?;
    Ok(Json(SearchAnswer {
        q: query.q,
        files: page.items.into_iter().map(FoundName::from).collect(),
        order: match page.order {
            Order::Rank => "rank",
            Order::Batches => "batch",
            Order::Name => "name",
        }
        .to_owned(),
        unindexed: (page.unindexed > 0).then_some(page.unindexed),
        next: page.next.as_ref().map(cursor::encode_find),
    }))
}

/// How many copies there are of the contents that are here.
#[utoipa::path(
    get,
    path = "/contents",
    params(ContentsQuery),
    responses(
        (status = 200, description = "The contents.", body = ContentsAnswer),
        (status = 400, description = "The request is not valid, or the cursor is not of this list."),
    )
)]
pub(super) async fn contents(
    State(state): State<Arc<RestState>>,
    ApiQuery(query): ApiQuery<ContentsQuery>,
) -> Result<Json<ContentsAnswer>, Problem> {
    let after = decoded(query.cursor, cursor::decode_content)?;
    let limit = bounded(query.limit);
    let page = state.directory.contents(query.max_copies, after, limit).await.map_err(problem_of)?;
    Ok(Json(ContentsAnswer {
        contents: page.items.into_iter().map(ContentCopies::from).collect(),
        next: page.next.as_ref().map(cursor::encode_content),
    }))
}

/// How many copies there are of one content.
#[utoipa::path(
    get,
    path = "/contents/{content}",
    params(("content" = String, Path, description = "BLAKE3 hash, in hex.", pattern = "^[0-9a-fA-F]{64}$")),
    responses(
        (status = 200, description = "How many have it.", body = ContentCopies),
        (status = 400, description = "This is not the hash of a content."),
        (status = 404, description = "Nobody who is here has it."),
    )
)]
pub(super) async fn content(
    State(state): State<Arc<RestState>>,
    ApiPath(asked): ApiPath<String>,
) -> Result<Json<ContentCopies>, Problem> {
    let content = content_of(&asked)?;
    let found = state.directory.copies(content).await.map_err(problem_of)?;
    let found = found.ok_or_else(|| {
        Problem::not_found("no-such-content", format!("nobody who is here has the content {content}"))
            .hint("/search and /locate tell the contents of files that are here")
    })?;
    Ok(Json(found.into()))
}

fn content_of(text: &str) -> Result<ContentHash, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_request(
            "invalid-content",
            "a content is named by its BLAKE3 hash: 64 hexadecimal digits",
        )
        .hint("`b3sum FILE` prints it")
    })
}
