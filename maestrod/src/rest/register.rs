//! `POST /register`: how a plain peer of the first system announces its files. It proves nothing, so it may come only
//! from where the configuration says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use p2p_content::FileName;
use p2p_proto::rest::{MAX_REGISTERED_FILES as MAX_FILES, Register, Registered};
use p2p_service::problem::{ApiJson, Problem};

use super::{RestState, problem_of};
use crate::config::RegisterFrom;
use crate::directory::PlainPeer;
use crate::presence::now_ms;
use crate::profile;

/// A plain peer announces its files, in place of what it announced before.
#[utoipa::path(
    post,
    path = "/register",
    request_body = Register,
    responses(
        (status = 200, description = "It is taken.", body = Registered),
        (status = 400, description = "The body is not JSON."),
        (status = 403, description = "A web page asks, or the configuration lets nobody register from there."),
        (status = 413, description = "The body is too large."),
        (status = 415, description = "The body is not declared as JSON."),
        (status = 422, description = "The body is JSON, and no valid registration."),
        (status = 507, description = "There is no space left for it."),
    )
)]
pub(super) async fn register(
    State(state): State<Arc<RestState>>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    ApiJson(body): ApiJson<Register>,
) -> Result<Json<Registered>, Problem> {
    let from = state.settings.borrow().rest.register;
    check_caller(from, caller.ip())?;
    let (plain, files) = checked(&body)?;
    let count = files.len();
    state.directory.register(plain, files, now_ms()).await.map_err(problem_of)?;
    let (peer, caller_address) = (&body.peer, caller);
    tracing::info!(peer, %caller_address, files = count, "the plain peer {peer} registered {count} files, from {caller}");
    let Register { peer, files, grpc_port } = body;
    Ok(Json(Registered { status: "registered".to_owned(), peer, files, grpc_port }))
}

fn check_caller(from: RegisterFrom, caller: IpAddr) -> Result<(), Problem> {
    let refused = |detail: &str| {
        Problem::new(StatusCode::FORBIDDEN, "register-refused", "Registering is not allowed")
            .detail(detail)
            .hint("the maestro's configuration says who may: [rest] register")
    };
    match from {
        RegisterFrom::Anyone => Ok(()),
        RegisterFrom::Loopback if caller.to_canonical().is_loopback() => Ok(()),
        RegisterFrom::Loopback => {
            Err(refused("only programs on the maestro's own machine may register files"))
        }
        RegisterFrom::Off => Err(refused("this maestro takes no registrations, only peers with an identity")),
    }
}

fn checked(body: &Register) -> Result<(PlainPeer, Vec<FileName>), Problem> {
    let refused = |code: &str, detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The registration is not valid").detail(detail)
    };
    let authority =
        profile::authority_of(&body.peer).map_err(|error| refused("invalid-url", error.to_string()))?;
    if body.grpc_port == 0 {
        return Err(refused("invalid-port", "grpc_port is 0; it must be 1 to 65535".to_owned()));
    }
    if body.files.len() > MAX_FILES {
        let detail = format!(
            "a plain peer may register {MAX_FILES} files, and these are at least {}",
            body.files.len()
        );
        return Err(
            refused("too-many-files", detail).hint("peers with an identity (p2pd) have no such limit")
        );
    }
    let files = body.files.iter().map(|name| FileName::parse(name)).collect::<Result<_, _>>();
    let files = files.map_err(|error| refused("invalid-name", error.to_string()))?;
    let plain = PlainPeer {
        // One peer, whether it ends its URL with a slash or not.
        url: body.peer.trim_end_matches('/').to_owned(),
        address: format!("{}:{}", authority.host(), body.grpc_port),
        grpc_port: body.grpc_port,
    };
    Ok((plain, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(peer: &str, files: &[&str], grpc_port: u16) -> Register {
        let files = files.iter().map(|name| (*name).to_owned()).collect();
        Register { peer: peer.to_owned(), files, grpc_port }
    }

    #[test]
    fn the_address_is_the_urls_host_and_the_grpc_port() {
        for (url, address) in [
            ("http://localhost:9001", "localhost:9002"),
            ("http://localhost:9001/", "localhost:9002"),
            ("http://[::1]:9001", "[::1]:9002"),
            ("https://ada.lab", "ada.lab:9002"),
        ] {
            let (plain, _) = checked(&body(url, &[], 9002)).unwrap();
            assert_eq!(plain.address, address);
            assert!(!plain.url.ends_with('/'));
        }
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let good = "http://localhost:9001";
        let many = vec!["a"; MAX_FILES + 1];
        for (body, code, detail) in [
            (body("localhost:9001", &[], 9002), "invalid-url", "localhost:9001"),
            (body(good, &["a", "../b"], 9002), "invalid-name", "../b"),
            (body(good, &[], 0), "invalid-port", "grpc_port"),
            (body(good, &many, 9002), "too-many-files", "100001"),
        ] {
            let problem = checked(&body).unwrap_err().body().clone();
            assert_eq!((problem.status, problem.code.as_str()), (422, code));
            assert!(problem.detail.contains(detail), "{}", problem.detail);
        }
    }

    #[test]
    fn who_may_register_depends_on_where_it_comes_from() {
        let may = |from, caller: &str| check_caller(from, caller.parse().unwrap()).is_ok();
        assert!(may(RegisterFrom::Loopback, "127.0.0.1") && may(RegisterFrom::Loopback, "::ffff:127.0.0.1"));
        assert!(!may(RegisterFrom::Loopback, "192.0.2.1"));
        assert!(may(RegisterFrom::Anyone, "192.0.2.1"));
        assert!(!may(RegisterFrom::Off, "127.0.0.1"));
    }
}
