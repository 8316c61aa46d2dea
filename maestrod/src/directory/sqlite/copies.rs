//! How many peers have a content. Runs within one snapshot, on a connection that reads.

use p2p_content::ContentHash;
use rusqlite::{Connection, Row, params};

use crate::directory::walking::Budget;
use crate::directory::{Copies, MAX_COPIES, Page};

/// Rows of one content, which may be several of one peer, that are looked at.
const COUNTED_ROWS: u32 = MAX_COPIES;
/// Rows that one step of counting all contents looks at.
const STEP_ROWS: u32 = 200_000;

/// What is counted of one content, its rows coming in order of peers.
struct Count {
    content: [u8; 32],
    here: u32,
    away: u32,
    rows: u32,
    last_peer: Option<i64>,
    /// Of a file of a visible peer: peer, share and name.
    file: Option<(i64, String, i64)>,
}

impl Count {
    fn of(content: [u8; 32]) -> Count {
        Count { content, here: 0, away: 0, rows: 0, last_peer: None, file: None }
    }

    /// Takes a row of peer, its visibility, share, name.
    fn take(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        self.rows += 1;
        let peer = row.get(0)?;
        if self.last_peer.replace(peer) == Some(peer) {
            return Ok(());
        }
        match row.get(1)? {
            true => {
                self.here += 1;
                if self.file.is_none() {
                    self.file = Some((peer, row.get(2)?, row.get(3)?));
                }
            }
            false => self.away += 1,
        }
        Ok(())
    }

    fn finish(self, connection: &Connection) -> rusqlite::Result<Option<Copies>> {
        let Some((peer, share, name_id)) = self.file else { return Ok(None) };
        let sql = "SELECT f.size, n.name FROM files f CROSS JOIN names n ON n.id = f.name_id
                   WHERE f.peer = ?1 AND f.share = ?2 AND f.name_id = ?3";
        let row = connection.prepare_cached(sql)?.query_row(params![peer, share, name_id], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
        });
        let (size, name) = row?;
        let content = ContentHash::from_bytes(self.content);
        Ok(Some(Copies { content, name, size, here: self.here, away: self.away }))
    }
}

pub(super) fn of(connection: &Connection, content: ContentHash) -> rusqlite::Result<Option<Copies>> {
    let mut statement = connection.prepare_cached(
        "SELECT f.peer, p.visible, f.share, f.name_id
         FROM files f INDEXED BY files_by_content CROSS JOIN peers p ON p.id = f.peer
         WHERE f.content = ?1 ORDER BY f.peer LIMIT ?2",
    )?;
    let mut rows = statement.query(params![content.as_bytes(), COUNTED_ROWS])?;
    let mut count = Count::of(*content.as_bytes());
    while let Some(row) = rows.next()? {
        count.take(row)?;
    }
    count.finish(connection)
}

/// Different contents after this one, and the last that was looked at, if there may be more.
pub(super) fn count(
    connection: &Connection,
    after: Option<ContentHash>,
) -> rusqlite::Result<(u64, Option<ContentHash>)> {
    let after = after.map(|after| after.as_bytes().to_vec()).unwrap_or_default();
    let sql = "SELECT count(DISTINCT content), max(content), count(*) FROM
               (SELECT content FROM files INDEXED BY files_by_content WHERE content > ?1 ORDER BY content LIMIT ?2)";
    connection.prepare_cached(sql)?.query_row(params![after, STEP_ROWS], |row| {
        let last = row.get::<_, Option<[u8; 32]>>(1)?.map(ContentHash::from_bytes);
        Ok((row.get(0)?, last.filter(|_| row.get(2) == Ok(STEP_ROWS))))
    })
}

pub(super) fn contents(
    connection: &Connection,
    most_copies: Option<u32>,
    after: Option<ContentHash>,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<Page<Copies, ContentHash>> {
    let mut statement = connection.prepare_cached(
        "SELECT f.peer, p.visible, f.share, f.name_id, f.content
         FROM files f INDEXED BY files_by_content CROSS JOIN peers p ON p.id = f.peer
         WHERE f.content > ?1 ORDER BY f.content, f.peer",
    )?;
    let mut items = Vec::new();
    let mut from = after.map(|after| after.as_bytes().to_vec()).unwrap_or_default();
    let mut keep = |count: Count| {
        let copies = count.finish(connection)?;
        items.extend(copies.filter(|copies| most_copies.is_none_or(|most| copies.here <= most)));
        Ok::<_, rusqlite::Error>(items.len() >= limit)
    };
    // Goes round for each content with more rows than are counted, which are stepped over.
    let next = 'list: loop {
        let mut rows = statement.query([&from])?;
        let mut open: Option<Count> = None;
        loop {
            let Some(row) = rows.next()? else {
                if let Some(last) = open {
                    keep(last)?;
                }
                break 'list None;
            };
            budget.spend(1);
            let content = row.get(4)?;
            if let Some(done) = open.take_if(|count| count.content != content) {
                let position = ContentHash::from_bytes(done.content);
                if keep(done)? || budget.is_spent() {
                    break 'list Some(position);
                }
            }
            let count = open.get_or_insert_with(|| Count::of(content));
            count.take(row)?;
            if count.rows >= COUNTED_ROWS {
                from = content.to_vec();
                if let Some(done) = open.take()
                    && (keep(done)? || budget.is_spent())
                {
                    break 'list Some(ContentHash::from_bytes(content));
                }
                break;
            }
        }
    };
    Ok(Page { items, next })
}
