//! How fast file data goes out and comes in, at the most, and who is served at once: what the configuration says now,
//! unless a user has said otherwise.
//!
//! **Owns** `limits.json`. Whoever sends bytes has a [`WayOut`], whoever asks for them a [`WayIn`], and takes them from it
//! first. A lane keeps to its rate over all who use it, and whoever waits looks again every now and then, so that a new
//! rate holds at once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use p2p_identity::PeerId;
use p2p_proto::control::{Limit, LimitsAnswer, PeerLimit, PeerName, SetLimits};
use p2p_service::health::PATIENCE;
use p2p_service::tasks::Tasks;
use serde::{Deserialize, Serialize};

use crate::kept::Kept;

mod lane;
mod schedule;
mod turns;
mod way;

pub use lane::Lane;
pub use schedule::{Period, problems as schedule_problems};
pub use way::{Held, WaitsFor, WayIn, WayOut};

use turns::Turns;

/// How long nobody waits without looking whether the rate is another by now.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The time of the clocks on the wall here. It is kept as a value so that a test can be the clock.
type Clock = Arc<dyn Fn() -> jiff::civil::DateTime + Send + Sync>;

/// Peers that have limits of their own, at the most.
const PEERS: usize = 1000;

/// Bytes per second; 0 for as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of what is sent.
    pub up: u64,
    /// Of what is fetched.
    pub down: u64,
}

/// What the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// Where the schedule says nothing else.
    pub rates: Rates,
    /// Other rates for times of the week.
    pub schedule: Vec<Period>,
    /// Peers that are served at once.
    pub upload_slots: usize,
}

/// What a user said while the daemon ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    #[serde(default)]
    up: Option<u64>,
    #[serde(default)]
    down: Option<u64>,
    /// Of single peers, by their IDs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    peers: BTreeMap<String, SaidOfPeer>,
}

/// What a user said of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SaidOfPeer {
    /// What it called itself then.
    name: String,
    #[serde(default)]
    up: Option<u64>,
    #[serde(default)]
    down: Option<u64>,
}

/// The lanes of one peer.
#[derive(Debug, Default)]
struct Own {
    up: Lane,
    down: Lane,
}

/// Why a limit was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// There are as many as there can be.
    #[error("{PEERS} peers have limits of their own, and no more can")]
    TooMany,
    /// It cannot be kept.
    #[error(transparent)]
    Keep(#[from] io::Error),
}

/// The limits in force. Clones are handles to the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    /// Held while it is written: what two users say at once both counts.
    kept: Mutex<Kept>,
    state: Mutex<State>,
    /// Held while rates take effect: whoever comes last has seen the newest ones.
    enforcing: Mutex<()>,
    up: Lane,
    down: Lane,
    turns: Turns,
    clock: Clock,
}

struct State {
    configured: Configured,
    said: Said,
    /// Of the peers that bytes are sent to or fetched from now.
    own: HashMap<PeerId, Weak<Own>>,
}

impl Limits {
    /// The configured ones, and those that a user set before, which are kept in this file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds something else.
    pub fn open(path: PathBuf, configured: Configured) -> io::Result<Self> {
        Self::open_by(path, configured, Arc::new(|| jiff::Zoned::now().datetime()))
    }

    fn open_by(path: PathBuf, configured: Configured, clock: Clock) -> io::Result<Self> {
        let kept = Kept::at(path);
        let said = kept.read()?;
        let turns = Turns::of(configured.upload_slots);
        let limits = Self(Arc::new(Inner {
            kept: Mutex::new(kept),
            state: Mutex::new(State { configured, said, own: HashMap::new() }),
            enforcing: Mutex::default(),
            up: Lane::default(),
            down: Lane::default(),
            turns,
            clock,
        }));
        limits.enforce();
        Ok(limits)
    }

    /// Keeps to the schedule for as long as the daemon runs.
    pub fn follow_schedule(&self, tasks: &Tasks) {
        let (limits, token) = (self.clone(), tasks.token());
        let heart = tasks.heartbeat("limits", PATIENCE);
        tasks.spawn("limits", async move {
            let mut last = limits.answer();
            loop {
                heart.beat();
                limits.enforce();
                let now = limits.answer();
                if (now.up.scheduled != last.up.scheduled) || (now.down.scheduled != last.down.scheduled) {
                    tracing::info!(
                        "the limits are now {} bytes/s up and {} bytes/s down (0 is none), says the schedule",
                        now.up.bytes_per_sec,
                        now.down.bytes_per_sec
                    );
                }
                last = now;
                // The clock may be set meanwhile, so that more is not taken for granted than this minute.
                let left = Duration::from_secs(60 - limits.now().second().unsigned_abs().min(59) as u64);
                tokio::select! {
                    () = token.cancelled() => return Ok(()),
                    () = tokio::time::sleep(left) => {}
                    () = heart.due() => {}
                }
            }
        });
    }

    /// The configuration is another now.
    pub fn configure(&self, configured: Configured) {
        self.0.turns.set_slots(configured.upload_slots);
        self.lock().configured = configured;
        self.enforce();
    }

    /// Takes what a user says of all peers together; it outlives the daemon. Waits for the disk.
    ///
    /// # Errors
    /// Where it cannot be kept; nothing has changed then.
    pub fn set(&self, request: &SetLimits) -> Result<(), SetError> {
        self.say(|said| {
            if request.as_configured {
                (said.up, said.down) = (None, None);
            }
            said.up = request.up.or(said.up);
            said.down = request.down.or(said.down);
            Ok(())
        })
    }

    /// Takes what a user says of one peer; it outlives the daemon. A rate of 0 is no limit of its own. Waits for the disk.
    ///
    /// # Errors
    /// Where it cannot be kept, or there are too many; nothing has changed then.
    pub fn set_peer(&self, peer: &PeerName, request: &SetLimits) -> Result<(), SetError> {
        let id = peer.peer_id.clone().unwrap_or_default();
        self.say(|said| {
            let mut of_peer = match said.peers.remove(&id) {
                Some(before) if !request.as_configured => before,
                _ => SaidOfPeer::default(),
            };
            of_peer.name.clone_from(&peer.name);
            of_peer.up = request.up.or(of_peer.up).filter(|up| *up > 0);
            of_peer.down = request.down.or(of_peer.down).filter(|down| *down > 0);
            if of_peer.up.or(of_peer.down).is_some() {
                if said.peers.len() >= PEERS {
                    return Err(SetError::TooMany);
                }
                said.peers.insert(id, of_peer);
            }
            Ok(())
        })
    }

    fn say(&self, change: impl FnOnce(&mut Said) -> Result<(), SetError>) -> Result<(), SetError> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = self.lock().said.clone();
        change(&mut said)?;
        kept.write(&said)?;
        self.lock().said = said;
        self.enforce();
        Ok(())
    }

    /// What is in force, and who said so.
    pub fn answer(&self) -> LimitsAnswer {
        let State { configured, said, .. } = &*self.lock();
        let period = schedule::at(&configured.schedule, schedule::minute_of_week(&self.now()));
        let limit = |said: Option<u64>, of: fn(&Period) -> Option<u64>, otherwise| {
            let scheduled = period.filter(|period| of(period).is_some());
            let configured = scheduled.and_then(of).unwrap_or(otherwise);
            Limit {
                bytes_per_sec: said.unwrap_or(configured),
                configured_bytes_per_sec: configured,
                is_set: said.is_some(),
                scheduled: scheduled.map(Period::to_string),
            }
        };
        let of_peer = |(id, said): (&String, &SaidOfPeer)| PeerLimit {
            peer: PeerName { peer_id: Some(id.clone()), name: said.name.clone() },
            up_bytes_per_sec: said.up.unwrap_or_default(),
            down_bytes_per_sec: said.down.unwrap_or_default(),
        };
        LimitsAnswer {
            up: limit(said.up, |period| period.up_bytes_per_sec, configured.rates.up),
            down: limit(said.down, |period| period.down_bytes_per_sec, configured.rates.down),
            peers: said.peers.iter().map(of_peer).collect(),
        }
    }

    /// The peer of this name, ID or its beginning that has limits of its own, if there is one and no other.
    pub fn find_peer(&self, text: &str) -> Option<PeerName> {
        let peers = self.answer().peers.into_iter().map(|limit| limit.peer);
        let is_it = |peer: &PeerName| {
            let starts = |id: &String| text.len() >= 8 && id.starts_with(&text.to_lowercase());
            peer.name == text || peer.peer_id.as_ref().is_some_and(starts)
        };
        let mut found = peers.filter(is_it);
        found.next().filter(|_| found.next().is_none())
    }

    /// What goes out, over all peers.
    pub fn up(&self) -> &Lane {
        &self.0.up
    }

    /// What comes in, over all peers.
    pub fn down(&self) -> &Lane {
        &self.0.down
    }

    /// The way of what goes out to this peer, on one stream.
    pub fn way_out(&self, peer: PeerId) -> WayOut {
        WayOut { limits: self.clone(), own: self.own(peer), seat: self.0.turns.enter(peer) }
    }

    /// The way of what comes in from a source, on one stream.
    pub fn way_in(&self, peer: Option<PeerId>) -> WayIn {
        WayIn { limits: self.clone(), own: peer.map(|peer| self.own(peer)), is_half_way: false }
    }

    fn own(&self, peer: PeerId) -> Arc<Own> {
        let mut state = self.lock();
        if let Some(own) = state.own.get(&peer).and_then(Weak::upgrade) {
            return own;
        }
        state.own.retain(|_, own| own.strong_count() > 0);
        let own = Arc::<Own>::default();
        own.keep_to(state.said.of(peer));
        state.own.insert(peer, Arc::downgrade(&own));
        own
    }

    fn enforce(&self) {
        let _alone = self.0.enforcing.lock().unwrap_or_else(PoisonError::into_inner);
        let LimitsAnswer { up, down, .. } = self.answer();
        self.0.up.keep_to(up.bytes_per_sec);
        self.0.down.keep_to(down.bytes_per_sec);
        let own: Vec<(Arc<Own>, Rates)> = {
            let State { said, own, .. } = &*self.lock();
            own.iter().filter_map(|(peer, own)| Some((own.upgrade()?, said.of(*peer)))).collect()
        };
        own.iter().for_each(|(own, rates)| own.keep_to(*rates));
    }

    fn now(&self) -> jiff::civil::DateTime {
        (self.0.clock)()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn of(&self, peer: PeerId) -> Rates {
        let said = (!self.peers.is_empty()).then(|| self.peers.get(&peer.to_string())).flatten();
        let rate = |of: fn(&SaidOfPeer) -> Option<u64>| said.and_then(of).unwrap_or_default();
        Rates { up: rate(|said| said.up), down: rate(|said| said.down) }
    }
}

impl Own {
    fn keep_to(&self, rates: Rates) {
        self.up.keep_to(rates.up);
        self.down.keep_to(rates.down);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use p2p_identity::Identity;

    use super::*;

    fn open(dir: &tempfile::TempDir, up: u64) -> Limits {
        let configured =
            Configured { rates: Rates { up, down: 0 }, upload_slots: 4, ..Configured::default() };
        Limits::open(dir.path().join("limits.json"), configured).unwrap()
    }

    fn said(up: Option<u64>, down: Option<u64>, as_configured: bool) -> SetLimits {
        SetLimits { up, down, as_configured, peer: None }
    }

    #[test]
    fn a_user_goes_before_the_configuration_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let limits = open(&dir, 7);
        limits.set(&said(None, Some(9), false)).unwrap();
        let of = |limits: &Limits| {
            let LimitsAnswer { up, down, .. } = limits.answer();
            (up.bytes_per_sec, up.is_set, down.bytes_per_sec, down.is_set)
        };
        assert_eq!(of(&limits), (7, false, 9, true));
        limits.configure(Configured { rates: Rates { up: 8, down: 1 }, ..Configured::default() });
        assert_eq!(of(&limits), (8, false, 9, true));
        let again = open(&dir, 6);
        assert_eq!(of(&again), (6, false, 9, true));
        again.set(&said(Some(0), None, true)).unwrap();
        assert_eq!(of(&again), (0, true, 0, false));
    }

    #[test]
    fn what_the_schedule_says_goes_before_the_rates_and_after_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let limits = open(&dir, 7);
        let always: Period = toml::from_str("from = '00:00'\nto = '24:00'\nup_bytes_per_sec = 5").unwrap();
        let rates = Rates { up: 7, down: 3 };
        limits.configure(Configured { rates, schedule: vec![always], upload_slots: 1 });
        let LimitsAnswer { up, down, .. } = limits.answer();
        assert_eq!((up.bytes_per_sec, up.scheduled.as_deref()), (5, Some("every day 00:00-24:00")));
        assert_eq!((down.bytes_per_sec, down.scheduled), (3, None), "of which it says nothing");
        assert_eq!(limits.up().portion(1 << 20), 4 << 10, "it is kept to");
        limits.set(&said(Some(6), None, false)).unwrap();
        let up = limits.answer().up;
        assert_eq!((up.bytes_per_sec, up.configured_bytes_per_sec, up.is_set), (6, 5, true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rates_change_with_the_schedule_when_its_periods_begin_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let period = "days = ['mon']\nfrom = '08:00'\nto = '08:02'\nup_bytes_per_sec = 3200000";
        let schedule = vec![toml::from_str::<Period>(period).unwrap()];
        let configured = Configured { rates: Rates::default(), schedule, upload_slots: 1 };
        let (start, monday) = (tokio::time::Instant::now(), jiff::civil::date(2026, 11, 30).at(7, 58, 40, 0));
        let clock: Clock = Arc::new(move || monday + start.elapsed());
        let limits = Limits::open_by(dir.path().join("limits.json"), configured, clock).unwrap();
        let tasks = Tasks::new();
        limits.follow_schedule(&tasks);
        // What of a MiB goes out at once: all of it, or a portion that many can take turns with.
        let (all, portion) = (1 << 20, 100_000);
        for (secs, out, when) in [
            (79, all, "07:59:59"),
            (81, portion, "08:00:01"),
            (199, portion, "08:01:59"),
            (201, all, "08:02:01"),
        ] {
            tokio::time::sleep_until(start + Duration::from_secs(secs)).await;
            // Nobody asked what the limits are meanwhile, nor changed them.
            assert_eq!(limits.up().portion(1 << 20), out, "at {when}");
        }
    }

    #[test]
    fn a_peer_has_limits_of_its_own_which_change_under_way_and_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let limits = open(&dir, 0);
        let id = Identity::generate().unwrap().id();
        let peer = PeerName { peer_id: Some(id.to_string()), name: "P2".to_owned() };
        let (out, mut into) = (limits.way_out(id), limits.way_in(Some(id)));
        let other = limits.way_out(Identity::generate().unwrap().id());
        assert_eq!(out.take(1 << 20, |_| true), Some(1 << 20));
        limits.set_peer(&peer, &said(Some(1000), Some(1000), false)).unwrap();
        assert_eq!(out.take(1 << 20, |_| true), Some(4 << 10), "under way, in portions");
        assert_eq!(
            out.take(1 << 20, |waits_for| waits_for != WaitsFor::Rate),
            None,
            "who does not want it any more does not wait"
        );
        assert_eq!(other.take(1 << 20, |_| true), Some(1 << 20));
        let now = Instant::now();
        assert_eq!(into.take(5000, now), Ok(()));
        assert_eq!(into.take(5000, now), Err(Held { wait: LOOK_AGAIN, is_own: true }));
        limits.set_peer(&peer, &said(None, Some(0), false)).unwrap();
        limits.set(&said(None, Some(1000), false)).unwrap();
        assert_eq!(into.take(5000, now), Ok(()));
        assert_eq!(into.take(5000, now), Err(Held { wait: LOOK_AGAIN, is_own: false }));
        limits.set(&said(None, None, true)).unwrap();
        limits.set_peer(&peer, &said(None, Some(1000), false)).unwrap();

        let again = open(&dir, 0);
        let kept = again.answer().peers;
        assert_eq!(
            kept,
            [PeerLimit { peer: peer.clone(), up_bytes_per_sec: 1000, down_bytes_per_sec: 1000 }]
        );
        for text in ["P2", &id.to_string(), &id.to_string()[..8]] {
            assert_eq!(again.find_peer(text).as_ref(), Some(&peer), "{text}");
        }
        again.set_peer(&peer, &said(Some(0), None, false)).unwrap();
        assert_eq!(again.answer().peers[0].up_bytes_per_sec, 0);
        again.set(&said(None, None, true)).unwrap();
        assert_eq!(again.answer().peers.len(), 1, "what is said of all is another thing");
        again.set_peer(&peer, &said(None, None, true)).unwrap();
        assert_eq!(again.answer().peers, []);
    }

    #[test]
    fn who_waits_for_the_lane_of_all_has_passed_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let limits = open(&dir, 0);
        let id = Identity::generate().unwrap().id();
        let peer = PeerName { peer_id: Some(id.to_string()), name: String::new() };
        limits.set_peer(&peer, &said(None, Some(1000), false)).unwrap();
        limits.set(&said(None, Some(1000), false)).unwrap();
        let (mut into, now) = (limits.way_in(Some(id)), Instant::now());
        limits.down().take(500, now).unwrap();
        assert!(into.take(1000, now).is_err());
        let later = now + Duration::from_millis(600);
        assert_eq!(into.take(1000, later), Ok(()), "its own lane is not asked twice for the same bytes");
    }
}
