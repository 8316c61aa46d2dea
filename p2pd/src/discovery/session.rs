//! One session with the maestro: Hello, Welcome, then changes up and acknowledgements down until it ends. What is told
//! when is in `telling`.

use std::pin::pin;
use std::time::Duration;

use p2p_identity::{Membership, PeerId};
use p2p_proto::control::MaestroState;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::sync_request::Message as Up;
use p2p_proto::v1::sync_response::Message as Down;
use p2p_proto::v1::{self, SyncRequest, SyncResponse};
use p2p_service::health::Heartbeat;
use p2p_service::status::counted;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::draws::{DRAWN, Draws};
use super::maestro::Shared;
use super::members::Listing;
use super::network::Joined;
use super::now_ms;
use super::telling::{IN_FLIGHT, Telling};

/// How long the maestro may take to say Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the maestro may take to close its side after Goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a session ended.
pub(super) enum End {
    /// On purpose: the daemon stops, or another network is joined.
    Asked,
    /// The connection broke or never was.
    Lost {
        /// Whether the maestro had said Welcome.
        welcomed: bool,
        /// Why.
        why: String,
    },
    /// The maestro does not admit this peer, or is somebody else.
    Refused(String),
}

pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) joined: &'a Joined,
    pub(super) maestro: PeerId,
    pub(super) directory: DirectoryClient<Channel>,
}

impl Session<'_> {
    pub(super) async fn run(
        mut self,
        target: &mut watch::Receiver<bool>,
        token: &CancellationToken,
        heart: &Heartbeat,
    ) -> End {
        let (up, requests) = mpsc::channel(IN_FLIGHT + 2);
        if up.send(SyncRequest { message: Some(Up::Hello(self.hello())) }).await.is_err() {
            return lost(false, "the stream closed at once");
        }
        let call = self.directory.sync(ReceiverStream::new(requests));
        let mut down = match heart.while_waiting(timeout(WELCOME_TIMEOUT, call)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return ended(false, &status),
            Err(_) => return lost(false, "it does not answer"),
        };
        let welcome = match heart.while_waiting(timeout(WELCOME_TIMEOUT, down.message())).await {
            Ok(Ok(Some(SyncResponse { message: Some(Down::Welcome(welcome)) }))) => welcome,
            Ok(Ok(_)) => return lost(false, "it does not speak the protocol: no Welcome came"),
            Ok(Err(status)) => return ended(false, &status),
            Err(_) => return lost(false, "it does not say Welcome"),
        };
        let mut telling = self.welcomed(&welcome);
        let mut changed = self.shared.common.catalog.watch();
        let (mut draws, first) = Draws::begin(self.shared.common.members.count(self.maestro));
        let mut draw = pin!(sleep(first));
        loop {
            heart.beat();
            let last = *changed.borrow_and_update();
            while telling.has_more(last) {
                match telling.next(&self.shared.common.catalog).await {
                    Ok(said) => {
                        for message in said {
                            if up.send(SyncRequest { message: Some(message) }).await.is_err() {
                                return lost(true, "the stream closed");
                            }
                        }
                    }
                    Err(error) => return lost(true, &format!("the catalog cannot be read: {error}")),
                }
            }
            let state = if telling.is_done() { MaestroState::InSync } else { MaestroState::Syncing };
            self.shared.show(state, None);
            tokio::select! {
                () = token.cancelled() => return self.goodbye(&up, &mut down).await,
                _ = target.changed() => return self.goodbye(&up, &mut down).await,
                _ = changed.changed() => {}
                () = heart.due() => {}
                () = &mut draw => {
                    self.draw_members();
                    draw.as_mut().reset(Instant::now() + draws.next());
                }
                message = down.message() => match message {
                    Ok(Some(SyncResponse { message: Some(message) })) => self.heard(message, &mut telling),
                    Ok(Some(_)) => {}
                    Ok(None) => return lost(true, "it closed the stream"),
                    Err(status) => return ended(true, &status),
                },
            }
        }
    }

    fn hello(&self) -> v1::Hello {
        let myself = &self.shared.common.myself;
        v1::Hello {
            name: myself.name.clone(),
            addresses: myself.addresses.clone(),
            rest_url: myself.rest_url.clone(),
            grpc_port: myself.grpc_port.into(),
            version: super::Myself::VERSION.to_owned(),
            epoch: self.shared.common.catalog.epoch(),
            last_sequence: *self.shared.common.catalog.watch().borrow(),
            join_token: self.joined.token.clone().unwrap_or_default(),
            compares_buckets: true,
        }
    }

    fn welcomed(&self, welcome: &v1::Welcome) -> Telling {
        let (shared, address) = (self.shared, &self.joined.address);
        let kept = shared.common.network.update(address, |joined| {
            joined.maestro_id = Some(self.maestro.to_string());
            joined.name = Some(welcome.name.clone());
            joined.token = None;
        });
        if let Err(error) = kept {
            tracing::error!(
                %error,
                "cannot keep what is known of the network: {error}; set the state directory right, or p2pd may have to \
                 join again after a restart"
            );
        }
        self.granted(welcome.membership.as_ref());
        shared.open(self.directory.clone());
        let telling = Telling::resume(welcome, &shared.common.catalog);
        shared.acknowledged((!telling.begins_anew()).then(|| telling.sent()));
        let (changes, maestro_id) = (shared.common.catalog.count_after(telling.sent()), self.maestro);
        let to_tell = if telling.begins_anew() {
            "the whole catalog".to_owned()
        } else {
            counted(changes, "change", "changes")
        };
        tracing::info!(
            address,
            %maestro_id,
            changes,
            "the maestro {} at {address} ({}) has admitted this peer; to be told: {to_tell}",
            welcome.name,
            maestro_id.short(),
        );
        shared.answered(MaestroState::Syncing, None);
        telling
    }

    fn heard(&self, message: Down, telling: &mut Telling) {
        let acknowledged = telling.heard(&message);
        if matches!(message, Down::Ack(_)) {
            self.shared.acknowledged(acknowledged);
        }
        match message {
            Down::Membership(grant) => self.granted(Some(&grant)),
            Down::Welcome(_) => tracing::debug!("the maestro says Welcome again"),
            Down::Ack(_) | Down::Compare(_) | Down::Tell(_) => {}
        }
    }

    fn granted(&self, grant: Option<&v1::MembershipGrant>) {
        let Some(grant) = grant else { return };
        let membership = Membership::from_bytes(&grant.membership).and_then(|membership| {
            membership.verify(self.maestro, self.shared.common.myself.id, 0).map(|()| membership)
        });
        let kept = match membership {
            Ok(membership) => self.shared.common.network.update(&self.joined.address, |joined| {
                joined.membership = Some(data_encoding::HEXLOWER.encode(&membership.to_bytes()));
            }),
            Err(error) => {
                tracing::warn!(%error, "the maestro sent a membership that proves nothing: {error}");
                return;
            }
        };
        if let Err(error) = kept {
            tracing::error!(
                %error,
                "cannot keep the membership: {error}; set the state directory right, or other peers may refuse this one \
                 after a restart"
            );
        }
    }

    /// Has the maestro tell some members that are here.
    fn draw_members(&self) {
        let (mut directory, members, itself) =
            (self.directory.clone(), self.shared.common.members.clone(), self.shared.common.myself.id);
        let name = self.shared.common.network.at(&self.joined.address).and_then(|joined| joined.name);
        let (network, name) = (self.maestro, name.unwrap_or_else(|| self.joined.address.clone()));
        // Beside the stream, so that a slow answer holds up no change; it ends with the connection.
        self.shared.common.tasks.spawn_detached("members", async move {
            let request =
                v1::ListPeersRequest { limit: DRAWN as u32, drawn: true, ..v1::ListPeersRequest::default() };
            match timeout(WELCOME_TIMEOUT, directory.list_peers(request)).await {
                Ok(Ok(answer)) => {
                    let listing = Listing { network, told_by: name, told_ms: now_ms() };
                    if let Err(error) = members.merge(&listing, answer.into_inner().peers, itself) {
                        tracing::error!(
                            %error,
                            "cannot keep the list of members: {error}; set the state directory right, or p2pd knows \
                             nobody without the maestro after a restart"
                        );
                    }
                }
                _ => tracing::debug!("the maestro did not list its peers"),
            }
        });
    }

    async fn goodbye(&self, up: &mpsc::Sender<SyncRequest>, down: &mut Streaming<SyncResponse>) -> End {
        let said = up.send(SyncRequest { message: Some(Up::Goodbye(v1::Goodbye {})) });
        let heard = async {
            if said.await.is_ok() {
                while let Ok(Some(_)) = down.message().await {}
            }
        };
        // A maestro that does not answer learns of it by the lease.
        let _ = timeout(GOODBYE_TIMEOUT, heard).await;
        End::Asked
    }
}

fn lost(welcomed: bool, why: &str) -> End {
    End::Lost { welcomed, why: why.to_owned() }
}

fn ended(welcomed: bool, status: &Status) -> End {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => End::Refused(status.message().to_owned()),
        _ => lost(welcomed, status.message()),
    }
}
