//! What this peer remembers of the network's members, so that they find each other while the maestro is down.
//!
//! Not all of many: those that the maestro drew for it when they were here, the latest of them, and those that it dealt with.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use p2p_identity::PeerId;
use p2p_proto::v1;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

use super::{Network, PeerRef, now_ms};
use crate::kept::Kept;

/// Members of one network that are remembered, at most…
const MEMBERS: usize = 256;
/// … and so many of them at most for having been dealt with, however long ago they were listed.
const DEALT_WITH: usize = MEMBERS / 2;
/// So many of those dealt with are in front of all others, the latest of them first.
const IN_FRONT: usize = 32;
/// Who was neither listed nor dealt with for so many milliseconds is forgotten, as a maestro does it.
const FORGET_AFTER_MS: i64 = 90 * 86_400_000;
/// How often, in milliseconds, a list that stays the same is written: how much older it may seem after a restart.
const WRITE_EVERY_MS: i64 = 600_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    peer_id: String,
    name: String,
    addresses: Vec<String>,
    rest_url: String,
    grpc_port: u16,
    #[serde(default)]
    told: Option<Listing>,
    #[serde(default)]
    dealt_ms: Option<i64>,
}

/// Who listed a member, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The network whose member it is.
    #[serde(with = "super::words::id_text")]
    pub(super) network: PeerId,
    /// The maestro's name.
    pub(super) told_by: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) told_ms: i64,
}

/// Members of the networks that are joined. Clones are handles to the same.
#[derive(Clone)]
pub struct Members {
    kept: Kept,
    network: Network,
    list: Arc<Mutex<Vec<Remembered>>>,
    /// When it was last written, in milliseconds since 1970-01-01 UTC; 0 before the first time.
    written_ms: Arc<AtomicI64>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) peer: PeerRef,
    /// Who listed it last; nobody of those that an older release kept, or that were only dealt with.
    pub(super) told: Option<Listing>,
    /// When the one last fetched something from the other, in milliseconds since 1970-01-01 UTC.
    dealt_ms: Option<i64>,
}

impl Members {
    /// Reads what is kept in this file.
    pub fn open(path: PathBuf, network: Network) -> io::Result<Self> {
        let kept = Kept::at(path);
        let members: Vec<Member> = kept.read()?;
        let list = members.into_iter().filter_map(Member::into_remembered).collect();
        Ok(Self { kept, network, list: Arc::new(Mutex::new(list)), written_ms: Arc::default() })
    }

    /// The members, this peer not among them; each once.
    pub fn list(&self) -> Vec<PeerRef> {
        self.remembered().into_iter().map(|member| member.peer).collect()
    }

    /// The same in the order in which to ask them, with who listed them: some that were dealt with lately, then the others as
    /// chance will have it, so that not all ask the same ones.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let mut known = HashSet::new();
        let list = self.lock();
        let members = list.iter().filter(|member| self.is_one(member));
        let mut members: Vec<_> = members.filter(|member| known.insert(member.peer.id())).cloned().collect();
        drop(list);
        members.sort_by_key(|member| Reverse(member.dealt_ms));
        let dealt_with = members.iter().take_while(|member| member.dealt_ms.is_some()).count();
        members[dealt_with.min(IN_FRONT)..].shuffle(&mut rand::rng());
        members
    }

    /// How many of this network are remembered.
    pub(super) fn count(&self, network: PeerId) -> usize {
        let list = self.lock();
        list.iter().filter(|member| member.told.as_ref().is_some_and(|told| told.network == network)).count()
    }

    /// One of the two fetches something from the other now.
    pub(crate) fn dealt_with(&self, peer: &PeerRef) {
        let Some(id) = peer.id() else { return };
        let mut list = self.lock();
        let now_ms = now_ms();
        let mut is_news = true;
        let mut known = list.iter_mut().filter(|member| member.peer.id() == Some(id)).peekable();
        if known.peek().is_some() {
            for member in known {
                is_news = member.dealt_ms.is_none_or(|before_ms| now_ms - before_ms >= WRITE_EVERY_MS);
                member.dealt_ms = Some(now_ms);
            }
        } else {
            drop(known);
            list.push(Remembered { peer: peer.clone(), told: None, dealt_ms: Some(now_ms) });
            bound(&mut list);
        }
        if is_news && let Err(error) = self.keep(&list) {
            tracing::error!(
                %error,
                "cannot keep the list of members: {error}; set the state directory right, or p2pd knows fewer of them \
                 after a restart"
            );
        }
    }

    /// The member with this identity.
    pub fn get(&self, id: PeerId) -> Option<PeerRef> {
        let list = self.lock();
        let member = list.iter().find(|member| member.peer.id() == Some(id) && self.is_one(member));
        member.map(|member| member.peer.clone())
    }

    /// Forgets those of networks that are not joined any more.
    pub(super) fn forget_left(&self) -> io::Result<()> {
        let mut list = self.lock();
        let before = list.len();
        list.retain(|member| self.is_one(member));
        match list.len() == before {
            true => Ok(()),
            false => self.keep(&list),
        }
    }

    /// Of those that an older release kept nobody knows of which network they are: they count while there is any.
    fn is_one(&self, member: &Remembered) -> bool {
        match &member.told {
            Some(told) => self.network.has(told.network),
            None => self.network.is_any(),
        }
    }

    /// Takes in what the maestro of one network says of members that are here; `itself` is left out. What comes after the
    /// network was left is not taken.
    pub(super) fn merge(
        &self,
        listing: &Listing,
        listed: Vec<v1::PeerEntry>,
        itself: PeerId,
    ) -> io::Result<()> {
        // A maestro of an older release lists those too that are not here.
        let fresh = listed
            .into_iter()
            .filter(|entry| entry.online)
            .filter_map(|entry| PeerRef::from_wire(entry.peer?))
            .filter(|peer| peer.id().is_some_and(|id| id != itself))
            .take(MEMBERS);
        let mut list = self.lock();
        // Looked at while nobody else forgets: what comes late is not there again after it was forgotten.
        if !self.network.has(listing.network) {
            return Ok(());
        }
        let mut is_same = true;
        for peer in fresh {
            let is_it = |member: &&mut Remembered| {
                member.peer.id() == peer.id()
                    && member.told.as_ref().is_none_or(|told| told.network == listing.network)
            };
            match list.iter_mut().find(is_it) {
                Some(member) => {
                    is_same &= member.peer == peer && member.told.is_some();
                    (member.peer, member.told) = (peer, Some(listing.clone()));
                }
                None => {
                    is_same = false;
                    list.push(Remembered { peer, told: Some(listing.clone()), dealt_ms: None });
                }
            }
        }
        let (long_ago_ms, known) = (listing.told_ms - FORGET_AFTER_MS, list.len());
        list.retain(|member| member.last_ms().is_none_or(|last_ms| last_ms >= long_ago_ms));
        is_same &= list.len() == known;
        bound(&mut list);
        let written_ms = self.written_ms.load(Ordering::Relaxed);
        if is_same && listing.told_ms - written_ms < WRITE_EVERY_MS {
            return Ok(());
        }
        self.written_ms.store(listing.told_ms, Ordering::Relaxed);
        self.keep(&list)
    }

    fn keep(&self, list: &[Remembered]) -> io::Result<()> {
        self.kept.write_later(&list.iter().filter_map(Member::of).collect::<Vec<_>>())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Remembered>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// When anything was heard of it last.
    fn last_ms(&self) -> Option<i64> {
        self.told.as_ref().map(|told| told.told_ms).max(self.dealt_ms)
    }
}

/// Forgets of each network the most that there is no place for: first who was listed longest ago, and was not dealt with
/// lately.
fn bound(list: &mut Vec<Remembered>) {
    let network = |member: &Remembered| member.told.as_ref().map(|told| told.network);
    list.sort_by_key(|member| Reverse(member.dealt_ms));
    let mut dealt_with: HashMap<_, usize> = HashMap::new();
    // Sorting keeps the order of those that are alike.
    list.sort_by_cached_key(|member| {
        let places = dealt_with.entry(network(member)).or_default();
        *places += usize::from(member.dealt_ms.is_some());
        let stays = member.dealt_ms.is_some() && *places <= DEALT_WITH;
        Reverse((stays, member.told.as_ref().map(|told| told.told_ms)))
    });
    let mut taken: HashMap<_, usize> = HashMap::new();
    list.retain(|member| {
        let places = taken.entry(network(member)).or_default();
        *places += 1;
        *places <= MEMBERS
    });
}

impl Member {
    fn of(member: &Remembered) -> Option<Self> {
        match member.peer.clone() {
            PeerRef::Known { id, name, addresses, rest_url, grpc_port } => Some(Self {
                peer_id: id.to_string(),
                name,
                addresses,
                rest_url,
                grpc_port,
                told: member.told.clone(),
                dealt_ms: member.dealt_ms,
            }),
            PeerRef::Plain { .. } => None,
        }
    }

    fn into_remembered(self) -> Option<Remembered> {
        let Self { peer_id, name, addresses, rest_url, grpc_port, told, dealt_ms } = self;
        let peer = PeerRef::Known { id: peer_id.parse().ok()?, name, addresses, rest_url, grpc_port };
        Some(Remembered { peer, told, dealt_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::Joined;
    use super::*;

    fn id(number: u16) -> PeerId {
        let [high, low] = number.to_be_bytes();
        let mut bytes = [low; 32];
        bytes[0] = high;
        PeerId::from_bytes(bytes)
    }

    fn entry(number: u16) -> v1::PeerEntry {
        let peer = v1::PeerInfo { peer_id: id(number).as_bytes().to_vec().into(), ..v1::PeerInfo::default() };
        v1::PeerEntry { peer: Some(peer), online: true, ..v1::PeerEntry::default() }
    }

    fn listing(network: u16, told_ms: i64) -> Listing {
        Listing { network: id(network), told_by: format!("maestro {network}"), told_ms }
    }

    fn join(network: &Network, joined: &[u16]) {
        let joined = joined.iter().map(|number| {
            let id = id(*number).to_string();
            Joined { maestro_id: Some(id), ..Joined::new(format!("maestro-{number}:1")) }
        });
        network.change(|list| *list = joined.collect()).unwrap();
    }

    fn members(joined: &[u16]) -> (tempfile::TempDir, Network, Members) {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::open(dir.path().join("network.json")).unwrap();
        join(&network, joined);
        let members = Members::open(dir.path().join("members.json"), network.clone()).unwrap();
        (dir, network, members)
    }

    fn numbers(members: Vec<PeerRef>) -> Vec<u16> {
        let ids = members.into_iter().filter_map(|peer| peer.id());
        ids.map(|id| u16::from_be_bytes([id.as_bytes()[0], id.as_bytes()[1]])).collect()
    }

    fn sorted(members: &Members) -> Vec<u16> {
        let mut numbers = numbers(members.list());
        numbers.sort_unstable();
        numbers
    }

    fn known(number: u16) -> PeerRef {
        PeerRef::from_wire(entry(number).peer.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn what_one_network_lists_leaves_the_other_alone() {
        let (_dir, network, members) = members(&[100, 101]);
        members.merge(&listing(100, 0), vec![entry(1), entry(2), entry(900)], id(900)).unwrap();
        members.merge(&listing(101, 0), vec![entry(2), entry(3)], id(900)).unwrap();
        assert_eq!(sorted(&members), [1, 2, 3], "each once, and this peer not");
        members.merge(&listing(100, 1), vec![entry(4)], id(900)).unwrap();
        assert_eq!(sorted(&members), [1, 2, 3, 4], "who was here before may be here again");
        members.merge(&listing(100, 5), vec![entry(4)], id(900)).unwrap();
        let told = members.remembered().into_iter().find(|member| member.peer.id() == Some(id(4)));
        let told = told.unwrap().told.unwrap();
        assert_eq!((told.told_by.as_str(), told.told_ms), ("maestro 100", 5));
        assert_eq!((members.count(id(100)), members.count(id(101))), (3, 2));

        join(&network, &[101]);
        assert_eq!((sorted(&members), members.get(id(4))), (vec![2, 3], None), "one was left");
        members.forget_left().unwrap();
        members.merge(&listing(100, 9), vec![entry(5)], id(900)).unwrap();
        join(&network, &[100, 101]);
        assert_eq!(sorted(&members), [2, 3], "it was forgotten, and what came late was not taken");
    }

    #[tokio::test]
    async fn who_is_not_here_is_not_taken_in() {
        let (_dir, _network, members) = members(&[300]);
        let away = v1::PeerEntry { online: false, ..entry(1) };
        members.merge(&listing(300, 0), vec![away, entry(2)], id(900)).unwrap();
        assert_eq!(sorted(&members), [2]);
    }

    #[tokio::test]
    async fn who_was_not_heard_of_for_long_is_forgotten() {
        let (_dir, _network, members) = members(&[300]);
        members.merge(&listing(300, 0), vec![entry(1), entry(2)], id(900)).unwrap();
        members.dealt_with(&known(2));
        members.merge(&listing(300, FORGET_AFTER_MS), vec![entry(3)], id(900)).unwrap();
        assert_eq!(sorted(&members), [1, 2, 3]);
        members.merge(&listing(300, FORGET_AFTER_MS + 1), vec![entry(3)], id(900)).unwrap();
        assert_eq!(sorted(&members), [2, 3]);
    }

    #[tokio::test]
    async fn the_latest_are_kept_and_those_that_were_dealt_with() {
        let (dir, network, members) = members(&[999]);
        for number in 0..600 {
            members.merge(&listing(999, number.into()), vec![entry(number)], id(900)).unwrap();
            if number % 2 == 0 && number < 400 {
                members.dealt_with(&known(number));
            }
        }
        let kept = sorted(&members);
        assert_eq!(kept.len(), MEMBERS);
        let before: Vec<_> = (600 - (MEMBERS - DEALT_WITH) as u16..600).collect();
        assert!(before.iter().all(|number| kept.contains(number)), "the latest: {kept:?}");
        assert_eq!(kept.iter().filter(|number| **number < 400 && *number % 2 == 0).count(), DEALT_WITH);
        // It outlives the daemon.
        tokio::task::yield_now().await;
        let path = dir.path().join("members.json");
        let again = async || loop {
            let again = Members::open(path.clone(), network.clone()).unwrap();
            if sorted(&again) == kept {
                return again;
            }
            tokio::task::yield_now().await;
        };
        let again = tokio::time::timeout(std::time::Duration::from_secs(20), again()).await.unwrap();
        let dealt = |members: &Members| members.remembered()[0].dealt_ms;
        assert_eq!(dealt(&again), dealt(&members));
    }

    #[tokio::test]
    async fn those_dealt_with_are_asked_first_and_the_others_by_chance() {
        let (_dir, _network, members) = members(&[999]);
        members.merge(&listing(999, 0), (0..200).map(entry).collect(), id(900)).unwrap();
        members.dealt_with(&known(7));
        members.dealt_with(&known(500));
        let order = || numbers(members.remembered().into_iter().map(|member| member.peer).collect());
        let (first, second) = (order(), order());
        assert_eq!(first.len(), 201);
        for order in [&first, &second] {
            assert!(order[..2].contains(&7) && order[..2].contains(&500), "{:?}", &order[..5]);
        }
        assert_ne!(first, second);
        // Among the first 64 that are asked, everybody comes to be in time.
        let mut asked = HashSet::new();
        for _ in 0..60 {
            asked.extend(order().into_iter().take(64));
        }
        assert_eq!(asked.len(), 201);
    }
}
