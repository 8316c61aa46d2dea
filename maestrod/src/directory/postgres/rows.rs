//! What the columns of a row are.

use p2p_content::ContentHash;
use tokio_postgres::Row;

use super::connections::Failure;
use crate::directory::group::Holding;
use crate::directory::{DirectoryError, FileRecord};

/// Every name was written from a text.
pub(super) fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The row of peer, share, name, content, size and time of modification.
pub(super) fn holding(row: &Row) -> Result<Holding, Failure> {
    let content: Option<&[u8]> = row.get(3);
    Ok(Holding {
        peer: row.get(0),
        file: FileRecord {
            share: name(row.get(1)),
            name: name(row.get(2)),
            content: content.map(array).transpose()?.map(ContentHash::from_bytes),
            size: row.get::<_, i64>(4).cast_unsigned(),
            modified_ms: row.get(5),
        },
    })
}

/// The bytes of a column that always has so many.
pub(super) fn array<const LEN: usize>(bytes: &[u8]) -> Result<[u8; LEN], DirectoryError> {
    bytes.try_into().map_err(|_| {
        DirectoryError::Failed(format!(
            "a column of the database has {} bytes in place of {LEN}",
            bytes.len()
        ))
    })
}
