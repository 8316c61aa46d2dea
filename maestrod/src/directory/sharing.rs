//! What the maestros of one directory owe each other, where several can use its store at once. Each peer's stream is at one of
//! them, which holds the peer; what becomes of the peers of a maestro that is gone, the others see to.

use std::time::Duration;

use async_trait::async_trait;
use p2p_identity::PeerId;

use super::{DirectoryError, Session};

/// How often each maestro shows that it is alive.
pub const BEAT: Duration = Duration::from_secs(2);
/// A maestro that has not shown it for so long is gone; by the clock of the database, which all share.
pub const GONE: Duration = Duration::from_secs(10);

/// How a peer is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Its stream is at this maestro.
    Connected,
    /// Its stream was at this maestro, or at one that is gone: its files are shown until its lease ends.
    Leased,
    /// Its files are hidden.
    Hidden,
}

/// A store that several maestros use at once, as one of them sees it.
#[async_trait]
pub trait Sharing: Send + Sync {
    /// Shows or hides the files of `peer`, which this maestro holds from then on, and notes when it was last heard of, if
    /// given. `false`: nothing is changed. A peer is shown as connected in the name of its latest session, whoever holds it;
    /// it is leased or hidden by whoever holds it, whatever sessions have begun since, which may never be shown.
    async fn show(
        &self,
        peer: PeerId,
        session: Session,
        shown: Shown,
        heard_ms: Option<i64>,
    ) -> Result<bool, DirectoryError>;

    /// Shows the others that this maestro is alive; to be called every [`BEAT`]. `false`: they took it for gone, and its
    /// peers for theirs, so those that are connected are to be shown again.
    async fn beat(&self) -> Result<bool, DirectoryError>;

    /// Takes over visible peers that are held by a maestro that is gone: each has a lease to come back to any maestro. Some
    /// of them, where there are many. None by one that was itself silent until lately: a database that was away has
    /// silenced the others, too.
    async fn take_over(&self) -> Result<Vec<(PeerId, Session)>, DirectoryError>;

    /// The visible peers that this maestro holds. Whoever took them over and did not hear that it did learns so of them.
    async fn held(&self) -> Result<Vec<(PeerId, Session)>, DirectoryError>;

    /// Those of `peers` whose streams are at another maestro that is alive, in order.
    async fn connected_elsewhere(&self, peers: &[PeerId]) -> Result<Vec<PeerId>, DirectoryError>;

    /// This maestro ends: the others need not wait until it is silent for long.
    async fn resign(&self) -> Result<(), DirectoryError>;
}
