//! `p2p.v1.Peer`, as its conduct says.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use p2p_content::{Bitmap, ContentHash, EndHasher, Pieces};
use p2p_proto::v1::peer_server::Peer;
use p2p_proto::v1::pull_refusal::Reason;
use p2p_proto::v1::{
    AvailabilityRequest, AvailabilityUpdate, BrowseRequest, BrowseResponse, Candidate, DescribeRequest,
    DescribeResponse, FriendQuery, LocateResponse, ManifestRequest, ManifestResponse, OfferRequest,
    OfferUpdate, PullRefusal, PullRequest, PullResponse, friend_query, offer_update,
};
use p2p_proto::{MAX_PULL_LEN, PULL_CHUNK_LEN};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Asked, Conduct, HeldFile, Shelf, Trickle, Untruth};

/// Of a slow source: small, so that its speed is even and a request of any length begins to be answered.
const SLOW_CHUNK_LEN: u64 = 16 * 1024;

/// Requests that wait for those before them.
const WAITING: usize = 128;

type Pulled = Result<PullResponse, Status>;

pub(super) struct Service {
    shelf: Arc<Shelf>,
    ended: CancellationToken,
}

impl Service {
    pub(super) fn new(shelf: Arc<Shelf>, ended: CancellationToken) -> Service {
        Service { shelf, ended }
    }
}

#[tonic::async_trait]
impl Peer for Service {
    type PullStream = ReceiverStream<Pulled>;
    type AvailabilityStream = ReceiverStream<Result<AvailabilityUpdate, Status>>;
    type OfferStream = tokio_stream::Once<Result<OfferUpdate, Status>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(DescribeResponse {
            peer: Some(self.shelf.info.clone()),
            files: self.shelf.files.len() as u64,
            bytes: self.shelf.files.values().map(|held| held.entry.size).sum(),
        }))
    }

    async fn locate(&self, request: Request<FriendQuery>) -> Result<Response<LocateResponse>, Status> {
        let query = request.into_inner().query;
        let asked = |held: &&HeldFile| match &query {
            Some(friend_query::Query::Name(name)) => held.entry.name == *name,
            Some(friend_query::Query::Content(content)) => held.entry.content == *content,
            None => false,
        };
        let found =
            self.shelf.files.values().filter(asked).map(|held| Candidate {
                file: Some(held.entry.clone()),
                sources: vec![self.shelf.info.clone()],
            });
        Ok(Response::new(LocateResponse { candidates: found.collect() }))
    }

    async fn browse(&self, _: Request<BrowseRequest>) -> Result<Response<BrowseResponse>, Status> {
        let mut files: Vec<_> = self.shelf.files.values().map(|held| held.entry.clone()).collect();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(BrowseResponse { files, next: String::new() }))
    }

    async fn get_manifest(
        &self,
        request: Request<ManifestRequest>,
    ) -> Result<Response<ManifestResponse>, Status> {
        let held = self.held(&request.into_inner().content).ok_or_else(|| Status::not_found("not here"))?;
        let (pieces, mut values) = (held.manifest.pieces(), held.manifest.to_bytes());
        let (mut size, mut hasher) = (pieces.len(), EndHasher::new(pieces));
        hasher.update(&held.bytes[at(pieces.range(pieces.count() - 1).start)..]);
        let (conduct, deed) = (*self.shelf.conduct.borrow(), self.shelf.deeds.begin(Asked::Manifest));
        match conduct {
            Conduct::FalseManifest => {
                values[0] ^= 1;
                self.shelf.deeds.shows(deed, conduct);
            }
            Conduct::FalseLength if held.entry.size != size => {
                size = held.entry.size;
                // What proves itself under that length, where it has as many pieces.
                values.resize(at(Pieces::of(size).count().into()) * 32, 1);
                self.shelf.deeds.shows(deed, conduct);
            }
            _ => {}
        }
        self.shelf.deeds.ends(deed);
        let ending = hasher.finish().unwrap_or_default().into();
        Ok(Response::new(ManifestResponse { size, values: values.into(), ending }))
    }

    /// It introduces all who ask to each other.
    async fn availability(
        &self,
        request: Request<AvailabilityRequest>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let AvailabilityRequest { content, fetcher } = request.into_inner();
        let held = self.held(&content).ok_or_else(|| Status::not_found("not here"))?;
        let (count, deed) = (held.manifest.pieces().count(), self.shelf.deeds.begin(Asked::Availability));
        let own = fetcher.as_ref().map(|fetcher| fetcher.peer_id.clone());
        self.shelf.fetchers.send_modify(|all| all.extend(fetcher));
        let (updates, stream) = mpsc::channel(4);
        let (shelf, ended) = (Arc::clone(&self.shelf), self.ended.clone());
        tokio::spawn(async move {
            let (mut fetchers, mut conducts) = (shelf.fetchers.subscribe(), shelf.conduct.clone());
            let (mut known, mut told) = (0, None);
            loop {
                let all = fetchers.borrow_and_update().clone();
                let others = all[known..].iter().filter(|other| Some(&other.peer_id) != own.as_ref());
                let fetchers_told = others.cloned().collect();
                known = all.len();
                let conduct = *conducts.borrow_and_update();
                let update = AvailabilityUpdate { fetchers: fetchers_told, ..telling(conduct, told, count) };
                let is_first = told.replace(conduct).is_none();
                if (is_first || update != AvailabilityUpdate::default())
                    && updates.send(Ok(update)).await.is_err()
                {
                    return;
                }
                if let Conduct::Tells(_) = conduct {
                    shelf.deeds.shows(deed, conduct);
                    shelf.deeds.ends(deed);
                }
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = updates.closed() => return,
                    _ = fetchers.changed() => {}
                    Ok(()) = conducts.changed() => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn pull(
        &self,
        request: Request<Streaming<PullRequest>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        self.shelf.streams.fetch_add(1, Ordering::Relaxed);
        let (answers, stream) = mpsc::channel(4);
        let service = Service { shelf: Arc::clone(&self.shelf), ended: self.ended.clone() };
        let (queue, mut waiting) = mpsc::channel(WAITING);
        let (shelf, mut requests) = (Arc::clone(&self.shelf), request.into_inner());
        // What is asked is known at once, however long it waits for its answer.
        let hear = async move {
            while let Ok(Some(request)) = requests.message().await {
                // Whoever is told to leave a request may answer it all the same.
                if !request.withdraw {
                    let deed = shelf.deeds.begin(Asked::Bytes(request.offset));
                    if queue.send((request, deed)).await.is_err() {
                        return;
                    }
                }
            }
        };
        tokio::spawn(async move {
            let serve = async {
                while let Some((request, deed)) = waiting.recv().await {
                    if service.answer(&request, deed, &answers).await.is_none() {
                        return;
                    }
                }
            };
            let both = async {
                tokio::select! {
                    () = serve => {}
                    () = async { hear.await; std::future::pending().await } => {}
                }
            };
            tokio::select! {
                () = service.ended.cancelled() => {}
                () = answers.closed() => {}
                () = both => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<Self::OfferStream>, Status> {
        Ok(Response::new(tokio_stream::once(Ok(OfferUpdate {
            state: offer_update::State::Refused.into(),
            message: "this peer takes nothing".to_owned(),
            done_bytes: 0,
            name: request.into_inner().name,
        }))))
    }
}

impl Service {
    fn held(&self, content: &[u8]) -> Option<&HeldFile> {
        self.shelf.files.get(&ContentHash::try_from(content).ok()?)
    }

    /// Answers one request; `None` where nobody listens any more.
    async fn answer(&self, request: &PullRequest, deed: usize, answers: &mpsc::Sender<Pulled>) -> Option<()> {
        let deeds = &self.shelf.deeds;
        let refuse = async |reason: Reason| {
            let refusal = PullRefusal { reason: reason.into(), message: "refused by the test".to_owned() };
            let answer = PullResponse { id: request.id, refusal: Some(refusal), ..PullResponse::default() };
            answers.send(Ok(answer)).await.ok()?;
            deeds.ends(deed);
            Some(())
        };
        let Some(held) = self.held(&request.content) else {
            return refuse(Reason::NotFound).await;
        };
        let (end, conduct) = (request.offset.saturating_add(request.length), *self.shelf.conduct.borrow());
        let (len, told) = (held.bytes.len() as u64, held.entry.size);
        let is_too_long_to_it = conduct == Conduct::FalseLength && end > told;
        if conduct == Conduct::Unreadable {
            deeds.shows(deed, conduct);
            return refuse(Reason::Unreadable).await;
        }
        if request.length > MAX_PULL_LEN || end > len || is_too_long_to_it {
            if is_too_long_to_it && end <= len {
                deeds.shows(deed, conduct);
            }
            return refuse(Reason::BadRange).await;
        }
        if let Conduct::Empty | Conduct::Tells(Untruth::Bitmap | Untruth::Gained) = conduct {
            deeds.shows(deed, conduct);
            return refuse(Reason::NotYet).await;
        }
        let mut offset = request.offset;
        let mut due = Instant::now();
        // An empty range is answered too, with no bytes.
        loop {
            let conduct = *self.shelf.conduct.borrow();
            let speed = match conduct {
                Conduct::Slow(speed) => Some(speed),
                Conduct::Honest => None,
                _ => self.shelf.speed,
            };
            let longest = match (conduct, speed) {
                (Conduct::Silent, _) => {
                    deeds.shows(deed, conduct);
                    self.until_it_speaks().await?
                }
                (_, Some(speed)) => pace(speed, &mut due).await,
                _ => PULL_CHUNK_LEN as u64,
            };
            let next = end.min(offset + longest);
            let mut data = held.bytes.slice(at(offset)..at(next));
            if let Some(false_bytes) = falsified(held, offset..next, conduct) {
                data = false_bytes;
                deeds.shows(deed, conduct);
            }
            match conduct {
                Conduct::TooMuch if next == end => {
                    data = [data, Bytes::from_static(b"more")].concat().into();
                    deeds.shows(deed, conduct);
                }
                Conduct::Breaks(after) if next > request.offset + u64::from(after) => {
                    deeds.shows(deed, conduct);
                    return None;
                }
                Conduct::Slow(_) => deeds.shows(deed, conduct),
                _ => {}
            }
            self.shelf.given.fetch_add(next - offset, Ordering::Relaxed);
            answers.send(Ok(PullResponse { id: request.id, data, refusal: None })).await.ok()?;
            offset = next;
            if offset >= end {
                deeds.ends(deed);
                let mut given = self.shelf.given_ranges.lock().unwrap_or_else(PoisonError::into_inner);
                given.insert((request.content.clone(), request.offset));
                // With an empty range no lie is told yet.
                let has_lied = conduct == Conduct::FalseAndGone && end > request.offset;
                return (!has_lied).then_some(());
            }
        }
    }

    /// Waits until its conduct is another; then an ordinary chunk may go.
    async fn until_it_speaks(&self) -> Option<u64> {
        let mut conduct = self.shelf.conduct.clone();
        conduct.wait_for(|conduct| *conduct != Conduct::Silent).await.ok()?;
        Some(PULL_CHUNK_LEN as u64)
    }
}

/// Waits for the moment at which this speed lets the next chunk go. The speed is of one stream.
async fn pace(Trickle(speed): Trickle, due: &mut Instant) -> u64 {
    sleep_until(*due).await;
    *due += Duration::from_secs(1).mul_f64(SLOW_CHUNK_LEN as f64 / f64::from(speed.get()));
    SLOW_CHUNK_LEN
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// What it tells at first, or where its conduct has changed; nothing otherwise.
fn telling(conduct: Conduct, told: Option<Conduct>, count: u32) -> AvailabilityUpdate {
    let mut update = AvailabilityUpdate::default();
    if told == Some(conduct) {
        return update;
    }
    update.whole = told.is_none();
    match conduct {
        Conduct::Tells(Untruth::Bitmap) => {
            (update.whole, update.pieces) = (false, Bitmap::full(count).to_bytes().into());
        }
        Conduct::Tells(Untruth::Gained) => (update.whole, update.gained) = (false, (0..count).collect()),
        Conduct::Tells(Untruth::Beyond) => update.gained = vec![count],
        Conduct::Tells(Untruth::Promises) => update.promised = (0..count).collect(),
        _ => {}
    }
    update
}

/// What it sends in place of the bytes of this range; `None` where these are true.
fn falsified(held: &HeldFile, range: Range<u64>, conduct: Conduct) -> Option<Bytes> {
    let every = match conduct {
        Conduct::FalsePieces(every) => every,
        Conduct::FalseAndGone => NonZeroU32::MIN,
        _ => return None,
    };
    let pieces = held.manifest.pieces();
    let lies: Vec<u64> = (0..pieces.count())
        .step_by(at(u64::from(NonZeroU32::get(every))))
        .map(|index| pieces.range(index).start)
        .filter(|start| range.contains(start))
        .collect();
    if lies.is_empty() {
        return None;
    }
    let mut bytes = held.bytes[at(range.start)..at(range.end)].to_vec();
    for lie in lies {
        bytes[at(lie - range.start)] ^= 1;
    }
    Some(bytes.into())
}
