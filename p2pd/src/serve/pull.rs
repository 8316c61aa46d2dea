//! One Pull stream: ranges are asked for, and their bytes go out, in the order of the requests.
//!
//! One thread reads for the whole stream, a chunk ahead of the network: reading each chunk with a task of its own cost a
//! fifth of the throughput.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2p_content::{ContentHash, Pieces};
use p2p_proto::v1::availability_update::HeldBack;
use p2p_proto::v1::pull_refusal::Reason;
use p2p_proto::v1::{PullRefusal, PullRequest};
use p2p_proto::{MAX_PULL_LEN, PULL_CHUNK_LEN, pull};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::admission::{Admission, Guest};
use super::brake::Brake;
use super::contents::{Contents, Held, NoBytes, Served};
use crate::limits::{WaitsFor, WayOut};

/// Files that one stream keeps open.
const OPEN_FILES: usize = 32;
/// How long it is taken for granted that the caller may see an open file.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// Requests that wait for the reader.
const QUEUED: usize = 64;

/// A range to read, or why not.
struct Reading {
    id: u64,
    offset: u64,
    length: u64,
    held: Result<Arc<Held>, NoBytes>,
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
    /// Takes as many bytes as shall be sent next; `None` where nobody takes the answers any more.
    fn take(&self, most: usize, answers: &Answers) -> Option<usize> {
        // Held from the first time that something says no, until these bytes may go.
        let waiting = OnceCell::new();
        self.out.take(most, |waits_for| {
            let why = match waits_for {
                WaitsFor::Rate => HeldBack::RateLimit,
                WaitsFor::Turn => HeldBack::NoSlot,
            };
            waiting.get_or_init(|| self.brake.hold(why, Instant::now()));
            !answers.is_closed()
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
    let (out, from, unanswered) = (answers.clone(), contents.clone(), Open::default());
    let asked_for = unanswered.clone();
    let way = Way { out: contents.limits().way_out(guest.id), brake: contents.brakes().of(guest.id) };
    let reader = tokio::task::spawn_blocking(move || read_all(readings, &from, &way, &out, &unanswered));
    let mut open: HashMap<ContentHash, (Arc<Held>, Instant)> = HashMap::new();
    while let Ok(Some(request)) = requests.message().await {
        if request.withdraw {
            asked_for.withdraw(request.id);
            continue;
        }
        let asked = ContentHash::try_from(request.content.as_ref());
        let held = match asked {
            Ok(_) if !admission.still_admits(guest) => Err(NoBytes::NotFound),
            Ok(content) => match open.get(&content) {
                Some((held, since)) if since.elapsed() < OPEN_FOR => Ok(Arc::clone(held)),
                _ => contents.open(content, guest).await.map(|held| {
                    if open.len() >= OPEN_FILES {
                        open.clear();
                    }
                    let held = Arc::new(held);
                    open.insert(content, (Arc::clone(&held), Instant::now()));
                    held
                }),
            },
            Err(_) => Err(NoBytes::NotFound),
        };
        let PullRequest { id, offset, length, .. } = request;
        if let (Ok(content), Ok(held)) = (asked, &held)
            && let Some(piece) = whole_piece(held.size, offset, length)
            && let Some(swarm) = contents.swarms().find(content)
        {
            swarm.promised(piece, guest.id);
        }
        asked_for.asked(id);
        if queue.send(Reading { id, offset, length, held }).await.is_err() {
            break;
        }
    }
    drop(queue);
    // The stream stays open until everything that was asked for is out.
    let _ = reader.await;
}

/// The piece that this range is, if it is one.
fn whole_piece(size: u64, offset: u64, length: u64) -> Option<u32> {
    let pieces = Pieces::of(size);
    let piece = u32::try_from(offset / pieces.piece_len()).ok()?;
    (length > 0 && pieces.range(piece) == (offset..offset.checked_add(length)?)).then_some(piece)
}

fn read_all(
    mut readings: mpsc::Receiver<Reading>,
    contents: &Contents,
    way: &Way,
    answers: &Answers,
    open: &Open,
) {
    let served = contents.served();
    while let Some(reading) = readings.blocking_recv() {
        if read_one(&reading, contents, way, answers, &served, open).is_err() {
            // The caller has gone.
            return;
        }
        open.answered(reading.id);
    }
}

/// Fails only where nobody takes the answers any more.
fn read_one(
    reading: &Reading,
    contents: &Contents,
    way: &Way,
    answers: &Answers,
    served: &Served,
    open: &Open,
) -> Result<(), ()> {
    let id = reading.id;
    let send = |framed| answers.blocking_send(Ok(framed)).map_err(|_| ());
    let refuse = |reason: Reason, message: &str| {
        send(pull::refusal(id, PullRefusal { reason: reason.into(), message: message.to_owned() }))
    };
    let held = match &reading.held {
        Ok(held) if held.is_unchanged() => held,
        Ok(_) | Err(NoBytes::Changed) => return refuse(Reason::Changed, "the file changed"),
        Err(NoBytes::NotFound) => return refuse(Reason::NotFound, "not found"),
        Err(NoBytes::Unreadable) => return refuse(Reason::Unreadable, "the file cannot be read"),
    };
    let end = reading.offset.checked_add(reading.length).filter(|end| *end <= held.size);
    let Some(end) = end.filter(|_| reading.length <= MAX_PULL_LEN) else {
        return refuse(Reason::BadRange, "the range is not in the content, or is too long");
    };
    if !held.has(&(reading.offset..end)) {
        return refuse(Reason::NotYet, "a piece of the range is not here yet");
    }
    let mut offset = reading.offset;
    loop {
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(PULL_CHUNK_LEN);
        // Crumbs are against the protocol, but for the last of a request.
        if !open.is_wanted(id) {
            return refuse(Reason::Withdrawn, "withdrawn");
        }
        let len = way.take(len, answers).ok_or(())?;
        // It may have waited for long.
        if !open.is_wanted(id) {
            return refuse(Reason::Withdrawn, "withdrawn");
        }
        let head = pull::head(id, len);
        let chunk = contents.buffers().filled(&head, len, |chunk| held.file.read_exact_at(chunk, offset));
        // Looked at after each reading, so that no byte of another version goes out as if it were of this one.
        if !held.is_unchanged() {
            return refuse(Reason::Changed, "the file changed");
        }
        let framed = match chunk {
            Ok(framed) => framed,
            Err(error) => {
                tracing::warn!(%error, "a shared file cannot be read: {error}");
                return refuse(Reason::Unreadable, "the file cannot be read");
            }
        };
        offset += len as u64;
        send(framed)?;
        served.add(len as u64);
        if offset == end {
            return Ok(());
        }
    }
}
