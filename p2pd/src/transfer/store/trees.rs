//! The files that a directory's transfer has still to get, and the transfers of its long files.
//!
//! A row is there from the moment that the directory is listed until its file is here under its name: what is left is
//! what there is to do. The number of a transfer is reserved before it begins, so that a list of a million files is
//! written page by page; what is listed for a transfer that never began is forgotten at the next start.

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::Transfer;
use rusqlite::{Connection, params};

use super::{Kept, Store, StoreError, Terms, kept, to_json};

pub(super) const MIGRATION: &str = "
    CREATE TABLE tree_files (
        transfer    INTEGER NOT NULL,
        name        TEXT NOT NULL,
        content     BLOB NOT NULL,
        size        INTEGER NOT NULL,
        failed      TEXT,
        PRIMARY KEY (transfer, name, content)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE transfers ADD COLUMN part_of INTEGER;
    CREATE INDEX transfers_parts ON transfers (part_of) WHERE part_of IS NOT NULL;
";

/// How many have a file: by the count of who knows of all, and as far as each has listed its own.
pub(super) const MIGRATION_OF_SOURCES: &str = "
    ALTER TABLE tree_files ADD COLUMN sources INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE tree_files ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;
";

/// Files that are named of those that are to be fetched.
const NAMED: usize = 3;

/// A file of a directory that is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) struct TreeFile {
    /// Its name, which it has here too.
    pub(in crate::transfer) name: FileName,
    /// Its content.
    pub(in crate::transfer) content: ContentHash,
    /// Bytes.
    pub(in crate::transfer) size: u64,
}

/// Who lists a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) enum Told {
    /// One who knows that so many have it.
    OfAll(u32),
    /// One who has it.
    OfItself,
}

/// What is left of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::transfer) struct TreeLeft {
    /// Files that are to be fetched.
    pub(in crate::transfer) files: u64,
    /// Bytes of all that is not here, also of what cannot get its name.
    pub(in crate::transfer) bytes: u64,
    /// The names of the first of them.
    pub(in crate::transfer) first: Vec<String>,
    /// Files that cannot get their names.
    pub(in crate::transfer) failed: u64,
    /// The first of them, with why.
    pub(in crate::transfer) first_failed: Option<(String, String)>,
}

impl Store {
    /// The number of a transfer that may begin later.
    pub(in crate::transfer) async fn reserve(&self) -> Result<u64, StoreError> {
        self.run(|connection| {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute("INSERT INTO transfers (ended, body, terms) VALUES (1, '', '')", [])?;
            let id = transaction.last_insert_rowid();
            // The sequence remembers the number: nobody else gets it.
            transaction.execute("DELETE FROM transfers WHERE id = ?1", [id])?;
            transaction.commit()?;
            Ok(u64::try_from(id).unwrap_or_default())
        })
        .await
    }

    /// Remembers a transfer whose number was reserved.
    pub(in crate::transfer) async fn add_reserved(
        &self,
        transfer: Transfer,
        terms: Terms,
    ) -> Result<Transfer, StoreError> {
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO transfers (id, ended, body, terms) VALUES (?1, ?2, ?3, ?4)",
                params![transfer.id, transfer.state.is_ended(), to_json(&transfer)?, to_json(&terms)?],
            )?;
            Ok(transfer)
        })
        .await
    }

    /// Lists files of a directory. One that is listed already is listed once, and more may have it.
    pub(in crate::transfer) async fn list_files(
        &self,
        id: u64,
        files: Vec<(TreeFile, Told)>,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO tree_files (transfer, name, content, size, sources, heard) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (transfer, name, content) DO UPDATE
                 SET sources = max(sources, excluded.sources), heard = heard + excluded.heard",
            )?;
            for (TreeFile { name, content, size }, told) in &files {
                let (sources, heard) = match told {
                    Told::OfAll(sources) => (*sources, 0),
                    Told::OfItself => (1, 1),
                };
                // Whoever lists it knows somebody.
                insert.execute(params![id, name.as_str(), content.as_bytes(), size, sources.max(1), heard])?;
            }
            drop(insert);
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Lists names under which somebody has what nobody vouches for; until they are counted, and not to be fetched.
    pub(in crate::transfer) async fn list_unproven(
        &self,
        id: u64,
        names: Vec<FileName>,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO tree_files (transfer, name, content, size, failed) VALUES (?1, ?2, x'', 0, '')",
            )?;
            for name in &names {
                insert.execute(params![id, name.as_str()])?;
            }
            drop(insert);
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Under how many of those names nobody has what proves itself. They are listed no more.
    pub(in crate::transfer) async fn count_unproven(&self, id: u64) -> Result<u64, StoreError> {
        self.run(move |connection| {
            let count = connection.query_row(
                "SELECT count(*) FROM tree_files AS one WHERE transfer = ?1 AND content = x'' AND NOT EXISTS
                 (SELECT 1 FROM tree_files WHERE transfer = ?1 AND name = one.name AND content > x'')",
                [id],
                |row| row.get(0),
            )?;
            connection.execute("DELETE FROM tree_files WHERE transfer = ?1 AND content = x''", [id])?;
            Ok(count)
        })
        .await
    }

    /// At most so many of the files that are to be fetched, in order of their names, after this one; those of at most, or
    /// of more than, so many bytes.
    pub(in crate::transfer) async fn files_after(
        &self,
        id: u64,
        after: Option<(FileName, ContentHash)>,
        sizes: std::ops::RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<TreeFile>, StoreError> {
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, content, size FROM tree_files
                 WHERE transfer = ?1 AND (name, content) > (?2, ?3) AND failed IS NULL AND size BETWEEN ?4 AND ?5
                 ORDER BY name, content LIMIT ?6",
            )?;
            let (name, content) = match &after {
                Some((name, content)) => (name.as_str(), content.as_bytes().as_slice()),
                None => ("", [].as_slice()),
            };
            let end = (*sizes.end()).min(i64::MAX.unsigned_abs());
            let rows = statement.query_map(params![id, name, content, sizes.start(), end, limit], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, u64>(2)?))
            })?;
            rows.map(|row| {
                let (name, content, size) = row?;
                let name =
                    FileName::parse(&name).map_err(|error| StoreError::Damaged(error.to_string()))?;
                Ok(TreeFile { name, content: ContentHash::from_bytes(content), size })
            })
            .collect()
        })
        .await
    }

    /// At most so many of the files that are to be fetched, in order of their names, after this one, with how many have
    /// each.
    pub(in crate::transfer) async fn listed_after(
        &self,
        id: u64,
        after: Option<(FileName, ContentHash)>,
        limit: usize,
    ) -> Result<Vec<(TreeFile, u32)>, StoreError> {
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, content, size, max(sources, heard) FROM tree_files
                 WHERE transfer = ?1 AND (name, content) > (?2, ?3) AND failed IS NULL ORDER BY name, content LIMIT ?4",
            )?;
            let (name, content) = match &after {
                Some((name, content)) => (name.as_str(), content.as_bytes().as_slice()),
                None => ("", [].as_slice()),
            };
            let rows = statement.query_map(params![id, name, content, limit], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 32]>(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.map(|row| {
                let (name, content, size, sources) = row?;
                let name =
                    FileName::parse(&name).map_err(|error| StoreError::Damaged(error.to_string()))?;
                Ok((TreeFile { name, content: ContentHash::from_bytes(content), size }, sources))
            })
            .collect()
        })
        .await
    }

    /// These files need not be fetched any more.
    pub(in crate::transfer) async fn strike_files(
        &self,
        id: u64,
        files: Vec<(FileName, ContentHash)>,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            let mut delete = transaction.prepare_cached(
                "DELETE FROM tree_files WHERE transfer = ?1 AND name = ?2 AND content = ?3",
            )?;
            for (name, content) in &files {
                delete.execute(params![id, name.as_str(), content.as_bytes()])?;
            }
            drop(delete);
            Ok(transaction.commit()?)
        })
        .await
    }

    /// This file cannot get its name.
    pub(in crate::transfer) async fn fail_file(
        &self,
        id: u64,
        name: FileName,
        content: ContentHash,
        why: String,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            connection.execute(
                "UPDATE tree_files SET failed = ?4 WHERE transfer = ?1 AND name = ?2 AND content = ?3",
                params![id, name.as_str(), content.as_bytes(), why],
            )?;
            Ok(())
        })
        .await
    }

    /// This file has another length than was told.
    pub(in crate::transfer) async fn resize_file(
        &self,
        id: u64,
        name: FileName,
        content: ContentHash,
        size: u64,
    ) -> Result<(), StoreError> {
        self.run(move |connection| {
            connection.execute(
                "UPDATE tree_files SET size = ?4 WHERE transfer = ?1 AND name = ?2 AND content = ?3",
                params![id, name.as_str(), content.as_bytes(), size],
            )?;
            Ok(())
        })
        .await
    }

    /// What is left of a directory.
    pub(in crate::transfer) async fn files_left(&self, id: u64) -> Result<TreeLeft, StoreError> {
        self.run(move |connection| {
            let mut left = connection.query_row(
                "SELECT count(*) - count(failed), CAST(min(total(size), 9e18) AS INTEGER), count(failed) FROM tree_files WHERE transfer = ?1",
                [id],
                |row| {
                    let (files, bytes, failed) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok(TreeLeft { files, bytes, failed, ..TreeLeft::default() })
                },
            )?;
            let sql = "SELECT name FROM tree_files WHERE transfer = ?1 AND failed IS NULL ORDER BY name LIMIT ?2";
            let mut first = connection.prepare_cached(sql)?;
            left.first =
                first.query_map(params![id, NAMED], |row| row.get(0))?.collect::<Result<_, _>>()?;
            if left.failed > 0 {
                left.first_failed = Some(connection.query_row(
                    "SELECT name, failed FROM tree_files WHERE transfer = ?1 AND failed IS NOT NULL LIMIT 1",
                    [id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?);
            }
            Ok(left)
        })
        .await
    }

    /// One of the files that are to be fetched and have so many bytes: the one that so many come before, if there is.
    pub(in crate::transfer) async fn file_at(
        &self,
        id: u64,
        sizes: std::ops::RangeInclusive<u64>,
        place: u64,
    ) -> Result<Option<ContentHash>, StoreError> {
        self.run(move |connection| {
            let sql = "SELECT content FROM tree_files
                       WHERE transfer = ?1 AND failed IS NULL AND size BETWEEN ?2 AND ?3 LIMIT 1 OFFSET ?4";
            let mut found = connection.prepare_cached(sql)?;
            let found = found
                .query_map(params![id, sizes.start(), sizes.end(), place], |row| row.get::<_, [u8; 32]>(0))?;
            Ok(found.map(|content| content.map(ContentHash::from_bytes)).next().transpose()?)
        })
        .await
    }

    /// How many files are to be fetched and have so many bytes, and how many bytes of a disk they need, which gives whole blocks.
    pub(in crate::transfer) async fn room_for(
        &self,
        id: u64,
        sizes: std::ops::RangeInclusive<u64>,
        block: u64,
    ) -> Result<(u64, u64), StoreError> {
        self.run(move |connection| {
            let sql = "SELECT count(*), CAST(min(total((size + ?4 - 1) / ?4 * ?4), 9e18) AS INTEGER) FROM tree_files
                       WHERE transfer = ?1 AND failed IS NULL AND size BETWEEN ?2 AND ?3";
            let params = params![id, sizes.start(), sizes.end(), block];
            Ok(connection.query_row(sql, params, |row| Ok((row.get(0)?, row.get(1)?)))?)
        })
        .await
    }

    /// Forgets what was listed for a transfer that does not begin.
    pub(in crate::transfer) async fn forget_files(&self, id: u64) -> Result<(), StoreError> {
        self.run(move |connection| forget(connection, id)).await
    }

    /// Remembers the transfer of one long file of a directory.
    pub(in crate::transfer) async fn add_part(
        &self,
        of: u64,
        transfer: Transfer,
        terms: Terms,
    ) -> Result<Transfer, StoreError> {
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO transfers (ended, body, terms, part_of) VALUES (0, ?1, ?2, ?3)",
                params![to_json(&transfer)?, to_json(&terms)?, of],
            )?;
            let id = u64::try_from(connection.last_insert_rowid()).unwrap_or_default();
            Ok(Transfer { id, ..transfer })
        })
        .await
    }

    /// The transfers of a directory's long files.
    pub(in crate::transfer) async fn parts_of(&self, of: u64) -> Result<Vec<Kept>, StoreError> {
        self.run(move |connection| kept(connection, "part_of = ?1", &[&of])).await
    }

    /// Forgets the transfer of a long file.
    pub(in crate::transfer) async fn remove_part(&self, id: u64) -> Result<(), StoreError> {
        self.run(move |connection| {
            connection.execute("DELETE FROM transfers WHERE id = ?1 AND part_of IS NOT NULL", [id])?;
            Ok(())
        })
        .await
    }
}

/// Forgets what a transfer still had to get.
pub(super) fn forget(connection: &Connection, id: u64) -> Result<(), StoreError> {
    connection.execute("DELETE FROM tree_files WHERE transfer = ?1", [id])?;
    connection.execute("DELETE FROM transfers WHERE part_of = ?1", [id])?;
    Ok(())
}

/// Forgets what was listed for transfers that never began.
pub(super) fn forget_unbegun(connection: &Connection) -> Result<(), StoreError> {
    connection.execute(
        "DELETE FROM tree_files WHERE transfer NOT IN (SELECT id FROM transfers WHERE ended = 0)",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::fetch::fresh;
    use super::*;

    fn file(name: &str, size: u64) -> TreeFile {
        TreeFile { name: FileName::parse(name).unwrap(), content: ContentHash::of(name.as_bytes()), size }
    }

    fn told(files: &[TreeFile], by: Told) -> Vec<(TreeFile, Told)> {
        files.iter().map(|file| (file.clone(), by)).collect()
    }

    fn key(file: &TreeFile) -> (FileName, ContentHash) {
        (file.name.clone(), file.content)
    }

    #[tokio::test]
    async fn a_list_is_read_page_by_page_and_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let id = store.reserve().await.unwrap();
        let files = [file("a/1", 1), file("a/2", 9), file("b", 2), file("c", 3)];
        store.list_files(id, told(&files[..3], Told::OfAll(1))).await.unwrap();
        store.list_files(id, told(&files[2..], Told::OfAll(1))).await.unwrap();
        let first = store.files_after(id, None, 0..=5, 2).await.unwrap();
        assert_eq!(first, [files[0].clone(), files[2].clone()]);
        assert_eq!(store.files_after(id, Some(key(&first[1])), 0..=5, 2).await.unwrap(), [files[3].clone()]);
        assert_eq!(store.files_after(id, None, 6..=u64::MAX, 2).await.unwrap(), [files[1].clone()]);
        store.strike_files(id, vec![key(&files[0]), key(&files[1])]).await.unwrap();
        store.fail_file(id, files[2].name.clone(), files[2].content, "taken".to_owned()).await.unwrap();
        let left = store.files_left(id).await.unwrap();
        assert_eq!((left.files, left.bytes, left.failed, left.first), (1, 5, 1, vec!["c".to_owned()]));
        assert_eq!(left.first_failed, Some(("b".to_owned(), "taken".to_owned())));
        store
            .list_files(id, told(&[file("d", 512), file("e", 513), file("f", 1025)], Told::OfAll(1)))
            .await
            .unwrap();
        let at = async |place| store.file_at(id, 0..=1024, place).await.unwrap();
        assert_eq!(at(1).await, Some(file("d", 512).content), "behind c, since b is not to be fetched");
        assert_eq!((at(2).await, at(3).await), (Some(file("e", 513).content), None));
        assert_eq!(store.room_for(id, 0..=1024, 512).await.unwrap(), (3, 4 * 512), "c, d and e, and not b");
    }

    #[tokio::test]
    async fn how_many_have_a_file_is_the_count_of_who_knows_or_of_those_who_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let id = store.reserve().await.unwrap();
        let files = [file("a", 1), file("b", 2), file("c", 3)];
        store.list_files(id, told(&files[..1], Told::OfAll(3))).await.unwrap();
        store.list_files(id, told(&files[..2], Told::OfAll(0))).await.unwrap();
        for _ in 0..2 {
            store.list_files(id, told(&files, Told::OfItself)).await.unwrap();
        }
        let first = store.listed_after(id, None, 1).await.unwrap();
        assert_eq!(first, [(files[0].clone(), 3)], "the two are among the three");
        let rest = store.listed_after(id, Some(key(&files[0])), 9).await.unwrap();
        assert_eq!(rest, [(files[1].clone(), 2), (files[2].clone(), 2)]);
    }

    #[tokio::test]
    async fn what_nobody_vouches_for_is_counted_where_nobody_has_better() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("transfers.sqlite")).unwrap();
        let id = store.reserve().await.unwrap();
        let names = ["a", "b", "a"].map(|name| FileName::parse(name).unwrap());
        store.list_unproven(id, names.to_vec()).await.unwrap();
        store.list_files(id, told(&[file("b", 2), file("c", 3)], Told::OfAll(1))).await.unwrap();
        let listed = store.files_after(id, None, 0..=u64::MAX, 9).await.unwrap();
        assert_eq!(listed, [file("b", 2), file("c", 3)], "what is to be fetched proves itself");
        assert_eq!(store.count_unproven(id).await.unwrap(), 1, "b comes from somebody else");
        let left = store.files_left(id).await.unwrap();
        assert_eq!((left.files, left.failed), (2, 0), "they are listed no more");
    }

    #[tokio::test]
    async fn what_never_began_is_forgotten_and_what_began_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("transfers.sqlite");
        let store = Store::open(&path).unwrap();
        let (begun, unbegun) = (store.reserve().await.unwrap(), store.reserve().await.unwrap());
        assert_ne!(begun, unbegun);
        for id in [begun, unbegun] {
            store.list_files(id, told(&[file("a", 1)], Told::OfItself)).await.unwrap();
        }
        let transfer = Transfer { id: begun, ..fresh(FileName::parse("a").unwrap(), None, None) };
        store.add_reserved(transfer.clone(), Terms::default()).await.unwrap();
        let part = store.add_part(begun, transfer.clone(), Terms::default()).await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let all: Vec<u64> = store.all().await.unwrap().iter().map(|kept| kept.transfer.id).collect();
        assert_eq!(all, [begun], "the part is not listed");
        assert_eq!(store.parts_of(begun).await.unwrap()[0].transfer.id, part.id);
        assert_eq!(store.files_left(begun).await.unwrap().files, 1);
        assert_eq!(store.files_left(unbegun).await.unwrap().files, 0);
        let ended = Transfer { state: p2p_proto::control::TransferState::Cancelled, ..transfer };
        store.update(1, ended).await.unwrap();
        assert_eq!(store.files_left(begun).await.unwrap().files, 0);
        assert!(store.parts_of(begun).await.unwrap().is_empty());
    }
}
