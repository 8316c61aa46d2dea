//! "Please fetch this from me": whether this peer wants it, and how it goes.

use p2p_content::{ContentHash, FileName};
use p2p_proto::control::{Transfer, TransferState};
use p2p_proto::v1::offer_update::State;
use p2p_proto::v1::{OfferRequest, OfferUpdate};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::admission::Guest;
use crate::catalog::Viewer;
use crate::discovery::PeerRef;
use crate::transfer::{FetchError, Transfers};

/// From whom files are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptOffers {
    /// From friends.
    #[default]
    Friends,
    /// From friends and all members of the network.
    Network,
    /// From nobody.
    Off,
}

/// Answers offers. Clones are handles to the same.
#[derive(Clone)]
pub struct Offers {
    transfers: Transfers,
    accept: watch::Receiver<AcceptOffers>,
}

impl Offers {
    /// Starts these transfers, for those whom `accept` names.
    pub fn new(transfers: Transfers, accept: watch::Receiver<AcceptOffers>) -> Self {
        Self { transfers, accept }
    }

    /// Decides, and tells how it goes until the file is here or never will be.
    ///
    /// # Errors
    /// Where the offer breaks the protocol.
    pub(super) async fn take(
        &self,
        guest: Guest,
        offer: OfferRequest,
        updates: mpsc::Sender<Result<OfferUpdate, Status>>,
    ) -> Result<(), Status> {
        let content = ContentHash::try_from(offer.content.as_ref())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let sender = offer.sender.and_then(PeerRef::from_wire).filter(|sender| sender.id() == Some(guest.id));
        let sender = sender.ok_or_else(|| Status::invalid_argument("the sender is not the caller"))?;
        let accepted = match (*self.accept.borrow(), guest.viewer) {
            (AcceptOffers::Off, _) => Err("this peer takes no files from others".to_owned()),
            (AcceptOffers::Friends, Viewer::Network) => {
                Err("this peer takes files from friends only, and you are not one".to_owned())
            }
            _ => Ok(()),
        };
        let begun = match accepted {
            Err(why) => Err(why),
            Ok(()) => match FileName::parse(&offer.name) {
                Err(error) => Err(error.to_string()),
                Ok(name) => self
                    .transfers
                    .accept(sender.clone(), content, offer.size, name)
                    .await
                    .map_err(|error| refusal(&error)),
            },
        };
        match begun {
            Ok(transfer) => {
                follow(self.transfers.watch(transfer.id), transfer, updates).await;
            }
            Err(why) => {
                let peer_id = sender.id().map(|id| id.to_string());
                tracing::info!(
                    peer_id,
                    peer = sender.name(),
                    content_hash = %content,
                    reason = why,
                    "refused a file that {sender} offers: {why}"
                );
                let refused =
                    OfferUpdate { state: State::Refused.into(), message: why, ..Default::default() };
                // Whoever offered has gone already.
                let _ = updates.send(Ok(refused)).await;
            }
        }
        Ok(())
    }
}

/// What the sender may know of it.
fn refusal(error: &FetchError) -> String {
    match error {
        FetchError::NameTaken { name, .. } => {
            format!("another file is there under the name {name}; send it with --as NAME")
        }
        other => {
            tracing::error!(error = %other, "an offer could not be taken: {other}; look at the disk of the state directory");
            "the receiver failed; its log knows more".to_owned()
        }
    }
}

/// Tells of a transfer until it ends, or nobody listens: it goes on without anybody to tell.
async fn follow(
    watching: Option<watch::Receiver<Transfer>>,
    begun: Transfer,
    updates: mpsc::Sender<Result<OfferUpdate, Status>>,
) {
    if updates.send(Ok(update(&begun))).await.is_err() || begun.state.is_ended() {
        return;
    }
    let Some(mut watching) = watching else { return };
    loop {
        tokio::select! {
            changed = watching.changed() => if changed.is_err() { return },
            () = updates.closed() => return,
        }
        let transfer = watching.borrow_and_update().clone();
        if updates.send(Ok(update(&transfer))).await.is_err() || transfer.state.is_ended() {
            return;
        }
    }
}

fn update(transfer: &Transfer) -> OfferUpdate {
    let (state, message) = match transfer.state {
        TransferState::Done => (State::Delivered, String::new()),
        TransferState::Failed | TransferState::Cancelled => {
            let why = transfer.reason.clone();
            (State::Refused, why.unwrap_or_else(|| "the receiver cancelled it".to_owned()))
        }
        _ => (State::Accepted, transfer.reason.clone().unwrap_or_default()),
    };
    OfferUpdate { state: state.into(), message, done_bytes: transfer.done_bytes, name: transfer.name.clone() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::timeout;

    use super::*;

    fn transfer() -> Transfer {
        let transfer = json!({
            "id": 1, "name": "a.bin", "done_bytes": 0, "wasted_bytes": 0, "state": "running", "proven": true,
            "sources": [], "rate": 0, "created_ms": 0,
        });
        serde_json::from_value(transfer).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_caller_who_has_gone_however_long_the_transfer_stays_as_it_is() {
        let (known, watching) = watch::channel(transfer());
        let (updates, mut told) = mpsc::channel(1);
        let following = tokio::spawn(follow(Some(watching), transfer(), updates));
        assert_eq!(told.recv().await.unwrap().unwrap().state(), State::Accepted);
        known.send_modify(|transfer| transfer.done_bytes = 5);
        assert_eq!(told.recv().await.unwrap().unwrap().done_bytes, 5);
        drop(told);
        timeout(Duration::from_secs(10), following).await.expect("it is still told of the transfer").unwrap();
        assert_eq!(known.receiver_count(), 0);
    }
}
