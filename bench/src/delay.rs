//! Long and lossy links: a program that holds the packets of a netfilter queue for a while, and loses some.
//!
//! It is this same program, run in the network namespace that the packets pass through, since not every kernel has netem. The
//! order of packets is kept. Which packets it gets, iptables says ([`works::delay`](crate::works)).

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nfq::{Message, Queue, Verdict};

/// Between two looks at the queue where nothing is due: short against any delay that is worth making.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Packets that wait at the most, in the kernel and here; what is more is lost.
const MAX_WAITING: usize = 1 << 16;

/// How the packets fare.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// The number of the queue
    #[arg(long)]
    queue: u16,
    /// How long each packet is held, in ms
    #[arg(long)]
    ms: u64,
    /// How many of a thousand are lost
    #[arg(long, default_value_t = 0)]
    lose_permille: u64,
}

/// Holds packets until it is killed.
pub(crate) fn run(options: Options) -> Result<()> {
    let mut queue = Queue::open().context("cannot open the netfilter queues; this needs root")?;
    queue.bind(options.queue).with_context(|| format!("cannot take queue {}", options.queue))?;
    // Large segments stay whole, and nothing of them is copied here but what nfq needs to read.
    queue.set_recv_gso(options.queue, true)?;
    queue.set_copy_range(options.queue, 0)?;
    queue.set_queue_max_len(options.queue, u32::try_from(MAX_WAITING)?)?;
    queue.set_recv_enobufs(false)?;
    queue.set_nonblocking(true);
    let mut line = Line::new(Duration::from_millis(options.ms), options.lose_permille, 1);
    loop {
        let mut idle = true;
        match queue.recv() {
            Ok(packet) => {
                idle = false;
                if let Some(lost) = line.enter(packet, Instant::now()) {
                    give(&mut queue, lost, Verdict::Drop)?;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("cannot read the queue"),
        }
        while let Some(packet) = line.leave(Instant::now()) {
            give(&mut queue, packet, Verdict::Accept)?;
        }
        if idle {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn give(queue: &mut Queue, mut packet: Message, verdict: Verdict) -> Result<()> {
    packet.set_verdict(verdict);
    queue.verdict(packet).context("cannot answer the queue")
}

/// What is on its way. Pure: the clock is an argument, and chance a seed.
#[derive(Debug)]
struct Line<T> {
    delay: Duration,
    lose_permille: u64,
    chance: u64,
    waiting: VecDeque<(Instant, T)>,
}

impl<T> Line<T> {
    fn new(delay: Duration, lose_permille: u64, seed: u64) -> Line<T> {
        Line { delay, lose_permille, chance: seed, waiting: VecDeque::new() }
    }

    /// A packet comes; it is given back where it is lost.
    fn enter(&mut self, packet: T, now: Instant) -> Option<T> {
        // Xorshift: which packets are lost has to look like chance, no more.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        if self.chance % 1000 < self.lose_permille || self.waiting.len() == MAX_WAITING {
            return Some(packet);
        }
        self.waiting.push_back((now + self.delay, packet));
        None
    }

    /// The next one that has waited long enough.
    fn leave(&mut self, now: Instant) -> Option<T> {
        let (due, _) = self.waiting.front()?;
        (*due <= now).then(|| self.waiting.pop_front().map(|(_, packet)| packet))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_in_order_when_they_are_due() {
        let mut line = Line::new(Duration::from_millis(40), 0, 1);
        let now = Instant::now();
        assert_eq!(line.enter(1, now), None);
        assert_eq!(line.enter(2, now + Duration::from_millis(10)), None);
        assert_eq!(line.leave(now + Duration::from_millis(39)), None);
        assert_eq!(line.leave(now + Duration::from_millis(40)), Some(1));
        assert_eq!(line.leave(now + Duration::from_millis(40)), None);
        assert_eq!(line.leave(now + Duration::from_millis(50)), Some(2));
        assert_eq!(line.leave(now + Duration::from_secs(9)), None);
    }

    #[test]
    fn about_as_many_are_lost_as_shall_be() {
        let mut line = Line::new(Duration::ZERO, 10, 1);
        let now = Instant::now();
        let mut lost = 0;
        for packet in 0..100_000 {
            lost += usize::from(line.enter(packet, now).is_some());
            line.leave(now);
        }
        assert!((800..1200).contains(&lost), "{lost}");
        let mut full = Line::new(Duration::from_secs(1), 0, 1);
        let lost = (0..=MAX_WAITING).filter(|packet| full.enter(*packet, now).is_some()).count();
        assert_eq!(lost, 1);
    }
}
