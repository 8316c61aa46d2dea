//! One answer to "who has it" and "who is there", from all who can be asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use p2p_content::ContentHash;
use p2p_proto::control::{Origin, PeerName, PeerRow, Relation};
use p2p_proto::v1;
use p2p_proto::v1::directory_client::DirectoryClient;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::ask::{ASK_TIMEOUT, ask_all, question};
use super::maestros::{Silence, together};
use super::members::Remembered;
use super::merge::{FindPeerError, merge, pick};
use super::paging::{NetworkPage, Place};
use super::{
    Candidate, Connections, FoundFile, Friends, Located, Maestros, Members, Myself, Page, PageQuery, PeerRef,
    Query, Source, Teller,
};
use crate::catalog::{Catalog, CatalogError, Viewer};

/// How long one peer may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question waits, right after the start, for the maestro to be there: transfers that go on by themselves would
/// else find nobody, and wait a while before they ask again.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often friends may pass a question on.
const HOPS: u32 = 1;
/// How many peers are asked for their files where there is no maestro to ask.
const BROWSED: usize = 16;
/// Sources that are asked for, per content.
const SOURCES: u32 = 64;

/// Finds files and peers. Clones are handles to the same.
#[derive(Clone)]
pub struct Locator {
    myself: Arc<Myself>,
    catalog: Catalog,
    maestros: Maestros,
    friends: Friends,
    members: Members,
    connections: Connections,
}

/// Why somebody's files cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error("{0} cannot be asked: {1}")]
    Unreachable(String, String),
    /// It does not want to.
    #[error("{0} refused: {1}")]
    Refused(String, String),
    /// The cursor is of another listing.
    #[error("this is not a cursor of this listing: {0}")]
    BadCursor(String),
    /// There is no maestro, and nobody else can be reached.
    #[error("no network is joined, and no friend can be reached")]
    NoMaestro,
    /// The own catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Locator {
    /// Asks these.
    pub fn new(
        myself: Arc<Myself>,
        catalog: Catalog,
        maestros: Maestros,
        friends: Friends,
        members: Members,
        connections: Connections,
    ) -> Self {
        Self { myself, catalog, maestros, friends, members, connections }
    }

    /// Own catalog and maestros; then friends, where the maestros have nothing, and remembered members, where they are down.
    pub async fn locate(&self, query: &Query) -> Located {
        self.locate_of_use(query, |_| true).await
    }

    /// The same where only some can be of use: others are asked too where the maestros know of none of them.
    pub async fn locate_of_use(&self, query: &Query, is_of_use: impl Fn(&PeerRef) -> bool) -> Located {
        let mut found = self.own(query).await;
        let (asked, mut incomplete) = self.ask_maestros(query).await;
        let mut sources = asked.iter().flat_map(|candidate| &candidate.sources);
        let nobody = !sources.any(|source| is_of_use(&source.peer));
        found.extend(asked);
        if nobody {
            // Of members, a maestro that answers knows what they have.
            let peers = if incomplete.is_some() { self.reachable() } else { self.asked_friends() };
            let (more, silent) = self.ask_peers(&peers, query).await;
            found.extend(more);
            if let Some(why) = &mut incomplete
                && silent > 0
            {
                why.push_str(&format!("; {silent} friends and members do not answer either"));
            }
        }
        Located { candidates: merge(found), incomplete }
    }

    /// Who else has it: maestros and friends together, whatever either of them knows; members where neither does. Where there
    /// are friends that do not answer, it takes as long as they may.
    pub async fn locate_more(&self, query: &Query) -> Located {
        let friends = self.asked_friends();
        let (maestros, friends) = tokio::join!(self.locate(query), self.ask_peers(&friends, query));
        let found = maestros.candidates.into_iter().chain(friends.0);
        Located { candidates: merge(found.collect()), incomplete: maestros.incomplete }
    }

    /// In the order of the first system: this peer; otherwise its friends; otherwise the maestro.
    pub async fn locate_seed_order(&self, query: &Query) -> Located {
        let own = self.own(query).await;
        if !own.is_empty() {
            return Located { candidates: merge(own), incomplete: None };
        }
        let friends = self.asked_friends();
        let (found, _) = ask_all(&self.connections, &friends, &question(query, HOPS), ASK_TIMEOUT).await;
        if !found.is_empty() {
            return Located { candidates: merge(found), incomplete: None };
        }
        self.locate(query).await
    }

    /// What one peer has of it.
    pub async fn locate_at(&self, peer: &PeerRef, query: &Query) -> Located {
        if matches!(peer, PeerRef::Plain { .. }) {
            let mut located = self.locate(query).await;
            located.candidates.retain_mut(|candidate| {
                candidate.sources.retain(|source| source.peer.rest_url() == peer.rest_url());
                !candidate.sources.is_empty()
            });
            return located;
        }
        let asked = [asked_now(peer.clone())];
        let (mut found, silent) =
            ask_all(&self.connections, &asked, &question(query, 0), ANSWER_TIMEOUT).await;
        for candidate in &mut found {
            candidate.sources = vec![Source { peer: peer.clone(), teller: asked[0].1.clone() }];
        }
        let incomplete = (silent > 0).then(|| format!("{peer} does not answer"));
        Located { candidates: merge(found), incomplete }
    }

    /// Files of the whole network, as the maestros know them; without any, of the peers that can be reached.
    pub async fn browse_network(&self, query: &PageQuery) -> Result<Page, AskError> {
        let bad_cursor = || AskError::BadCursor("the networks were others then".to_owned());
        let asked = self.maestros.networks();
        let place = match asked.len() {
            0 | 1 => None,
            _ => Some(Place::of(&query.cursor).ok_or_else(bad_cursor)?),
        };
        let pages = asked.iter().enumerate().filter_map(|(network, asked)| {
            let cursor = place.as_ref().map_or(Some(query.cursor.clone()), |place| place.cursor(network))?;
            let request = v1::SearchRequest {
                prefix: query.prefix.clone(),
                text: query.text.clone(),
                limit: query.limit,
                cursor,
                ..Default::default()
            };
            let told = asked.ask(move |mut directory: DirectoryClient<Channel>| {
                let request = request.clone();
                async move { directory.search(request).await.map(tonic::Response::into_inner) }
            });
            Some(async move { (network, told.await.answer) })
        });
        let (mut pages, mut silent) = (join_all(pages).await, Vec::new());
        let mut told = Vec::new();
        for (network, answer) in pages.drain(..) {
            match answer {
                Ok(answer) => {
                    let Page { files, next, .. } = page(answer.files, answer.next);
                    told.push(NetworkPage { network, files, next });
                }
                Err(Silence::Failed(status)) if status.code() == tonic::Code::InvalidArgument => {
                    return Err(AskError::BadCursor(status.message().to_owned()));
                }
                Err(silence) => silent.push(silence),
            }
        }
        let incomplete = together(&silent);
        if told.is_empty() && (incomplete.is_some() || asked.is_empty()) {
            return self
                .browse_reachable(query, incomplete.unwrap_or_else(|| "no network is joined".to_owned()))
                .await;
        }
        Ok(match place {
            None => {
                let only = told.pop().map(|page| (page.files, page.next)).unwrap_or_default();
                Page { files: only.0, next: only.1, incomplete }
            }
            Some(place) => {
                let (files, next) = place.advance(told, query.limit as usize);
                Page { files, next: next.map(|place| place.to_cursor()), incomplete }
            }
        })
    }

    /// Files of one other peer.
    pub async fn browse_peer(&self, peer: &PeerRef, query: &PageQuery) -> Result<Page, AskError> {
        if let PeerRef::Plain { rest_url, .. } = peer {
            return self.browse_plain(rest_url, query).await;
        }
        let unreachable = |why: String| AskError::Unreachable(peer.to_string(), why);
        let mut client = self.connections.peer(peer).await.map_err(|error| unreachable(error.to_string()))?;
        let request = v1::BrowseRequest {
            prefix: query.prefix.clone(),
            text: query.text.clone(),
            limit: query.limit,
            cursor: query.cursor.clone(),
        };
        match answered(timeout(ANSWER_TIMEOUT, client.browse(request)).await) {
            Ok(answer) => {
                let files = answer.files.into_iter();
                Ok(page(
                    files.map(|file| v1::FoundFile { file: Some(file), sources: 1 }).collect(),
                    answer.next,
                ))
            }
            Err(status) => {
                if let Some(id) = peer.id() {
                    self.connections.note(id, &status);
                }
                Err(match status.code() {
                    tonic::Code::InvalidArgument => AskError::BadCursor(status.message().to_owned()),
                    tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                        AskError::Refused(peer.to_string(), status.message().to_owned())
                    }
                    _ => unreachable(status.message().to_owned()),
                })
            }
        }
    }

    /// The peer of this name, ID or its beginning, or plain peer's URL.
    pub async fn find_peer(&self, text: &str) -> Result<PeerRef, FindPeerError> {
        let mut known = self.friends.peers();
        known.extend(self.members.list());
        let (listed, incomplete) = self.maestros.list_peers().await;
        known.extend(listed.into_iter().flatten().filter_map(|entry| PeerRef::from_wire(entry.peer?)));
        pick(text, known).map_err(|error| match (error, incomplete) {
            (FindPeerError::Unknown(text), Some(why)) => FindPeerError::Unasked { text, why },
            (error, _) => error,
        })
    }

    /// This peer, then members, friends and plain peers by name; and who could not be asked.
    pub async fn peers(&self) -> (Vec<PeerRow>, Option<String>) {
        let (listed, incomplete) = self.maestros.list_peers().await;
        let listed = listed.into_iter().flatten().filter_map(|entry| {
            let version = entry.peer.as_ref().map(|peer| peer.version.clone());
            let peer = PeerRef::from_wire(entry.peer?)?;
            Some(PeerRow {
                online: Some(entry.online),
                files: Some(entry.files),
                bytes: peer.id().map(|_| entry.bytes),
                version: version.filter(|version| !version.is_empty()),
                ..row(&peer)
            })
        });
        // A peer that two networks know is one: by its ID, or by the URL of one that has none.
        let which = |row: &PeerRow| match &row.peer.peer_id {
            Some(id) => (Some(id.clone()), None),
            None => (None, row.rest.clone()),
        };
        let mut rows: HashMap<_, PeerRow> = HashMap::new();
        for row in listed {
            match rows.entry(which(&row)) {
                // It is online where one of them sees it.
                Entry::Occupied(mut known) if known.get().online == Some(false) => drop(known.insert(row)),
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => drop(place.insert(row)),
            }
        }
        // Without the maestro, what is remembered; whether they are online nobody knows.
        let mut known = self.friends.peers();
        if incomplete.is_some() {
            known.extend(self.members.list());
        }
        for peer in known {
            let fresh = row(&peer);
            rows.entry(which(&fresh)).or_insert(fresh);
        }
        rows.remove(&(Some(self.myself.id.to_string()), None));
        for friend in self.friends.list() {
            if let Some(row) = rows.get_mut(&(Some(friend.peer_id), None)) {
                row.relation = Relation::Friend;
            }
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| {
            (&a.peer.name, &a.peer.peer_id, &a.rest).cmp(&(&b.peer.name, &b.peer.peer_id, &b.rest))
        });
        let totals = self.catalog.totals().await.ok();
        let own = PeerRow {
            relation: Relation::Own,
            online: Some(true),
            files: totals.map(|totals| totals.files),
            bytes: totals.map(|totals| totals.bytes),
            version: Some(Myself::VERSION.to_owned()),
            ..row(&self.myself.to_ref())
        };
        rows.insert(0, own);
        (rows, incomplete)
    }

    async fn own(&self, query: &Query) -> Vec<Candidate> {
        let found = match query {
            Query::Name(name) => self.catalog.find_name(name.as_str(), Viewer::Own).await,
            Query::Content(content) => self.catalog.find_content(*content, Viewer::Own).await,
        };
        let facts = found.unwrap_or_else(|error| {
            tracing::error!(%error, "the catalog cannot be asked: {error}; look at the disk of the state directory");
            Vec::new()
        });
        let own = |fact: crate::catalog::Fact| Candidate {
            modified_ms: Some(fact.modified_ms()),
            name: fact.name,
            content: Some(fact.content),
            size: Some(fact.size),
            sources: vec![Source { peer: self.myself.to_ref(), teller: Teller::own() }],
        };
        facts.into_iter().map(own).collect()
    }

    async fn ask_maestros(&self, query: &Query) -> (Vec<Candidate>, Option<String>) {
        self.maestros.first_contact(CONTACT_TIMEOUT).await;
        let query = match query {
            Query::Name(name) => v1::locate_request::Query::Name(name.to_string()),
            Query::Content(content) => v1::locate_request::Query::Content(content.as_bytes().to_vec().into()),
        };
        let request = v1::LocateRequest { query: Some(query), limit: SOURCES };
        let told = self.maestros.ask(|mut directory: DirectoryClient<Channel>| {
            let request = request.clone();
            async move { directory.locate(request).await.map(tonic::Response::into_inner) }
        });
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for told in told.await {
            let teller = Teller::maestro(told.by);
            match told.answer {
                Ok(answer) => found.extend(
                    answer
                        .candidates
                        .into_iter()
                        .filter_map(|candidate| Candidate::from_wire(candidate, &teller)),
                ),
                Err(silence) => silent.push(silence),
            }
        }
        for candidate in &mut found {
            candidate.sources.retain(|source| source.peer.id() != Some(self.myself.id));
        }
        (found, together(&silent))
    }

    fn asked_friends(&self) -> Vec<(PeerRef, Teller)> {
        self.friends.peers().into_iter().map(asked_now).collect()
    }

    /// What these peers know, and how many do not answer.
    async fn ask_peers(&self, peers: &[(PeerRef, Teller)], query: &Query) -> (Vec<Candidate>, usize) {
        let (mut found, silent) =
            ask_all(&self.connections, peers, &question(query, HOPS), ASK_TIMEOUT).await;
        for candidate in &mut found {
            candidate.sources.retain(|source| source.peer.id() != Some(self.myself.id));
        }
        found.retain(|candidate| !candidate.sources.is_empty());
        (found, silent)
    }

    /// Whom this peer can ask without a maestro: friends, then remembered members.
    fn reachable(&self) -> Vec<(PeerRef, Teller)> {
        let friends = self.friends.peers();
        let known: Vec<_> = friends.iter().filter_map(PeerRef::id).collect();
        let members = self.members.remembered();
        let members =
            members.into_iter().filter(|member| member.peer.id().is_none_or(|id| !known.contains(&id)));
        let remembered = members.map(|Remembered { peer, told, .. }| {
            let (name, told_ms) = told.map(|told| (told.told_by, told.told_ms)).unzip();
            (peer, Teller { origin: Origin::Cache, name, told_ms })
        });
        friends.into_iter().map(asked_now).chain(remembered).collect()
    }

    /// Whether there is a network, whose maestros can be asked.
    pub fn is_in_network(&self) -> bool {
        !self.maestros.networks().is_empty()
    }

    /// Friends that can be asked for their files, of which the maestro may not know all; not all of many.
    pub fn friends(&self) -> Vec<PeerRef> {
        self.friends.peers().into_iter().take(BROWSED).collect()
    }

    /// Peers that can be asked for their files where the maestro cannot: friends, then remembered members; not all of many.
    pub fn others(&self) -> Vec<PeerRef> {
        self.reachable().into_iter().take(BROWSED).map(|(peer, _)| peer).collect()
    }

    async fn browse_reachable(&self, query: &PageQuery, why: String) -> Result<Page, AskError> {
        let reachable = self.reachable();
        if reachable.is_empty() && !self.maestros.is_any() {
            return Err(AskError::NoMaestro);
        }
        let pages = reachable.iter().take(BROWSED).map(|(peer, _)| self.browse_peer(peer, query));
        let pages = join_all(pages).await;
        let asked = pages.iter().filter(|page| page.is_ok()).count();
        let mut files: HashMap<(String, Option<ContentHash>), FoundFile> = HashMap::new();
        for file in pages.into_iter().flatten().flat_map(|page| page.files) {
            let key = (file.name.to_string(), file.content);
            files.entry(key).and_modify(|known| known.sources += 1).or_insert(file);
        }
        let mut files: Vec<_> = files.into_values().collect();
        files.sort_by(|a, b| (&a.name, a.content).cmp(&(&b.name, b.content)));
        files.truncate(query.limit as usize);
        let incomplete = Some(format!("{why}; this is what {asked} peers that can be reached have"));
        Ok(Page { files, next: None, incomplete })
    }

    async fn browse_plain(&self, url: &str, query: &PageQuery) -> Result<Page, AskError> {
        let request = v1::SearchRequest {
            prefix: query.prefix.clone(),
            text: query.text.clone(),
            limit: query.limit,
            cursor: query.cursor.clone(),
            peer_url: url.to_owned(),
            ..Default::default()
        };
        let told = self.maestros.ask(|mut directory: DirectoryClient<Channel>| {
            let request = request.clone();
            async move { directory.search(request).await.map(tonic::Response::into_inner) }
        });
        let (mut pages, mut silent) = (Vec::new(), Vec::new());
        for told in told.await {
            match told.answer {
                Ok(answer) => pages.push(page(answer.files, answer.next)),
                Err(silence) => silent.push(silence),
            }
        }
        // It registers with one maestro, or with several the same.
        pages.into_iter().max_by_key(|page| page.files.len()).ok_or_else(|| {
            let why = together(&silent).unwrap_or_else(|| "no network is joined".to_owned());
            AskError::Unreachable("the maestro".to_owned(), why)
        })
    }
}

fn asked_now(peer: PeerRef) -> (PeerRef, Teller) {
    let teller = Teller::friend(&peer);
    (peer, teller)
}

/// A peer of whom nothing else is known.
fn row(peer: &PeerRef) -> PeerRow {
    PeerRow {
        peer: PeerName { peer_id: peer.id().map(|id| id.to_string()), name: peer.name().to_owned() },
        relation: if peer.id().is_some() { Relation::Member } else { Relation::Plain },
        online: None,
        addresses: peer.addresses(),
        rest: Some(peer.rest_url().to_owned()).filter(|url| !url.is_empty()),
        files: None,
        bytes: None,
        version: None,
    }
}

fn answered<T>(
    answer: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
) -> Result<T, Status> {
    answer.map_err(|_| Status::deadline_exceeded("no answer within 5 s"))?.map(tonic::Response::into_inner)
}

fn page(files: Vec<v1::FoundFile>, next: String) -> Page {
    Page {
        files: files.into_iter().filter_map(FoundFile::from_wire).collect(),
        next: Some(next).filter(|next| !next.is_empty()),
        incomplete: None,
    }
}
