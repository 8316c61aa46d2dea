//! The directory server: who is here, and who has which content. It never carries file data.
//!
//! [`server::Server`] is the whole of it, for `main` and for tests alike. The rooms, and what each may know:
//!
//! - `directory`: the index behind one trait, and its store. Knows no network.
//! - `registry`: who is online, pure; `presence`: the loop that owns it and shows it in the directory.
//! - `sync`: one peer's stream, with `admission` and `profile` for who comes in.
//! - `census`: the directory in numbers; `metrics`: what is counted; `retention`: who is forgotten.
//! - `grpc` and `rest`: the edges that answer questions. Only they, and `sync`, know HTTP and gRPC.
//! - `server`: the composition; nobody but `main` imports it.
//! - `doctor` and `status`: what another process finds out of the one that runs.

pub mod admission;
mod ask;
mod census;
pub mod config;
pub mod directory;
pub mod doctor;
mod grpc;
mod metrics;
pub mod presence;
pub mod profile;
mod reach;
pub mod registry;
mod rest;
mod retention;
pub mod server;
pub mod status;
pub mod sync;
