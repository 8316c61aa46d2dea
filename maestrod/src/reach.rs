//! Whether a peer can be reached from here: which addresses may be tried for it, how often, and what came of it.
//!
//! A peer must not use the maestro to look at other machines, nor to knock on many doors with one call. So the maestro
//! connects only to the address from which the peer itself calls, to a few ports at a time, a few times a minute; it
//! tells no more than the kind of the answer, and sends nothing beyond a TLS handshake. Called by `grpc`.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use p2p_identity::{Identity, PeerId};
use p2p_proto::v1::AddressCheck;
use p2p_proto::v1::address_check::Outcome;
use p2p_service::wire::{self, Probed};
use tokio::sync::Semaphore;

/// Addresses tried for one call, at most.
const MAX_TRIED: usize = 4;
/// Addresses that one call may name, as many as a Hello may.
const MAX_NAMED: usize = 32;
/// Calls of one peer in a [`PERIOD`] for which something is tried, and from one address.
const CALLS: usize = 6;
const CALLS_FROM: usize = 60;
const PERIOD: Duration = Duration::from_secs(60);
/// Calls of all peers for which something is tried at one time.
const AT_ONCE: usize = 16;
/// How long an address may take to answer, handshake included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries addresses for peers, within limits.
pub(crate) struct Reach {
    calls: Mutex<Calls>,
    at_once: Semaphore,
}

impl Reach {
    pub(crate) fn new() -> Reach {
        Reach { calls: Mutex::default(), at_once: Semaphore::new(AT_ONCE) }
    }

    /// Tries what may be tried of these addresses of `peer`, who calls from `seen`.
    pub(crate) async fn check(
        &self,
        identity: &Identity,
        peer: PeerId,
        seen: SocketAddr,
        announced: &[String],
        grpc_port: u16,
    ) -> Vec<AddressCheck> {
        let Targets { tried, others } = targets(announced, seen, grpc_port);
        let allowed = self.allows(peer, seen.ip());
        let permit = self.at_once.try_acquire();
        let mut checks = match (allowed, &permit) {
            (true, Ok(_)) => {
                join_all(tried.into_iter().map(|address| try_address(identity, peer, address))).await
            }
            (false, _) => not_tried(tried, "this peer has asked too often; it may again in a minute"),
            (true, Err(_)) => not_tried(tried, "the maestro checks many peers just now; ask again later"),
        };
        checks.extend(others.into_iter().map(|address| AddressCheck {
            address,
            outcome: Outcome::NotTried.into(),
            message: "the maestro only tries the address from which it sees the peer".to_owned(),
            took_ms: 0,
        }));
        checks
    }
}

impl Reach {
    /// Keys cost nothing: who has many still calls from somewhere.
    fn allows(&self, peer: PeerId, seen: IpAddr) -> bool {
        let now = Instant::now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.take(Asker::Peer(peer), now) && calls.take(Asker::of(seen), now)
    }
}

fn not_tried(addresses: Vec<SocketAddr>, why: &str) -> Vec<AddressCheck> {
    let check = |address: SocketAddr| AddressCheck {
        address: address.to_string(),
        outcome: Outcome::NotTried.into(),
        message: why.to_owned(),
        took_ms: 0,
    };
    addresses.into_iter().map(check).collect()
}

async fn try_address(identity: &Identity, peer: PeerId, address: SocketAddr) -> AddressCheck {
    let began = Instant::now();
    let probed = wire::probe(identity, address, peer, PATIENCE).await;
    let (outcome, message) = match probed {
        Ok(Probed::Reached) => (Outcome::Reachable, "the peer answers".to_owned()),
        Ok(Probed::Refused) => (Outcome::Refused, "the connection was refused".to_owned()),
        Ok(Probed::Silent) => (Outcome::Silent, format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Probed::NoRoute) => (Outcome::NoRoute, "the maestro's machine knows no way there".to_owned()),
        Ok(Probed::NotTls) => (Outcome::NotTls, "something else answers, or hangs up".to_owned()),
        Ok(Probed::OtherPeer) => (Outcome::OtherPeer, "another peer answers".to_owned()),
        Err(error) => (Outcome::NotTried, error.to_string()),
    };
    let took_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
    AddressCheck { address: address.to_string(), outcome: outcome.into(), message, took_ms }
}

/// What may be tried, and what not.
#[derive(Debug, PartialEq, Eq)]
struct Targets {
    tried: Vec<SocketAddr>,
    others: Vec<String>,
}

/// Of what a peer announces, only what is at the address from which it calls: there it is itself, or its own network's
/// gateway. Names are not looked up.
fn targets(announced: &[String], seen: SocketAddr, grpc_port: u16) -> Targets {
    let own = |port| SocketAddr::new(seen.ip().to_canonical(), port);
    let mut tried = vec![with_scope(own(grpc_port), seen)];
    let mut others = Vec::new();
    for text in announced.iter().take(MAX_NAMED) {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && is_same_host(address.ip(), seen.ip()) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                if tried.contains(&address) {
                    continue;
                }
                if tried.len() < MAX_TRIED {
                    tried.push(address);
                } else {
                    others.push(text.clone());
                }
            }
            _ => others.push(text.clone()),
        }
    }
    Targets { tried, others }
}

/// All of the loopback is one host.
fn is_same_host(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || a.is_loopback() && b.is_loopback()
}

/// A link-local address means nothing without its interface.
fn with_scope(mut address: SocketAddr, seen: SocketAddr) -> SocketAddr {
    if let (SocketAddr::V6(address), SocketAddr::V6(seen)) = (&mut address, seen) {
        address.set_scope_id(seen.scope_id());
    }
    address
}

/// Whose calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Peer(PeerId),
    /// An IPv4 address, or the network of an IPv6 address, of which one host has all.
    From(IpAddr),
}

impl Asker {
    fn of(seen: IpAddr) -> Asker {
        Asker::From(match seen.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            ip => ip,
        })
    }

    fn calls(self) -> usize {
        match self {
            Asker::Peer(_) => CALLS,
            Asker::From(_) => CALLS_FROM,
        }
    }
}

/// When each has called lately.
#[derive(Debug, Default)]
struct Calls {
    by_asker: HashMap<Asker, VecDeque<Instant>>,
}

impl Calls {
    /// Whether something may be tried now for who asks.
    fn take(&mut self, asker: Asker, now: Instant) -> bool {
        self.by_asker.retain(|_, calls| {
            while calls.front().is_some_and(|call| now.duration_since(*call) >= PERIOD) {
                calls.pop_front();
            }
            !calls.is_empty()
        });
        let calls = self.by_asker.entry(asker).or_default();
        if calls.len() >= asker.calls() {
            return false;
        }
        calls.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(announced: &[&str], seen: &str) -> (Vec<String>, Vec<String>) {
        let announced: Vec<String> = announced.iter().map(|text| (*text).to_owned()).collect();
        let Targets { tried, others } = targets(&announced, seen.parse().unwrap(), 9002);
        (tried.iter().map(ToString::to_string).collect(), others)
    }

    #[test]
    fn only_the_callers_own_address_is_tried() {
        let (own, others) =
            tried(&["192.0.2.1:9002", "10.0.0.9:22", "192.0.2.1:9102", "ada.lab:9002"], "192.0.2.1:4");
        assert_eq!(own, ["192.0.2.1:9002", "192.0.2.1:9102"]);
        assert_eq!(others, ["10.0.0.9:22", "ada.lab:9002"]);
        assert_eq!(tried(&["192.0.2.1:1"], "[::ffff:192.0.2.1]:4").0, ["192.0.2.1:9002", "192.0.2.1:1"]);
        assert_eq!(tried(&["[2001:db8::2]:9002"], "[2001:db8::1]:4").0, ["[2001:db8::1]:9002"]);
        assert_eq!(tried(&[], "[fe80::1%3]:4").0, ["[fe80::1%3]:9002"]);
    }

    #[test]
    fn the_loopback_is_one_host_and_nothing_else_is_on_it() {
        assert_eq!(tried(&["127.0.0.2:9002", "[::1]:9002"], "127.0.0.1:4").0.len(), 3);
        assert_eq!(tried(&["127.0.0.1:9000", "[::1]:9000"], "192.0.2.1:4").0, ["192.0.2.1:9002"]);
        assert_eq!(tried(&["0.0.0.0:9000", "255.255.255.255:1"], "192.0.2.1:4").0, ["192.0.2.1:9002"]);
    }

    #[test]
    fn few_ports_are_tried_at_once() {
        let many: Vec<String> = (1..100).map(|port| format!("192.0.2.1:{port}")).collect();
        let Targets { tried, others } = targets(&many, "192.0.2.1:4".parse().unwrap(), 9002);
        assert_eq!((tried.len(), others.len()), (MAX_TRIED, MAX_NAMED - (MAX_TRIED - 1)));
    }

    #[test]
    fn a_peer_may_ask_a_few_times_a_minute_and_is_then_forgotten() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        let [ana, luis] = [1, 2].map(|byte| Asker::Peer(PeerId::from_bytes([byte; 32])));
        assert!((0..CALLS).all(|_| calls.take(ana, start)));
        assert!(!calls.take(ana, start + PERIOD / 2));
        assert!(calls.take(luis, start + PERIOD / 2), "another peer's calls are its own");
        assert!(calls.take(ana, start + PERIOD));
        assert!(calls.take(luis, start + PERIOD * 3));
        assert_eq!(calls.by_asker.len(), 1, "who asks no more is not remembered");
        let [one, same] = ["2001:db8::1", "2001:db8::ffff:1"].map(|ip| Asker::of(ip.parse().unwrap()));
        let later = start + PERIOD * 9;
        assert!((0..CALLS_FROM).all(|_| calls.take(one, later)) && !calls.take(same, later));
    }
}
