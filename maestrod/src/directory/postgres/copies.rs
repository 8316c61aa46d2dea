//! How many peers have a content.

use data_encoding::HEXLOWER_PERMISSIVE;
use p2p_content::ContentHash;
use tokio_postgres::Row;

use super::connections::Failure;
use super::lent::Client;
use super::rows;
use crate::directory::walking::Budget;
use crate::directory::{Copies, MAX_COPIES, Page};

/// Rows of one content, which may be several of one peer, that are looked at.
const COUNTED_ROWS: usize = MAX_COPIES as usize;
/// Fewest rows that are read at once for a list.
const LEAST_ROWS: usize = 200;
/// Rows that one step of counting all contents looks at.
const STEP_ROWS: i64 = 200_000;

/// What is counted of one content, its rows coming in order of peers.
struct Count {
    content: ContentHash,
    here: u32,
    away: u32,
    last_peer: Option<i64>,
    /// Name and size of a file of a visible peer.
    file: Option<(String, u64)>,
}

impl Count {
    fn of(content: ContentHash) -> Count {
        Count { content, here: 0, away: 0, last_peer: None, file: None }
    }

    /// Takes a row of content, peer, its visibility, name and size.
    fn take(&mut self, row: &Row) {
        let peer = row.get(1);
        if self.last_peer.replace(peer) == Some(peer) {
            return;
        }
        match row.get(2) {
            true => {
                self.here += 1;
                self.file.get_or_insert_with(|| {
                    let name = String::from_utf8_lossy(row.get(3)).into_owned();
                    (name, row.get::<_, i64>(4).cast_unsigned())
                });
            }
            false => self.away += 1,
        }
    }

    fn finish(self) -> Option<Copies> {
        let (name, size) = self.file?;
        Some(Copies { content: self.content, name, size, here: self.here, away: self.away })
    }
}

pub(super) async fn of(client: Client, content: ContentHash) -> Result<Option<Copies>, Failure> {
    let sql = "SELECT f.content, f.peer, p.visible, f.name, f.size FROM files f JOIN peers p ON p.id = f.peer
               WHERE f.content = $1 ORDER BY f.peer LIMIT $2";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&&content.as_bytes()[..], &(COUNTED_ROWS as i64)]).await?;
    let mut count = Count::of(content);
    rows.iter().for_each(|row| count.take(row));
    Ok(count.finish())
}

/// Different contents after this one, and the last that was looked at, if there may be more.
pub(super) async fn count(
    client: Client,
    after: Option<ContentHash>,
) -> Result<(u64, Option<ContentHash>), Failure> {
    let after = after.map(|after| after.as_bytes().to_vec()).unwrap_or_default();
    // The largest as a text: of bytes not every database tells it.
    let sql = "SELECT count(DISTINCT content), max(encode(content, 'hex')), count(*) FROM
               (SELECT content FROM files WHERE content > $1 ORDER BY content LIMIT $2) AS counted";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[&after, &STEP_ROWS]).await?;
    let last = row.get::<_, Option<&str>>(1).filter(|_| row.get::<_, i64>(2) == STEP_ROWS);
    let last = last.and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
    let last = last.map(|last| rows::array(&last)).transpose()?.map(ContentHash::from_bytes);
    Ok((row.get::<_, i64>(0).cast_unsigned(), last))
}

pub(super) async fn contents(
    client: Client,
    most_copies: Option<u32>,
    after: Option<ContentHash>,
    limit: usize,
) -> Result<Page<Copies, ContentHash>, Failure> {
    let sql = "SELECT f.content, f.peer, p.visible, f.name, f.size FROM files f JOIN peers p ON p.id = f.peer
               WHERE f.content > $1 ORDER BY f.content, f.peer LIMIT $2";
    let statement = client.prepare_cached(sql).await?;
    let mut budget = Budget::new(Budget::ROWS);
    let (mut items, mut from) = (Vec::new(), after);
    let mut chunk = limit.saturating_mul(2).clamp(LEAST_ROWS, COUNTED_ROWS);
    loop {
        let start = from.map(|from| from.as_bytes().to_vec()).unwrap_or_default();
        let rows = client.query(&statement, &[&start, &(chunk as i64)]).await?;
        budget.spend(rows.len());
        let exhausted = rows.len() < chunk;
        let mut counts: Vec<Count> = Vec::new();
        for row in &rows {
            let content = ContentHash::from_bytes(rows::array::<32>(row.get(0))?);
            if counts.last().is_none_or(|count| count.content != content) {
                counts.push(Count::of(content));
            }
            if let Some(count) = counts.last_mut() {
                count.take(row);
            }
        }
        // There may be more rows of the last: it is read again with the next ones, unless that many are counted.
        if !exhausted && (counts.len() > 1 || chunk < COUNTED_ROWS) {
            counts.pop();
        }
        for count in counts {
            let content = count.content;
            from = Some(content);
            let copies = count.finish();
            items.extend(copies.filter(|copies| most_copies.is_none_or(|most| copies.here <= most)));
            if items.len() >= limit {
                return Ok(Page { items, next: from });
            }
        }
        if exhausted {
            return Ok(Page { items, next: None });
        }
        if budget.is_spent() && from != after {
            return Ok(Page { items, next: from });
        }
        chunk = (chunk * 4).min(COUNTED_ROWS);
    }
}
