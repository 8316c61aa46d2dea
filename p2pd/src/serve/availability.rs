//! One Availability stream: what is here of a content, and who else fetches it.

use p2p_content::ContentHash;
use p2p_proto::v1::{AvailabilityRequest, AvailabilityUpdate};
use tokio::sync::mpsc;
use tonic::Status;

use super::admission::{Admission, Guest};
use super::contents::Contents;
use crate::discovery::PeerRef;
use crate::transfer::Follower;

/// Answers that wait for the network.
pub(super) const AHEAD: usize = 4;

/// Finds what the caller asks after.
///
/// # Errors
/// Where nothing of it is here for the caller, or the request breaks the protocol.
pub(super) async fn follow(
    contents: &Contents,
    guest: Guest,
    request: AvailabilityRequest,
) -> Result<Follower, Status> {
    let content = ContentHash::try_from(request.content.as_ref())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let is_whole = contents.has_whole(content, guest).await?;
    let swarm = match contents.fetched(content, guest.viewer) {
        Some(swarm) => swarm,
        None if is_whole => contents.swarms().of(content),
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
    // Friends of this peer may be strangers to each other, and are not told of each other.
    let fetcher = fetcher.filter(|_| guest.is_member).map(|fetcher| fetcher.to_wire());
    Ok(swarm.follow(guest.id, fetcher, is_whole))
}

/// Tells the caller what is new until it ends the stream.
pub(super) async fn tell(
    mut follower: Follower,
    admission: Admission,
    guest: Guest,
    updates: mpsc::Sender<Result<AvailabilityUpdate, Status>>,
) {
    loop {
        let update = tokio::select! {
            update = follower.next() => update,
            () = updates.closed() => return,
        };
        let update = match update {
            Some(update) if admission.still_admits(guest) => Ok(update),
            _ => Err(Status::not_found("it is no longer here")),
        };
        let is_last = update.is_err();
        if updates.send(update).await.is_err() || is_last {
            return;
        }
    }
}
