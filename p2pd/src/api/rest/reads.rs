//! The calls that read.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use p2p_content::FileName;
use p2p_proto::rest::{Located, PeerFileNames, PeerHas, PeerInfo, PeerRef, PeerRoot};
use p2p_service::problem::{ApiQuery, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::own::{self, OwnQuery};
use crate::api::{Api, ApiFacts};
use crate::catalog::Viewer;
use crate::discovery::{self, Query};

/// Names on a page. The first system knew no pages, so that a small network has to fit on one.
const LIMIT: u32 = 10_000;

/// Query of `GET /files`. Parameters that are not known are ignored, as in the first system.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageOf {
    /// At the most; default and limit 10000.
    limit: Option<u32>,
    /// Where the previous page ended.
    cursor: Option<String>,
}

/// Query of `GET /search` and `GET /locate`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OneFile {
    /// A name.
    #[param(required = true)]
    file: Option<String>,
}

impl OneFile {
    fn name(self) -> Result<String, Problem> {
        self.file.ok_or_else(|| missing("file", "?file=NAME"))
    }
}

/// `GET /healthz`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Who this is.
#[utoipa::path(get, path = "/", responses((status = 200, body = PeerRoot)))]
pub(super) async fn root(State(api): State<Arc<Api>>) -> Result<Json<PeerRoot>, Problem> {
    let archivos = own::announced_files(&api).await?;
    let message = format!("Peer {}", api.facts.name);
    Ok(Json(PeerRoot { message, status: "activo".to_owned(), archivos }))
}

/// The names of this peer's files.
#[utoipa::path(get, path = "/files", params(PageOf), responses((status = 200, body = PeerFileNames)))]
pub(super) async fn files(
    State(api): State<Arc<Api>>,
    ApiQuery(page): ApiQuery<PageOf>,
) -> Result<Json<PeerFileNames>, Problem> {
    let limit = page.limit.unwrap_or(LIMIT).clamp(1, LIMIT);
    let (files, next) = names(&api, limit, page.cursor.as_deref()).await?;
    Ok(Json(PeerFileNames { peer: api.facts.name.clone(), files, next }))
}

/// Where this peer is, and the names of its files.
#[utoipa::path(get, path = "/info", responses((status = 200, body = PeerInfo)))]
pub(super) async fn info(State(api): State<Arc<Api>>) -> Result<Json<PeerInfo>, Problem> {
    let files = first_names(&api).await?;
    let ApiFacts { name, rest_url, grpc_port, .. } = api.facts.clone();
    Ok(Json(PeerInfo { id: name, rest_url, grpc_port, files, peer_id: api.identity.to_string() }))
}

/// Whether this peer has a file.
#[utoipa::path(get, path = "/search", params(OneFile), responses((status = 200, body = PeerHas)))]
pub(super) async fn search(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<OneFile>,
) -> Result<Json<PeerHas>, Problem> {
    let file = query.name()?;
    let exists = !api.catalog.find_name(&file, Viewer::Network).await?.is_empty();
    Ok(Json(PeerHas { peer: api.facts.name.clone(), file, exists }))
}

/// Who has a file: this peer; otherwise its friends; otherwise whoever the maestro knows.
#[utoipa::path(get, path = "/locate", params(OneFile), responses((status = 200, body = Located)))]
pub(super) async fn locate(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<OneFile>,
) -> Result<Json<Located>, Problem> {
    let file = query.name()?;
    // What cannot be a name is the name of nothing: the first system answers so too.
    let Ok(name) = FileName::parse(&file) else { return Ok(Json(Located { file, peers: Vec::new() })) };
    let shown_here = !api.catalog.find_name(&file, Viewer::Network).await?.is_empty();
    let found = api.locator.locate_seed_order(&Query::Name(name)).await;
    if let Some(why) = &found.incomplete {
        tracing::debug!(file, reason = why, "not everyone could be asked for {file}: {why}");
    }
    Ok(Json(Located { file, peers: peers_of(found, shown_here, &api.facts) }))
}

/// Whether this daemon answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The refusal of a call that lacks a parameter.
pub(super) fn missing(parameter: &str, example: &str) -> Problem {
    Problem::bad_request("missing-parameter", format!("the query has no parameter `{parameter}`"))
        .hint(format!("add it: {example}"))
}

/// The names on the first page.
pub(super) async fn first_names(api: &Api) -> Result<Vec<String>, Problem> {
    Ok(names(api, LIMIT, None).await?.0)
}

async fn names(
    api: &Api,
    limit: u32,
    cursor: Option<&str>,
) -> Result<(Vec<String>, Option<String>), Problem> {
    let query = OwnQuery { prefix: "", text: "", viewer: Viewer::Network, limit, cursor };
    let page = own::list(&api.catalog, query).await?;
    let mut names: Vec<String> = page.files.into_iter().map(|file| file.name).collect();
    // In order of names: several shares that have one stand side by side.
    names.dedup();
    Ok((names, page.next))
}

/// Each peer once, with the first content that it was found with.
fn peers_of(found: discovery::Located, shown_here: bool, facts: &ApiFacts) -> Vec<PeerRef> {
    let mut seen = HashSet::new();
    let mut peers = Vec::new();
    for candidate in found.candidates {
        for source in candidate.sources {
            let own = source.is_own();
            if own && !shown_here {
                continue;
            }
            let (rest, grpc_port) = match own {
                true => (facts.rest_url.clone(), facts.grpc_port),
                false => (source.peer.rest_url().to_owned(), source.peer.grpc_port()),
            };
            let peer_id = source.peer.id().map(|id| id.to_string());
            if !seen.insert((peer_id.clone(), rest.clone())) {
                continue;
            }
            let name = peer_id.is_some().then(|| source.peer.name().to_owned());
            let content = candidate.content.map(|content| content.to_string());
            let (origin, teller) = (Some(source.teller.origin), source.teller);
            peers.push(PeerRef {
                rest,
                grpc_port,
                peer_id,
                name,
                content,
                size: candidate.size,
                origin,
                told_by: teller.name,
                told_ms: teller.told_ms,
            });
        }
    }
    peers
}

#[cfg(test)]
#[path = "reads_tests.rs"]
mod tests;
