//! What a pattern matches: ranked, where the text index finds few enough names to sort all of them, and else batch by batch
//! in the order of the index.

use rusqlite::{Connection, OptionalExtension, params};

use super::holders;
use super::text::{self, Rows};
use crate::directory::group::{by_content, unseen};
use crate::directory::ranking::{BATCH, OPENED, ranked};
use crate::directory::walking::{Budget, FEW, Filter};
use crate::directory::{
    BatchPosition, BatchSeen, DirectoryError, FindPosition, Found, FoundPage, NamePosition, Order, Page,
    Pattern, RankPosition, Through,
};

pub(super) fn find(
    connection: &Connection,
    pattern: &Pattern,
    after: Option<FindPosition>,
    limit: usize,
) -> Result<FoundPage, DirectoryError> {
    // No name has any, and the text index takes a NUL for the end of the question.
    if pattern.literals().any(|literal| literal.chars().any(char::is_control)) {
        return Ok(FoundPage { items: Vec::new(), next: None, order: Order::Rank, unindexed: 0 });
    }
    let mut budget = Budget::new(Budget::ROWS);
    let question = text::question(connection, pattern.literals())?;
    let (page, order) = match (question, after) {
        (Some(question), None) => {
            let candidates = text::candidates(connection, &question, FEW)?;
            if candidates.more {
                let first = in_batches(connection, pattern)?;
                (batches(connection, (pattern, &question), first, limit, &mut budget)?, Order::Batches)
            } else {
                let names = candidates.names(connection)?;
                (by_rank(connection, pattern, names, None, limit, &mut budget)?, Order::Rank)
            }
        }
        // A list that began by rank goes on so. What has come since in such numbers is not in it.
        (Some(question), Some(FindPosition::Rank(seen))) => {
            let names = text::candidates(connection, &question, FEW)?.names(connection)?;
            (by_rank(connection, pattern, names, Some(&seen), limit, &mut budget)?, Order::Rank)
        }
        (Some(question), Some(FindPosition::Batches(place))) => {
            (batches(connection, (pattern, &question), place, limit, &mut budget)?, Order::Batches)
        }
        (_, None) => (by_name(connection, pattern, None, limit, &mut budget)?, Order::Name),
        (_, Some(FindPosition::Name(at))) => {
            (by_name(connection, pattern, Some(&at), limit, &mut budget)?, Order::Name)
        }
        (None, Some(FindPosition::Rank(_) | FindPosition::Batches(_))) => {
            return Err(DirectoryError::Position);
        }
    };
    let unindexed = text::behind(connection)?;
    Ok(FoundPage { items: page.items, next: page.next, order, unindexed })
}

type FindPage = Page<Found, FindPosition>;

fn by_name(
    connection: &Connection,
    pattern: &Pattern,
    after: Option<&NamePosition>,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<FindPage> {
    let page = super::find::named(connection, &Filter::of(pattern), after, limit, budget)?;
    Ok(Page { items: page.items, next: page.next.map(FindPosition::Name) })
}

fn by_rank(
    connection: &Connection,
    pattern: &Pattern,
    names: Vec<(String, i64)>,
    seen: Option<&RankPosition>,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<FindPage> {
    budget.spend(names.len());
    let names = ranked(pattern, names, seen);
    let (items, stopped) = tell(connection, names, seen, limit, budget)?;
    Ok(Page { items, next: stopped.map(FindPosition::Rank) })
}

/// Where the first batch begins.
fn in_batches(connection: &Connection, pattern: &Pattern) -> rusqlite::Result<BatchPosition> {
    let opened = opened(connection, pattern)?.is_some();
    Ok(BatchPosition { opened, after: Vec::new(), seen: None })
}

/// Goes on from the place in batches, until the page is full or the budget is spent.
fn batches(
    connection: &Connection,
    (pattern, question): (&Pattern, &str),
    place: BatchPosition,
    limit: usize,
    budget: &mut Budget,
) -> Result<FindPage, DirectoryError> {
    let BatchPosition { opened: has_opened, after, mut seen } = place;
    let mut after = row_of(&after)?;
    let mut items = Vec::new();
    let mut statement = text::in_order_of_rows(connection)?;
    let mut rows = Rows::new(statement.query(params![question, after])?);
    loop {
        let through = seen.as_ref().map_or(Ok(i64::MAX), |seen| row_of(&seen.through))?;
        let (mut names, mut more) = rows.next(through, BATCH)?;
        budget.spend(names.len());
        // That is all of it, but for what a forged position may say.
        let through = match names.last() {
            Some((_, last)) if names.len() == BATCH => *last,
            _ => through,
        };
        if has_opened {
            match after {
                0 => names.extend(opened(connection, pattern)?.unwrap_or_default()),
                _ => names.retain(|(name, _)| !pattern.opens(name)),
            }
        }
        let last = seen.take().map(|seen| seen.last);
        let names = ranked(pattern, names, last.as_ref());
        let room = limit.saturating_sub(items.len());
        let (told, stopped) = tell(connection, names, last.as_ref(), room, budget)?;
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

/// The names that the pattern opens, if a few looks find all of them.
fn opened(connection: &Connection, pattern: &Pattern) -> rusqlite::Result<Option<Vec<(String, i64)>>> {
    let Some(text) = pattern.opening() else { return Ok(None) };
    let sql = "SELECT name, id FROM names WHERE name >= ?1 ORDER BY name LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let (mut names, mut from) = (Vec::new(), text.to_owned());
    for _ in 0..OPENED {
        let next = statement.query_row([&from], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((name, id)): Option<(String, i64)> = next else { return Ok(Some(names)) };
        let Some(rest) = name.strip_prefix(text) else { return Ok(Some(names)) };
        from = match rest.find('/') {
            // Past all that is in that directory: after a slash comes a zero.
            Some(slash) => format!("{}0", &name[..text.len() + slash]),
            None => {
                let from = format!("{name}\0");
                names.push((name, id));
                from
            }
        };
    }
    Ok(None)
}

/// Who has these names, in order, but for what was seen; and the last one told where there are more of them than room, or the
/// budget is spent.
fn tell(
    connection: &Connection,
    names: Vec<(u8, String, i64)>,
    seen: Option<&RankPosition>,
    room: usize,
    budget: &mut Budget,
) -> rusqlite::Result<(Vec<Found>, Option<RankPosition>)> {
    let mut found: Vec<(u8, Found)> = Vec::new();
    let mut stopped = None;
    for (rank, name, id) in names {
        let holdings = holders::of_name(connection, (&name, id), None, budget)?;
        let groups = unseen(by_content(holdings), &name, seen.map(|seen| &seen.at));
        found.extend(groups.map(|group| (rank, Found::from(group))));
        if found.len() > room {
            found.truncate(room);
            stopped = found.last().map(|(rank, last)| {
                let through = Through::Content(last.file.content);
                RankPosition { rank: *rank, at: NamePosition { name: last.file.name.clone(), through } }
            });
            break;
        }
        if budget.is_spent() {
            stopped = Some(RankPosition { rank, at: NamePosition { name, through: Through::Name } });
            break;
        }
    }
    Ok((found.into_iter().map(|(_, found)| found).collect(), stopped))
}
