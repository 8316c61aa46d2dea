//! Who has a name or a content, by peer. Of what very many have, a part is looked at: the first of them where pages are to
//! hold together, and where somebody is to be sent to them, those from a peer on that is drawn anew for each question.

use std::collections::HashMap;
use std::ops::Range;

use super::connections::Failure;
use super::lent::Client;
use super::peers;
use super::rows::holding;
use crate::directory::PeerRecord;
use crate::directory::group::{HOLDERS, Holding};
use crate::directory::walking::Budget;

/// Holders of each name that are asked for together with those of other names. Who has more is asked for alone.
const TOGETHER: usize = 100;
/// Columns that [`holding`] reads.
const HOLDING_COLUMNS: usize = 6;
/// Names whose holders are asked for at once.
const NAMES: usize = 1000;

/// Which of the visible holders of a name are wanted, where there are more than [`HOLDERS`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Holders {
    /// The first, and among them this peer's row.
    First { own: Option<i64> },
    /// Any.
    Drawn,
}

/// What is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    Name(&'a [u8]),
    Content(&'a [u8]),
}

impl<'a> Key<'a> {
    /// The column that has it, and what is in there.
    fn column(self) -> (&'static str, &'a [u8]) {
        match self {
            Key::Name(name) => ("name", name),
            Key::Content(content) => ("content", content),
        }
    }
}

/// Who has these names visibly, of each in order of peers: of as many of the names, the first one at least, as the budget is
/// enough for.
pub(super) async fn of_names(
    client: &Client,
    names: &[String],
    holders: Holders,
    budget: &mut Budget,
) -> Result<Vec<Vec<Holding>>, Failure> {
    let mut held = Vec::with_capacity(names.len());
    for names in names.chunks(NAMES) {
        let mut few = few_of_each(client, names).await?;
        for name in names {
            let mut holdings = few.remove(name).unwrap_or_default();
            if holdings.len() > TOGETHER {
                holdings = match holders {
                    Holders::First { own } => first(client, name.as_bytes(), own).await?,
                    Holders::Drawn => drawn(client, Key::Name(name.as_bytes())).await?,
                };
            }
            budget.spend(holdings.len());
            held.push(holdings);
            if budget.is_spent() {
                return Ok(held);
            }
        }
    }
    Ok(held)
}

/// The first holders of each of these names, one more than [`TOGETHER`] at the most.
async fn few_of_each(client: &Client, names: &[String]) -> Result<HashMap<String, Vec<Holding>>, Failure> {
    let sql = "SELECT h.peer, h.share, n.name, h.content, h.size, h.modified_ms
               FROM unnest($1::BYTEA[]) AS n (name) CROSS JOIN LATERAL
               (SELECT f.peer, f.share, f.content, f.size, f.modified_ms FROM
                (SELECT peer, share, content, size, modified_ms FROM files WHERE name = n.name ORDER BY peer LIMIT $2) AS f
                JOIN peers p ON p.id = f.peer WHERE p.visible ORDER BY f.peer LIMIT $3) AS h
               ORDER BY n.name, h.peer";
    let keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let statement = client.prepare_cached(sql).await?;
    let (rows, most) = (Budget::ROWS as i64, TOGETHER as i64 + 1);
    let mut held: HashMap<String, Vec<Holding>> = HashMap::with_capacity(names.len());
    for row in &client.query(&statement, &[&keys, &rows, &most]).await? {
        let holding = holding(row)?;
        match held.get_mut(&holding.file.name) {
            Some(holdings) => holdings.push(holding),
            None => {
                held.insert(holding.file.name.clone(), vec![holding]);
            }
        }
    }
    Ok(held)
}

/// The first visible holders of a name, with what `own` has under it.
async fn first(client: &Client, name: &[u8], own: Option<i64>) -> Result<Vec<Holding>, Failure> {
    let mut holdings = some(client, Key::Name(name), i64::MIN..i64::MAX, HOLDERS).await?;
    if let Some(own) = own
        && holdings.len() == HOLDERS
        && holdings.iter().all(|holding| holding.peer != own)
    {
        holdings.pop();
        holdings.extend(some(client, Key::Name(name), own..own.saturating_add(1), HOLDERS).await?);
    }
    Ok(holdings)
}

/// Who has it visibly, in the order of peers, and who they are; `None` where they are more than [`TOGETHER`], of whom only some
/// are worth looking up.
pub(super) async fn few(
    client: &Client,
    key: Key<'_>,
) -> Result<Option<(Vec<Holding>, HashMap<i64, PeerRecord>)>, Failure> {
    let (column, value) = key.column();
    let sql = format!(
        "SELECT f.peer, f.share, f.name, f.content, f.size, f.modified_ms, {} FROM
         (SELECT peer, share, name, content, size, modified_ms FROM files
          WHERE {column} = $1 ORDER BY peer LIMIT $2) AS f
         JOIN peers p ON p.id = f.peer WHERE p.visible ORDER BY f.peer LIMIT $3",
        peers::RECORD_OF_P
    );
    let statement = client.prepare_cached(&sql).await?;
    let (rows, most) = (Budget::ROWS as i64, TOGETHER as i64 + 1);
    let rows = client.query(&statement, &[&value, &rows, &most]).await?;
    if rows.len() > TOGETHER {
        return Ok(None);
    }
    let peers = rows.iter().map(|row| (row.get(0), peers::record_from(row, HOLDING_COLUMNS))).collect();
    Ok(Some((rows.iter().map(holding).collect::<Result<_, _>>()?, peers)))
}

/// Who has it visibly, in the order of peers; drawn where there are more than [`HOLDERS`].
pub(super) async fn drawn(client: &Client, key: Key<'_>) -> Result<Vec<Holding>, Failure> {
    let all = some(client, key, i64::MIN..i64::MAX, HOLDERS + 1).await?;
    if all.len() <= HOLDERS {
        return Ok(all);
    }
    let last: i64 = client.query_one("SELECT coalesce(max(id), 0) FROM peers", &[]).await?.get(0);
    let from = rand::random_range(0..=last.max(0));
    let mut found = some(client, key, from..i64::MAX, HOLDERS).await?;
    found.extend(some(client, key, i64::MIN..from, HOLDERS - found.len()).await?);
    Ok(found)
}

/// Who has it visibly among these peers: the first, at most `most`, of as many rows as one question may look at.
async fn some(
    client: &Client,
    key: Key<'_>,
    peers: Range<i64>,
    most: usize,
) -> Result<Vec<Holding>, Failure> {
    let (column, key) = key.column();
    let sql = format!(
        "SELECT f.peer, f.share, f.name, f.content, f.size, f.modified_ms FROM
         (SELECT peer, share, name, content, size, modified_ms FROM files
          WHERE {column} = $1 AND peer >= $2 AND peer < $3 ORDER BY peer LIMIT $4) AS f
         JOIN peers p ON p.id = f.peer WHERE p.visible ORDER BY f.peer LIMIT $5"
    );
    let statement = client.prepare_cached(&sql).await?;
    let (rows, most) = (Budget::ROWS as i64, most as i64);
    let rows = client.query(&statement, &[&key, &peers.start, &peers.end, &rows, &most]).await?;
    rows.iter().map(holding).collect()
}
