//! The questions, on a connection that only reads.

use p2p_content::{ContentHash, FileName, Manifest};
use p2p_proto::control::Visibility;
use rusqlite::{OptionalExtension, Row, ToSql};

use super::buckets;
use super::schema::Ledger;
use super::{
    BucketQuery, Buckets, CatalogError, Change, Changed, Changes, Fact, ListQuery, Reader, ShareRecord,
    Stamp, Totals, Viewer,
};

/// How many files of one content are told of. A content may lie in a share thousands of times (the empty file does),
/// and who wants it needs one.
const COPIES: u32 = 64;

/// The columns that [`fact_of`] reads, in its order.
pub(super) const FACT: &str = "f.share, f.name, f.content, f.size, f.modified_ns, f.changed_ns, f.inode";

/// A file that is, or was, the same inode with the same length and modification time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    /// Its name.
    pub(crate) name: String,
    /// Its content.
    pub(crate) content: ContentHash,
    /// Its ctime when it was hashed.
    pub(crate) changed_ns: i64,
}

impl Reader {
    pub(crate) fn find_content(
        &self,
        content: &ContentHash,
        viewer: Viewer,
    ) -> Result<Vec<Fact>, CatalogError> {
        let of = format!("f.content = ?1 {} LIMIT {COPIES}", seen_by(viewer));
        let mut facts = self.facts(&of, &[content.as_bytes()], |_| Step::Take)?;
        // Sorted here: the database would sort all copies, however many there are, each time that one is served.
        facts.sort_by(|a, b| (&a.name, &a.share).cmp(&(&b.name, &b.share)));
        Ok(facts)
    }

    pub(super) fn find_name(&self, name: &str, viewer: Viewer) -> Result<Vec<Fact>, CatalogError> {
        self.facts(&format!("f.name = ?1 {} ORDER BY f.share", seen_by(viewer)), &[&name], |_| Step::Take)
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<Vec<Fact>, CatalogError> {
        let prefix = query.prefix.as_deref().unwrap_or("");
        let text = query.text.as_deref().map(str::to_lowercase);
        // The list begins after `after`, or at the prefix, whichever is later; no share has an empty name.
        let (name, share) = query
            .after
            .as_ref()
            .map(|(name, share)| (name.as_str(), share.as_str()))
            .filter(|(name, _)| *name >= prefix)
            .unwrap_or((prefix, ""));
        let of = format!(
            "(f.name, f.share) > (?1, ?2) AND (?3 IS NULL OR f.share = ?3) {} ORDER BY f.name, f.share",
            seen_by(query.viewer)
        );
        // What SQLite can't say by an index (Unicode case, the end of a prefix) is said here, row by row as they come.
        let mut left = query.limit;
        self.facts(&of, &[&name, &share, &query.share], |fact| {
            let name = fact.name.as_str();
            if left == 0 || !name.starts_with(prefix) {
                return Step::Stop;
            }
            if text.as_ref().is_some_and(|text| !name.to_lowercase().contains(text)) {
                return Step::Skip;
            }
            left -= 1;
            Step::Take
        })
    }

    pub(super) fn manifest(&self, content: &ContentHash) -> Result<Option<Manifest>, CatalogError> {
        let connection = self.connection()?;
        let stored: Option<(i64, Vec<u8>)> = connection
            .prepare_cached("SELECT size, pieces FROM manifests WHERE content = ?1")?
            .query_row([content.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((size, pieces)) = stored {
            let manifest = Manifest::from_bytes(*content, size.cast_unsigned(), &pieces);
            return manifest.map(Some).map_err(|error| CatalogError::Damaged { what: error.to_string() });
        }
        let size: Option<i64> = connection
            .prepare_cached("SELECT size FROM files WHERE content = ?1 AND live LIMIT 1")?
            .query_row([content.as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(size.and_then(|size| Manifest::single(*content, size.cast_unsigned())))
    }

    /// The changes, and where they reach the end of the catalog, the answer to `query`.
    pub(super) fn changes_after(
        &self,
        sequence: u64,
        limit: u32,
        query: Option<&BucketQuery>,
    ) -> Result<(Changes, Option<Buckets>), CatalogError> {
        let connection = self.connection()?;
        // One transaction, so that the changes, the digest and the answer are of one moment.
        let moment = connection.unchecked_transaction()?;
        let ledger = Ledger::load(&moment)?;
        let limit = limit.max(1);
        let mut statement = moment.prepare_cached(&format!(
            "SELECT {FACT}, f.sequence, f.live AND s.available AND NOT s.friends_only \
             FROM files f JOIN shares s ON s.name = f.share \
             WHERE f.told AND f.sequence > ?1 ORDER BY f.sequence LIMIT ?2"
        ))?;
        let mut rows = statement.query((sequence.cast_signed(), i64::from(limit) + 1))?;
        let mut changes = Vec::new();
        let mut complete = true;
        while let Some(row) = rows.next()? {
            if changes.len() == limit as usize {
                complete = false;
                break;
            }
            let fact = fact_of(row)?;
            let sequence = row.get::<_, i64>(7)?.cast_unsigned();
            let what = if row.get(8)? {
                Changed::Upserted(fact)
            } else {
                Changed::Removed { share: fact.share, name: fact.name }
            };
            changes.push(Change { sequence, what });
        }
        let last = changes.last().map_or(sequence, |change| change.sequence);
        let through = if complete { ledger.sequence } else { last };
        let buckets = match query.filter(|_| complete) {
            Some(query) => Some(buckets::answer(&moment, query)?),
            None => None,
        };
        let (digest, files) = (ledger.digest.0, ledger.announced);
        Ok((Changes { changes, through, complete, digest, files }, buckets))
    }

    pub(super) fn totals(&self) -> Result<Totals, CatalogError> {
        let totals = self
            .connection()?
            .prepare_cached(
                "SELECT coalesce(sum(files), 0), coalesce(sum(bytes), 0) FROM shares WHERE available",
            )?
            .query_row([], |row| totals_of(row, 0))?;
        Ok(totals)
    }

    pub(super) fn share_totals(&self) -> Result<Vec<(String, Totals)>, CatalogError> {
        let mut statement =
            self.connection()?.prepare_cached("SELECT name, files, bytes FROM shares ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, totals_of(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is remembered of a share.
    pub(crate) fn share(&self, name: &str) -> Result<Option<ShareRecord>, CatalogError> {
        let share = self
            .connection()?
            .prepare_cached(
                "SELECT friends_only, available, root_device, root_inode FROM shares WHERE name = ?1",
            )?
            .query_row([name], |row| {
                let root: (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
                Ok(ShareRecord {
                    name: name.to_owned(),
                    visible: if row.get(0)? { Visibility::Friends } else { Visibility::Network },
                    available: row.get(1)?,
                    root: root.0.zip(root.1).map(|(dev, ino)| (dev.cast_unsigned(), ino.cast_unsigned())),
                })
            })
            .optional()?;
        Ok(share)
    }

    /// How many files the share has, hidden or not.
    pub(crate) fn files_in(&self, share: &str) -> Result<u64, CatalogError> {
        let files: Option<i64> = self
            .connection()?
            .prepare_cached("SELECT files FROM shares WHERE name = ?1")?
            .query_row([share], |row| row.get(0))
            .optional()?;
        Ok(files.unwrap_or(0).cast_unsigned())
    }

    /// What is known of files of a share, hidden or not, in the order of the names; all of it at one moment.
    pub(crate) fn known_of<'n>(
        &self,
        share: &str,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<Vec<Option<Fact>>, CatalogError> {
        // One transaction for all: beginning one costs as much as a question does.
        let _moment = self.connection()?.unchecked_transaction()?;
        names.map(|name| self.known(share, name)).collect()
    }

    /// What is known of a file, hidden or not.
    pub(crate) fn known(&self, share: &str, name: &str) -> Result<Option<Fact>, CatalogError> {
        let fact = self
            .connection()?
            .prepare_cached(&format!(
                "SELECT {FACT} FROM files f WHERE f.share = ?1 AND f.name = ?2 AND f.live"
            ))?
            .query_row([share, name], fact_of)
            .optional()?;
        Ok(fact)
    }

    /// Files of the share, there or gone, that are the same inode with the same length and modification time.
    pub(crate) fn twins(&self, share: &str, stamp: &Stamp) -> Result<Vec<Twin>, CatalogError> {
        let mut statement = self.connection()?.prepare_cached(
            "SELECT name, content, changed_ns FROM files \
             WHERE inode = ?1 AND share = ?2 AND size = ?3 AND modified_ns = ?4 LIMIT 16",
        )?;
        let rows = statement.query_map(
            (stamp.inode.cast_signed(), share, stamp.size.cast_signed(), stamp.modified_ns),
            |row| Ok(Twin { name: row.get(0)?, content: hash_of(row, 1)?, changed_ns: row.get(2)? }),
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The share's files with a name in `after..before` (both left out; `before` empty: to the end), at most `limit`,
    /// in order of their names.
    pub(crate) fn stamps_between(
        &self,
        share: &str,
        after: &str,
        before: &str,
        limit: u32,
    ) -> Result<Vec<(String, Stamp)>, CatalogError> {
        // Both bounds are plain comparisons, so that the index ends the search too: it is asked once per file.
        let end = if before.is_empty() { "?3 = ''" } else { "name < ?3" };
        let mut statement = self.connection()?.prepare_cached(&format!(
            "SELECT name, size, modified_ns, changed_ns, inode FROM files \
             WHERE share = ?1 AND name > ?2 AND {end} AND live ORDER BY name LIMIT ?4",
        ))?;
        let rows = statement.query_map((share, after, before, limit), |row| {
            let stamp = Stamp {
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                modified_ns: row.get(2)?,
                changed_ns: row.get(3)?,
                inode: row.get::<_, i64>(4)?.cast_unsigned(),
            };
            Ok((row.get(0)?, stamp))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn facts(
        &self,
        of: &str,
        values: &[&dyn ToSql],
        mut step: impl FnMut(&Fact) -> Step,
    ) -> Result<Vec<Fact>, CatalogError> {
        let mut statement = self.connection()?.prepare_cached(&format!(
            "SELECT {FACT} FROM files f JOIN shares s ON s.name = f.share WHERE f.live AND {of}"
        ))?;
        let mut rows = statement.query(values)?;
        let mut facts = Vec::new();
        while let Some(row) = rows.next()? {
            let fact = fact_of(row)?;
            match step(&fact) {
                Step::Take => facts.push(fact),
                Step::Skip => {}
                Step::Stop => break,
            }
        }
        Ok(facts)
    }
}

enum Step {
    Take,
    Skip,
    Stop,
}

pub(super) fn seen_by(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Own | Viewer::Friend => "AND s.available",
        Viewer::Network => "AND s.available AND NOT s.friends_only",
    }
}

pub(super) fn fact_of(row: &Row<'_>) -> rusqlite::Result<Fact> {
    let name: String = row.get(1)?;
    Ok(Fact {
        share: row.get(0)?,
        name: FileName::parse(&name).map_err(|error| not_as_written(1, error))?,
        content: hash_of(row, 2)?,
        size: row.get::<_, i64>(3)?.cast_unsigned(),
        modified_ns: row.get(4)?,
        changed_ns: row.get(5)?,
        inode: row.get::<_, i64>(6)?.cast_unsigned(),
    })
}

pub(super) fn hash_of(row: &Row<'_>, column: usize) -> rusqlite::Result<ContentHash> {
    Ok(ContentHash::from_bytes(row.get(column)?))
}

fn totals_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Totals> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    Ok(Totals { files: number(column)?, bytes: number(column + 1)? })
}

fn not_as_written(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
