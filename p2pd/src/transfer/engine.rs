//! One run of a transfer: from its sources to the whole file, or to the reason why not now.
//!
//! One loop owns the plan, the bitmap and the sources. Sources tell it of pieces; it has them proven and written, asks
//! for more, makes the bitmap durable as it grows, and looks for new sources while it goes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p_content::{Bitmap, ContentHash, FileName, Manifest, Pieces};
use p2p_identity::PeerId;
use p2p_proto::v1::PeerInfo;
use p2p_service::health::PATIENCE;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::basis::{self, Basis, Doubt};
use super::gauge::{Missing, Phase, Pulling};
use super::job::Job;
use super::jobs::Shared;
use super::nearness::{Subnet, subnets};
use super::outcome::Outcome;
use super::plan::{Arrival, Plan, SourceKey};
use super::sink::{Kept, Room, Sink, SinkError};
use super::source::{Event, News, Order};
use super::story;
use super::swarm::Serving;
use crate::catalog::Viewer;
use crate::discovery::{PeerRef, Query};

mod durable;
mod sources;

use durable::Durable;
use sources::Running;

/// Pieces that are being proven and written at once.
const WRITES: usize = 4;
/// How often what is shown of the transfer is brought up to date.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// How long nobody may have anything that is missing here before the run ends, and others have their turn.
const STARVED: Duration = Duration::from_secs(15);
/// How often more sources are looked for while it runs.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A run.
pub(super) struct Engine<'a> {
    shared: &'a Shared,
    job: &'a Job,
    content: ContentHash,
    size: u64,
    /// Whether the size is proven; of what comes in one piece it may not be, until that is here.
    is_len_proven: bool,
    name: FileName,
    plan: Plan,
    pieces: Bitmap,
    /// What of one piece has come is no use to others before it is whole.
    serving: Option<Serving>,
    measured: Pulling<'a>,
    /// Those that this machine is in.
    subnets: Vec<Subnet>,
    /// This peer, as it shows itself to those who fetch the same.
    fetcher: Option<PeerInfo>,
    sources: HashMap<SourceKey, Running>,
    /// All that were sources in this run, but those that gave something and were lost.
    tried: HashSet<PeerId>,
    /// How many were asked of whom only other sources spoke.
    introduced: usize,
    next_key: SourceKey,
    events: mpsc::Sender<Event>,
    writes: JoinSet<Written>,
    /// Ends the source tasks with the run.
    tasks: JoinSet<()>,
}

/// What became of a piece; from whom it was is known, wherever that source is by now.
struct Written {
    source: SourceKey,
    peer: Option<PeerRef>,
    piece: u32,
    result: Result<Kept, SinkError>,
}

/// Runs a transfer of this content, of which somebody told that it has so many bytes, until something ends it.
pub(super) async fn run(
    shared: &Shared,
    job: &Job,
    content: ContentHash,
    told: u64,
    name: FileName,
    mut before: Option<Serving>,
    stop: &CancellationToken,
) -> Outcome {
    job.gauge.enters(Phase::Looks);
    let found = job.find_sources(shared, &Query::Content(content)).await;
    if found.is_empty() && job.fetchers().is_empty() {
        job.gauge.found_nobody();
        let why = "nobody who can be reached has it now".to_owned();
        return Outcome::NoSources { why, serving: before };
    }
    let mut doubt = None;
    loop {
        let basis = tokio::select! {
            basis = basis::find(shared, job, &found, content, told, doubt.as_deref()) => basis,
            () = stop.cancelled() => return Outcome::Stopped,
        };
        let basis = match basis {
            Ok(basis) => basis,
            Err(Outcome::NoSources { why, .. }) => return Outcome::NoSources { why, serving: before },
            Err(outcome) => return outcome,
        };
        match run_on(shared, job, basis, &found, name.clone(), before.take(), stop).await {
            Ok(outcome) => return outcome,
            // What is proven now stays so: there is no second time.
            Err(doubted) => doubt = Some(doubted),
        }
    }
}

async fn run_on(
    shared: &Shared,
    job: &Job,
    Basis { manifest, remembered, is_len_proven, is_new }: Basis,
    found: &[PeerRef],
    name: FileName,
    before: Option<Serving>,
    stop: &CancellationToken,
) -> Result<Outcome, Box<Doubt>> {
    let manifest = Arc::new(manifest);
    let is_remembered = remembered.is_some();
    job.gauge.enters(Phase::Prepares);
    let room = Room { reserve: shared.settings.borrow().reserve_bytes, claimed: job.claimed_before() };
    let dir = shared.shares.downloads();
    let share = dir.share().to_owned();
    let opened = Sink::open(job.id, dir, Arc::clone(&manifest), remembered, room, shared.store.clone()).await;
    let (sink, pieces) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(error.into()),
    };
    if is_new {
        let kept = shared.store.set_manifest(job.id, &manifest, is_len_proven, &pieces).await;
        if let Err(error) = kept {
            return Ok(error.into());
        }
    }
    if is_remembered && job.gauge.resumed(sink.resumed()) {
        story::resumes(&job.snapshot(), sink.resumed(), pieces.count());
    }
    let serving = is_len_proven
        .then(|| Serving::begin(&shared.swarms, before, sink.file(), Arc::clone(&manifest), &pieces, &share));
    let is_shown = is_len_proven && shared.shares.shows(&share, Viewer::Network);
    let fetcher = is_shown.then(|| shared.myself.to_wire());
    let (events, incoming) = mpsc::channel(WRITES);
    let engine = Engine {
        shared,
        job,
        content: manifest.content(),
        size: manifest.pieces().len(),
        is_len_proven,
        name,
        plan: Plan::new(&pieces),
        pieces,
        serving,
        measured: job.meter().pulls(sink.work()),
        subnets: subnets(),
        fetcher,
        sources: HashMap::new(),
        tried: HashSet::new(),
        introduced: 0,
        next_key: 0,
        events,
        writes: JoinSet::new(),
        tasks: JoinSet::new(),
    };
    engine.pull(Arc::new(sink), manifest, found.to_vec(), incoming, stop).await
}

impl Engine<'_> {
    async fn pull(
        mut self,
        sink: Arc<Sink>,
        manifest: Arc<Manifest>,
        found: Vec<PeerRef>,
        mut incoming: mpsc::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Result<Outcome, Box<Doubt>> {
        self.add_sources(found, false);
        if self.is_len_proven {
            self.add_sources(self.job.fetchers(), true);
        }
        let (mut shown, mut look) = (interval(SHOWN_EVERY), interval(LOOK_EVERY));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        shown.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let mut durable = Durable::new();
        let heart = self.shared.tasks.heartbeat(format!("transfer {}", self.job.id), PATIENCE);
        let mut looking: JoinSet<Vec<PeerRef>> = JoinSet::new();
        let (mut why, mut looked) = (String::new(), false);
        let mut moved = Instant::now();
        while !self.pieces.is_full() {
            heart.beat();
            if self.sources.is_empty() && self.writes.is_empty() && looking.is_empty() {
                if looked {
                    heart.rest();
                    return Ok(self.without_sources(&mut durable, &sink, why).await);
                }
                // All are gone: ask once more, at once, before it is said that there is nobody.
                looked = true;
                looking.spawn(self.job.look(self.shared, self.content));
            }
            if !self.plan.is_idle() || !self.writes.is_empty() {
                moved = Instant::now();
            } else if moved.elapsed() >= STARVED {
                heart.rest();
                let why = "those who can be reached have nothing that is missing here".to_owned();
                return Ok(self.without_sources(&mut durable, &sink, why).await);
            }
            durable.go_on(&sink, &self.pieces, self.size.saturating_sub(self.done_len()));
            tokio::select! {
                () = stop.cancelled() => {
                    heart.rest();
                    // What is on its way to the disk is remembered too, so that it is not hashed again.
                    while let Some(written) = self.writes.join_next().await {
                        if let Ok(written @ Written { result: Ok(Kept::Written), .. }) = written {
                            self.kept(written.piece);
                            self.gave(&written, &manifest);
                        }
                    }
                    self.show();
                    // Where that fails, the log says so, and the next run finds out what is here.
                    let _ = durable.settle(&sink, &self.pieces).await;
                    return Ok(Outcome::Stopped);
                }
                Some(event) = incoming.recv(), if self.writes.len() < WRITES => match event {
                    Event::Ready { source, round_trip } => {
                        self.plan.join(source);
                        self.plan.is_away(source, round_trip);
                        if let Some(running) = self.sources.get(&source) {
                            self.plan.prefer(source, running.nearness as u8);
                            if running.introduced {
                                self.job.source_joined(&running.peer);
                            }
                        }
                    }
                    Event::News { source, news } => self.learn(source, news),
                    Event::Piece { source, piece, chunks } => self.arrived(&sink, source, piece, chunks),
                    Event::Withdrawn { source, piece, len } => {
                        self.job.wasted(len);
                        self.plan.withdrawn(source, piece);
                        self.ask(source);
                    }
                    Event::Gone { source, why: gone } => {
                        if let Some(reason) = self.gone(source, gone)? {
                            why = reason;
                        }
                        self.ask_everyone();
                    }
                },
                Some(written) = self.writes.join_next() => {
                    let Ok(written) = written else {
                        return Ok(Outcome::Failed("a piece could not be written".to_owned()));
                    };
                    match written.result {
                        Ok(Kept::Written) => {
                            // Only bytes show that there is somebody: who opens a stream and closes it is nobody.
                            looked = false;
                            self.measured.got();
                            self.kept(written.piece);
                            durable.wrote(manifest.pieces().piece_len());
                            self.gave(&written, &manifest);
                        }
                        Ok(Kept::False(ref false_piece)) => {
                            let why = false_piece.to_string();
                            self.false_piece(written.source, written.peer, written.piece, &why)?;
                            self.ask_everyone();
                        }
                        Err(error) => {
                            heart.rest();
                            let _ = durable.settle(&sink, &self.pieces).await;
                            return Ok(error.into());
                        }
                    }
                }
                Some(done) = durable.task.join_next(), if !durable.task.is_empty() => {
                    if let Ok(Err(error)) = done {
                        return Ok(error.into());
                    }
                }
                Some(more) = looking.join_next(), if !looking.is_empty() => {
                    self.add_more(more.unwrap_or_default());
                }
                _ = shown.tick() => {
                    self.show();
                    self.measure();
                    // Who gives nothing makes no events: what is asked of it is stolen here.
                    self.ask_everyone();
                }
                _ = look.tick() => if looking.is_empty() {
                    looking.spawn(self.job.look(self.shared, self.content));
                },
            }
        }
        self.show();
        self.job.gauge.enters(Phase::Publishes);
        // The disk may take long for what is left, and nothing else is to be done meanwhile.
        drop(heart);
        // Where it fails, publishing does too.
        while durable.task.join_next().await.is_some() {}
        match sink.publish(self.name.clone()).await {
            Ok(path) => Ok(Outcome::Whole { path, manifest, serving: self.serving }),
            Err(error) => Ok(error.into()),
        }
    }

    /// The end of a run for which there is nobody: its pieces are given to others meanwhile, where they are on the disk.
    async fn without_sources(self, durable: &mut Durable, sink: &Arc<Sink>, why: String) -> Outcome {
        let settled = durable.settle(sink, &self.pieces).await;
        self.show();
        match settled {
            Ok(()) => Outcome::NoSources { why, serving: self.serving },
            Err(error) => error.into(),
        }
    }

    /// What a source has, and whom it knows.
    fn learn(&mut self, source: SourceKey, news: News) {
        if news.whole {
            self.plan.has_all(source);
        }
        if let Some(pieces) = news.pieces {
            self.plan.has(source, &pieces);
        }
        self.plan.gained(source, news.gained);
        news.promised.into_iter().for_each(|piece| self.plan.promised(piece));
        // Who shows itself to nobody is not shown to strangers either by asking them.
        if self.job.terms.only_from.is_none() && self.fetcher.is_some() {
            let new = self.job.remember_fetchers(news.fetchers);
            self.add_sources(new, true);
        }
        self.ask(source);
    }

    fn ask_everyone(&mut self) {
        let now = Instant::now();
        self.plan.sources().into_iter().for_each(|source| self.ask_at(source, now));
    }

    /// Until everything is asked for, what happens to one source changes nothing of what the others can be asked for.
    fn ask(&mut self, source: SourceKey) {
        self.ask_at(source, Instant::now());
    }

    fn ask_at(&mut self, source: SourceKey, now: Instant) {
        for piece in self.plan.requests(source, now, |below| rand::random_range(0..below)) {
            if !self.order(source, Order::Ask(piece)) {
                // Its task has ended; that it is gone is on its way.
                self.plan.leave(source);
                break;
            }
        }
    }

    fn order(&self, source: SourceKey, order: Order) -> bool {
        self.sources.get(&source).is_some_and(|to| to.orders.try_send(order).is_ok())
    }

    fn arrived(&mut self, sink: &Arc<Sink>, source: SourceKey, piece: u32, chunks: Vec<bytes::Bytes>) {
        if self.plan.arrived(source, piece, Instant::now()) == Arrival::Wanted {
            for other in self.plan.others(piece) {
                // Where it cannot be told, its copy comes for nothing.
                self.order(other, Order::Leave(piece));
            }
            let (sink, peer) =
                (Arc::clone(sink), self.sources.get(&source).map(|running| running.peer.clone()));
            self.writes.spawn(async move {
                let result = sink.keep(piece, chunks).await;
                Written { source, peer, piece, result }
            });
        } else {
            let len = chunks.iter().map(bytes::Bytes::len).sum::<usize>();
            self.job.wasted(len as u64);
        }
        match self.plan.is_end_game() {
            true => self.ask_everyone(),
            false => self.ask(source),
        }
    }

    fn gave(&mut self, Written { source, peer, piece, .. }: &Written, manifest: &Manifest) {
        let range = manifest.pieces().range(*piece);
        if let Some(peer) = peer {
            self.job.source_gave(peer, range.end - range.start);
        }
        if let Some(running) = self.sources.get_mut(source) {
            running.gave = true;
        }
    }

    /// A piece is in the file.
    fn kept(&mut self, piece: u32) {
        self.pieces.set(piece);
        if let Some(serving) = &self.serving {
            serving.gained(piece);
        }
        if !self.is_len_proven {
            // It came in one piece, which proves its length too.
            self.is_len_proven = true;
            self.job.told_rightly(self.content);
        }
    }

    /// Who sent it may have gone since: whoever goes at once after a lie is named as one that stays.
    fn false_piece(
        &mut self,
        source: SourceKey,
        peer: Option<PeerRef>,
        piece: u32,
        why: &str,
    ) -> Result<(), Box<Doubt>> {
        let range = Pieces::of(self.size).range(piece);
        self.job.wasted(range.end - range.start);
        self.leave(source);
        self.plan.lacks(piece);
        peer.map_or(Ok(()), |peer| self.drop_source(peer, format!("it sent false bytes: {why}")))
    }

    /// A source breaks the protocol, or seems to: where the length may be false, that is to be settled first.
    fn drop_source(&self, peer: PeerRef, why: String) -> Result<(), Box<Doubt>> {
        if !self.is_len_proven {
            return Err(Box::new(Doubt { peer, why }));
        }
        self.job.source_dropped(&peer, &why, self.content);
        Ok(())
    }

    fn measure(&self) {
        let plan = &self.plan;
        let missing =
            || Missing { pieces: self.pieces.count() - self.pieces.count_ones(), rare: plan.rare() };
        self.measured.look(Instant::now(), missing, |source| plan.open(source));
    }

    fn show(&self) {
        self.job.progressed(self.done_len());
    }

    /// Bytes that are proven and written.
    fn done_len(&self) -> u64 {
        let piece_len = p2p_content::piece_len(self.size);
        let whole = u64::from(self.pieces.count_ones()) * piece_len;
        let last = self.pieces.count().saturating_sub(1);
        // The last piece may be shorter than the others.
        let short = u64::from(self.pieces.count()) * piece_len - self.size;
        if self.pieces.get(last) { whole.saturating_sub(short) } else { whole }
    }
}
