//! A transfer with many pieces and sources on its way, to see what an event costs its plan: one that happened, and that every
//! source is then asked for what it has room for, as the engine does it. Used by `p2pd/benches/plan.rs`, which measures,
//! and by a test, which holds it against a bound.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::time::{Duration, Instant};

use p2p_content::Bitmap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::plan::{Plan, SourceKey};

const PIECES: u32 = 10_000;
const SOURCES: u32 = 100;
/// Of so many sources one has everything; the others fetch it too, and have about as much of it as this peer.
const WHOLE_OF: u32 = 10;
/// Time from one piece to the next, over all sources: pieces of 1 MiB at 1 GiB/s.
const EACH: Duration = Duration::from_millis(1);
/// Events after which another transfer is looked at.
pub(super) const EVENTS: u32 = 10_000;

/// A transfer on its way.
pub(super) struct Scene {
    plan: Plan,
    random: StdRng,
    now: Instant,
    here: Bitmap,
    sources: BTreeMap<SourceKey, Member>,
    next_key: SourceKey,
    /// Those that were looked at.
    pub(super) events: u32,
}

struct Member {
    owes: VecDeque<u32>,
    /// `None`: everything.
    has: Option<Bitmap>,
}

impl Scene {
    /// With about this share of the pieces here.
    pub(super) fn new(share: f64) -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let here = some(&mut random, share);
        let (plan, now, sources) = (Plan::new(&here), Instant::now(), BTreeMap::new());
        let mut scene = Self { plan, random, now, here, sources, next_key: 0, events: 0 };
        for _ in 0..SOURCES {
            let next = scene.next_member();
            scene.join(next);
        }
        scene.ask();
        scene
    }

    /// How much of it is here.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.here.count_ones()) / f64::from(PIECES)
    }

    fn next_member(&mut self) -> Member {
        let is_whole = self.next_key.is_multiple_of(WHOLE_OF);
        let share = self.share();
        let has = (!is_whole).then(|| some(&mut self.random, share));
        Member { owes: VecDeque::new(), has }
    }

    fn join(&mut self, member: Member) {
        let key = self.next_key;
        self.next_key += 1;
        self.plan.join(key);
        match &member.has {
            None => self.plan.has_all(key),
            Some(pieces) => self.plan.has(key, pieces),
        }
        self.sources.insert(key, member);
    }

    fn ask(&mut self) {
        self.plan.sources().into_iter().for_each(|key| self.ask_one(key));
    }

    fn ask_one(&mut self, key: SourceKey) {
        let Self { plan, random, now, sources, .. } = self;
        for piece in plan.requests(key, *now, |below| random.random_range(0..below)) {
            if let Some(source) = sources.get_mut(&key) {
                source.owes.push_back(piece);
            }
        }
    }

    /// One of those sources that are so; any one where none is.
    fn any(&mut self, is_so: impl Fn(&Member) -> bool) -> SourceKey {
        let keys = self.sources.iter().filter(|(_, source)| is_so(source)).map(|(key, _)| *key);
        let mut keys: Vec<SourceKey> = keys.collect();
        if keys.is_empty() {
            keys.extend(self.sources.keys());
        }
        keys[self.random.random_range(0..keys.len())]
    }

    /// A source gives the piece that it has owed for the longest time.
    pub(super) fn arrived(&mut self) -> Duration {
        let key = self.any(|source| !source.owes.is_empty());
        let piece = self.sources.get_mut(&key).and_then(|source| source.owes.pop_front());
        let Some(piece) = piece else { return Duration::ZERO };
        self.now += EACH;
        self.here.set(piece);
        self.timed(Some(key), |scene| {
            black_box(scene.plan.arrived(key, piece, scene.now));
        })
    }

    /// A source that fetches the content too has one piece more.
    pub(super) fn gained(&mut self) -> Duration {
        let key = self.any(|source| source.has.as_ref().is_some_and(|has| !has.is_full()));
        let Some(has) = self.sources.get_mut(&key).and_then(|source| source.has.as_mut()) else {
            return Duration::ZERO;
        };
        let mut piece = self.random.random_range(0..PIECES);
        while !has.is_full() && !has.set(piece) {
            piece = (piece + 1) % PIECES;
        }
        self.timed(Some(key), |scene| scene.plan.gained(key, [piece]))
    }

    /// A source goes, and then another one comes.
    pub(super) fn changed(&mut self) -> Duration {
        let key = self.any(|_| true);
        self.sources.remove(&key);
        let next = self.next_member();
        self.timed(None, |scene| scene.plan.leave(key)) + self.timed(None, |scene| scene.join(next))
    }

    /// As they come in a swarm: the others get as many pieces as this peer, and now and then one of them changes.
    pub(super) fn mixed(&mut self) -> Duration {
        match self.random.random_range(0..1000) {
            0 => self.changed(),
            1..500 => self.gained(),
            _ => self.arrived(),
        }
    }

    /// Time that an event takes, with those being asked after it whom the engine then asks: the source that it is
    /// about, or everybody where it changes what all can be asked for.
    fn timed(&mut self, about: Option<SourceKey>, event: impl FnOnce(&mut Self)) -> Duration {
        let began = Instant::now();
        event(self);
        match about.filter(|_| !self.plan.is_end_game()) {
            Some(key) => self.ask_one(key),
            None => self.ask(),
        }
        began.elapsed()
    }
}

/// So large a share of all pieces, at random.
fn some(random: &mut StdRng, share: f64) -> Bitmap {
    let mut pieces = Bitmap::new(PIECES);
    for piece in 0..PIECES {
        if random.random_bool(share) {
            pieces.set(piece);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    /// What an event may cost this build, in processor time: about ten times as much as it does, so that a busy machine is no
    /// reason to fail. Whoever looks at every piece takes longer. What it costs a release build, `docs/benchmarks.md` says.
    const MOST: Duration = Duration::from_micros(40);
    /// The same where all sources are asked after each whether they could take something over.
    const MOST_AT_THE_END: Duration = Duration::from_micros(150);

    fn processor_time() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(now.tv_sec).unwrap(), u32::try_from(now.tv_nsec).unwrap())
    }

    #[test]
    fn an_event_costs_little_however_many_pieces_and_sources_there_are() {
        for (what, (first, last), most) in
            [("mixed", (0.5, 0.9), MOST), ("when nothing is free", (0.98, 1.0), MOST_AT_THE_END)]
        {
            let mut scene = Scene::new(first);
            let began = processor_time();
            while scene.share() < last && scene.events < EVENTS {
                match last < 1.0 {
                    true => scene.mixed(),
                    false => scene.arrived(),
                };
                scene.events += 1;
            }
            let each = (processor_time() - began) / scene.events;
            println!("{what}: {each:?} for each of {} events", scene.events);
            assert!(each <= most, "{what}: {each:?}");
        }
    }
}
