//! A peer with a real identity and bad manners: it joins the network, announces true hashes, and then behaves as told.
//!
//! It is also the one to play what needs a peer that a test holds in its hand: a source of a known speed, a caller with a
//! membership, a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use p2p_content::{ContentHash, ContentHasher, Manifest};
use p2p_identity::{Identity, PeerId};
use p2p_proto::v1::peer_client::PeerClient;
use p2p_proto::v1::peer_server::PeerServer;
use p2p_proto::v1::{FileEntry, PeerInfo};
use p2p_proto::{MAX_MESSAGE_LEN, MEMBERSHIP_METADATA, v1};
use p2p_service::tasks::Tasks;
use p2p_service::wire::{Accept, Plaintext, connect, incoming, server};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

mod deeds;
mod directory;
mod service;

use deeds::Deeds;
pub use deeds::{Asked, Deed};

/// How a [`LyingPeer`] answers for what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// As it should, at a speed.
    Slow(Trickle),
    /// It takes requests for bytes, and never answers.
    Silent,
    /// It refuses all bytes, as one does whose disk is away.
    Unreadable,
    /// One byte is false in each piece whose number divides by this; 1 is all pieces.
    FalsePieces(NonZeroU32),
    /// The manifest's values are false.
    FalseManifest,
    /// It sends more than was asked.
    TooMuch,
    /// It says that it has everything, and gives nothing.
    Empty,
    /// It ends the stream after so many bytes of each request.
    Breaks(u32),
    /// All that it sends is false, and it ends the stream after each answer.
    FalseAndGone,
    /// It stands by the length that it announced, whatever its files have: in its manifest, and in what it refuses.
    FalseLength,
    /// What it tells of the pieces of its files is false.
    Tells(Untruth),
}

/// What a [`LyingPeer`] tells of the pieces that it has, beside who has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untruth {
    /// That it has all of them, one by one, and it gives none.
    Bitmap,
    /// That it gained all of them since it said that it had none, and it gives none.
    Gained,
    /// That it gained a piece that the file does not have. It gives what it is asked for.
    Beyond,
    /// That others were promised all of them. It gives what it is asked for.
    Promises,
}

/// A speed, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trickle(pub NonZeroU32);

impl Conduct {
    /// At so many bytes per second; at least one.
    pub fn slow(bytes_per_second: u32) -> Conduct {
        Conduct::Slow(Trickle(NonZeroU32::new(bytes_per_second).unwrap_or(NonZeroU32::MIN)))
    }

    /// False in each piece whose number divides by `every`.
    pub fn false_pieces(every: u32) -> Conduct {
        Conduct::FalsePieces(NonZeroU32::new(every).unwrap_or(NonZeroU32::MIN))
    }
}

/// A file for [`LyingPeer`]s, hashed once however many of them have it.
#[derive(Debug, Clone)]
pub struct HeldFile {
    /// What is told of it.
    entry: FileEntry,
    bytes: Bytes,
    manifest: Manifest,
}

impl HeldFile {
    /// A file of this name and content.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> HeldFile {
        let bytes: Bytes = bytes.into();
        let mut hasher = ContentHasher::new();
        hasher.update(&bytes);
        let (content, manifest) = hasher.finish();
        let entry = FileEntry {
            share: "shared".to_owned(),
            name: name.into(),
            content: Bytes::copy_from_slice(content.as_bytes()),
            size: bytes.len() as u64,
            modified_ms: 1_700_000_000_000,
        };
        HeldFile { entry, bytes, manifest }
    }

    /// The same, of which is told that it has so many bytes.
    #[must_use]
    pub fn told_as(mut self, len: u64) -> HeldFile {
        self.entry.size = len;
        self
    }

    /// The hash of what it holds.
    pub fn content(&self) -> ContentHash {
        self.manifest.content()
    }
}

/// What its parts share.
#[derive(Debug)]
struct Shelf {
    info: PeerInfo,
    files: BTreeMap<ContentHash, HeldFile>,
    conduct: watch::Receiver<Conduct>,
    /// The speed of whatever it does but the honest, where it began with one.
    speed: Option<Trickle>,
    deeds: Deeds,
    given: AtomicU64,
    /// Pull streams that others opened.
    streams: AtomicU64,
    /// Contents and offsets of the ranges that it gave to their ends.
    given_ranges: Mutex<BTreeSet<(Bytes, u64)>>,
    /// Whoever fetches from it and gives what it gets.
    fetchers: watch::Sender<Vec<PeerInfo>>,
}

/// A running peer of the tests' making. Ends when it is dropped.
#[derive(Debug)]
pub struct LyingPeer {
    identity: Identity,
    address: SocketAddr,
    shelf: Arc<Shelf>,
    conduct: watch::Sender<Conduct>,
    membership: Mutex<Option<Bytes>>,
    tasks: Tasks,
}

/// A client of another peer, which shows this one's membership.
pub type MemberClient = PeerClient<InterceptedService<Channel, ShowMembership>>;

/// Adds the membership to each call.
#[derive(Debug, Clone)]
pub struct ShowMembership(Option<Bytes>);

impl tonic::service::Interceptor for ShowMembership {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(membership) = &self.0 {
            request.metadata_mut().insert_bin(MEMBERSHIP_METADATA, MetadataValue::from_bytes(membership));
        }
        Ok(request)
    }
}

impl LyingPeer {
    /// Starts it with these files, on a port of its own. Nobody knows of it yet.
    ///
    /// # Errors
    /// Where it gets no port or no identity.
    pub async fn start<N: Into<String>, B: Into<Bytes>>(
        name: &str,
        conduct: Conduct,
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<LyingPeer> {
        let files = files.into_iter().map(|(name, bytes)| HeldFile::new(name, bytes));
        Self::start_holding(name, conduct, files).await
    }

    /// The same with files of which it tells that they have so many bytes.
    ///
    /// # Errors
    /// As [`start`](LyingPeer::start).
    pub async fn start_telling<N: Into<String>, B: Into<Bytes>>(
        name: &str,
        conduct: Conduct,
        files: impl IntoIterator<Item = (N, B, u64)>,
    ) -> Result<LyingPeer> {
        let files = files.into_iter().map(|(name, bytes, told)| HeldFile::new(name, bytes).told_as(told));
        Self::start_holding(name, conduct, files).await
    }

    /// The same with files that others hold too. Whoever begins [slow](Conduct::Slow) is no faster when it lies.
    ///
    /// # Errors
    /// As [`start`](LyingPeer::start).
    pub async fn start_holding(
        name: &str,
        conduct: Conduct,
        files: impl IntoIterator<Item = HeldFile>,
    ) -> Result<LyingPeer> {
        let identity = Identity::generate()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let info = PeerInfo {
            peer_id: Bytes::copy_from_slice(identity.id().as_bytes()),
            name: name.to_owned(),
            addresses: vec![address.to_string()],
            rest_url: format!("http://localhost:{}", address.port()),
            grpc_port: u32::from(address.port()),
            version: "0.0.0-test".to_owned(),
        };
        let files = files.into_iter().map(|file| (file.content(), file)).collect();
        let speed = match conduct {
            Conduct::Slow(speed) => Some(speed),
            _ => None,
        };
        let (conduct, seen) = watch::channel(conduct);
        let shelf = Arc::new(Shelf {
            info,
            files,
            conduct: seen,
            speed,
            deeds: Deeds::default(),
            given: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            given_ranges: Mutex::default(),
            fetchers: watch::Sender::default(),
        });
        let tasks = Tasks::new();
        let connections = incoming(listener, &identity, Accept::bulk(Plaintext::Off), &tasks)?;
        let service = PeerServer::new(service::Service::new(Arc::clone(&shelf), tasks.token()))
            .max_decoding_message_size(MAX_MESSAGE_LEN);
        let ended = tasks.token().cancelled_owned();
        let serving = server().add_service(service).serve_with_incoming_shutdown(connections, ended);
        tasks.spawn_detached("lying-peer", async move {
            // It serves until it is dropped; how it ends then is of no interest.
            let _ = serving.await;
        });
        Ok(LyingPeer { identity, address, shelf, conduct, membership: Mutex::new(None), tasks })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shelf.info.name
    }

    /// Its peer ID.
    pub fn id(&self) -> PeerId {
        self.identity.id()
    }

    /// `host:port` of its gRPC interface.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many bytes it gave to others, true and false ones.
    pub fn given_bytes(&self) -> u64 {
        self.shelf.given.load(Ordering::Relaxed)
    }

    /// How many streams others opened to ask it for bytes.
    pub fn streams(&self) -> u64 {
        self.shelf.streams.load(Ordering::Relaxed)
    }

    /// What others asked of it, in that order, and how it answered.
    pub fn deeds(&self) -> Vec<Deed> {
        self.shelf.deeds.all()
    }

    /// How many different ranges it gave to their ends.
    pub fn given_pieces(&self) -> usize {
        self.shelf.given_ranges.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How it answers from now on.
    pub fn behave(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// Joins the network of the maestro at `address`, and announces its files. It stays until it is dropped.
    ///
    /// # Errors
    /// Where the maestro does not admit it, or does not take its catalog.
    pub async fn join(&self, address: &str) -> Result<()> {
        let membership = directory::join(&self.identity, &self.shelf, address, &self.tasks).await?;
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = Some(membership);
        Ok(())
    }

    /// A connection to the peer `expected` at `address`, as a member where it has joined.
    ///
    /// # Errors
    /// Where it does not answer, or somebody else does.
    pub async fn call(&self, address: &str, expected: Option<PeerId>) -> Result<MemberClient> {
        let connection = connect(&self.identity, &[address.to_owned()], expected).await?;
        let membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(PeerClient::with_interceptor(connection.channel, ShowMembership(membership)))
    }

    /// Offers its file `name` to a peer under another name, and gives the last that the peer says.
    ///
    /// # Errors
    /// Where the call fails, or it has no such file.
    pub async fn offer(
        &self,
        name: &str,
        to: &mut MemberClient,
        name_there: &str,
    ) -> Result<v1::OfferUpdate> {
        let held = self.shelf.files.values().find(|held| held.entry.name == name);
        let entry = &held.with_context(|| format!("it has no {name}"))?.entry;
        let request = v1::OfferRequest {
            content: entry.content.clone(),
            size: entry.size,
            name: name_there.to_owned(),
            sender: Some(self.shelf.info.clone()),
        };
        let mut updates = to.offer(request).await?.into_inner();
        let mut last = None;
        while let Some(update) = updates.message().await? {
            last = Some(update);
        }
        last.context("the offer was answered with nothing")
    }
}

impl Drop for LyingPeer {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}
