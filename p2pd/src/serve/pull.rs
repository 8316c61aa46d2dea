//! One Pull stream: ranges are asked for, and their bytes go out, in the order of the requests.
//!
//! One thread opens and reads for the whole stream, some chunks ahead of the network: reading each chunk with a task of
//! its own cost a fifth of the throughput.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_proto::v1::availability_update::HeldBack;
use p2p_proto::v1::pull_refusal::Reason;
use p2p_proto::v1::{PullRefusal, PullRequest};
use p2p_proto::{MAX_PULL_LEN, PULL_CHUNK_LEN, pull};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::admission::{Admission, Guest};
use super::brake::Brake;
use super::buffers::Lent;
use super::contents::{Contents, Held, NoBytes};
use super::finder::Finder;
use crate::limits::{WaitsFor, WayOut};

/// Files that one stream keeps open.
const OPEN_FILES: usize = 32;
/// How long it is taken for granted that the caller may see an open file.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// Answers that wait for the network, per stream; and how many of them must have gone before the reader goes on once they
/// are so many: waking it for each costs a tenth of the processor time of all.
pub(super) const AHEAD: usize = 6;
const REFILL: usize = 3;
/// Requests that wait for the reader.
const QUEUED: usize = 64;
/// Bytes of short answers that are gathered before they go out.
const ENOUGH: usize = PULL_CHUNK_LEN / 2;

/// A range to read.
struct Reading {
    id: u64,
    offset: u64,
    length: u64,
    /// Nothing where the caller may have nothing, or asked for what is no content.
    content: Option<ContentHash>,
}

/// The requests of a stream that are not answered yet, and whether the caller still wants them.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<HashMap<u64, bool>>>);

impl Open {
    fn asked(&self, id: u64) {
        self.lock().insert(id, true);
    }

    fn withdraw(&self, id: u64) {
        if let Some(is_wanted) = self.lock().get_mut(&id) {
            *is_wanted = false;
        }
    }

    fn is_wanted(&self, id: u64) -> bool {
        self.lock().get(&id).is_none_or(|is_wanted| *is_wanted)
    }

    fn answered(&self, id: u64) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How bytes get out to the caller.
struct Way {
    out: WayOut,
    /// Held while bytes wait, so that the caller can be told.
    brake: Arc<Brake>,
}

impl Way {
    /// Takes as many bytes as shall be sent next. Where they have to wait, `is_wanted` is asked now and then; `None` where
    /// it says no.
    fn take(&self, most: usize, is_wanted: impl Fn() -> bool) -> Option<usize> {
        // Held from the first time that something says no, until these bytes may go.
        let waiting = OnceCell::new();
        self.out.take(most, |waits_for| {
            let why = match waits_for {
                WaitsFor::Rate => HeldBack::RateLimit,
                WaitsFor::Turn => HeldBack::NoSlot,
            };
            waiting.get_or_init(|| self.brake.hold(why, Instant::now()));
            is_wanted()
        })
    }
}

/// Answers, framed as they go out.
pub(super) type Answers = mpsc::Sender<Result<Bytes, Status>>;

/// Serves the requests until the caller ends the stream.
pub(super) async fn serve(
    contents: Contents,
    admission: Admission,
    guest: Guest,
    mut requests: Streaming<PullRequest>,
    answers: Answers,
) {
    let (queue, readings) = mpsc::channel(QUEUED);
    let (open, swarms) = (Open::default(), contents.swarms().clone());
    let way = Way { out: contents.limits().way_out(guest.id), brake: contents.brakes().of(guest.id) };
    let asked = open.clone();
    let (finder, files, gathered) = (contents.finder(), HashMap::new(), RefCell::default());
    let reader = Reader { contents, guest: guest.clone(), way, answers, open, finder, files, gathered };
    let reader = tokio::task::spawn_blocking(move || reader.read_all(readings));
    while let Ok(Some(PullRequest { id, content, offset, length, withdraw })) = requests.message().await {
        if withdraw {
            asked.withdraw(id);
            continue;
        }
        let content = ContentHash::try_from(content.as_ref()).ok().filter(|_| admission.still_admits(&guest));
        if let Some(swarm) = content.and_then(|content| swarms.find(content)) {
            swarm.promised(offset..offset.saturating_add(length), guest.id);
        }
        asked.asked(id);
        if queue.send(Reading { id, offset, length, content }).await.is_err() {
            break;
        }
    }
    drop(queue);
    // The stream stays open until everything that was asked for is out.
    let _ = reader.await;
}

/// Reads for one stream, on a thread of its own.
struct Reader {
    contents: Contents,
    guest: Guest,
    way: Way,
    answers: Answers,
    open: Open,
    finder: Finder,
    /// Files that are open, and since when.
    files: HashMap<ContentHash, (Arc<Held>, Instant)>,
    /// Answers that go out together: short ones one by one would wake the network for each.
    gathered: RefCell<Option<Lent>>,
}

/// Nobody takes the answers any more.
struct Left;

impl Reader {
    fn read_all(mut self, mut readings: mpsc::Receiver<Reading>) {
        loop {
            let reading = match readings.try_recv() {
                Ok(reading) => reading,
                // Nothing waits for what may be asked for next.
                Err(_) => match self.flush().ok().and_then(|()| self.next(&mut readings)) {
                    Some(reading) => reading,
                    None => return,
                },
            };
            let id = reading.id;
            if self.read(reading).is_err() {
                return;
            }
            self.open.answered(id);
        }
    }

    /// The next request, however long it takes: where that is long, no file stays open for it.
    fn next(&mut self, readings: &mut mpsc::Receiver<Reading>) -> Option<Reading> {
        self.finder.pause();
        if let Ok(next) = Handle::current().block_on(async { timeout(OPEN_FOR, readings.recv()).await }) {
            return next;
        }
        self.files.clear();
        self.finder.rest();
        readings.blocking_recv()
    }

    fn held(&mut self, content: Option<ContentHash>) -> Result<Arc<Held>, NoBytes> {
        let content = content.ok_or(NoBytes::NotFound)?;
        if let Some((held, since)) = self.files.get(&content)
            && since.elapsed() < OPEN_FOR
        {
            return Ok(Arc::clone(held));
        }
        let held = Arc::new(self.finder.open(content, &self.guest)?);
        if self.files.len() >= OPEN_FILES {
            self.files.clear();
        }
        self.files.insert(content, (Arc::clone(&held), Instant::now()));
        Ok(held)
    }

    /// Sends this after all that was gathered.
    fn send(&self, framed: Bytes) -> Result<(), Left> {
        self.flush()?;
        self.push(framed)
    }

    /// Sends what was gathered.
    fn flush(&self) -> Result<(), Left> {
        match self.gathered.take() {
            Some(lent) if lent.len() > 0 => self.push(lent.into()),
            _ => Ok(()),
        }
    }

    fn push(&self, framed: Bytes) -> Result<(), Left> {
        match self.answers.try_send(Ok(framed)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Left),
            Err(TrySendError::Full(framed)) => {
                let room = self.answers.reserve_many(REFILL);
                Handle::current().block_on(room).map_err(|_| Left)?;
                self.answers.blocking_send(framed).map_err(|_| Left)
            }
        }
    }

    /// Puts an answer to the others that go out next, and sends them once they are enough.
    fn gather<E>(
        &self,
        head: &[u8],
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Left> {
        if self.gathered.borrow().as_ref().is_some_and(|lent| !lent.has_room(len)) {
            self.flush()?;
        }
        let mut gathered = self.gathered.borrow_mut();
        let lent = gathered.get_or_insert_with(|| self.contents.buffers().lend());
        let filled = lent.append(head, len, fill);
        let is_enough = lent.len() >= ENOUGH;
        drop(gathered);
        if is_enough {
            self.flush()?;
        }
        Ok(filled)
    }

    fn read(&mut self, Reading { id, offset, length, content }: Reading) -> Result<(), Left> {
        let held = self.held(content);
        let refuse = |reason: Reason, message: &str| {
            self.send(pull::refusal(id, PullRefusal { reason: reason.into(), message: message.to_owned() }))
        };
        let held = match held {
            Ok(held) if held.is_unchanged() => held,
            Ok(_) | Err(NoBytes::Changed) => return refuse(Reason::Changed, "the file changed"),
            Err(NoBytes::NotFound) => return refuse(Reason::NotFound, "not found"),
            Err(NoBytes::Unreadable) => return refuse(Reason::Unreadable, "the file cannot be read"),
        };
        let end = offset.checked_add(length).filter(|end| *end <= held.size);
        let Some(end) = end.filter(|_| length <= MAX_PULL_LEN) else {
            return refuse(Reason::BadRange, "the range is not in the content, or is too long");
        };
        if !held.has(&(offset..end)) {
            return refuse(Reason::NotYet, "a piece of the range is not here yet");
        }
        let mut offset = offset;
        loop {
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(PULL_CHUNK_LEN);
            // Crumbs are against the protocol, but for the last of a request.
            if !self.open.is_wanted(id) {
                return refuse(Reason::Withdrawn, "withdrawn");
            }
            // What is here already does not wait with these. Who reads nothing is not waited for: others wait for this turn.
            let is_wanted =
                || !self.answers.is_closed() && (self.answers.capacity() == 0 || self.flush().is_ok());
            let len = self.way.take(len, is_wanted).ok_or(Left)?;
            // It may have waited for long.
            if !self.open.is_wanted(id) {
                return refuse(Reason::Withdrawn, "withdrawn");
            }
            let read = self.gather(&pull::head(id, len), len, |chunk| {
                held.file.read_exact_at(chunk, offset).map_err(|error| {
                    tracing::warn!(%error, "a shared file cannot be read: {error}");
                    (Reason::Unreadable, "the file cannot be read")
                })?;
                // Looked at after each reading, so that no byte of another version goes out as if it were of this one.
                if !held.is_unchanged() {
                    return Err((Reason::Changed, "the file changed"));
                }
                Ok(())
            })?;
            if let Err((reason, message)) = read {
                return refuse(reason, message);
            }
            offset += len as u64;
            self.contents.served().add(len as u64);
            if offset == end {
                return Ok(());
            }
        }
    }
}
