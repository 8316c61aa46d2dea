//! The changes, each in one transaction of the one writer.

use std::collections::BTreeMap;

use p2p_content::{ContentHash, Manifest};
use p2p_proto::control::Visibility;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::digest::Digest;
use super::read::hash_of;
use super::schema::Ledger;
use super::{Applied, CatalogError, Fact, FactChange, ShareRecord, Stamp, Totals};

/// What a transaction came to.
pub(super) struct Written {
    pub(super) applied: Applied,
    pub(super) pruned: u64,
}

pub(super) fn apply(
    connection: &mut Connection,
    changes: &[FactChange],
    tombstones_kept: u64,
) -> Result<Written, CatalogError> {
    write(connection, |work| {
        for change in changes {
            match change {
                FactChange::Upsert { fact, manifest } => work.upsert(fact, manifest.as_ref())?,
                FactChange::Remove { share, name } => work.remove(share, name.as_str())?,
            }
        }
        work.prune(tombstones_kept)
    })
}

pub(super) fn set_share(connection: &mut Connection, share: &ShareRecord) -> Result<Written, CatalogError> {
    write(connection, |work| work.set_share(share))
}

pub(super) fn hide_except(connection: &mut Connection, names: &[String]) -> Result<Written, CatalogError> {
    write(connection, |work| {
        let gone: Vec<String> = {
            let mut statement = work.db.prepare_cached("SELECT name FROM shares WHERE available")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.filter(|name| !name.as_ref().is_ok_and(|name| names.contains(name)))
                .collect::<Result<_, _>>()?
        };
        for name in &gone {
            let friends_only = work.share(name)?.friends_only;
            work.show(name, friends_only, false)?;
        }
        Ok(())
    })
}

/// Counts anew what is remembered of the files beside them.
pub(super) fn recount(connection: &mut Connection) -> Result<Written, CatalogError> {
    write(connection, |work| work.recount())
}

fn write(
    connection: &mut Connection,
    changes: impl FnOnce(&mut Work<'_>) -> Result<(), CatalogError>,
) -> Result<Written, CatalogError> {
    let db = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = Ledger::load(&db)?;
    let ledger = before.clone();
    let mut work = Work { db: &db, ledger, shares: BTreeMap::new(), applied: Applied::default() };
    changes(&mut work)?;
    work.save(&before)?;
    let applied = Applied { sequence: work.ledger.sequence, ..work.applied };
    let pruned = work.ledger.pruned;
    db.commit()?;
    Ok(Written { applied, pruned })
}

/// One transaction under way.
struct Work<'a> {
    db: &'a Transaction<'a>,
    ledger: Ledger,
    /// The shares that it has touched: as they were, and as they are.
    shares: BTreeMap<String, (Share, Share)>,
    applied: Applied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    friends_only: bool,
    available: bool,
    totals: Totals,
}

impl Share {
    fn is_announced(&self) -> bool {
        self.available && !self.friends_only
    }
}

/// A file's row, there or gone.
struct Stored {
    id: i64,
    content: ContentHash,
    stamp: Stamp,
    sequence: u64,
    live: bool,
    told: bool,
}

impl Work<'_> {
    fn upsert(&mut self, fact: &Fact, manifest: Option<&Manifest>) -> Result<(), CatalogError> {
        let share = self.share(&fact.share)?;
        let name = fact.name.as_str();
        let stored = self.stored(&fact.share, name)?;
        if let Some(manifest) = manifest.filter(|manifest| manifest.pieces().count() > 1) {
            self.db.prepare_cached("INSERT OR IGNORE INTO manifests VALUES (?1, ?2, ?3)")?.execute((
                fact.content.as_bytes(),
                fact.size.cast_signed(),
                manifest.to_bytes(),
            ))?;
        }
        let before = stored.as_ref().filter(|stored| stored.live);
        let is_news = before.is_none_or(|before| {
            before.content != fact.content
                || before.stamp.size != fact.size
                || before.stamp.modified_ns.div_euclid(1_000_000) != fact.modified_ms()
        });
        let sequence = match before {
            Some(before) if !is_news => before.sequence,
            _ => {
                self.applied.changed += 1;
                self.next_sequence()
            }
        };
        if share.is_announced() {
            if let Some(before) = before {
                self.ledger.digest.toggle(&fact.share, name, &before.content, before.stamp.size);
                // What is counted may be wrong until it is counted anew; it is no reason to take no changes.
                self.ledger.announced = self.ledger.announced.saturating_sub(1);
            }
            self.ledger.digest.toggle(&fact.share, name, &fact.content, fact.size);
            self.ledger.announced += 1;
        }
        let before_size = before.map(|before| before.stamp.size);
        self.count(&fact.share, before_size, Some(fact.size));
        if stored.as_ref().is_some_and(|stored| !stored.live) {
            self.ledger.dead = self.ledger.dead.saturating_sub(1);
        }
        let told = share.is_announced() || stored.as_ref().is_some_and(|stored| stored.told);
        self.db
            .prepare_cached(
                "INSERT INTO files \
                 (share, name, content, size, modified_ns, changed_ns, inode, sequence, live, told) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9) \
                 ON CONFLICT (share, name) DO UPDATE SET content = ?3, size = ?4, modified_ns = ?5, \
                 changed_ns = ?6, inode = ?7, sequence = ?8, live = 1, told = ?9",
            )?
            .execute((
                &fact.share,
                name,
                fact.content.as_bytes(),
                fact.size.cast_signed(),
                fact.modified_ns,
                fact.changed_ns,
                fact.inode.cast_signed(),
                sequence.cast_signed(),
                told,
            ))?;
        match stored {
            Some(stored) if stored.content != fact.content => self.drop_manifest(&stored.content),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, share_name: &str, name: &str) -> Result<(), CatalogError> {
        let share = self.share(share_name)?;
        let Some(stored) = self.stored(share_name, name)?.filter(|stored| stored.live) else {
            return Ok(());
        };
        if share.is_announced() {
            self.ledger.digest.toggle(share_name, name, &stored.content, stored.stamp.size);
            self.ledger.announced = self.ledger.announced.saturating_sub(1);
        }
        self.count(share_name, Some(stored.stamp.size), None);
        self.ledger.dead += 1;
        self.applied.removed += 1;
        let sequence = self.next_sequence();
        self.db
            .prepare_cached("UPDATE files SET live = 0, sequence = ?2 WHERE id = ?1")?
            .execute((stored.id, sequence.cast_signed()))?;
        Ok(())
    }

    fn set_share(&mut self, share: &ShareRecord) -> Result<(), CatalogError> {
        self.db
            .prepare_cached(
                "INSERT INTO shares VALUES (?1, ?2, ?3, NULL, NULL, 0, 0) ON CONFLICT (name) DO NOTHING",
            )?
            .execute((&share.name, share.visible == Visibility::Friends, share.available))?;
        if let Some((device, inode)) = share.root {
            self.db
                .prepare_cached("UPDATE shares SET root_device = ?2, root_inode = ?3 WHERE name = ?1")?
                .execute((&share.name, device.cast_signed(), inode.cast_signed()))?;
        }
        self.show(&share.name, share.visible == Visibility::Friends, share.available)
    }

    /// Makes a share visible as said; its files then come or go for the network.
    fn show(&mut self, name: &str, friends_only: bool, available: bool) -> Result<(), CatalogError> {
        let before = self.share(name)?;
        let after = Share { friends_only, available, ..before };
        if let Some((_, now)) = self.shares.get_mut(name) {
            *now = after;
        }
        if before.is_announced() == after.is_announced() {
            return Ok(());
        }
        self.toggle_all(name)?;
        // Whatever was announced was told, and whatever is now announced will be: so all of them are, either way.
        let files = self
            .db
            .prepare_cached(
                "UPDATE files SET told = 1, sequence = ?2 + n FROM \
                 (SELECT id AS numbered, row_number() OVER (ORDER BY sequence) AS n FROM files \
                  WHERE share = ?1 AND live) WHERE id = numbered",
            )?
            .execute((name, self.ledger.sequence.cast_signed()))? as u64;
        self.ledger.sequence += files;
        if after.is_announced() {
            self.ledger.announced += files;
        } else {
            self.ledger.announced = self.ledger.announced.saturating_sub(files);
        }
        Ok(())
    }

    fn recount(&mut self) -> Result<(), CatalogError> {
        let names: Vec<String> = {
            let mut statement = self.db.prepare_cached("SELECT name FROM shares")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        (self.ledger.digest, self.ledger.announced) = (Digest::default(), 0);
        for name in &names {
            let share = self.share(name)?;
            let without = self.ledger.digest;
            let totals = self.toggle_all(name)?;
            match share.is_announced() {
                true => self.ledger.announced += totals.files,
                false => self.ledger.digest = without,
            }
            if let Some((_, share)) = self.shares.get_mut(name) {
                share.totals = totals;
            }
        }
        self.ledger.dead = self.count_dead()?;
        Ok(())
    }

    /// Adds all files of a share to the digest, or takes them out. What they come to.
    fn toggle_all(&mut self, share: &str) -> Result<Totals, CatalogError> {
        let mut totals = Totals::default();
        let mut statement =
            self.db.prepare_cached("SELECT name, content, size FROM files WHERE share = ?1 AND live")?;
        let mut rows = statement.query([share])?;
        while let Some(row) = rows.next()? {
            let (name, size): (String, i64) = (row.get(0)?, row.get(2)?);
            let size = size.cast_unsigned();
            self.ledger.digest.toggle(share, &name, &hash_of(row, 1)?, size);
            totals.files += 1;
            totals.bytes = totals.bytes.saturating_add(size);
        }
        Ok(totals)
    }

    fn count_dead(&self) -> Result<u64, CatalogError> {
        let sql = "SELECT count(*) FROM files WHERE NOT live";
        Ok(self.db.query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Forgets the oldest removals where they have become twice as many as are to be kept: now and then many, since
    /// each time costs a look at all manifests.
    fn prune(&mut self, kept: u64) -> Result<(), CatalogError> {
        if self.ledger.dead <= kept.saturating_mul(2) {
            return Ok(());
        }
        let sql = "SELECT sequence FROM files WHERE NOT live ORDER BY sequence DESC LIMIT 1 OFFSET ?1";
        let newest_forgotten: Option<i64> =
            self.db.query_row(sql, [kept.cast_signed()], |row| row.get(0)).optional()?;
        let Some(newest_forgotten) = newest_forgotten else {
            // There are fewer than were counted.
            self.ledger.dead = self.count_dead()?;
            return Ok(());
        };
        let forgotten =
            self.db.execute("DELETE FROM files WHERE NOT live AND sequence <= ?1", [newest_forgotten])?;
        self.db.execute("DELETE FROM manifests WHERE content NOT IN (SELECT content FROM files)", [])?;
        self.ledger.dead = self.ledger.dead.saturating_sub(forgotten as u64);
        self.ledger.pruned = newest_forgotten.cast_unsigned();
        Ok(())
    }

    /// A manifest is kept as long as a row has its content, also that of a file that is gone: it may come back under
    /// another name.
    fn drop_manifest(&self, content: &ContentHash) -> Result<(), CatalogError> {
        self.db
            .prepare_cached(
                "DELETE FROM manifests WHERE content = ?1 AND NOT EXISTS (SELECT 1 FROM files WHERE content = ?1)",
            )?
            .execute([content.as_bytes()])?;
        Ok(())
    }

    fn next_sequence(&mut self) -> u64 {
        self.ledger.sequence += 1;
        self.ledger.sequence
    }

    fn count(&mut self, share: &str, before: Option<u64>, after: Option<u64>) {
        let Some((_, share)) = self.shares.get_mut(share) else { return };
        let totals = &mut share.totals;
        totals.files = (totals.files + u64::from(after.is_some())).saturating_sub(before.is_some().into());
        totals.bytes = totals.bytes.saturating_add(after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
    }

    fn share(&mut self, name: &str) -> Result<Share, CatalogError> {
        if let Some((_, share)) = self.shares.get(name) {
            return Ok(*share);
        }
        let share = self
            .db
            .prepare_cached("SELECT friends_only, available, files, bytes FROM shares WHERE name = ?1")?
            .query_row([name], |row| {
                let totals = Totals {
                    files: row.get::<_, i64>(2)?.cast_unsigned(),
                    bytes: row.get::<_, i64>(3)?.cast_unsigned(),
                };
                Ok(Share { friends_only: row.get(0)?, available: row.get(1)?, totals })
            })
            .optional()?
            .ok_or_else(|| CatalogError::UnknownShare { name: name.to_owned() })?;
        self.shares.insert(name.to_owned(), (share, share));
        Ok(share)
    }

    fn stored(&self, share: &str, name: &str) -> Result<Option<Stored>, CatalogError> {
        let stored = self
            .db
            .prepare_cached(
                "SELECT id, content, size, modified_ns, changed_ns, inode, sequence, live, told FROM files \
                 WHERE share = ?1 AND name = ?2",
            )?
            .query_row([share, name], |row| {
                let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
                Ok(Stored {
                    id: row.get(0)?,
                    content: hash_of(row, 1)?,
                    stamp: Stamp {
                        size: number(2)?,
                        modified_ns: row.get(3)?,
                        changed_ns: row.get(4)?,
                        inode: number(5)?,
                    },
                    sequence: number(6)?,
                    live: row.get(7)?,
                    told: row.get(8)?,
                })
            })
            .optional()?;
        Ok(stored)
    }

    /// What is as it was isn't written again: a transaction that changed nothing then costs no wait for the disk.
    fn save(&self, before: &Ledger) -> Result<(), CatalogError> {
        for (name, (_, share)) in self.shares.iter().filter(|(_, (before, now))| before != now) {
            self.db
                .prepare_cached(
                    "UPDATE shares SET friends_only = ?2, available = ?3, files = ?4, bytes = ?5 WHERE name = ?1",
                )?
                .execute((
                    name,
                    share.friends_only,
                    share.available,
                    share.totals.files.cast_signed(),
                    share.totals.bytes.cast_signed(),
                ))?;
        }
        if self.ledger == *before { Ok(()) } else { self.ledger.save(self.db) }
    }
}
