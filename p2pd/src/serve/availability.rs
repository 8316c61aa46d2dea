//! One Availability stream: what is here of a content, and who else fetches it.

use std::sync::Arc;
use std::time::Duration;

use p2p_content::ContentHash;
use p2p_identity::PeerId;
use p2p_proto::v1::{AvailabilityRequest, AvailabilityUpdate};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;

use super::admission::{Admission, Guest};
use super::contents::Contents;
use crate::discovery::PeerRef;
use crate::transfer::{Follower, Introduced};

/// Answers that wait for the network.
pub(super) const AHEAD: usize = 4;
/// How often it is looked whether the caller may still see the content.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Finds what the caller asks after.
///
/// # Errors
/// Where nothing of it is here for the caller, or the request breaks the protocol.
pub(super) async fn follow(
    contents: &Contents,
    guest: &Guest,
    request: AvailabilityRequest,
) -> Result<Follower, Status> {
    let content = ContentHash::try_from(request.content.as_ref())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let whole = contents.whole_len(content, guest).await?;
    let swarm = match contents.fetched(content, guest.viewer) {
        Some(swarm) => swarm,
        None if whole.is_some() => contents.swarms().of(content),
        None => return Err(Status::not_found("not found")),
    };
    let fetcher = match request.fetcher {
        None => None,
        Some(info) => {
            // As it is passed on: no more addresses than anybody would try.
            let fetcher = PeerRef::from_wire(info).filter(|fetcher| fetcher.id() == Some(guest.id));
            Some(fetcher.ok_or_else(|| Status::invalid_argument("the fetcher is not the caller"))?)
        }
    };
    // Friends of this peer may be strangers to each other, and who was sent a file or sees a hidden one is nobody else's
    // business: only members are told of each other, those of one network, and only for what all of them may see.
    let networks: Arc<[PeerId]> = guest.memberships.iter().map(|(network, _)| *network).collect();
    let is_public = !networks.is_empty() && fetcher.is_some() && contents.is_public(content).await?;
    let fetcher =
        fetcher.filter(|_| is_public).map(|fetcher| Introduced { info: fetcher.to_wire(), networks });
    Ok(swarm.follow(guest.id, fetcher, whole))
}

/// Tells the caller what is new until it ends the stream, or may not know any more.
pub(super) async fn tell(
    mut follower: Follower,
    contents: Contents,
    admission: Admission,
    guest: Guest,
    updates: mpsc::Sender<Result<AvailabilityUpdate, Status>>,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.reset();
    let mut brake = contents.brakes().of(guest.id).watch();
    loop {
        let update = tokio::select! {
            update = follower.next() => update.filter(|_| admission.still_admits(&guest)).map(Some),
            held = brake.next() => {
                Some(Some(AvailabilityUpdate { held_back: held.into(), ..AvailabilityUpdate::default() }))
            }
            _ = look.tick() => is_here(&contents, &follower, &guest).await.then_some(None),
            () = updates.closed() => return,
        };
        let update = match update {
            Some(None) => continue,
            Some(Some(update)) => Ok(update),
            None => Err(Status::not_found("it is no longer here")),
        };
        let is_last = update.is_err();
        if updates.send(update).await.is_err() || is_last {
            return;
        }
    }
}

async fn is_here(contents: &Contents, follower: &Follower, guest: &Guest) -> bool {
    let content = follower.content();
    // A catalog that cannot be read just now takes nothing back.
    contents.fetched(content, guest.viewer).is_some()
        || contents.whole_len(content, guest).await.map_or(true, |len| len.is_some())
}
