//! Questions to the index. Each is a few statements; what comes to be or goes between two of them may be missing from the
//! answer, never wrong in it.

use std::collections::HashMap;
use std::sync::Arc;

use p2p_identity::PeerId;
use tokio_postgres::types::ToSql;

use super::holders::{self, Holders, Key};
use super::names::{self, Names};
use super::{peers, rows};
use crate::directory::group::{Holding, best, by_content, drawn, unseen};
use crate::directory::walking::{Budget, Filter, PAGE_ENTRIES};
use crate::directory::{
    Candidate, FilePosition, FileRecord, Found, Holder, Listed, ListedPeer, MAX_HOLDERS, NamePosition, Page,
    PeerKey, PeerRecord, Search, Through, Wanted, Which,
};

use super::connections::Failure;
use super::lent::Client;

pub(super) async fn locate(
    client: Client,
    wanted: &Wanted,
    sources: usize,
) -> Result<Vec<Candidate>, Failure> {
    let key = match wanted {
        Wanted::Content(content) => Key::Content(content.as_bytes()),
        Wanted::Name(name) => Key::Name(name.as_bytes()),
    };
    let few = holders::few(&client, key).await?;
    let (holdings, peers) = match few {
        Some((holdings, peers)) => (holdings, Some(peers)),
        None => (holders::drawn(&client, key).await?, None),
    };
    let drawn: Vec<(FileRecord, Vec<i64>)> = best(holdings)
        .into_iter()
        .map(|group| {
            let peers = group.draw(sources);
            (group.file, peers)
        })
        .collect();
    let known = match peers {
        Some(peers) => peers,
        None => {
            let mut ids: Vec<i64> = drawn.iter().flat_map(|(_, peers)| peers).copied().collect();
            ids.sort_unstable();
            ids.dedup();
            known(&client, &ids).await?
        }
    };
    let candidates = drawn.into_iter().map(|(file, ids)| {
        let mut sources: Vec<PeerRecord> = ids.iter().filter_map(|id| known.get(id)).cloned().collect();
        sources.sort_by(|a, b| a.key.cmp(&b.key));
        Candidate { file, sources }
    });
    // Whoever left in between is a source of nothing.
    Ok(candidates.filter(|candidate| !candidate.sources.is_empty() || sources == 0).collect())
}

async fn known(client: &Client, ids: &[i64]) -> Result<HashMap<i64, PeerRecord>, Failure> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(peers::visible_by_ids(client, ids).await?.into_iter().collect())
}

pub(super) async fn search(
    client: Client,
    search: &Search,
    after: Option<&NamePosition>,
    limit: usize,
) -> Result<Page<Found, NamePosition>, Failure> {
    let nothing = Page { items: Vec::new(), next: None };
    // No name has any.
    if search.text.chars().any(char::is_control) {
        return Ok(nothing);
    }
    let peer = match &search.peer {
        None => None,
        Some(key) => match peers::find(&client, key).await? {
            Some((id, record)) if record.visible => Some((id, record.files)),
            _ => return Ok(nothing),
        },
    };
    named(&client, &Filter::new(search, peer), after, limit, &mut Budget::new(Budget::ROWS)).await
}

/// What a filter matches, by name.
pub(super) async fn named(
    client: &Client,
    filter: &Filter<'_>,
    after: Option<&NamePosition>,
    limit: usize,
    budget: &mut Budget,
) -> Result<Page<Found, NamePosition>, Failure> {
    let mut found: Vec<Found> = Vec::new();
    let wanted = filter.peer.map(|(peer, _)| peer);
    let mut names = Names::new(filter, after, Holders::First { own: wanted }, limit);
    while found.len() <= limit
        && let Some(some) = names.next(client, budget).await?
    {
        for (name, mut holdings) in some {
            // The searched-for peer's own row comes to represent the file.
            holdings.sort_by_key(|holding| Some(holding.peer) != wanted);
            let groups = unseen(by_content(holdings), &name, after);
            found.extend(
                groups.filter(|group| wanted.is_none_or(|peer| group.peers.contains(&peer))).map(Found::from),
            );
        }
    }
    let position = |found: &Found| NamePosition {
        name: found.file.name.clone(),
        through: Through::Content(found.file.content),
    };
    let full = found.len() > limit;
    found.truncate(limit);
    let next = if full { found.last().map(position) } else { names.position() };
    Ok(Page { items: found, next })
}

pub(super) async fn list(
    client: Client,
    after: Option<&NamePosition>,
    limit: usize,
) -> Result<Page<Listed, NamePosition>, Failure> {
    let filter = Filter::all(None);
    let (mut names, mut budget) =
        (Names::new(&filter, after, Holders::Drawn, limit), Budget::new(Budget::ROWS));
    let mut held: Vec<(String, Vec<Holding>)> = Vec::new();
    let mut entries = 0;
    let mut full = false;
    while !full && let Some(some) = names.next(&client, &mut budget).await? {
        for (name, holdings) in some {
            full = held.len() >= limit || entries >= PAGE_ENTRIES;
            if full {
                break;
            }
            let holdings = drawn(holdings, MAX_HOLDERS);
            entries += holdings.len();
            held.push((name, holdings));
        }
    }
    let mut ids: Vec<i64> = held.iter().flat_map(|(_, held)| held).map(|holding| holding.peer).collect();
    ids.sort_unstable();
    ids.dedup();
    let known: HashMap<i64, Arc<PeerRecord>> =
        known(&client, &ids).await?.into_iter().map(|(id, peer)| (id, Arc::new(peer))).collect();
    let position = |(name, _): &(String, _)| NamePosition { name: name.clone(), through: Through::Name };
    let next = if full { held.last().map(position) } else { names.position() };
    let listed = held.into_iter().map(|(name, holdings)| {
        let mut holders: Vec<Holder> = holdings
            .into_iter()
            .filter_map(|Holding { peer, file }| {
                Some(Holder { peer: Arc::clone(known.get(&peer)?), content: file.content, size: file.size })
            })
            .collect();
        holders.sort_by(|a, b| a.peer.key.cmp(&b.peer.key).then(a.content.cmp(&b.content)));
        // The same file in two shares of a peer is one entry.
        holders.dedup_by(|a, b| a.peer.key == b.peer.key && a.content == b.content);
        Listed { name, holders }
    });
    Ok(Page { items: listed.filter(|listed| !listed.holders.is_empty()).collect(), next })
}

pub(super) async fn names_of(
    client: Client,
    peer: &PeerKey,
    after: Option<&NamePosition>,
    limit: usize,
) -> Result<Option<(PeerRecord, Page<String, NamePosition>)>, Failure> {
    let Some((id, record)) = peers::find(&client, peer).await? else { return Ok(None) };
    if !record.visible {
        return Ok(None);
    }
    let start = after.map_or("", |after| &after.name);
    let mut names = names::of_peer(&client, id, start, limit.saturating_add(2)).await?;
    names.retain(|name| after.is_none_or(|after| after.through != Through::Name || *name != after.name));
    let full = names.len() > limit;
    names.truncate(limit);
    let position = |name: &String| NamePosition { name: name.clone(), through: Through::Name };
    let next = if full { names.last().map(position) } else { None };
    Ok(Some((record, Page { items: names, next })))
}

/// By the primary key of the files: that is what a page costs, wherever it begins.
pub(super) async fn files_of(
    client: Client,
    peer: PeerId,
    after: &FilePosition,
    limit: usize,
) -> Result<Page<FileRecord, FilePosition>, Failure> {
    let nothing = Page { items: Vec::new(), next: None };
    let Some((id, _)) = peers::find(&client, &PeerKey::Synced(peer)).await? else { return Ok(nothing) };
    // With the row's number at hand the database can only go straight to the place in the key.
    let sql = "SELECT peer, share, name, content, size, modified_ms FROM files
               WHERE peer = $1 AND (share, name) > ($2, $3) ORDER BY share, name LIMIT $4";
    let limit = limit.clamp(1, PAGE_ENTRIES);
    let statement = client.prepare_cached(sql).await?;
    let values: [&(dyn ToSql + Sync); 4] = [&id, &after.share.as_bytes(), &after.within, &(limit as i64)];
    let rows = client.query(&statement, &values).await?;
    let items: Vec<FileRecord> =
        rows.iter().map(|row| Ok(rows::holding(row)?.file)).collect::<Result<_, Failure>>()?;
    let position = |file: &FileRecord| FilePosition {
        share: file.share.clone(),
        within: file.name.clone().into_bytes(),
    };
    let next = items.last().filter(|_| items.len() == limit).map(position);
    Ok(Page { items, next })
}

pub(super) async fn peers(
    client: Client,
    which: Which,
    names_each: usize,
    after: Option<&PeerKey>,
    limit: usize,
) -> Result<Page<ListedPeer, PeerKey>, Failure> {
    let mut found = peers::after(&client, after, which == Which::Visible, limit.saturating_add(1)).await?;
    let mut full = found.len() > limit;
    found.truncate(limit);
    let mut listed: Vec<ListedPeer> = Vec::with_capacity(found.len());
    let mut entries = 0;
    for (id, peer) in found {
        // The first peer of a page is always answered, so that every page leads on.
        if !listed.is_empty() && entries >= PAGE_ENTRIES {
            full = true;
            break;
        }
        let names = match names_each {
            0 => Vec::new(),
            most => names::of_peer(&client, id, "", most).await?,
        };
        entries += names.len();
        listed.push(ListedPeer { peer, names });
    }
    let next = if full { listed.last().map(|listed| listed.peer.key.clone()) } else { None };
    Ok(Page { items: listed, next })
}
