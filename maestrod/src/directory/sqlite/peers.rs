//! The rows of the peers.

use std::sync::LazyLock;

use p2p_identity::PeerId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::text;
use crate::directory::standing::Standing;
use crate::directory::{Digest, Holdings, PeerKey, PeerRecord, Profile, Totals};

const SYNCED: i64 = 0;
const PLAIN: i64 = 1;

/// Columns of `peers p` that [`record_from`] reads, in its order.
pub(super) const RECORD_OF_P: &str =
    "p.kind, p.key, p.name, p.addresses, p.rest_url, p.grpc_port, p.version, p.visible, p.files,
    p.bytes, p.last_seen_ms";

fn parts(key: &PeerKey) -> (i64, &[u8]) {
    match key {
        PeerKey::Synced(id) => (SYNCED, id.as_bytes()),
        PeerKey::Plain(url) => (PLAIN, url.as_bytes()),
    }
}

/// Keeps what a peer says of itself; its row is made if it is new. A plain peer is visible from then on.
pub(super) fn introduce(
    connection: &Connection,
    key: &PeerKey,
    profile: &Profile,
    now_ms: i64,
) -> rusqlite::Result<i64> {
    let (kind, bytes) = parts(key);
    let addresses = serde_json::Value::from(profile.addresses.as_slice()).to_string();
    connection
        .prepare_cached(
            "INSERT INTO peers (kind, key, name, addresses, rest_url, grpc_port, version, visible, last_seen_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (kind, key) DO UPDATE SET name = ?3, addresses = ?4, rest_url = ?5, grpc_port = ?6,
                version = ?7, last_seen_ms = ?9
             RETURNING id",
        )?
        .query_row(
            params![
                kind,
                bytes,
                profile.name,
                addresses,
                profile.rest_url,
                profile.grpc_port,
                profile.version,
                kind == PLAIN,
                now_ms
            ],
            |row| row.get(0),
        )
}

pub(super) fn id_of(connection: &Connection, key: &PeerKey) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM peers WHERE kind = ?1 AND key = ?2")?
        .query_row(parts(key), |row| row.get(0))
        .optional()
}

pub(super) fn standing(connection: &Connection, id: i64) -> rusqlite::Result<Standing> {
    let unsigned =
        |row: &Row<'_>, index| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(index)?.cast_unsigned());
    connection
        .prepare_cached(
            "SELECT session, epoch, applied, generation, sweeping, files, bytes, digest FROM peers WHERE id = ?1",
        )?
        .query_row([id], |row| {
            Ok(Standing {
                id,
                session: unsigned(row, 0)?,
                epoch: unsigned(row, 1)?,
                applied: unsigned(row, 2)?,
                generation: row.get(3)?,
                sweeping: row.get(4)?,
                files: unsigned(row, 5)?,
                bytes: unsigned(row, 6)?,
                digest: Digest(row.get(7)?),
            })
        })
}

pub(super) fn keep(connection: &Connection, standing: &Standing, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE peers SET session = ?2, epoch = ?3, applied = ?4, generation = ?5, sweeping = ?6, files = ?7,
                bytes = ?8, digest = ?9, last_seen_ms = ?10 WHERE id = ?1",
        )?
        .execute(params![
            standing.id,
            standing.session.cast_signed(),
            standing.epoch.cast_signed(),
            standing.applied.cast_signed(),
            standing.generation,
            standing.sweeping,
            standing.files.cast_signed(),
            standing.bytes.cast_signed(),
            standing.digest.0,
            now_ms
        ])?;
    Ok(())
}

pub(super) fn set_visible(
    connection: &Connection,
    peer: PeerId,
    visible: bool,
    heard_ms: Option<i64>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE peers SET visible = ?3, last_seen_ms = coalesce(?4, last_seen_ms) WHERE kind = ?1 AND key = ?2";
    connection.prepare_cached(sql)?.execute(params![SYNCED, peer.as_bytes(), visible, heard_ms])?;
    Ok(())
}

pub(super) fn visible_ids(connection: &Connection) -> rusqlite::Result<Vec<PeerId>> {
    connection
        .prepare_cached("SELECT key FROM peers WHERE kind = ?1 AND visible ORDER BY key")?
        .query_map([SYNCED], |row| Ok(PeerId::from_bytes(row.get(0)?)))?
        .collect()
}

/// A peer with an identity that is hidden and was last heard of before then: its row, and when that was.
pub(super) fn unseen(
    connection: &Connection,
    before_ms: i64,
) -> rusqlite::Result<Option<(i64, PeerId, i64)>> {
    let sql = "SELECT id, key, last_seen_ms FROM peers
               WHERE kind = ?1 AND NOT visible AND last_seen_ms < ?2 ORDER BY id LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row([SYNCED, before_ms], |row| Ok((row.get(0)?, PeerId::from_bytes(row.get(1)?), row.get(2)?)))
        .optional()
}

pub(super) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM peers WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub(super) fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    connection.prepare_cached("SELECT count(*), coalesce(sum(files), 0) FROM peers WHERE visible")?.query_row(
        [],
        |row| {
            let (peers, files): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Totals { peers: peers.cast_unsigned(), files: files.cast_unsigned() })
        },
    )
}

pub(super) fn holdings(connection: &Connection) -> rusqlite::Result<Holdings> {
    // What peers say of their sizes may add up to anything, which `total` does not take for an error.
    let sql = "SELECT count(*), coalesce(sum(visible), 0), coalesce(sum(iif(visible, files, 0)), 0),
                      total(iif(visible, bytes, 0)) FROM peers";
    let holdings = connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Holdings {
            peers_known: row.get(0)?,
            peers_here: row.get(1)?,
            files: row.get(2)?,
            bytes: row.get::<_, f64>(3)?.max(0.0) as u64,
            ..Holdings::default()
        })
    })?;
    let pages: u64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page_len: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let log = connection.path().and_then(|path| std::fs::metadata(format!("{path}-wal")).ok());
    let database_bytes = pages * page_len + log.map_or(0, |log| log.len());
    Ok(Holdings { database_bytes, names_unindexed: text::behind(connection)?, ..holdings })
}

/// The peer in this row.
pub(super) fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<PeerRecord> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {RECORD_OF_P} FROM peers p WHERE p.id = ?1"));
    connection.prepare_cached(&SQL)?.query_row([id], |row| record_from(row, 0))
}

/// Peers after `after` in the order of keys, each with its row's ID; at most `limit`.
pub(super) fn after(
    connection: &Connection,
    after: Option<&PeerKey>,
    only_visible: bool,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, PeerRecord)>> {
    let (kind, key) = after.map_or((-1, &[][..]), parts);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT {RECORD_OF_P}, p.id FROM peers p
             WHERE (kind, key) > (?1, ?2) AND (visible OR NOT ?3) ORDER BY kind, key LIMIT ?4"
        ))?
        .query_map(params![kind, key, only_visible, limit], |row| Ok((row.get(11)?, record_from(row, 0)?)))?
        .collect()
}

/// The record whose columns begin at this one.
pub(super) fn record_from(row: &Row<'_>, first: usize) -> rusqlite::Result<PeerRecord> {
    let kind: i64 = row.get(first)?;
    let key = if kind == SYNCED {
        PeerKey::Synced(PeerId::from_bytes(row.get(first + 1)?))
    } else {
        PeerKey::Plain(String::from_utf8_lossy(row.get_ref(first + 1)?.as_blob()?).into_owned())
    };
    let addresses = row.get_ref(first + 3)?.as_str()?;
    Ok(PeerRecord {
        key,
        profile: Profile {
            name: row.get(first + 2)?,
            // Written by `introduce`, so it reads.
            addresses: serde_json::from_str(addresses).unwrap_or_default(),
            rest_url: row.get(first + 4)?,
            grpc_port: row.get(first + 5)?,
            version: row.get(first + 6)?,
        },
        visible: row.get(first + 7)?,
        files: row.get::<_, i64>(first + 8)?.cast_unsigned(),
        bytes: row.get::<_, i64>(first + 9)?.cast_unsigned(),
        last_seen_ms: row.get(first + 10)?,
    })
}
