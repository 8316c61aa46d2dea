//! The rules of one Sync stream: which delta may follow which. Pure.

use p2p_content::{ContentHash, FileName, NameError};
use p2p_proto::v1::{self, CatalogDelta, FileEntry};

use crate::directory::{Batch, Change, Complete, Digest, FileRecord, Held};

/// Longest name of a share, in bytes.
const MAX_SHARE_BYTES: usize = 255;

/// What is held of a peer's catalog when its stream begins, as the Welcome says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Life of the catalog; 0: nothing is held.
    pub epoch: u64,
    /// The last sequence number applied.
    pub applied: u64,
}

/// A peer broke the protocol; its stream ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the Hello's epoch is 0; an epoch is a random number other than 0")]
    NoEpoch,
    #[error("the delta is of epoch {found}, and the stream's Hello was of epoch {expected}")]
    Epoch { found: u64, expected: u64 },
    #[error("the maestro does not hold this epoch, so the first delta must begin the whole catalog (reset)")]
    NotReset,
    #[error("change {found} comes after {after}; sequence numbers must ascend")]
    Sequence { found: u64, after: u64 },
    #[error("the delta says that all is sent through {through}, and it has or follows change {last}")]
    Through { through: u64, last: u64 },
    #[error("change {sequence} has neither an upsert nor a removal")]
    Empty { sequence: u64 },
    #[error("change {sequence}: {error}")]
    Name { sequence: u64, error: NameError },
    #[error(
        "change {sequence}: the share's name is longer than {MAX_SHARE_BYTES} bytes or has control characters"
    )]
    Share { sequence: u64 },
    #[error("change {sequence}: the content hash has {found} bytes; it must have 32")]
    Content { sequence: u64, found: usize },
    #[error("change {sequence}: the file's size of {size} bytes is more than any file has")]
    Size { sequence: u64, size: u64 },
    #[error("the catalog's digest has {found} bytes; it must have 16")]
    Digest { found: usize },
    #[error(
        "an answer about buckets is of change {found}; it must follow the end of the catalog and be of the same change"
    )]
    Answer { found: u64 },
    #[error("an answer about buckets does not have what {bits} bits of them need")]
    Buckets { bits: u32 },
    #[error("{name:?} of share {share:?} is in none of the buckets that were asked for")]
    Elsewhere { share: String, name: String },
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    epoch: u64,
    applied: u64,
    must_reset: bool,
    /// What the peer said of its whole catalog as it is after `applied`.
    complete: Option<Complete>,
}

impl Session {
    /// Checks what a Hello says of the catalog.
    pub(super) fn check_hello(epoch: u64) -> Result<(), Violation> {
        if epoch == 0 { Err(Violation::NoEpoch) } else { Ok(()) }
    }

    /// The stream of a peer whose catalog is of `epoch` and has reached `last_sequence`.
    pub(super) fn begin(epoch: u64, last_sequence: u64, held: Held) -> Result<(Session, Resume), Violation> {
        Session::check_hello(epoch)?;
        if held.epoch != epoch {
            let resume = Resume { epoch: held.epoch, applied: held.applied };
            return Ok((Session { epoch, applied: 0, must_reset: true, complete: None }, resume));
        }
        // The peer's database went back in time, from a backup: its numbers will mean other changes this time.
        if held.applied > last_sequence {
            return Ok((
                Session { epoch, applied: 0, must_reset: true, complete: None },
                Resume { epoch: 0, applied: 0 },
            ));
        }
        let resume = Resume { epoch, applied: held.applied };
        Ok((Session { epoch, applied: held.applied, must_reset: false, complete: None }, resume))
    }

    /// Checks a delta. The session itself moves on when the batch is [`applied`](Session::applied).
    pub(super) fn check(&self, delta: CatalogDelta) -> Result<Batch, Violation> {
        if delta.epoch != self.epoch {
            return Err(Violation::Epoch { found: delta.epoch, expected: self.epoch });
        }
        if self.must_reset && !delta.reset {
            return Err(Violation::NotReset);
        }
        let mut last = if delta.reset { 0 } else { self.applied };
        let mut changes = Vec::with_capacity(delta.changes.len());
        for change in delta.changes {
            if change.sequence <= last {
                return Err(Violation::Sequence { found: change.sequence, after: last });
            }
            last = change.sequence;
            changes.push(check_change(change)?);
        }
        if delta.through_sequence < last {
            return Err(Violation::Through { through: delta.through_sequence, last });
        }
        let complete = match (delta.complete, <[u8; 16]>::try_from(&*delta.digest)) {
            (false, _) => None,
            (true, Ok(digest)) => {
                Some(Complete { digest: Digest(digest), files: delta.files, recount: false })
            }
            (true, Err(_)) => return Err(Violation::Digest { found: delta.digest.len() }),
        };
        Ok(Batch {
            epoch: delta.epoch,
            reset: delta.reset,
            changes,
            through_sequence: delta.through_sequence,
            complete,
        })
    }

    /// A batch that [`check`](Session::check) let pass is in the directory, through this sequence number.
    pub(super) fn applied(&mut self, sequence: u64, complete: Option<Complete>) {
        self.applied = sequence;
        self.must_reset = false;
        self.complete = complete;
    }

    /// Checks when an answer about buckets holds: now. What the peer said of its whole catalog at that moment.
    pub(super) fn check_answer(&self, epoch: u64, sequence: u64) -> Result<Complete, Violation> {
        if epoch != self.epoch {
            return Err(Violation::Epoch { found: epoch, expected: self.epoch });
        }
        self.complete.filter(|_| sequence == self.applied).ok_or(Violation::Answer { found: sequence })
    }

    /// Whether something of this epoch is held.
    pub(super) fn has_begun(&self) -> bool {
        !self.must_reset
    }

    /// The last sequence number applied.
    pub(super) fn sequence(&self) -> u64 {
        self.applied
    }

    /// Changes that leave the peer's catalog where it is: they set right what is held of it.
    pub(super) fn correction(&self, changes: Vec<Change>, complete: Option<Complete>) -> Batch {
        Batch { epoch: self.epoch, reset: false, changes, through_sequence: self.applied, complete }
    }
}

fn check_change(change: v1::Change) -> Result<Change, Violation> {
    let sequence = change.sequence;
    match change.change {
        None => Err(Violation::Empty { sequence }),
        Some(v1::change::Change::Removed(removed)) => {
            let (share, name) = check_place(sequence, removed.share, &removed.name)?;
            Ok(Change::Removed { share, name })
        }
        Some(v1::change::Change::Upsert(entry)) => Ok(Change::Upsert(check_file(sequence, entry)?)),
    }
}

/// Checks a file as it is after the change of this number.
pub(super) fn check_file(sequence: u64, entry: FileEntry) -> Result<FileRecord, Violation> {
    let FileEntry { share, name, content, size, modified_ms } = entry;
    let (share, name) = check_place(sequence, share, &name)?;
    let content = ContentHash::try_from(&*content)
        .map_err(|_| Violation::Content { sequence, found: content.len() })?;
    if i64::try_from(size).is_err() {
        return Err(Violation::Size { sequence, size });
    }
    Ok(FileRecord { share, name, content: Some(content), size, modified_ms })
}

fn check_place(sequence: u64, share: String, name: &str) -> Result<(String, String), Violation> {
    if share.len() > MAX_SHARE_BYTES || share.chars().any(char::is_control) {
        return Err(Violation::Share { sequence });
    }
    let name = FileName::parse(name).map_err(|error| Violation::Name { sequence, error })?;
    Ok((share, String::from(name)))
}

#[cfg(test)]
mod tests {
    use p2p_proto::v1::RemovedFile;

    use super::*;
    use crate::directory;

    fn held(epoch: u64, applied: u64) -> Held {
        Held { session: directory::Session(1), epoch, applied }
    }

    fn upsert(sequence: u64, name: &str) -> v1::Change {
        let entry = FileEntry { name: name.to_owned(), content: vec![7; 32].into(), ..FileEntry::default() };
        v1::Change { sequence, change: Some(v1::change::Change::Upsert(entry)) }
    }

    fn delta(changes: Vec<v1::Change>, through_sequence: u64) -> CatalogDelta {
        CatalogDelta { epoch: 5, changes, through_sequence, ..CatalogDelta::default() }
    }

    #[test]
    fn the_same_epoch_goes_on_where_it_was() {
        let (mut session, resume) = Session::begin(5, 20, held(5, 10)).unwrap();
        assert_eq!(resume, Resume { epoch: 5, applied: 10 });
        let batch = session.check(delta(vec![upsert(11, "a"), upsert(13, "b")], 14)).unwrap();
        assert_eq!((batch.changes.len(), batch.through_sequence), (2, 14));
        session.applied(14, None);
        let too_old = session.check(delta(vec![upsert(14, "c")], 14)).unwrap_err();
        assert_eq!(too_old, Violation::Sequence { found: 14, after: 14 });
        assert!(session.check(delta(Vec::new(), 14)).is_ok());
        assert_eq!(session.check(delta(Vec::new(), 13)), Err(Violation::Through { through: 13, last: 14 }));
    }

    #[test]
    fn another_epoch_begins_with_a_reset() {
        let (mut session, resume) = Session::begin(5, 20, held(4, 10)).unwrap();
        assert_eq!(resume, Resume { epoch: 4, applied: 10 });
        assert_eq!(session.check(delta(vec![upsert(1, "a")], 1)), Err(Violation::NotReset));
        let reset = CatalogDelta { reset: true, ..delta(vec![upsert(1, "a")], 1) };
        assert!(session.check(reset).unwrap().reset);
        session.applied(1, None);
        assert!(session.check(delta(vec![upsert(2, "b")], 2)).is_ok());
    }

    #[test]
    fn a_database_from_a_backup_begins_again() {
        let (session, resume) = Session::begin(5, 9, held(5, 10)).unwrap();
        assert_eq!(resume, Resume { epoch: 0, applied: 0 });
        assert_eq!(session.check(delta(Vec::new(), 9)), Err(Violation::NotReset));
    }

    #[test]
    fn a_reset_may_go_back_within_its_epoch() {
        let (session, _) = Session::begin(5, 20, held(5, 20)).unwrap();
        let reset = CatalogDelta { reset: true, ..delta(vec![upsert(1, "a")], 2) };
        assert_eq!(session.check(reset).unwrap().through_sequence, 2);
    }

    #[test]
    fn an_answer_about_buckets_is_of_the_end_of_the_catalog() {
        let (mut session, _) = Session::begin(5, 20, held(5, 10)).unwrap();
        assert_eq!(session.check_answer(5, 10), Err(Violation::Answer { found: 10 }));
        let complete = CatalogDelta { complete: true, digest: vec![3; 16].into(), ..delta(Vec::new(), 12) };
        let batch = session.check(complete).unwrap();
        session.applied(12, batch.complete);
        assert_eq!(session.check_answer(5, 12).unwrap().digest, Digest([3; 16]));
        assert_eq!(session.check_answer(5, 11), Err(Violation::Answer { found: 11 }));
        assert_eq!(session.check_answer(4, 12), Err(Violation::Epoch { found: 4, expected: 5 }));
        session.applied(13, None);
        assert_eq!(session.check_answer(5, 13), Err(Violation::Answer { found: 13 }));
    }

    #[test]
    fn each_violation_is_named() {
        assert_eq!(Session::begin(0, 0, held(0, 0)).unwrap_err(), Violation::NoEpoch);
        let (session, _) = Session::begin(5, 0, held(5, 0)).unwrap();
        let refused = |change: v1::Change| session.check(delta(vec![change], 1)).unwrap_err().to_string();
        let with = |edit: fn(&mut FileEntry)| {
            let mut change = upsert(1, "a");
            if let Some(v1::change::Change::Upsert(entry)) = &mut change.change {
                edit(entry);
            }
            change
        };
        let removed = RemovedFile { share: String::new(), name: "/x".to_owned() };
        let table = [
            (upsert(1, "../etc/passwd"), "change 1: the name \"../etc/passwd\""),
            (upsert(0, "a"), "change 0 comes after 0"),
            (
                v1::Change { sequence: 1, change: Some(v1::change::Change::Removed(removed)) },
                "begins with '/'",
            ),
            (v1::Change { sequence: 1, change: None }, "neither"),
            (with(|entry| entry.content = vec![1; 31].into()), "has 31 bytes"),
            (with(|entry| entry.content = Vec::new().into()), "has 0 bytes"),
            (with(|entry| entry.size = u64::MAX), "more than any file has"),
            (with(|entry| entry.share = "a\0b".to_owned()), "the share's name"),
        ];
        for (change, expected) in table {
            let message = refused(change);
            assert!(message.contains(expected), "{expected} is not in: {message}");
        }
        let other = CatalogDelta { epoch: 6, ..delta(Vec::new(), 0) };
        assert_eq!(session.check(other), Err(Violation::Epoch { found: 6, expected: 5 }));
        let mut complete = CatalogDelta { complete: true, ..delta(Vec::new(), 0) };
        assert_eq!(session.check(complete.clone()), Err(Violation::Digest { found: 0 }));
        complete.digest = vec![0; 16].into();
        assert!(session.check(complete).unwrap().complete.is_some());
        let short = delta(vec![upsert(1, "a"), upsert(2, "b")], 1);
        assert_eq!(session.check(short), Err(Violation::Through { through: 1, last: 2 }));
    }
}
