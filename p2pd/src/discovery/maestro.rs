//! The connection with the maestro at one address: kept open, and told of every change of the catalog where it is this one's
//! turn. Maestros with one identity are one directory, behind several addresses: one of them has the peer's stream, and the
//! others are in reserve, connected, so that the next one has it at once when it breaks.
//!
//! Owns the loop that connects, syncs, and tries again. Called by [`Maestros`](super::Maestros), which has all of them.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use p2p_identity::{Identity, PeerId};
use p2p_proto::MAX_MESSAGE_LEN;
use p2p_proto::control::MaestroState;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_service::health::{Heartbeat, PATIENCE};
use p2p_service::tasks::Tasks;
use p2p_service::wire::{self, ConnectError, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::network::Joined;
use super::session::{End, Session};
use super::{Members, Myself, Network, now_ms};
use crate::catalog::Catalog;

/// First pause before the next try, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What the connections with all maestros share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) identity: Identity,
    pub(super) myself: Arc<Myself>,
    pub(super) catalog: Catalog,
    pub(super) network: Network,
    pub(super) members: Members,
    pub(super) tasks: Tasks,
    pub(super) seats: Seats,
    /// Changes with every state of every connection.
    pub(super) news: Arc<watch::Sender<u64>>,
}

/// One stream at a time to the maestros of each identity. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Seats {
    known: Arc<Mutex<HashMap<PeerId, Arc<Semaphore>>>>,
}

impl Seats {
    fn of(&self, maestro: PeerId) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(maestro).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

/// The connection with the maestro at one address. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Maestro {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) common: Common,
    address: String,
    /// Whether there is to be a connection; told again where there is to be another one. What is known of the maestro is the
    /// network's, which is asked anew for each connection.
    target: watch::Sender<bool>,
    state: Mutex<State>,
    open: Mutex<Option<DirectoryClient<Channel>>>,
}

/// What is known of the connection now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) state: MaestroState,
    pub(super) since_ms: i64,
    pub(super) detail: Option<String>,
    /// Last catalog change that the maestro holds, as it said itself; `None` where it is told the whole catalog first.
    pub(super) acknowledged: Option<u64>,
    /// Counts the maestro's answers to Hello, welcome or not.
    pub(super) answers: u64,
}

impl Maestro {
    /// Starts the loop, which waits until it is [told](Maestro::aim) to connect.
    pub(super) fn start(common: &Common, address: String) -> Self {
        let state = State {
            state: MaestroState::Connecting,
            since_ms: now_ms(),
            detail: None,
            acknowledged: None,
            answers: 0,
        };
        let shared = Arc::new(Shared {
            common: common.clone(),
            address,
            target: watch::Sender::new(false),
            state: Mutex::new(state),
            open: Mutex::new(None),
        });
        let (running, token) = (Arc::clone(&shared), shared.common.tasks.token());
        shared.common.tasks.spawn("maestro", async move {
            running.keep_connected(token).await;
            Ok(())
        });
        Self { shared }
    }

    /// Connects, anew if there is a connection, by what the network says of this address; or ends the connection.
    pub(super) fn aim(&self, is_wanted: bool) {
        self.shared.show(MaestroState::Connecting, None);
        self.shared.target.send_replace(is_wanted);
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.shared.address
    }

    pub(super) fn state(&self) -> State {
        self.shared.lock_state().clone()
    }

    /// A client, where there is a connection.
    pub(super) fn client(&self) -> Option<DirectoryClient<Channel>> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn keep_connected(self: Arc<Self>, token: CancellationToken) {
        let mut target = self.target.subscribe();
        let mut pause = FIRST_PAUSE;
        let heart = self.common.tasks.heartbeat("maestro", PATIENCE);
        while !token.is_cancelled() {
            heart.beat();
            let is_wanted = *target.borrow_and_update();
            let Some(joined) = self.common.network.at(&self.address).filter(|_| is_wanted) else {
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
                    let end = self.serve(connection, &joined, &mut target, &token, &heart).await;
                    *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
                    } else if self.lock_state().state != MaestroState::Unreachable {
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
                    if self.lock_state().state != MaestroState::Refused {
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

    async fn connect(&self, joined: &Joined) -> Result<Connection, End> {
        let pinned = joined.pinned();
        match wire::connect(&self.common.identity, std::slice::from_ref(&joined.address), pinned).await {
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

    /// Waits for its turn among the maestros of this identity, then has the peer's stream until it ends.
    async fn serve(
        &self,
        connection: Connection,
        joined: &Joined,
        target: &mut watch::Receiver<bool>,
        token: &CancellationToken,
        heart: &Heartbeat,
    ) -> End {
        let directory = DirectoryClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_LEN)
            .max_encoding_message_size(MAX_MESSAGE_LEN);
        let seat = self.common.seats.of(connection.peer);
        let _seat = match Arc::clone(&seat).try_acquire_owned() {
            Ok(seat) => seat,
            Err(_) => {
                self.pin(connection.peer);
                self.open(directory.clone());
                self.show(MaestroState::Reserve, None);
                match self.in_reserve(seat, &connection, target, token, heart).await {
                    Ok(seat) => seat,
                    Err(end) => return end,
                }
            }
        };
        let session = Session { shared: self, joined, maestro: connection.peer, directory };
        session.run(target, token, heart).await
    }

    async fn in_reserve(
        &self,
        seat: Arc<Semaphore>,
        connection: &Connection,
        target: &mut watch::Receiver<bool>,
        token: &CancellationToken,
        heart: &Heartbeat,
    ) -> Result<OwnedSemaphorePermit, End> {
        let (mut turn, mut closed) = (pin!(seat.acquire_owned()), pin!(connection.closed()));
        loop {
            heart.beat();
            tokio::select! {
                biased;
                // What a machine's end leaves open, keepalive closes. Known at once, or its turn may come before that.
                () = &mut closed => {
                    return Err(End::Lost { welcomed: false, why: "the connection broke".to_owned() });
                }
                seat = &mut turn => match seat {
                    Ok(seat) => return Ok(seat),
                    Err(_) => return Err(End::Asked),
                },
                () = token.cancelled() => return Err(End::Asked),
                _ = target.changed() => return Err(End::Asked),
                () = heart.due() => {}
            }
        }
    }

    fn pin(&self, maestro: PeerId) {
        let kept = self.common.network.update(&self.address, |joined| {
            joined.maestro_id = Some(maestro.to_string());
        });
        if let Err(error) = kept {
            tracing::error!(
                %error,
                "cannot keep what is known of the network: {error}; set the state directory right, or p2pd may have to \
                 join again after a restart"
            );
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
        {
            let mut known = self.lock_state();
            if known.state == state && known.detail == detail && answers == 0 {
                return;
            }
            if known.state != state {
                known.since_ms = now_ms();
            }
            known.state = state;
            known.detail = detail;
            known.answers += answers;
        }
        self.tell();
    }

    pub(super) fn acknowledged(&self, sequence: Option<u64>) {
        self.lock_state().acknowledged = sequence;
        self.tell();
    }

    pub(super) fn open(&self, directory: DirectoryClient<Channel>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
    }

    fn tell(&self) {
        self.common.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    fn lock_state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
