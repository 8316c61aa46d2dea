//! Whole programs together: what the integration tests, `cargo xtask demo` and the benches start and ask.
//!
//! A [`Network`] is one maestro and some peers, each a real process with a directory of its own. Beside them stand the
//! characters that no program of this project plays: a plain peer and a client of the first system ([`SeedPeer`],
//! [`SeedClient`], written from its contract alone), and a peer that lies ([`LyingPeer`]).
//!
//! **Owns** the processes and directories that it makes, and takes them away when it is dropped. **Asserts nothing**: every
//! function answers with a `Result`, since a demonstration uses them as much as a test does. **Waits** for facts, by
//! [`eventually`], never for time.

mod anonymous;
mod control;
mod daemon;
mod demonstration;
mod eventually;
mod files;
mod journal;
mod lab;
mod lying_peer;
mod network;
mod peer;
mod postgres;
mod programs;
mod rest;
mod seed_client;
mod seed_peer;
mod settings;
mod unended;

pub use anonymous::call_without_certificate;
pub use control::{Ctl, Said};
pub use daemon::{Daemon, Ended, Launch, Ready};
pub use demonstration::{MAESTRO_GRPC, PORTS, demonstration};
pub use eventually::{as_soon_as, eventually};
pub use files::{hash_of_file, random_bytes, random_file, size_of_tree, write_file};
pub use journal::{Entry, Journal};
pub use lab::Lab;
pub use lying_peer::{
    Asked, Conduct, Deed, HeldFile, LyingPeer, MemberClient, ShowMembership, Trickle, Untruth,
};
pub use network::{Network, NetworkBuilder};
pub use peer::{Maestro, Peer};
pub use postgres::PostgresServer;
pub use programs::{Programs, programs};
pub use rest::{Answer, Rest};
pub use seed_client::SeedClient;
pub use seed_peer::SeedPeer;
pub use settings::Settings;
pub use unended::{begun, grpc_call, unended};
