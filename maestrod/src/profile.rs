//! What a peer says of itself, checked, and the addresses that follow from where it was seen. Pure.

use std::net::{IpAddr, SocketAddr};

use axum::http::Uri;
use axum::http::uri::Authority;
use p2p_proto::v1::Hello;

use crate::directory::Profile;

/// Longest name and version, in bytes.
const MAX_TEXT_BYTES: usize = 255;
/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// Longest address, in bytes: a host name, a colon and a port.
const MAX_ADDRESS_BYTES: usize = 253 + 1 + 5;
/// Most addresses that a peer may announce.
const MAX_ADDRESSES: usize = 32;

/// What is wrong with what a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A text is too long or not printable.
    #[error("the peer's {what} is longer than {MAX_TEXT_BYTES} bytes or has control characters")]
    Text {
        /// Which.
        what: &'static str,
    },
    /// There are too many addresses.
    #[error("the peer announces {found} addresses, and at most {MAX_ADDRESSES} are kept")]
    TooManyAddresses {
        /// How many.
        found: usize,
    },
    /// An address is not `host:port`.
    #[error("the peer announces the address {address:?}, which is not host:port")]
    Address {
        /// The address.
        address: String,
    },
    /// The port is not one.
    #[error("the peer announces the gRPC port {port}, which is not a port (1 to 65535)")]
    Port {
        /// The port.
        port: u32,
    },
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// A text is not the base URL of a REST interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the URL of a peer; it must be like http://host:9001")]
pub struct UrlError {
    /// The text, cut where it is very long.
    pub url: String,
}

/// Checks a peer's Hello and completes its addresses with `seen`, where its connection comes from.
///
/// # Errors
///
/// A [`ProfileError`]: the first thing that is wrong.
pub fn from_hello(hello: &Hello, seen: SocketAddr) -> Result<Profile, ProfileError> {
    for (what, text) in [("name", &hello.name), ("version", &hello.version)] {
        if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
            return Err(ProfileError::Text { what });
        }
    }
    if hello.addresses.len() > MAX_ADDRESSES {
        return Err(ProfileError::TooManyAddresses { found: hello.addresses.len() });
    }
    for address in &hello.addresses {
        if !is_address(address) {
            let address = address.chars().take(MAX_TEXT_BYTES).collect();
            return Err(ProfileError::Address { address });
        }
    }
    let port = u16::try_from(hello.grpc_port).ok().filter(|port| *port != 0);
    let grpc_port = port.ok_or(ProfileError::Port { port: hello.grpc_port })?;
    if !hello.rest_url.is_empty() {
        authority_of(&hello.rest_url)?;
    }
    Ok(Profile {
        name: hello.name.clone(),
        addresses: reachable(&hello.addresses, seen.ip(), grpc_port),
        rest_url: hello.rest_url.clone(),
        grpc_port,
        version: hello.version.clone(),
    })
}

/// Where a peer can be reached: what it announces, and where it was seen.
///
/// What it announces comes first, for it knows its networks; but if that is only the loopback, and it was seen
/// elsewhere, it does not know the address that others see.
pub fn reachable(announced: &[String], seen: IpAddr, grpc_port: u16) -> Vec<String> {
    let seen = seen.to_canonical();
    let mut addresses: Vec<String> = Vec::with_capacity(announced.len() + 1);
    let seen_address = SocketAddr::new(seen, grpc_port).to_string();
    if !seen.is_loopback() && announced.iter().all(|address| is_loopback(address)) {
        addresses.push(seen_address.clone());
    }
    // A link-local address means nothing without the interface, and the interface nothing elsewhere.
    let link_local = matches!(seen, IpAddr::V6(address) if address.is_unicast_link_local());
    for address in announced.iter().chain((!link_local).then_some(&seen_address)) {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    addresses
}

/// The host, and the port if there is one, of the base URL of a REST interface.
///
/// # Errors
///
/// [`UrlError`] if it is not an http(s) URL with a host, or has a user, a query or a fragment.
pub fn authority_of(url: &str) -> Result<Authority, UrlError> {
    let refuse = || UrlError { url: url.chars().take(MAX_TEXT_BYTES).collect() };
    if url.len() > MAX_URL_BYTES || url.contains('#') {
        return Err(refuse());
    }
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority)
            if http
                && uri.query().is_none()
                && !authority.host().is_empty()
                && !authority.as_str().contains('@') =>
        {
            Ok(authority.clone())
        }
        _ => Err(refuse()),
    }
}

fn is_address(address: &str) -> bool {
    if address.len() > MAX_ADDRESS_BYTES || address.contains('@') {
        return false;
    }
    let Ok(authority) = address.parse::<Authority>() else { return false };
    !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port != 0)
}

fn is_loopback(address: &str) -> bool {
    let Ok(authority) = address.parse::<Authority>() else { return false };
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(announced: &[&str], seen: &str) -> Vec<String> {
        let announced: Vec<String> = announced.iter().map(|address| (*address).to_owned()).collect();
        reachable(&announced, seen.parse().unwrap(), 9002)
    }

    #[test]
    fn the_address_seen_is_added_once() {
        assert_eq!(reached(&["10.0.0.5:9002"], "10.0.0.5"), ["10.0.0.5:9002"]);
        assert_eq!(reached(&["10.0.0.5:9002"], "192.0.2.1"), ["10.0.0.5:9002", "192.0.2.1:9002"]);
        assert_eq!(reached(&["10.0.0.5:9002"], "::ffff:192.0.2.1"), ["10.0.0.5:9002", "192.0.2.1:9002"]);
        assert_eq!(reached(&[], "2001:db8::1"), ["[2001:db8::1]:9002"]);
        assert_eq!(
            reached(&["10.0.0.5:9002", "10.0.0.5:9002"], "127.0.0.1"),
            ["10.0.0.5:9002", "127.0.0.1:9002"]
        );
        assert_eq!(reached(&["10.0.0.5:9002"], "fe80::1"), ["10.0.0.5:9002"]);
    }

    #[test]
    fn who_announces_only_the_loopback_and_is_elsewhere_is_there_first() {
        for loopback in ["127.0.0.1:9002", "localhost:9002", "[::1]:9002", "[::ffff:127.0.0.1]:9002"] {
            assert_eq!(reached(&[loopback], "192.0.2.1"), ["192.0.2.1:9002", loopback]);
        }
        assert_eq!(reached(&["localhost:9002"], "127.0.0.1"), ["localhost:9002", "127.0.0.1:9002"]);
    }

    #[test]
    fn a_hello_is_checked() {
        let good = Hello {
            name: "ada".to_owned(),
            addresses: vec!["ada.lab:9002".to_owned()],
            rest_url: "http://ada.lab:9001".to_owned(),
            grpc_port: 9002,
            version: "0.1.0".to_owned(),
            ..Hello::default()
        };
        let seen: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        assert_eq!(from_hello(&good, seen).unwrap().addresses, ["ada.lab:9002", "192.0.2.1:9002"]);
        assert!(from_hello(&Hello { rest_url: String::new(), ..good.clone() }, seen).is_ok());
        let bad = [
            Hello { name: "a\nb".to_owned(), ..good.clone() },
            Hello { version: "v".repeat(300), ..good.clone() },
            Hello { addresses: vec!["ada".to_owned()], ..good.clone() },
            Hello { addresses: vec!["ada:0".to_owned()], ..good.clone() },
            Hello { addresses: vec!["root@ada:1".to_owned()], ..good.clone() },
            Hello { addresses: vec!["a:1".to_owned(); 33], ..good.clone() },
            Hello { grpc_port: 0, ..good.clone() },
            Hello { grpc_port: 65536, ..good.clone() },
            Hello { rest_url: "ada.lab".to_owned(), ..good.clone() },
        ];
        for hello in bad {
            assert!(from_hello(&hello, seen).is_err(), "{hello:?}");
        }
    }

    #[test]
    fn urls_have_a_host_and_nothing_odd() {
        for url in ["http://localhost:9001", "https://[::1]:9001/", "http://ada.lab"] {
            assert!(authority_of(url).is_ok(), "{url}");
        }
        let long = format!("http://{}", "a".repeat(3000));
        for url in [
            "",
            "localhost:9001",
            "ftp://a",
            "http://",
            "http://u@a",
            "http://a?x",
            "http://a#x",
            "http://a b",
            &long,
        ] {
            assert!(authority_of(url).is_err(), "{url}");
        }
    }
}
