//! The connection with the maestro: kept open, told of every change of the catalog, and asked who has what.
//!
//! Owns the one loop that connects, syncs, and tries again. Its state is seen through [`Maestro::status`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use p2p_identity::{Identity, PeerId, WrongPeer};
use p2p_proto::MAX_MESSAGE_LEN;
use p2p_proto::control::{JoinAnswer, JoinRequest, MaestroState, MaestroStatus};
use p2p_proto::v1;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_service::health::PATIENCE;
use p2p_service::tasks::Tasks;
use p2p_service::wire::{self, ConnectError};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::network::Joined;
use super::session::{End, Session};
use super::{Members, Myself, Network, now_ms};
use crate::catalog::Catalog;

/// Port of a maestro's gRPC interface where none is given.
const DEFAULT_PORT: u16 = 9010;
/// First pause before the next try, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// How long `join` waits for the maestro's word.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// The connection with the maestro. Clones are handles to the same.
#[derive(Clone)]
pub struct Maestro {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) myself: Arc<Myself>,
    pub(super) catalog: Catalog,
    pub(super) network: Network,
    pub(super) members: Members,
    pub(super) tasks: Tasks,
    configured: Option<String>,
    state: watch::Sender<State>,
    session: Mutex<Option<DirectoryClient<Channel>>>,
}

/// What is known of the connection now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) state: MaestroState,
    pub(super) since_ms: i64,
    pub(super) detail: Option<String>,
    /// Last catalog change that the maestro acknowledged in this session.
    pub(super) acknowledged: Option<u64>,
    /// Counts the maestro's answers to Hello, welcome or not.
    answers: u64,
}

/// Why no network was joined or left.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The configuration file says which maestro it is.
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
    /// What was joined could not be kept.
    #[error("cannot keep the network: {0}")]
    Io(#[from] io::Error),
}

impl Maestro {
    /// Starts the loop. `configured` is the maestro that the configuration file names.
    pub fn start(
        identity: Identity,
        myself: Arc<Myself>,
        catalog: Catalog,
        network: Network,
        members: Members,
        configured: Option<String>,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let configured = configured.map(|address| with_port(&address));
        if let Some(address) = &configured
            && network.current().is_none_or(|joined| joined.address != *address)
        {
            network.set(Some(Joined::new(address.clone())))?;
        }
        let state = State {
            state: MaestroState::Connecting,
            since_ms: now_ms(),
            detail: None,
            acknowledged: None,
            answers: 0,
        };
        let shared = Arc::new(Shared {
            identity,
            myself,
            catalog,
            network,
            members,
            tasks: tasks.clone(),
            configured,
            state: watch::Sender::new(state),
            session: Mutex::new(None),
        });
        let (running, token) = (Arc::clone(&shared), tasks.token());
        tasks.spawn("maestro", async move {
            running.keep_connected(token).await;
            Ok(())
        });
        Ok(Self { shared })
    }

    /// Where the connection stands; `None` where no network is joined.
    pub fn status(&self) -> Option<MaestroStatus> {
        let joined = self.shared.network.current()?;
        let state = self.shared.state.borrow().clone();
        Some(MaestroStatus {
            address: joined.address,
            maestro_id: joined.maestro_id,
            name: joined.name,
            state: state.state,
            since_ms: state.since_ms,
            detail: state.detail,
            changes_pending: self.shared.catalog.count_after(state.acknowledged.unwrap_or(0)),
            membership_until_ms: self.membership_until_ms(),
        })
    }

    /// Resolves when it is known whether the maestro answers: at once, but for the moments after the start and after joining
    /// a network, and then within this time.
    pub(super) async fn first_contact(&self, within: Duration) {
        if self.status().is_some() {
            let mut state = self.shared.state.subscribe();
            // Whoever asked goes on without, where it takes longer.
            let _ = timeout(within, state.wait_for(|state| state.state != MaestroState::Connecting)).await;
        }
    }

    /// A client of the maestro's directory, where there is a session; else why there is none.
    pub(super) fn directory(&self) -> Result<DirectoryClient<Channel>, String> {
        let session = self.shared.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        session.ok_or_else(|| match self.status() {
            Some(status) => {
                let why = status.detail.unwrap_or_else(|| "it is not connected yet".to_owned());
                format!("the maestro ({}) cannot be asked: {why}", status.address)
            }
            None => "no network is joined".to_owned(),
        })
    }

    /// This peer, as the maestro is told of it.
    pub(super) fn myself(&self) -> &Myself {
        &self.shared.myself
    }

    /// All peers that the maestro knows.
    pub(super) async fn list_peers(&self, wait: Duration) -> Result<Vec<v1::PeerEntry>, String> {
        let mut directory = self.directory()?;
        let listing = async {
            let (mut peers, mut cursor) = (Vec::new(), String::new());
            loop {
                let request = v1::ListPeersRequest { limit: 0, cursor };
                let answer = directory.list_peers(request).await?.into_inner();
                peers.extend(answer.peers);
                if answer.next.is_empty() {
                    return Ok::<_, tonic::Status>(peers);
                }
                cursor = answer.next;
            }
        };
        match timeout(wait, listing).await {
            Ok(Ok(peers)) => Ok(peers),
            Ok(Err(status)) => Err(format!("the maestro does not list its peers: {}", status.message())),
            Err(_) => Err("the maestro does not answer".to_owned()),
        }
    }

    /// Joins the network of the maestro at this address; who answers there is pinned, unless the request says who
    /// must. Returns once the maestro has admitted this peer; otherwise nothing has changed. Goes on to one of the two
    /// ends even where nobody waits for the answer any more.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        self.shared.tasks.spawn_detached("join", async move {
            // Whoever asked has gone.
            let _ = answer.send(this.join_now(request).await);
        });
        answered.await.unwrap_or_else(|_| Err(JoinError::Unreachable("the daemon is ending".to_owned())))
    }

    async fn join_now(&self, request: JoinRequest) -> Result<JoinAnswer, JoinError> {
        let shared = &self.shared;
        let address = with_port(&request.address);
        if let Some(configured) = &shared.configured
            && *configured != address
        {
            return Err(JoinError::Configured(configured.clone()));
        }
        let asked: Option<PeerId> = match &request.maestro_id {
            Some(text) => {
                Some(text.parse().map_err(|error| JoinError::Syntax(format!("{text:?} is {error}")))?)
            }
            None => None,
        };
        let before = shared.network.current();
        let pinned = before.as_ref().filter(|joined| joined.address == address).and_then(Joined::pinned);
        let expected = asked.or(pinned);
        let connection = wire::connect(&shared.identity, std::slice::from_ref(&address), expected).await;
        let maestro = connection.map_err(|error| match error {
            ConnectError::WrongPeer { address, wrong } => JoinError::Changed { address, wrong },
            other => JoinError::Unreachable(other.to_string()),
        })?;
        let mut joined = Joined::new(address.clone());
        joined.maestro_id = Some(maestro.peer.to_string());
        joined.token = request.token;
        if pinned == Some(maestro.peer)
            && let Some(before) = &before
        {
            joined.membership.clone_from(&before.membership);
        }
        let mut state = shared.state.subscribe();
        let answers = state.borrow_and_update().answers;
        shared.network.set(Some(joined))?;
        let answered = timeout(JOIN_TIMEOUT, state.wait_for(|state| state.answers > answers)).await;
        let refused = match answered {
            Ok(Ok(state)) if state.state != MaestroState::Refused => None,
            Ok(Ok(state)) => Some(JoinError::NotAdmitted(state.detail.clone().unwrap_or_default())),
            _ => Some(JoinError::Unreachable(format!("{address} does not answer as a maestro does"))),
        };
        if let Some(refused) = refused {
            shared.network.set(before)?;
            return Err(refused);
        }
        let joined = shared.network.current();
        Ok(JoinAnswer {
            address,
            maestro_id: maestro.peer.to_string(),
            name: joined.and_then(|joined| joined.name).unwrap_or_default(),
            first_contact: pinned != Some(maestro.peer),
            membership_until_ms: self.membership_until_ms(),
        })
    }

    /// Leaves the network: its maestro hides this peer's files at once, and its identity is forgotten.
    pub async fn leave(&self) -> Result<(), JoinError> {
        match &self.shared.configured {
            Some(configured) => Err(JoinError::Configured(configured.clone())),
            None => Ok(self.shared.network.set(None)?),
        }
    }

    /// Resolves when the maestro has acknowledged the catalog up to this sequence number; else says why it has not.
    pub async fn announced(&self, sequence: u64, wait: Duration) -> Result<(), String> {
        if self.status().is_none() {
            return Err("no network is joined".to_owned());
        }
        let mut state = self.shared.state.subscribe();
        let told = state.wait_for(|state| state.acknowledged.is_some_and(|last| last >= sequence));
        match timeout(wait, told).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(match self.directory() {
                Ok(_) => format!("the maestro has not acknowledged it within {} s", wait.as_secs()),
                Err(why) => why,
            }),
        }
    }

    fn membership_until_ms(&self) -> Option<i64> {
        let until = self.shared.network.membership()?.not_after_unix_secs();
        Some(i64::try_from(until).unwrap_or(i64::MAX).saturating_mul(1000))
    }
}

impl Shared {
    async fn keep_connected(self: Arc<Self>, token: tokio_util::sync::CancellationToken) {
        let mut target = self.network.watch();
        let mut pause = FIRST_PAUSE;
        let heart = self.tasks.heartbeat("maestro", PATIENCE);
        while !token.is_cancelled() {
            heart.beat();
            let Some(joined) = target.borrow_and_update().clone() else {
                tokio::select! {
                    () = token.cancelled() => {}
                    changed = target.changed() => if changed.is_err() { return },
                    () = heart.due() => {}
                }
                continue;
            };
            let began = Instant::now();
            let end = match heart.while_waiting(self.connect(&joined)).await {
                Ok(connection) => {
                    let directory = DirectoryClient::new(connection.channel)
                        .max_decoding_message_size(MAX_MESSAGE_LEN)
                        .max_encoding_message_size(MAX_MESSAGE_LEN);
                    let session =
                        Session { shared: &self, joined: &joined, maestro: connection.peer, directory };
                    let end = session.run(&mut target, &token, &heart).await;
                    *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    end
                }
                Err(end) => end,
            };
            match end {
                End::Asked => {
                    self.show(MaestroState::Connecting, None);
                    pause = FIRST_PAUSE;
                    continue;
                }
                End::Lost { welcomed, why } => {
                    if welcomed {
                        // What fails again and again right after the welcome is not tried faster and faster.
                        if began.elapsed() > LAST_PAUSE {
                            pause = FIRST_PAUSE;
                        }
                        let address = &joined.address;
                        tracing::warn!(
                            address,
                            reason = why,
                            "lost the maestro at {address}, trying again: {why}"
                        );
                    } else if self.state.borrow().state != MaestroState::Unreachable {
                        let address = &joined.address;
                        tracing::warn!(
                            address,
                            reason = why,
                            "the maestro at {address} cannot be reached, trying again: {why}"
                        );
                    }
                    self.show(MaestroState::Unreachable, Some(why));
                }
                End::Refused(why) => {
                    if self.state.borrow().state != MaestroState::Refused {
                        let address = &joined.address;
                        tracing::error!(
                            address,
                            reason = why,
                            "the maestro at {address} does not admit this peer: {why}; join again with `p2pctl join`, \
                             or ask who runs the maestro"
                        );
                    }
                    self.answered(MaestroState::Refused, Some(why));
                    pause = LAST_PAUSE;
                }
            }
            // Jitter, so that the peers of a restarted maestro do not all come back in one moment.
            let wait = pause.mul_f64(rand::random_range(0.5..1.5));
            tokio::select! {
                () = token.cancelled() => {}
                _ = target.changed() => pause = FIRST_PAUSE,
                () = tokio::time::sleep(wait) => pause = (pause * 2).min(LAST_PAUSE),
            }
            // What changed, if anything, is read at the top of the loop.
            target.mark_changed();
        }
    }

    async fn connect(&self, joined: &Joined) -> Result<wire::Connection, End> {
        let pinned = joined.pinned();
        match wire::connect(&self.identity, std::slice::from_ref(&joined.address), pinned).await {
            Ok(connection) => {
                if pinned.is_none() {
                    let (address, maestro_id) = (&joined.address, connection.peer);
                    tracing::info!(
                        address,
                        %maestro_id,
                        "first contact with the maestro at {address}: its identity {maestro_id} is pinned"
                    );
                }
                Ok(connection)
            }
            Err(ConnectError::WrongPeer { address, wrong }) => Err(End::Refused(format!(
                "{address} is not the maestro that was pinned: {wrong}. If the maestro really has a new identity, \
                 accept it with `p2pctl join {address} --fingerprint {}`",
                wrong.found
            ))),
            Err(other) => Err(End::Lost { welcomed: false, why: other.to_string() }),
        }
    }

    pub(super) fn show(&self, state: MaestroState, detail: Option<String>) {
        self.change(state, detail, 0);
    }

    /// The same, where the maestro itself has spoken.
    pub(super) fn answered(&self, state: MaestroState, detail: Option<String>) {
        self.change(state, detail, 1);
    }

    fn change(&self, state: MaestroState, detail: Option<String>, answers: u64) {
        self.state.send_if_modified(|known| {
            let modified = known.state != state || known.detail != detail || answers > 0;
            if known.state != state {
                known.since_ms = now_ms();
            }
            known.state = state;
            known.detail = detail;
            known.answers += answers;
            modified
        });
    }

    pub(super) fn acknowledged(&self, sequence: u64) {
        self.state.send_modify(|state| state.acknowledged = Some(sequence));
    }

    pub(super) fn open(&self, directory: DirectoryClient<Channel>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
    }
}

fn with_port(address: &str) -> String {
    let has_port = match address.rsplit_once(':') {
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    };
    match has_port {
        true => address.to_owned(),
        false if address.contains(':') && !address.starts_with('[') => format!("[{address}]:{DEFAULT_PORT}"),
        false => format!("{address}:{DEFAULT_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (given, full) in [
            ("maestro.example", "maestro.example:9010"),
            ("maestro.example:1", "maestro.example:1"),
            ("10.0.0.1", "10.0.0.1:9010"),
            ("::1", "[::1]:9010"),
            ("[::1]", "[::1]:9010"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(with_port(given), full);
        }
    }
}
