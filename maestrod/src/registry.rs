//! Who is online: which peer has a stream, and whose lease still runs. Pure; the clock is an argument.
//!
//! Owned by the presence loop alone.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use p2p_identity::PeerId;

/// Names one stream; later streams have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The peer said goodbye.
    Goodbye,
    /// Anything else: the peer, or the network, may come back at once.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Connected(StreamId),
    Leased(Instant),
}

/// The visible peers, and why they are. Whoever is not in it is hidden.
#[derive(Debug)]
pub struct Registry {
    lease: Duration,
    peers: HashMap<PeerId, Presence>,
    expiries: BTreeSet<(Instant, PeerId)>,
    last_stream: u64,
}

impl Registry {
    /// Nobody is online; a stream that breaks leaves a lease of this length.
    pub fn new(lease: Duration) -> Registry {
        Registry { lease, peers: HashMap::new(), expiries: BTreeSet::new(), last_stream: 0 }
    }

    /// Changes the length of the leases that begin from now on.
    pub fn set_lease(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// These peers were online when the maestro ended that had their streams: each has a lease to come back. Nothing changes
    /// for those that are known already.
    pub fn restore(&mut self, peers: impl IntoIterator<Item = PeerId>, now: Instant) {
        for peer in peers {
            if !self.peers.contains_key(&peer) {
                self.put(peer, Some(Presence::Leased(now + self.lease)));
            }
        }
    }

    /// A stream of `peer` begins, in place of the one that it may have. It is visible from now on.
    pub fn connect(&mut self, peer: PeerId) -> StreamId {
        self.last_stream += 1;
        let stream = StreamId(self.last_stream);
        self.put(peer, Some(Presence::Connected(stream)));
        stream
    }

    /// This stream of `peer` has ended. A stream whose place was taken changes nothing.
    pub fn disconnect(&mut self, peer: PeerId, stream: StreamId, ending: Ending, now: Instant) {
        if self.peers.get(&peer) != Some(&Presence::Connected(stream)) {
            return;
        }
        let left = match ending {
            Ending::Goodbye => None,
            Ending::Broken => Some(Presence::Leased(now + self.lease)),
        };
        self.put(peer, left);
    }

    /// Ends the leases that have run out, and says whose they were.
    pub fn expire(&mut self, now: Instant) -> Vec<PeerId> {
        let mut gone = Vec::new();
        while let Some((until, peer)) = self.expiries.first().copied()
            && until <= now
        {
            self.put(peer, None);
            gone.push(peer);
        }
        gone
    }

    /// When [`expire`](Registry::expire) will have something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(until, _)| *until)
    }

    /// The peer is another maestro's matter from now on, whatever was known of it. The end of its stream changes nothing.
    pub fn forget(&mut self, peer: &PeerId) {
        self.put(*peer, None);
    }

    /// Whether the peer's files are to be shown.
    pub fn is_visible(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether the peer has a stream now.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        matches!(self.peers.get(peer), Some(Presence::Connected(_)))
    }

    fn put(&mut self, peer: PeerId, presence: Option<Presence>) {
        let old = match presence {
            Some(presence) => self.peers.insert(peer, presence),
            None => self.peers.remove(&peer),
        };
        if let Some(Presence::Leased(until)) = old {
            self.expiries.remove(&(until, peer));
        }
        if let Some(Presence::Leased(until)) = presence {
            self.expiries.insert((until, peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    #[test]
    fn a_broken_stream_leaves_a_lease_and_a_goodbye_does_not() {
        let start = Instant::now();
        let mut registry = Registry::new(LEASE);
        let stream = registry.connect(peer(1));
        registry.disconnect(peer(1), stream, Ending::Broken, start);
        assert!(registry.is_visible(&peer(1)) && !registry.is_connected(&peer(1)));
        assert_eq!(registry.expire(start + LEASE - Duration::from_nanos(1)), []);
        assert_eq!(registry.expire(start + LEASE), [peer(1)]);
        assert!(!registry.is_visible(&peer(1)));

        let stream = registry.connect(peer(1));
        registry.disconnect(peer(1), stream, Ending::Goodbye, start);
        assert!(!registry.is_visible(&peer(1)));
        assert_eq!(registry.next_expiry(), None);
    }

    #[test]
    fn the_end_of_a_replaced_stream_changes_nothing() {
        let mut registry = Registry::new(LEASE);
        let old = registry.connect(peer(1));
        let new = registry.connect(peer(1));
        assert!(new > old);
        registry.disconnect(peer(1), old, Ending::Goodbye, Instant::now());
        assert!(registry.is_connected(&peer(1)));
    }

    #[test]
    fn what_is_forgotten_leaves_no_lease() {
        let start = Instant::now();
        let mut registry = Registry::new(LEASE);
        let stream = registry.connect(peer(1));
        registry.forget(&peer(1));
        registry.disconnect(peer(1), stream, Ending::Broken, start);
        assert!(!registry.is_visible(&peer(1)));
        registry.restore([peer(1)], start);
        registry.forget(&peer(1));
        assert_eq!(registry.next_expiry(), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Connect(u8),
        // The stream is chosen among all that ever were.
        Disconnect(prop::sample::Index, bool),
        Restore(u8),
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..4u8).prop_map(Event::Connect),
            (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, bye)| Event::Disconnect(at, bye)),
            (0..4u8).prop_map(Event::Restore),
            (0..20u64).prop_map(Event::Wait),
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        /// Against a model that keeps the whole history: a peer is visible exactly while its latest stream is open,
        /// or less than a lease after it broke.
        #[test]
        fn visible_is_who_is_connected_or_leased(events in events()) {
            let start = Instant::now();
            let mut now = start;
            let mut registry = Registry::new(LEASE);
            let mut streams: Vec<(u8, StreamId)> = Vec::new();
            // Latest stream, and until when it is visible (`None`: for as long as it is open).
            let mut model: BTreeMap<u8, (Option<StreamId>, Option<Instant>)> = BTreeMap::new();
            for event in events {
                match event {
                    Event::Connect(number) => {
                        let stream = registry.connect(peer(number));
                        streams.push((number, stream));
                        model.insert(number, (Some(stream), None));
                    }
                    Event::Disconnect(at, goodbye) if !streams.is_empty() => {
                        let (number, stream) = streams[at.index(streams.len())];
                        let ending = if goodbye { Ending::Goodbye } else { Ending::Broken };
                        registry.disconnect(peer(number), stream, ending, now);
                        if model.get(&number) == Some(&(Some(stream), None)) {
                            let until = if goodbye { now } else { now + LEASE };
                            model.insert(number, (None, Some(until)));
                        }
                    }
                    Event::Disconnect(..) => {}
                    Event::Restore(number) => {
                        registry.restore([peer(number)], now);
                        let shown = model.get(&number).is_some_and(|(_, until)| until.is_none_or(|until| until > now));
                        if !shown {
                            model.insert(number, (None, Some(now + LEASE)));
                        }
                    }
                    Event::Wait(secs) => {
                        now += Duration::from_secs(secs);
                        for gone in registry.expire(now) {
                            prop_assert!(!registry.is_visible(&gone));
                        }
                    }
                }
                for number in 0..4 {
                    let expected = model.get(&number).is_some_and(|(_, until)| until.is_none_or(|until| until > now));
                    prop_assert_eq!(registry.is_visible(&peer(number)), expected);
                    let open = model.get(&number).is_some_and(|(stream, _)| stream.is_some());
                    prop_assert_eq!(registry.is_connected(&peer(number)), open);
                }
                prop_assert!(registry.next_expiry().is_none_or(|until| until > now));
            }
        }
    }
}
