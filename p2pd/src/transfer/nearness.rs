//! How near a source is, as far as its addresses tell. Pure but for [`subnets`], which asks the system.
//!
//! Whoever is asked on the same machine or in the same subnet takes nothing from the links that all share, so near sources
//! are asked before others where not all can be. Addresses prove nothing: who claims to be near and is not is asked
//! first, gives what it gives, and is measured like all others.

use std::net::{IpAddr, SocketAddr};

use crate::discovery::PeerRef;

/// How near a source is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// On this machine.
    Here,
    /// In a subnet that this machine is in too.
    Subnet,
    /// Anywhere else, as far as is known.
    Elsewhere,
}

/// An address of this machine, and how many of its first bits all in its subnet have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) ip: IpAddr,
    pub(super) prefix_len: u8,
}

impl Subnet {
    fn has(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        };
        let ((own, len), (other, other_len)) = (bits(self.ip), bits(ip));
        // Without a prefix everybody would be in it.
        let prefix_len = u32::from(self.prefix_len);
        len == other_len && (1..=len).contains(&prefix_len) && (own ^ other) >> (128 - prefix_len) == 0
    }
}

/// The subnets that this machine is in; none where the system does not say.
pub(super) fn subnets() -> Vec<Subnet> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let subnet = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(addr) => Subnet { ip: addr.ip.into(), prefix_len: addr.prefixlen },
        if_addrs::IfAddr::V6(addr) => Subnet { ip: addr.ip.into(), prefix_len: addr.prefixlen },
    };
    interfaces.into_iter().map(subnet).collect()
}

/// How near the one with these addresses (`host:port`) is: what the nearest of them is.
pub(super) fn nearness(addresses: &[String], subnets: &[Subnet]) -> Nearness {
    let near = |address: &String| {
        let Ok(address) = address.parse::<SocketAddr>() else {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            return if host == "localhost" { Nearness::Here } else { Nearness::Elsewhere };
        };
        let ip = address.ip().to_canonical();
        if ip.is_loopback() || subnets.iter().any(|subnet| subnet.ip == ip) {
            Nearness::Here
        } else if is_link_local(ip) || !subnets.iter().any(|subnet| subnet.has(ip)) {
            Nearness::Elsewhere
        } else {
            Nearness::Subnet
        }
    };
    addresses.iter().map(near).min().unwrap_or(Nearness::Elsewhere)
}

/// A link-local address is the same on each link, and says nothing of which one is meant.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The same sources, the nearest first; among equals in the order in which they were found.
pub(super) fn nearest_first(mut peers: Vec<PeerRef>, subnets: &[Subnet]) -> Vec<PeerRef> {
    peers.sort_by_cached_key(|peer| nearness(&peer.addresses(), subnets));
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Vec<Subnet> {
        [("127.0.0.1", 8), ("192.168.7.20", 24), ("10.0.0.5", 32), ("2001:db8:1::20", 64), ("fe80::1", 64)]
            .map(|(ip, prefix_len)| Subnet { ip: ip.parse().unwrap(), prefix_len })
            .to_vec()
    }

    fn near(addresses: &[&str]) -> Nearness {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        nearness(&addresses, &here())
    }

    #[test]
    fn addresses_tell_how_near_somebody_is() {
        for (address, expected) in [
            ("127.0.0.1:9002", Nearness::Here),
            ("127.9.9.9:9002", Nearness::Here),
            ("[::1]:9002", Nearness::Here),
            ("localhost:9002", Nearness::Here),
            ("192.168.7.20:1", Nearness::Here),
            ("[::ffff:192.168.7.21]:9002", Nearness::Subnet),
            ("192.168.7.255:9002", Nearness::Subnet),
            ("192.168.8.1:9002", Nearness::Elsewhere),
            ("10.0.0.6:9002", Nearness::Elsewhere),
            ("[2001:db8:1::ffff]:9002", Nearness::Subnet),
            ("[2001:db8:2::20]:9002", Nearness::Elsewhere),
            ("[fe80::2]:9002", Nearness::Elsewhere),
            ("lab.example.org:9002", Nearness::Elsewhere),
            ("", Nearness::Elsewhere),
        ] {
            assert_eq!(near(&[address]), expected, "{address}");
        }
        assert_eq!(near(&["8.8.8.8:1", "192.168.7.9:1"]), Nearness::Subnet, "the nearest of them counts");
        assert_eq!(near(&[]), Nearness::Elsewhere);
    }

    #[test]
    fn a_subnet_of_everybody_is_none() {
        let all = [Subnet { ip: "192.168.7.20".parse().unwrap(), prefix_len: 0 }];
        assert_eq!(nearness(&["8.8.8.8:1".to_owned()], &all), Nearness::Elsewhere);
    }

    #[test]
    fn near_sources_come_first_and_equals_stay_in_their_order() {
        let hosts = ["8.8.8.8", "192.168.7.2", "9.9.9.9", "127.0.0.1", "192.168.7.1"];
        let peers = hosts.map(|host| PeerRef::Plain { rest_url: format!("http://{host}"), grpc_port: 1 });
        let sorted = nearest_first(peers.to_vec(), &here());
        let order: Vec<&str> = sorted.iter().map(|peer| &peer.name()["http://".len()..]).collect();
        assert_eq!(order, ["127.0.0.1", "192.168.7.2", "192.168.7.1", "8.8.8.8", "9.9.9.9"]);
    }
}
