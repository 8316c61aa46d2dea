//! From a directory or a pattern to the list of what is to be fetched: read page by page from whoever knows the files,
//! compared with what is here, and refused where a name needs a choice. Nothing is fetched before that.

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::{Priority, Transfer, TransferState};
use p2p_service::status::counted;

use super::super::fetch::fresh;
use super::super::jobs::{Shared, Transfers};
use super::super::store::{StoreError, Terms, TreeFile};
use super::super::story::{self, AskedBy};
use super::Pattern;
use super::verdict::{OwnFacts, Verdict, verdict};
use crate::catalog::CatalogError;
use crate::discovery::{AskError, PeerRef, Query, now_ms};
use crate::transfer::job::Job;

mod asking;

/// Files that are asked for, and compared, at once.
pub(super) const PAGE: u32 = 2000;
/// Conflicts that are told one by one.
const CONFLICTS: usize = 20;
/// Files whose sources are looked up to say who has them.
const LOOKED_UP: usize = 16;

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct TreeOrder {
    /// The directory, or the pattern.
    pub what: Pattern,
    /// Only from this peer.
    pub from: Option<PeerRef>,
    /// Its priority; `None`: normal, or the one that it has where it is under way.
    pub priority: Option<Priority>,
    /// Who asks.
    pub by: AskedBy,
}

/// A name that needs a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The name.
    pub name: FileName,
    /// Whether another file is here under it.
    pub here: bool,
    /// The different contents that others have under it.
    pub contents: Vec<ContentHash>,
}

/// What a directory comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeFound {
    /// Files that are to be fetched.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are here with the same content.
    pub here_files: u64,
    /// Their bytes.
    pub here_bytes: u64,
    /// Files that nobody vouches for: they are left out.
    pub unproven: u64,
    /// Names that need a choice.
    pub conflicts: u64,
    /// The first of them.
    pub first_conflicts: Vec<Conflict>,
    /// Peers that have at least one of the files that were looked up.
    pub sources: Vec<PeerRef>,
    /// Bytes that can be written where they would land.
    pub free_bytes: Option<u64>,
    /// What could not be asked, and why.
    pub incomplete: Option<String>,
}

impl TreeFound {
    /// Why this may not be all of it; `None` where it is.
    fn lacks(&self) -> Option<String> {
        let left_out = (self.unproven > 0).then(|| {
            let files = counted(self.unproven, "file is", "files are");
            format!("{files} left out that only plain peers have: nobody vouches for their bytes")
        });
        let all: Vec<String> = self.incomplete.iter().cloned().chain(left_out).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Why no transfer begins.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nobody has any of it.
    #[error("nobody who can be asked has files of {what}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who could not be asked, and why; what was left out.
        incomplete: Option<String>,
    },
    /// Names need a choice.
    #[error("{conflicts} names in {what} need a choice, and nothing was fetched")]
    Conflicts {
        /// What was asked for.
        what: String,
        /// How many.
        conflicts: u64,
        /// The first of them.
        first: Vec<Conflict>,
    },
    /// Whoever knows the files cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The list of transfers failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Transfers {
    /// What fetching a directory comes to, and its files, at most so many. Nothing is fetched, and nothing is kept.
    ///
    /// # Errors
    /// Where nobody has any of it, or who knows cannot be asked.
    pub async fn look_at_tree(
        &self,
        order: &TreeOrder,
        most: u64,
    ) -> Result<(TreeFound, TreeFiles), TreeError> {
        let listed = self.listed(order).await?;
        let mut found = listed.found.clone();
        let lookups = listed.sample.iter().map(async |content| {
            let query = Query::Content(*content);
            self.shared.locator.locate(&query).await
        });
        match &order.from {
            Some(peer) => found.sources = vec![peer.clone()],
            None => {
                let located = futures::future::join_all(lookups).await;
                let sources = located.into_iter().flat_map(|located| located.candidates);
                for source in sources.flat_map(|candidate| candidate.sources) {
                    let is_known = |known: &PeerRef| known.id() == source.peer.id();
                    let is_own = source.peer.id() == Some(self.shared.myself.id);
                    if !is_own && source.peer.id().is_some() && !found.sources.iter().any(is_known) {
                        found.sources.push(source.peer);
                    }
                }
            }
        }
        found.free_bytes = self.free_bytes().await;
        Ok((found, TreeFiles { listed, after: None, left: most }))
    }

    /// Begins the transfer of a directory, or joins the one that is under way. Where all of it is here already, the
    /// transfer has ended when this returns, and has the number 0.
    ///
    /// # Errors
    /// A [`TreeError`]; nothing was fetched then.
    pub async fn fetch_tree(&self, order: TreeOrder) -> Result<Transfer, TreeError> {
        if let Some(open) = self.open_tree(&order) {
            return Ok(self.join(open, &order.by, order.priority).await);
        }
        let listed = self.listed(&order).await?;
        if listed.found.conflicts > 0 {
            let TreeFound { conflicts, first_conflicts: first, .. } = listed.found.clone();
            return Err(TreeError::Conflicts { what: order.what.text().to_owned(), conflicts, first });
        }
        let this = self.clone();
        self.shared.to_its_end(async move { this.begin_tree(order, listed).await }).await?
    }

    async fn begin_tree(&self, order: TreeOrder, listed: Listed) -> Result<Transfer, TreeError> {
        let TreeFound { files, bytes, here_files, here_bytes, .. } = listed.found;
        let what = order.what.text().to_owned();
        let _beginning = self.shared.beginning.lock().await;
        if let Some(open) = self.open_tree(&order) {
            return Ok(self.join(open, &order.by, order.priority).await);
        }
        let transfer = Transfer {
            id: listed.id,
            priority: order.priority.unwrap_or_default(),
            size: Some(bytes + here_bytes),
            done_bytes: here_bytes,
            proven: true,
            files: Some(files + here_files),
            files_done: Some(here_files),
            incomplete: listed.found.lacks(),
            ..fresh(what.clone(), None, None)
        };
        if files == 0 {
            let path = super::path_of(&self.shared, &what).display().to_string();
            let (state, ended_ms) = (TransferState::Done, Some(now_ms()));
            return Ok(Transfer { id: 0, state, ended_ms, path: Some(path), ..transfer });
        }
        let terms = Terms { only_from: order.from, name_there: None };
        let transfer = self.shared.store.add_reserved(transfer, terms.clone()).await?;
        listed.begins();
        story::begins(&transfer, &order.by);
        self.enter(Job::new(transfer.clone(), terms));
        Ok(transfer)
    }

    fn open_tree(&self, order: &TreeOrder) -> Option<Transfer> {
        let jobs = self.lock();
        let is_it = |job: &&std::sync::Arc<Job>| {
            let transfer = job.snapshot();
            let from = job.terms.only_from.as_ref().map(PeerRef::id);
            transfer.files.is_some()
                && !transfer.state.is_ended()
                && transfer.name == order.what.text()
                && from == order.from.as_ref().map(PeerRef::id)
        };
        Some(jobs.values().find(is_it)?.snapshot())
    }

    /// Lists what is to be fetched under a number of its own.
    async fn listed(&self, order: &TreeOrder) -> Result<Listed, TreeError> {
        let id = self.shared.store.reserve().await?;
        let mut listed = Listed {
            id,
            found: TreeFound::default(),
            sample: Vec::new(),
            shared: Some(std::sync::Arc::clone(&self.shared)),
        };
        let is_any = self.ask(order, &mut listed).await?;
        if listed.found.unproven > 0 {
            listed.found.unproven = self.shared.store.count_unproven(id).await?;
        }
        self.compare(&mut listed).await?;
        if !is_any {
            let mut incomplete = listed.found.incomplete.clone();
            if listed.found.unproven > 0 {
                incomplete = Some("only plain peers have them, for whose bytes nobody vouches".to_owned());
            }
            return Err(TreeError::NotFound { what: order.what.text().to_owned(), incomplete });
        }
        Ok(listed)
    }

    /// Compares the list with what is here: strikes off what is here already, and counts the rest.
    async fn compare(&self, listed: &mut Listed) -> Result<(), TreeError> {
        let mut own = OwnFacts::new(self.shared.catalog.clone());
        let downloads = self.shared.shares.downloads().share().to_owned();
        let (mut after, mut group, mut seen): (_, Vec<TreeFile>, u64) = (None, Vec::new(), 0);
        loop {
            let page =
                self.shared.store.files_after(listed.id, after.take(), 0..=u64::MAX, PAGE as usize).await?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map(|last| (last.name.clone(), last.content));
            let mut struck = Vec::new();
            let ends = page.into_iter().map(Some).chain(is_last.then_some(None));
            for file in ends {
                if let (Some(file), Some(first)) = (&file, group.first())
                    && file.name == first.name
                {
                    group.extend(Some(file.clone()));
                    continue;
                }
                let whole = std::mem::replace(&mut group, file.into_iter().collect());
                let Some(first) = whole.first() else { continue };
                let facts = own.of(&first.name).await?;
                match verdict(&whole, &facts, &downloads) {
                    Verdict::Here => {
                        listed.found.here_files += 1;
                        listed.found.here_bytes = listed.found.here_bytes.saturating_add(first.size);
                        struck.push((first.name.clone(), first.content));
                    }
                    Verdict::Fetch => {
                        listed.found.files += 1;
                        listed.found.bytes = listed.found.bytes.saturating_add(first.size);
                        seen += 1;
                        listed.sample(first.content, seen);
                    }
                    Verdict::Conflict { here } => {
                        listed.found.conflicts += 1;
                        if listed.found.first_conflicts.len() < CONFLICTS {
                            let contents = whole.iter().map(|file| file.content).collect();
                            let name = first.name.clone();
                            listed.found.first_conflicts.push(Conflict { name, here, contents });
                        }
                    }
                }
            }
            self.shared.store.strike_files(listed.id, struck).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A list that is forgotten where its transfer does not begin.
struct Listed {
    id: u64,
    found: TreeFound,
    /// Some of the contents, evenly spread.
    sample: Vec<ContentHash>,
    shared: Option<std::sync::Arc<Shared>>,
}

impl Listed {
    fn begins(mut self) {
        self.shared = None;
    }

    /// Each of the `seen` so far is in the sample with the same chance.
    fn sample(&mut self, content: ContentHash, seen: u64) {
        if self.sample.len() < LOOKED_UP {
            return self.sample.push(content);
        }
        let at = rand::random_range(0..seen);
        if let Some(place) = usize::try_from(at).ok().and_then(|at| self.sample.get_mut(at)) {
            *place = content;
        }
    }
}

/// The files of a directory that was looked at, page by page, in order of their names.
pub struct TreeFiles {
    listed: Listed,
    after: Option<(FileName, ContentHash)>,
    /// How many more are wanted.
    left: u64,
}

/// A file of a directory that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFileFound {
    /// Its name.
    pub name: FileName,
    /// Its content.
    pub content: ContentHash,
    /// Bytes.
    pub size: u64,
    /// How many have it.
    pub sources: u32,
}

impl TreeFiles {
    /// The next ones; none at the end.
    ///
    /// # Errors
    /// Where the list cannot be read.
    pub async fn next(&mut self) -> Result<Vec<TreeFileFound>, StoreError> {
        let limit = usize::try_from(self.left.min(PAGE.into())).unwrap_or_default();
        let Some(shared) = self.listed.shared.as_ref().filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let page = shared.store.listed_after(self.listed.id, self.after.take(), limit).await?;
        self.left -= page.len() as u64;
        self.after = page.last().map(|(last, _)| (last.name.clone(), last.content));
        if self.after.is_none() {
            self.left = 0;
        }
        let found =
            |(TreeFile { name, content, size }, sources)| TreeFileFound { name, content, size, sources };
        Ok(page.into_iter().map(found).collect())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let id = self.id;
        let tasks = shared.tasks.clone();
        tasks.spawn_detached("forget a list", async move {
            // Where it fails, it is forgotten at the next start.
            let _ = shared.store.forget_files(id).await;
        });
    }
}
