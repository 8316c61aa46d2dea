//! The calls that change something.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use futures::StreamExt;
use p2p_content::FileName;
use p2p_proto::rest::{MaestroResponse, Refreshed, Uploaded};
use p2p_service::problem::{ApiQuery, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use super::reads;
use crate::api::openapi::FileBytes;
use crate::api::{Api, problems};
use crate::discovery::Maestros;

/// How long a call waits for the maestro to have what changed.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(10);
/// How much of a file that is not taken is read all the same, and for how long.
const READ_OUT_LEN: usize = 64 << 20;
const READ_OUT_FOR: Duration = Duration::from_secs(5);

/// Query of `POST /upload`. Parameters that are not known are ignored, as in the first system.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// The name that the file shall have.
    #[param(required = true)]
    filename: Option<String>,
}

/// Looks at the shared directories now, and waits until the maestro has what was found.
#[utoipa::path(post, path = "/refresh", responses((status = 200, body = Refreshed)), security(("token" = [])))]
pub(super) async fn refresh(State(api): State<Arc<Api>>) -> Result<Json<Refreshed>, Problem> {
    let found = api.shares.refresh().await?;
    let announced = announced(&api.maestros, found.last_sequence).await;
    let files = reads::first_names(&api).await?;
    Ok(Json(Refreshed { status: "updated".to_owned(), files, maestro_response: response_of(announced) }))
}

/// Puts a file, which is the body, into the shared directory, and waits until the maestro has it.
#[utoipa::path(
    post,
    path = "/upload",
    params(UploadQuery),
    request_body(content = FileBytes, content_type = "application/octet-stream"),
    responses((status = 200, body = Uploaded)),
    security(("token" = []))
)]
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    ApiQuery(query): ApiQuery<UploadQuery>,
    body: Body,
) -> Result<Json<Uploaded>, Problem> {
    let name = name_of(query)?;
    let mut bytes = body.into_data_stream();
    let received = match api.intake.receive(name, &mut bytes, true).await {
        Ok(received) => received,
        Err(error) => {
            read_out(bytes).await;
            return Err(error.into());
        }
    };
    let announced = announced(&api.maestros, received.sequence).await;
    let message = message_of(&received.name, received.size, announced);
    Ok(Json(Uploaded { ok: true, message, content: Some(received.content.to_string()) }))
}

/// Lets a caller whose file is not taken send more of it, in vain: one that finds the connection closed while it still
/// sends may never read the answer that says why.
async fn read_out(mut bytes: BodyDataStream) {
    let mut left = READ_OUT_LEN;
    let reading = async {
        while let Some(Ok(chunk)) = bytes.next().await
            && left > 0
        {
            left = left.saturating_sub(chunk.len());
        }
    };
    // Whoever has not sent it by then learns of the reason from a closed connection.
    let _ = tokio::time::timeout(READ_OUT_FOR, reading).await;
}

async fn announced(maestros: &Maestros, sequence: u64) -> Result<(), String> {
    if !maestros.is_any() {
        // Nobody is there to wait for.
        return Err("this peer has joined no network".to_owned());
    }
    maestros.announced(sequence, ANNOUNCE_WAIT).await
}

fn name_of(query: UploadQuery) -> Result<FileName, Problem> {
    let name = query.filename.ok_or_else(|| reads::missing("filename", "?filename=NAME"))?;
    FileName::parse(&name).map_err(|error| problems::invalid_name(&error))
}

fn response_of(announced: Result<(), String>) -> MaestroResponse {
    match announced {
        Ok(()) => MaestroResponse { status: "registered".to_owned(), message: None },
        Err(why) => MaestroResponse { status: "pending".to_owned(), message: Some(why) },
    }
}

fn message_of(name: &FileName, size: u64, announced: Result<(), String>) -> String {
    match announced {
        Ok(()) => format!("{name} ({size} bytes) is shared, and in the maestro's directory"),
        Err(why) => {
            format!("{name} ({size} bytes) is shared; its announcement to the maestro is pending: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_refused() {
        let code = |filename: Option<&str>| {
            let query = UploadQuery { filename: filename.map(str::to_owned) };
            name_of(query).map_err(|problem| (problem.body().status, problem.body().code.clone()))
        };
        assert_eq!(code(Some("docs/x.txt")), Ok(FileName::parse("docs/x.txt").unwrap()));
        assert_eq!(code(None), Err((400, "missing-parameter".to_owned())));
        for name in ["", "../x", "/etc/passwd", "a\0b", ".p2p-partial/x", &"a".repeat(256)] {
            assert_eq!(code(Some(name)), Err((422, "invalid-name".to_owned())), "{name:?}");
        }
    }

    #[test]
    fn an_announcement_that_is_pending_is_told_with_its_reason() {
        let name = FileName::parse("x.txt").unwrap();
        let message = message_of(&name, 5, Err("no maestro is joined".to_owned()));
        assert!(message.contains("pending: no maestro is joined"), "{message}");
        assert!(!message_of(&name, 5, Ok(())).contains("pending"));
        let response = response_of(Err("why".to_owned()));
        assert_eq!((response.status.as_str(), response.message.as_deref()), ("pending", Some("why")));
        let response = serde_json::to_value(response_of(Ok(()))).unwrap();
        assert_eq!(response, serde_json::json!({ "status": "registered" }));
    }
}
