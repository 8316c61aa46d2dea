//! Who has a name or a content, by peer. Of what very many have, a part is looked at: the first of them where pages are to
//! hold together, and where somebody is to be sent to them, those from a peer on that is drawn anew for each question.

use std::ops::Range;
use std::sync::LazyLock;

use p2p_content::ContentHash;
use rusqlite::{Connection, Row, ToSql, params};

use super::peers;
use crate::directory::group::{HOLDERS, Holding};
use crate::directory::walking::Budget;
use crate::directory::{FileRecord, PeerRecord};

/// Holders of a name that are looked at together with who they are.
const TOGETHER: usize = 20;
/// Columns that [`holding`] reads.
const HOLDING_COLUMNS: usize = 6;

/// Who some peers are, by their rows.
pub(super) type Known = Vec<(i64, PeerRecord)>;

/// What is asked most, in one statement.
pub(super) static FEW_OF_NAME: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT f.peer, f.share, f.content, f.size, f.modified_ms, n.name, {}
         FROM names n CROSS JOIN files f NOT INDEXED ON f.name_id = n.id CROSS JOIN peers p ON p.id = f.peer
         WHERE n.name = ?1 ORDER BY f.peer",
        peers::RECORD_OF_P
    )
});
pub(super) const OF_NAME: &str = "SELECT f.peer, f.share, f.content, f.size, f.modified_ms, ?4, p.visible
    FROM files f NOT INDEXED CROSS JOIN peers p ON p.id = f.peer
    WHERE f.name_id = ?1 AND f.peer >= ?2 AND f.peer < ?3 ORDER BY f.peer";
const OF_CONTENT: &str =
    "SELECT f.peer, f.share, f.content, f.size, f.modified_ms, coalesce(?4, n.name), p.visible
    FROM files f INDEXED BY files_by_content
    CROSS JOIN peers p ON p.id = f.peer CROSS JOIN names n ON n.id = f.name_id
    WHERE f.content = ?1 AND f.peer >= ?2 AND f.peer < ?3 ORDER BY f.peer";

/// What visible peers have under this name, and who they are; `None` where more than [`TOGETHER`] rows tell of it, those of
/// hidden peers too: of so many only some are worth looking up.
pub(super) fn few_of_name(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<(Vec<Holding>, Known)>> {
    let mut statement = connection.prepare_cached(&FEW_OF_NAME)?;
    let mut rows = statement.query([name])?;
    let (mut holdings, mut known, mut looked) = (Vec::new(), Known::new(), 0);
    while let Some(row) = rows.next()? {
        if looked == TOGETHER {
            return Ok(None);
        }
        looked += 1;
        let peer = peers::record_from(row, HOLDING_COLUMNS)?;
        if peer.visible {
            holdings.push(holding(row)?);
            known.push((row.get(0)?, peer));
        }
    }
    Ok(Some((holdings, known)))
}

/// What visible peers have under this name: at most [`HOLDERS`], the first of them. Those of `own`, a peer's row,
/// are among them.
pub(super) fn of_name(
    connection: &Connection,
    (name, id): (&str, i64),
    own: Option<i64>,
    budget: &mut Budget,
) -> rusqlite::Result<Vec<Holding>> {
    let mut looked = Looked::new();
    looked.at(connection, OF_NAME, (id, Some(name)), i64::MIN..i64::MAX)?;
    if let Some(own) = own
        && looked.is_full
        && looked.found.iter().all(|holding| holding.peer != own)
    {
        let mut theirs = Looked::new();
        theirs.at(connection, OF_NAME, (id, Some(name)), own..own.saturating_add(1))?;
        looked.found.truncate(HOLDERS - 1);
        looked.found.append(&mut theirs.found);
    }
    budget.spend(looked.rows);
    Ok(looked.found)
}

/// The same of whoever has it, drawn where there are more than [`HOLDERS`].
pub(super) fn drawn_of_name(
    connection: &Connection,
    (name, id): (&str, i64),
    budget: &mut Budget,
) -> rusqlite::Result<Vec<Holding>> {
    drawn(connection, OF_NAME, (id, Some(name)), budget)
}

/// Which visible peers have a content, under whatever names; drawn where there are more than [`HOLDERS`].
pub(super) fn drawn_of_content(
    connection: &Connection,
    content: &ContentHash,
) -> rusqlite::Result<Vec<Holding>> {
    drawn(connection, OF_CONTENT, (content.as_bytes(), None), &mut Budget::new(Budget::ROWS))
}

fn drawn(
    connection: &Connection,
    sql: &str,
    key: (impl ToSql + Copy, Option<&str>),
    budget: &mut Budget,
) -> rusqlite::Result<Vec<Holding>> {
    let mut first = Looked::new();
    first.at(connection, sql, key, i64::MIN..i64::MAX)?;
    budget.spend(first.rows);
    if !first.is_full {
        return Ok(first.found);
    }
    let sql_of_last = "SELECT coalesce(max(id), 0) FROM peers";
    let last: i64 = connection.prepare_cached(sql_of_last)?.query_row([], |row| row.get(0))?;
    let from = rand::random_range(0..=last.max(0));
    let mut found = Looked::new();
    found.at(connection, sql, key, from..i64::MAX)?;
    if !found.is_full {
        found.at(connection, sql, key, i64::MIN..from)?;
    }
    budget.spend(found.rows);
    Ok(found.found)
}

/// What was found, within what one question may look at.
struct Looked {
    found: Vec<Holding>,
    rows: usize,
    is_full: bool,
}

impl Looked {
    fn new() -> Looked {
        Looked { found: Vec::new(), rows: 0, is_full: false }
    }

    fn at(
        &mut self,
        connection: &Connection,
        sql: &str,
        (key, name): (impl ToSql, Option<&str>),
        peers: Range<i64>,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![key, peers.start, peers.end, name])?;
        while let Some(row) = rows.next()? {
            // Whoever is not here counts as work.
            self.is_full = self.found.len() >= HOLDERS || self.rows >= Budget::ROWS;
            if self.is_full {
                break;
            }
            self.rows += 1;
            if row.get(6)? {
                self.found.push(holding(row)?);
            }
        }
        Ok(())
    }
}

/// The row of peer, share, content, size, time of modification and name.
pub(super) fn holding(row: &Row<'_>) -> rusqlite::Result<Holding> {
    Ok(Holding {
        peer: row.get(0)?,
        file: FileRecord {
            share: row.get(1)?,
            name: row.get(5)?,
            content: row.get::<_, Option<[u8; 32]>>(2)?.map(ContentHash::from_bytes),
            size: row.get::<_, i64>(3)?.cast_unsigned(),
            modified_ms: row.get(4)?,
        },
    })
}
