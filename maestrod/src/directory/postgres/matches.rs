//! What a pattern matches: ranked, where the text index finds few enough names to sort all of them, and else batch by batch
//! in the order in which the index came to have the names: it has none of its own that could be gone through in parts.

use tokio_postgres::types::Type;

use super::connections::Failure;
use super::holders::{self, Holders};
use super::lent::Client;
use super::{find, names, noted, rows, text};
use crate::directory::group::{by_content, unseen};
use crate::directory::ranking::{BATCH, OPENED, ranked};
use crate::directory::walking::{Budget, FEW, Filter};
use crate::directory::{
    BatchPosition, BatchSeen, DirectoryError, FindPosition, Found, FoundPage, NamePosition, Order, Page,
    Pattern, RankPosition, Through,
};

/// Most names that are looked at for a batch.
const MOST: usize = 20_000;

type FindPage = Page<Found, FindPosition>;

pub(super) async fn find(
    client: Client,
    pattern: &Pattern,
    after: Option<&FindPosition>,
    limit: usize,
) -> Result<FoundPage, Failure> {
    let mut budget = Budget::new(Budget::ROWS);
    let question = text::question(pattern.literals());
    let (page, order) = match after {
        Some(FindPosition::Name(at)) => {
            (by_name(&client, pattern, Some(at), limit, &mut budget).await?, Order::Name)
        }
        Some(FindPosition::Batches(place)) if !question.is_empty() => {
            let place = place.clone();
            (batches(&client, (pattern, &question), place, limit, &mut budget).await?, Order::Batches)
        }
        Some(FindPosition::Batches(_)) => return Err(DirectoryError::Position.into()),
        None | Some(FindPosition::Rank(_)) => match names::candidates(&client, &question, FEW).await? {
            None if after.is_some() => return Err(DirectoryError::Position.into()),
            None => (by_name(&client, pattern, None, limit, &mut budget).await?, Order::Name),
            Some(candidates) if candidates.more && after.is_none() => {
                let opened = opened(&client, pattern).await?.is_some();
                let first = BatchPosition { opened, after: Vec::new(), seen: None };
                (batches(&client, (pattern, &question), first, limit, &mut budget).await?, Order::Batches)
            }
            // A list that began by rank goes on so. What has come since in such numbers is not in it.
            Some(candidates) => {
                let seen = match after {
                    Some(FindPosition::Rank(seen)) => Some(seen),
                    _ => None,
                };
                budget.spend(candidates.names.len());
                let names = candidates.names.into_iter().map(|name| (name, ()));
                let names = ranked(pattern, names, seen);
                let told = tell(&client, names, seen, limit, &mut budget).await?;
                (Page { items: told.0, next: told.1.map(FindPosition::Rank) }, Order::Rank)
            }
        },
    };
    let unindexed = noted::behind(&client).await?;
    Ok(FoundPage { items: page.items, next: page.next, order, unindexed })
}

async fn by_name(
    client: &Client,
    pattern: &Pattern,
    after: Option<&NamePosition>,
    limit: usize,
    budget: &mut Budget,
) -> Result<FindPage, Failure> {
    let page = find::named(client, &Filter::of(pattern), after, limit, budget).await?;
    Ok(Page { items: page.items, next: page.next.map(FindPosition::Name) })
}

/// Goes on from the place in batches, until the page is full or the budget is spent.
async fn batches(
    client: &Client,
    (pattern, question): (&Pattern, &[i32]),
    place: BatchPosition,
    limit: usize,
    budget: &mut Budget,
) -> Result<FindPage, Failure> {
    let BatchPosition { opened: has_opened, after, mut seen } = place;
    let (mut after, mut items, mut most) = (row_of(&after)?, Vec::new(), BATCH);
    loop {
        let (end, looked_at) = match &seen {
            None => (i64::MAX, most),
            Some(seen) => (row_of(&seen.through)?, MOST),
        };
        most = (most * 4).min(MOST);
        let batch = Batch::read(client, question, (after, end), looked_at).await?;
        budget.spend(batch.looked_at);
        let is_full = batch.looked_at == looked_at;
        // That is all of it, but for what a forged position may say.
        let through = if is_full { batch.last } else { end };
        let mut more = is_full || seen.is_some();
        let mut names: Vec<(String, ())> = batch.names.into_iter().map(|name| (name, ())).collect();
        if has_opened {
            match after {
                0 => {
                    let opened = opened(client, pattern).await?.unwrap_or_default();
                    names.extend(opened.into_iter().map(|name| (name, ())));
                }
                _ => names.retain(|(name, ())| !pattern.opens(name)),
            }
        }
        let last = seen.take().map(|seen| seen.last);
        let names = ranked(pattern, names, last.as_ref());
        let room = limit.saturating_sub(items.len());
        let (told, stopped) = tell(client, names, last.as_ref(), room, budget).await?;
        items.extend(told);
        more |= stopped.is_some();
        if stopped.is_none() {
            after = through.max(after);
        }
        if !more {
            return Ok(Page { items, next: None });
        }
        if stopped.is_some() || items.len() >= limit || budget.is_spent() {
            let seen = stopped.map(|last| BatchSeen { through: through.to_be_bytes().to_vec(), last });
            let after = if after == 0 { Vec::new() } else { after.to_be_bytes().to_vec() };
            let next = BatchPosition { opened: has_opened, after, seen };
            return Ok(Page { items, next: Some(FindPosition::Batches(next)) });
        }
    }
}

/// The row of a place.
fn row_of(place: &[u8]) -> Result<i64, DirectoryError> {
    match place.try_into() {
        Ok(row) => Ok(i64::from_be_bytes(row)),
        Err(_) if place.is_empty() => Ok(0),
        Err(_) => Err(DirectoryError::Position),
    }
}

/// Names that follow each other in the index.
struct Batch {
    /// Those among them that may match; with the last, also what the index does not have yet.
    names: Vec<String>,
    looked_at: usize,
    last: i64,
}

impl Batch {
    /// Those after a row, through another, at most so many.
    async fn read(
        client: &Client,
        question: &[i32],
        (after, through): (i64, i64),
        most: usize,
    ) -> Result<Batch, Failure> {
        let mut tail = Vec::new();
        if after < i64::MAX && through == i64::MAX {
            tail = noted::tail(client).await?;
        }
        let sql = "WITH batch AS (
                     SELECT id, name, trigrams @> $4 AS likely FROM texts
                     WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3
                   )
                   SELECT id, name, 0 AS names FROM batch WHERE likely
                   UNION ALL
                   SELECT id, name, (SELECT count(*) FROM batch) AS names FROM
                   (SELECT id, name FROM batch ORDER BY id DESC LIMIT 1) AS last";
        let types = [Type::INT8, Type::INT8, Type::INT8, Type::INT4_ARRAY];
        let statement = client.prepare_typed_cached(sql, &types).await?;
        let rows = client.query(&statement, &[&after, &through, &(most as i64), &question]).await?;
        let mut batch = Batch { names: Vec::with_capacity(rows.len()), looked_at: 0, last: after };
        for row in rows {
            match row.get::<_, i64>(2) {
                0 => batch.names.push(rows::name(row.get(1))),
                names => {
                    batch.looked_at = usize::try_from(names).unwrap_or(0);
                    batch.last = row.get(0);
                }
            }
        }
        if batch.looked_at < most {
            batch.names.extend(tail);
        }
        Ok(batch)
    }
}

/// The names that the pattern opens, if a few looks find all of them.
async fn opened(client: &Client, pattern: &Pattern) -> Result<Option<Vec<String>>, Failure> {
    let Some(text) = pattern.opening() else { return Ok(None) };
    let sql = "SELECT name FROM files WHERE name >= $1 ORDER BY name LIMIT 1";
    let statement = client.prepare_cached(sql).await?;
    let (mut names, mut from) = (Vec::new(), text.to_owned());
    for _ in 0..OPENED {
        let Some(row) = client.query_opt(&statement, &[&from.as_bytes()]).await? else {
            return Ok(Some(names));
        };
        let name = rows::name(row.get(0));
        let Some(rest) = name.strip_prefix(text) else { return Ok(Some(names)) };
        from = match rest.find('/') {
            // Past all that is in that directory: after a slash comes a zero.
            Some(slash) => format!("{}0", &name[..text.len() + slash]),
            None => {
                let from = format!("{name}\0");
                names.push(name);
                from
            }
        };
    }
    Ok(None)
}

/// Who has these names, in order, but for what was seen; and the last one told where there are more of them than room, or the
/// budget is spent.
async fn tell(
    client: &Client,
    names: Vec<(u8, String, ())>,
    seen: Option<&RankPosition>,
    room: usize,
    budget: &mut Budget,
) -> Result<(Vec<Found>, Option<RankPosition>), Failure> {
    let mut found: Vec<(u8, Found)> = Vec::new();
    let stripped = |found: Vec<(u8, Found)>| found.into_iter().map(|(_, found)| found).collect();
    let mut left = names.as_slice();
    while !left.is_empty() {
        let some: Vec<String> =
            left.iter().take(names::together(room)).map(|(_, name, ())| name.clone()).collect();
        let held = holders::of_names(client, &some, Holders::First { own: None }, budget).await?;
        let (told, rest) = left.split_at(held.len());
        for ((rank, name, ()), holdings) in told.iter().zip(held) {
            let groups = unseen(by_content(holdings), name, seen.map(|seen| &seen.at));
            found.extend(groups.map(|group| (*rank, Found::from(group))));
            if found.len() > room {
                found.truncate(room);
                let last = found.last().map(|(rank, last)| {
                    let through = Through::Content(last.file.content);
                    RankPosition { rank: *rank, at: NamePosition { name: last.file.name.clone(), through } }
                });
                return Ok((stripped(found), last));
            }
        }
        if let (true, Some((rank, name, ()))) = (budget.is_spent(), told.last()) {
            let at = NamePosition { name: name.clone(), through: Through::Name };
            return Ok((stripped(found), Some(RankPosition { rank: *rank, at })));
        }
        left = rest;
    }
    Ok((stripped(found), None))
}
