//! What a run stands on: the manifest, which pieces are remembered, and how long the content is.
//!
//! A length that somebody told is a claim: who announces a false one would make every honest source look like a liar. It
//! is proven by the end of the content ([`manifest`]), or by its last piece. What comes in pieces is not begun without
//! the proof. What comes whole is asked for at once, since most who tell a length tell the right one; where that does not
//! prove itself, or cannot be had, either the source or who told the length was wrong, and the proof is asked for then.

use p2p_content::{Bitmap, ContentHash, Manifest};

use super::job::Job;
use super::jobs::Shared;
use super::manifest;
use super::outcome::Outcome;
use crate::discovery::PeerRef;

/// What a run stands on.
pub(super) struct Basis {
    pub(super) manifest: Manifest,
    /// Nothing where no run of this transfer had this manifest before.
    pub(super) remembered: Option<Bitmap>,
    pub(super) is_len_proven: bool,
    /// It is to be written down.
    pub(super) is_new: bool,
}

/// A source that gave what does not prove itself, or nothing, of a content whose length is not proven.
pub(super) struct Doubt {
    pub(super) peer: PeerRef,
    pub(super) why: String,
}

/// What a run of this content can stand on, of which somebody told that it has so many bytes.
///
/// # Errors
/// Where nobody proves it now, or what is remembered cannot be read.
pub(super) async fn find(
    shared: &Shared,
    job: &Job,
    sources: &[PeerRef],
    content: ContentHash,
    told: u64,
    doubt: Option<&Doubt>,
) -> Result<Basis, Outcome> {
    let kept = shared.store.proven(job.id, content, told).await?;
    if let Some(kept) = &kept {
        let last = kept.manifest.pieces().count() - 1;
        let is_len_proven = kept.is_len_proven || kept.pieces.get(last);
        if is_len_proven || last == 0 && doubt.is_none() {
            let (manifest, remembered) = (kept.manifest.clone(), Some(kept.pieces.clone()));
            return Ok(Basis { manifest, remembered, is_len_proven, is_new: false });
        }
    } else if doubt.is_none()
        && let Some(manifest) = Manifest::single(content, told)
    {
        return Ok(Basis { manifest, remembered: None, is_len_proven: false, is_new: true });
    }
    let mut asked: Vec<PeerRef> = sources.to_vec();
    if let Some(Doubt { peer, why }) = doubt {
        job.suspect(content, peer, why);
        // Who is suspected can prove what it gave right.
        asked.retain(|other| other.id() != peer.id());
        asked.insert(0, peer.clone());
    }
    let fetched = manifest::fetch(shared, job, &asked, content).await;
    let (manifest, by) = fetched.map_err(|why| Outcome::NoSources { why, serving: None })?;
    match manifest.pieces().len() {
        len if len == told => job.told_rightly(content),
        len => job.told_falsely(shared, content, told, len, &by).await?,
    }
    let remembered = kept.filter(|kept| kept.manifest == manifest).map(|kept| kept.pieces);
    Ok(Basis { manifest, remembered, is_len_proven: true, is_new: true })
}
