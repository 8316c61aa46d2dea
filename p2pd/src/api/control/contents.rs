//! The bytes of a file that this peer has, for a user who may not read the daemon's directories.

use std::fs::File;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use p2p_content::ContentHash;
use p2p_service::problem::{ApiPath, Problem};

use crate::api::openapi::FileBytes;
use crate::api::{Api, file_body, problems};
use crate::catalog::{Fact, Stamp, Viewer};
use crate::shares::Shares;

/// The bytes of a content, from any file here that has it.
#[utoipa::path(
    get,
    path = "/v1/contents/{hash}",
    operation_id = "read_content",
    params(("hash" = String, Path, description = "The content's BLAKE3 hash in hex.")),
    responses((status = 200, description = "The bytes.", body = FileBytes, content_type = "application/octet-stream"))
)]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    ApiPath(hash): ApiPath<String>,
) -> Result<Response, Problem> {
    let content: ContentHash = hash.parse().map_err(invalid_hash)?;
    let facts = api.catalog.find_content(content, Viewer::Own).await?;
    let shares = api.shares.clone();
    let opened = tokio::task::spawn_blocking(move || open_first(&shares, &facts)).await;
    let (file, stamp) = opened.map_err(problems::internal)?.ok_or_else(|| problems::not_here(&content))?;
    Ok(file_body::answer(file, stamp))
}

/// The first that is still the file it was: another one may have the same content.
fn open_first(shares: &Shares, facts: &[Fact]) -> Option<(File, Stamp)> {
    facts.iter().find_map(|fact| match shares.open(fact) {
        Ok(file) => Some((file, fact.stamp())),
        Err(error) => {
            tracing::debug!(%error, "a file that should have a content cannot be opened: {error}");
            None
        }
    })
}

fn invalid_hash(error: p2p_content::ParseHashError) -> Problem {
    Problem::bad_request("invalid-hash", error.to_string())
}
