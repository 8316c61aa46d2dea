//! One run over the short files of a directory: a loop that owns the plan and the sources, reads the list page by page, has
//! what comes proven and written, and hands it on to be named, a batch at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use p2p_service::health::PATIENCE;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::super::gauge::{Missing, Pulling};
use super::super::job::Job;
use super::super::jobs::Shared;
use super::super::measure::Work;
use super::super::outcome::Outcome;
use super::super::plan::SourceKey;
use super::super::sink::{SinkError, blocking};
use super::super::store::TreeFile;
use super::batch::{self, Came, Found, Kept, Named, Proven};
use super::plan::{Arrival, FileKey, Plan};
use super::stream::{Event, Order};
use super::{LONGEST, Lacking, Tally};
use crate::discovery::PeerRef;
use crate::shares::Together;

mod doubts;
mod room;
mod sources;

use room::{Room, room_of};

/// Files of the list that are read at once, and how few may wait before more are read.
const PAGE: usize = 1024;
const LOW: usize = 512;
/// Files that some or all who are there have refused before no more are read: who has not may be slow, and others are looked
/// for, which takes its time.
const TURNED_DOWN: usize = 16 * PAGE;
/// Sources that are asked at once.
const SOURCES: usize = 16;
/// What sources told that waits for the run.
const EVENTS: usize = 64;
/// Pieces of work that prove and write at once, and bytes and files of one.
const WRITERS: usize = 2;
const WRITTEN_LEN: u64 = 4 << 20;
const WRITTEN: usize = 128;
/// Bytes and files that may wait for a writer before nothing more is taken from the sources.
const WAITING_LEN: u64 = 8 << 20;
const WAITING: usize = 4096;
/// Files, bytes and time after which a batch gets its names.
const BATCH: usize = 2048;
const BATCH_LEN: u64 = 64 << 20;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Files and bytes that may wait for their names before nothing more is written: where writing is faster than naming, they
/// would take memory for each file of the directory, and a power cut all of them.
const UNNAMED: usize = 4 * BATCH;
const UNNAMED_LEN: u64 = 2 * BATCH_LEN;
/// How often what is shown is brought up to date; how often more sources are looked for, and a slow one may give up its place
/// to a new one.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Times that a source may be lost, and no file comes, before it is left alone until the next run.
const LOSSES: u32 = 2;

struct Running {
    peer: PeerRef,
    orders: mpsc::Sender<Order>,
    is_ready: bool,
}

type Written = Result<Vec<Kept>, SinkError>;
type Page = Result<(Vec<(TreeFile, Found)>, bool), SinkError>;

struct Run<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Arc<Job>,
    tally: &'a Tally,
    measured: Pulling<'a>,
    work: Arc<Work>,
    together: Arc<Together>,
    plan: Plan,
    files: HashMap<FileKey, TreeFile>,
    next_file: FileKey,
    sources: HashMap<SourceKey, Running>,
    next_source: SourceKey,
    /// All that were sources in this run, and when one last gave up its place.
    tried: HashSet<PeerId>,
    displaced: Option<Instant>,
    /// Those that are gone, of whom something is to be proven still.
    gone: HashMap<SourceKey, PeerRef>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    /// What came and no writer has taken.
    came: Vec<Came>,
    came_len: u64,
    writing: JoinSet<Written>,
    /// What is written and has no name.
    batch: Vec<Proven>,
    batch_len: u64,
    batch_since: Instant,
    naming: JoinSet<Result<Named, SinkError>>,
    naming_len: u64,
    loading: JoinSet<Page>,
    after: Option<(FileName, ContentHash)>,
    is_all_read: bool,
    left_parts: Arc<HashSet<String>>,
    /// For whom who has it is looked for: for one of the files, or for any.
    looking: JoinSet<(Option<FileKey>, Vec<PeerRef>)>,
    /// Files for which sources were looked for.
    looked_for: HashSet<FileKey>,
    /// Those that somebody has for whom there was no place.
    no_place: HashSet<FileKey>,
    /// Where in the list one was last looked at beside.
    looked_at: f64,
    /// Files that are false, or refused, where that may be the fault of who told their length.
    doubts: VecDeque<doubts::Doubt>,
    asking: JoinSet<doubts::Settled>,
    /// How many of those each source has.
    in_doubt: HashMap<SourceKey, usize>,
    /// How often each source was lost since a file last came from it.
    losses: HashMap<PeerId, u32>,
    being_looked_for: HashSet<FileKey>,
    /// Files that nobody has: in all, and since one last came.
    missing: u64,
    missing_in_a_row: u64,
    room: Room,
    lacking: Lacking,
}

/// Works off the list until it is done or nobody has what is left, or it does not fit: that is what it returns.
pub(super) async fn run(of: &super::Run<'_>) -> Result<Lacking, Outcome> {
    let super::Run { shared, job, tally, stop } = *of;
    let (dir, reserve) = (shared.shares.downloads(), shared.settings.borrow().reserve_bytes);
    let (free, together) = blocking(move || Ok((dir.free_bytes()?, dir.together()?))).await?;
    let together = Arc::new(together);
    let left_parts = Arc::new(batch::left_parts(shared, job.id).await?);
    let (events, incoming) = mpsc::channel(EVENTS);
    let work = Arc::new(Work::default());
    let mut run = Run {
        shared,
        job,
        tally,
        measured: job.gauge.pulls(Arc::clone(&work)),
        work,
        together,
        plan: Plan::default(),
        files: HashMap::new(),
        next_file: 0,
        sources: HashMap::new(),
        next_source: 0,
        tried: HashSet::new(),
        displaced: None,
        gone: HashMap::new(),
        events,
        tasks: JoinSet::new(),
        came: Vec::new(),
        came_len: 0,
        writing: JoinSet::new(),
        batch: Vec::new(),
        batch_len: 0,
        batch_since: Instant::now(),
        naming: JoinSet::new(),
        naming_len: 0,
        loading: JoinSet::new(),
        after: None,
        is_all_read: false,
        left_parts,
        looking: JoinSet::new(),
        looked_for: HashSet::new(),
        no_place: HashSet::new(),
        looked_at: 0.0,
        doubts: VecDeque::new(),
        asking: JoinSet::new(),
        in_doubt: HashMap::new(),
        losses: HashMap::new(),
        being_looked_for: HashSet::new(),
        missing: 0,
        missing_in_a_row: 0,
        room: Room::new(free, reserve),
        lacking: Lacking::default(),
    };
    let ended = run.work(incoming, stop).await;
    // Whatever ended it: a flush on its way may fail, which the kernel tells once, and what it was for is removed then.
    while let Some(named) = run.naming.join_next().await {
        if let Ok(Ok(named)) = named {
            run.tally.add(named.files, named.bytes);
        }
    }
    tally.unnamed.store(0, Relaxed);
    ended.map(|()| run.lacking)
}

impl Run<'_> {
    async fn work(
        &mut self,
        mut incoming: mpsc::Receiver<Event>,
        stop: &CancellationToken,
    ) -> Result<(), Outcome> {
        let (mut shown, mut look) = (interval(SHOWN_EVERY), interval(LOOK_EVERY));
        shown.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let heart = self.shared.tasks.heartbeat(format!("transfer {}", self.job.id), PATIENCE);
        let mut events = Vec::new();
        loop {
            heart.beat();
            self.read_on();
            self.name();
            self.write();
            self.look_for_sources();
            self.ask_for_proofs();
            if self.is_done() {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => {
                    heart.rest();
                    // What is written stays as parts, and proves itself when it goes on.
                    while self.writing.join_next().await.is_some() {}
                    return Err(Outcome::Stopped);
                }
                // All that is there, so that files which came together are written together.
                _ = incoming.recv_many(&mut events, EVENTS), if self.came_len < WAITING_LEN && self.came.len() < WAITING => {
                    events.drain(..).for_each(|event| self.on_event(event));
                }
                Some(written) = self.writing.join_next(), if !self.writing.is_empty() => {
                    self.written(written.map_err(|_| ended())??);
                }
                Some(named) = self.naming.join_next(), if !self.naming.is_empty() => {
                    self.named(named.map_err(|_| ended())?)?;
                }
                Some(page) = self.loading.join_next(), if !self.loading.is_empty() => {
                    let (page, is_last) = page.map_err(|_| ended())??;
                    self.take_page(page, is_last).await?;
                }
                Some(found) = self.looking.join_next(), if !self.looking.is_empty() => {
                    if let Ok((key, peers)) = found {
                        self.found(key, peers);
                    }
                }
                Some(settled) = self.asking.join_next(), if !self.asking.is_empty() => {
                    self.settled(settled.map_err(|_| ended())?).await?;
                }
                _ = shown.tick() => {
                    self.show_unnamed();
                    self.tally.show(self.job);
                    if self.missing > 0 {
                        let so_far = format!("{} files so far that nobody who can be reached has", self.missing);
                        self.job.change(|transfer| transfer.reason = Some(so_far));
                    }
                    self.measured.look(Instant::now(), Missing::default, |source| self.plan.owed(source));
                    // Who gives nothing makes no events: what it owes is taken over here.
                    self.ask_everyone();
                }
                _ = look.tick() => if self.looking.is_empty() {
                    self.look_around();
                },
                () = heart.due() => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.is_all_read
            && self.loading.is_empty()
            && self.plan.is_empty()
            && self.came.is_empty()
            && self.writing.is_empty()
            && self.batch.is_empty()
            && self.naming.is_empty()
    }

    /// Reads the next page of the list where few files wait, and looks what is here of it.
    fn read_on(&mut self) {
        let is_enough =
            self.plan.waiting() >= LOW || self.plan.turned_down() >= TURNED_DOWN || self.is_behind();
        if self.is_all_read || !self.loading.is_empty() || is_enough {
            return;
        }
        let (store, id, after) = (self.shared.store.clone(), self.job.id, self.after.clone());
        let (together, parts) = (Arc::clone(&self.together), Arc::clone(&self.left_parts));
        self.loading.spawn(async move {
            let files = store.files_after(id, after, 0..=LONGEST, PAGE).await?;
            let is_last = files.len() < PAGE;
            Ok((blocking(move || batch::look(&together, id, files, &parts)).await?, is_last))
        });
    }

    async fn take_page(&mut self, page: Vec<(TreeFile, Found)>, is_last: bool) -> Result<(), SinkError> {
        self.is_all_read |= is_last;
        self.after = page.last().map(|(file, _)| (file.name.clone(), file.content)).or(self.after.take());
        for (file, found) in page {
            if self.job.is_shorter_than_told(&file) {
                // It comes as the long one that it was taken for.
                continue;
            }
            let room = room_of(file.size);
            match found {
                Found::Nothing => match self.room.take(file.size) {
                    Ok(()) => {
                        self.add(file);
                        continue;
                    }
                    Err(why) => self.lacking.is_full(&file.name, &why),
                },
                Found::Proven(mut proven) => {
                    proven.file.size = proven.manifest.pieces().len();
                    self.job.resized(file.size, proven.file.size);
                    self.add_to_batch(proven);
                }
                Found::Taken => {
                    let why = batch::TAKEN.to_owned();
                    batch::fail(self.shared, self.job.id, file.name, file.content, why).await?;
                }
            }
            self.job.unclaim(room);
        }
        self.ask_everyone();
        Ok(())
    }

    /// A file is to be fetched.
    fn add(&mut self, file: TreeFile) {
        let key = self.next_file;
        self.next_file += 1;
        self.plan.add(key, file.size);
        self.files.insert(key, file);
    }

    /// A file is not to be fetched any more.
    fn forget(&mut self, key: FileKey) {
        for other in self.plan.others(key) {
            self.leave(other, key);
        }
        self.strike(key);
    }

    /// A file has come, or will not. What it was.
    fn strike(&mut self, key: FileKey) -> Option<TreeFile> {
        self.plan.remove(key);
        self.looked_for.remove(&key);
        self.no_place.remove(&key);
        let file = self.files.remove(&key)?;
        self.job.unclaim(room_of(file.size));
        Some(file)
    }

    /// Hands what has come to a writer, where one is free and what it wrote before gets its names.
    fn write(&mut self) {
        while !self.is_behind() && !self.came.is_empty() && self.writing.len() < WRITERS {
            let mut len = 0;
            let take = self.came.iter().take(WRITTEN).take_while(|came| {
                let fits = len < WRITTEN_LEN;
                len += came.file.size;
                fits
            });
            let take = take.count();
            let rest = self.came.split_off(take);
            let taken = std::mem::replace(&mut self.came, rest);
            self.came_len -= taken.iter().map(|came| came.file.size).sum::<u64>();
            let (together, id) = (Arc::clone(&self.together), self.job.id);
            let work = Arc::clone(&self.work);
            self.writing.spawn(blocking(move || batch::keep(&together, id, taken, &work)));
        }
    }

    fn written(&mut self, written: Vec<Kept>) {
        let mut gave: HashMap<SourceKey, u64> = HashMap::new();
        for Kept { key, source, size, proven } in written {
            match proven {
                Some(proven) => {
                    *gave.entry(source).or_default() += size;
                    self.missing_in_a_row = 0;
                    self.job.told_rightly(proven.file.content);
                    self.strike(key);
                    self.add_to_batch(proven);
                }
                None => self.is_false(source, key, size),
            }
        }
        for (source, bytes) in gave {
            let Some(peer) = self.who(source).cloned() else { continue };
            self.job.source_gave(&peer, bytes);
            self.measured.got();
            // That it gives says nothing of the others.
            peer.id().and_then(|id| self.losses.remove(&id));
        }
        if self.came.is_empty() && self.writing.is_empty() {
            self.gone.clear();
        }
    }

    /// Who that is or was.
    fn who(&self, source: SourceKey) -> Option<&PeerRef> {
        self.sources.get(&source).map(|running| &running.peer).or_else(|| self.gone.get(&source))
    }

    fn add_to_batch(&mut self, proven: Proven) {
        if self.batch.is_empty() {
            self.batch_since = Instant::now();
        }
        self.batch_len += proven.file.size;
        self.batch.push(proven);
    }

    /// Has a batch named where it is large or old enough, or nothing more comes; one at a time.
    fn name(&mut self) {
        let is_quiet = self.plan.is_empty()
            && self.is_all_read
            && self.loading.is_empty()
            && self.came.is_empty()
            && self.writing.is_empty();
        let is_ripe = self.batch.len() >= BATCH
            || self.batch_len >= BATCH_LEN
            || self.batch_since.elapsed() >= BATCH_EVERY
            || is_quiet;
        if self.batch.is_empty() || !self.naming.is_empty() || !is_ripe {
            return;
        }
        let rest = self.batch.split_off(self.batch.len().min(UNNAMED));
        let (batch, shared) = (std::mem::replace(&mut self.batch, rest), Arc::clone(self.shared));
        self.naming_len = batch.iter().map(|proven| proven.file.size).sum();
        self.batch_len -= self.naming_len;
        let (together, id, work) = (Arc::clone(&self.together), self.job.id, Arc::clone(&self.work));
        self.naming.spawn(async move { batch::finish(&shared, id, together, batch, &work).await });
    }

    /// Whether so much waits for names that nothing is to be added.
    fn is_behind(&self) -> bool {
        self.batch.len() >= UNNAMED || self.batch_len >= UNNAMED_LEN
    }

    fn named(&mut self, named: Result<Named, SinkError>) -> Result<(), SinkError> {
        let Named { files, bytes } = named?;
        self.naming_len = 0;
        self.tally.add(files, bytes);
        self.show_unnamed();
        Ok(())
    }

    fn show_unnamed(&self) {
        self.tally.unnamed.store(self.batch_len + self.naming_len, Relaxed);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ready { source, round_trip } => {
                if let Some(running) = self.sources.get_mut(&source) {
                    running.is_ready = true;
                    self.plan.join(source);
                    self.plan.is_away(source, round_trip);
                    self.ask(source);
                }
            }
            Event::Files { source, files } => {
                files.into_iter().for_each(|(key, chunks)| self.arrived(source, key, chunks));
                self.ask(source);
            }
            Event::Refused { source, key, is_range: true } => self.is_shorter(source, key),
            Event::Refused { source, key, is_range: false } => {
                self.plan.refused(source, key);
                self.ask_everyone();
            }
            Event::Withdrawn { source, key, len } => {
                self.job.wasted(len);
                self.plan.withdrawn(source, key);
                self.ask(source);
            }
            Event::Gone { source, why } => {
                self.gone(source, &why);
                self.ask_everyone();
            }
        }
    }

    fn arrived(&mut self, source: SourceKey, key: FileKey, chunks: Vec<bytes::Bytes>) {
        let len = chunks.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
        let wanted = self.plan.arrived(source, key, len, Instant::now()) == Arrival::Wanted;
        match self.files.get(&key).filter(|_| wanted) {
            Some(file) => {
                for other in self.plan.others(key) {
                    self.leave(other, key);
                }
                self.came_len += len;
                self.came.push(Came { key, source, file: file.clone(), chunks });
            }
            None => self.job.wasted(len),
        }
    }
}

fn ended() -> Outcome {
    Outcome::Failed("a piece of work on its files ended in a panic".to_owned())
}
