//! The rules of fair turns. Pure: the time is an argument.
//!
//! 1. **Peers take turns, not streams.** Each has an account of what it took; of those that wait at the same time, the one
//!    that took least goes next (start-time fair queueing). A peer with many streams has one account, and who comes back
//!    after a while has saved up nothing.
//! 2. **Slots.** So many peers are served at once. While others wait for a slot, whoever has had one for a turn gives it
//!    to the one that waits longest; the more wait, the shorter the turns, so that a waiting peer is served before it
//!    takes this one for silent. Who does not take what it could, since its own network is slow, gives its slot up at
//!    once.
//! 3. Who waits for nobody is asked nothing: where there is neither a rate nor a lack of slots, nobody ever waits here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use p2p_identity::PeerId;

/// How long a slot is held while others wait for one: at the most, and at the least.
const TURN: Duration = Duration::from_secs(2);
const SHORTEST_TURN: Duration = Duration::from_millis(250);
/// Within this time whoever waits for a slot gets one, where that can be done with turns of the shortest kind. Peers take
/// a source for silent after 20 s.
const SERVED_WITHIN: Duration = Duration::from_secs(8);
/// After this time without taking anything, nor waiting to, a slot is idle.
const IDLE: Duration = Duration::from_millis(200);
/// How long to wait for a slot, and for who goes before, until it is asked again.
const SLOT_AGAIN: Duration = Duration::from_millis(20);
const NEXT_AGAIN: Duration = Duration::from_millis(2);

/// Everyone who has a stream.
#[derive(Debug)]
pub(super) struct Round {
    slots: usize,
    peers: HashMap<PeerId, Account>,
    /// Where the account was of the one who was served last: who comes new begins there.
    level: u64,
}

#[derive(Debug)]
struct Account {
    streams: usize,
    /// Threads that wait.
    waiting: usize,
    /// Bytes that it took, beside what it did not take while it asked for nothing.
    taken: u64,
    took_at: Instant,
    slot: Option<Slot>,
    /// Since when it waits for a slot.
    slotless_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    since: Instant,
    is_used: bool,
}

impl Account {
    fn is_idle(&self, now: Instant) -> bool {
        self.waiting == 0 && now.saturating_duration_since(self.took_at) >= IDLE
    }
}

impl Round {
    /// One with so many slots, at least one.
    pub(super) fn of(slots: usize) -> Self {
        Self { slots: slots.max(1), peers: HashMap::new(), level: 0 }
    }

    /// So many peers are served at once now. All slots are given out anew.
    pub(super) fn set_slots(&mut self, slots: usize) {
        let slots = slots.max(1);
        if self.slots != slots {
            self.slots = slots;
            self.peers.values_mut().for_each(|account| account.slot = None);
        }
    }

    /// The peer opens a stream.
    pub(super) fn enter(&mut self, peer: PeerId, now: Instant) {
        let new = Account {
            streams: 0,
            waiting: 0,
            taken: self.level,
            took_at: now,
            slot: None,
            slotless_since: None,
        };
        self.peers.entry(peer).or_insert(new).streams += 1;
    }

    /// It closes one.
    pub(super) fn leave(&mut self, peer: PeerId) {
        if let Some(account) = self.peers.get_mut(&peer) {
            account.streams -= 1;
            if account.streams == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// One of its threads waits.
    pub(super) fn waits(&mut self, peer: PeerId) {
        if let Some(account) = self.peers.get_mut(&peer) {
            account.waiting += 1;
        }
    }

    /// One of its threads does not wait any more.
    pub(super) fn waits_no_more(&mut self, peer: PeerId) {
        if let Some(account) = self.peers.get_mut(&peer) {
            account.waiting -= 1;
            if account.waiting == 0 {
                account.slotless_since = None;
            }
        }
    }

    /// Whether it is this peer's turn, or how long to wait before it is asked again.
    pub(super) fn turn(&mut self, peer: PeerId, now: Instant) -> Result<(), Duration> {
        if !self.has_slot(peer, now) {
            return Err(SLOT_AGAIN);
        }
        // Who asked for nothing meanwhile, or waited for a slot, has saved up nothing.
        let level = |account: &Account| account.taken.max(self.level);
        let own = self.peers.get(&peer).map_or(self.level, level);
        let goes_before = |(other, account): (&PeerId, &Account)| {
            *other != peer && account.waiting > 0 && account.slot.is_some() && level(account) < own
        };
        match self.peers.iter().any(goes_before) {
            true => Err(NEXT_AGAIN),
            false => Ok(()),
        }
    }

    /// It took so many bytes.
    pub(super) fn took(&mut self, peer: PeerId, bytes: u64, now: Instant) {
        if let Some(account) = self.peers.get_mut(&peer) {
            let before = account.taken.max(self.level);
            self.level = before;
            account.taken = before + bytes;
            account.took_at = now;
            if let Some(slot) = &mut account.slot {
                slot.is_used = true;
            }
        }
    }

    fn has_slot(&mut self, peer: PeerId, now: Instant) -> bool {
        let held = self.peers.values().filter(|account| account.slot.is_some()).count();
        let Some(account) = self.peers.get_mut(&peer) else { return true };
        if account.slot.is_some() {
            return true;
        }
        let since = *account.slotless_since.get_or_insert(now);
        if held >= self.slots {
            let earlier = |(other, account): (&PeerId, &Account)| {
                account.slotless_since.is_some_and(|other_since| (other_since, *other) < (since, peer))
            };
            let Some(holder) = self.to_give_up(now) else { return false };
            if self.peers.iter().any(earlier) {
                return false;
            }
            if let Some(holder) = self.peers.get_mut(&holder) {
                holder.slot = None;
                holder.slotless_since = (holder.waiting > 0).then_some(now);
            }
        }
        if let Some(account) = self.peers.get_mut(&peer) {
            account.slot = Some(Slot { since: now, is_used: false });
            account.slotless_since = None;
        }
        true
    }

    /// Who is to give its slot up for somebody else: one that does not use it, or has had it longest, if for long enough.
    fn to_give_up(&self, now: Instant) -> Option<PeerId> {
        let waiting = self.peers.values().filter(|account| account.slotless_since.is_some()).count();
        let share = self.slots as f64 / waiting.max(1) as f64;
        let turn = SERVED_WITHIN.mul_f64(share.min(1.0)).clamp(SHORTEST_TURN, TURN);
        let holders = self.peers.iter().filter_map(|(peer, account)| {
            let Slot { since, is_used } = account.slot?;
            let is_idle = account.is_idle(now);
            // Where bytes are few, a turn lasts until some were taken.
            let is_over = is_used && now.saturating_duration_since(since) >= turn;
            (is_idle || is_over).then_some((!is_idle, since, *peer))
        });
        holders.min().map(|(_, _, peer)| peer)
    }
}

#[cfg(test)]
mod tests {
    use p2p_identity::Identity;

    use super::*;

    fn peers<const N: usize>() -> [PeerId; N] {
        std::array::from_fn(|_| Identity::generate().unwrap().id())
    }

    /// Threads that always want more; each takes a chunk when it is its peer's turn and the line is free.
    struct Play {
        round: Round,
        threads: Vec<(PeerId, bool)>,
        now: Instant,
        given: HashMap<PeerId, u64>,
        /// The longest that a peer with a thread got nothing.
        last: HashMap<PeerId, Instant>,
        longest: Duration,
    }

    impl Play {
        fn of(slots: usize, streams: &[(PeerId, usize)]) -> Self {
            let (mut round, now) = (Round::of(slots), Instant::now());
            let threads: Vec<_> = streams
                .iter()
                .flat_map(|(peer, count)| std::iter::repeat_n((*peer, false), *count))
                .collect();
            threads.iter().for_each(|(peer, _)| round.enter(*peer, now));
            let last = threads.iter().map(|(peer, _)| (*peer, now)).collect();
            Self { round, threads, now, given: HashMap::new(), last, longest: Duration::ZERO }
        }

        /// One chunk each so often, for so long.
        fn run(&mut self, every: Duration, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += every;
                for at in 0..self.threads.len() {
                    let (peer, waits) = self.threads[at];
                    if !waits {
                        let _ = self.round.turn(peer, self.now);
                        self.round.waits(peer);
                        self.threads[at].1 = true;
                    }
                }
                // All ask, in the order in which they happen to wake, those of the greedy one first; there is one chunk.
                let mut is_taken = false;
                for at in 0..self.threads.len() {
                    let peer = self.threads[at].0;
                    if self.round.turn(peer, self.now).is_ok() && !is_taken {
                        is_taken = true;
                        self.round.took(peer, 1000, self.now);
                        self.round.waits_no_more(peer);
                        self.threads[at].1 = false;
                        *self.given.entry(peer).or_default() += 1000;
                        let last = self.last.insert(peer, self.now).unwrap();
                        self.longest = self.longest.max(self.now - last);
                    }
                }
            }
        }
    }

    #[test]
    fn peers_share_alike_however_many_streams_they_have() {
        let [greedy, modest] = peers();
        let mut play = Play::of(8, &[(greedy, 8), (modest, 1)]);
        play.run(Duration::from_millis(10), Duration::from_secs(60));
        let (greedy, modest) = (play.given[&greedy], play.given[&modest]);
        assert!(modest * 100 >= greedy * 90 && greedy * 100 >= modest * 90, "{greedy} {modest}");
    }

    #[test]
    fn who_comes_later_is_owed_nothing_and_owes_nothing() {
        let [first, late] = peers();
        let mut play = Play::of(8, &[(first, 2)]);
        // With a stream on which it asks for nothing yet.
        play.round.enter(late, play.now);
        play.run(Duration::from_millis(10), Duration::from_secs(60));
        play.threads.push((late, false));
        play.last.insert(late, play.now);
        play.given.clear();
        play.run(Duration::from_millis(10), Duration::from_secs(10));
        let (first, late) = (play.given[&first], play.given[&late]);
        assert!(late * 100 >= first * 90 && first * 100 >= late * 90, "{first} {late}");
    }

    #[test]
    fn slots_go_round_so_that_nobody_waits_long() {
        let peers: [PeerId; 20] = peers();
        let streams: Vec<_> = peers.iter().enumerate().map(|(at, peer)| (*peer, 1 + at % 4)).collect();
        let mut play = Play::of(4, &streams);
        play.run(Duration::from_millis(5), Duration::from_secs(60));
        assert_eq!(play.given.len(), 20);
        assert!(play.longest <= SERVED_WITHIN + TURN, "{:?}", play.longest);
        let (least, most) = (play.given.values().min().unwrap(), play.given.values().max().unwrap());
        assert!(most * 10 <= least * 15, "{least} {most}");
    }

    #[test]
    fn who_does_not_use_its_slot_gives_it_up_at_once() {
        let ([slow, other], now) = (peers(), Instant::now());
        let mut round = Round::of(1);
        round.enter(slow, now);
        round.enter(other, now);
        assert_eq!(round.turn(slow, now), Ok(()));
        round.took(slow, 1000, now);
        assert_eq!(round.turn(other, now), Err(SLOT_AGAIN));
        round.waits(other);
        assert_eq!(round.turn(other, now + IDLE), Ok(()));
        assert_eq!(round.turn(slow, now + IDLE), Err(SLOT_AGAIN), "it is the other's now");
    }

    #[test]
    fn a_lone_peer_never_waits() {
        let ([peer], now) = (peers(), Instant::now());
        let mut round = Round::of(1);
        for _ in 0..8 {
            round.enter(peer, now);
        }
        for _ in 0..1000 {
            assert_eq!(round.turn(peer, now), Ok(()));
            round.took(peer, 1 << 20, now);
        }
        (0..8).for_each(|_| round.leave(peer));
        assert!(round.peers.is_empty());
    }

    #[test]
    fn fewer_slots_hold_at_once() {
        let ([one, other], now) = (peers(), Instant::now());
        let mut round = Round::of(2);
        for peer in [one, other] {
            round.enter(peer, now);
            assert_eq!(round.turn(peer, now), Ok(()));
        }
        round.set_slots(1);
        assert_eq!(round.turn(one, now), Ok(()));
        assert_eq!(round.turn(other, now), Err(SLOT_AGAIN));
    }
}
