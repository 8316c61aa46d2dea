//! Whose handshake is under way: a turn for each, so that many at once take a bounded part of this machine.
//!
//! Called by `incoming`. The callers of one address have a part of the turns, and who does not go on gives its turn to
//! somebody who waits for it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Handshakes under way at once.
const ALL: usize = 256;
/// Those of one address.
const OF_ONE: usize = ALL / 4;
/// How long a handshake may take while others wait for its turn.
const HASTE: Duration = Duration::from_secs(1);

/// The turns of one listener.
pub(super) struct Turns {
    all: Arc<Line>,
    /// Addresses that have a turn or wait for one; sometimes others, for a while.
    by_address: Mutex<HashMap<IpAddr, Weak<Line>>>,
}

/// A place in both lines, for as long as this lives.
pub(super) struct Turn {
    all: Arc<Line>,
    own: Arc<Line>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Some turns, and who waits for one.
struct Line {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Somebody who waits in a line.
struct InLine<'a>(&'a Line);

/// A handshake took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSlow;

impl Turns {
    pub(super) fn new() -> Turns {
        Turns { all: Arc::new(Line::of(ALL)), by_address: Mutex::default() }
    }

    /// A turn for a caller of this address; `None`: none was free for so long.
    pub(super) async fn take(&self, address: IpAddr, within: Duration) -> Option<Turn> {
        let own = self.line_of(address);
        let turn = async {
            let first = own.wait().await?;
            let second = self.all.wait().await?;
            Some(Turn { all: Arc::clone(&self.all), own: Arc::clone(&own), _permits: [first, second] })
        };
        timeout(within, turn).await.ok().flatten()
    }

    fn line_of(&self, address: IpAddr) -> Arc<Line> {
        let who = whose(address);
        let mut known = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = known.get(&who).and_then(Weak::upgrade) {
            return line;
        }
        // As many can be in use as there are connections that have not shaken hands.
        if known.len() >= 2 * ALL {
            known.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::new(Line::of(OF_ONE));
        known.insert(who, Arc::downgrade(&line));
        line
    }
}

impl Turn {
    /// Goes on with a handshake, for so long at the most, and while others wait no longer than they should.
    ///
    /// # Errors
    /// [`TooSlow`]; the handshake is given up.
    pub(super) async fn run<T>(
        self,
        handshake: impl Future<Output = T>,
        within: Duration,
    ) -> Result<T, TooSlow> {
        let end = Instant::now() + within;
        let mut handshake = std::pin::pin!(handshake);
        loop {
            let look = end.min(Instant::now() + HASTE);
            if let Ok(done) = timeout_at(look, &mut handshake).await {
                return Ok(done);
            }
            if look == end || self.all.is_wanted() || self.own.is_wanted() {
                return Err(TooSlow);
            }
        }
    }
}

impl Line {
    fn of(turns: usize) -> Line {
        Line { turns: Arc::new(Semaphore::new(turns)), waiting: AtomicUsize::new(0) }
    }

    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _in_line = InLine(self);
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whoever has one IPv6 address has all of its network (RFC 4291, section 2.5.4).
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn one_address_has_a_part_of_the_turns() {
        let turns = Turns::new();
        let [mallory, ada] = ["2001:db8::1", "192.0.2.1"].map(|address| address.parse().unwrap());
        let neighbour = "2001:db8::2".parse().unwrap();
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(turns.take(mallory, LONG).await.unwrap());
        }
        assert!(turns.take(neighbour, LONG).await.is_none(), "it is the same network");
        assert!(turns.take(ada, Duration::ZERO).await.is_some());
        held.pop();
        assert!(turns.take(neighbour, Duration::ZERO).await.is_some());
        drop(held);
        assert_eq!(turns.all.turns.available_permits(), ALL);
        assert!(!turns.all.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_does_not_go_on_gives_way_where_somebody_waits() {
        let turns = Turns::new();
        let mallory: IpAddr = "192.0.2.1".parse().unwrap();
        let began = Instant::now();
        let alone = turns.take(mallory, LONG).await.unwrap();
        assert_eq!(alone.run(std::future::pending::<()>(), LONG).await, Err(TooSlow));
        assert_eq!(began.elapsed(), LONG, "nobody needs its turn");
        let began = Instant::now();
        let mut stalled = Vec::new();
        for _ in 0..OF_ONE {
            let turn = turns.take(mallory, LONG).await.unwrap();
            stalled.push(tokio::spawn(turn.run(std::future::pending::<()>(), LONG)));
        }
        let next = turns.take(mallory, LONG).await.unwrap();
        assert!(began.elapsed() < 2 * HASTE, "{:?}", began.elapsed());
        assert_eq!(next.run(async { 7 }, LONG).await, Ok(7));
    }
}
