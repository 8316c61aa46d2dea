//! The maestros of this peer: joined and left, told of the catalog, asked who has what.
//!
//! Each identity is one network with one directory, however many addresses it is reached at. All networks are told
//! everything, and all are asked; of one network's maestros one answers for all.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use p2p_identity::PeerId;
use p2p_proto::control::{MaestroState, MaestroStatus};
use p2p_proto::v1;
use p2p_proto::v1::directory_client::DirectoryClient;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Myself;
use super::maestro::{Common, Maestro, Seats, State};
use super::network::Joined;
use crate::catalog::Catalog;

/// Port of a maestro's gRPC interface where none is given.
const DEFAULT_PORT: u16 = 9010;
/// How long a network may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a maestro may take until another one of its network is asked as well. The first answer counts.
const HEAD_START: Duration = Duration::from_millis(750);

/// The maestros of this peer. Clones are handles to the same.
#[derive(Clone)]
pub struct Maestros {
    pub(super) common: Common,
    pub(super) configured: Arc<[String]>,
    /// All that were ever joined in this run; which of them count is the network's matter.
    known: Arc<Mutex<Vec<Maestro>>>,
    /// Held while what is joined changes and the connections follow.
    changing: Arc<Mutex<()>>,
    /// Held while a network is joined, so that each join knows what the one before came to.
    pub(super) joining: Arc<tokio::sync::Mutex<()>>,
}

/// What a network's maestro says.
pub(super) struct Told<T> {
    /// What the one who was asked calls itself.
    pub(super) by: String,
    pub(super) answer: Result<T, Silence>,
}

/// Why a network does not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Silence {
    /// There is no connection.
    #[error("the maestro ({address}) cannot be asked: {why}")]
    Away { address: String, why: String },
    /// The question failed.
    #[error("the maestro does not answer: {}", .0.message())]
    Failed(Status),
}

/// The maestros of one network.
pub(super) struct Behind {
    network: Option<PeerId>,
    /// Those with the peer's stream first, then those in reserve, then the others.
    maestros: Vec<(Joined, Maestro)>,
}

impl Maestros {
    /// Connects to those that were joined; to those that the configuration file names, if it names any.
    pub fn start(
        identity: p2p_identity::Identity,
        myself: Arc<Myself>,
        catalog: Catalog,
        network: super::Network,
        members: super::Members,
        configured: &[String],
        tasks: &p2p_service::tasks::Tasks,
    ) -> io::Result<Self> {
        let mut addresses: Vec<String> = configured.iter().map(|address| with_port(address)).collect();
        addresses.dedup();
        if !addresses.is_empty() {
            let kept = |address: &String| network.at(address).unwrap_or_else(|| Joined::new(address.clone()));
            let joined: Vec<Joined> = addresses.iter().map(kept).collect();
            network.change(|list| *list = joined)?;
        }
        let (tasks, seats, news) = (tasks.clone(), Seats::default(), Arc::new(watch::Sender::new(0)));
        let common = Common { identity, myself, catalog, network, members, tasks, seats, news };
        let this = Self {
            common,
            configured: addresses.into(),
            known: Arc::default(),
            changing: Arc::default(),
            joining: Arc::default(),
        };
        for joined in this.common.network.list() {
            this.at(&joined.address).aim(true);
        }
        Ok(this)
    }

    /// Where the connections stand, in the order in which the maestros were given.
    pub fn status(&self) -> Vec<MaestroStatus> {
        let behind = self.networks();
        let status = |joined: Joined| {
            let state = self.at(&joined.address).state();
            let network = joined.pinned();
            let all = behind.iter().find(|behind| behind.network.is_some() && behind.network == network);
            // What one of them was told, all of them know.
            let acknowledged = match all {
                Some(all) => all.acknowledged(),
                None => state.acknowledged,
            };
            MaestroStatus {
                address: joined.address,
                maestro_id: joined.maestro_id,
                name: joined.name,
                state: state.state,
                since_ms: state.since_ms,
                detail: state.detail,
                changes_pending: self.common.catalog.count_after(acknowledged.unwrap_or(0)),
                membership_until_ms: network.and_then(|network| self.common.network.member_until_ms(network)),
            }
        };
        self.common.network.list().into_iter().map(status).collect()
    }

    /// The one that stands best; `None` where there is none.
    pub fn best(&self) -> Option<MaestroStatus> {
        self.status().into_iter().min_by_key(|status| rank(status.state))
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        !self.common.network.list().is_empty()
    }

    /// Resolves when it is known of every network whether one of its maestros answers: at once, but for the moments after
    /// the start and after joining a network, and then within this time.
    pub(super) async fn first_contact(&self, within: Duration) {
        let is_known = || {
            self.networks().iter().all(|Behind { maestros, .. }| {
                maestros.iter().any(|(_, maestro)| maestro.client().is_some())
                    || maestros.iter().all(|(_, it)| it.state().state != MaestroState::Connecting)
            })
        };
        let mut news = self.common.news.subscribe();
        // Whoever asked goes on without, where it takes longer.
        let _ = timeout(within, news.wait_for(|_| is_known())).await;
    }

    /// Asks every network at once. Of the maestros of one network the one with the peer's stream is asked first, and the
    /// next one where it fails or takes long.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(DirectoryClient<Channel>) -> F) -> Vec<Told<T>>
    where
        F: Future<Output = Result<T, Status>>,
    {
        join_all(self.networks().iter().map(|behind| behind.ask(&call))).await
    }

    /// A client of a maestro that has this peer's stream; else why there is none.
    pub(super) fn in_session(&self) -> Result<DirectoryClient<Channel>, String> {
        let networks = self.networks();
        let mut all = networks.iter().flat_map(|behind| &behind.maestros);
        all.find(|(_, maestro)| is_told(&maestro.state()))
            .and_then(|(_, maestro)| maestro.client())
            .ok_or_else(|| match networks.first() {
                Some(behind) => behind.away().to_string(),
                None => "no network is joined".to_owned(),
            })
    }

    /// This peer, as the maestros are told of it.
    pub(super) fn myself(&self) -> &Myself {
        &self.common.myself
    }

    /// All peers that the maestros know, network by network; and why a network does not answer.
    pub(super) async fn list_peers(&self) -> (Vec<Vec<v1::PeerEntry>>, Option<String>) {
        let told = self.ask(async |mut directory: DirectoryClient<Channel>| {
            let (mut peers, mut cursor) = (Vec::new(), String::new());
            loop {
                let request = v1::ListPeersRequest { cursor, ..v1::ListPeersRequest::default() };
                let answer = directory.list_peers(request).await?.into_inner();
                peers.extend(answer.peers);
                if answer.next.is_empty() {
                    return Ok(peers);
                }
                cursor = answer.next;
            }
        });
        let (mut lists, mut silent) = (Vec::new(), Vec::new());
        for told in told.await {
            match told.answer {
                Ok(peers) => lists.push(peers),
                Err(silence) => silent.push(silence),
            }
        }
        (lists, together(&silent))
    }

    /// Resolves when every network that was ever reached has acknowledged the catalog up to this sequence number; else says
    /// why one has not.
    pub async fn announced(&self, sequence: u64, wait: Duration) -> Result<(), String> {
        if !self.is_any() {
            return Err("no network is joined".to_owned());
        }
        let untold = || {
            let mut networks = self.networks();
            if networks.iter().any(|behind| behind.network.is_some()) {
                networks.retain(|behind| behind.network.is_some());
            }
            networks.retain(|behind| behind.acknowledged().is_none_or(|last| last < sequence));
            networks
        };
        let mut news = self.common.news.subscribe();
        let was_told = timeout(wait, news.wait_for(|_| untold().is_empty())).await.is_ok();
        match (was_told, untold().first()) {
            (true, _) | (_, None) => Ok(()),
            (false, Some(behind)) => Err(match behind.maestros.iter().any(|(_, it)| is_told(&it.state())) {
                true => format!("the maestro has not acknowledged it within {} s", wait.as_secs()),
                false => behind.away().to_string(),
            }),
        }
    }

    /// The connection at this address.
    pub(super) fn at(&self, address: &str) -> Maestro {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(maestro) = known.iter().find(|maestro| maestro.address() == address) {
            return maestro.clone();
        }
        let maestro = Maestro::start(&self.common, address.to_owned());
        known.push(maestro.clone());
        maestro
    }

    /// Changes what is joined, as it is now; connects to those that were not joined before, anew to the one at `again`, and
    /// leaves those that are not joined any more.
    pub(super) fn change(
        &self,
        again: Option<&str>,
        change: impl FnOnce(&mut Vec<Joined>),
    ) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.common.network.change(change)?;
        self.follow(&before, again);
        self.common.members.forget_left()
    }

    fn follow(&self, before: &[Joined], again: Option<&str>) {
        let now = self.common.network.list();
        let has = |list: &[Joined], address: &str| list.iter().any(|joined| joined.address == address);
        for gone in before.iter().filter(|joined| !has(&now, &joined.address)) {
            self.at(&gone.address).aim(false);
        }
        for joined in now {
            if again == Some(joined.address.as_str()) || !has(before, &joined.address) {
                self.at(&joined.address).aim(true);
            }
        }
    }

    /// The networks, in the order in which their first maestros were given; each address of unknown identity for itself.
    pub(super) fn networks(&self) -> Vec<Behind> {
        let mut networks: Vec<Behind> = Vec::new();
        for joined in self.common.network.list() {
            let (network, maestro) = (joined.pinned(), self.at(&joined.address));
            let known = networks.iter_mut().find(|behind| network.is_some() && behind.network == network);
            match known {
                Some(behind) => behind.maestros.push((joined, maestro)),
                None => networks.push(Behind { network, maestros: vec![(joined, maestro)] }),
            }
        }
        for behind in &mut networks {
            behind.maestros.sort_by_key(|(_, maestro)| rank(maestro.state().state));
        }
        networks
    }
}

impl Behind {
    fn acknowledged(&self) -> Option<u64> {
        acknowledged(&self.maestros.iter().map(|(_, maestro)| maestro.state()).collect::<Vec<_>>())
    }

    /// Why none of them can be asked.
    fn away(&self) -> Silence {
        let joined = self.maestros.iter().map(|(joined, _)| joined.address.as_str());
        let why = self.maestros.iter().find_map(|(_, maestro)| maestro.state().detail);
        Silence::Away {
            address: joined.collect::<Vec<_>>().join(", "),
            why: why.unwrap_or_else(|| "it is not connected yet".to_owned()),
        }
    }

    pub(super) async fn ask<T, F>(&self, call: impl Fn(DirectoryClient<Channel>) -> F) -> Told<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut left = self.maestros.iter().filter_map(|(joined, maestro)| {
            let client = maestro.client()?;
            Some((joined.name.as_ref().unwrap_or(&joined.address), client))
        });
        let call = &call;
        let (mut by, mut silence) = (String::new(), self.away());
        let mut asked = FuturesUnordered::new();
        let asking = async {
            loop {
                if let Some((name, client)) = left.next() {
                    asked.push(async move { (name, call(client).await) });
                }
                let answered = timeout(HEAD_START, asked.next());
                match answered.await {
                    Ok(None) => return None,
                    Ok(Some((name, answer))) => {
                        by.clone_from(name);
                        match answer {
                            Ok(answer) => return Some(answer),
                            Err(status) => {
                                let is_final = is_final(&status);
                                silence = Silence::Failed(status);
                                if is_final {
                                    return None;
                                }
                            }
                        }
                    }
                    Err(_) => {}
                }
            }
        };
        let answer = match timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(silence),
            Err(_) => Err(Silence::Failed(Status::deadline_exceeded("no answer within 5 s"))),
        };
        Told { by, answer }
    }
}

/// What a network's directory holds: what the one with the stream says, which need not share a database with one that said
/// more before; without a stream, the most that any said.
fn acknowledged(states: &[State]) -> Option<u64> {
    match states.iter().find(|state| is_told(state)) {
        Some(told) => told.acknowledged,
        None => states.iter().filter_map(|state| state.acknowledged).max(),
    }
}

/// Whether another maestro of the network would say the same.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange)
}

pub(super) fn is_told(state: &State) -> bool {
    matches!(state.state, MaestroState::InSync | MaestroState::Syncing)
}

/// The better a connection stands, the less.
pub(super) fn rank(state: MaestroState) -> u8 {
    match state {
        MaestroState::InSync => 0,
        MaestroState::Syncing => 1,
        MaestroState::Reserve => 2,
        MaestroState::Connecting => 3,
        MaestroState::Unreachable => 4,
        MaestroState::Refused => 5,
    }
}

/// Why some networks do not answer, in one text; `None` where all do.
pub(super) fn together(silent: &[Silence]) -> Option<String> {
    let whys: Vec<String> = silent.iter().map(Silence::to_string).collect();
    (!whys.is_empty()).then(|| whys.join("; "))
}

pub(super) fn with_port(address: &str) -> String {
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
    fn what_is_acknowledged_is_what_the_one_with_the_stream_says() {
        let state =
            |state, acknowledged| State { state, since_ms: 0, detail: None, acknowledged, answers: 0 };
        let before = state(MaestroState::Unreachable, Some(9));
        let reserve = state(MaestroState::Reserve, None);
        assert_eq!(acknowledged(&[before.clone(), state(MaestroState::Syncing, None)]), None);
        assert_eq!(acknowledged(&[before.clone(), state(MaestroState::InSync, Some(4))]), Some(4));
        assert_eq!(acknowledged(&[reserve, before]), Some(9));
        assert_eq!(acknowledged(&[]), None);
    }

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
