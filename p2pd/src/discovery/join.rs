//! Joining the network of a maestro, and leaving it.

use std::io;
use std::time::Duration;

use p2p_identity::{PeerId, WrongPeer};
use p2p_proto::control::{JoinAnswer, JoinRequest, MaestroState};
use p2p_service::wire::{self, ConnectError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::maestros::{Maestros, is_told, with_port};
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
        // One after the other: each counts on what the one before it came to.
        let _joining = self.joining.lock().await;
        let network = &self.common.network;
        let address = with_port(&request.address);
        let is_fixed = !self.configured.is_empty();
        if is_fixed && !self.configured.contains(&address) {
            return Err(JoinError::Configured(self.configured.join(", ")));
        }
        let is_added = request.add || is_fixed;
        let asked: Option<PeerId> = match &request.maestro_id {
            Some(text) => {
                Some(text.parse().map_err(|error| JoinError::Syntax(format!("{text:?} is {error}")))?)
            }
            None => None,
        };
        let pinned = || network.at(&address).and_then(|known| known.pinned());
        let expected = asked.or_else(pinned);
        let connection = wire::connect(&self.common.identity, std::slice::from_ref(&address), expected).await;
        let maestro = connection.map_err(|error| match error {
            ConnectError::WrongPeer { address, wrong } => JoinError::Changed { address, wrong },
            other => JoinError::Unreachable(other.to_string()),
        })?;
        let found = maestro.peer;
        // Meanwhile its own connection may have met somebody else.
        if let Some(expected) = asked.or_else(pinned).filter(|expected| *expected != found) {
            return Err(JoinError::Changed { address, wrong: WrongPeer { expected, found } });
        }

        let mut joined = Joined::new(address.clone());
        joined.maestro_id = Some(found.to_string());
        joined.token = request.token;
        let mut before = Vec::new();
        let mut news = self.common.news.subscribe();
        let answers = self.at(&address).state().answers;
        self.change(Some(&address), |list| {
            before.clone_from(list);
            if let Some(known) = list.iter().find(|known| known.address == address)
                && known.pinned() == Some(found)
            {
                joined.membership.clone_from(&known.membership);
            }
            put(list, joined, is_added);
        })?;
        let is_answered = || {
            let state = self.at(&address).state();
            state.answers > answers || state.state == MaestroState::Reserve && self.is_served(found, &address)
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
            self.change(Some(&address), |list| put_back(list, before, &address, is_added))?;
            return Err(refused);
        }
        let (here, others): (Vec<_>, Vec<_>) = before.iter().partition(|known| known.address == address);
        let is_it = |known: &&Joined| known.pinned() == Some(found);
        let (was_pinned, same) = (here.iter().any(is_it), others.into_iter().find(is_it));
        let name = network.at(&address).and_then(|joined| joined.name).or_else(|| same?.name.clone());
        Ok(JoinAnswer {
            maestro_id: found.to_string(),
            name: name.unwrap_or_else(|| address.clone()),
            first_contact: !was_pinned && same.is_none(),
            membership_until_ms: network.member_until_ms(found),
            same_as: same.filter(|_| is_added).map(|same| same.address.clone()),
            address,
        })
    }

    /// Whether another maestro of this identity, beside the one at this address, is joined and has this peer's stream.
    fn is_served(&self, maestro: PeerId, beside: &str) -> bool {
        let joined = self.common.network.list().into_iter();
        let mut others = joined.filter(|joined| joined.address != beside && joined.pinned() == Some(maestro));
        others.any(|joined| is_told(&self.at(&joined.address).state()))
    }

    /// Leaves the maestro at this address, or all of them: they hide this peer's files at once, and what is pinned is
    /// forgotten.
    pub async fn leave(&self, address: Option<&str>) -> Result<(), JoinError> {
        if !self.configured.is_empty() {
            return Err(JoinError::Configured(self.configured.join(", ")));
        }
        let address = address.map(with_port);
        let mut was_joined = true;
        self.change(None, |list| match &address {
            None => list.clear(),
            Some(address) => {
                let before = list.len();
                list.retain(|joined| joined.address != *address);
                was_joined = list.len() < before;
            }
        })?;
        match address.filter(|_| !was_joined) {
            Some(address) => Err(JoinError::NotJoined(address)),
            None => Ok(()),
        }
    }
}

/// Puts one that is joined into the list, in place of what was known of its address; in place of all, unless it is added.
fn put(list: &mut Vec<Joined>, joined: Joined, is_added: bool) {
    list.retain(|known| is_added || known.address == joined.address);
    match list.iter_mut().find(|known| known.address == joined.address) {
        Some(known) => *known = joined,
        None => list.push(joined),
    }
}

/// Undoes what [`put`] did to the list of `before`, and nothing that was done since. An address that was left since stays
/// left, and so does all that it had taken the place of.
fn put_back(list: &mut Vec<Joined>, before: Vec<Joined>, address: &str, is_added: bool) {
    let Some(at) = list.iter().position(|joined| joined.address == address) else { return };
    list.splice(at..=at, before.into_iter().filter(|known| !is_added || known.address == address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(address: &str, name: &str) -> Joined {
        Joined { name: Some(name.to_owned()), ..Joined::new(address.to_owned()) }
    }

    #[test]
    fn a_join_that_fails_undoes_itself_and_nothing_else() {
        let before = vec![named("a", ""), named("b", ""), named("c", "")];
        for is_added in [true, false] {
            for address in ["b", "new"] {
                let mut list = before.clone();
                put(&mut list, named(address, "tried"), is_added);
                assert!(list.contains(&named(address, "tried")));
                put_back(&mut list, before.clone(), address, is_added);
                assert_eq!(list, before, "{address}, {is_added}");
            }
        }
        // Meanwhile one was left, and another one was told its name.
        let mut list = before.clone();
        put(&mut list, named("new", "tried"), true);
        list.remove(0);
        list[0] = named("b", "told");
        put_back(&mut list, before.clone(), "new", true);
        assert_eq!(list, [named("b", "told"), named("c", "")]);
        // All were left.
        put_back(&mut list, before.clone(), "gone", false);
        assert_eq!(list.len(), 2);
    }
}
