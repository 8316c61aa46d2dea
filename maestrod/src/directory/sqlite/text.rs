//! The text index: which names have three letters in a row. It follows the names, it does not hold them up.
//!
//! A name is interned without it. The thread that writes brings the index up to date when nothing else is to be done,
//! and now and then while much is, so that a name is found by its parts some seconds after it is announced. How far the
//! index has come is kept with it, in one transaction: after a crash it goes on from there.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

/// Names that one step takes into the index: some hundredths of a second, for which a change may have to wait.
const STEP: i64 = 5000;
/// How long names wait for a quiet moment before they are taken in between changes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of the time in which changes leave no quiet moment, the index first gets one part in this many.
const FIRST_SHARE: u32 = 10;
/// How long that goes on: a million files are announced in that time.
const FIRST: Duration = Duration::from_secs(30);
/// Then it gets one part in this many. A name costs the index less than its announcement did, so it catches up.
const SHARE: u32 = 2;
/// Names behind the index that a question looks at one by one.
const TAIL: i64 = 20_000;
/// Runs of three letters that the index is asked for at once; a name that has these is likely to have the others, which
/// are looked for in itself.
const ASKED: usize = 12;
/// Letters that the index is of.
const TRIGRAM: usize = 3;

/// The last name that is in the index: it has all up to it.
pub(super) fn through(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT through FROM text_index")?.query_row([], |row| row.get(0))
}

/// How many names are not in the index yet, about.
pub(super) fn behind(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(id), 0) FROM names";
    let last: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok((last - through(connection)?).max(0).cast_unsigned())
}

/// Takes the next names into the index. Returns whether there may be more.
pub(super) fn step(connection: &mut Connection) -> rusqlite::Result<bool> {
    if behind(connection)? == 0 {
        return Ok(false);
    }
    let transaction = connection.transaction()?;
    let from = through(&transaction)?;
    let sql = "SELECT max(id) FROM (SELECT id FROM names WHERE id > ?1 ORDER BY id LIMIT ?2)";
    let to: Option<i64> = transaction.prepare_cached(sql)?.query_row([from, STEP], |row| row.get(0))?;
    let Some(to) = to else { return Ok(false) };
    transaction
        .prepare_cached(
            "INSERT INTO names_text (rowid, name)
             SELECT id, name FROM names WHERE id > ?1 AND id <= ?2 ORDER BY id",
        )?
        .execute([from, to])?;
    transaction.prepare_cached("UPDATE text_index SET through = ?1")?.execute([to])?;
    transaction.commit()?;
    Ok(true)
}

/// Takes one name in at once.
pub(super) fn add(connection: &Connection, id: i64, name: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO names_text (rowid, name) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![id, name])?;
    Ok(())
}

/// Takes one name out. The index keeps no names of its own, so it must be told what it is to forget.
pub(super) fn remove(connection: &Connection, id: i64, name: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO names_text (names_text, rowid, name) VALUES ('delete', ?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![id, name])?;
    Ok(())
}

/// Names, with their rows, that may contain these texts.
pub(super) struct Candidates {
    pub(super) names: Vec<(String, i64)>,
    /// There are more than were asked for.
    pub(super) more: bool,
}

/// At most about `most` names that may have all of `literals`: all such that are in the index or soon will be, or else
/// the first in order of their rows. `None` if no text has three letters.
pub(super) fn candidates<'a>(
    connection: &Connection,
    literals: impl Iterator<Item = &'a str>,
    most: usize,
) -> rusqlite::Result<Option<Candidates>> {
    let Some(question) = question(literals) else { return Ok(None) };
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let mut ids: Vec<i64> = connection
        .prepare_cached("SELECT rowid FROM names_text WHERE names_text MATCH ?1 LIMIT ?2")?
        .query_map(params![question, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let more = ids.len() > most;
    ids.truncate(most);
    let mut statement = connection.prepare_cached("SELECT name, id FROM names WHERE id = ?1")?;
    let name_and_id = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let mut names = Vec::with_capacity(ids.len());
    for id in ids {
        names.extend(statement.query_row([id], name_and_id).optional()?);
    }
    if !more {
        let sql = "SELECT name, id FROM names WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = connection.prepare_cached(sql)?;
        for name in statement.query_map([through(connection)?, TAIL], name_and_id)? {
            names.push(name?);
        }
    }
    Ok(Some(Candidates { names, more }))
}

/// A question to the index: runs of three letters, all of which must be there.
fn question<'a>(literals: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut runs = Vec::new();
    for literal in literals {
        let letters: Vec<char> = literal.chars().collect();
        runs.extend(letters.windows(TRIGRAM).map(|run| run.iter().collect::<String>()));
    }
    runs.sort_unstable();
    runs.dedup();
    if runs.is_empty() {
        return None;
    }
    let every = runs.len().div_ceil(ASKED);
    let asked = runs.iter().step_by(every).map(|run| format!("\"{}\"", run.replace('"', "\"\"")));
    Some(asked.collect::<Vec<_>>().join(" AND "))
}

/// When the thread that writes turns to the index. Pure: the time is an argument.
#[derive(Debug)]
pub(super) struct Turns {
    /// Names may be waiting since then.
    waiting: Option<Instant>,
    /// What the index has had since.
    index: Duration,
}

impl Turns {
    /// At the start names may be waiting.
    pub(super) fn new(now: Instant) -> Turns {
        Turns { waiting: Some(now), index: Duration::ZERO }
    }

    /// Whether anything may be left to do.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// A change was made. Returns whether the index has its turn although others may queue.
    pub(super) fn changed(&mut self, now: Instant) -> bool {
        let waited = now.duration_since(*self.waiting.get_or_insert(now));
        let due = waited.min(FIRST) / FIRST_SHARE + waited.saturating_sub(FIRST) / SHARE;
        waited >= PATIENCE && self.index < due
    }

    /// The index had a turn; `more`: and is not through.
    pub(super) fn indexed(&mut self, took: Duration, more: bool, now: Instant) {
        self.index += took;
        if !more {
            *self = Turns { waiting: None, ..Turns::new(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_asked_for_a_few_runs() {
        let asked = |literals: &[&str]| question(literals.iter().copied());
        assert_eq!(asked(&["ab", "", "c"]), None);
        assert_eq!(asked(&["abcd", "xy"]).unwrap(), "\"abc\" AND \"bcd\"");
        assert_eq!(asked(&["a\"b"]).unwrap(), "\"a\"\"b\"");
        let long: String = (0..600u32).filter_map(|number| char::from_u32(0x4e00 + number)).collect();
        let question = asked(&[&long]).unwrap();
        assert!((2..=ASKED).contains(&question.matches(" AND ").count()), "{question}");
    }

    /// Changes that follow each other for so long, each of which brings so many names, and steps of the index in between,
    /// at the pace of either. How long names waited at the most, and the part of the first half minute that the index had.
    fn under_load(lasting: Duration, change: Duration, names: u64) -> (Duration, f64) {
        const A_NAME: Duration = Duration::from_micros(9);
        let start = Instant::now();
        let mut turns = Turns::new(start);
        turns.indexed(Duration::ZERO, false, start);
        assert!(!turns.is_waiting());
        let (mut now, mut longest, mut early) = (start, Duration::ZERO, Duration::ZERO);
        let mut waiting: std::collections::VecDeque<(Instant, u64)> = std::collections::VecDeque::new();
        while now - start < lasting {
            now += change;
            waiting.push_back((now, names));
            if !turns.changed(now) {
                continue;
            }
            assert!(now - start >= PATIENCE, "at once");
            let (mut taken, began) = (0, now);
            while let Some((since, names)) = waiting.pop_front() {
                let some = names.min(STEP.unsigned_abs() - taken);
                taken += some;
                now += A_NAME * u32::try_from(some).unwrap();
                longest = longest.max(now - since);
                if some < names {
                    waiting.push_front((since, names - some));
                    break;
                }
            }
            if now - start < FIRST {
                early += now - began;
            }
            turns.indexed(now - began, !waiting.is_empty(), now);
        }
        longest = waiting.front().map_or(longest, |(since, _)| longest.max(now - *since));
        (longest, early.as_secs_f64() / FIRST.as_secs_f64())
    }

    #[test]
    fn a_first_announcement_is_not_held_up() {
        let million = Duration::from_secs(25);
        let (_, part) = under_load(million, Duration::from_millis(18), 1000);
        assert!((0.03..0.11).contains(&part), "{part}");
    }

    /// However long changes follow each other without a pause.
    #[test]
    fn under_endless_load_names_are_found_within_a_minute() {
        let long = Duration::from_secs(600);
        // Batches, and single changes that follow each other as fast.
        for (change, names) in [(Duration::from_millis(18), 1000), (Duration::from_micros(60), 1)] {
            let (longest, _) = under_load(long, change, names);
            assert!(longest < Duration::from_secs(60), "{longest:?}");
        }
        // Few names wait hardly longer than patience does.
        let (longest, _) = under_load(long, Duration::from_millis(20), 1);
        assert!(longest < PATIENCE + Duration::from_millis(100), "{longest:?}");
    }
}
