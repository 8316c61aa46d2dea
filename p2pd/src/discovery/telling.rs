//! What a maestro is told of the catalog, and when: the peer's side of the Sync stream after the Welcome.
//!
//! It knows the catalog and no stream: whoever has the messages hands in what the maestro says, and sends what is to be
//! said. Called by `session`, and by the test that lets everything happen in every order.

use p2p_content::MAX_BUCKET_BITS;
use p2p_proto::v1::sync_request::Message as Up;
use p2p_proto::v1::sync_response::Message as Down;
use p2p_proto::v1::{self, Welcome};

use super::answer::entry;
use crate::catalog::{BucketQuery, Buckets, Catalog, CatalogError, Changed, Changes};

/// Changes in one batch. With names of the longest kind a batch stays below the message limit.
const BATCH: u32 = 1000;
/// Messages that may be unacknowledged.
pub(super) const IN_FLIGHT: usize = 4;
/// Files in one answer about buckets. With names of the longest kind it stays below the message limit.
const FILES_TOLD: usize = 2000;

/// How far the maestro has been told.
#[derive(Debug, Clone)]
pub struct Telling {
    sent: u64,
    in_flight: usize,
    /// The next batch begins a full catalog.
    reset: bool,
    /// Something is to be sent even if nothing changed: the digests shall be compared.
    due: bool,
    /// What the maestro asked. It is answered at the end of the catalog, where both hold the same changes.
    asked: Option<BucketQuery>,
    /// The maestro holds something else: what the catalog remembers of the whole of it may be what is wrong.
    is_doubted: bool,
    /// The catalog told of all removals since this change when the sending began.
    floor: u64,
    batch: u32,
}

impl Telling {
    /// Goes on from what the Welcome says is held, or begins anew where the catalog cannot go on from there.
    pub fn resume(welcome: &Welcome, catalog: &Catalog) -> Telling {
        let (floor, last) = (catalog.oldest_resumable(), *catalog.watch().borrow());
        let goes_on = welcome.epoch == catalog.epoch() && (floor..=last).contains(&welcome.applied_sequence);
        let sent = if goes_on { welcome.applied_sequence } else { 0 };
        let (reset, asked, is_doubted) = (!goes_on, None, false);
        Telling { sent, in_flight: 0, reset, due: true, asked, is_doubted, floor, batch: BATCH }
    }

    /// The same, with at most so many changes in a batch: for tests, which have few files.
    pub fn in_batches_of(self, batch: u32) -> Telling {
        Telling { batch, ..self }
    }

    /// Whether the whole catalog is told next.
    pub fn begins_anew(&self) -> bool {
        self.reset
    }

    /// The last change that was sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether there is something to say now, where `last` is the catalog's last change.
    pub fn has_more(&self, last: u64) -> bool {
        self.in_flight < IN_FLIGHT && (self.due || self.asked.is_some() || self.sent < last)
    }

    /// Whether all that was said is acknowledged, and nothing is asked.
    pub fn is_done(&self) -> bool {
        self.in_flight == 0 && !self.due && self.asked.is_none()
    }

    /// What is to be said next, in this order.
    ///
    /// # Errors
    ///
    /// Those of the catalog.
    pub async fn next(&mut self, catalog: &Catalog) -> Result<Vec<Up>, CatalogError> {
        if std::mem::take(&mut self.is_doubted) {
            catalog.recount().await?;
        }
        // Removals that were not sent yet are forgotten meanwhile: only a full catalog tells of them now.
        let floor = catalog.oldest_resumable();
        if floor > self.floor && floor > self.sent {
            self.begin_anew();
            self.floor = floor;
        }
        let query = self.asked.clone();
        let (changes, buckets) = catalog.changes_and_buckets(self.sent, self.batch, query).await?;
        let delta = to_wire(changes, catalog.epoch(), self.reset);
        let (epoch, sequence) = (delta.epoch, delta.through_sequence);
        self.sent = sequence;
        self.reset = false;
        // A batch that ends before the catalog does calls for the next one.
        self.due = !delta.complete;
        let mut said = vec![Up::Delta(delta)];
        if let Some(buckets) = buckets
            && let Some(query) = self.asked.take()
        {
            said.push(answer(epoch, sequence, query, buckets));
        }
        self.in_flight += said.len();
        Ok(said)
    }

    /// Takes what the maestro says. What is acknowledged now, if it is said: after an acknowledgement that asks for the
    /// whole catalog, nothing is.
    pub fn heard(&mut self, message: &Down) -> Option<u64> {
        match message {
            Down::Ack(ack) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if !ack.resync {
                    return Some(ack.applied_sequence);
                }
                tracing::warn!("the maestro's copy of the catalog differs; telling it the whole catalog");
                self.is_doubted = true;
                self.begin_anew();
            }
            Down::Compare(v1::CompareBuckets { bits }) => {
                tracing::info!("the maestro compares its copy of the catalog, part by part");
                self.asked = Some(BucketQuery::Digests { bits: (*bits).min(MAX_BUCKET_BITS) });
            }
            Down::Tell(v1::TellBuckets { bits, buckets }) => {
                let (bits, buckets) = ((*bits).min(MAX_BUCKET_BITS), buckets.clone());
                self.asked = Some(BucketQuery::Files { bits, buckets, limit: FILES_TOLD });
            }
            Down::Membership(_) | Down::Welcome(_) => {}
        }
        None
    }

    fn begin_anew(&mut self) {
        (self.sent, self.reset, self.due, self.asked) = (0, true, true, None);
    }
}

fn answer(epoch: u64, sequence: u64, query: BucketQuery, buckets: Buckets) -> Up {
    let bits = match &query {
        BucketQuery::Digests { bits } | BucketQuery::Files { bits, .. } => *bits,
    };
    match buckets {
        Buckets::Digests(buckets) => {
            let digests = buckets.iter().flat_map(|(digest, _)| *digest).collect::<Vec<u8>>().into();
            let files = buckets.into_iter().map(|(_, files)| files).collect();
            Up::Digests(v1::BucketDigests { epoch, sequence, bits, digests, files })
        }
        Buckets::Files(facts) => {
            let buckets = match query {
                BucketQuery::Files { buckets, .. } => buckets,
                BucketQuery::Digests { .. } => Vec::new(),
            };
            let too_many = facts.is_none();
            let files = facts.iter().flatten().map(entry).collect();
            Up::Files(v1::BucketFiles { epoch, sequence, bits, buckets, files, too_many })
        }
    }
}

fn to_wire(changes: Changes, epoch: u64, reset: bool) -> v1::CatalogDelta {
    let change = |change: crate::catalog::Change| v1::Change {
        sequence: change.sequence,
        change: Some(match change.what {
            Changed::Upserted(fact) => v1::change::Change::Upsert(entry(&fact)),
            Changed::Removed { share, name } => {
                v1::change::Change::Removed(v1::RemovedFile { share, name: name.to_string() })
            }
        }),
    };
    v1::CatalogDelta {
        epoch,
        reset,
        changes: changes.changes.into_iter().map(change).collect(),
        through_sequence: changes.through,
        complete: changes.complete,
        digest: changes.digest.to_vec().into(),
        files: changes.files,
    }
}
