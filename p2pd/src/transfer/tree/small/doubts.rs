//! Files that came and are false, or were refused, under a length that was only told: whether the source was wrong or who
//! told the length, the source is asked to prove. Nobody is asked for such a file, and the source for nothing, until then.

use std::collections::VecDeque;
use std::sync::Arc;

use p2p_content::Manifest;

use super::room::room_of;
use super::{LOSSES, Run};
use crate::discovery::PeerRef;
use crate::transfer::gone::Gone;
use crate::transfer::manifest::{self, NoProof};
use crate::transfer::plan::SourceKey;
use crate::transfer::sink::SinkError;
use crate::transfer::tree::LONGEST;
use crate::transfer::tree::plan::FileKey;

/// Sources that are asked at once.
const ASKED: usize = 4;

/// A file of which a source gave what is false, or refused what should be there.
pub(super) struct Doubt {
    source: SourceKey,
    peer: PeerRef,
    key: FileKey,
    /// What was done; `None` where it only refused, which is not held against one that cannot say more.
    lie: Option<String>,
}

/// What came of one.
pub(super) type Settled = (Doubt, Result<Manifest, NoProof>);

impl Run<'_> {
    /// What came of this file from this source is false.
    pub(super) fn is_false(&mut self, source: SourceKey, key: FileKey, len: u64) {
        self.job.wasted(len);
        let lie = self.files.get(&key).map(|file| format!("it sent false bytes for {}", file.name));
        self.doubt(source, key, lie);
    }

    /// The source says that this file is not as long.
    pub(super) fn is_shorter(&mut self, source: SourceKey, key: FileKey) {
        if self.plan.doubted(source, key) {
            self.doubt(source, key, None);
        }
    }

    fn doubt(&mut self, source: SourceKey, key: FileKey, lie: Option<String>) {
        // Who goes at once after a lie is asked as one that stays.
        let Some(peer) = self.who(source).cloned() else { return self.plan.lacks(key) };
        self.doubts.push_back(Doubt { source, peer, key, lie });
        *self.in_doubt.entry(source).or_default() += 1;
    }

    /// Asks for the proofs that are due.
    pub(super) fn ask_for_proofs(&mut self) {
        while self.asking.len() < ASKED
            && let Some(doubt) = self.doubts.pop_front()
        {
            let Some(file) = self.files.get(&doubt.key) else {
                // Somebody else gave it meanwhile.
                self.certain(doubt.source);
                continue;
            };
            let (shared, content) = (Arc::clone(self.shared), file.content);
            self.asking.spawn(async move {
                let proof = manifest::ask(&shared, &doubt.peer, content).await;
                (doubt, proof)
            });
        }
    }

    /// What the source could prove.
    pub(super) async fn settled(&mut self, (doubt, proof): Settled) -> Result<(), SinkError> {
        let Doubt { source, peer, key, lie } = doubt;
        self.certain(source);
        let Some(file) = self.files.get(&key).cloned() else { return Ok(()) };
        match proof {
            Ok(manifest) if manifest.pieces().len() != file.size => {
                let len = manifest.pieces().len();
                self.job.listed_falsely(self.shared, &file.name, file.content, file.size, len, &peer).await?;
                // Requests for so many bytes as were told may still be answered: the file has another number from now on.
                self.forget(key);
                match len <= LONGEST {
                    true => {
                        self.job.claim_more(room_of(len));
                        self.add(crate::transfer::store::TreeFile { size: len, ..file });
                    }
                    false => self.lacking.are_longer = true,
                }
            }
            Ok(_) => {
                self.job.told_rightly(file.content);
                let why =
                    lie.unwrap_or_else(|| format!("it refuses {}, and proves that it is there", file.name));
                self.drop_source(source, &peer, &why, key);
            }
            Err(NoProof::False(error)) => {
                self.drop_source(source, &peer, &format!("its manifest is false: {error}"), key);
            }
            Err(NoProof::Silent(silence)) => {
                self.plan.refused(source, key);
                self.plan.lacks(key);
                if let Some(why) = lie {
                    // Whoever gives the file, or proves its length, tells whether that was a lie.
                    self.job.suspect(file.content, &peer, &why);
                    self.gone(source, &Gone::Lost(format!("{why}, and no proof of its length: {silence}")));
                    peer.id().and_then(|id| self.losses.insert(id, LOSSES));
                }
            }
        }
        self.ask_everyone();
        Ok(())
    }

    fn drop_source(&mut self, source: SourceKey, peer: &PeerRef, why: &str, key: FileKey) {
        if let Some(file) = self.files.get(&key) {
            self.job.source_dropped(peer, why, file.content);
        }
        self.sources.remove(&source);
        self.measured.left(source);
        self.plan.leave(source);
        self.plan.lacks(key);
        let (of_it, others) =
            self.doubts.drain(..).partition::<VecDeque<_>, _>(|doubt| doubt.source == source);
        self.doubts = others;
        for Doubt { key, .. } in of_it {
            self.plan.lacks(key);
        }
        self.in_doubt.remove(&source);
    }

    fn certain(&mut self, source: SourceKey) {
        if let Some(count) = self.in_doubt.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.in_doubt.remove(&source);
            }
        }
    }
}
