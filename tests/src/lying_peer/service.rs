//! `p2p.v1.Peer`, as its conduct says.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use p2p_content::{ContentHash, EndHasher, Pieces};
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

use super::{Conduct, Held, Shelf, Trickle};

/// Of a slow source: small, so that its speed is even and a request of any length begins to be answered.
const SLOW_CHUNK_LEN: u64 = 16 * 1024;

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
        let asked = |held: &&Held| match &query {
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
        match *self.shelf.conduct.borrow() {
            Conduct::FalseManifest => values[0] ^= 1,
            Conduct::FalseLength => {
                size = held.entry.size;
                // What proves itself under that length, where it has as many pieces.
                values.resize(at(Pieces::of(size).count().into()) * 32, 1);
            }
            _ => {}
        }
        let ending = hasher.finish().unwrap_or_default().into();
        Ok(Response::new(ManifestResponse { size, values: values.into(), ending }))
    }

    /// It has everything, and introduces all who ask to each other.
    async fn availability(
        &self,
        request: Request<AvailabilityRequest>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let AvailabilityRequest { content, fetcher } = request.into_inner();
        self.held(&content).ok_or_else(|| Status::not_found("not here"))?;
        let own = fetcher.as_ref().map(|fetcher| fetcher.peer_id.clone());
        self.shelf.fetchers.send_modify(|all| all.extend(fetcher));
        let (updates, stream) = mpsc::channel(4);
        let (shelf, ended) = (Arc::clone(&self.shelf), self.ended.clone());
        tokio::spawn(async move {
            let mut fetchers = shelf.fetchers.subscribe();
            let (mut known, mut whole) = (0, true);
            loop {
                let all = fetchers.borrow_and_update().clone();
                let others = all[known..].iter().filter(|other| Some(&other.peer_id) != own.as_ref());
                let update =
                    AvailabilityUpdate { whole, fetchers: others.cloned().collect(), ..Default::default() };
                (known, whole) = (all.len(), false);
                if updates.send(Ok(update)).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = updates.closed() => return,
                    _ = fetchers.changed() => {}
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
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let serve = async {
                while let Ok(Some(request)) = requests.message().await {
                    // Whoever is told to leave a request may answer it all the same.
                    if request.withdraw {
                        continue;
                    }
                    if service.answer(&request, &answers).await.is_none() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = service.ended.cancelled() => {}
                () = answers.closed() => {}
                () = serve => {}
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
    fn held(&self, content: &[u8]) -> Option<&Held> {
        self.shelf.files.get(&ContentHash::try_from(content).ok()?)
    }

    /// Answers one request; `None` where nobody listens any more.
    async fn answer(&self, request: &PullRequest, answers: &mpsc::Sender<Pulled>) -> Option<()> {
        let refuse = |reason: Reason| {
            let refusal = PullRefusal { reason: reason.into(), message: "refused by the test".to_owned() };
            Ok(PullResponse { id: request.id, refusal: Some(refusal), ..PullResponse::default() })
        };
        let Some(held) = self.held(&request.content) else {
            return answers.send(refuse(Reason::NotFound)).await.ok();
        };
        let end = request.offset.saturating_add(request.length);
        let len = match *self.shelf.conduct.borrow() {
            Conduct::FalseLength => held.entry.size.min(held.bytes.len() as u64),
            _ => held.bytes.len() as u64,
        };
        if request.length > MAX_PULL_LEN || end > len {
            return answers.send(refuse(Reason::BadRange)).await.ok();
        }
        if *self.shelf.conduct.borrow() == Conduct::Empty {
            return answers.send(refuse(Reason::NotYet)).await.ok();
        }
        let mut offset = request.offset;
        let mut due = Instant::now();
        // An empty range is answered too, with no bytes.
        loop {
            let conduct = *self.shelf.conduct.borrow();
            let longest = match conduct {
                Conduct::Silent => self.until_it_speaks().await?,
                Conduct::Slow(speed) => pace(speed, &mut due).await,
                _ => PULL_CHUNK_LEN as u64,
            };
            let next = end.min(offset + longest);
            let mut data = chunk(held, offset..next, conduct);
            match conduct {
                Conduct::TooMuch if next == end => data = [data, Bytes::from_static(b"more")].concat().into(),
                Conduct::Breaks(after) if next > request.offset + u64::from(after) => return None,
                _ => {}
            }
            self.shelf.given.fetch_add(next - offset, Ordering::Relaxed);
            answers.send(Ok(PullResponse { id: request.id, data, refusal: None })).await.ok()?;
            offset = next;
            if offset >= end {
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

fn chunk(held: &Held, range: Range<u64>, conduct: Conduct) -> Bytes {
    let honest = held.bytes.slice(at(range.start)..at(range.end));
    let every = match conduct {
        Conduct::FalsePieces(every) => every,
        Conduct::FalseAndGone => NonZeroU32::MIN,
        _ => return honest,
    };
    let pieces = held.manifest.pieces();
    let lies: Vec<u64> = (0..pieces.count())
        .step_by(at(u64::from(NonZeroU32::get(every))))
        .map(|index| pieces.range(index).start)
        .filter(|start| range.contains(start))
        .collect();
    if lies.is_empty() {
        return honest;
    }
    let mut bytes = honest.to_vec();
    for lie in lies {
        bytes[at(lie - range.start)] ^= 1;
    }
    bytes.into()
}
