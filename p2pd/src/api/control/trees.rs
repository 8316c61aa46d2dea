//! Whole directories of the network, fetched by one transfer.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures::stream::{self, StreamExt as _};
use p2p_proto::control::{PeerName, Transfer, TreeAnswer, TreeConflict, TreeFileRow, TreeQuery, TreeRequest};
use p2p_service::http::UnixCaller;
use p2p_service::problem::{ApiJson, ApiQuery, Problem};

use super::transfers::asked_by;
use crate::api::{Api, problems};
use crate::discovery::PeerRef;
use crate::transfer::{Conflict, Pattern, TreeFileFound, TreeFiles, TreeFound, TreeOrder};

/// What fetching a directory comes to: its files, their bytes, who has them. Nothing is fetched.
///
/// The list of its files comes last, as it is read: a million of them are in nobody's memory at once.
#[utoipa::path(get, path = "/v1/trees", operation_id = "look_at_tree", responses((status = 200, body = TreeAnswer)))]
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiQuery(TreeQuery { what, from, list }): ApiQuery<TreeQuery>,
) -> Result<impl IntoResponse, Problem> {
    let order = order_of(&api, caller, TreeRequest { what, from, priority: None }).await?;
    let most = list.map_or(u64::MAX, Into::into);
    let (found, files) = api.transfers.look_at_tree(&order, most).await?;
    let answer = serde_json::to_string(&answer_of(order.what.text(), found)).map_err(problems::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], with_list(&answer, files)))
}

/// An answer whose list is empty, with this list in it.
fn with_list(answer: &str, files: TreeFiles) -> Body {
    const END: &str = "]}";
    let head = answer.strip_suffix(END).unwrap_or(answer).to_owned();
    let pages = stream::try_unfold((files, true), |(mut files, is_first)| async move {
        let page = files.next().await?;
        if page.is_empty() {
            return Ok(None);
        }
        let rows: Result<Vec<String>, _> =
            page.into_iter().map(|file| serde_json::to_string(&row_of(file))).collect();
        let before = if is_first { "" } else { "," };
        let text = format!("{before}{}", rows?.join(","));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some((text, (files, false))))
    });
    let ends = |text: String| stream::once(async { Ok(text) });
    Body::from_stream(ends(head).chain(pages).chain(ends(END.to_owned())))
}

fn row_of(TreeFileFound { name, content, size, sources }: TreeFileFound) -> TreeFileRow {
    TreeFileRow { name: name.into(), content: content.to_string(), size, sources }
}

/// Fetches a directory. The answer comes once it is known which files that are, and does not wait for them.
///
/// Names that stand for several contents, or for another file here, are refused with 409 before anything is fetched.
#[utoipa::path(
    post,
    path = "/v1/trees",
    operation_id = "fetch_tree",
    request_body = TreeRequest,
    responses((status = 201, description = "The transfer is kept, and goes on by itself.", body = Transfer))
)]
pub(super) async fn fetch(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<UnixCaller>,
    ApiJson(request): ApiJson<TreeRequest>,
) -> Result<impl IntoResponse, Problem> {
    let order = order_of(&api, caller, request).await?;
    let transfer = api.transfers.fetch_tree(order).await?;
    let location = format!("/v1/transfers/{}", transfer.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(transfer)))
}

async fn order_of(api: &Api, caller: UnixCaller, request: TreeRequest) -> Result<TreeOrder, Problem> {
    let what = Pattern::parse(&request.what)?;
    let from = match &request.from {
        Some(peer) => Some(api.locator.find_peer(peer).await?),
        None => None,
    };
    Ok(TreeOrder { what, from, priority: request.priority, by: asked_by(caller) })
}

fn answer_of(what: &str, found: TreeFound) -> TreeAnswer {
    let conflict = |conflict: Conflict| TreeConflict {
        name: conflict.name.into(),
        here: conflict.here,
        contents: conflict.contents.iter().map(ToString::to_string).collect(),
    };
    let peer = |peer: PeerRef| PeerName {
        peer_id: peer.id().map(|id| id.to_string()),
        name: peer.name().to_owned(),
    };
    TreeAnswer {
        what: what.to_owned(),
        files: found.files,
        bytes: found.bytes,
        here_files: found.here_files,
        here_bytes: found.here_bytes,
        unproven_files: found.unproven,
        conflicts: found.conflicts,
        first_conflicts: found.first_conflicts.into_iter().map(conflict).collect(),
        sources: found.sources.into_iter().map(peer).collect(),
        free_bytes: found.free_bytes,
        incomplete: found.incomplete,
        list: Vec::new(),
    }
}
