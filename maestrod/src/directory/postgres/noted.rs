//! The text index follows the names, it does not hold them up (0016). A name is noted in the change that gives it to a peer or
//! takes it from one, and one maestro after the other takes what is noted into the index, in steps, or out of it.
//!
//! What is noted counts for little: a name that is noted as new is put in if it is missing, and one that is noted as gone is
//! taken out if nobody has it by then. So it does not matter which maestro noted it, or whether it did so twice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;
use p2p_service::health::Heartbeat;
use p2p_service::tasks::TaskResult;
use tokio::sync::Notify;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;

use super::connections::Failure;
use super::lent::Client;
use super::{PostgresDirectory, rows, text};
use crate::directory::DirectoryError;
use crate::directory::turns::{QUIET, Turns};

/// Names that are noted together at the most.
const TOGETHER: usize = 1000;
/// Names that one step takes, and notes that it reads at the most: some tenths of a second.
const STEP: (i64, i64) = (10_000, 1000);
/// Names behind the index that a question looks at one by one. Where there are more, it looks at none of them.
const TAIL: u64 = 20_000;
/// So many may be behind; a change that finds more takes a step itself before it is answered.
const MOST: u64 = 2_000_000;
/// How often is looked for what another maestro noted, and has not taken.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks whether the index has its turn, while changes follow each other.
const TURN_EVERY: Duration = Duration::from_millis(20);

/// Notes names that a peer has got, or has no more.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    names: &[&[u8]],
    are_gone: bool,
) -> Result<(), Failure> {
    let sql = "INSERT INTO noted_texts (number, gone, names) VALUES ($1, $2, $3)";
    let statement = transaction.prepare_cached(sql).await?;
    for names in names.chunks(TOGETHER) {
        let number = i32::try_from(names.len()).unwrap_or(i32::MAX);
        transaction.execute(&statement, &[&number, &are_gone, &names]).await?;
    }
    Ok(())
}

/// How many names are noted that the index may not have yet.
pub(super) async fn behind(client: &Client) -> Result<u64, Failure> {
    let sql = "SELECT coalesce(sum(number), 0)::INT8 FROM noted_texts WHERE NOT gone";
    let row = client.query_one(&client.prepare_cached(sql).await?, &[]).await?;
    Ok(row.get::<_, i64>(0).cast_unsigned())
}

/// The names that the index does not have yet, if they are few enough to be looked at; in no order, and some more than once. To
/// be asked for before the index is: what it takes meanwhile is then in both.
pub(super) async fn tail(client: &Client) -> Result<Vec<String>, Failure> {
    if !(1..=TAIL).contains(&behind(client).await?) {
        return Ok(Vec::new());
    }
    let sql = "SELECT names FROM noted_texts WHERE NOT gone ORDER BY id LIMIT $1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&TAIL.cast_signed()]).await?;
    Ok(rows.iter().flat_map(|row| row.get::<_, Vec<&[u8]>>(0)).map(rows::name).collect())
}

/// Takes the next of what is noted. Returns how many new names are left, and whether anything is.
pub(super) async fn step(mut client: Client) -> Result<(u64, bool), Failure> {
    let sql = "SELECT EXISTS (SELECT 1 FROM noted_texts)";
    if !client.query_one(&client.prepare_cached(sql).await?, &[]).await?.get::<_, bool>(0) {
        return Ok((0, false));
    }
    let transaction = client.transaction().await?;
    // If a crash takes it back, the notes are there again.
    transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
    // One step at a time, whoever takes it: so nothing is put in twice, and what is taken out was looked for after all that was
    // put in.
    transaction.execute("UPDATE noted_turn SET steps = steps + 1 WHERE only_row = 1", &[]).await?;
    let Noted { ids, mut new, mut gone } = Noted::read(&transaction).await?;
    sort(&mut new);
    sort(&mut gone);
    put_in(&transaction, &new).await?;
    take_out(&transaction, &gone).await?;
    let statement = transaction.prepare_cached("DELETE FROM noted_texts WHERE id = ANY ($1)").await?;
    transaction.execute(&statement, &[&ids]).await?;
    transaction.commit().await?;
    let left = behind(&client).await?;
    Ok((left, left > 0 || !ids.is_empty()))
}

fn sort(names: &mut Vec<Vec<u8>>) {
    names.sort_unstable();
    names.dedup();
}

/// What a step takes.
#[derive(Default)]
struct Noted {
    ids: Vec<i64>,
    new: Vec<Vec<u8>>,
    gone: Vec<Vec<u8>>,
}

impl Noted {
    async fn read(transaction: &Transaction<'_>) -> Result<Noted, Failure> {
        let sql = "SELECT id, gone, names FROM (
                     SELECT id, gone, names, (sum(number) OVER (ORDER BY id) - number)::INT8 AS before FROM
                     (SELECT id, gone, names, number FROM noted_texts ORDER BY id LIMIT $2) AS first
                   ) AS counted WHERE before < $1";
        let statement = transaction.prepare_typed_cached(sql, &[Type::INT8, Type::INT8]).await?;
        let mut noted = Noted::default();
        for row in transaction.query(&statement, &[&STEP.0, &STEP.1]).await? {
            noted.ids.push(row.get(0));
            let names: Vec<Vec<u8>> = row.get(2);
            if row.get(1) { noted.gone.extend(names) } else { noted.new.extend(names) }
        }
        Ok(noted)
    }
}

/// Puts in those of these names that are missing.
async fn put_in(transaction: &Transaction<'_>, names: &[Vec<u8>]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let sql = "SELECT k.name FROM unnest($1::BYTEA[]) AS k (name) JOIN texts t ON t.name = k.name";
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&names]).await?;
    let there: std::collections::HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "COPY texts (name, trigrams) FROM STDIN WITH (FORMAT binary)";
    let types = [Type::BYTEA, Type::INT4_ARRAY];
    let writer = BinaryCopyInWriter::new(transaction.copy_in(sql).await?, &types);
    let mut writer = std::pin::pin!(writer);
    for name in names.iter().filter(|name| !there.contains(&***name)) {
        let row: [&(dyn ToSql + Sync); 2] = [name, &text::of(&rows::name(name))];
        writer.as_mut().write(&row).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Takes out those of these names that nobody has.
async fn take_out(transaction: &Transaction<'_>, names: &[Vec<u8>]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM texts USING unnest($1::BYTEA[]) AS k (name)
               WHERE texts.name = k.name AND NOT EXISTS (SELECT 1 FROM files WHERE files.name = k.name)";
    let statement = transaction.prepare_cached(sql).await?;
    transaction.execute(&statement, &[&names]).await?;
    Ok(())
}

/// What this maestro knows of what is noted.
#[derive(Debug)]
pub(super) struct Notes {
    changing: AtomicUsize,
    changed: Mutex<Instant>,
    news: Notify,
    are_many: AtomicBool,
}

impl Notes {
    pub(super) fn new() -> Notes {
        Notes {
            changing: AtomicUsize::new(0),
            changed: Mutex::new(Instant::now()),
            news: Notify::new(),
            are_many: AtomicBool::new(false),
        }
    }

    /// A change is made until the answer is dropped.
    pub(super) fn change(&self) -> Changing<'_> {
        self.changing.fetch_add(1, Ordering::Relaxed);
        Changing { notes: self }
    }

    /// More are behind than may be.
    pub(super) fn are_many(&self) -> bool {
        self.are_many.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn say_that_there_are_many(&self) {
        self.are_many.store(true, Ordering::Relaxed);
    }

    fn is_quiet(&self, now: Instant) -> bool {
        let changed = *self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        self.changing.load(Ordering::Relaxed) == 0 && now.duration_since(changed) >= QUIET
    }
}

/// While it is there, catalogs are changed.
pub(super) struct Changing<'n> {
    notes: &'n Notes,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        *self.notes.changed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.notes.changing.fetch_sub(1, Ordering::Relaxed);
        self.notes.news.notify_one();
    }
}

impl PostgresDirectory {
    /// Takes a step. Returns whether anything is left.
    pub(super) async fn take_noted(&self) -> Result<bool, DirectoryError> {
        let (left, more) = self.indexer.run(step).await?;
        self.notes.are_many.store(left > MOST, Ordering::Relaxed);
        Ok(more)
    }

    /// Brings the text index up to date, in quiet moments and now and then while there are none, until the token is cancelled.
    ///
    /// # Errors
    ///
    /// None: what cannot be done now is tried again.
    pub async fn keep_text_index(&self, heart: Heartbeat, token: CancellationToken) -> TaskResult {
        let mut turns = Turns::new(Instant::now());
        loop {
            heart.beat();
            let is_waiting = turns.is_waiting();
            let pause = match (is_waiting, self.notes.is_quiet(Instant::now())) {
                (true, true) => Duration::ZERO,
                (true, false) => TURN_EVERY,
                (false, _) => LOOK_EVERY,
            };
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = self.notes.news.notified(), if !is_waiting => {}
                () = tokio::time::sleep(pause) => {}
            }
            let began = Instant::now();
            // Asked in any case: it notes that there was a change.
            let is_due = turns.changed(began);
            if !is_due && !self.notes.is_quiet(began) {
                continue;
            }
            let more = match heart.while_waiting(self.take_noted()).await {
                Ok(more) => more,
                // Of a database that cannot be reached the store tells once.
                Err(DirectoryError::Unavailable(_)) => false,
                Err(error) => {
                    tracing::warn!(%error, "the text index of the directory waits: {error}");
                    false
                }
            };
            turns.indexed(began.elapsed(), more, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_some_time_after_the_last_change() {
        let (notes, soon) = (Notes::new(), Duration::from_secs(1));
        assert!(notes.is_quiet(Instant::now() + soon));
        let (one, other) = (notes.change(), notes.change());
        drop(one);
        assert!(!notes.is_quiet(Instant::now() + soon));
        drop(other);
        assert!(!notes.is_quiet(Instant::now()) && notes.is_quiet(Instant::now() + soon));
    }
}
