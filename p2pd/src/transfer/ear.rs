//! Hears from a source whether a limit of its own holds its bytes back, where nothing else is to be heard from it: nobody
//! can measure that from outside. Called by the streams of directories.

use bytes::Bytes;
use p2p_proto::v1::AvailabilityRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::source::said;
use crate::discovery::{Connections, PeerRef};

/// Listens to one source until it is dropped.
pub(super) struct Ear {
    told: watch::Receiver<bool>,
    /// Ends with it.
    _task: JoinSet<()>,
}

impl Ear {
    /// Listens to this source. It tells who asks after a content that it has; what holds back its bytes is the same for all
    /// of them.
    pub(super) fn to(connections: Connections, peer: PeerRef, content: Bytes) -> Self {
        let (tell, told) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let Ok(mut teller) = connections.peer(&peer).await else { return };
            let request = AvailabilityRequest { content, fetcher: None };
            let Ok(answer) = teller.availability(request).await else { return };
            let mut updates = answer.into_inner();
            while let Ok(Some(update)) = updates.message().await {
                if let Some(is_held) = said(&update) {
                    tell.send_replace(is_held);
                }
            }
        });
        Self { told, _task: task }
    }

    /// Whether a limit of the source holds its bytes back, as far as it has said.
    pub(super) fn is_held_back(&self) -> bool {
        *self.told.borrow()
    }

    /// Until it says something new; `false` where it says nothing more.
    pub(super) async fn hears(&mut self) -> bool {
        self.told.changed().await.is_ok()
    }
}

/// The same, where somebody may be listening.
pub(super) async fn hears(ear: &mut Option<Ear>) -> bool {
    match ear {
        Some(ear) => ear.hears().await,
        None => std::future::pending().await,
    }
}
