//! The daemon: every room is made here, in the order in which they stand on each other, and handed to those above.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use p2p_identity::{Identity, PeerId};
use p2p_proto::MAX_MESSAGE_LEN;
use p2p_proto::control::{LoopStatus, MaestroState};
use p2p_proto::files::file_service_server::FileServiceServer;
use p2p_service::bearer::load_or_create_token;
use p2p_service::config::{Reloaded, Sources};
use p2p_service::http;
use p2p_service::listen::{self, SocketFile};
use p2p_service::passage::MessageRoom;
use p2p_service::state_dir::StateDir;
use p2p_service::tasks::Tasks;
use p2p_service::wire::{self, Accept};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::api::{Api, ApiFacts, RestPolicy, control_router, rest_router};
use crate::catalog::Catalog;
use crate::config::{Config, InForce};
use crate::discovery::{Answerer, Connections, Friends, Locator, Maestros, Members, Myself, Network};
use crate::doctor::Doctor;
use crate::limits::Limits;
use crate::serve::{
    AcceptOffers, Admission, Bulk, Contents, Files, Gate, Offers, PeerService, WholeFileLimit,
};
use crate::shares::{ShareError, Shares, Timing};
use crate::status::Summary;
use crate::transfer::{Intake, Outbox, Sends, Store, Swarms, TransferSettings, Transfers};

/// Bytes of one message to the `Peer` service, at most.
const MAX_REQUEST_LEN: usize = 64 * 1024;

/// Bytes of long messages of others, whole files that they upload, that are held at once.
const MESSAGES: usize = 32 << 20;
/// How long one may take: as long as the longest takes at the pace that it must have where others wait for its room.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(64);

/// File of the identity, in the state directory.
const KEY_FILE: &str = "identity.key";

/// Mode of the control socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// A daemon that has its state directory and its listeners, and does not serve yet.
pub struct Daemon {
    config: Config,
    sources: Sources,
    state: StateDir,
    identity: Identity,
    rest: TcpListener,
    grpc: TcpListener,
    control: UnixListener,
    socket_file: Option<SocketFile>,
}

/// A daemon that serves. What it owns goes with it.
pub struct Running {
    shares: Shares,
    settings: watch::Sender<TransferSettings>,
    transfers: Transfers,
    limits: Limits,
    accept: watch::Sender<AcceptOffers>,
    in_force: InForce,
    summary: tokio::sync::Mutex<Summary>,
    _state: StateDir,
    _socket_file: Option<SocketFile>,
}

impl Daemon {
    /// Takes the state directory, the identity and the listeners; nobody else has them then.
    pub async fn bind(config: Config, sources: Sources) -> anyhow::Result<Self> {
        // First of all: systemd hands the socket to whoever asks first.
        let passed = listen::passed_unix();
        let state = StateDir::open(&config.state_dir)?;
        let identity = Identity::load_or_create(&state.join(KEY_FILE))?;
        let rest = listen::tcp("REST", "[rest] listen", &config.rest.listen).await?;
        let grpc = listen::tcp("gRPC", "[grpc] listen", &config.grpc.listen).await?;
        let (control, socket_file) = match passed {
            Some(socket) => (socket, None),
            None => {
                let socket = listen::unix(&config.control.socket, SOCKET_MODE)?;
                (socket, Some(SocketFile::guard(&config.control.socket)?))
            }
        };
        Ok(Self { config, sources, state, identity, rest, grpc, control, socket_file })
    }

    /// Where the REST interface listens.
    pub fn rest_addr(&self) -> std::io::Result<SocketAddr> {
        self.rest.local_addr()
    }

    /// Where the gRPC interface listens.
    pub fn grpc_addr(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// This peer.
    pub fn id(&self) -> PeerId {
        self.identity.id()
    }

    /// Starts everything.
    pub async fn run(self, tasks: &Tasks) -> anyhow::Result<Running> {
        let started_ms = crate::discovery::now_ms();
        let Self { config, sources, state, identity, rest, grpc, control, socket_file } = self;
        let (rest_addr, grpc_addr) = (rest.local_addr()?, grpc.local_addr()?);
        let myself = Arc::new(introduce(&config, identity.id(), rest_addr, grpc_addr));

        let catalog = Catalog::open(&state.private("catalog.sqlite")?)?;
        catalog.rest_between_changes(tasks);
        make_default_share(&config)?;
        let shares =
            Shares::start(config.share_configs(), state.path(), catalog.clone(), tasks, Timing::default())
                .await?;

        let network = Network::open(state.join("network.json"))?;
        let members = Members::open(state.join("members.json"), network.clone())?;
        let connections = Connections::new(identity.clone(), network.clone(), members.clone(), tasks.clone());
        let friends = Friends::open(state.join("friends.json"), connections.clone(), members.clone())?;
        let maestros = Maestros::start(
            identity.clone(),
            Arc::clone(&myself),
            catalog.clone(),
            network.clone(),
            members.clone(),
            config.maestro.addresses(),
            tasks,
        )?;
        let locator = Locator::new(
            Arc::clone(&myself),
            catalog.clone(),
            maestros.clone(),
            friends.clone(),
            members.clone(),
            connections.clone(),
        );

        let store = Store::open(&state.private("transfers.sqlite")?)?;
        let settings = watch::Sender::new(config.transfer_settings());
        let outbox = Outbox::open(&state.join("outbox"), store.clone()).await?;
        let swarms = Swarms::default();
        let limits = Limits::open(state.join("limits.json"), config.configured_limits())?;
        limits.follow_schedule(tasks);
        let transfers = Transfers::start(
            store,
            Arc::clone(&myself),
            swarms.clone(),
            limits.clone(),
            locator.clone(),
            connections.clone(),
            shares.clone(),
            catalog.clone(),
            settings.subscribe(),
            config.transfers.running as usize,
            tasks,
        )
        .await?;
        let intake = Intake::new(shares.clone(), settings.subscribe());
        let sends = Sends::new(outbox.clone(), connections.clone(), Arc::clone(&myself), tasks.clone());

        let accept = watch::Sender::new(config.transfers.accept_offers);
        let admission = Admission::new(friends.clone(), network);
        let contents = Contents::new(catalog.clone(), shares.clone(), outbox, swarms, limits.clone());
        let summary = Summary::new(
            catalog.clone(),
            shares.clone(),
            transfers.clone(),
            maestros.clone(),
            contents.served(),
        );
        let answerer =
            Answerer::new(Arc::clone(&myself), catalog.clone(), friends.clone(), connections.clone());
        let offers = Offers::new(transfers.clone(), accept.subscribe());
        let files = Files::new(contents.clone(), intake.clone(), accept.subscribe());
        let peer = PeerService::new(
            admission.clone(),
            answerer,
            contents,
            offers,
            Arc::clone(&myself),
            members,
            tasks.clone(),
        );
        serve_grpc(grpc, &identity, &config, admission, (peer, files), tasks)?;

        let facts = ApiFacts {
            name: myself.name.clone(),
            rest_url: myself.rest_url.clone(),
            grpc_port: myself.grpc_port,
            rest_addr,
            grpc_addr,
            state_dir: config.state_dir.clone(),
            started_ms,
            version: Myself::VERSION.to_owned(),
        };
        let in_force = InForce::new(config.clone(), sources);
        let doctor = Doctor {
            identity: identity.id(),
            state_dir: config.state_dir.clone(),
            key_file: state.join(KEY_FILE),
            grpc_addr,
            shares: shares.clone(),
            maestros: maestros.clone(),
            locator: locator.clone(),
            settings: settings.subscribe(),
        };
        let api = Arc::new(Api {
            catalog,
            shares: shares.clone(),
            locator,
            maestros: maestros.clone(),
            friends,
            transfers: transfers.clone(),
            intake,
            sends,
            limits: limits.clone(),
            doctor,
            identity: identity.id(),
            facts,
            loops: loops(shares.clone(), maestros.clone()),
            in_force: in_force.clone(),
            shutdown: tasks.token(),
        });
        let token = load_or_create_token(&state.join("api-token"))?;
        let policy = RestPolicy {
            token: config.rest.require_token.then(|| token.into()),
            allowed_hosts: config.rest.allowed_hosts.clone(),
        };
        let (rest_app, control_app) = (rest_router(Arc::clone(&api), policy), control_router(api));
        let token = tasks.token();
        tasks.spawn("rest", async move {
            http::serve(rest, rest_app, token).await;
            Ok(())
        });
        let token = tasks.token();
        tasks.spawn("control", async move {
            http::serve(control, control_app, token).await;
            Ok(())
        });
        let (_state, _socket_file) = (state, socket_file);
        let summary = tokio::sync::Mutex::new(summary);
        Ok(Running { shares, settings, transfers, limits, accept, in_force, summary, _state, _socket_file })
    }
}

impl Running {
    /// One line for `systemctl status`.
    pub async fn status(&self) -> String {
        self.summary.lock().await.line().await
    }

    /// Takes another configuration, as far as it can be taken without a restart.
    ///
    /// # Errors
    /// Where the shares cannot be taken; the old ones stay.
    pub async fn reload(&self, new: Config, sources: Sources) -> Result<Reloaded, ShareError> {
        if new.shares != self.in_force.config().shares {
            self.shares.reload(new.share_configs()).await?;
        }
        self.settings.send_replace(new.transfer_settings());
        self.transfers.set_running(new.transfers.running as usize);
        self.limits.configure(new.configured_limits());
        self.accept.send_replace(new.transfers.accept_offers);
        Ok(self.in_force.reload(new, sources))
    }
}

fn serve_grpc(
    listener: TcpListener,
    identity: &Identity,
    config: &Config,
    admission: Admission,
    (peer, files): (PeerService, Files),
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let connections = wire::incoming(listener, identity, Accept::bulk(config.grpc.plaintext.into()), tasks)?;
    let room = MessageRoom::patient(MESSAGES, MESSAGE_PATIENCE);
    let peer = Bulk::new(peer, MAX_REQUEST_LEN, MAX_MESSAGE_LEN);
    let peer = Gate::new(peer, admission.clone(), room.clone(), tasks.clone());
    let files = FileServiceServer::new(files).max_decoding_message_size(MAX_MESSAGE_LEN + 4096);
    let files = Gate::new(WholeFileLimit::new(files), admission, room, tasks.clone()).with_plaintext();
    let router = wire::server().add_service(peer).add_service(files);
    let token = tasks.token();
    tasks.spawn("grpc", async move {
        router.serve_with_incoming_shutdown(connections, token.cancelled_owned()).await?;
        Ok(())
    });
    Ok(())
}

/// The share that the defaults name is the daemon's own, and made by it; others are their owners' to make.
fn make_default_share(config: &Config) -> anyhow::Result<()> {
    for share in &config.shares {
        if share.path.parent() == Some(config.state_dir.as_path()) && !share.path.exists() {
            std::fs::create_dir(&share.path)
                .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", share.path.display()))?;
        }
    }
    Ok(())
}

fn introduce(config: &Config, id: PeerId, rest: SocketAddr, grpc: SocketAddr) -> Myself {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let rest_host = if rest.ip().is_loopback() { "localhost" } else { &host };
    Myself {
        id,
        name: if config.name.is_empty() { host.clone() } else { config.name.clone() },
        addresses: addresses(config, grpc),
        rest_url: match config.rest.url.as_str() {
            "" => format!("http://{rest_host}:{}", rest.port()),
            url => url.trim_end_matches('/').to_owned(),
        },
        grpc_port: grpc.port(),
    }
}

/// What others are told: what the configuration says, else the address that is listened on, else, where that is all of
/// them, those of this host. The maestro adds the one that it sees.
fn addresses(config: &Config, grpc: SocketAddr) -> Vec<String> {
    if !config.grpc.announce.is_empty() {
        return config.grpc.announce.clone();
    }
    if !grpc.ip().is_unspecified() {
        return vec![grpc.to_string()];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this host are not known: {error}; name them in [grpc] announce");
        Vec::new()
    });
    let is_reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        // A link-local address means nothing without the name of an interface, which is another on each host.
        IpAddr::V6(ip) => grpc.is_ipv6() && !ip.is_loopback() && (ip.segments()[0] & 0xffc0) != 0xfe80,
    };
    let ips = interfaces.into_iter().map(|interface| interface.ip());
    ips.filter(is_reachable).map(|ip| SocketAddr::new(ip, grpc.port()).to_string()).collect()
}

fn loops(shares: Shares, maestros: Maestros) -> crate::api::Loops {
    Arc::new(move || {
        let mut loops: Vec<LoopStatus> = shares
            .rows()
            .into_iter()
            .map(|share| LoopStatus {
                name: format!("share {}", share.name),
                last_ms: None,
                result: match (share.unavailable, share.pending) {
                    (Some(why), _) => format!("not available: {why}"),
                    (None, 0) => "all files are in the catalog".to_owned(),
                    (None, 1) => "1 file to look at".to_owned(),
                    (None, pending) => format!("{pending} files to look at"),
                },
            })
            .collect();
        loops.extend(maestros.status().into_iter().map(|status| LoopStatus {
            name: format!("maestro {}", status.address),
            last_ms: Some(status.since_ms),
            result: status.detail.unwrap_or_else(|| match (status.state, status.changes_pending) {
                (MaestroState::Reserve, _) => "in reserve".to_owned(),
                (_, 1) => "1 change to tell".to_owned(),
                (_, pending) => format!("{pending} changes to tell"),
            }),
        }));
        loops
    })
}
