//! Walking the names that match, in order, without doing more work than one call may.
//!
//! Two ways lead through the names. Where few can match (a text that the trigram index finds seldom, a peer with few
//! files), they are collected and sorted. Where many can, the names are walked in order and each is tried, which
//! fills a page soon because many match. What neither reaches within the budget is left to the next page.

use rusqlite::Connection;

use super::text;
use crate::directory::walking::{Budget, FEW, Filter};
use crate::directory::{NamePosition, Through};

/// Names with their rows, in no order.
struct Few {
    names: Vec<(String, i64)>,
    /// They are known to be the filter's peer's.
    peers_own: bool,
}

/// Whether the walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// To the next name.
    Next,
    /// The page is full.
    Stop,
}

/// Calls `visit` with each matching name and its row, in order, from `after` on. A name of which a part was seen is
/// visited again. Returns where a page that was not stopped goes on, if the budget ended it.
pub(super) fn walk(
    connection: &Connection,
    filter: &Filter<'_>,
    after: Option<&NamePosition>,
    budget: &mut Budget,
    mut visit: impl FnMut(&str, i64, &mut Budget) -> rusqlite::Result<Step>,
) -> rusqlite::Result<Option<NamePosition>> {
    let start = after.map_or(filter.prefix, |position| filter.prefix.max(&position.name));
    let done = after.filter(|position| position.through == Through::Name).map(|position| &*position.name);
    // Tries one name; `None` where it stopped the walk.
    let mut try_name = |name: &str, id: i64, peers_own: bool, budget: &mut Budget| {
        budget.spend(1);
        if Some(name) == done || !filter.matches(name) {
            return Ok(Step::Next);
        }
        match filter.peer {
            Some((peer, _)) if !peers_own && !has(connection, peer, id)? => Ok(Step::Next),
            _ => visit(name, id, budget),
        }
    };
    let out_of_budget = |name: &str| Some(NamePosition { name: name.to_owned(), through: Through::Name });
    if let Some(Few { names: mut few, peers_own }) = few(connection, filter, budget)? {
        few.retain(|(name, _)| name.as_str() >= start);
        few.sort_unstable();
        for (name, id) in few {
            if try_name(&name, id, peers_own, budget)? == Step::Stop {
                return Ok(None);
            }
            if budget.is_spent() {
                return Ok(out_of_budget(&name));
            }
        }
        return Ok(None);
    }
    let mut names = connection.prepare_cached("SELECT name, id FROM names WHERE name >= ?1 ORDER BY name")?;
    let mut names = names.query([start])?;
    while let Some(row) = names.next()? {
        let name = row.get_ref(0)?.as_str()?;
        if !name.starts_with(filter.prefix) {
            break;
        }
        if try_name(name, row.get(1)?, false, budget)? == Step::Stop {
            break;
        }
        if budget.is_spent() {
            return Ok(out_of_budget(name));
        }
    }
    Ok(None)
}

/// The names that can match, if they are few.
fn few(connection: &Connection, filter: &Filter<'_>, budget: &mut Budget) -> rusqlite::Result<Option<Few>> {
    let name_and_id = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    if let Some((peer, files)) = filter.peer
        && files <= FEW as u64
    {
        let sql = "SELECT DISTINCT n.name, n.id FROM files f INDEXED BY files_by_peer
                   CROSS JOIN names n ON n.id = f.name_id WHERE f.peer = ?1";
        let few: Vec<_> =
            connection.prepare_cached(sql)?.query_map([peer], name_and_id)?.collect::<Result<_, _>>()?;
        budget.spend(few.len());
        return Ok(Some(Few { names: few, peers_own: true }));
    }
    let Some(question) = text::question(connection, filter.literals())? else { return Ok(None) };
    let candidates = text::candidates(connection, &question, FEW)?;
    if candidates.more {
        return Ok(None);
    }
    let names = candidates.names(connection)?;
    budget.spend(names.len());
    Ok(Some(Few { names, peers_own: false }))
}

fn has(connection: &Connection, peer: i64, name_id: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM files WHERE name_id = ?1 AND peer = ?2)")?
        .query_row([name_id, peer], |row| row.get(0))
}
