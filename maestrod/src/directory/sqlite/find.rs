//! Questions to the index. Each runs within one snapshot, on a connection that reads.

use std::collections::HashMap;
use std::sync::Arc;

use p2p_identity::PeerId;
use rusqlite::{Connection, OptionalExtension, params};

use super::holders::Known;
use super::names::{Step, walk};
use super::{holders, peers};
use crate::directory::group::{Holding, best, by_content, drawn, unseen};
use crate::directory::walking::{Budget, Filter, PAGE_ENTRIES};
use crate::directory::{
    Candidate, FilePosition, FileRecord, Found, Holder, Listed, ListedPeer, MAX_HOLDERS, NamePosition, Page,
    PeerKey, PeerRecord, Search, Through, Wanted, Which,
};

pub(super) fn locate(
    connection: &Connection,
    wanted: &Wanted,
    sources: usize,
) -> rusqlite::Result<Vec<Candidate>> {
    let (holdings, known) = match wanted {
        Wanted::Content(content) => (holders::drawn_of_content(connection, content)?, Known::new()),
        Wanted::Name(name) => match holders::few_of_name(connection, name)? {
            Some(few) => few,
            None => (of_many(connection, name)?, Known::new()),
        },
    };
    let record = |peer| match known.iter().find(|(known, _)| *known == peer) {
        Some((_, record)) => Ok(record.clone()),
        None => peers::by_id(connection, peer),
    };
    best(holdings)
        .into_iter()
        .map(|group| {
            let mut sources: Vec<PeerRecord> =
                group.draw(sources).into_iter().map(record).collect::<Result<_, _>>()?;
            sources.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(Candidate { file: group.file, sources })
        })
        .collect()
}

fn of_many(connection: &Connection, name: &str) -> rusqlite::Result<Vec<Holding>> {
    let id = connection
        .prepare_cached("SELECT id FROM names WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    match id {
        Some(id) => holders::drawn_of_name(connection, (name, id), &mut Budget::new(Budget::ROWS)),
        None => Ok(Vec::new()),
    }
}

pub(super) fn search(
    connection: &Connection,
    search: &Search,
    after: Option<&NamePosition>,
    limit: usize,
) -> rusqlite::Result<Page<Found, NamePosition>> {
    let nothing = Page { items: Vec::new(), next: None };
    // No name has any, and the trigram index takes a NUL for the end of the question.
    if search.text.chars().any(char::is_control) {
        return Ok(nothing);
    }
    let peer = match &search.peer {
        None => None,
        Some(key) => match peers::id_of(connection, key)? {
            None => return Ok(nothing),
            Some(id) => match peers::by_id(connection, id)? {
                record if record.visible => Some((id, record.files)),
                _ => return Ok(nothing),
            },
        },
    };
    named(connection, &Filter::new(search, peer), after, limit, &mut Budget::new(Budget::ROWS))
}

/// What a filter matches, by name.
pub(super) fn named(
    connection: &Connection,
    filter: &Filter<'_>,
    after: Option<&NamePosition>,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<Page<Found, NamePosition>> {
    let mut found: Vec<Found> = Vec::new();
    let exhausted = walk(connection, filter, after, budget, |name, id, budget| {
        let wanted = filter.peer.map(|(peer, _)| peer);
        let mut holdings = holders::of_name(connection, (name, id), wanted, budget)?;
        // The searched-for peer's own row comes to represent the file.
        holdings.sort_by_key(|holding| Some(holding.peer) != wanted);
        let groups = unseen(by_content(holdings), name, after);
        found.extend(
            groups.filter(|group| wanted.is_none_or(|peer| group.peers.contains(&peer))).map(Found::from),
        );
        Ok(if found.len() > limit { Step::Stop } else { Step::Next })
    })?;
    let position = |found: &Found| NamePosition {
        name: found.file.name.clone(),
        through: Through::Content(found.file.content),
    };
    let full = found.len() > limit;
    found.truncate(limit);
    let next = if full { found.last().map(position) } else { exhausted };
    Ok(Page { items: found, next })
}

pub(super) fn list(
    connection: &Connection,
    after: Option<&NamePosition>,
    limit: usize,
) -> rusqlite::Result<Page<Listed, NamePosition>> {
    let mut listed: Vec<Listed> = Vec::new();
    let mut known: HashMap<i64, Arc<PeerRecord>> = HashMap::new();
    let mut entries = 0;
    let mut full = false;
    let mut budget = Budget::new(Budget::ROWS);
    let exhausted = walk(connection, &Filter::all(None), after, &mut budget, |name, id, budget| {
        let holdings = holders::drawn_of_name(connection, (name, id), budget)?;
        if holdings.is_empty() {
            return Ok(Step::Next);
        }
        if listed.len() >= limit || entries >= PAGE_ENTRIES {
            full = true;
            return Ok(Step::Stop);
        }
        let holdings = drawn(holdings, MAX_HOLDERS);
        entries += holdings.len();
        let mut holders = Vec::with_capacity(holdings.len());
        for holding in holdings {
            let peer = match known.get(&holding.peer) {
                Some(peer) => Arc::clone(peer),
                None => {
                    let peer = Arc::new(peers::by_id(connection, holding.peer)?);
                    known.insert(holding.peer, Arc::clone(&peer));
                    peer
                }
            };
            holders.push(Holder { peer, content: holding.file.content, size: holding.file.size });
        }
        holders.sort_by(|a, b| a.peer.key.cmp(&b.peer.key).then(a.content.cmp(&b.content)));
        // The same file in two shares of a peer is one entry.
        holders.dedup_by(|a, b| a.peer.key == b.peer.key && a.content == b.content);
        listed.push(Listed { name: name.to_owned(), holders });
        Ok(Step::Next)
    })?;
    let position = |listed: &Listed| NamePosition { name: listed.name.clone(), through: Through::Name };
    let next = if full { listed.last().map(position) } else { exhausted };
    Ok(Page { items: listed, next })
}

pub(super) fn names_of(
    connection: &Connection,
    peer: &PeerKey,
    after: Option<&NamePosition>,
    limit: usize,
) -> rusqlite::Result<Option<(PeerRecord, Page<String, NamePosition>)>> {
    let Some(id) = peers::id_of(connection, peer)? else { return Ok(None) };
    let record = peers::by_id(connection, id)?;
    if !record.visible {
        return Ok(None);
    }
    let page = names_page(connection, (id, record.files), after, limit, &mut Budget::new(Budget::ROWS))?;
    Ok(Some((record, page)))
}

/// By the index of what a peer has: a page costs what is on it, wherever it begins.
pub(super) fn files_of(
    connection: &Connection,
    peer: PeerId,
    after: Option<FilePosition>,
    limit: usize,
) -> rusqlite::Result<Page<FileRecord, FilePosition>> {
    let nothing = Page { items: Vec::new(), next: None };
    let Some(id) = peers::id_of(connection, &PeerKey::Synced(peer))? else { return Ok(nothing) };
    let (share, name_id) = after.map_or((String::new(), i64::MIN), |FilePosition { share, within }| {
        (share, within.try_into().map_or(i64::MIN, i64::from_be_bytes))
    });
    let limit = limit.clamp(1, PAGE_ENTRIES);
    let mut statement = connection.prepare_cached(
        "SELECT f.peer, f.share, f.content, f.size, f.modified_ms, n.name, f.name_id
         FROM files f INDEXED BY files_by_peer CROSS JOIN names n ON n.id = f.name_id
         WHERE f.peer = ?1 AND (f.share, f.name_id) > (?2, ?3) ORDER BY f.share, f.name_id LIMIT ?4",
    )?;
    let mut rows = statement.query(params![id, share, name_id, limit as i64])?;
    let (mut items, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        items.push(holders::holding(row)?.file);
        last = Some(row.get::<_, i64>(6)?);
    }
    let next = match (items.last(), last) {
        (Some(file), Some(name_id)) if items.len() == limit => {
            Some(FilePosition { share: file.share.clone(), within: name_id.to_be_bytes().to_vec() })
        }
        _ => None,
    };
    Ok(Page { items, next })
}

pub(super) fn peers(
    connection: &Connection,
    which: Which,
    names_each: usize,
    after: Option<&PeerKey>,
    limit: usize,
) -> rusqlite::Result<Page<ListedPeer, PeerKey>> {
    let mut found = peers::after(connection, after, which == Which::Visible, limit.saturating_add(1))?;
    let mut full = found.len() > limit;
    found.truncate(limit);
    let mut listed: Vec<ListedPeer> = Vec::with_capacity(found.len());
    let mut entries = 0;
    let mut budget = Budget::new(Budget::ROWS);
    for (id, peer) in found {
        // The first peer of a page is always answered, so that every page leads on.
        if !listed.is_empty() && (budget.is_spent() || entries >= PAGE_ENTRIES) {
            full = true;
            break;
        }
        let names = if names_each == 0 {
            Vec::new()
        } else {
            names_page(connection, (id, peer.files), None, names_each, &mut budget)?.items
        };
        entries += names.len();
        listed.push(ListedPeer { peer, names });
    }
    let next = if full { listed.last().map(|listed| listed.peer.key.clone()) } else { None };
    Ok(Page { items: listed, next })
}

fn names_page(
    connection: &Connection,
    peer: (i64, u64),
    after: Option<&NamePosition>,
    limit: usize,
    budget: &mut Budget,
) -> rusqlite::Result<Page<String, NamePosition>> {
    let mut names: Vec<String> = Vec::new();
    let mut full = false;
    let exhausted = walk(connection, &Filter::all(Some(peer)), after, budget, |name, _, _| {
        full = names.len() >= limit;
        if full {
            return Ok(Step::Stop);
        }
        names.push(name.to_owned());
        Ok(Step::Next)
    })?;
    let position = |name: &String| NamePosition { name: name.clone(), through: Through::Name };
    let next = if full { names.last().map(position) } else { exhausted };
    Ok(Page { items: names, next })
}
