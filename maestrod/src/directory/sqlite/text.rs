//! The text index: which names have three letters in a row. It follows the names, it does not hold them up.
//!
//! A name is interned without it. The thread that writes brings the index up to date when nothing else is to be done,
//! and now and then while much is, so that a name is found by its parts some seconds after it is announced. How far the
//! index has come is kept with it, in one transaction: after a crash it goes on from there.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

/// Names that one step takes into the index: some hundredths of a second, for which a change may have to wait.
const STEP: i64 = 5000;
/// Names behind the index that a question looks at one by one.
const TAIL: i64 = 20_000;
/// Runs of three letters that the index is asked for at once; a name that has these is likely to have the others, which
/// are looked for in itself.
const ASKED: usize = 3;
/// As many are asked for even where they overlap.
const ASKED_AT_LEAST: usize = 2;
/// Runs of a text that these are chosen from.
const LOOKED_AT: usize = 12;
/// Names that are looked at to see how many have a run, twice.
const WEIGHED: i64 = 256;
/// Names with one run or another that the index may go through where it is asked for several: some tenths of a second.
const GONE_THROUGH: f64 = 20_000_000.0;
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

/// Rows of names that may be what is asked for.
pub(super) struct Candidates {
    rows: Vec<i64>,
    /// There are more than were asked for.
    pub(super) more: bool,
}

/// At most `most` names of the index that may be what is asked for: all such, or else the first in order of their rows.
pub(super) fn candidates(
    connection: &Connection,
    question: &str,
    most: usize,
) -> rusqlite::Result<Candidates> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows: Vec<i64> = connection
        .prepare_cached("SELECT rowid FROM names_text WHERE names_text MATCH ?1 LIMIT ?2")?
        .query_map(params![question, limit], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let more = rows.len() > most;
    rows.truncate(most);
    Ok(Candidates { rows, more })
}

impl Candidates {
    /// The names, with their rows; and where these are all of the index, those that it is to have soon.
    pub(super) fn names(self, connection: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
        let mut statement = connection.prepare_cached("SELECT name, id FROM names WHERE id = ?1")?;
        let name_and_id = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut names = Vec::with_capacity(self.rows.len());
        for id in self.rows {
            names.extend(statement.query_row([id], name_and_id).optional()?);
        }
        if !self.more {
            let sql = "SELECT name, id FROM names WHERE id > ?1 ORDER BY id LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            for name in statement.query_map([through(connection)?, TAIL], name_and_id)? {
                names.push(name?);
            }
        }
        Ok(names)
    }
}

/// All names that may be what is asked for, in order of their rows, from after a row on: those that the index has, then
/// whatever it does not have yet.
pub(super) struct Rows<'a> {
    rows: rusqlite::Rows<'a>,
    ahead: Option<(String, i64)>,
}

/// Asks for [`Rows`] with a question to the index, and the row after which they begin: the index goes straight there.
pub(super) fn in_order_of_rows(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "SELECT n.name, n.id FROM names_text CROSS JOIN names n ON n.id = names_text.rowid
         WHERE names_text MATCH ?1 AND names_text.rowid > ?2
         UNION ALL
         SELECT name, id FROM names WHERE id > max(?2, (SELECT through FROM text_index))",
    )
}

impl<'a> Rows<'a> {
    pub(super) fn new(rows: rusqlite::Rows<'a>) -> Rows<'a> {
        Rows { rows, ahead: None }
    }

    /// The next ones up to `through`, at most `most`, and whether there may be more after them.
    pub(super) fn next(&mut self, through: i64, most: usize) -> rusqlite::Result<(Vec<(String, i64)>, bool)> {
        let mut names = Vec::new();
        while names.len() < most {
            let name = match self.ahead.take() {
                Some(name) => name,
                None => match self.rows.next()? {
                    Some(row) => (row.get(0)?, row.get(1)?),
                    None => return Ok((names, false)),
                },
            };
            if name.1 > through {
                self.ahead = Some(name);
                break;
            }
            names.push(name);
        }
        Ok((names, true))
    }
}

/// A question to the index: runs of three letters, all of which must be there. `None` if no text has three letters.
///
/// The index goes through the names that have each run, side by side. So it is asked for those that few names have, as far as a
/// look at some of them tells: the others would cost more than the names that they rule out.
pub(super) fn question<'a>(
    connection: &Connection,
    literals: impl Iterator<Item = &'a str>,
) -> rusqlite::Result<Option<String>> {
    let mut runs = runs(literals);
    if runs.len() > 1 {
        let last = through(connection)?;
        for run in &mut runs {
            run.names = density(connection, &run.quoted, last)? * last as f64;
        }
        runs = light(runs);
    }
    let quoted: Vec<String> = runs.into_iter().map(|run| run.quoted).collect();
    Ok((!quoted.is_empty()).then(|| quoted.join(" AND ")))
}

/// A run of three letters.
#[derive(Debug, Clone)]
struct Run {
    /// As the index is asked for it.
    quoted: String,
    /// Where it is in the texts.
    place: usize,
    /// How many names have it, about.
    names: f64,
}

/// Those of these runs that are asked for: the rarest, but no more than can be gone through. Runs that overlap tell less than
/// others, since who has one often has the other as well.
fn light(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(|a, b| a.names.total_cmp(&b.names));
    let mut asked: Vec<Run> = Vec::with_capacity(ASKED);
    let mut names = 0.0;
    for (most, distance) in [(ASKED, TRIGRAM), (ASKED_AT_LEAST, 1)] {
        for run in &runs {
            let is_apart = asked.iter().all(|other| other.place.abs_diff(run.place) >= distance);
            // One by itself is gone through only as far as names are taken.
            let can_be = asked.is_empty() || names + run.names <= GONE_THROUGH;
            if asked.len() < most && is_apart && can_be {
                names += run.names;
                asked.push(run.clone());
            }
        }
    }
    asked
}

/// Which part of the names has a run, about: as among those that have it from the first name on, and from the middle.
fn density(connection: &Connection, run: &str, last: i64) -> rusqlite::Result<f64> {
    let sql = "SELECT rowid FROM names_text WHERE names_text MATCH ?1 AND rowid > ?2 LIMIT 1 OFFSET ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut density = 0.0;
    for from in [0, last / 2] {
        let row: Option<i64> =
            statement.query_row(params![run, from, WEIGHED - 1], |row| row.get(0)).optional()?;
        density += row.map_or(0.0, |row| WEIGHED as f64 / (row - from) as f64);
    }
    Ok(density / 2.0)
}

/// The runs of three letters of these texts, some of them where there are many. How many names have them is not known yet.
fn runs<'a>(literals: impl Iterator<Item = &'a str>) -> Vec<Run> {
    let mut runs = Vec::new();
    for literal in literals {
        let letters: Vec<char> = literal.chars().collect();
        runs.extend(letters.windows(TRIGRAM).map(|run| run.iter().collect::<String>()));
        // Nothing overlaps from one text to the next.
        runs.extend(std::iter::repeat_n(String::new(), TRIGRAM));
    }
    let mut runs: Vec<(String, usize)> =
        runs.into_iter().zip(0..).filter(|(run, _)| !run.is_empty()).collect();
    runs.sort_unstable();
    runs.dedup_by(|a, b| a.0 == b.0);
    let every = runs.len().div_ceil(LOOKED_AT).max(1);
    let quoted = |run: &str| format!("\"{}\"", run.replace('"', "\"\""));
    let some = runs.iter().step_by(every);
    some.map(|(run, place)| Run { quoted: quoted(run), place: *place, names: 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_some_runs() {
        let asked = |literals: &[&str]| {
            let runs = runs(literals.iter().copied());
            runs.into_iter().map(|run| (run.quoted, run.place)).collect::<Vec<_>>()
        };
        let run = |quoted: &str, place: usize| (quoted.to_owned(), place);
        assert_eq!(asked(&["ab", "", "c"]), []);
        assert_eq!(asked(&["abcd", "xy", "zzz"]), [run("\"abc\"", 0), run("\"bcd\"", 1), run("\"zzz\"", 8)]);
        assert_eq!(asked(&["a\"b"]), [run("\"a\"\"b\"", 0)]);
        let long: String = (0..600u32).filter_map(|number| char::from_u32(0x4e00 + number)).collect();
        assert!((2..=LOOKED_AT).contains(&asked(&[&long]).len()));
    }

    #[test]
    fn the_index_is_asked_for_what_it_can_go_through() {
        let asked = |runs: &[(usize, f64)]| {
            let run =
                |(place, names): &(usize, f64)| Run { quoted: String::new(), place: *place, names: *names };
            light(runs.iter().map(run).collect()).into_iter().map(|run| run.place).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[(0, 9.0), (3, 1.0), (6, 5.0), (9, 7.0)]), [3, 6, 9]);
        // Those that overlap with a rarer one are left out, but for one where it is needed.
        assert_eq!(asked(&[(0, 9.0), (1, 1.0), (2, 2.0), (4, 3.0)]), [1, 4]);
        assert_eq!(asked(&[(0, 9.0), (1, 1.0), (2, 2.0)]), [1, 2]);
        assert_eq!(asked(&[(0, 1.0), (3, GONE_THROUGH - 2.0), (6, GONE_THROUGH)]), [0, 3]);
        assert_eq!(asked(&[(0, 1.0), (3, GONE_THROUGH)]), [0]);
        assert_eq!(asked(&[(0, GONE_THROUGH * 2.0), (3, GONE_THROUGH * 3.0)]), [0]);
    }
}
