//! Going through the names that match, in order, without doing more work than one call may.
//!
//! Two ways lead through the names. Where few can match (a text that the index finds seldom), they are collected and
//! sorted. Where many can, the names are read in order, some at a time, and tried here, which fills a page soon because
//! many match. What neither reaches within the budget is left to the next page.

use tokio_postgres::types::Type;

use super::connections::Failure;
use super::holders::{self, Holders};
use super::lent::Client;
use super::rows::name;
use super::{noted, text};
use crate::directory::group::Holding;
use crate::directory::walking::{Budget, FEW, Filter};
use crate::directory::{NamePosition, Through};

/// Fewest and most rows of names that are read at once.
const CHUNK: std::ops::RangeInclusive<usize> = 100..=20_000;
/// A peer with more shares than this has its names read without them.
const FEW_SHARES: usize = 64;

/// Names that the text index found.
pub(super) struct Candidates {
    pub(super) names: Vec<String>,
    /// There are more than were asked for.
    pub(super) more: bool,
}

/// At most `most` names whose numbers are all of these; where these are all of the index, those that it is to have soon, too.
/// `None` if none is asked for.
pub(super) async fn candidates(
    client: &Client,
    question: &[i32],
    most: usize,
) -> Result<Option<Candidates>, Failure> {
    if question.is_empty() {
        return Ok(None);
    }
    let tail = noted::tail(client).await?;
    // Planned anew each time: how many there are depends on the letters.
    let sql = "SELECT name FROM texts WHERE trigrams @> $1 LIMIT $2";
    let statement = client.prepare_typed(sql, &[Type::INT4_ARRAY, Type::INT8]).await?;
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let rows = client.query(&statement, &[&question, &limit]).await?;
    let mut names: Vec<String> = rows.iter().take(most).map(|row| name(row.get(0))).collect();
    let more = rows.len() > most;
    if !more {
        names.extend(tail);
        names.sort_unstable();
        names.dedup();
    }
    Ok(Some(Candidates { names, more }))
}

/// How many names have their holders asked for together, where a page has room for `limit`.
pub(super) fn together(limit: usize) -> usize {
    limit.saturating_add(1).clamp(16, 1000)
}

/// A peer's names from `start` on, in order, each once: at most `most`.
pub(super) async fn of_peer(
    client: &Client,
    peer: i64,
    start: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let shares = shares(client, peer).await?;
    let rows = if shares.len() <= FEW_SHARES {
        // Each share's names are in order in the index.
        let sql = "SELECT DISTINCT n.name FROM unnest($2::BYTEA[]) AS s (share) CROSS JOIN LATERAL
                   (SELECT f.name FROM files f WHERE f.peer = $1 AND f.share = s.share AND f.name >= $3
                    ORDER BY f.name LIMIT $4) AS n
                   ORDER BY n.name LIMIT $4";
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, &[&peer, &shares, &start.as_bytes(), &most]).await?
    } else {
        let sql = "SELECT DISTINCT name FROM files WHERE peer = $1 AND name >= $2 ORDER BY name LIMIT $3";
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, &[&peer, &start.as_bytes(), &most]).await?
    };
    Ok(rows.iter().map(|row| name(row.get(0))).collect())
}

/// A peer's shares, one more than [`FEW_SHARES`] at the most.
async fn shares(client: &Client, peer: i64) -> Result<Vec<Vec<u8>>, Failure> {
    // From each share straight to the next, whatever is in them.
    let sql = "WITH RECURSIVE s AS (
                 (SELECT share, 1 AS number FROM files WHERE peer = $1 ORDER BY share LIMIT 1)
                 UNION ALL
                 SELECT (SELECT f.share FROM files f WHERE f.peer = $1 AND f.share > s.share ORDER BY f.share LIMIT 1),
                        s.number + 1
                 FROM s WHERE s.share IS NOT NULL AND s.number <= $2
               ) SELECT share FROM s WHERE share IS NOT NULL";
    let statement = client.prepare_typed_cached(sql, &[Type::INT8, Type::INT4]).await?;
    let rows = client.query(&statement, &[&peer, &(FEW_SHARES as i32)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The names that match, in order, with who has them.
pub(super) struct Names<'a> {
    filter: &'a Filter<'a>,
    /// The last name, all of which was seen.
    done: Option<&'a str>,
    holders: Holders,
    limit: usize,
    chunk: usize,
    at: At,
}

/// How far it has come.
enum At {
    /// Nothing was read yet.
    Start(String),
    /// These are left, in order, of all that can match.
    Few(std::vec::IntoIter<String>),
    /// This name was the last one read.
    Walking(String),
    /// The budget ended here.
    Spent(String),
    /// There are no more.
    End,
}

impl<'a> Names<'a> {
    /// From `after` on, for a page that has room for `limit`, with these of their holders. A name of which a part was seen
    /// comes again.
    pub(super) fn new(
        filter: &'a Filter<'a>,
        after: Option<&'a NamePosition>,
        holders: Holders,
        limit: usize,
    ) -> Names<'a> {
        let start = after.map_or(filter.prefix, |position| filter.prefix.max(&position.name));
        let done = after.filter(|position| position.through == Through::Name).map(|position| &*position.name);
        let chunk = limit.saturating_mul(2).clamp(*CHUNK.start(), *CHUNK.end());
        Names { filter, done, holders, limit, chunk, at: At::Start(start.to_owned()) }
    }

    /// Where another page goes on, once the budget has ended this one.
    pub(super) fn position(&self) -> Option<NamePosition> {
        match &self.at {
            At::Spent(name) => Some(NamePosition { name: name.clone(), through: Through::Name }),
            _ => None,
        }
    }

    /// The next ones, with who has them visibly, by peer: possibly none of those that were looked at. `None`: there are no
    /// more, or the budget is spent.
    pub(super) async fn next(
        &mut self,
        client: &Client,
        budget: &mut Budget,
    ) -> Result<Option<Vec<(String, Vec<Holding>)>>, Failure> {
        let tried: Vec<String> = match std::mem::replace(&mut self.at, At::End) {
            At::End | At::Spent(_) => {
                return Ok(None);
            }
            At::Start(start) => match self.few(client, &start, budget).await? {
                Some(few) => self.take_few(few.into_iter()),
                None => self.walk(client, &start, true, budget).await?,
            },
            At::Few(rest) => self.take_few(rest),
            At::Walking(last) => self.walk(client, &last, false, budget).await?,
        };
        budget.spend(tried.len());
        let last = tried.last().cloned();
        let mut matching: Vec<String> = tried
            .into_iter()
            .filter(|name| Some(&**name) != self.done && self.filter.matches(name))
            .collect();
        let held = holders::of_names(client, &matching, self.holders, budget).await?;
        if held.len() < matching.len() {
            // The budget ended before the last of them.
            matching.truncate(held.len());
            self.at = matching.last().cloned().map_or(At::End, At::Spent);
        } else if budget.is_spent() && !matches!(self.at, At::End) {
            self.at = last.map_or(At::End, At::Spent);
        }
        Ok(Some(matching.into_iter().zip(held).filter(|(_, held)| !held.is_empty()).collect()))
    }

    fn take_few(&mut self, mut rest: std::vec::IntoIter<String>) -> Vec<String> {
        let some: Vec<String> = rest.by_ref().take(together(self.limit)).collect();
        self.at = if rest.len() == 0 { At::End } else { At::Few(rest) };
        some
    }

    /// The names that can match, if they are few.
    async fn few(
        &self,
        client: &Client,
        start: &str,
        budget: &mut Budget,
    ) -> Result<Option<Vec<String>>, Failure> {
        // A peer's own names are fewer than a text's, or as good to walk.
        if self.filter.peer.is_some_and(|(_, files)| files <= FEW as u64) {
            return Ok(None);
        }
        let question = text::question(self.filter.literals());
        let Some(Candidates { mut names, more }) = candidates(client, &question, FEW).await? else {
            return Ok(None);
        };
        budget.spend(names.len());
        if more {
            return Ok(None);
        }
        names.retain(|name| name.as_str() >= start);
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Reads the next names in order: from this one on, or after it.
    async fn walk(
        &mut self,
        client: &Client,
        from: &str,
        with_it: bool,
        budget: &mut Budget,
    ) -> Result<Vec<String>, Failure> {
        let chunk = self.chunk;
        self.chunk = (self.chunk * 4).min(*CHUNK.end());
        let (mut names, exhausted) = match self.filter.peer {
            Some((peer, _)) => {
                let mut names = of_peer(client, peer, from, chunk).await?;
                let exhausted = names.len() < chunk;
                if !with_it {
                    names.retain(|name| name != from);
                }
                (names, exhausted)
            }
            None => {
                // As many rows as that, however many have each name; what is left of the last name is passed over.
                let sql = "SELECT name, count(*) FROM
                           (SELECT name FROM files WHERE name >= $1 AND (name > $1 OR $2) ORDER BY name LIMIT $3) AS n
                           GROUP BY name ORDER BY name";
                let statement = client.prepare_cached(sql).await?;
                let limit = chunk as i64;
                let rows = client.query(&statement, &[&from.as_bytes(), &with_it, &limit]).await?;
                let read: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
                budget.spend(usize::try_from(read).unwrap_or(0).saturating_sub(rows.len()));
                (rows.iter().map(|row| name(row.get(0))).collect::<Vec<String>>(), read < limit)
            }
        };
        let past_prefix = names.iter().position(|name| !name.starts_with(self.filter.prefix));
        names.truncate(past_prefix.unwrap_or(names.len()));
        self.at = match names.last() {
            Some(last) if !exhausted && past_prefix.is_none() => At::Walking(last.clone()),
            _ => At::End,
        };
        Ok(names)
    }
}
