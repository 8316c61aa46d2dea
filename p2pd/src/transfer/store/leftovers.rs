//! What failed transfers have proven, which is kept for whoever fetches the same again.

use p2p_content::ContentHash;
use p2p_proto::control::Transfer;
use rusqlite::params;

use super::{Store, StoreError, from_json};

/// A failed transfer of which something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) struct Left {
    /// Its number.
    pub(in crate::transfer) id: u64,
    /// Its content.
    pub(in crate::transfer) content: ContentHash,
    /// When it failed.
    pub(in crate::transfer) ended_ms: i64,
}

impl Store {
    /// The failed transfers of which something is kept, the oldest first.
    pub(in crate::transfer) async fn left(&self) -> Result<Vec<Left>, StoreError> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, body FROM transfers WHERE ended AND part_of IS NULL AND manifest IS NOT NULL ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?)))?;
            let mut left = Vec::new();
            for row in rows {
                let (id, body) = row?;
                let Transfer { content, ended_ms, .. } = from_json(&body)?;
                let content = content.and_then(|content| content.parse().ok());
                left.extend(content.map(|content| Left {
                    id,
                    content,
                    ended_ms: ended_ms.unwrap_or_default(),
                }));
            }
            Ok(left)
        })
        .await
    }

    /// Whether something is proven of a transfer.
    pub(in crate::transfer) async fn has_proven(&self, id: u64) -> Result<bool, StoreError> {
        self.run(move |connection| {
            let sql = "SELECT count(*) FROM transfers WHERE id = ?1 AND manifest IS NOT NULL";
            Ok(connection.query_row(sql, [id], |row| row.get::<_, u64>(0))? > 0)
        })
        .await
    }

    /// What is proven of one transfer is so of the other one, of the same content, and of the first no more.
    pub(in crate::transfer) async fn hand_over(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.run(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute(
                "UPDATE transfers SET (manifest, proven, proven_len) =
                 (SELECT manifest, proven, proven_len FROM transfers WHERE id = ?1) WHERE id = ?2",
                params![from, to],
            )?;
            forget(&transaction, from)?;
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Nothing is kept of a transfer any more.
    pub(in crate::transfer) async fn forget_left(&self, id: u64) -> Result<(), StoreError> {
        self.run(move |connection| forget(connection, id)).await
    }
}

fn forget(connection: &rusqlite::Connection, id: u64) -> Result<(), StoreError> {
    let sql = "UPDATE transfers SET manifest = NULL, proven = NULL, proven_len = NULL WHERE id = ?1";
    connection.execute(sql, [id])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use p2p_content::{Bitmap, ContentHasher, FileName};
    use p2p_proto::control::TransferState;

    use super::super::super::fetch::fresh;
    use super::super::Terms;
    use super::*;

    #[tokio::test]
    async fn what_a_failed_transfer_has_proven_is_kept_until_it_is_handed_over_or_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let mut hasher = ContentHasher::new();
        hasher.update(&vec![7; (2 << 20) + 5]);
        let (content, manifest) = hasher.finish();
        let size = manifest.pieces().len();
        let transfer = fresh(FileName::parse("a.bin").unwrap(), Some(content), Some(size));
        let all = Bitmap::full(manifest.pieces().count());
        let mut ids = Vec::new();
        for state in
            [TransferState::Failed, TransferState::Done, TransferState::Cancelled, TransferState::Queued]
        {
            let id = store.add(transfer.clone(), Terms::default()).await.unwrap().id;
            store.set_manifest(id, &manifest, true, &all).await.unwrap();
            let ended_ms = state.is_ended().then_some(5);
            store.update(1, Transfer { id, state, ended_ms, ..transfer.clone() }).await.unwrap();
            ids.push(id);
        }
        let (failed, open) = (ids[0], ids[3]);
        assert_eq!(store.left().await.unwrap(), [Left { id: failed, content, ended_ms: 5 }]);
        assert!(store.has_proven(failed).await.unwrap() && !store.has_proven(ids[1]).await.unwrap());
        store.forget_left(open).await.unwrap();
        store.hand_over(failed, open).await.unwrap();
        assert_eq!(store.left().await.unwrap(), []);
        let proven = store.proven(open, content, 1).await.unwrap().unwrap();
        assert!(proven.is_len_proven && proven.pieces == all && proven.manifest == manifest);
    }
}
