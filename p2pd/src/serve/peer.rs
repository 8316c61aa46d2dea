//! The `p2p.v1.Peer` service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::v1::peer_server::Peer;
use p2p_proto::v1::{
    AvailabilityRequest, AvailabilityUpdate, BrowseRequest, BrowseResponse, DescribeRequest,
    DescribeResponse, FriendQuery, LocateResponse, ManifestRequest, ManifestResponse, OfferRequest,
    OfferUpdate, PullRequest, PullResponse,
};
use p2p_service::tasks::Tasks;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::{Admission, Guest};
use super::availability;
use super::contents::Contents;
use super::offer::Offers;
use super::pull;
use crate::catalog::{ListQuery, Viewer};
use crate::discovery::{Answerer, Members, Myself, PeerRef, entry};

/// Files in one answer to Browse: without a limit, and at the most. With names of the longest kind the message stays
/// below its limit.
const BROWSE_DEFAULT: u32 = 500;
const BROWSE_MAX: u32 = 2000;
/// Pull streams that are served at once; each has a thread that reads for it.
const PULLS: usize = 128;
/// Of them, those of one peer: no peer takes all.
const PULLS_PER_PEER: usize = 8;
/// Availability streams that are served at once, and those of one peer.
const FOLLOWERS: usize = 4096;
const FOLLOWERS_PER_PEER: usize = 64;
/// What waits for the network, per stream of an offer.
const AHEAD: usize = 4;

/// The service.
pub struct PeerService {
    admission: Admission,
    answerer: Answerer,
    contents: Contents,
    offers: Offers,
    myself: Arc<Myself>,
    members: Members,
    pulls: Arc<Semaphore>,
    places: Places,
    followers: Arc<Semaphore>,
    follower_places: Places,
    tasks: Tasks,
}

impl PeerService {
    /// Over these.
    pub fn new(
        admission: Admission,
        answerer: Answerer,
        contents: Contents,
        offers: Offers,
        myself: Arc<Myself>,
        members: Members,
        tasks: Tasks,
    ) -> Self {
        Self {
            admission,
            answerer,
            contents,
            offers,
            myself,
            members,
            pulls: Arc::new(Semaphore::new(PULLS)),
            places: Places::of(PULLS_PER_PEER),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            follower_places: Places::of(FOLLOWERS_PER_PEER),
            tasks,
        }
    }
}

impl PeerService {
    /// The answers, framed, to the requests of a Pull stream.
    ///
    /// # Errors
    /// Where too many are served already.
    pub(super) fn answer_pull(
        &self,
        request: Request<Streaming<PullRequest>>,
    ) -> Result<ReceiverStream<Result<Bytes, Status>>, Status> {
        let guest = Guest::of(&request)?;
        let permit = Arc::clone(&self.pulls).try_acquire_owned().map_err(|_| busy())?;
        let place = self.places.enter(guest.id).ok_or_else(busy)?;
        let (answers, stream) = mpsc::channel(pull::AHEAD);
        let (contents, admission, token) =
            (self.contents.clone(), self.admission.clone(), self.tasks.token());
        self.tasks.spawn_detached("pull", async move {
            let told = answers.clone();
            tokio::select! {
                () = pull::serve(contents, admission, guest, request.into_inner(), answers) => {}
                () = token.cancelled() => {
                    // What the caller still waits for it asks of others.
                    let _ = told.try_send(Err(Status::unavailable("this peer stops")));
                }
            }
            drop((permit, place));
        });
        Ok(ReceiverStream::new(stream))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let guest = Guest::of(&request)?;
        // How much there is in all is for those who may see all.
        let totals = match guest.viewer {
            Viewer::Network => Default::default(),
            _ => self.contents.catalog().totals().await.map_err(internal)?,
        };
        let peer = Some(self.myself.to_wire());
        Ok(Response::new(DescribeResponse { peer, files: totals.files, bytes: totals.bytes }))
    }

    async fn locate(&self, request: Request<FriendQuery>) -> Result<Response<LocateResponse>, Status> {
        let guest = Guest::of(&request)?;
        self.answerer.answer(request.into_inner(), guest.id, guest.viewer).await.map(Response::new)
    }

    async fn browse(&self, request: Request<BrowseRequest>) -> Result<Response<BrowseResponse>, Status> {
        let guest = Guest::of(&request)?;
        let BrowseRequest { prefix, text, limit, cursor } = request.into_inner();
        let after = match cursor.as_str() {
            "" => None,
            // NUL stands in no name.
            cursor => Some(
                cursor
                    .split_once('\0')
                    .map(|(name, share)| (name.to_owned(), share.to_owned()))
                    .ok_or_else(|| Status::invalid_argument("not a cursor of this listing"))?,
            ),
        };
        let limit = if limit == 0 { BROWSE_DEFAULT } else { limit.min(BROWSE_MAX) };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let query = ListQuery {
            prefix: some(prefix),
            text: some(text),
            share: None,
            viewer: guest.viewer,
            after,
            limit: limit + 1,
        };
        let mut facts = self.contents.catalog().list(query).await.map_err(internal)?;
        let more = facts.len() > limit as usize;
        facts.truncate(limit as usize);
        let next = facts.last().filter(|_| more).map(|fact| format!("{}\0{}", fact.name, fact.share));
        let files = facts.iter().map(entry).collect();
        self.contents.answers().answer(guest.id, BrowseResponse { files, next: next.unwrap_or_default() })
    }

    async fn get_manifest(
        &self,
        request: Request<ManifestRequest>,
    ) -> Result<Response<ManifestResponse>, Status> {
        let guest = Guest::of(&request)?;
        let content = ContentHash::try_from(request.into_inner().content.as_ref())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let manifest = self.contents.manifest(content, guest.viewer, guest.id).await?;
        // Who has not got the end yet can prove the pieces all the same.
        let ending = self.contents.ending(&manifest, &guest).await.unwrap_or_default().into();
        let (size, values) = (manifest.pieces().len(), manifest.to_bytes().into());
        self.contents.answers().answer(guest.id, ManifestResponse { size, values, ending })
    }

    type AvailabilityStream = ReceiverStream<Result<AvailabilityUpdate, Status>>;

    async fn availability(
        &self,
        request: Request<AvailabilityRequest>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let guest = Guest::of(&request)?;
        let permit = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| busy())?;
        let place = self.follower_places.enter(guest.id).ok_or_else(busy)?;
        let request = request.into_inner();
        let fetcher = request.fetcher.clone().and_then(PeerRef::from_wire);
        let follower = availability::follow(&self.contents, &guest, request).await?;
        // Who fetches from this peer is one to ask while the maestro is down.
        if let Some(fetcher) = fetcher.filter(|_| !guest.memberships.is_empty()) {
            self.members.dealt_with(&fetcher);
        }
        let (updates, stream) = mpsc::channel(availability::AHEAD);
        let (contents, admission, token) =
            (self.contents.clone(), self.admission.clone(), self.tasks.token());
        self.tasks.spawn_detached("availability", async move {
            tokio::select! {
                () = availability::tell(follower, contents, admission, guest, updates) => {}
                () = token.cancelled() => {}
            }
            drop((permit, place));
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type PullStream = ReceiverStream<Result<PullResponse, Status>>;

    /// Never called: [`Bulk`](super::bulk::Bulk) stands before this service, and answers the call without copying.
    async fn pull(&self, _: Request<Streaming<PullRequest>>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::internal("the call was not answered where it should be"))
    }

    type OfferStream = ReceiverStream<Result<OfferUpdate, Status>>;

    async fn offer(&self, request: Request<OfferRequest>) -> Result<Response<Self::OfferStream>, Status> {
        let guest = Guest::of(&request)?;
        let (updates, stream) = mpsc::channel(AHEAD);
        let (offers, offer, token) = (self.offers.clone(), request.into_inner(), self.tasks.token());
        self.tasks.spawn_detached("offer", async move {
            let failed = updates.clone();
            tokio::select! {
                taken = offers.take(guest, offer, updates) => if let Err(status) = taken {
                    // The caller has gone.
                    let _ = failed.send(Err(status)).await;
                },
                () = token.cancelled() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn busy() -> Status {
    Status::resource_exhausted("this peer serves as many others as it can; try again")
}

fn internal(error: crate::catalog::CatalogError) -> Status {
    tracing::error!(%error, "another peer's call failed: {error}; look at the disk of the state directory");
    Status::internal("the catalog failed; this peer's log knows more")
}

/// How many streams of a kind each peer has.
#[derive(Clone)]
struct Places {
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
    limit: usize,
}

/// One stream of a peer, until it is dropped.
struct Entered(Places, PeerId);

impl Places {
    fn of(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    fn enter(&self, id: PeerId) -> Option<Entered> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(id).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Entered(self.clone(), id))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.1);
            }
        }
    }
}
