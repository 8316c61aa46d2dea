//! The bearer token that guards a daemon's REST interface: its file, and the check of a request.
//!
//! Called by a daemon's composition file, which keeps the token in its state directory, and by its REST router.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::state_dir::write_private;

const TOKEN_LEN_BYTES: usize = 32;

/// The token in the file at `path`; if there is no such file, it is made, mode 0600, with a new random token.
pub fn load_or_create_token(path: &Path) -> io::Result<String> {
    match read_token(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = random_token()?;
            write_private(path, format!("{token}\n").as_bytes())?;
            Ok(token)
        }
        read => read,
    }
}

/// The token in the file at `path`.
pub fn read_token(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read the token {}: {error}", path.display()))
    })?;
    let token = text.trim();
    if token.len() < TOKEN_LEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!(
            "{} does not hold a token of at least {TOKEN_LEN_BYTES} characters; \
             remove it and a new one is made at the next start",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(token.to_owned())
}

/// Whether the request carries `Authorization: Bearer <token>`, found out in a time that does not tell how much of
/// a wrong token was right.
pub fn authorized(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let Some((scheme, given)) = value.split_once(' ') else { return false };
    scheme.eq_ignore_ascii_case("bearer") && same(given.trim().as_bytes(), token.as_bytes())
}

/// Middleware that lets only requests with the token pass, and answers the others with a 401 problem.
///
/// For `axum::middleware::from_fn_with_state(Arc::<str>::from(token), bearer::require)`.
pub async fn require(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    if authorized(request.headers(), &token) {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is required")
        .detail("this request needs the daemon's token, and does not carry it")
        .hint("send the header 'Authorization: Bearer <token>', with the token from the daemon's state directory");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// The length is no secret; every byte is compared whatever the earlier ones were.
fn same(given: &[u8], expected: &[u8]) -> bool {
    if given.len() != expected.len() || expected.is_empty() {
        return false;
    }
    let difference = given.iter().zip(expected).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    black_box(difference) == 0
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0u8; TOKEN_LEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
