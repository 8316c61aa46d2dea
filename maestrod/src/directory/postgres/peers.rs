//! The rows of the peers.

use deadpool_postgres::{GenericClient, Transaction};
use p2p_identity::PeerId;
use tokio_postgres::Row;

use super::connections::Failure;
use super::lent::Client;
use super::noted;
use super::rows::array;
use crate::directory::standing::Standing;
use crate::directory::{Digest, Held, Holdings, PeerKey, PeerRecord, Profile, Session, Totals};

pub(super) const SYNCED: i32 = 0;
const PLAIN: i32 = 1;

/// Columns that [`record`] reads, in its order.
const RECORD: &str =
    "kind, key, name, addresses, rest_url, grpc_port, version, visible, files, bytes, last_seen_ms";
/// The same of a table that is called p.
pub(super) const RECORD_OF_P: &str = "p.kind, p.key, p.name, p.addresses, p.rest_url, p.grpc_port, p.version, p.visible, \
    p.files, p.bytes, p.last_seen_ms";
/// Columns that [`standing`] reads, in its order.
const STANDING: &str = "id, session, epoch, applied, generation, sweeping, files, bytes, digest";

pub(super) fn parts(key: &PeerKey) -> (i32, &[u8]) {
    match key {
        PeerKey::Synced(id) => (SYNCED, id.as_bytes()),
        PeerKey::Plain(url) => (PLAIN, url.as_bytes()),
    }
}

/// Keeps what a peer says of itself, and begins a session; its row is made if it is new. A plain peer is visible from
/// then on. Returns its row, and what is held.
pub(super) async fn introduce(
    client: &impl GenericClient,
    key: &PeerKey,
    profile: &Profile,
    now_ms: i64,
) -> Result<Held, Failure> {
    let (kind, bytes) = parts(key);
    let addresses = serde_json::Value::from(profile.addresses.as_slice()).to_string();
    let statement = client
        .prepare_cached(
            "INSERT INTO peers (kind, key, name, addresses, rest_url, grpc_port, version, visible, last_seen_ms, session)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)
             ON CONFLICT (kind, key) DO UPDATE SET name = excluded.name, addresses = excluded.addresses,
                rest_url = excluded.rest_url, grpc_port = excluded.grpc_port, version = excluded.version,
                last_seen_ms = excluded.last_seen_ms, session = peers.session + 1
             RETURNING session, epoch, applied",
        )
        .await?;
    let row = client
        .query_one(
            &statement,
            &[
                &kind,
                &bytes,
                &profile.name,
                &addresses,
                &profile.rest_url,
                &i32::from(profile.grpc_port),
                &profile.version,
                &(kind == PLAIN),
                &now_ms,
            ],
        )
        .await?;
    Ok(Held {
        session: Session(row.get::<_, i64>(0).cast_unsigned()),
        epoch: row.get::<_, i64>(1).cast_unsigned(),
        applied: row.get::<_, i64>(2).cast_unsigned(),
    })
}

pub(super) async fn begin(
    client: Client,
    key: &PeerKey,
    profile: &Profile,
    now_ms: i64,
) -> Result<Held, Failure> {
    introduce(&*client, key, profile, now_ms).await
}

pub(super) async fn admit(client: Client, peer: PeerId, now_ms: i64) -> Result<(), Failure> {
    let sql = "INSERT INTO admitted (peer, since_ms) VALUES ($1, $2) ON CONFLICT (peer) DO NOTHING";
    client.execute(sql, &[&&peer.as_bytes()[..], &now_ms]).await?;
    Ok(())
}

pub(super) async fn is_admitted(client: Client, peer: PeerId) -> Result<bool, Failure> {
    let statement = client.prepare_cached("SELECT 1 FROM admitted WHERE peer = $1").await?;
    Ok(client.query_opt(&statement, &[&&peer.as_bytes()[..]]).await?.is_some())
}

pub(super) async fn find(client: &Client, key: &PeerKey) -> Result<Option<(i64, PeerRecord)>, Failure> {
    let sql = format!("SELECT {RECORD}, id FROM peers WHERE kind = $1 AND key = $2");
    let statement = client.prepare_cached(&sql).await?;
    let (kind, bytes) = parts(key);
    let row = client.query_opt(&statement, &[&kind, &bytes]).await?;
    Ok(row.map(|row| (row.get(11), record(&row))))
}

/// How a peer's catalog stands, for whoever changes it: nobody else does until the transaction ends.
pub(super) async fn lock(transaction: &Transaction<'_>, key: &PeerKey) -> Result<Option<Standing>, Failure> {
    let sql = format!("SELECT {STANDING} FROM peers WHERE kind = $1 AND key = $2 FOR UPDATE");
    let statement = transaction.prepare_cached(&sql).await?;
    let (kind, bytes) = parts(key);
    let row = transaction.query_opt(&statement, &[&kind, &bytes]).await?;
    row.as_ref().map(standing).transpose()
}

/// The same of a peer with an identity that is hidden and was last heard of before then; with its ID, and when that was.
pub(super) async fn lock_unseen(
    transaction: &Transaction<'_>,
    before_ms: i64,
) -> Result<Option<(Standing, PeerId, i64)>, Failure> {
    let sql = format!(
        "SELECT {STANDING}, key, last_seen_ms FROM peers
         WHERE kind = $1 AND NOT visible AND last_seen_ms < $2 ORDER BY id LIMIT 1 FOR UPDATE"
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let Some(row) = transaction.query_opt(&statement, &[&SYNCED, &before_ms]).await? else {
        return Ok(None);
    };
    Ok(Some((standing(&row)?, PeerId::from_bytes(array(row.get(9))?), row.get(10))))
}

fn standing(row: &Row) -> Result<Standing, Failure> {
    let unsigned = |index| row.get::<_, i64>(index).cast_unsigned();
    Ok(Standing {
        id: row.get(0),
        session: unsigned(1),
        epoch: unsigned(2),
        applied: unsigned(3),
        generation: row.get(4),
        sweeping: row.get(5),
        files: unsigned(6),
        bytes: unsigned(7),
        digest: Digest(array(row.get(8))?),
    })
}

/// Writes back how a catalog stands. The session is not touched: it is the row's.
pub(super) async fn keep(
    transaction: &Transaction<'_>,
    standing: &Standing,
    now_ms: i64,
) -> Result<(), Failure> {
    let statement = transaction
        .prepare_cached(
            "UPDATE peers SET epoch = $2, applied = $3, generation = $4, sweeping = $5, files = $6, bytes = $7,
                digest = $8, last_seen_ms = $9, changes = changes + 1 WHERE id = $1",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[
                &standing.id,
                &standing.epoch.cast_signed(),
                &standing.applied.cast_signed(),
                &standing.generation,
                &standing.sweeping,
                &standing.files.cast_signed(),
                &standing.bytes.cast_signed(),
                &&standing.digest.0[..],
                &now_ms,
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn remove(transaction: &Transaction<'_>, id: i64) -> Result<(), Failure> {
    transaction.execute("DELETE FROM peers WHERE id = $1", &[&id]).await?;
    Ok(())
}

pub(super) async fn set_visible(
    client: Client,
    peer: PeerId,
    visible: bool,
    heard_ms: Option<i64>,
) -> Result<(), Failure> {
    let statement = client
        .prepare_cached(
            "UPDATE peers SET visible = $3, last_seen_ms = coalesce($4, last_seen_ms) WHERE kind = $1 AND key = $2",
        )
        .await?;
    client.execute(&statement, &[&SYNCED, &&peer.as_bytes()[..], &visible, &heard_ms]).await?;
    Ok(())
}

pub(super) async fn visible_ids(client: Client) -> Result<Vec<PeerId>, Failure> {
    let sql = "SELECT key FROM peers WHERE kind = $1 AND visible ORDER BY key";
    let rows = client.query(sql, &[&SYNCED]).await?;
    rows.iter().map(|row| Ok(PeerId::from_bytes(array(row.get(0))?))).collect()
}

pub(super) async fn totals(client: Client) -> Result<Totals, Failure> {
    let sql = "SELECT count(*), coalesce(sum(files), 0)::INT8 FROM peers WHERE visible";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[]).await?;
    let number = |index| row.get::<_, i64>(index).cast_unsigned();
    Ok(Totals { peers: number(0), files: number(1) })
}

pub(super) async fn holdings(client: Client) -> Result<Holdings, Failure> {
    // What peers say of their sizes may add up to anything.
    let sql = "SELECT count(*),
                      coalesce(sum(CASE WHEN visible THEN 1 ELSE 0 END), 0)::INT8,
                      coalesce(sum(CASE WHEN visible THEN files ELSE 0 END), 0)::INT8,
                      coalesce(sum(CASE WHEN visible THEN bytes::FLOAT8 ELSE 0 END), 0)::FLOAT8,
                      coalesce(sum(changes), 0)::INT8, coalesce(sum(files), 0)::INT8 FROM peers";
    let row = client.query_one(sql, &[]).await?;
    let number = |index| row.get::<_, i64>(index).cast_unsigned();
    // The sum of the changes goes down when a peer is forgotten, and the files with it.
    let changes = (number(4) << 32) ^ (number(0) << 48) ^ number(5);
    // Not every database tells its size.
    let size = client.query_one("SELECT pg_database_size(current_database())", &[]).await;
    let database_bytes = size.and_then(|row| row.try_get::<_, i64>(0)).unwrap_or(0).cast_unsigned();
    Ok(Holdings {
        peers_known: number(0),
        peers_here: number(1),
        files: number(2),
        bytes: row.get::<_, f64>(3).max(0.0) as u64,
        database_bytes,
        names_unindexed: noted::behind(&client).await?,
        changes,
    })
}

/// The peers in these rows that are visible.
pub(super) async fn visible_by_ids(client: &Client, ids: &[i64]) -> Result<Vec<(i64, PeerRecord)>, Failure> {
    let sql = format!("SELECT {RECORD}, id FROM peers WHERE id = ANY ($1) AND visible");
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get(11), record(row))).collect())
}

/// Peers after `after` in the order of keys, each with its row's ID; at most `limit`.
pub(super) async fn after(
    client: &Client,
    after: Option<&PeerKey>,
    only_visible: bool,
    limit: usize,
) -> Result<Vec<(i64, PeerRecord)>, Failure> {
    let (kind, key) = after.map_or((-1, &[][..]), parts);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT {RECORD}, id FROM peers
         WHERE (kind, key) > ($1, $2) AND (visible OR NOT $3) ORDER BY kind, key LIMIT $4"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&kind, &key, &only_visible, &limit]).await?;
    Ok(rows.iter().map(|row| (row.get(11), record(row))).collect())
}

fn record(row: &Row) -> PeerRecord {
    record_from(row, 0)
}

/// What the columns of [`RECORD`] say, the first of which is `from`.
pub(super) fn record_from(row: &Row, from: usize) -> PeerRecord {
    let (kind, bytes): (i32, &[u8]) = (row.get(from), row.get(from + 1));
    let key = match bytes.try_into() {
        Ok(id) if kind == SYNCED => PeerKey::Synced(PeerId::from_bytes(id)),
        _ => PeerKey::Plain(String::from_utf8_lossy(bytes).into_owned()),
    };
    PeerRecord {
        key,
        profile: Profile {
            name: row.get(from + 2),
            // Written by `introduce`, so it reads.
            addresses: serde_json::from_str(row.get(from + 3)).unwrap_or_default(),
            rest_url: row.get(from + 4),
            grpc_port: u16::try_from(row.get::<_, i32>(from + 5)).unwrap_or(0),
            version: row.get(from + 6),
        },
        visible: row.get(from + 7),
        files: row.get::<_, i64>(from + 8).cast_unsigned(),
        bytes: row.get::<_, i64>(from + 9).cast_unsigned(),
        last_seen_ms: row.get(from + 10),
    }
}
