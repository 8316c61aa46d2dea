//! What a pattern matches: ranked, where the text index finds few enough names to sort all of them, and else batch by batch
//! in the order of the files' key.
//!
//! That order is by peer, so what matches is about everywhere in it: the index itself has none that could be gone through in
//! parts. A name is told with the first of the visible peers that have it.

use tokio_postgres::types::{ToSql, Type};

use super::connections::Failure;
use super::holders::{self, Holders};
use super::lent::Client;
use super::{find, names, text};
use crate::directory::group::{Holding, by_content, unseen};
use crate::directory::ranking::{BATCH, OPENED, ranked};
use crate::directory::walking::{Budget, FEW, Filter};
use crate::directory::{
    BatchPosition, BatchSeen, DirectoryError, FindPosition, Found, FoundPage, NamePosition, Order, Page,
    Pattern, RankPosition, Through,
};

/// Most files of a batch.
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
                let told = tell(&client, names, seen, limit, |_, _| true, &mut budget).await?;
                (Page { items: told.0, next: told.1.map(FindPosition::Rank) }, Order::Rank)
            }
        },
    };
    Ok(FoundPage { items: page.items, next: page.next, order, unindexed: 0 })
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
    let (mut after, mut items, mut most) = (Place::of(&after)?, Vec::new(), BATCH);
    loop {
        let (end, files) = match &seen {
            None => (Place::end(), most),
            Some(seen) => (Place::of(&seen.through)?, MOST),
        };
        most = (most * 4).min(MOST);
        let batch = Batch::read(client, question, &after, &end, files).await?;
        budget.spend(batch.files);
        let is_full = batch.files == files;
        // That is all of it, but for what a forged position may say.
        let through = if is_full { batch.last } else { end };
        let mut more = is_full || seen.is_some();
        let mut names: Vec<(String, ())> = batch.names.into_iter().map(|name| (name, ())).collect();
        let with_opened = has_opened && after == Place::start();
        if with_opened {
            let opened = opened(client, pattern).await?.unwrap_or_default();
            names.extend(opened.into_iter().map(|name| (name, ())));
        } else if has_opened {
            names.retain(|(name, ())| !pattern.opens(name));
        }
        let last = seen.take().map(|seen| seen.last);
        let names = ranked(pattern, names, last.as_ref());
        // Who had it in an earlier batch told it there, and who has it first in a later one will.
        let is_told_here = |name: &str, held: &[Holding]| {
            let first = held.iter().map(|holding| (holding.peer, holding.file.share.as_bytes())).min();
            let is_here = |(peer, share)| {
                let place = (peer, share, name.as_bytes());
                place > after.key() && place <= through.key()
            };
            with_opened && pattern.opens(name) || first.is_some_and(is_here)
        };
        let room = limit.saturating_sub(items.len());
        let (told, stopped) = tell(client, names, last.as_ref(), room, is_told_here, budget).await?;
        items.extend(told);
        more |= stopped.is_some();
        if stopped.is_none() && through > after {
            after = through.clone();
        }
        if !more {
            return Ok(Page { items, next: None });
        }
        if stopped.is_some() || items.len() >= limit || budget.is_spent() {
            let seen = stopped.map(|last| BatchSeen { through: through.to_bytes(), last });
            let next = BatchPosition { opened: has_opened, after: after.to_bytes(), seen };
            return Ok(Page { items, next: Some(FindPosition::Batches(next)) });
        }
    }
}

/// A place in the order of the files' key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    peer: i64,
    share: Vec<u8>,
    name: Vec<u8>,
}

impl Place {
    fn start() -> Place {
        Place { peer: i64::MIN, share: Vec::new(), name: Vec::new() }
    }

    fn end() -> Place {
        Place { peer: i64::MAX, share: Vec::new(), name: Vec::new() }
    }

    fn key(&self) -> (i64, &[u8], &[u8]) {
        (self.peer, &self.share, &self.name)
    }

    /// The place that [`to_bytes`](Place::to_bytes) made these of.
    fn of(bytes: &[u8]) -> Result<Place, DirectoryError> {
        if bytes.is_empty() {
            return Ok(Place::start());
        }
        let read = || {
            let (peer, rest) = bytes.split_first_chunk::<8>()?;
            let (len, rest) = rest.split_first()?;
            let (share, name) = rest.split_at_checked(usize::from(*len))?;
            Some(Place { peer: i64::from_be_bytes(*peer), share: share.to_vec(), name: name.to_vec() })
        };
        read().ok_or(DirectoryError::Position)
    }

    fn to_bytes(&self) -> Vec<u8> {
        if *self == Place::start() {
            return Vec::new();
        }
        // A share's name has 255 bytes at the most.
        let len = [u8::try_from(self.share.len()).unwrap_or(u8::MAX)];
        [&self.peer.to_be_bytes()[..], &len, &self.share, &self.name].concat()
    }
}

/// Files that follow each other in the key.
struct Batch {
    /// The names among them that may match.
    names: Vec<String>,
    files: usize,
    last: Place,
}

impl Batch {
    async fn read(
        client: &Client,
        question: &[i32],
        after: &Place,
        through: &Place,
        most: usize,
    ) -> Result<Batch, Failure> {
        let sql = "WITH batch AS (
                     SELECT peer, share, name, trigrams @> $8 AS likely FROM files
                     WHERE (peer, share, name) > ($1, $2, $3) AND (peer, share, name) <= ($4, $5, $6)
                     ORDER BY peer, share, name LIMIT $7
                   )
                   SELECT peer, share, name, 0 AS files FROM batch WHERE likely
                   UNION ALL
                   SELECT peer, share, name, (SELECT count(*) FROM batch) AS files FROM
                   (SELECT peer, share, name FROM batch ORDER BY peer DESC, share DESC, name DESC LIMIT 1) AS last";
        let types = [
            Type::INT8,
            Type::BYTEA,
            Type::BYTEA,
            Type::INT8,
            Type::BYTEA,
            Type::BYTEA,
            Type::INT8,
            Type::INT4_ARRAY,
        ];
        let statement = client.prepare_typed_cached(sql, &types).await?;
        let most = most as i64;
        let values: [&(dyn ToSql + Sync); 8] = [
            &after.peer,
            &after.share,
            &after.name,
            &through.peer,
            &through.share,
            &through.name,
            &most,
            &question,
        ];
        let rows = client.query(&statement, &values).await?;
        let mut batch = Batch { names: Vec::with_capacity(rows.len()), files: 0, last: after.clone() };
        for row in rows {
            match row.get::<_, i64>(3) {
                0 => batch.names.push(names::name(row.get(2))),
                files => {
                    batch.files = usize::try_from(files).unwrap_or(0);
                    batch.last = Place { peer: row.get(0), share: row.get(1), name: row.get(2) };
                }
            }
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
        let name = names::name(row.get(0));
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

/// Who has these names, in order, but for what was seen and what is not told here; and the last one told where there are more
/// of them than room, or the budget is spent.
async fn tell(
    client: &Client,
    names: Vec<(u8, String, ())>,
    seen: Option<&RankPosition>,
    room: usize,
    is_told_here: impl Fn(&str, &[Holding]) -> bool,
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
            if !is_told_here(name, &holdings) {
                continue;
            }
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
