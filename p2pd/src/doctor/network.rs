//! The maestro, whether others can connect, clocks and versions. Pure: what was found comes in, lines come out.

use std::net::{IpAddr, SocketAddr};

use p2p_proto::control::{MaestroState, MaestroStatus, PeerRow};
use p2p_proto::diagnosis::{Check, release_of};
use p2p_proto::v1::AddressCheck;
use p2p_proto::v1::address_check::Outcome;

use super::firewall::Firewalls;
use crate::discovery::Reach;

/// A connection that is not made, or not in sync, for so long is worth a look, in milliseconds.
const PATIENCE_MS: i64 = 60_000;
/// A membership that ends within this is worth a look where it is not being renewed, in milliseconds.
const SOON_MS: i64 = 24 * 3600 * 1000;
/// Clocks may differ by so much, in milliseconds.
const CLOCK_WARNING_MS: u64 = 30_000;
/// From so much on, memberships seem to end early or late, in milliseconds.
const CLOCK_PROBLEM_MS: u64 = 3600 * 1000;
/// How many peers of other releases are named.
const NAMED: usize = 5;

/// How this peer stands with its maestros, and whether it is a member of their networks.
pub(super) fn maestros(all: &[MaestroStatus], now_ms: i64) -> Vec<Check> {
    if all.is_empty() {
        return vec![
            Check::warning("maestro", "this peer has joined no network; only friends can be asked")
                .advise("p2pctl join HOST --token TOKEN"),
        ];
    }
    let mut checks = Vec::new();
    for (at, status) in all.iter().enumerate() {
        let is_of_it = |other: &&MaestroStatus| {
            other.address == status.address
                || other.maestro_id.is_some() && other.maestro_id == status.maestro_id
        };
        let is_served = all.iter().filter(is_of_it).any(is_connected);
        checks.push(maestro(status, is_served, now_ms));
        // Once for each network.
        if !all[..at].iter().any(|other| is_of_it(&other)) {
            checks.push(membership(status, now_ms, is_served));
        }
    }
    checks
}

fn is_connected(status: &MaestroStatus) -> bool {
    matches!(status.state, MaestroState::InSync | MaestroState::Syncing)
}

/// How this peer stands with one maestro. `is_served`: it is connected with this one or another one of the network.
fn maestro(status: &MaestroStatus, is_served: bool, now_ms: i64) -> Check {
    const NAME: &str = "maestro";
    let called = status.name.as_ref().map_or_else(String::new, |name| format!("{name} at "));
    let who = format!("{called}{}", status.address);
    let detail = status.detail.as_deref().unwrap_or("no reason is known");
    let is_long = now_ms.saturating_sub(status.since_ms) > PATIENCE_MS;
    let check = match status.state {
        MaestroState::InSync => Check::ok(NAME, format!("{who} is connected, trusted and in sync")),
        MaestroState::Syncing if !is_long => Check::ok(
            NAME,
            format!("{who} is connected and trusted; {} changes are on their way", status.changes_pending),
        ),
        MaestroState::Syncing => Check::warning(
            NAME,
            format!("{who} has not acknowledged {} changes for long", status.changes_pending),
        )
        .advise("`journalctl -u maestrod` on its machine shows what keeps it"),
        MaestroState::Reserve => Check::ok(
            NAME,
            format!("{who} is connected and trusted, and in reserve for another one of its network"),
        ),
        MaestroState::Connecting if !is_long => {
            Check::warning(NAME, format!("{who} is being connected to")).advise("ask again in a moment")
        }
        MaestroState::Connecting | MaestroState::Unreachable if is_served => Check::warning(
            NAME,
            format!("{who} cannot be reached; another one of its network serves this peer: {detail}"),
        )
        .advise("on its machine: `systemctl status maestrod` and `maestrod doctor`"),
        MaestroState::Connecting | MaestroState::Unreachable => {
            let port = status.address.rsplit(':').next().unwrap_or("9010");
            Check::problem(NAME, format!("{who} cannot be reached: {detail}"))
                .advise("on its machine: `systemctl status maestrod` and `maestrod doctor`")
                .advise(format!(
                    "its firewall must let TCP port {port} in; members and friends are asked meanwhile"
                ))
        }
        MaestroState::Refused => {
            Check::problem(NAME, format!("{who} refuses, or is not who it was: {detail}"))
        }
    };
    match &status.maestro_id {
        Some(id) if is_connected(status) => {
            Check { found: format!("{}; its identity is {id}", check.found), ..check }
        }
        _ => check,
    }
}

fn membership(status: &MaestroStatus, now_ms: i64, connected: bool) -> Check {
    const NAME: &str = "membership";
    let Some(until) = status.membership_until_ms else {
        return match connected {
            true => Check::problem(
                NAME,
                "the maestro has not given this peer a membership: no other peer serves it",
            )
            .advise("`p2pctl leave`, then `p2pctl join HOST` again"),
            false => Check::skipped(NAME, "this peer is not a member yet"),
        };
    };
    let left_hours = until.saturating_sub(now_ms) / 3_600_000;
    if until <= now_ms {
        Check::problem(NAME, "this peer's membership has ended: other members do not serve it")
            .advise("it is renewed as soon as the maestro is reached; is this machine's clock right?")
    } else if until - now_ms < SOON_MS && !connected {
        Check::warning(
            NAME,
            format!("this peer's membership ends in {left_hours} h, and the maestro is not there"),
        )
        .advise("it is renewed as soon as the maestro is reached")
    } else {
        Check::ok(NAME, format!("member of the network for {} h more, renewed by itself", left_hours))
    }
}

/// This machine's clock beside the maestro's.
pub(super) fn clock(ahead_ms: Option<i64>) -> Check {
    const NAME: &str = "clock";
    let Some(ahead_ms) = ahead_ms else {
        return Check::skipped(NAME, "there is no other clock to compare with: the maestro does not answer");
    };
    let off = ahead_ms.unsigned_abs();
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let text = format!("this machine's clock is {} s {direction} the maestro's", off / 1000);
    let advice = "sudo timedatectl set-ntp true";
    match off {
        0..CLOCK_WARNING_MS => Check::ok(NAME, "this machine's clock agrees with the maestro's"),
        CLOCK_WARNING_MS..CLOCK_PROBLEM_MS => Check::warning(NAME, text).advise(advice),
        _ => {
            Check::problem(NAME, format!("{text}: memberships seem to end at the wrong time")).advise(advice)
        }
    }
}

/// Whether other peers can connect to this one. Beside what is announced the maestro tries where it sees this peer, at the
/// port that it listens on, and tells others of that address too. Where a router forwards another port, which is then
/// the announced one, nobody need answer there.
pub(super) fn reachable(reach: Result<&Reach, &String>, listens: SocketAddr, firewalls: Firewalls) -> Check {
    const NAME: &str = "reachable";
    let reach = match reach {
        Ok(reach) => reach,
        Err(why) => return Check::skipped(NAME, format!("nobody can try to connect to this peer: {why}")),
    };
    let of = |wanted: Outcome| reach.checks.iter().filter(move |check| check.outcome() == wanted);
    let told = |check: &AddressCheck| format!("{}: {}", check.address, check.message);
    let tried: Vec<&AddressCheck> =
        reach.checks.iter().filter(|check| check.outcome() != Outcome::NotTried).collect();
    if tried.is_empty() {
        let why = of(Outcome::NotTried).next().map(told).unwrap_or_default();
        return Check::skipped(NAME, format!("the maestro has not tried: {why}"));
    }
    let elsewhere: Vec<&str> = of(Outcome::NotTried).map(|check| check.address.as_str()).collect();
    let untried = match elsewhere.is_empty() {
        true => String::new(),
        false => format!("; not tried, being other hosts: {}", elsewhere.join(", ")),
    };
    let told_of =
        |checks: &[&AddressCheck]| checks.iter().map(|check| told(check)).collect::<Vec<_>>().join("; ");
    if let Some(reached) = of(Outcome::Reachable).next() {
        let from = match reach.seen.parse::<IpAddr>() {
            Ok(seen) if seen.is_loopback() => " (from this machine: of others that says nothing)",
            _ => "",
        };
        let took = reached.took_ms;
        let found =
            format!("the maestro reaches this peer at {} in {took} ms{from}{untried}", reached.address);
        let is_wrong = |check: &&AddressCheck| {
            check.outcome() != Outcome::Reachable && is_announced(check, &reach.announced)
        };
        let wrong: Vec<&AddressCheck> = tried.into_iter().filter(is_wrong).collect();
        return match wrong.is_empty() {
            true => Check::ok(NAME, found),
            false => Check::warning(NAME, format!("{found}; but not at {}", told_of(&wrong))).advise(
                "correct [grpc] announce in p2pd.toml: peers lose time with addresses that do not answer",
            ),
        };
    }
    let says_something = |check: &&AddressCheck| has_announced_port(check, &reach.announced);
    if !reach.announced.is_empty() && !tried.iter().any(says_something) {
        let found = format!(
            "the maestro tries none of the addresses that this peer announces ({}), and cannot reach it where it sees it \
             ({})",
            elsewhere.join(", "),
            told_of(&tried)
        );
        return Check::skipped(NAME, found)
            .advise("from another machine of the network: `p2pctl list --peer` with this peer's name");
    }
    let check =
        Check::problem(NAME, format!("other peers cannot connect to this one: {}{untried}", told_of(&tried)));
    let port = listens.port();
    if of(Outcome::OtherPeer).chain(of(Outcome::NotTls)).next().is_some() {
        return check.advise(
            "another program answers there: correct [grpc] announce, or the port forwarding of the router",
        );
    }
    let is_local = listens.ip().to_canonical().is_loopback();
    if is_local && !reach.seen.parse::<IpAddr>().is_ok_and(|seen| seen.is_loopback()) {
        return check.advise(format!(
            "this peer listens on {listens}, which only this machine can reach: set [grpc] listen = \"[::]:{port}\" and restart p2pd"
        ));
    }
    let check = firewalls.open(port).into_iter().fold(check, Check::advise);
    check.advise(format!(
        "behind a router that translates addresses: forward TCP port {port} to this machine, and name the outer \
         address in [grpc] announce"
    ))
}

/// Whether this peer itself tells others this address. The maestro writes IPv4 as IPv4.
fn is_announced(check: &AddressCheck, announced: &[String]) -> bool {
    let canonical = |text: &str| {
        let address = text.parse::<SocketAddr>().ok()?;
        Some((address.ip().to_canonical(), address.port()))
    };
    let tried = canonical(&check.address);
    tried.is_some() && announced.iter().any(|own| canonical(own) == tried)
}

/// Whether this peer announces the port of this address, at whichever host.
fn has_announced_port(check: &AddressCheck, announced: &[String]) -> bool {
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    announced.iter().any(|own| port(own) == port(&check.address))
}

/// Whether those who work together are of releases that do.
pub(super) fn versions(own: &str, maestro: Option<&str>, peers: &[PeerRow]) -> Check {
    const NAME: &str = "versions";
    let release = release_of(own);
    let is_other = |version: &str| release_of(version) != release;
    let others = peers.iter().filter_map(|peer| {
        let version = peer.version.as_deref().filter(|version| is_other(version))?;
        Some(format!("{} has {version}", peer.peer.name))
    });
    let maestro_has =
        maestro.filter(|version| is_other(version)).map(|version| format!("the maestro has {version}"));
    let all: Vec<String> = maestro_has.into_iter().chain(others).collect();
    if all.is_empty() {
        let known = peers.iter().filter(|peer| peer.version.is_some()).count();
        let with = match maestro {
            Some(version) => format!("the maestro has {version}, "),
            None => String::new(),
        };
        return Check::ok(
            NAME,
            format!("p2pd has {own}, {with}and all {known} peers that are known are of this release"),
        );
    }
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    Check::warning(NAME, format!("this peer has {own}; {named}{more}"))
        .advise("a release works with the one before it; bring the older ones up to date")
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
