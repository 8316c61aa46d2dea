//! The gRPC edge: `p2p.v1.Directory` in terms of the directory. Answers stay below the message limit.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::Map;
use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::v1::directory_server::Directory as Service;
use p2p_proto::v1::{
    self, CheckReachableRequest, CheckReachableResponse, FileEntry, FoundFile, ListPeersRequest,
    ListPeersResponse, LocateRequest, LocateResponse, PeerEntry, PeerInfo, SearchRequest, SearchResponse,
    SyncRequest, SyncResponse, locate_request,
};
use p2p_service::passage::{AnswerRoom, Incoming, Known, MessageRoom};
use p2p_service::tasks::Tasks;
use p2p_service::wire::Caller;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::{self, Shown};
use crate::directory::{
    Candidate, Directory, DirectoryError, FileRecord, ListedPeer, NamePosition, Page, PeerKey, PeerRecord,
    Search, Through, Wanted, Which, cursor,
};
use crate::presence::now_ms;
use crate::reach::Reach;
use crate::sync::{self, Answer, SyncContext, status_of};

#[cfg(test)]
mod tests;

/// Sources per candidate where the caller does not say.
const DEFAULT_SOURCES: usize = 100;
/// Sources per candidate at the most.
const MAX_SOURCES: usize = 1000;
/// Items of a page where the caller does not say.
const DEFAULT_PAGE: usize = 1000;
/// Items of a page at the most.
const MAX_PAGE: usize = 10_000;
/// Peers that are drawn at once, at the most.
const MAX_DRAWN: usize = 256;
/// Bytes of items in one answer, at the most: below the message limit, with room for what is around them.
const MAX_ITEMS_BYTES: usize = p2p_proto::MAX_MESSAGE_LEN - 64 * 1024;
/// Bytes of long answers that are held at once.
const ANSWERS: usize = 48 << 20;
/// The call of the Sync stream.
const SYNC: &str = "/p2p.v1.Directory/Sync";
/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The service.
pub(crate) struct DirectoryService {
    context: SyncContext,
    tasks: Tasks,
    reach: Reach,
    room: AnswerRoom,
}

impl DirectoryService {
    pub(crate) fn new(context: SyncContext, tasks: Tasks) -> DirectoryService {
        DirectoryService { context, tasks, reach: Reach::new(), room: AnswerRoom::new(ANSWERS) }
    }

    /// Names of files are for the network alone, so who asks must be one who may come in.
    async fn check_caller<T>(&self, request: &Request<T>) -> Result<PeerId, Status> {
        let caller = caller_of(request)?;
        let peer = caller.peer.ok_or_else(|| Status::unauthenticated("connect with TLS"))?;
        let known = self.context.directory.is_admitted(peer).await.map_err(status_of)?;
        let policy = self.context.settings.borrow().admission.policy;
        admission::decide(policy, caller.address.ip(), known, Shown::Nothing)
            .map(|_| peer)
            .map_err(|refusal| Status::permission_denied(refusal.to_string()))
    }
}

#[tonic::async_trait]
impl Service for DirectoryService {
    type SyncStream = Map<ReceiverStream<Answer>, fn(Answer) -> Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let caller = caller_of(&request)?;
        let known = request.extensions().get::<Known>().cloned().unwrap_or_default();
        let (answers, stream) = mpsc::channel(sync::ANSWERS);
        // Answered before the Hello has come: a client may wait for the answer before it says anything.
        let serve = sync::serve(self.context.clone(), caller, known, request.into_inner(), answers);
        self.tasks.spawn_detached("sync-stream", serve);
        let unboxed: fn(Answer) -> _ = |answer| *answer;
        Ok(Response::new(ReceiverStream::new(stream).map(unboxed)))
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateResponse>, Status> {
        self.context.metrics.asked("Locate");
        let peer = self.check_caller(&request).await?;
        let LocateRequest { query, limit } = request.into_inner();
        let wanted = match query {
            None => return Err(Status::invalid_argument("ask for a name or a content")),
            Some(locate_request::Query::Name(name)) => Wanted::Name(name),
            Some(locate_request::Query::Content(bytes)) => {
                let content = ContentHash::try_from(&*bytes);
                Wanted::Content(content.map_err(|error| Status::invalid_argument(error.to_string()))?)
            }
        };
        let limit = bounded(limit, DEFAULT_SOURCES, MAX_SOURCES);
        let found = in_time(self.context.directory.locate(wanted, limit)).await?;
        self.room.answer(peer, LocateResponse { candidates: fit_candidates(found) })
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        self.context.metrics.asked("Search");
        let peer = self.check_caller(&request).await?;
        let SearchRequest { prefix, text, peer_id, limit, cursor, peer_url } = request.into_inner();
        let of = match (peer_id.is_empty(), peer_url.is_empty()) {
            (true, true) => None,
            (true, false) => Some(PeerKey::Plain(peer_url)),
            (false, true) => Some(PeerKey::Synced(peer_id_of(&peer_id)?)),
            (false, false) => return Err(Status::invalid_argument("give peer_id or peer_url, not both")),
        };
        let after = decoded(&cursor, cursor::decode_name)?;
        let limit = bounded(limit, DEFAULT_PAGE, MAX_PAGE);
        let search = Search { prefix, text, peer: of };
        let page = in_time(self.context.directory.search(search, after, limit)).await?;
        let items = page.items.into_iter().map(|found| {
            let position =
                NamePosition { name: found.file.name.clone(), through: Through::Content(found.file.content) };
            (FoundFile { file: Some(entry_of(found.file)), sources: found.sources }, position)
        });
        let (files, next) = fit(items, page.next);
        let next = next.as_ref().map(cursor::encode_name).unwrap_or_default();
        self.room.answer(peer, SearchResponse { files, next })
    }

    async fn list_peers(
        &self,
        request: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        self.context.metrics.asked("ListPeers");
        let peer = self.check_caller(&request).await?;
        let ListPeersRequest { limit, cursor, drawn } = request.into_inner();
        let after = decoded(&cursor, cursor::decode_peer)?;
        let limit = bounded(limit, DEFAULT_PAGE, MAX_PAGE);
        let directory = &*self.context.directory;
        let page = match drawn {
            true => in_time(draw(directory, limit.min(MAX_DRAWN))).await?,
            false => in_time(directory.peers(Which::All, 0, after, limit)).await?,
        };
        let ids = page.items.iter().filter_map(|listed| match &listed.peer.key {
            PeerKey::Synced(id) => Some(*id),
            PeerKey::Plain(_) => None,
        });
        let connected = self.context.presence.connected(ids.collect()).await;
        let connected = connected.map_err(|stopping| Status::unavailable(stopping.to_string()))?;
        let now_ms = now_ms();
        let items = page.items.into_iter().map(|listed| {
            let PeerRecord { key, visible: online, files, bytes, last_seen_ms, .. } = &listed.peer;
            // Of a peer whose stream is open the maestro hears all the time.
            let heard_now = matches!(key, PeerKey::Synced(id) if connected.binary_search(id).is_ok());
            let (online, files, bytes) = (*online, *files, *bytes);
            let last_seen_ms = if heard_now { now_ms } else { *last_seen_ms };
            let position = key.clone();
            (PeerEntry { peer: Some(info_of(listed.peer)), online, files, bytes, last_seen_ms }, position)
        });
        let (peers, next) = fit(items, page.next);
        let next = next.as_ref().map(cursor::encode_peer).unwrap_or_default();
        self.room.answer(peer, ListPeersResponse { peers, next })
    }

    async fn check_reachable(
        &self,
        request: Request<CheckReachableRequest>,
    ) -> Result<Response<CheckReachableResponse>, Status> {
        self.context.metrics.asked("CheckReachable");
        let peer = self.check_caller(&request).await?;
        let caller = caller_of(&request)?;
        let connected = self.context.presence.connected(vec![peer]).await;
        if connected.map_err(|stopping| Status::unavailable(stopping.to_string()))?.is_empty() {
            return Err(Status::failed_precondition("only a peer whose Sync stream is open may ask this"));
        }
        let CheckReachableRequest { addresses, grpc_port } = request.into_inner();
        let port = u16::try_from(grpc_port).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| Status::invalid_argument(format!("{grpc_port} is not a port")))?;
        let identity = &self.context.identity;
        let checks = self.reach.check(identity, peer, caller.address, &addresses, port).await;
        Ok(Response::new(CheckReachableResponse {
            checks,
            seen: caller.address.ip().to_canonical().to_string(),
            now_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}

/// Peers with an identity that are here, from somewhere in the order of IDs on: IDs are as if drawn at random themselves.
async fn draw(directory: &dyn Directory, limit: usize) -> Result<Page<ListedPeer, PeerKey>, DirectoryError> {
    let from = PeerKey::Synced(PeerId::from_bytes(rand::random()));
    let mut page = directory.peers(Which::Visible, 0, Some(from.clone()), limit).await?;
    page.items.retain(|listed| listed.peer.key.id().is_some());
    if page.items.len() < limit {
        // Once around.
        let before = directory.peers(Which::Visible, 0, None, limit - page.items.len()).await?;
        page.items.extend(before.items.into_iter().take_while(|listed| listed.peer.key <= from));
    }
    Ok(Page { next: None, ..page })
}

fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().copied();
    caller.ok_or_else(|| Status::internal("the connection does not say who calls"))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, DirectoryError>>) -> Result<T, Status> {
    match timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(status_of),
        Err(_) => Err(Status::unavailable("the maestro is too busy to answer in time; try again later")),
    }
}

fn bounded(asked: u32, default: usize, max: usize) -> usize {
    match usize::try_from(asked).unwrap_or(max) {
        0 => default,
        asked => asked.min(max),
    }
}

fn decoded<P>(
    text: &str,
    decode: impl FnOnce(&str) -> Result<P, cursor::InvalidCursor>,
) -> Result<Option<P>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    decode(text).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn peer_id_of(bytes: &[u8]) -> Result<PeerId, Status> {
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| {
        Status::invalid_argument(format!("a peer ID has 32 bytes, and this has {}", bytes.len()))
    })?;
    Ok(PeerId::from_bytes(bytes))
}

/// As many items as one message takes, and where the next page begins.
fn fit<T: prost::Message, P>(items: impl Iterator<Item = (T, P)>, next: Option<P>) -> (Vec<T>, Option<P>) {
    let (mut taken, mut bytes, mut last) = (Vec::new(), 0, None);
    for (item, position) in items {
        // With room for the tag and the length before each item.
        bytes += item.encoded_len() + 8;
        if bytes > MAX_ITEMS_BYTES && !taken.is_empty() {
            return (taken, last);
        }
        taken.push(item);
        last = Some(position);
    }
    (taken, next)
}

/// The candidates with as many sources as one message takes: each in turn gets one more.
fn fit_candidates(found: Vec<Candidate>) -> Vec<v1::Candidate> {
    let mut bytes = 0;
    let mut candidates = Vec::with_capacity(found.len());
    let mut waiting = Vec::with_capacity(found.len());
    for Candidate { file, sources } in found {
        let candidate = v1::Candidate { file: Some(entry_of(file)), sources: Vec::new() };
        bytes += prost::Message::encoded_len(&candidate) + 16;
        waiting.push(sources.into_iter());
        candidates.push(candidate);
    }
    loop {
        let mut more = false;
        for (candidate, sources) in candidates.iter_mut().zip(&mut waiting) {
            let Some(source) = sources.next() else { continue };
            let info = info_of(source);
            bytes += prost::Message::encoded_len(&info) + 8;
            if bytes > MAX_ITEMS_BYTES {
                return candidates;
            }
            candidate.sources.push(info);
            more = true;
        }
        if !more {
            return candidates;
        }
    }
}

fn entry_of(file: FileRecord) -> FileEntry {
    FileEntry {
        share: file.share,
        name: file.name,
        content: file.content.map_or_else(Default::default, |hash| hash.as_bytes().to_vec().into()),
        size: file.size,
        modified_ms: file.modified_ms,
    }
}

fn info_of(record: PeerRecord) -> PeerInfo {
    let peer_id = match record.key {
        PeerKey::Synced(id) => id.as_bytes().to_vec().into(),
        PeerKey::Plain(_) => Default::default(),
    };
    let profile = record.profile;
    PeerInfo {
        peer_id,
        name: profile.name,
        addresses: profile.addresses,
        rest_url: profile.rest_url,
        grpc_port: profile.grpc_port.into(),
        version: profile.version,
    }
}

/// The server half, with the limits that hold for every message.
pub(crate) fn server(service: DirectoryService) -> v1::directory_server::DirectoryServer<DirectoryService> {
    v1::directory_server::DirectoryServer::from_arc(Arc::new(service))
        .max_decoding_message_size(p2p_proto::MAX_MESSAGE_LEN)
        .max_encoding_message_size(p2p_proto::MAX_MESSAGE_LEN)
}

/// A call, whose messages come in one after the other. Only a catalog needs long ones, of a peer that was let in.
pub(crate) fn held_in(room: &MessageRoom, mut request: http::Request<Body>) -> http::Request<Body> {
    if request.uri().path() != SYNC {
        return request.map(|body| Body::new(Incoming::short(body, room)));
    }
    let known = Known::default();
    request.extensions_mut().insert(known.clone());
    request.map(|body| Body::new(Incoming::of_known(body, known, room)))
}
