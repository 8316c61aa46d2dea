//! The store on a server: a database that speaks PostgreSQL's protocol, which several maestros may share.
//!
//! Keeps nothing in memory that is not in the database: another maestro may have changed it since. Whoever changes a peer's
//! catalog holds the peer's row until the change is whole. What the SQL may use is written down in `docs/postgresql.md`.

use async_trait::async_trait;
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;

use super::{
    Applied, Batch, Candidate, Copies, Directory, DirectoryError, FilePosition, FileRecord, FindPosition,
    Forgotten, Found, FoundPage, Held, Holdings, Listed, ListedPeer, NamePosition, Page, Pattern, PeerKey,
    PeerRecord, PlainPeer, Profile, Search, Session, Sharing, Totals, Wanted, Which,
};

mod catalog;
mod connections;
mod copies;
mod find;
mod holders;
mod lent;
mod matches;
mod names;
mod noted;
#[cfg(test)]
mod noted_tests;
mod peers;
mod rows;
mod schema;
mod settings;
mod sharing;
#[cfg(test)]
mod tests;
mod text;

use catalog::Progress;
use connections::{Connections, Kinds};
use noted::Notes;
pub use settings::{Settings, check_address};
use sharing::Fellow;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later release made it.
    #[error(
        "the database has version {found}, and this maestrod knows versions up to {known}: it is used by a newer \
         maestrod; install that one here too, or name another database with store"
    )]
    Newer {
        /// Its version.
        found: i32,
        /// The latest that this program knows.
        known: i32,
    },
    /// It is of maestros with another identity.
    #[error(
        "the database is that of the maestro {owner}, and this one is {here}: give this one the same identity.key and join-token, \
         or a database of its own; if that one is gone for good, `DELETE FROM network` in the database, and the peers join anew"
    )]
    Another {
        /// Whose it is.
        owner: PeerId,
        /// Who asked.
        here: PeerId,
    },
    /// The server does not answer, or lets nobody in, now.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// What is configured cannot be used, or the database refuses something: it lets this maestro not in, for instance.
    #[error("the database cannot be used: {0}")]
    Refused(String),
}

/// What a database is, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// No maestro has used it yet.
    Empty,
    /// One of this release can use it.
    Known {
        /// How many peers it knows.
        peers: u64,
    },
}

/// A directory in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresDirectory {
    place: String,
    readers: Connections,
    writers: Connections,
    greeters: Connections,
    showers: Connections,
    indexer: Connections,
    pulse: Connections,
    fellow: Fellow,
    notes: Notes,
}

impl PostgresDirectory {
    /// Gets ready to connect; nothing is asked of the server before [`prepare`](PostgresDirectory::prepare).
    ///
    /// # Errors
    ///
    /// [`OpenError::Refused`] where the certificates cannot be taken.
    pub fn new(settings: &Settings) -> Result<PostgresDirectory, OpenError> {
        let Kinds { readers, writers, greeters, showers, indexer, pulse } = Kinds::new(settings)?;
        let (place, fellow, notes) = (settings.place(), Fellow::new(), Notes::new());
        Ok(PostgresDirectory { place, readers, writers, greeters, showers, indexer, pulse, fellow, notes })
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Brings the database to this release's schema; nothing else works before that.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: `Unreachable` where to try again may help. A database of a newer release is left as it is.
    pub async fn prepare(&self) -> Result<(), OpenError> {
        let mut client = self.writers.one().await?;
        schema::migrate(&mut client).await
    }

    /// Makes the database that of `maestro`, if it is nobody's yet. Two networks in one would take each other's streams for
    /// their own.
    ///
    /// # Errors
    ///
    /// [`OpenError::Another`] where it is of another one; `Unreachable` where to try again may help.
    pub async fn claim(&self, maestro: PeerId) -> Result<(), OpenError> {
        let client = self.writers.one().await?;
        match schema::claim(&client, maestro).await? {
            None => Ok(()),
            Some(owner) => Err(OpenError::Another { owner, here: maestro }),
        }
    }

    /// Looks at the database, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as of [`prepare`](PostgresDirectory::prepare).
    pub async fn look(&self) -> Result<Look, OpenError> {
        let client = self.readers.one().await?;
        match schema::look(&client).await? {
            None => Ok(Look::Empty),
            Some((found, _)) if found > schema::VERSION => {
                Err(OpenError::Newer { found, known: schema::VERSION })
            }
            Some((_, peers)) => Ok(Look::Known { peers }),
        }
    }
}

#[async_trait]
impl Directory for PostgresDirectory {
    async fn admit(&self, peer: PeerId, now_ms: i64) -> Result<(), DirectoryError> {
        self.greeters.run(|client| peers::admit(client, peer, now_ms)).await
    }

    async fn is_admitted(&self, peer: PeerId) -> Result<bool, DirectoryError> {
        self.readers.run(|client| peers::is_admitted(client, peer)).await
    }

    async fn begin(&self, peer: PeerId, profile: Profile, now_ms: i64) -> Result<Held, DirectoryError> {
        let (key, profile) = (&PeerKey::Synced(peer), &profile);
        self.greeters.run(|client| peers::begin(client, key, profile, now_ms)).await
    }

    async fn apply(
        &self,
        peer: PeerId,
        session: Session,
        batch: Batch,
        now_ms: i64,
    ) -> Result<Applied, DirectoryError> {
        let (batch, changing) = (&batch, self.notes.change());
        let mut progress =
            self.writers.run(|client| catalog::apply(client, peer, session, batch, now_ms)).await?;
        let applied = loop {
            match progress {
                Progress::Done(applied) => break applied,
                Progress::Concluding(rest) => {
                    let rest = &rest;
                    progress = self
                        .writers
                        .run(|client| catalog::conclude_on(client, peer, session, rest.clone(), now_ms))
                        .await?;
                }
            }
        };
        drop(changing);
        if self.notes.are_many()
            && let Err(error) = self.take_noted().await
        {
            // The change holds all the same.
            tracing::debug!(%error, "the text index falls behind: {error}");
        }
        Ok(applied)
    }

    async fn set_visible(
        &self,
        peer: PeerId,
        visible: bool,
        heard_ms: Option<i64>,
    ) -> Result<(), DirectoryError> {
        self.showers.run(|client| peers::set_visible(client, peer, visible, heard_ms)).await
    }

    async fn visible_peers(&self) -> Result<Vec<PeerId>, DirectoryError> {
        self.readers.run(peers::visible_ids).await
    }

    async fn register(
        &self,
        plain: PlainPeer,
        files: Vec<FileName>,
        now_ms: i64,
    ) -> Result<(), DirectoryError> {
        let (plain, files, _changing) = (&plain, &files[..], self.notes.change());
        self.writers.run(|client| catalog::register(client, plain, files, now_ms)).await
    }

    async fn locate(&self, wanted: Wanted, sources: usize) -> Result<Vec<Candidate>, DirectoryError> {
        let wanted = &wanted;
        self.readers.run(|client| find::locate(client, wanted, sources)).await
    }

    async fn search(
        &self,
        search: Search,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Found, NamePosition>, DirectoryError> {
        let (search, after) = (&search, after.as_ref());
        self.readers.run(|client| find::search(client, search, after, limit)).await
    }

    async fn find(
        &self,
        pattern: Pattern,
        after: Option<FindPosition>,
        limit: usize,
    ) -> Result<FoundPage, DirectoryError> {
        let (pattern, after) = (&pattern, after.as_ref());
        self.readers.run(|client| matches::find(client, pattern, after, limit)).await
    }

    async fn contents(
        &self,
        most_copies: Option<u32>,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Page<Copies, ContentHash>, DirectoryError> {
        self.readers.run(|client| copies::contents(client, most_copies, after, limit)).await
    }

    async fn copies(&self, content: ContentHash) -> Result<Option<Copies>, DirectoryError> {
        self.readers.run(|client| copies::of(client, content)).await
    }

    async fn list(
        &self,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Page<Listed, NamePosition>, DirectoryError> {
        let after = after.as_ref();
        self.readers.run(|client| find::list(client, after, limit)).await
    }

    async fn names_of(
        &self,
        peer: PeerKey,
        after: Option<NamePosition>,
        limit: usize,
    ) -> Result<Option<(PeerRecord, Page<String, NamePosition>)>, DirectoryError> {
        let (peer, after) = (&peer, after.as_ref());
        self.readers.run(|client| find::names_of(client, peer, after, limit)).await
    }

    async fn files_of(
        &self,
        peer: PeerId,
        after: Option<FilePosition>,
        limit: usize,
    ) -> Result<Page<FileRecord, FilePosition>, DirectoryError> {
        let after = &after.unwrap_or_default();
        self.readers.run(|client| find::files_of(client, peer, after, limit)).await
    }

    async fn peers(
        &self,
        which: Which,
        names_each: usize,
        after: Option<PeerKey>,
        limit: usize,
    ) -> Result<Page<ListedPeer, PeerKey>, DirectoryError> {
        let after = after.as_ref();
        self.readers.run(|client| find::peers(client, which, names_each, after, limit)).await
    }

    async fn totals(&self) -> Result<Totals, DirectoryError> {
        self.readers.run(peers::totals).await
    }

    async fn holdings(&self) -> Result<Holdings, DirectoryError> {
        self.readers.run(peers::holdings).await
    }

    async fn count_contents(
        &self,
        after: Option<ContentHash>,
    ) -> Result<(u64, Option<ContentHash>), DirectoryError> {
        self.readers.run(|client| copies::count(client, after)).await
    }

    async fn forget_unseen(&self, before_ms: i64) -> Result<Forgotten, DirectoryError> {
        self.writers.run(|client| catalog::forget_unseen(client, before_ms)).await
    }

    fn sharing(&self) -> Option<&dyn Sharing> {
        Some(self)
    }
}
