//! Several maestros in one database: who is alive, and who holds which peer. Decided in 0023.
//!
//! Time is the database's. The name of this maestro among the others is a random number, new with each start.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use deadpool_postgres::Object;
use p2p_identity::PeerId;
use tokio_postgres::Row;

use super::PostgresDirectory;
use super::connections::Failure;
use super::lent::Client;
use super::peers::SYNCED;
use super::rows::array;
use crate::directory::sharing::{GONE, Sharing, Shown};
use crate::directory::{DirectoryError, Session};

/// Peers that are taken over at once.
const TAKEN: i64 = 1000;
/// A maestro whose beat is older than this is gone.
const SINCE: &str = "now() - INTERVAL '10 seconds'";

/// This maestro among the others.
#[derive(Debug)]
pub(super) struct Fellow {
    pub(super) id: i64,
    beats: Mutex<Option<Beats>>,
}

/// Beats that came through one after another.
#[derive(Debug, Clone, Copy)]
struct Beats {
    since: Instant,
    last: Instant,
}

impl Fellow {
    pub(super) fn new() -> Fellow {
        Fellow { id: rand::random_range(1..=i64::MAX), beats: Mutex::new(None) }
    }

    /// A beat came through; whether it is the first one.
    pub(super) fn has_beaten(&self, now: Instant) -> bool {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *beats;
        let since = match before {
            Some(before) if now.duration_since(before.last) < GONE / 2 => before.since,
            _ => now,
        };
        *beats = Some(Beats { since, last: now });
        before.is_none()
    }

    /// Whether this maestro has been alive for long enough to say of others that they are gone.
    fn may_judge(&self, now: Instant) -> bool {
        let beats = *self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.is_some_and(|beats| now.duration_since(beats.since) >= GONE)
    }
}

#[async_trait]
impl Sharing for PostgresDirectory {
    async fn show(
        &self,
        peer: PeerId,
        session: Session,
        shown: Shown,
        heard_ms: Option<i64>,
    ) -> Result<bool, DirectoryError> {
        let holder = self.fellow.id;
        self.showers.run(|client| show(client, holder, peer, session, shown, heard_ms)).await
    }

    async fn beat(&self) -> Result<bool, DirectoryError> {
        let id = self.fellow.id;
        let was_known = self.pulse.run(|client| beat(client, id)).await?;
        let is_first = self.fellow.has_beaten(Instant::now());
        Ok(was_known || is_first)
    }

    async fn take_over(&self) -> Result<Vec<(PeerId, Session)>, DirectoryError> {
        if !self.fellow.may_judge(Instant::now()) {
            return Ok(Vec::new());
        }
        let id = self.fellow.id;
        self.showers.run(|client| take_over(client, id)).await
    }

    async fn held(&self) -> Result<Vec<(PeerId, Session)>, DirectoryError> {
        let id = self.fellow.id;
        self.showers.run(|client| held(client, id)).await
    }

    async fn connected_elsewhere(&self, peers: &[PeerId]) -> Result<Vec<PeerId>, DirectoryError> {
        if peers.is_empty() {
            return Ok(Vec::new());
        }
        let id = self.fellow.id;
        self.readers.run(|client| connected_elsewhere(client, id, peers)).await
    }

    async fn resign(&self) -> Result<(), DirectoryError> {
        let id = self.fellow.id;
        self.pulse.run(|client| resign(client, id)).await
    }
}

async fn show(
    client: Client,
    holder: i64,
    peer: PeerId,
    session: Session,
    shown: Shown,
    heard_ms: Option<i64>,
) -> Result<bool, Failure> {
    let sql = "UPDATE peers SET visible = $4, connected = $5, holder = $6,
                   last_seen_ms = coalesce($7, last_seen_ms)
               WHERE kind = $1 AND key = $2 AND ($5 AND session = $3 OR NOT $5 AND holder = $6)";
    let statement = client.prepare_cached(sql).await?;
    let (key, session) = (peer.as_bytes().as_slice(), session.0.cast_signed());
    let (visible, connected) = (shown != Shown::Hidden, shown == Shown::Connected);
    let changed = client
        .execute(&statement, &[&SYNCED, &key, &session, &visible, &connected, &holder, &heard_ms])
        .await?;
    Ok(changed > 0)
}

/// Whether the others knew this maestro.
async fn beat(client: Client, id: i64) -> Result<bool, Failure> {
    let statement = client.prepare_cached("UPDATE maestros SET beat_at = now() WHERE id = $1").await?;
    if client.execute(&statement, &[&id]).await? > 0 {
        return Ok(true);
    }
    let sql = "INSERT INTO maestros (id, beat_at) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET beat_at = now()";
    client.execute(sql, &[&id]).await?;
    Ok(false)
}

async fn take_over(mut client: Client, id: i64) -> Result<Vec<(PeerId, Session)>, Failure> {
    let sql = format!(
        "SELECT DISTINCT holder FROM peers WHERE kind = $1 AND visible AND holder <> $2 AND NOT EXISTS
            (SELECT 1 FROM maestros WHERE maestros.id = peers.holder AND beat_at > {SINCE})"
    );
    let statement = client.prepare_cached(&sql).await?;
    let gone = client.query(&statement, &[&SYNCED, &id]).await?;
    let mut taken = Vec::new();
    for row in gone {
        taken.extend(inherit(&mut client, id, row.get(0)).await?);
    }
    Ok(taken)
}

/// Takes over peers of one that is gone, or nothing of one that is not.
pub(super) async fn inherit(
    client: &mut Object,
    id: i64,
    holder: i64,
) -> Result<Vec<(PeerId, Session)>, Failure> {
    let transaction = client.transaction().await?;
    // Its row, made if it is missing, is held until the end. So one that is not gone after all beats before this, and keeps
    // its peers, or after it, and learns that it lost them.
    let sql = format!(
        "INSERT INTO maestros (id, beat_at) VALUES ($1, {SINCE})
         ON CONFLICT (id) DO UPDATE SET beat_at = maestros.beat_at WHERE maestros.beat_at <= {SINCE}"
    );
    if transaction.execute(&sql, &[&holder]).await? == 0 {
        return Ok(Vec::new());
    }
    // Of several maestros that do this at once one finds the holder as it was.
    let sql = "UPDATE peers SET holder = $1, connected = FALSE
               WHERE holder = $2 AND id IN
                  (SELECT id FROM peers WHERE kind = $3 AND visible AND holder = $2 ORDER BY id LIMIT $4)
               RETURNING key, session";
    let statement = transaction.prepare_cached(sql).await?;
    let taken = transaction.query(&statement, &[&id, &holder, &SYNCED, &TAKEN]).await?;
    transaction.execute("DELETE FROM maestros WHERE id = $1", &[&holder]).await?;
    transaction.commit().await?;
    taken.iter().map(peer_and_session).collect()
}

async fn held(client: Client, id: i64) -> Result<Vec<(PeerId, Session)>, Failure> {
    let sql = "SELECT key, session FROM peers WHERE kind = $1 AND visible AND holder = $2";
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[&SYNCED, &id]).await?.iter().map(peer_and_session).collect()
}

fn peer_and_session(row: &Row) -> Result<(PeerId, Session), Failure> {
    Ok((PeerId::from_bytes(array(row.get(0))?), Session(row.get::<_, i64>(1).cast_unsigned())))
}

async fn connected_elsewhere(client: Client, id: i64, peers: &[PeerId]) -> Result<Vec<PeerId>, Failure> {
    let sql = format!(
        "SELECT peers.key FROM peers JOIN maestros ON maestros.id = peers.holder
         WHERE peers.kind = $1 AND peers.key = ANY($2) AND peers.connected AND peers.holder <> $3
            AND maestros.beat_at > {SINCE} ORDER BY peers.key"
    );
    let statement = client.prepare_cached(&sql).await?;
    let keys: Vec<&[u8]> = peers.iter().map(|peer| peer.as_bytes().as_slice()).collect();
    let rows = client.query(&statement, &[&SYNCED, &keys, &id]).await?;
    rows.iter().map(|row| Ok(PeerId::from_bytes(array(row.get(0))?))).collect()
}

async fn resign(client: Client, id: i64) -> Result<(), Failure> {
    client.execute("DELETE FROM maestros WHERE id = $1", &[&id]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_silent_judges_nobody() {
        let (fellow, start) = (Fellow::new(), Instant::now());
        assert!(!fellow.may_judge(start));
        assert!(fellow.has_beaten(start));
        for secs in (2..10).step_by(2) {
            assert!(!fellow.has_beaten(start + std::time::Duration::from_secs(secs)));
        }
        assert!(!fellow.may_judge(start + GONE / 2) && fellow.may_judge(start + GONE));
        fellow.has_beaten(start + GONE * 4);
        assert!(!fellow.may_judge(start + GONE * 4), "the database was away");
    }
}
