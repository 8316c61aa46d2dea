//! What failed transfers leave: what is proven of their contents is kept for a day, for whoever fetches the same again, as
//! one does whose name was taken; and given back when nobody does, or when its room is needed. Called by jobs, and by the
//! list of them.

use std::sync::Arc;
use std::time::Duration;

use p2p_content::ContentHash;

use super::job::Job;
use super::jobs::Shared;
use super::sink::{self, SinkError, blocking};
use super::store::{Left, Store, StoreError};
use super::story;
use crate::discovery::now_ms;

/// How long it is kept, and how often it is looked at.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// What is said of it to who is told that the transfer failed.
pub(super) const SAID: &str = "what is here of it is kept for a day, and not fetched again";

/// Whether something of a transfer that fails is kept.
pub(super) async fn is_kept(shared: &Shared, job: &Job) -> bool {
    // Of one that is not proven there is nothing that another one could go on with.
    shared.store.has_proven(job.id).await.unwrap_or(false)
}

/// Has the transfer of this number go on with what is kept of its content.
pub(super) async fn hand_over(shared: &Shared, content: ContentHash, to: u64) {
    let _alone = shared.leftovers.lock().await;
    let handed = async {
        let left = shared.store.left().await?;
        let mut is_whose = false;
        for Left { id, .. } in left.into_iter().rev().filter(|left| left.content == content) {
            let (dir, old, new) =
                (shared.shares.downloads(), sink::part_key(content, id), sink::part_key(content, to));
            if is_whose || !blocking(move || Ok(dir.rename_part(&old, &new)?)).await? {
                give_back(shared, id, content).await?;
                continue;
            }
            // Who finds a part and no proofs of it fetches all of it, and who finds proofs and no part does too.
            shared.store.hand_over(id, to).await?;
            story::takes_over(to, id);
            is_whose = true;
        }
        Ok::<_, SinkError>(())
    };
    if let Err(error) = handed.await {
        tracing::warn!(
            transfer_id = to,
            %error,
            "transfer {to} cannot go on with what another one left, and fetches all of its file: {error}"
        );
    }
}

/// Gives all of it back, since its room is needed. Whether there was any.
pub(super) async fn make_room(shared: &Shared) -> bool {
    give_back_until(shared, i64::MAX).await > 0
}

/// Gives back what is kept for too long, as long as the daemon runs.
pub(super) async fn look_after(shared: Arc<Shared>) {
    let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    loop {
        give_back_until(&shared, now_ms().saturating_sub(kept_ms)).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The keys of the parts that are kept.
pub(super) async fn part_keys(store: &Store) -> Result<Vec<String>, StoreError> {
    let left = store.left().await?;
    Ok(left.into_iter().map(|left| sink::part_key(left.content, left.id)).collect())
}

/// Gives back what failed until then; of how many transfers.
async fn give_back_until(shared: &Shared, until_ms: i64) -> u64 {
    let _alone = shared.leftovers.lock().await;
    let mut count = 0;
    let given = async {
        let left = shared.store.left().await?;
        for Left { id, content, .. } in left.into_iter().filter(|left| left.ended_ms <= until_ms) {
            give_back(shared, id, content).await?;
            count += 1;
        }
        Ok::<_, SinkError>(())
    };
    if let Err(error) = given.await {
        tracing::warn!(%error, "what failed transfers left stays for now: {error}");
    }
    count
}

async fn give_back(shared: &Shared, id: u64, content: ContentHash) -> Result<(), SinkError> {
    sink::discard(shared.shares.downloads(), sink::part_key(content, id)).await?;
    shared.store.forget_left(id).await?;
    story::given_back(id);
    Ok(())
}
