//! Whom a run asks: who becomes a source, and what becomes of one that gives nothing more.

use std::time::Instant;

use p2p_content::Pieces;
use tokio::sync::mpsc;

use super::Engine;
use crate::discovery::PeerRef;
use crate::transfer::basis::Doubt;
use crate::transfer::gone::Gone;
use crate::transfer::nearness::{Nearness, nearest_first, nearness};
use crate::transfer::plan::SourceKey;
use crate::transfer::source::{Order, SourceTask};

/// Sources that are asked at once; the others wait until one is gone. Of them, those that only other sources speak of.
const SOURCES: usize = 32;
const INTRODUCED: usize = 16;
/// How many of those are asked in one run: of peers that somebody makes up there is no end.
const INTRODUCED_EVER: usize = 1024;
/// Of each source a piece may be in memory, not whole yet: so there are fewer sources where pieces are long. At least two.
const ARRIVING_LEN: u64 = 64 << 20;
/// Orders that wait for a source's task: as many as it can be asked for, and to leave all of them.
const ORDERS: usize = 128;

/// A source of the run.
pub(super) struct Running {
    pub(super) peer: PeerRef,
    pub(super) nearness: Nearness,
    /// Who has it was said by a source only.
    pub(super) introduced: bool,
    /// Bytes came from it, and were true, since it has its place.
    pub(super) gave: bool,
    pub(super) orders: mpsc::Sender<Order>,
}

impl Engine<'_> {
    fn most_sources(&self) -> usize {
        let piece_len = p2p_content::piece_len(self.size);
        usize::try_from(ARRIVING_LEN / piece_len).unwrap_or(SOURCES).clamp(2, SOURCES)
    }

    /// Takes in those that were found beside the run. Where all places are taken, the slowest gives up its own to somebody who
    /// was never asked, or gave and was lost since: slow ones would else keep a fast one out for good.
    pub(super) fn add_more(&mut self, peers: Vec<PeerRef>) {
        let is_new = |peer: &PeerRef| peer.id().is_some_and(|id| !self.tried.contains(&id));
        let new = peers.iter().filter(|peer| is_new(peer) && self.can_be_asked(peer));
        let new: Vec<PeerRef> = new.cloned().collect();
        if self.sources.len() < self.most_sources() || new.is_empty() {
            return self.add_sources(peers, false);
        }
        if let Some(last) = self.plan.last(Instant::now())
            && let Some(Running { peer, .. }) = self.leave(last)
        {
            self.job.source_lost(&peer, "it is the slowest, and another is tried in its place");
            self.add_sources(new, false);
        }
    }

    pub(super) fn add_sources(&mut self, peers: Vec<PeerRef>, introduced: bool) {
        let most = self.most_sources();
        for peer in nearest_first(peers, &self.subnets) {
            let is_running = self.sources.values().any(|running| running.peer.id() == peer.id());
            let running_introduced = self.sources.values().filter(|running| running.introduced).count();
            if self.sources.len() >= most || introduced && running_introduced >= INTRODUCED.min(most / 2) {
                break;
            }
            if is_running || !self.can_be_asked(&peer) {
                continue;
            }
            if introduced && !peer.id().is_some_and(|id| self.tried.contains(&id)) {
                if self.introduced >= INTRODUCED_EVER {
                    continue;
                }
                self.introduced += 1;
            }
            self.tried.extend(peer.id());
            let key = self.next_key;
            self.next_key += 1;
            let (orders, told) = mpsc::channel(ORDERS);
            let task = SourceTask {
                key,
                peer: peer.clone(),
                content: self.content,
                pieces: Pieces::of(self.size),
                is_located: !introduced,
                fetcher: self.fetcher.clone(),
                connections: self.shared.connections.clone(),
                limits: self.shared.limits.clone(),
                watch: self.measured.joined(key, &peer),
                orders: told,
                events: self.events.clone(),
            };
            self.tasks.spawn(task.run());
            // Whoever is only spoken of is a source once it answers.
            if !introduced {
                self.job.source_joined(&peer);
            }
            let nearness = nearness(&peer.addresses(), &self.subnets);
            self.sources.insert(key, Running { peer, nearness, introduced, gave: false, orders });
        }
    }

    fn can_be_asked(&self, peer: &PeerRef) -> bool {
        !self.job.is_dropped(peer.id()) && peer.id() != Some(self.shared.myself.id)
    }

    pub(super) fn gone(&mut self, source: SourceKey, why: Gone) -> Result<Option<String>, Box<Doubt>> {
        let Some(running) = self.leave(source) else { return Ok(None) };
        let said = why.said_of(&running.peer);
        match why {
            Gone::Unkept(reason) if self.job.is_unkept_again(&running.peer) => {
                self.drop_source(running.peer, format!("{reason}, again and again"))?;
            }
            Gone::Lost(_) | Gone::Unkept(_) if running.introduced && !self.job.is_source(&running.peer) => {}
            Gone::Lost(reason) | Gone::Unkept(reason) => {
                self.job.source_lost(&running.peer, &reason);
                if let Some(id) = running.peer.id().filter(|_| running.gave && !running.introduced) {
                    self.tried.remove(&id);
                }
            }
            Gone::Dropped(reason) => self.drop_source(running.peer, reason)?,
        }
        Ok(Some(said))
    }

    /// Nothing more is expected of the source.
    pub(super) fn leave(&mut self, source: SourceKey) -> Option<Running> {
        self.plan.leave(source);
        self.measured.left(source);
        let running = self.sources.remove(&source)?;
        if let Some(id) = running.peer.id().filter(|_| running.introduced && !self.job.gave(&running.peer)) {
            // Connections to those who gave nothing would be kept for whoever needs them next, and there can be very many.
            self.shared.connections.forget(id);
        }
        Some(running)
    }
}
