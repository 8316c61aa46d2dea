//! Changes of one peer's files: one transaction each, in which the peer's row is locked, so that of several maestros one
//! at a time changes a catalog. Rows are written by the batch.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use p2p_content::{ContentHash, FileName};
use p2p_identity::PeerId;
use tokio_postgres::Row;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::connections::Failure;
use super::lent::Client;
use super::{noted, peers, rows};
use crate::directory::standing::{Standing, Tally};
use crate::directory::{
    Applied, Batch, Change, Complete, DirectoryError, FileRecord, Forgotten, PeerKey, PlainPeer, Profile,
    Session,
};

/// Files that one transaction forgets at the end of a full catalog. More are forgotten in several, so that none takes
/// long.
const SWEEP_ROWS: usize = 5000;
/// Files that one transaction counts, where a tally is counted anew.
const COUNT_ROWS: usize = 20_000;

/// What a batch has come to.
pub(super) enum Progress {
    /// It is applied.
    Done(Applied),
    /// Its changes are; the end of the catalog goes on from here.
    Concluding(Rest),
}

/// What is left to do at the end of a catalog: forgetting what a full one left out, then counting what is held, from
/// this place on.
#[derive(Clone)]
pub(super) struct Rest {
    from: Place,
    complete: Complete,
    counted: Option<Tally>,
}

/// A place among a peer's files.
#[derive(Clone, Default)]
struct Place {
    share: Vec<u8>,
    name: Vec<u8>,
}

/// Applies the changes of a batch and, at the end of a full catalog, begins to forget what it left out.
pub(super) async fn apply(
    mut client: Client,
    peer: PeerId,
    session: Session,
    batch: &Batch,
    now_ms: i64,
) -> Result<Progress, Failure> {
    let (transaction, standing) = enter(&mut client, peer, session, batch.complete.is_some()).await?;
    let mut catalog = Catalog { transaction: &transaction, standing };
    if batch.reset {
        catalog.standing.generation += 1;
        catalog.standing.sweeping = true;
        catalog.standing.epoch = batch.epoch;
    }
    // What is in a batch twice is as it was last.
    let mut last: HashMap<(&str, &str), Option<&FileRecord>> = HashMap::with_capacity(batch.changes.len());
    for change in &batch.changes {
        match change {
            Change::Upsert(file) => last.insert((&file.share, &file.name), Some(file)),
            Change::Removed { share, name } => last.insert((share, name), None),
        };
    }
    catalog.change(last).await?;
    catalog.standing.applied = batch.through_sequence;
    let progress = match batch.complete {
        None => Progress::Done(Applied { sequence: batch.through_sequence, agrees: true }),
        Some(complete) => catalog.conclude(Rest { from: Place::default(), complete, counted: None }).await?,
    };
    peers::keep(&transaction, &catalog.standing, now_ms).await?;
    transaction.commit().await?;
    Ok(progress)
}

/// Goes on with what [`apply`] began. If it is never called, the next batch that is complete does it.
pub(super) async fn conclude_on(
    mut client: Client,
    peer: PeerId,
    session: Session,
    rest: Rest,
    now_ms: i64,
) -> Result<Progress, Failure> {
    let (transaction, standing) = enter(&mut client, peer, session, true).await?;
    let mut catalog = Catalog { transaction: &transaction, standing };
    let progress = catalog.conclude(rest).await?;
    peers::keep(&transaction, &catalog.standing, now_ms).await?;
    transaction.commit().await?;
    Ok(progress)
}

/// Begins a transaction in which nobody else changes this peer's catalog; durable with its end, or only with that of a later
/// one that is.
async fn enter(
    client: &mut Client,
    peer: PeerId,
    session: Session,
    is_durable: bool,
) -> Result<(Transaction<'_>, Standing), Failure> {
    let transaction = client.transaction().await?;
    if !is_durable {
        // A crash of the server may take back the last changes, and the sequence number applied goes back with them. Where
        // the stream lives on, the digest at the end of the catalog tells.
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
    }
    let standing = peers::lock(&transaction, &PeerKey::Synced(peer)).await?;
    match standing.filter(|standing| standing.session == session.0) {
        Some(standing) => Ok((transaction, standing)),
        None => Err(DirectoryError::Superseded.into()),
    }
}

pub(super) async fn register(
    mut client: Client,
    plain: &PlainPeer,
    files: &[FileName],
    now_ms: i64,
) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let profile = Profile {
        addresses: vec![plain.address.clone()],
        rest_url: plain.url.clone(),
        grpc_port: plain.grpc_port,
        ..Profile::default()
    };
    let key = PeerKey::Plain(plain.url.clone());
    peers::introduce(&transaction, &key, &profile, now_ms).await?;
    let standing = peers::lock(&transaction, &key).await?.ok_or(DirectoryError::Superseded)?;
    let mut catalog = Catalog { transaction: &transaction, standing };
    catalog.standing.generation += 1;
    let files: Vec<FileRecord> = files
        .iter()
        .map(|name| FileRecord {
            share: String::new(),
            name: name.as_str().to_owned(),
            content: None,
            size: 0,
            modified_ms: 0,
        })
        .collect();
    catalog.change(files.iter().map(|file| (("", &*file.name), Some(file))).collect()).await?;
    let mut place = Some(Place::default());
    while let Some(from) = place {
        place = catalog.sweep(&from).await?;
    }
    peers::keep(&transaction, &catalog.standing, now_ms).await?;
    transaction.commit().await?;
    Ok(())
}

/// Forgets some files of the first peer that is hidden and was last heard of before then, or the peer with the last.
pub(super) async fn forget_unseen(mut client: Client, before_ms: i64) -> Result<Forgotten, Failure> {
    let transaction = client.transaction().await?;
    let found = peers::lock_unseen(&transaction, before_ms).await?;
    let Some((standing, peer, last_seen_ms)) = found else {
        return Ok(Forgotten { peer: None, more: false });
    };
    let mut catalog = Catalog { transaction: &transaction, standing };
    // Whoever comes back before all is forgotten is told that nothing is held.
    (catalog.standing.epoch, catalog.standing.applied, catalog.standing.sweeping) = (0, 0, false);
    catalog.standing.generation += 1;
    let rest = catalog.sweep(&Place::default()).await?;
    peers::keep(&transaction, &catalog.standing, last_seen_ms).await?;
    if rest.is_none() {
        peers::remove(&transaction, catalog.standing.id).await?;
    }
    transaction.commit().await?;
    Ok(Forgotten { peer: rest.is_none().then_some(peer), more: true })
}

/// One peer's files, under change. Its tally is kept in step with the rows.
struct Catalog<'t> {
    transaction: &'t Transaction<'t>,
    standing: Standing,
}

impl Catalog<'_> {
    /// Brings the files of these shares and names to what is said of them: `None` is gone.
    async fn change(&mut self, said: HashMap<(&str, &str), Option<&FileRecord>>) -> Result<(), Failure> {
        if said.is_empty() {
            return Ok(());
        }
        let old = self.held(&said).await?;
        let (mut new, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (&(share, name), file) in &said {
            match (old.get(&(share, name)), file) {
                (None, None) => {}
                (None, Some(file)) => {
                    self.standing.put_in(file);
                    new.push(*file);
                }
                (Some(held), Some(file)) => {
                    self.standing.take_out(share, name, held.content.as_ref(), held.size);
                    self.standing.put_in(file);
                    changed.push(*file);
                }
                (Some(held), None) => {
                    self.standing.take_out(share, name, held.content.as_ref(), held.size);
                    gone.push((share.as_bytes(), name.as_bytes()));
                }
            }
        }
        let names: Vec<&[u8]> = new.iter().map(|file| file.name.as_bytes()).collect();
        noted::note(self.transaction, &names, false).await?;
        self.insert(new).await?;
        self.update(&changed).await?;
        self.delete(&gone).await
    }

    /// What is there of these.
    async fn held<'s, F>(
        &self,
        said: &HashMap<(&'s str, &'s str), F>,
    ) -> Result<HashMap<(&'s str, &'s str), Held>, Failure> {
        let keys: Vec<(&str, &str)> = said.keys().copied().collect();
        let shares: Vec<&[u8]> = keys.iter().map(|(share, _)| share.as_bytes()).collect();
        let names: Vec<&[u8]> = keys.iter().map(|(_, name)| name.as_bytes()).collect();
        let statement = self
            .transaction
            .prepare_cached(
                "SELECT k.number, f.content, f.size
                 FROM unnest($2::BYTEA[], $3::BYTEA[], $4::INT4[]) AS k (share, name, number)
                 JOIN files f ON f.peer = $1 AND f.share = k.share AND f.name = k.name",
            )
            .await?;
        let numbers: Vec<i32> = (0..).take(keys.len()).collect();
        let rows =
            self.transaction.query(&statement, &[&self.standing.id, &shares, &names, &numbers]).await?;
        let held = |row: &Row| {
            let number = usize::try_from(row.get::<_, i32>(0)).unwrap_or(0);
            Ok((keys[number], Held::of(row, 1)?))
        };
        rows.iter().map(held).collect()
    }

    async fn insert(&self, mut files: Vec<&FileRecord>) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        // Rows that are next to each other in the index are written one after another.
        files.sort_unstable_by_key(|file| (&file.share, &file.name));
        let sql = "COPY files (peer, share, name, content, size, modified_ms, generation)
                   FROM STDIN WITH (FORMAT binary)";
        let types = [Type::INT8, Type::BYTEA, Type::BYTEA, Type::BYTEA, Type::INT8, Type::INT8, Type::INT8];
        let writer = BinaryCopyInWriter::new(self.transaction.copy_in(sql).await?, &types);
        let mut writer = std::pin::pin!(writer);
        for file in files {
            let row: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
                &self.standing.id,
                &file.share.as_bytes(),
                &file.name.as_bytes(),
                &file.content.as_ref().map(|content| &content.as_bytes()[..]),
                &file.size.cast_signed(),
                &file.modified_ms,
                &self.standing.generation,
            ];
            writer.as_mut().write(&row).await?;
        }
        writer.finish().await?;
        Ok(())
    }

    async fn update(&self, files: &[&FileRecord]) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        let shares: Vec<&[u8]> = files.iter().map(|file| file.share.as_bytes()).collect();
        let names: Vec<&[u8]> = files.iter().map(|file| file.name.as_bytes()).collect();
        let contents: Vec<Option<&[u8]>> = files
            .iter()
            .map(|file| file.content.as_ref().map(|content: &ContentHash| &content.as_bytes()[..]))
            .collect();
        let sizes: Vec<i64> = files.iter().map(|file| file.size.cast_signed()).collect();
        let modified: Vec<i64> = files.iter().map(|file| file.modified_ms).collect();
        let statement = self
            .transaction
            .prepare_cached(
                "UPDATE files SET content = k.content, size = k.size, modified_ms = k.modified_ms, generation = $2
                 FROM unnest($3::BYTEA[], $4::BYTEA[], $5::BYTEA[], $6::INT8[], $7::INT8[])
                    AS k (share, name, content, size, modified_ms)
                 WHERE files.peer = $1 AND files.share = k.share AND files.name = k.name",
            )
            .await?;
        let Standing { id, generation, .. } = &self.standing;
        self.transaction
            .execute(&statement, &[id, generation, &shares, &names, &contents, &sizes, &modified])
            .await?;
        Ok(())
    }

    async fn delete(&self, files: &[(&[u8], &[u8])]) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        let shares: Vec<&[u8]> = files.iter().map(|(share, _)| *share).collect();
        let names: Vec<&[u8]> = files.iter().map(|(_, name)| *name).collect();
        let statement = self
            .transaction
            .prepare_cached(
                "DELETE FROM files USING unnest($2::BYTEA[], $3::BYTEA[]) AS k (share, name)
                 WHERE files.peer = $1 AND files.share = k.share AND files.name = k.name",
            )
            .await?;
        self.transaction.execute(&statement, &[&self.standing.id, &shares, &names]).await?;
        noted::note(self.transaction, &names, true).await
    }

    /// The end of a catalog: forgets what a full one left out, and compares.
    async fn conclude(&mut self, Rest { from, complete, counted }: Rest) -> Result<Progress, Failure> {
        let mut place = from;
        if self.standing.sweeping {
            if let Some(from) = self.sweep(&place).await? {
                return Ok(Progress::Concluding(Rest { from, complete, counted }));
            }
            (self.standing.sweeping, place) = (false, Place::default());
        }
        if counted.is_some() || complete.recount && !self.standing.agrees(complete) {
            if counted.is_none() {
                // A step whose answer was lost may have ended the sweep: this one begins where that one did.
                place = Place::default();
            }
            let mut counted = counted.unwrap_or_default();
            if let Some(from) = self.count(&place, &mut counted).await? {
                return Ok(Progress::Concluding(Rest { from, complete, counted: Some(counted) }));
            }
            self.standing.correct(counted);
        }
        let agrees = self.standing.agrees(complete);
        Ok(Progress::Done(Applied { sequence: self.standing.applied, agrees }))
    }

    /// Adds up to [`COUNT_ROWS`] files to the tally, after `place`. Returns where it ended before the last.
    async fn count(&self, place: &Place, tally: &mut Tally) -> Result<Option<Place>, Failure> {
        let sql = "SELECT share, name, content, size FROM files
                   WHERE peer = $1 AND (share, name) > ($2, $3) ORDER BY share, name LIMIT $4";
        let statement = self.transaction.prepare_cached(sql).await?;
        let most = COUNT_ROWS as i64;
        let rows = self
            .transaction
            .query(&statement, &[&self.standing.id, &place.share, &place.name, &most])
            .await?;
        for row in &rows {
            let (share, name) = (String::from_utf8_lossy(row.get(0)), String::from_utf8_lossy(row.get(1)));
            let content: Option<&[u8]> = row.get(2);
            tally.add(&share, &name, content.unwrap_or_default(), row.get::<_, i64>(3).cast_unsigned());
        }
        let last = rows.last().filter(|_| rows.len() == COUNT_ROWS);
        Ok(last.map(|row| Place { share: row.get(0), name: row.get(1) }))
    }

    /// Forgets the files that are not of the standing's generation, [`SWEEP_ROWS`] of them, after `place`. Returns where
    /// it ended before the last.
    async fn sweep(&mut self, place: &Place) -> Result<Option<Place>, Failure> {
        let statement = self
            .transaction
            .prepare_cached(
                "SELECT share, name, content, size FROM files
                 WHERE peer = $1 AND generation <> $2 AND (share, name) > ($3, $4)
                 ORDER BY share, name LIMIT $5",
            )
            .await?;
        let Standing { id, generation, .. } = self.standing;
        let most = SWEEP_ROWS as i64;
        let rows =
            self.transaction.query(&statement, &[&id, &generation, &place.share, &place.name, &most]).await?;
        let mut gone: Vec<(&[u8], &[u8])> = Vec::with_capacity(rows.len());
        for row in &rows {
            let (share, name) = (row.get(0), row.get(1));
            let held = Held::of(row, 2)?;
            let (share_text, name_text) = (String::from_utf8_lossy(share), String::from_utf8_lossy(name));
            self.standing.take_out(&share_text, &name_text, held.content.as_ref(), held.size);
            gone.push((share, name));
        }
        self.delete(&gone).await?;
        let full = gone.len() >= SWEEP_ROWS;
        let place = |(share, name): &(&[u8], &[u8])| Place { share: share.to_vec(), name: name.to_vec() };
        Ok(gone.last().filter(|_| full).map(place))
    }
}

/// What a row says of a file's bytes.
struct Held {
    content: Option<[u8; 32]>,
    size: u64,
}

impl Held {
    /// From two columns, the first of which is `index`.
    fn of(row: &Row, index: usize) -> Result<Held, Failure> {
        let content: Option<&[u8]> = row.get(index);
        let content = content.map(rows::array).transpose()?;
        Ok(Held { content, size: row.get::<_, i64>(index + 1).cast_unsigned() })
    }
}
