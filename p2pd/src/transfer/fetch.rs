//! From what somebody asks for to a transfer: which content it is, and under which name it will be here.

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::{Priority, Transfer, TransferState};

use super::jobs::Transfers;
use super::store::{StoreError, Terms};
use super::story::{self, AskedBy};
use crate::catalog::{CatalogError, Fact, Viewer};
use crate::discovery::{Candidate, Located, PeerRef, Query, Source, now_ms};

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct FetchOrder {
    /// A name or a content.
    pub what: Query,
    /// Only from this peer.
    pub from: Option<PeerRef>,
    /// The name that it shall have here; `None`: the one it has.
    pub save_as: Option<FileName>,
    /// Its priority; `None`: normal, or the one that it has where it is under way.
    pub priority: Option<Priority>,
    /// Who asks.
    pub by: AskedBy,
}

/// What fetching a file comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFound {
    /// The name that it would have here, or has.
    pub name: FileName,
    /// Its content; `None` where nobody vouches for the bytes.
    pub content: Option<ContentHash>,
    /// Bytes; `None` where nobody knows.
    pub size: Option<u64>,
    /// It is here already.
    pub is_here: bool,
    /// Where it is, or would be.
    pub path: String,
    /// The transfer of it that is under way.
    pub under_way: Option<u64>,
    /// Who would be asked.
    pub sources: Vec<PeerRef>,
    /// Bytes that can be written where it would land.
    pub free_bytes: Option<u64>,
    /// Who could not be asked, and why.
    pub incomplete: Option<String>,
}

/// What an order comes to, with what was found of it.
enum Decided {
    /// It is here.
    Here(Fact, Candidate),
    /// A transfer of it is under way.
    Open(Transfer, Candidate),
    /// It is to be fetched, and to have this name.
    New(Candidate, FileName),
}

/// Why no transfer begins.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody has it.
    #[error("nobody who can be asked has {what}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who could not be asked, and why.
        incomplete: Option<String>,
    },
    /// The name stands for several contents.
    #[error("there are {} different contents under the name {name}", candidates.len())]
    SeveralContents {
        /// The name.
        name: FileName,
        /// The contents.
        candidates: Vec<Candidate>,
    },
    /// Another file is here under that name.
    #[error("another file is here under the name {name}")]
    NameTaken {
        /// The name.
        name: FileName,
        /// Its content; `None` for something that is not shared: a directory, a link, a file that is being written.
        here: Option<ContentHash>,
    },
    /// Nobody else has it, and it is to have another name here.
    #[error("only this peer has {what}, as {path}: there is nothing to fetch")]
    OnlyHere {
        /// What was asked for.
        what: String,
        /// Where it is.
        path: String,
    },
    /// Nobody vouches for the bytes, and the configuration does not take such files.
    #[error(
        "only plain peers have {what}: nobody vouches for the bytes, and this peer does not take such files"
    )]
    UnprovenRefused {
        /// What was asked for.
        what: String,
    },
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The list of transfers failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Transfers {
    /// Begins a transfer, or joins the one that is already under way. Where the content is here already, the transfer
    /// has ended when this returns, and has the number 0: there was nothing to transfer.
    pub async fn fetch(&self, order: FetchOrder) -> Result<Transfer, FetchError> {
        let this = self.clone();
        self.shared.to_its_end(async move { this.fetch_now(order).await }).await?
    }

    async fn fetch_now(&self, order: FetchOrder) -> Result<Transfer, FetchError> {
        if let Some(fact) = self.known(&order).await? {
            return Ok(self.already(&fact));
        }
        let located = self.located(&order).await;
        let _beginning = self.shared.beginning.lock().await;
        let (candidate, name) = match self.decide(&order, located).await? {
            Decided::Here(fact, _) => return Ok(self.already(&fact)),
            Decided::Open(open, _) => return Ok(self.join(open, &order.by, order.priority).await),
            Decided::New(candidate, name) => (candidate, name),
        };
        let FetchOrder { from, by, priority, .. } = order;
        let terms = match candidate.content {
            Some(_) => Terms { only_from: from, name_there: None },
            None => Terms {
                only_from: from.or_else(|| candidate.sources.into_iter().next().map(|source| source.peer)),
                name_there: Some(candidate.name.to_string()),
            },
        };
        let priority = priority.unwrap_or_default();
        let transfer = Transfer { priority, ..fresh(name, candidate.content, candidate.size) };
        Ok(self.begin(transfer, terms, &by).await?)
    }

    /// What fetching a file comes to. Nothing is fetched, and nothing is kept.
    ///
    /// # Errors
    /// Where it would not be fetched.
    pub async fn look_at_file(&self, order: &FetchOrder) -> Result<FileFound, FetchError> {
        let free_bytes = self.free_bytes().await;
        if let Some(fact) = self.known(order).await? {
            return Ok(self.is_here(fact, Vec::new(), free_bytes, None));
        }
        let located = self.located(order).await;
        let incomplete = located.incomplete.clone();
        let (candidate, name, under_way) = match self.decide(order, located).await? {
            Decided::Here(fact, candidate) => {
                return Ok(self.is_here(fact, candidate.others(), free_bytes, incomplete));
            }
            Decided::Open(open, candidate) => (candidate, FileName::parse(&open.name).ok(), Some(open.id)),
            Decided::New(candidate, name) => (candidate, Some(name), None),
        };
        let name = name.unwrap_or_else(|| candidate.name.clone());
        Ok(FileFound {
            path: self.shared.shares.downloads().absolute(&name).display().to_string(),
            name,
            content: candidate.content,
            size: candidate.size,
            is_here: false,
            under_way,
            sources: order.from.clone().map_or_else(|| candidate.others(), |from| vec![from]),
            free_bytes,
            incomplete,
        })
    }

    fn is_here(
        &self,
        fact: Fact,
        sources: Vec<PeerRef>,
        free_bytes: Option<u64>,
        incomplete: Option<String>,
    ) -> FileFound {
        FileFound {
            path: self.already(&fact).path.unwrap_or_default(),
            name: fact.name,
            content: Some(fact.content),
            size: Some(fact.size),
            is_here: true,
            under_way: None,
            sources,
            free_bytes,
            incomplete,
        }
    }

    /// Bytes that can be written where files land; `None` where that share is away.
    pub(super) async fn free_bytes(&self) -> Option<u64> {
        let dir = self.shared.shares.downloads();
        let free = tokio::task::spawn_blocking(move || dir.free_bytes()).await;
        free.ok().and_then(Result::ok)
    }

    /// The content that is asked for, where it is here and may have any name.
    async fn known(&self, order: &FetchOrder) -> Result<Option<Fact>, CatalogError> {
        match &order.what {
            Query::Content(content) if order.save_as.is_none() => self.here(*content).await,
            _ => Ok(None),
        }
    }

    async fn located(&self, order: &FetchOrder) -> Located {
        match &order.from {
            Some(peer) => self.shared.locator.locate_at(peer, &order.what).await,
            None => self.shared.locator.locate(&order.what).await,
        }
    }

    /// Which content it is, and under which name it will be here.
    async fn decide(&self, order: &FetchOrder, located: Located) -> Result<Decided, FetchError> {
        let (what, mut candidates) = (order.what.to_string(), located.candidates);
        // Bytes that nobody vouches for are no alternative to a content that proves itself.
        if order.from.is_none() && candidates.iter().any(|candidate| candidate.content.is_some()) {
            candidates.retain(|candidate| candidate.content.is_some());
        }
        // Nor is what only this peer has to who wants another name for what others have.
        let is_elsewhere = |candidate: &Candidate| !candidate.sources.iter().all(Source::is_own);
        if order.save_as.is_some() && candidates.iter().any(is_elsewhere) {
            candidates.retain(is_elsewhere);
        }
        let several = candidates.iter().any(|candidate| candidate.content != candidates[0].content);
        let Some(candidate) = candidates.first().cloned() else {
            return Err(FetchError::NotFound { what, incomplete: located.incomplete });
        };
        if several {
            return Err(FetchError::SeveralContents { name: candidate.name, candidates });
        }
        let name = order.save_as.clone().unwrap_or_else(|| candidate.name.clone());
        let Some(content) = candidate.content else {
            return self.decide_unproven(what, candidate, name).await;
        };
        if let Some(fact) = self.under(&name).await? {
            return match fact.content == content {
                true => Ok(Decided::Here(fact, candidate)),
                false => Err(FetchError::NameTaken { name, here: Some(fact.content) }),
            };
        }
        if order.save_as.is_none()
            && candidate.sources.iter().any(Source::is_own)
            && let Some(fact) = self.here(content).await?
        {
            return Ok(Decided::Here(fact, candidate));
        }
        let text = content.to_string();
        if let Some(open) =
            self.open(|open| open.content.as_deref() == Some(&text) && open.name == name.as_str())
        {
            return Ok(Decided::Open(open, candidate));
        }
        if candidate.sources.iter().all(Source::is_own)
            && let Some(fact) = self.here(content).await?
        {
            let path = self.already(&fact).path.unwrap_or_default();
            return Err(FetchError::OnlyHere { what, path });
        }
        self.check_free(&name).await?;
        Ok(Decided::New(candidate, name))
    }

    async fn decide_unproven(
        &self,
        what: String,
        candidate: Candidate,
        name: FileName,
    ) -> Result<Decided, FetchError> {
        if !self.shared.settings.borrow().allow_unproven {
            return Err(FetchError::UnprovenRefused { what });
        }
        if let Some(fact) = self.under(&name).await? {
            return Err(FetchError::NameTaken { name, here: Some(fact.content) });
        }
        if let Some(open) = self.open(|open| !open.proven && open.name == name.as_str()) {
            return Ok(Decided::Open(open, candidate));
        }
        self.check_free(&name).await?;
        Ok(Decided::New(candidate, name))
    }

    /// What is under way is asked for again.
    pub(super) async fn join(&self, open: Transfer, by: &AskedBy, priority: Option<Priority>) -> Transfer {
        story::asked_again(&open, by);
        match priority {
            // It may have come to its end meanwhile.
            Some(priority) => self.prioritize(open.id, priority, by).await.unwrap_or(open),
            None => open,
        }
    }

    /// Begins a transfer of a content that a peer offers, or joins the one that is under way.
    pub async fn accept(
        &self,
        sender: PeerRef,
        content: ContentHash,
        size: u64,
        name: FileName,
    ) -> Result<Transfer, FetchError> {
        let _beginning = self.shared.beginning.lock().await;
        if let Some(fact) = self.under(&name).await? {
            return match fact.content == content {
                true => Ok(self.already(&fact)),
                false => Err(FetchError::NameTaken { name, here: Some(fact.content) }),
            };
        }
        let text = content.to_string();
        if let Some(open) =
            self.open(|open| open.content.as_deref() == Some(&text) && open.name == name.as_str())
        {
            story::asked_again(&open, &AskedBy::Peer(sender));
            return Ok(open);
        }
        self.check_free(&name).await?;
        let by = AskedBy::Peer(sender.clone());
        Ok(self
            .begin(
                fresh(name, Some(content), Some(size)),
                Terms { only_from: Some(sender), name_there: None },
                &by,
            )
            .await?)
    }

    /// A file here with this content.
    async fn here(&self, content: ContentHash) -> Result<Option<Fact>, CatalogError> {
        Ok(self.shared.catalog.find_content(content, Viewer::Own).await?.into_iter().next())
    }

    /// The file under this name in the share that downloads land in.
    async fn under(&self, name: &FileName) -> Result<Option<Fact>, CatalogError> {
        let dir = self.shared.shares.downloads();
        let found = self.shared.catalog.find_name(name.as_str(), Viewer::Own).await?;
        Ok(found.into_iter().find(|fact| fact.share == dir.share()))
    }

    /// What is under the name and not in the catalog would be found only once everything was fetched.
    async fn check_free(&self, name: &FileName) -> Result<(), FetchError> {
        let (dir, wanted) = (self.shared.shares.downloads(), name.clone());
        let exists = tokio::task::spawn_blocking(move || dir.exists(&wanted)).await;
        match exists {
            Ok(Ok(true)) => Err(FetchError::NameTaken { name: name.clone(), here: None }),
            // A share that is away now is the transfer's to wait for.
            _ => Ok(()),
        }
    }

    fn open(&self, is_it: impl Fn(&Transfer) -> bool) -> Option<Transfer> {
        self.list().into_iter().find(|transfer| !transfer.state.is_ended() && is_it(transfer))
    }

    fn already(&self, fact: &Fact) -> Transfer {
        let share = self.shared.shares.rows().into_iter().find(|share| share.name == fact.share);
        let path = share.map(|share| share.path.join(fact.name.as_str()).display().to_string());
        Transfer {
            state: TransferState::Done,
            done_bytes: fact.size,
            ended_ms: Some(now_ms()),
            path,
            ..fresh(fact.name.clone(), Some(fact.content), Some(fact.size))
        }
    }
}

/// A transfer that has not begun.
pub(super) fn fresh(name: impl Into<String>, content: Option<ContentHash>, size: Option<u64>) -> Transfer {
    Transfer {
        id: 0,
        name: name.into(),
        content: content.map(|content| content.to_string()),
        size,
        done_bytes: 0,
        wasted_bytes: 0,
        state: TransferState::Queued,
        reason: None,
        priority: Priority::default(),
        queue_place: None,
        held: false,
        proven: content.is_some(),
        sources: Vec::new(),
        rate: 0,
        eta_secs: None,
        created_ms: now_ms(),
        ended_ms: None,
        path: None,
        files: None,
        files_done: None,
        incomplete: None,
    }
}
