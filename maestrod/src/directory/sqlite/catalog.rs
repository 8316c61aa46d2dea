//! Changes of one peer's files. Runs on the writing thread; one transaction per call.

use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::peers;
use super::text;
use crate::directory::standing::{Standing, Tally};
use crate::directory::{
    Applied, Batch, Change, Complete, DirectoryError, FileRecord, Forgotten, Held, PeerKey, PlainPeer,
    Profile, Session,
};

/// Files that one transaction forgets at the end of a full catalog. More are forgotten in several, so that the changes
/// of other peers do not wait for all of them.
const SWEEP_ROWS: usize = 5000;
/// Files that one transaction looks at, where there is nothing to forget among them, or a tally is counted anew.
const LOOK_ROWS: u64 = 20_000;

/// What a batch has come to.
pub(super) enum Progress {
    /// It is applied.
    Done(Applied),
    /// Its changes are; the end of the catalog goes on from here.
    Concluding(Rest),
}

/// What is left to do at the end of a catalog: forgetting what a full one left out, then counting what is held, from
/// this place on.
pub(super) struct Rest {
    from: Place,
    complete: Complete,
    counted: Option<Tally>,
}

/// A place among a peer's files.
struct Place {
    share: String,
    name_id: i64,
}

impl Place {
    const START: Place = Place { share: String::new(), name_id: i64::MIN };
}

pub(super) fn begin(
    connection: &mut Connection,
    peer: PeerId,
    profile: &Profile,
    now_ms: i64,
) -> Result<Held, DirectoryError> {
    let transaction = connection.transaction()?;
    let id = peers::introduce(&transaction, &PeerKey::Synced(peer), profile, now_ms)?;
    let mut standing = peers::standing(&transaction, id)?;
    standing.session += 1;
    peers::keep(&transaction, &standing, now_ms)?;
    transaction.commit()?;
    Ok(Held { session: Session(standing.session), epoch: standing.epoch, applied: standing.applied })
}

/// Applies the changes of a batch and, at the end of a full catalog, begins to forget what it left out.
pub(super) fn apply(
    connection: &mut Connection,
    peer: PeerId,
    session: Session,
    batch: &Batch,
    now_ms: i64,
) -> Result<Progress, DirectoryError> {
    let transaction = connection.transaction()?;
    let standing = standing_of(&transaction, peer, session)?;
    let mut catalog = Catalog::of(&transaction, standing)?;
    if batch.reset {
        catalog.standing.generation += 1;
        catalog.standing.sweeping = true;
        catalog.standing.epoch = batch.epoch;
    }
    for change in &batch.changes {
        match change {
            Change::Upsert(file) => catalog.upsert(file)?,
            Change::Removed { share, name } => catalog.remove(share, name)?,
        }
    }
    catalog.standing.applied = batch.through_sequence;
    let progress = match batch.complete {
        None => Progress::Done(Applied { sequence: batch.through_sequence, agrees: true }),
        Some(complete) => catalog.conclude(Rest { from: Place::START, complete, counted: None })?,
    };
    peers::keep(&transaction, &catalog.standing, now_ms)?;
    transaction.commit()?;
    Ok(progress)
}

/// Goes on with what [`apply`] began. If it is never called, the next batch that is complete does it.
pub(super) fn conclude_on(
    connection: &mut Connection,
    peer: PeerId,
    session: Session,
    rest: Rest,
    now_ms: i64,
) -> Result<Progress, DirectoryError> {
    let transaction = connection.transaction()?;
    let standing = standing_of(&transaction, peer, session)?;
    let mut catalog = Catalog::of(&transaction, standing)?;
    let progress = catalog.conclude(rest)?;
    peers::keep(&transaction, &catalog.standing, now_ms)?;
    transaction.commit()?;
    Ok(progress)
}

fn standing_of(
    transaction: &Transaction<'_>,
    peer: PeerId,
    session: Session,
) -> Result<Standing, DirectoryError> {
    let id = peers::id_of(transaction, &PeerKey::Synced(peer))?.ok_or(DirectoryError::Superseded)?;
    let standing = peers::standing(transaction, id)?;
    if standing.session == session.0 { Ok(standing) } else { Err(DirectoryError::Superseded) }
}

pub(super) fn register(
    connection: &mut Connection,
    plain: &PlainPeer,
    files: Vec<FileName>,
    now_ms: i64,
) -> Result<(), DirectoryError> {
    let transaction = connection.transaction()?;
    let profile = Profile {
        addresses: vec![plain.address.clone()],
        rest_url: plain.url.clone(),
        grpc_port: plain.grpc_port,
        ..Profile::default()
    };
    let key = PeerKey::Plain(plain.url.clone());
    let id = peers::introduce(&transaction, &key, &profile, now_ms)?;
    let mut catalog = Catalog::of(&transaction, peers::standing(&transaction, id)?)?;
    catalog.standing.generation += 1;
    for name in files {
        catalog.upsert(&FileRecord {
            share: String::new(),
            name: name.into(),
            content: None,
            size: 0,
            modified_ms: 0,
        })?;
    }
    let mut rest = Some(Place::START);
    while let Some(from) = rest {
        rest = catalog.sweep(from)?;
    }
    peers::keep(&transaction, &catalog.standing, now_ms)?;
    transaction.commit()?;
    Ok(())
}

/// Forgets some files of the first peer that is hidden and was last heard of before then, or the peer with the last.
pub(super) fn forget_unseen(connection: &mut Connection, before_ms: i64) -> rusqlite::Result<Forgotten> {
    let transaction = connection.transaction()?;
    let found = peers::unseen(&transaction, before_ms)?;
    let Some((id, peer, last_seen_ms)) = found else { return Ok(Forgotten { peer: None, more: false }) };
    let mut catalog = Catalog::of(&transaction, peers::standing(&transaction, id)?)?;
    // Whoever comes back before all is forgotten is told that nothing is held.
    (catalog.standing.epoch, catalog.standing.applied, catalog.standing.sweeping) = (0, 0, false);
    catalog.standing.generation += 1;
    let rest = catalog.sweep(Place::START)?;
    peers::keep(&transaction, &catalog.standing, last_seen_ms)?;
    if rest.is_none() {
        peers::remove(&transaction, id)?;
    }
    transaction.commit()?;
    Ok(Forgotten { peer: rest.is_none().then_some(peer), more: true })
}

/// One peer's files, under change. Its tally is kept in step with the rows.
struct Catalog<'t> {
    transaction: &'t Transaction<'t>,
    standing: Standing,
    /// The last name that is in the text index.
    indexed_through: i64,
    /// The last name that was interned was.
    names_are_new: bool,
}

impl<'t> Catalog<'t> {
    fn of(transaction: &'t Transaction<'t>, standing: Standing) -> rusqlite::Result<Catalog<'t>> {
        let indexed_through = text::through(transaction)?;
        Ok(Catalog { transaction, standing, indexed_through, names_are_new: true })
    }

    fn upsert(&mut self, file: &FileRecord) -> rusqlite::Result<()> {
        let Name { id: name_id, is_new } = self.intern(&file.name)?;
        let (peer, generation) = (self.standing.id, self.standing.generation);
        let content = file.content.as_ref().map(ContentHash::as_bytes);
        let size = file.size.cast_signed();
        // Nobody has a file under a name that is new.
        let old = if is_new { None } else { self.held(&file.share, name_id)? };
        let sql = match &old {
            None => {
                "INSERT INTO files (peer, share, name_id, modified_ms, generation, size, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
            }
            // The content's index is not touched by a statement that does not name the content: a catalog that is
            // sent again unchanged costs little.
            Some((old_content, _)) if old_content.as_ref() == content => {
                "UPDATE files SET modified_ms = ?4, generation = ?5, size = ?6
                 WHERE peer = ?1 AND share = ?2 AND name_id = ?3 AND content IS ?7"
            }
            Some(_) => {
                "UPDATE files SET modified_ms = ?4, generation = ?5, size = ?6, content = ?7
                 WHERE peer = ?1 AND share = ?2 AND name_id = ?3"
            }
        };
        self.transaction.prepare_cached(sql)?.execute(params![
            peer,
            file.share,
            name_id,
            file.modified_ms,
            generation,
            size,
            content
        ])?;
        match old {
            Some((old_content, old_size)) if old_content.as_ref() == content && old_size == file.size => {}
            Some((old_content, old_size)) => {
                self.standing.take_out(&file.share, &file.name, old_content.as_ref(), old_size);
                self.standing.put_in(file);
            }
            None => self.standing.put_in(file),
        }
        Ok(())
    }

    /// Content and size of a file as it is now.
    fn held(&self, share: &str, name_id: i64) -> rusqlite::Result<Option<(Option<[u8; 32]>, u64)>> {
        let sql = "SELECT content, size FROM files WHERE peer = ?1 AND share = ?2 AND name_id = ?3";
        self.transaction
            .prepare_cached(sql)?
            .query_row(params![self.standing.id, share, name_id], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .optional()
    }

    fn remove(&mut self, share: &str, name: &str) -> rusqlite::Result<()> {
        let sql = "SELECT n.id, f.content, f.size FROM names n CROSS JOIN files f
                   ON f.peer = ?1 AND f.share = ?2 AND f.name_id = n.id WHERE n.name = ?3";
        let found = self
            .transaction
            .prepare_cached(sql)?
            .query_row(params![self.standing.id, share, name], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
            })
            .optional()?;
        // A file that was made and removed between two batches was never here.
        let Some((name_id, content, size)) = found else { return Ok(()) };
        self.forget(&Gone { share: share.to_owned(), name_id, content, size }, name)
    }

    /// The end of a catalog: forgets what a full one left out, and compares.
    fn conclude(&mut self, Rest { from, complete, counted }: Rest) -> rusqlite::Result<Progress> {
        let mut place = from;
        if self.standing.sweeping {
            if let Some(from) = self.sweep(place)? {
                return Ok(Progress::Concluding(Rest { from, complete, counted }));
            }
            (self.standing.sweeping, place) = (false, Place::START);
        }
        if counted.is_some() || complete.recount && !self.standing.agrees(complete) {
            let mut counted = counted.unwrap_or_default();
            if let Some(from) = self.count(place, &mut counted)? {
                return Ok(Progress::Concluding(Rest { from, complete, counted: Some(counted) }));
            }
            self.standing.correct(counted);
        }
        let agrees = self.standing.agrees(complete);
        Ok(Progress::Done(Applied { sequence: self.standing.applied, agrees }))
    }

    /// Adds about [`LOOK_ROWS`] files to the tally, from `place` on. Returns where it ended before the last.
    fn count(&self, place: Place, tally: &mut Tally) -> rusqlite::Result<Option<Place>> {
        let sql = "SELECT f.share, n.name, f.content, f.size, f.name_id
                   FROM files f INDEXED BY files_by_peer CROSS JOIN names n ON n.id = f.name_id
                   WHERE f.peer = ?1 AND (f.share, f.name_id) > (?2, ?3) ORDER BY f.share, f.name_id LIMIT ?4";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows =
            statement.query(params![self.standing.id, place.share, place.name_id, LOOK_ROWS as i64])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let (share, name) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            let content = row.get_ref(2)?.as_blob_or_null()?.unwrap_or_default();
            let size = row.get::<_, i64>(3)?.cast_unsigned();
            tally.add(share, name, content, size);
            seen += 1;
            if seen == LOOK_ROWS {
                return Ok(Some(Place { share: share.to_owned(), name_id: row.get(4)? }));
            }
        }
        Ok(None)
    }

    /// Forgets files that are not of the standing's generation, from `place` on: at most [`SWEEP_ROWS`], and those among
    /// [`LOOK_ROWS`]. Returns where it ended before the last.
    fn sweep(&mut self, place: Place) -> rusqlite::Result<Option<Place>> {
        let (old, rest) = self.old(place)?;
        for gone in old {
            let name: String = self
                .transaction
                .prepare_cached("SELECT name FROM names WHERE id = ?1")?
                .query_row([gone.name_id], |row| row.get(0))?;
            self.forget(&gone, &name)?;
        }
        Ok(rest)
    }

    /// The files that [`Catalog::sweep`] forgets from `place` on, and where it ended before the last.
    fn old(&self, place: Place) -> rusqlite::Result<(Vec<Gone>, Option<Place>)> {
        let sql = "SELECT share, name_id, generation, content, size FROM files INDEXED BY files_by_peer
                   WHERE peer = ?1 AND (share, name_id) > (?2, ?3) ORDER BY share, name_id LIMIT ?4";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows =
            statement.query(params![self.standing.id, place.share, place.name_id, LOOK_ROWS as i64])?;
        let (mut old, mut seen) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            seen += 1;
            if row.get::<_, i64>(2)? != self.standing.generation {
                old.push(Gone {
                    share: row.get(0)?,
                    name_id: row.get(1)?,
                    content: row.get(3)?,
                    size: row.get::<_, i64>(4)?.cast_unsigned(),
                });
            }
            if seen == LOOK_ROWS || old.len() == SWEEP_ROWS {
                return Ok((old, Some(Place { share: row.get(0)?, name_id: row.get(1)? })));
            }
        }
        Ok((old, None))
    }

    fn forget(&mut self, gone: &Gone, name: &str) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("DELETE FROM files WHERE peer = ?1 AND share = ?2 AND name_id = ?3")?
            .execute(params![self.standing.id, gone.share, gone.name_id])?;
        self.standing.take_out(&gone.share, name, gone.content.as_ref(), gone.size);
        let used: bool = self
            .transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM files WHERE name_id = ?1)")?
            .query_row([gone.name_id], |row| row.get(0))?;
        if !used {
            if gone.name_id <= self.indexed_through {
                text::remove(self.transaction, gone.name_id, name)?;
            }
            self.transaction.prepare_cached("DELETE FROM names WHERE id = ?1")?.execute([gone.name_id])?;
        }
        Ok(())
    }

    /// The row of a name, made if it is new.
    fn intern(&mut self, name: &str) -> rusqlite::Result<Name> {
        // Names that are new come together, and so do those that are known: each is looked for once.
        if self.names_are_new {
            if let Some(id) = self.add(name)? {
                return Ok(Name { id, is_new: true });
            }
            self.names_are_new = false;
        }
        let known = self
            .transaction
            .prepare_cached("SELECT id FROM names WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        if let Some(id) = known {
            return Ok(Name { id, is_new: false });
        }
        self.names_are_new = true;
        self.intern(name)
    }

    /// Adds a name, if it is not there.
    fn add(&self, name: &str) -> rusqlite::Result<Option<i64>> {
        let sql = "INSERT INTO names (name) VALUES (?1) ON CONFLICT DO NOTHING";
        if self.transaction.prepare_cached(sql)?.execute([name])? == 0 {
            return Ok(None);
        }
        let id = self.transaction.last_insert_rowid();
        // The row of a name that was the last and is forgotten is given again: the index has passed it already.
        if id <= self.indexed_through {
            text::add(self.transaction, id, name)?;
        }
        Ok(Some(id))
    }
}

/// A row of a name.
struct Name {
    id: i64,
    is_new: bool,
}

/// A row that is to be forgotten.
struct Gone {
    share: String,
    name_id: i64,
    content: Option<[u8; 32]>,
    size: u64,
}
