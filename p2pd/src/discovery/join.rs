//! Joining the network of a maestro, and leaving it.

use std::io;
use std::time::Duration;

use p2p_identity::{PeerId, WrongPeer};
use p2p_proto::control::{JoinAnswer, JoinRequest, MaestroState};
use p2p_service::wire::{self, ConnectError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::maestros::{Maestros, with_port};
use super::network::Joined;

/// How long `join` waits for the maestro's word.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Why no network was joined or left.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The configuration file says which maestros they are.
    #[error("the configuration file fixes the maestro ({0})")]
    Configured(String),
    /// Not a `host` or `host:port`, or not a peer ID.
    #[error("{0}")]
    Syntax(String),
    /// Somebody else answers than who was pinned.
    #[error("{address} is not the maestro that was pinned: {wrong}")]
    Changed {
        /// Where.
        address: String,
        /// Who was pinned, and who answers.
        wrong: WrongPeer,
    },
    /// The maestro does not admit this peer.
    #[error("{0}")]
    NotAdmitted(String),
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// There is no maestro at this address to be left.
    #[error("{0} was not joined")]
    NotJoined(String),
    /// What was joined could not be kept.
    #[error("cannot keep the network: {0}")]
    Io(#[from] io::Error),
}

impl Maestros {
    /// Joins the network of the maestro at this address, in place of all that were joined or, if the request says so, beside
    /// them; who answers there is pinned, unless the request says who must. Returns once the maestro has admitted this peer,
    /// or is in reserve for another one of the same network; otherwise nothing has changed. Goes on to one of the two ends
    /// even where nobody waits for the answer any more.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        self.common.tasks.spawn_detached("join", async move {
            // Whoever asked has gone.
            let _ = answer.send(this.join_now(request).await);
        });
        answered.await.unwrap_or_else(|_| Err(JoinError::Unreachable("the daemon is ending".to_owned())))
    }

    async fn join_now(&self, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
        let network = &self.common.network;
        let address = with_port(&request.address);
        let is_fixed = !self.configured.is_empty();
        if is_fixed && !self.configured.contains(&address) {
            return Err(JoinError::Configured(self.configured.join(", ")));
        }
        let asked: Option<PeerId> = match &request.maestro_id {
            Some(text) => {
                Some(text.parse().map_err(|error| JoinError::Syntax(format!("{text:?} is {error}")))?)
            }
            None => None,
        };
        let before = network.list();
        let known = before.iter().find(|joined| joined.address == address);
        let pinned = known.and_then(Joined::pinned);
        let expected = asked.or(pinned);
        let connection = wire::connect(&self.common.identity, std::slice::from_ref(&address), expected).await;
        let maestro = connection.map_err(|error| match error {
            ConnectError::WrongPeer { address, wrong } => JoinError::Changed { address, wrong },
            other => JoinError::Unreachable(other.to_string()),
        })?;
        let mut joined = Joined::new(address.clone());
        joined.maestro_id = Some(maestro.peer.to_string());
        joined.token = request.token;
        if let Some(known) = known
            && pinned == Some(maestro.peer)
        {
            joined.membership.clone_from(&known.membership);
        }
        let is_other = |other: &&Joined| other.address != address;
        let same = before.iter().filter(is_other).find(|other| other.pinned() == Some(maestro.peer));
        let mut list = match request.add || is_fixed {
            true => before.clone(),
            false => Vec::new(),
        };
        match list.iter_mut().find(|known| known.address == address) {
            Some(known) => *known = joined,
            None => list.push(joined),
        }
        let mut news = self.common.news.subscribe();
        let answers = self.at(&address).state().answers;
        network.set(list)?;
        self.follow(&before, Some(&address));
        let is_answered = || {
            let state = self.at(&address).state();
            state.answers > answers || state.state == MaestroState::Reserve
        };
        // What it answers with would keep others from telling news.
        let answered = timeout(JOIN_TIMEOUT, news.wait_for(|_| is_answered())).await.is_ok();
        let state = self.at(&address).state();
        let refused = match answered {
            true if state.state != MaestroState::Refused => None,
            true => Some(JoinError::NotAdmitted(state.detail.unwrap_or_default())),
            false => Some(JoinError::Unreachable(format!("{address} does not answer as a maestro does"))),
        };
        if let Some(refused) = refused {
            let tried = network.list();
            network.set(before)?;
            self.follow(&tried, Some(&address));
            return Err(refused);
        }
        let name = network.at(&address).and_then(|joined| joined.name).or_else(|| same?.name.clone());
        Ok(JoinAnswer {
            maestro_id: maestro.peer.to_string(),
            name: name.unwrap_or_else(|| address.clone()),
            first_contact: pinned != Some(maestro.peer) && same.is_none(),
            membership_until_ms: network.member_until_ms(maestro.peer),
            same_as: same.filter(|_| request.add || is_fixed).map(|same| same.address.clone()),
            address,
        })
    }

    /// Leaves the maestro at this address, or all of them: they hide this peer's files at once, and what is pinned is
    /// forgotten.
    pub async fn leave(&self, address: Option<&str>) -> Result<(), JoinError> {
        if !self.configured.is_empty() {
            return Err(JoinError::Configured(self.configured.join(", ")));
        }
        let before = self.common.network.list();
        let left = match address.map(with_port) {
            None => Vec::new(),
            Some(address) if before.iter().all(|joined| joined.address != address) => {
                return Err(JoinError::NotJoined(address));
            }
            Some(address) => before.iter().filter(|joined| joined.address != address).cloned().collect(),
        };
        self.common.network.set(left)?;
        self.follow(&before, None);
        Ok(())
    }
}
