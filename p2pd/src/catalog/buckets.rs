//! The catalog sorted into buckets, for a maestro that looks where it holds something else.

use p2p_content::{MAX_BUCKET_BITS, bucket_of};
use rusqlite::Connection;

use super::digest::Digest;
use super::read::{FACT, fact_of, hash_of, seen_by};
use super::{BucketQuery, Buckets, CatalogError, Viewer};

/// Answers of the files that are announced. It looks at all of them, one at a time.
pub(super) fn answer(moment: &Connection, query: &BucketQuery) -> Result<Buckets, CatalogError> {
    match query {
        BucketQuery::Digests { bits } => digests(moment, *bits),
        BucketQuery::Files { bits, buckets, limit } => files(moment, *bits, buckets, *limit),
    }
}

fn digests(moment: &Connection, bits: u32) -> Result<Buckets, CatalogError> {
    let mut buckets = vec![(Digest::default(), 0u32); 1 << bits.min(MAX_BUCKET_BITS)];
    let mut statement = moment.prepare_cached(&announced())?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (share, name) = (text(row, 0)?, text(row, 1)?);
        let size = row.get::<_, i64>(3)?.cast_unsigned();
        let (digest, files) = &mut buckets[bucket_of(share, name, bits) as usize];
        digest.toggle(share, name, &hash_of(row, 2)?, size);
        *files = files.saturating_add(1);
    }
    Ok(Buckets::Digests(buckets.into_iter().map(|(digest, files)| (digest.0, files)).collect()))
}

fn files(moment: &Connection, bits: u32, buckets: &[u32], limit: usize) -> Result<Buckets, CatalogError> {
    let mut facts = Vec::new();
    let mut statement = moment.prepare_cached(&announced())?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if buckets.binary_search(&bucket_of(text(row, 0)?, text(row, 1)?, bits)).is_ok() {
            if facts.len() == limit {
                return Ok(Buckets::Files(None));
            }
            facts.push(fact_of(row)?);
        }
    }
    Ok(Buckets::Files(Some(facts)))
}

fn announced() -> String {
    let seen = seen_by(Viewer::Network);
    format!("SELECT {FACT} FROM files f JOIN shares s ON s.name = f.share WHERE f.live {seen}")
}

fn text<'row>(row: &'row rusqlite::Row<'_>, column: usize) -> Result<&'row str, CatalogError> {
    row.get_ref(column)?.as_str().map_err(|error| CatalogError::Damaged { what: error.to_string() })
}
